// A cluster of thread blocks: its barrier, each other's shared memory, and copies that do not wait.
//
// Requires: scalar.cuh. Clusters need compute capability 9.0; the copies need 8.0. The header that runs these sources on
// a CPU has functions of the same names.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

DEVICE int cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
}

// The barrier of all threads of the cluster in two halves: between them a thread may do what concerns nobody else.
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// The same place in the shared memory of another block of the cluster.
template <class V> DEVICE V* in_block(V* place, int rank) {
    unsigned long long there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(rank));
    return reinterpret_cast<V*>(there);
}

// Begin to copy 4, 8 or 16 bytes from global to shared memory, both aligned to their size.
template <int BYTES> DEVICE void copy_later(void* to, const void* from) {
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(from), "n"(BYTES) : "memory");
}
// Wait for the copies that this thread began; for those of others a barrier must follow.
DEVICE void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif
