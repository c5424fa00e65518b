// The products of a training step, each with the work that follows it: forward, BP2, and BP4 with BP3 and the update.
//
// Requires: step.cuh and what it requires, product.cuh, output.cuh, and the constants BM and BN, the size of a tile.
// A kernel has Tile<BM, BN>::MEMORY numbers of dynamic shared memory.

typedef Tile<BM, BN> Shape;

typedef Factor<true> AlongK;
typedef Factor<false> Across;
// H[l].T with a row of ones below it: its product with Delta holds dW, and db in the last row.
typedef Factor<false, true> AcrossWithOnes;

// What a layer reads: A (m, n_in), or, if there is none, the rows of X that belong to the step.
DEVICE Rows inputs_of(const Step& step, const T* A, long long n_in) {
    if (A == nullptr) return {step.data(X_AT), n_in, step.index()};
    return {A, n_in, nullptr};
}

// A (m, n_in), or rows of X if `gathered`; W (n_in, n), b (n,); Z, H, passed (m, n)
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE) forward(
    const long long* batch, int j, int gathered, const T* A, const T* W, const T* b, T* Z, T* H, T* passed, int code,
    T* mask, unsigned int threshold, T kept, int dropout, unsigned int layer, unsigned int key0, unsigned int key1,
    long long m, long long n_in, long long n, int splits, T* parts, unsigned int* arrived) {
    DYNAMIC_SHARED(memory);
    const Step step = step_of(batch, j, m);
    const long long tile = blockIdx.x / splits;
    const int split = blockIdx.x % splits;
    const Product p = {m, n, n_in, splits, parts, arrived};
    const AlongK inputs = {inputs_of(step, gathered ? nullptr : A, n_in)};
    const Across weights = {{W, n, nullptr}};
    const Dropout drop = {mask, threshold, kept, dropout, layer, key0, key1};
    const Forward finish = {b, Z, H, passed, n, code, drop, step.number()};
    multiply<BM, BN>(reinterpret_cast<T*>(memory), p, inputs, weights, tile, split, finish);
}

// The last layer, if its rows are no longer than a tile: the block that finishes a tile has whole rows, and goes on with
// the loss and BP1. No dropout here. H (m, n), Delta (m, n), of_block (2 * tiles * TOGETHER,).
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE) forward_output(
    const long long* batch, int j, int gathered, const T* A, const T* W, const T* b, T* Z, T* H, T* Delta, int code,
    const T* scales, T scale, long long m, long long n_in, long long n, int splits, T* parts, unsigned int* arrived,
    double* of_block) {
    DYNAMIC_SHARED(memory);
    const Step step = step_of(batch, j, m);
    const long long tile = blockIdx.x / splits;
    const int split = blockIdx.x % splits;
    const Product p = {m, n, n_in, splits, parts, arrived};
    const AlongK inputs = {inputs_of(step, gathered ? nullptr : A, n_in)};
    const Across weights = {{W, n, nullptr}};
    const Forward finish = {b, Z, H, H, n, code, {H, 0, T(0), NO_DROPOUT, 0, 0, 0}, 0};
    if (!multiply<BM, BN>(reinterpret_cast<T*>(memory), p, inputs, weights, tile, split, finish)) return;
    __syncthreads();
    const LaneTeam team = {static_cast<int>(threadIdx.x) % Shape::TEAM, Shape::TEAM};
    const int own = threadIdx.x / Shape::TEAM;
    const long long row = tile * BM + Shape::first_row(split) + own;
    double loss = 0.0, right = 0.0;
    const long long columns = own < Shape::ROWS && row < m ? n : 0;
    output_sample(team, step, row, columns, Z, H, Delta, scales, scale, loss, right, n);
    record_block(step, loss, right, of_block, finisher(splits), gridDim.x * TOGETHER / splits);
}

// Delta_next (m, n_next), W (n, n_next); Z, H, Delta (m, n)
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE) backward(
    const T* Delta_next, const T* W, const T* Z, const T* H, T* Delta, int code, const T* mask, int dropout,
    long long m, long long n_next, long long n, int splits, T* parts, unsigned int* arrived) {
    DYNAMIC_SHARED(memory);
    const Product p = {m, n, n_next, splits, parts, arrived};
    const AlongK errors = {{Delta_next, n_next, nullptr}}, weights = {{W, n_next, nullptr}};
    const Backward finish = {Z, H, Delta, mask, dropout, n, code};
    const int split = blockIdx.x % splits;
    multiply<BM, BN>(reinterpret_cast<T*>(memory), p, errors, weights, blockIdx.x / splits, split, finish);
}

// All layers in one launch, whose tiles follow one another: layers (count, G_COLUMNS); theta, grad (P,); squares
// (tiles * TOGETHER,), each the sum over a part of a tile; of_block (2 * recorded,), if the loss has been left in
// several sums.
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE) gradient(
    const long long* batch, int j, const long long* layers, int count, T* theta, T* grad, const long long* states,
    const T* prices, T limit, int clip, long long m, int splits, T* parts, unsigned int* arrived, double* squares,
    const double* of_block, long long recorded) {
    DYNAMIC_SHARED(memory);
    const Step step = step_of(batch, j, m);
    const long long tile = blockIdx.x / splits;
    const int split = blockIdx.x % splits;
    const long long* layer = layers;
    for (int l = 1; l < count && tile >= layers[l * G_COLUMNS + G_TILE]; ++l) layer = layers + l * G_COLUMNS;
    const long long n_in = layer[G_IN], n = layer[G_OUT], first = layer[G_TILE];
    const Product p = {n_in + 1, n, m, splits, parts + first * splits * BM * BN, arrived + first};
    const Across Delta = {{reinterpret_cast<const T*>(layer[G_DELTA]), n, nullptr}};
    const T* A = reinterpret_cast<const T*>(layer[G_INPUT]);
    double sum = 0.0;
    const Update finish = {{theta, grad, states, prices, step.numbers(), limit, clip}, layer, &sum};
    const AcrossWithOnes inputs = {inputs_of(step, A, n_in)};
    const bool finished =
        multiply<BM, BN>(reinterpret_cast<T*>(memory), p, inputs, Delta, tile - first, split, finish);
    if (blockIdx.x == 0) add_records(step, of_block, recorded);
    if (clip < CLIP_ALL || !finished) return;
    const BlockTeam team = {static_cast<int>(threadIdx.x), PRODUCT_THREADS};
    sum = team.reduce(sum, 0.0, Sum());
    if (threadIdx.x == 0) squares[finisher(splits)] = sum;
}
