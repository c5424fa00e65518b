// The update of parameters whose gradient cuBLAS and the partial sums of BP3 have left.
//
// Requires: step.cuh and what it requires, operand.cuh, records.cuh. Bytes for each weight, of type T with k arrays of
// state: read the gradient, theta and the state, write theta and the state, (3 + 2 k) sizeof(T); with operands of 16
// bits 2 more, with two planes 8, for the copy of theta that the next products read. A penalty or clipping writes the
// gradient as well, clipping by a norm is a pass before this one.

// Rows of the table of layers.
enum { U_IN, U_OUT, U_W, U_B, U_PARTIAL, U_SPLITS, U_KEEP_IN, U_KEEP_OUT, U_COLUMNS };

// The loss scale, 1 over it and a zero (factors of cuBLAS), whether the gradient of this step was finite, good steps
// since the scale changed, skipped steps.
enum { SCALE, UNSCALE, ZERO, GOOD, GOOD_STEPS, SKIPPED };

constexpr int UPDATE_THREADS = 256;
constexpr int BIASES = 8;  // neighbours whose sums a block finishes at a time
template <class E> constexpr bool IS_COPY = true;
template <> constexpr bool IS_COPY<T> = false;
constexpr bool COPIED = IS_COPY<Operand>;

struct Updated {
    T* theta;
    T* grad;
    const long long* states;  // (STATES,) addresses of arrays like theta
    Operand* copy;            // of theta, if COPIED
    long long plane;          // of the copy
    const T* prices;
    const T* numbers;
    T limit;                  // of an element
    T factor;                 // by which a norm is clipped
    int clip;
    bool prepares;            // penalty and clipping of elements belong to this pass
    bool moves;
};

struct UpdatedLayer {
    long long n_in, n, W, b, splits;
    const double* partial;
    const T* keep_in;
    const T* keep_out;
    DEVICE_MEMBER UpdatedLayer(const long long* row)
        : n_in(row[U_IN]), n(row[U_OUT]), W(row[U_W]), b(row[U_B]), splits(row[U_SPLITS]),
          partial(reinterpret_cast<const double*>(row[U_PARTIAL])),
          keep_in(reinterpret_cast<const T*>(row[U_KEEP_IN])),
          keep_out(reinterpret_cast<const T*>(row[U_KEEP_OUT])) {}
};

DEVICE bool is_kept(const T* keep, long long i) { return keep == nullptr || keep[i] > T(0); }

// V parameters side by side from `at` on, with their gradient. Returns the sum of its squares.
template <int V>
DEVICE double update_run(const Updated& u, long long at, bool weights, const T (&gradient)[V], bool write_gradient,
                         const bool (&kept)[V]) {
    Run<V, T> before;
    if (u.moves || PENALISED) before = run_at<V>(u.theta + at);
    T theta[V], g[V];
    double squares = 0.0;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        theta[k] = u.moves || PENALISED ? before.v[k] : T(0);
        g[k] = gradient[k];
        if (u.prepares) {
            if (PENALISED && weights) g[k] = penalise(g[k], theta[k], u.prices);
            if (u.clip == CLIP_ELEMENT) g[k] = min_(max_(g[k], -u.limit), u.limit);
        }
        if (u.moves && u.clip >= CLIP_ALL) g[k] *= u.factor;
        squares += static_cast<double>(g[k]) * static_cast<double>(g[k]);
    }
    if (write_gradient) store_run<V>(u.grad + at, g);
    if (!u.moves) return squares;
    Run<V, T> state[STATES + 1];
#pragma unroll
    for (int s = 0; s < STATES; ++s) state[s] = run_at<V>(reinterpret_cast<const T*>(u.states[s]) + at);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        T own[STATES + 1];
#pragma unroll
        for (int s = 0; s < STATES; ++s) own[s] = state[s].v[k];
        if (kept[k]) update(theta[k], g[k], own, u.numbers);
#pragma unroll
        for (int s = 0; s < STATES; ++s) state[s].v[k] = own[s];
    }
    store_run<V>(u.theta + at, theta);
#pragma unroll
    for (int s = 0; s < STATES; ++s) {
        store_run<V>(reinterpret_cast<T*>(u.states[s]) + at, state[s].v);
    }
    if (COPIED) store_operands<V>(u.copy + at, u.plane, theta);
    return squares;
}

// Some weights of a layer, the first at number `e` of W.
template <int V> DEVICE double update_weights(const Updated& u, const UpdatedLayer& layer, long long e) {
    bool kept[V];
#pragma unroll
    for (int k = 0; k < V; ++k) kept[k] = true;
    if (layer.keep_in != nullptr || layer.keep_out != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const long long i = (e + k) / layer.n;
            kept[k] = is_kept(layer.keep_in, i) && is_kept(layer.keep_out, e + k - i * layer.n);
        }
    }
    const Run<V, T> g = run_at<V>(u.grad + layer.W + e);
    const bool changes = (u.prepares && (PENALISED || u.clip == CLIP_ELEMENT)) || (u.moves && u.clip >= CLIP_ALL);
    return update_run<V>(u, layer.W + e, true, g.v, changes, kept);
}

// The biases of one group, by the whole block: the second stage of BP3, in the order of the partial sums, then the
// update. `unscale` is 1 over the loss scale. Without `sums` the gradient is there already.
DEVICE double update_biases(const Updated& u, const UpdatedLayer& layer, long long group, T unscale, bool sums) {
    SHARED_ARRAY(double, of_row, UPDATE_THREADS);
    const int own = threadIdx.x % BIASES, row = threadIdx.x / BIASES;
    const long long j = group * BIASES + own;
    if (sums) {
        double sum = 0.0;
        if (j < layer.n) {
            for (long long s = row; s < layer.splits; s += UPDATE_THREADS / BIASES) sum += layer.partial[s * layer.n + j];
        }
        of_row[threadIdx.x] = sum;
        __syncthreads();
        for (int half = UPDATE_THREADS / BIASES / 2; half > 0; half /= 2) {
            if (row < half) of_row[threadIdx.x] += of_row[threadIdx.x + half * BIASES];
            __syncthreads();
        }
    }
    double squares = 0.0;
    if (row == 0 && j < layer.n) {  // of_row[own] is this thread's own, for the next group, too
        const T g[1] = {sums ? static_cast<T>(of_row[own]) * unscale : u.grad[layer.b + j]};
        const bool kept[1] = {is_kept(layer.keep_out, j)};
        squares = update_run<1>(u, layer.b + j, false, g, true, kept);
    }
    return squares;
}

// All weights of all layers as one row of runs: a thread owns every grid_size()-th of them, and knows its layer without
// a division. Then the biases, a group to a block, from the last block on: the first ones may have had more runs.
DEVICE void update_everything(const Updated& u, const long long* layers, int count, bool sums) {
    long long begin = 0;
    for (long long l = 0, e = grid_index(); l < count; ++l) {
        const UpdatedLayer layer(layers + l * U_COLUMNS);
        const long long size = layer.n_in * layer.n, runs = size / LANES, rest = size % LANES;
        for (; e < begin + runs + rest; e += grid_size()) {
            const long long run = e - begin;
            if (run < runs) {
                update_weights<LANES>(u, layer, run * LANES);
            } else {
                update_weights<1>(u, layer, runs * LANES + (run - runs));
            }
        }
        begin += runs + rest;
    }
    begin = 0;
    for (long long l = 0, group = gridDim.x - 1 - blockIdx.x; l < count; ++l) {
        const UpdatedLayer layer(layers + l * U_COLUMNS);
        const long long groups = (layer.n + BIASES - 1) / BIASES;
        for (; group < begin + groups; group += gridDim.x) update_biases(u, layer, group - begin, T(1), sums);
        begin += groups;
    }
}

// Before a norm is used, or whether all is finite: the second stage of BP3, penalty and clipping of elements, and the
// sum of squares of each layer; squares (count, gridDim.x)
extern "C" __global__ void prepare_update(
    const long long* layers, int count, T* theta, T* grad, const T* prices, T limit, int clip, const T* loss_scale,
    double* squares) {
    const Updated u = {theta, grad, nullptr, nullptr, 0, prices, nullptr, limit, T(1), clip, true, false};
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    const T unscale = SCALED ? loss_scale[UNSCALE] : T(1);
    for (int l = 0; l < count; ++l) {
        const UpdatedLayer layer(layers + l * U_COLUMNS);
        const long long size = layer.n_in * layer.n, packed = size / LANES * LANES;
        double sum = 0.0;
        for (long long e = grid_index() * LANES; e < packed; e += grid_size() * LANES) {
            sum += update_weights<LANES>(u, layer, e);
        }
        for (long long e = packed + grid_index(); e < size; e += grid_size()) sum += update_weights<1>(u, layer, e);
        for (long long group = blockIdx.x; group * BIASES < layer.n; group += gridDim.x) {
            sum += update_biases(u, layer, group, unscale, true);
        }
        sum = team.reduce(sum, 0.0, Sum());
        if (threadIdx.x == 0) squares[static_cast<long long>(l) * gridDim.x + blockIdx.x] = sum;
    }
}

DEVICE T factor_of(double limit, double squares) {
    return static_cast<T>(min_(1.0, limit / max_(sqrt(squares), 1e-37)));
}

// Sum of `count` partial sums of squares, in order; all threads of the block get it.
DEVICE double squares_of(const double* squares, long long count) {
    double sum = 0.0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x) sum += squares[i];
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    return team.reduce(sum, 0.0, Sum());
}

// Move all parameters, and record the step. `prepared`: how many partial sums of squares each layer has; 0 if nothing
// was prepared.
extern "C" __global__ void move_parameters(
    const long long* batch, int j, const long long* layers, int count, T* theta, T* grad, const long long* states,
    Operand* copy, long long plane, const T* prices, T limit, int clip, double norm_limit, const double* squares,
    long long prepared, T* loss_scale, const double* of_block, long long blocks, long long m) {
    const Step step = step_of(batch, j, m);
    if (blockIdx.x == gridDim.x / 2) add_records(step, of_block, blocks);  // the first and the last have most to do
    Updated u = {theta, grad, states, copy, plane, prices, step.numbers(), limit, T(1), clip, prepared == 0, true};
    if (SCALED) {
        const double sum = squares_of(squares, count * prepared);
        const bool good = finite_(sum);
        if (blockIdx.x == 0 && threadIdx.x == 0) loss_scale[GOOD] = good ? T(1) : T(0);
        if (!good) return;
    }
    if (clip == CLIP_LAYER) {
        for (int l = 0; l < count; ++l) {
            u.factor = factor_of(norm_limit, squares_of(squares + l * prepared, prepared));
            update_everything(u, layers + l * U_COLUMNS, 1, false);
        }
        return;
    }
    if (clip == CLIP_ALL) u.factor = factor_of(norm_limit, squares_of(squares, count * prepared));
    update_everything(u, layers, count, prepared == 0);
}

// The copy of theta (p,) that products read; p is a multiple of LANES where the copy has two planes
extern "C" __global__ void copy_parameters(const T* theta, Operand* copy, long long p) {
    for (long long e = grid_index(); e < p / LANES; e += grid_size()) {
        store_operands<LANES>(copy + e * LANES, p, run_at<LANES>(theta + e * LANES).v);
    }
    for (long long e = p / LANES * LANES + grid_index(); e < p; e += grid_size()) {
        round_to(single_operands(copy, p)[e], theta[e]);
    }
}

// One thread: halve the loss scale after an overflow, and double it after so many good steps.
extern "C" __global__ void adjust_scale(T* loss_scale, long long patience) {
    T scale = loss_scale[SCALE], good_steps = loss_scale[GOOD_STEPS] + T(1);
    if (loss_scale[GOOD] == T(0)) {
        scale = max_(scale / T(2), T(1));
        good_steps = T(0);
        loss_scale[SKIPPED] += T(1);
    } else if (good_steps >= static_cast<T>(patience)) {
        scale = min_(scale * T(2), T(16777216));
        good_steps = T(0);
    }
    loss_scale[SCALE] = scale;
    loss_scale[UNSCALE] = T(1) / scale;
    loss_scale[GOOD_STEPS] = good_steps;
}
