// Sums over a whole array and over the rows of a matrix, accumulated in float64.
//
// Requires: scalar.cuh, memory.cuh, team.cuh. Every sum has two stages at most: blocks write partial sums, one more
// launch adds those in a fixed order. No floating-point atomics: the same input gives the same bits in every run.

// of_block (gridDim.x,) = sum of map(a) over the elements that a block visits; A (p,)
template <class Map> DEVICE void reduce_all(const T* A, double* of_block, long long p, Map map) {
    double sum = 0.0;
    long long done = 0;
    if (is_aligned(A)) {
        const Pack* packs = reinterpret_cast<const Pack*>(A);
        for (long long i = grid_index(); i < p / LANES; i += grid_size()) {
            const Pack pack = packs[i];
#pragma unroll
            for (int k = 0; k < LANES; ++k) sum += map(pack.v[k]);
        }
        done = p / LANES * LANES;
    }
    for (long long i = done + grid_index(); i < p; i += grid_size()) sum += map(A[i]);
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    sum = team.reduce(sum, 0.0, Sum());
    if (threadIdx.x == 0) of_block[blockIdx.x] = sum;
}

// A (p,), of_block (gridDim.x,): a thread owns every grid_size()-th pack of elements
extern "C" __global__ void total(const T* A, double* of_block, long long p) {
    reduce_all(A, of_block, p, [](T a) { return static_cast<double>(a); });
}
extern "C" __global__ void sum_squares(const T* A, double* of_block, long long p) {
    reduce_all(A, of_block, p, [](T a) { return static_cast<double>(a) * static_cast<double>(a); });
}
extern "C" __global__ void count_not_finite(const T* A, double* of_block, long long p) {
    reduce_all(A, of_block, p, [](T a) { return finite_(a) ? 0.0 : 1.0; });
}

// The second stage, one block: of_block (count,), out (1,); a thread owns every blockDim.x-th partial sum
extern "C" __global__ void add_partials(const double* of_block, double* out, long long count) {
    double sum = 0.0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x) sum += of_block[i];
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    sum = team.reduce(sum, 0.0, Sum());
    if (threadIdx.x == 0) out[0] = sum;
}

// A (m, n), out (n,), partial (gridDim.y, n). Block (x, y) with y a power of two and x * y <= 256. A thread owns one
// column and every y-th row of its split; neighbouring threads read neighbouring columns. With one split the result
// goes to out, with more to partial.
extern "C" __global__ void column_sums(const T* A, T* out, double* partial, long long m, long long n) {
    SHARED_ARRAY(double, sums, 256);  // (y, x)
    const int own = threadIdx.y * blockDim.x + threadIdx.x;
    const long long split = (m + gridDim.y - 1) / gridDim.y;
    const long long begin = blockIdx.y * split;
    const long long end = begin + split < m ? begin + split : m;
    for (long long tile = static_cast<long long>(blockIdx.x) * blockDim.x; tile < n; tile += grid_size()) {
        const long long column = tile + threadIdx.x;
        double sum = 0.0;
        if (column < n) {
            for (long long row = begin + threadIdx.y; row < end; row += blockDim.y) sum += A[row * n + column];
        }
        sums[own] = sum;
        __syncthreads();
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            if (threadIdx.y < half) sums[own] += sums[own + half * blockDim.x];
            __syncthreads();
        }
        if (threadIdx.y == 0 && column < n) {
            if (gridDim.y == 1) {
                out[column] = static_cast<T>(sums[own]);
            } else {
                partial[blockIdx.y * n + column] = sums[own];
            }
        }
    }
}

// partial (splits, n), out (n,): a thread owns one column and adds its splits in order
extern "C" __global__ void add_column_partials(const double* partial, T* out, long long n, long long splits) {
    for (long long column = grid_index(); column < n; column += grid_size()) {
        double sum = 0.0;
        for (long long s = 0; s < splits; ++s) sum += partial[s * n + column];
        out[column] = static_cast<T>(sum);
    }
}
