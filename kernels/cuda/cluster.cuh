// Blocks and what they wait for: the kernels before, each other in a cluster, and copies that go on meanwhile.
//
// Requires: scalar.cuh. Clusters and copies through a gate need compute capability 9.0; the other copies wait before
// 8.0. The header that runs these sources on a CPU has functions of the same names.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// An address as the instructions for shared memory take it.
typedef unsigned SharedAddress;
DEVICE SharedAddress shared_address(const void* place) {
    return static_cast<unsigned>(__cvta_generic_to_shared(place));
}
// The same address, computed here and not again where it is used.
DEVICE SharedAddress computed(SharedAddress address) {
    asm volatile("" : "+r"(address));
    return address;
}

// Of a kernel that was launched to begin early (cupy_early.py): wait until the kernels before it have ended, then let the
// next one begin. Nothing that another kernel writes may be read before. Elsewhere there is nothing to wait for.
DEVICE void follow() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

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

// Begin to copy 4, 8 or 16 bytes from global to shared memory, both aligned to their size; copy_later_if: 16 bytes that
// are read once, or as many zeros. The copies that a thread began since it last called commit_copies are a group; it can
// wait for all of its groups but the last LATER, or for all copies. For those of other threads a barrier must follow.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <int BYTES> struct alignas(BYTES) Bytes {
    unsigned char v[BYTES];
};
template <int BYTES> DEVICE void copy_later(void* to, const void* from) {
    *static_cast<Bytes<BYTES>*>(to) = *static_cast<const Bytes<BYTES>*>(from);
}
DEVICE void copy_later_if(bool exists, SharedAddress to, const void* from) {
    Bytes<16>& place = *static_cast<Bytes<16>*>(__cvta_shared_to_generic(to));
    place = exists ? *static_cast<const Bytes<16>*>(from) : Bytes<16>{};
}
DEVICE void finish_copies() {}
DEVICE void commit_copies() {}
template <int LATER> DEVICE void wait_for_copies() {}
#else
template <int BYTES> DEVICE void copy_later(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES)
                 : "memory");
}
DEVICE void copy_later_if(bool exists, SharedAddress to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
DEVICE void finish_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LATER> DEVICE void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}
#endif

// A gate is 8 bytes of shared memory. One thread announces how many bytes will come through it, any thread begins to
// copy them, a run of bytes at a time, and threads wait at the gate until all are there; then it is closed again. What
// waits for a gate counts how often it has been open: the parity of that number is what it asks with.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool GATES_EXIST = true;
DEVICE void make_gate(unsigned long long* gate) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                     shared_address(gate))
                 : "memory");
}
// What this thread has written may be read or overwritten by copies from here on.
DEVICE void yield_to_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void announce(unsigned long long* gate, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(gate)), "r"(bytes)
                 : "memory");
}
// Begin to copy some bytes from global memory, a multiple of 16 as both addresses are.
DEVICE void copy_through(unsigned long long* gate, void* to, const void* from, int bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(gate))
                 : "memory");
}
// The same from this block's shared memory to the same place of another block, through that block's gate.
DEVICE SharedAddress shared_address_in(const void* place, int rank) {
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(place)), "r"(rank));
    return there;
}
DEVICE void copy_to_block(unsigned long long* gate, const void* place, int bytes, int rank) {
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address_in(place, rank)),
                 "r"(shared_address(place)), "r"(bytes), "r"(shared_address_in(gate, rank))
                 : "memory");
}
DEVICE void pass_gate(unsigned long long* gate, int parity) {
    asm volatile(
        "{\n.reg .pred open;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 open, [%0], %1;\n@!open bra again;\n}" ::"r"(shared_address(gate)),
        "r"(parity)
        : "memory");
}
#else
constexpr bool GATES_EXIST = false;
DEVICE void make_gate(unsigned long long*) {}
DEVICE void yield_to_copies() {}
DEVICE void announce(unsigned long long*, int) {}
DEVICE void copy_through(unsigned long long*, void*, const void*, int) {}
DEVICE void copy_to_block(unsigned long long*, const void*, int, int) {}
DEVICE void pass_gate(unsigned long long*, int) {}
#endif
#endif
