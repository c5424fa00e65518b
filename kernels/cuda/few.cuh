// Prediction of a few samples: a layer in one kernel, which reads W once, and nearly all of it at the same time.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, rowwise.cuh, the printed activations (pieces.py), and the constant ROWS: how
// many samples there are at most, 8 or less. There is nothing to be used twice, so nothing goes through shared memory
// but the sums: a block has some columns of W, its threads all rows of them, and each thread asks for AHEAD packs before
// it needs the first.

constexpr int FEW_THREADS = 256;
constexpr int FEW_COLUMNS = 32;  // of a block, at most
constexpr int AHEAD = 8;

// sums (ROWS, LANES) += A (m, n_in) times `count` columns of W (n_in, n) from column j on, of every `lines`-th k from `line`
// on. PACKED: all of W can be read sixteen bytes at a time.
template <bool PACKED>
DEVICE void add_products(const T* A, const T* W, long long m, long long n_in, long long n, long long j, int count,
                         int line, int lines, T (&sums)[ROWS][LANES]) {
    for (long long k0 = line; k0 < n_in; k0 += AHEAD * lines) {
        Pack w[AHEAD];
        T a[AHEAD][ROWS];
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
            const long long k = k0 + s * lines;
            w[s] = Pack{};
            if (PACKED) {
                if (k < n_in && count > 0) w[s] = *reinterpret_cast<const Pack*>(W + k * n + j);
            } else {
#pragma unroll
                for (int c = 0; c < LANES; ++c) {
                    if (k < n_in && c < count) w[s].v[c] = W[k * n + j + c];
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r) a[s][r] = k < n_in && r < m ? A[r * n_in + k] : T(0);
        }
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int c = 0; c < LANES; ++c) sums[r][c] += a[s][r] * w[s].v[c];
            }
        }
    }
}

// H (m, n) = act(A (m, n_in) @ W (n_in, n) + b (n,)), odd (1,); m <= ROWS. A block has `lanes` (a power of two) threads
// along a row of W, each with LANES columns; a row-wise activation is computed too if that is a whole row.
extern "C" __global__ void __launch_bounds__(FEW_THREADS) answer_few(
    const T* A, const T* W, const T* b, T* H, int code, int watch, unsigned int* odd, long long m, long long n_in,
    long long n, int lanes) {
    constexpr int WARPS = FEW_THREADS / 32;
    SHARED_ARRAY(T, of_warp, WARPS * ROWS * FEW_COLUMNS);  // (WARPS, ROWS, columns)
    const int columns = lanes * LANES;
    const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes, warp = threadIdx.x / 32;
    const long long first = static_cast<long long>(blockIdx.x) * columns, j = first + lane * LANES;
    const int count = j >= n ? 0 : n - j < LANES ? static_cast<int>(n - j) : LANES;
    T sums[ROWS][LANES] = {};
    if (is_aligned(W) && n % LANES == 0) {
        add_products<true>(A, W, m, n_in, n, j, count, line, FEW_THREADS / lanes, sums);
    } else {
        add_products<false>(A, W, m, n_in, n, j, count, line, FEW_THREADS / lanes, sums);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int c = 0; c < LANES; ++c) {
            for (int mask = 16; mask >= lanes; mask /= 2) sums[r][c] += shuffle_xor(sums[r][c], mask);
            if (threadIdx.x % 32 < lanes) of_warp[(warp * ROWS + r) * columns + lane * LANES + c] = sums[r][c];
        }
    }
    __syncthreads();
    for (int e = threadIdx.x; e < ROWS * columns; e += FEW_THREADS) {
        const long long i = e / columns, column = first + e % columns;
        if (i >= m || column >= n) continue;
        T h = of_warp[e];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) h += of_warp[w * ROWS * columns + e];
        // as in inference.cuh: without a sum that is not finite the inputs are finite
        if (watch && !finite_(h)) *odd = 1;
        h += b[column];
        H[i * n + column] = code >= 0 ? activate(code, h) : h;
    }
    if (code >= 0 || n > columns) return;
    __syncthreads();
    const LaneTeam team = {static_cast<int>(threadIdx.x) % 32, 32};
    T* const h = H + warp * n;
    const long long length = warp < m ? n : 0;
    if (code == -1) {
        softmax_row(team, h, h, length);
    } else {
        log_softmax_row(team, h, h, length);
    }
}
