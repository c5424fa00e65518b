// What the kernels of the fused plan share: the samples of a tile, and what is done with the sums of the blocks.
//
// Requires: step.cuh and what it requires, operand.cuh, cluster.cuh, and struct Layer<l> of the network, see fused.py.
// The header that runs these sources on a CPU has its own afresh and prefetch_line.

constexpr int WARPS = 8;

#ifndef HOST_FRAGMENTS
// The same number, of which the compiler does not know that it is: what depends on it is computed where it is used, and
// occupies no register before.
DEVICE int afresh(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// Begin to bring a line of global memory into the second-level cache.
DEVICE void prefetch_line(const void* place) { asm volatile("prefetch.global.L2 [%0];" ::"l"(place)); }
#endif

// A sample of the step; after the last one the last one again, so that what is computed of it is as finite as that.
DEVICE long long sample_of(const Step& step, long long i) { return step.index()[i < step.m ? i : step.m - 1]; }

// Ask for what the next tile will read of a sample, by a team of `size` threads.
DEVICE void ask_for(const Step& step, int rank, int size, long long sample) {
    constexpr int LINE = 128 / sizeof(T);
    const T* const x = step.data(X_AT) + sample * Layer<1>::N;
    for (int k = rank * LINE; k < Layer<1>::N; k += size * LINE) prefetch_line(x + k);
    const T* const y = step.data(Y_AT) + sample * Layer<LAST>::N;
    for (int k = rank * LINE; k < Layer<LAST>::N; k += size * LINE) prefetch_line(y + k);
}

// grad (size,) = the sum of the slices (count, size), in one order: packs side by side to the lanes of a warp, every
// eighth slice to a warp. Blocks of 256.
extern "C" __global__ void add_slices(const T* slices, T* grad, long long count, long long size) {
    SHARED_ARRAY(Pack, of_warp, WARPS * 32);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const long long at = (blockIdx.x * 32LL + lane) * LANES;
    Pack sum = {};
    if (at < size) {
#pragma unroll 4
        for (long long s = warp; s < count; s += WARPS) {
            const Pack more = *reinterpret_cast<const Pack*>(slices + s * size + at);
#pragma unroll
            for (int k = 0; k < LANES; ++k) sum.v[k] += more.v[k];
        }
    }
    of_warp[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || at >= size) return;
    for (int other = 1; other < WARPS; ++other) {
#pragma unroll
        for (int k = 0; k < LANES; ++k) sum.v[k] += of_warp[32 * other + lane].v[k];
    }
    *reinterpret_cast<Pack*>(grad + at) = sum;
}
