// Prediction: a layer in one kernel, of which nothing is kept but H.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, rowwise.cuh, product.cuh, the printed activations (pieces.py), and the
// constants BM and BN, the size of a tile.

// After the product of a layer: H = act(sum + b). Whoever is told to watch says in `odd` whether a sum was not finite:
// a NaN or an infinity among the inputs is in every sum of its row, so without such a sum the inputs are finite.
struct Answer {
    const T* b;
    T* H;
    long long n;
    int code;
    int watch;
    unsigned* odd;
    DEVICE_MEMBER void operator()(long long i, long long j, int count, Pack h) const {
        const Pack bias = load_pack(b + j, count);
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            if (watch && !finite_(h.v[k])) raise_flag(odd);
            h.v[k] += bias.v[k];
        }
        if (code >= 0) {  // row-wise activations follow when rows are complete
#pragma unroll
            for (int k = 0; k < LANES; ++k) h.v[k] = activate(code, h.v[k]);
        }
        store_pack(H + i * n + j, h, count);
    }
};

// A (m, n_in), W (n_in, n), b (n,), H (m, n), odd (1,); Tile<BM, BN>::MEMORY numbers of dynamic shared memory. A row-wise
// activation is computed too if rows are no longer than a tile: then a block that finishes rows has whole ones.
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE) answer(
    const T* A, const T* W, const T* b, T* H, int code, int watch, unsigned int* odd, long long m, long long n_in,
    long long n, int splits, T* parts, unsigned int* arrived) {
    typedef Tile<BM, BN> Shape;
    DYNAMIC_SHARED(memory);
    const Product p = {m, n, n_in, splits, parts, arrived};
    const Factor<true> left = {{A, n_in, nullptr}};
    const Factor<false> right = {{W, n, nullptr}};
    const long long tile = blockIdx.x / splits;
    const int split = blockIdx.x % splits;
    const Answer finish = {b, H, n, code, watch, odd};
    if (!multiply<BM, BN>(reinterpret_cast<T*>(memory), p, left, right, tile, split, finish)) return;
    if (code >= 0 || n > BN) return;
    __syncthreads();
    const LaneTeam team = {static_cast<int>(threadIdx.x) % Shape::TEAM, Shape::TEAM};
    const int own = threadIdx.x / Shape::TEAM;
    const long long row = tile * BM + Shape::first_row(split) + own;
    const long long columns = own < Shape::ROWS && row < m ? n : 0;
    T* const h = H + row * n;
    if (code == -1) {
        softmax_row(team, h, h, columns);
    } else {
        log_softmax_row(team, h, h, columns);
    }
}

// H (m, n) = act(H + b), in place: what follows a product of cuBLAS. A thread owns LANES neighbouring columns, and
// every (gridDim.y * blockDim.y)-th row.
extern "C" __global__ void finish_answer(
    T* H, const T* b, int code, int watch, unsigned int* odd, long long m, long long n) {
    const Answer finish = {b, H, n, code, watch, odd};
    const long long rows = static_cast<long long>(gridDim.y) * blockDim.y;
    for (long long j = grid_index() * LANES; j < n; j += grid_size() * LANES) {
        const int count = n - j < LANES ? static_cast<int>(n - j) : LANES;
        for (long long i = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; i < m; i += rows) {
            finish(i, j, count, load_pack(H + i * n + j, count));
        }
    }
}
