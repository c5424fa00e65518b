// Sixteen bytes at a time, and shared memory by one name.
//
// Requires: scalar.cuh, and the element type T of the translation unit.

// A block-wide array. The header that runs these sources on a CPU defines its own, with guarded bounds.
#ifndef SHARED_ARRAY
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#endif

// Elements of type T that one load or store moves.
constexpr int LANES = 16 / sizeof(T);

// LANES elements: moved by one 16-byte instruction where the address is a multiple of 16.
struct alignas(16) Pack {
    T v[LANES];
};

// Whether p may be read and written as Packs.
DEVICE bool is_aligned(const void* p) { return (reinterpret_cast<unsigned long long>(p) & 15) == 0; }

// `count` elements from p on, by one instruction where that is possible; the rest of the pack is 0.
DEVICE Pack load_pack(const T* p, int count) {
    if (count == LANES && is_aligned(p)) return *reinterpret_cast<const Pack*>(p);
    Pack pack;
#pragma unroll
    for (int k = 0; k < LANES; ++k) pack.v[k] = k < count ? p[k] : T(0);
    return pack;
}
DEVICE void store_pack(T* p, const Pack& pack, int count) {
    if (count == LANES && is_aligned(p)) {
        *reinterpret_cast<Pack*>(p) = pack;
        return;
    }
#pragma unroll
    for (int k = 0; k < LANES; ++k) {
        if (k < count) p[k] = pack.v[k];
    }
}

// Number of this thread within the grid, and the number of threads: the start and the step of a grid-stride loop.
DEVICE long long grid_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE long long grid_size() { return static_cast<long long>(gridDim.x) * blockDim.x; }

// Store 1 where other threads may do so at the same time. A volatile store is whole, and all of them write the same.
DEVICE void raise_flag(unsigned* flag) { *static_cast<volatile unsigned*>(flag) = 1; }

// What another block of this launch has written: from the second-level cache, past the first, which may hold what was
// there before.
DEVICE float from_elsewhere(const float* p) { return __ldcg(p); }
DEVICE double from_elsewhere(const double* p) { return __ldcg(p); }
DEVICE Pack pack_from_elsewhere(const T* p) {
    Pack pack;
#pragma unroll
    for (int k = 0; k < LANES; ++k) pack.v[k] = from_elsewhere(p + k);
    return pack;
}
