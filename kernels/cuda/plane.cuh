// One pass over the rows and columns of a matrix, sixteen bytes at a time, with sums of its columns on the way.
//
// Requires: operand.cuh and `Operand`. Launched with blocks of (x, y) threads, x * y = 256 and y a power of two, in a
// grid of (column tiles, splits of the rows). A thread owns V neighbouring columns and every (gridDim.y * y)-th row:
// addresses need no division, what belongs to a column (a bias) is read once a thread, and sums of columns stay in
// registers. Any size; V is 16 bytes of operands where the rows allow it, else 1.

constexpr int LONGEST_RUN = 16 / sizeof(Operand);
// Rows that a thread asks for before it goes on with the first: that many reads are on their way at once.
constexpr int ROWS_AHEAD = 4;
constexpr int PLANE_THREADS = 256;

// Call pass.begin(column), then for each row of this thread pass.read(row, column) and pass.finish(row, column, what
// was read), then pass.end(column, whether there is such a column), which all threads of the block reach together.
template <int V, class Pass> DEVICE void walk(Pass& pass, long long m, long long n) {
    const long long step = static_cast<long long>(gridDim.y) * blockDim.y;
    const long long first = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y;
    for (long long tile = static_cast<long long>(blockIdx.x) * blockDim.x; tile * V < n; tile += grid_size()) {
        const long long column = (tile + threadIdx.x) * V;
        const bool inside = column < n;
        if (inside) {
            pass.begin(column);
            for (long long row = first; row < m; row += ROWS_AHEAD * step) {
                typename Pass::Read ahead[ROWS_AHEAD];
#pragma unroll
                for (int r = 0; r < ROWS_AHEAD; ++r) {
                    if (row + r * step < m) ahead[r] = pass.read(row + r * step, column);
                }
#pragma unroll
                for (int r = 0; r < ROWS_AHEAD; ++r) {
                    if (row + r * step < m) pass.finish(row + r * step, column, ahead[r]);
                }
            }
        }
        pass.end(column, inside);
    }
}

// Add up the sums of all threads of the block that own the same columns, in a fixed order, and write them to
// partial (gridDim.y, n), whose rows are added by whoever reads them.
template <int V>
DEVICE void write_partial(const double (&sums)[V], double* partial, long long column, bool inside, long long n) {
    SHARED_ARRAY(double, of_thread, V * PLANE_THREADS);
    const int own = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int k = 0; k < V; ++k) of_thread[k * PLANE_THREADS + own] = sums[k];
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
#pragma unroll
            for (int k = 0; k < V; ++k) {
                double* at = of_thread + k * PLANE_THREADS + own;
                at[0] += at[half * blockDim.x];
            }
        }
        __syncthreads();
    }
    if (threadIdx.y == 0 && inside) {  // what is its own: it, too, writes there for the next tile
#pragma unroll
        for (int k = 0; k < V; ++k) partial[blockIdx.y * n + column + k] = of_thread[k * PLANE_THREADS + own];
    }
}

// Masks of V neighbours of a field whose bits depend on the position, as bpcore/random.py draws them.
template <int V>
DEVICE void draw_run(const Dropout& drop, unsigned long long step, long long position, T (&mask)[V]) {
    const unsigned purpose = 2u << 24 | static_cast<unsigned>(step >> 32);
    const Stream stream = {drop.key0, drop.key1, drop.layer, static_cast<unsigned>(step), purpose};
    Words words;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        const int word = static_cast<int>((position + k) % 4);
        if (k == 0 || word == 0) words = words_of_block(stream, (position + k) / 4);
        mask[k] = words.w[word] < drop.threshold ? T(0) : drop.kept;
    }
}
