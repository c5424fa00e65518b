// The output layer after its product: bias, activation, loss, BP1 and hits, and the sums of BP3.
//
// Requires: step.cuh and what it requires, plane.cuh, records.cuh, output_operands.cuh. Neither Z nor H of the output layer is written:
// bytes for each output are those of the product (read up to four times, at first from memory and then from the cache),
// of Y, and of Delta. Logits, loss and BP1 are of type T whatever operands are; Delta is multiplied by the loss scale.

// What the two kernels below are given.
struct Outputs {
    const T* product;  // (m, n)
    const T* b;
    Operand* Delta;
    const T* scales;   // (m,) if samples have weights, else `scale`
    T scale;
    int code;
    const T* loss_scale;
    long long m, n;
    template <bool SUMS, class Team>
    DEVICE_MEMBER void row(Team team, const Step& step, long long row, long long columns, double& loss, double& right,
                           double& sums) const {
        const long long sample = columns ? step.index()[row] : 0;
        const long long label = CLASSES && columns ? step.labels()[sample] : 0;
        const T weight = WEIGHTED && columns ? step.data(WEIGHTS_AT)[sample] : T(1);
        const OutputRow<Team> found = {team, product + row * n, b, step.data(Y_AT) + sample * n,
                                       WEIGHTED && columns ? scales[row] : scale, code, columns, T(0), T(1), T(0)};
        output_operands<SUMS>(found, single_operands(Delta + row * n, m * n), SCALED ? loss_scale[0] : T(1), label,
                              weight, step.threshold(), loss, right, sums);
    }
};

// Up to 32 outputs: a lane has one column, so its errors can be added up on the way; partial (gridDim.x, n).
extern "C" __global__ void finish_output_narrow(
    const long long* batch, int j, const T* product, const T* b, Operand* Delta, const T* scales, T scale, int code,
    const T* loss_scale, double* of_block, double* partial, long long m, long long n, int width) {
    const Step step = step_of(batch, j, m);
    const Outputs outputs = {product, b, Delta, scales, scale, code, loss_scale, m, n};
    double loss = 0.0, right = 0.0, sums = 0.0;
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        outputs.row<true>(team, step, row, columns, loss, right, sums);
    });
    SHARED_ARRAY(double, of_warp, 8 * 32);  // (warps, columns)
    for (int mask = 16; mask >= width; mask /= 2) sums += shuffle_xor(sums, mask);
    of_warp[threadIdx.x] = sums;
    __syncthreads();
    if (threadIdx.x < n) {
        double sum = 0.0;
        for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += of_warp[warp * 32 + threadIdx.x];
        partial[blockIdx.x * n + threadIdx.x] = sum;
    }
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}

// More outputs: a row to a block. The columns of Delta are added up by add_errors.
extern "C" __global__ void finish_output_wide(
    const long long* batch, int j, const T* product, const T* b, Operand* Delta, const T* scales, T scale, int code,
    const T* loss_scale, double* of_block, long long m, long long n) {
    const Step step = step_of(batch, j, m);
    const Outputs outputs = {product, b, Delta, scales, scale, code, loss_scale, m, n};
    double loss = 0.0, right = 0.0, none = 0.0;
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        outputs.row<false>(team, step, row, columns, loss, right, none);
    });
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}

// The sums of the columns of Delta (m, n): one more pass over it, of s bytes for each output
template <int V> struct ColumnPass {
    const Operand* Delta;
    double* partial;
    long long plane, n;
    double sums[V];
    typedef Operands<V, Operand> Read;
    DEVICE_MEMBER void begin(long long) {
#pragma unroll
        for (int k = 0; k < V; ++k) sums[k] = 0.0;
    }
    DEVICE_MEMBER Read read(long long row, long long column) { return operands_at<V>(Delta + row * n + column, plane); }
    DEVICE_MEMBER void finish(long long, long long, const Read& delta) {
#pragma unroll
        for (int k = 0; k < V; ++k) sums[k] += static_cast<double>(delta.number(k));
    }
    DEVICE_MEMBER void end(long long column, bool inside) {
        if (!inside) begin(column);
        write_partial<V>(sums, partial, column, inside, n);
    }
};

extern "C" __global__ void add_errors(const Operand* Delta, double* partial, long long m, long long n) {
    if (n % LONGEST_RUN == 0) {
        ColumnPass<LONGEST_RUN> pass = {Delta, partial, m * n, n};
        walk<LONGEST_RUN>(pass, m, n);
    } else {
        ColumnPass<1> pass = {Delta, partial, m * n, n};
        walk<1>(pass, m, n);
    }
}
