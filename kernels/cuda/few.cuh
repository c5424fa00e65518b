// Prediction of a few samples: a layer in one kernel, which reads W once, and nearly all of it at the same time.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, rowwise.cuh, the printed activations (pieces.py), and the constants ROWS,
// how many samples there are at most (8 or less), and COLUMNS, those of W that a block has (8 or 32). There is nothing
// to be used twice, so nothing goes through shared memory but the sums: the threads of a block have all rows of its
// columns, and each thread asks for AHEAD packs before it needs the first.

constexpr int FEW_THREADS = 256;
constexpr int AHEAD = 8;
constexpr int ALONG = COLUMNS / LANES;        // threads along a row of W
constexpr int LINES = FEW_THREADS / ALONG;    // rows of W that all threads read at once

// sums (ROWS, LANES) += A (m, K) times `count` columns of W (K, n) from column j on, of every LINES-th k from `line`
// on. PACKED: all of W can be read sixteen bytes at a time.
template <bool PACKED>
DEVICE void add_products(const T* A, const T* W, int m, int K, long long n, long long j, int count, int line,
                         T (&sums)[ROWS][LANES]) {
    const T* w_at = W + line * n + j;
    const T* a_at = A + line;
    for (int k0 = line; k0 < K; k0 += AHEAD * LINES) {
        Pack w[AHEAD];
        T a[AHEAD][ROWS];
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
            const bool inside = k0 + s * LINES < K;
            w[s] = Pack{};
            if (PACKED) {
                if (inside && count > 0) w[s] = *reinterpret_cast<const Pack*>(w_at);
            } else {
#pragma unroll
                for (int c = 0; c < LANES; ++c) {
                    if (inside && c < count) w[s].v[c] = w_at[c];
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                a[s][r] = inside && (r == 0 || r < m) ? a_at[static_cast<long long>(r) * K] : T(0);
            }
            w_at += LINES * n;
            a_at += LINES;
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

// H (m, n) = act(A (m, n_in) @ W (n_in, n) + b (n,)), odd (1,); m <= ROWS, n_in < 2**31. A row-wise activation is
// computed too if rows are no longer than COLUMNS.
extern "C" __global__ void __launch_bounds__(FEW_THREADS) answer_few(
    const T* A, const T* W, const T* b, T* H, int code, int watch, unsigned int* odd, long long m, long long n_in,
    long long n) {
    constexpr int WARPS = FEW_THREADS / 32;
    SHARED_ARRAY(T, of_warp, (WARPS * ROWS * COLUMNS));
    const int lane = threadIdx.x % ALONG, warp = threadIdx.x / 32;
    const long long first = static_cast<long long>(blockIdx.x) * COLUMNS, j = first + lane * LANES;
    const int count = j >= n ? 0 : n - j < LANES ? static_cast<int>(n - j) : LANES;
    const int rows = static_cast<int>(m), K = static_cast<int>(n_in), line = threadIdx.x / ALONG;
    T sums[ROWS][LANES] = {};
    if (is_aligned(W) && n % LANES == 0) {
        add_products<true>(A, W, rows, K, n, j, count, line, sums);
    } else {
        add_products<false>(A, W, rows, K, n, j, count, line, sums);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int c = 0; c < LANES; ++c) {
#pragma unroll
            for (int mask = 16; mask >= ALONG; mask /= 2) sums[r][c] += shuffle_xor(sums[r][c], mask);
            if (threadIdx.x % 32 < ALONG) of_warp[(warp * ROWS + r) * COLUMNS + lane * LANES + c] = sums[r][c];
        }
    }
    __syncthreads();
    const int e = threadIdx.x, row = e / COLUMNS;
    const long long column = first + e % COLUMNS;
    if (row < rows && row < ROWS && column < n) {
        T h = of_warp[e];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) h += of_warp[w * ROWS * COLUMNS + e];
        // as in inference.cuh: without a sum that is not finite the inputs are finite
        if (watch && !finite_(h)) raise_flag(odd);
        h += b[column];
        H[row * n + column] = code >= 0 ? activate(code, h) : h;
    }
    if (code >= 0 || n > COLUMNS) return;
    __syncthreads();
    const LaneTeam team = {static_cast<int>(threadIdx.x) % 32, 32};
    T* const h = H + warp * n;
    const long long length = warp < rows ? n : 0;
    if (code == -1) {
        softmax_row(team, h, h, length);
    } else {
        log_softmax_row(team, h, h, length);
    }
}
