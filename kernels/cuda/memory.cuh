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

// Number of this thread within the grid, and the number of threads: the start and the step of a grid-stride loop.
DEVICE long long grid_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE long long grid_size() { return static_cast<long long>(gridDim.x) * blockDim.x; }

// What another block of this launch has written: from the second-level cache, past the first, which may hold what was
// there before.
DEVICE float from_elsewhere(const float* p) { return __ldcg(p); }
DEVICE double from_elsewhere(const double* p) { return __ldcg(p); }
