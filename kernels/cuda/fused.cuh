// A training step of a narrow network in one launch: a block takes tiles of samples through all layers and back.
//
// Requires: step.cuh and what it requires, records.cuh, output_operands.cuh, wide_update.cuh, cluster.cuh, fragments.cuh,
// the shape of the network (fused.py): struct Layer<l>, and constants; and fused_shared.cuh. T is float, Operand Bfloat16.
//
// Every block has all weights in shared memory, and what each layer hands on for ROWS samples. A warp owns 16 of them: it
// takes them forward, through the loss, and back by BP2, without a word to the other warps, since what a product gives is
// what the next one takes, in the same registers. BP3 and BP4 add up over all samples of the tile: there the warps share
// the columns and rows of dW, and their sums stay in registers until the block has done its last tile.
//
// Neighbouring layers of one shape are a run: they go through one loop, so that the instructions of a deep network stay
// in the cache. `k` is the number of a layer in its run; places in shared memory are a constant step apart.
//
// A matrix in shared memory has rows of P numbers, a power of two from 16 to 128, and runs of eight (16 bytes) in an order
// that depends on the row, so that eight rows of one column of runs lie in different banks.

constexpr unsigned ONES = 0x3f803f80u;  // 1 and 1

template <int P> DEVICE int swizzle(int row) {
    constexpr int SPREAD = P / 8 < 8 ? P / 8 : 8;
    return row * SPREAD / 8 & (SPREAD - 1);
}

// Where a run of eight begins, in bytes; of row `first` + `row`, first a multiple of 8 and row below 8.
template <int P> DEVICE int byte_of(int first, int row, int run) {
    return (first + row) * (2 * P) + (run ^ swizzle<P>(row)) * 16;
}

// A warp's view of the block.
struct Warp {
    unsigned char* memory;
    SharedAddress shared;  // the same
    int number, lane;
    bool has_rows;
    // The sums take so many registers that addresses of one layer may not stay in others until the next.
    DEVICE_MEMBER Warp again() const { return {memory, shared, afresh(number), afresh(lane), has_rows}; }
    DEVICE_MEMBER int low() const { return lane % 8; }  // of its address for load_fragments: row, and which matrix
    DEVICE_MEMBER int second() const { return lane / 8 % 2; }
    DEVICE_MEMBER int third() const { return lane / 16; }
    // rows g and g + 8 of this warp, columns 2t and 2t + 1 of a run
    template <int P> DEVICE_MEMBER unsigned* pair(int place, int half, int run) const {
        const int byte = byte_of<P>(16 * number + 8 * half, lane / 4, run) + lane % 4 * 4;
        return reinterpret_cast<unsigned*>(memory + place + byte);
    }
    DEVICE_MEMBER T* numbers(int place) const { return reinterpret_cast<T*>(memory + place); }
};

DEVICE T low_of(unsigned pair) { return __int_as_float(static_cast<int>(pair << 16)); }
DEVICE T high_of(unsigned pair) { return __int_as_float(static_cast<int>(pair & 0xffff0000u)); }

template <int Q> DEVICE void copy_fragments(unsigned (&to)[Q][4], const unsigned (&from)[Q][4]) {
#pragma unroll
    for (int q = 0; q < Q; ++q) {
#pragma unroll
        for (int e = 0; e < 4; ++e) to[q][e] = from[q][e];
    }
}

// This warp's 16 rows of a matrix (ROWS, P), as the left factor of a product.
template <int P> DEVICE void load_rows(const Warp& w, int place, unsigned (&a)[P / 16][4]) {
#pragma unroll
    for (int q = 0; q < P / 16; ++q) {
        const int byte = byte_of<P>(16 * w.number + 8 * w.second(), w.low(), 2 * q + w.third());
        load_fragments<false>(a[q], w.shared + place + byte);
    }
}

// z (16, N) += a (16, K) times columns `first` ... of a matrix (K, P), or, going back, times the transpose of its rows
// `first` ... (N, K = P).
template <int K, int N, int P, bool BACK>
DEVICE void multiply(const Warp& w, const unsigned (&a)[K / 16][4], int place, int first, float (&z)[N / 8][4]) {
#pragma unroll
    for (int q = 0; q < K / 16; ++q) {
#pragma unroll
        for (int p = 0; p < N / 16; ++p) {
            const int byte = BACK ? byte_of<P>(first + 16 * p + 8 * w.third(), w.low(), 2 * q + w.second())
                                  : byte_of<P>(16 * q + 8 * w.second(), w.low(), first / 8 + 2 * p + w.third());
            unsigned b[4];
            load_fragments<!BACK>(b, w.shared + place + byte);
            multiply_fragments(z[2 * p], a[q], b[0], b[1]);
            multiply_fragments(z[2 * p + 1], a[q], b[2], b[3]);
        }
    }
}

// ---------------------------------------------------------------------------------------------- before the first tile

// Weights and biases of the layers from l on, with zeros around them; sums of BP3. Most of it is on its
// way when this returns.
template <int l> DEVICE void load(const Warp& w, const Operand* copy, const T* theta) {
    if constexpr (l < LAST) {
        typedef Layer<l> Own;
        typedef Layer<l + 1> Next;
        constexpr int RUNS = Next::P / 8;
        for (int e = threadIdx.x; e < Own::P * RUNS; e += 32 * WARPS) {
            const int row = e / RUNS, run = e % RUNS;
            const Operand* const from = copy + Own::THETA_W + static_cast<long long>(row) * Next::N + 8 * run;
            unsigned char* const to = w.memory + Own::W + byte_of<Next::P>(row / 8 * 8, row % 8, run);
            if (Next::N % 8 == 0 && row < Own::N && 8 * run < Next::N) {
                copy_later<16>(to, from);
                continue;
            }
            Run<8, Operand> found;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                if (row < Own::N && 8 * run + k < Next::N) {
                    found.v[k] = from[k];
                } else {
                    found.v[k].bits = 0;
                }
            }
            *reinterpret_cast<Run<8, Operand>*>(to) = found;
        }
        for (int k = threadIdx.x; k < Next::P; k += 32 * WARPS) {
            if (k < Next::N) {
                copy_later<sizeof(T)>(w.numbers(Own::B) + k, theta + Own::THETA_B + k);
            } else {
                w.numbers(Own::B)[k] = T(0);
            }
            w.numbers(Own::DB)[k] = T(0);
        }
        load<l + 1>(w, copy, theta);
    }
}

// The errors of the output: columns beyond the last stay 0.
DEVICE void clear_errors(const Warp& w) {
    unsigned* const errors = reinterpret_cast<unsigned*>(w.memory + Layer<LAST>::KEPT);
    for (int e = threadIdx.x; e < ROWS * Layer<LAST>::P / 2; e += 32 * WARPS) errors[e] = 0;
}

// ---------------------------------------------------------------------------------------------- forward

// Rows of X from number `first` of the step on, rounded.
DEVICE void load_inputs(const Step& step, const Warp& w, long long first) {
    typedef Layer<1> Own;
    constexpr int RUNS = Own::P / 8;
    const T* const X = step.data(X_AT);
    const bool in_runs = Own::N % 4 == 0 && takes_runs<4>(X);
#pragma unroll
    for (int pass = 0; pass < RUNS / 2; ++pass) {
        const int row = (32 * pass + w.lane) / RUNS, run = (32 * pass + w.lane) % RUNS;
        const T* const x = X + sample_of(step, first + row) * Own::N + 8 * run;
        T values[8];
#pragma unroll
        for (int k = 0; k < 8; k += 4) {
            if (in_runs) {
                Run<4, T> four = {};
                if (8 * run + k < Own::N) four = run_at<4>(x + k);
#pragma unroll
                for (int i = 0; i < 4; ++i) values[k + i] = four.v[i];
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) values[k + i] = 8 * run + k + i < Own::N ? x[k + i] : T(0);
            }
        }
        const int byte = byte_of<Own::P>(16 * w.number + row / 8 * 8, row % 8, run);
        store_run<8>(reinterpret_cast<Operand*>(w.memory + Own::KEPT + byte), values);
    }
    __syncwarp();
}

template <int l> constexpr int KEPT_STEP = 2 * ROWS * Layer<l>::P;

// H of layer l from the layer below, columns `first` ... of it, to the next product and to shared memory.
template <int l, int first, int G>
DEVICE void finish_forward(const Warp& w, int k, const float (&z)[G / 8][4], unsigned (&h)[Layer<l>::P / 16][4]) {
    typedef Layer<l> Own;
#pragma unroll
    for (int c = 0; c < G / 8; ++c) {
        const int run = first / 8 + c;
        T v[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            v[e] = activate(Own::CODE, z[c][e]);
            if (8 * run + 8 > Own::N && 8 * run + w.lane % 4 * 2 + e % 2 >= Own::N) v[e] = T(0);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned pair = pair_of_bfloat16(v[2 * half], v[2 * half + 1]);
            h[run / 2][run % 2 * 2 + half] = pair;
            *w.pair<Own::P>(Own::KEPT + k * KEPT_STEP<l>, half, run) = pair;
        }
    }
}

// Columns `first` ... of a hidden layer l + 1.
template <int l, int first>
DEVICE void forward_columns(const Warp& w, int k, const unsigned (&a)[Layer<l>::P / 16][4],
                            unsigned (&h)[Layer<l + 1>::P / 16][4]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    constexpr int G = Next::P < 64 ? Next::P : 64;
    if constexpr (first < Next::P) {
        float z[G / 8][4];
#pragma unroll
        for (int c = 0; c < G / 8; ++c) {
            const Run<2, T> b = run_at<2>(w.numbers(Own::B + k * Own::STEP) + first + 8 * c + w.lane % 4 * 2);
#pragma unroll
            for (int e = 0; e < 4; ++e) z[c][e] = b.v[e % 2];
        }
        multiply<Own::P, G, Next::P, false>(w, a, Own::W + k * Own::STEP, first, z);
        finish_forward<l + 1, first, G>(w, k, z, h);
        forward_columns<l, first + G>(w, k, a, h);
    }
}

// The products of the layers from l on; that of the output, without its bias, goes to shared memory.
template <int l> DEVICE void forward(const Warp& w, const unsigned (&a)[Layer<l>::P / 16][4]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    if constexpr (l + 1 < LAST) {
        unsigned h[Next::P / 16][4];
        forward_columns<l, 0>(w.again(), 0, a, h);
#pragma unroll 1
        for (int k = 1; k < Own::RUN_UP; ++k) {
            unsigned next[Next::P / 16][4];
            forward_columns<l, 0>(w.again(), k, reinterpret_cast<const unsigned(&)[Own::P / 16][4]>(h), next);
            copy_fragments(h, next);
        }
        forward<l + Own::RUN_UP>(w, h);
    } else {
#pragma unroll
        for (int p = 0; p < Next::P / 16; ++p) {
            float z[2][4] = {};
            multiply<Own::P, 16, Next::P, false>(w, a, Own::W, 16 * p, z);
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                const int row = 16 * w.number + e / 2 % 2 * 8 + w.lane / 4, column = 16 * p + e / 4 * 8 + w.lane % 4 * 2 + e % 2;
                if (column < Next::N) w.numbers(LOGITS)[row * LOGITS_ROW + column] = z[e / 4][e % 4];
            }
        }
        __syncwarp();
    }
}

// ---------------------------------------------------------------------------------------------- the loss

// A row of the errors of the output.
struct ErrorRow {
    unsigned char* memory;
    int row;
    DEVICE_MEMBER Operand& operator[](long long j) const {
        const int column = static_cast<int>(j), byte = byte_of<Layer<LAST>::P>(row / 8 * 8, row % 8, column / 8);
        return reinterpret_cast<Operand*>(memory + Layer<LAST>::KEPT + byte)[column % 8];
    }
};

// Row-wise output, loss, BP1 and hits: a row to two lanes.
DEVICE void output(const Step& step, const Warp& w, long long first, const T* scales, T scale, double& loss,
                   double& right) {
    typedef Layer<LAST> Out;
    const LaneTeam team = {w.lane % 2, 2};
    const int row = 16 * w.number + w.lane / 2;
    const long long i = first + w.lane / 2;
    const bool inside = i < step.m;
    const long long sample = sample_of(step, i);
    const long long label = CLASSES && inside ? step.labels()[sample] : 0;
    const T weight = WEIGHTED && inside ? step.data(WEIGHTS_AT)[sample] : T(1);
    const ErrorRow errors = {w.memory, row};
    const OutputRow<LaneTeam> found = {team, w.numbers(LOGITS) + row * LOGITS_ROW, w.numbers(Layer<LAST - 1>::B),
                                       step.data(Y_AT) + sample * Out::N, WEIGHTED && inside ? scales[i] : scale,
                                       OUTPUT_ROWS != 0 ? 0 : Out::CODE, inside ? Out::N : 0, T(0), T(1), T(0)};
    double none = 0.0;
    output_operands<false>(found, errors, T(1), label, weight, step.threshold(), loss, right, none);
    for (int k = team.rank; !inside && k < Out::N; k += 2) errors[k].bits = 0;
    __syncwarp();
}

// ---------------------------------------------------------------------------------------------- backward

// Columns `first` ... of Delta[l] = (Delta[l + 1] W[l]^T) * act'(Z[l]); k counts down from l.
template <int l, int first>
DEVICE void backward_columns(const Warp& w, int k, const unsigned (&above)[Layer<l + 1>::P / 16][4],
                             unsigned (&delta)[Layer<l>::P / 16][4]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    constexpr int G = Own::P < 64 ? Own::P : 64;
    if constexpr (first < Own::P) {
        float d[G / 8][4] = {};
        multiply<Next::P, G, Next::P, true>(w, above, Own::W - k * Own::STEP, first, d);
#pragma unroll
        for (int c = 0; c < G / 8; ++c) {
            const int run = first / 8 + c;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned pair = *w.pair<Own::P>(Own::KEPT - k * KEPT_STEP<l>, half, run);
                T v[2];
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const T h = e == 0 ? low_of(pair) : high_of(pair);
                    v[e] = backprop(Own::CODE, d[c][2 * half + e], h, h);
                    if (8 * run + 8 > Own::N && 8 * run + w.lane % 4 * 2 + e >= Own::N) v[e] = T(0);
                }
                delta[run / 2][run % 2 * 2 + half] = pair_of_bfloat16(v[0], v[1]);
            }
        }
        backward_columns<l, first + G>(w, k, above, delta);
    }
}

// BP4 and BP3 of a layer over the tile: this warp's part of dW into registers. For db, 16 columns of Delta as they were
// loaded are the left factor of a product whose right one has ones above in its first four columns and ones below in the
// others: so the two halves of the columns, in whose place others are expected, are added up apart.
template <int l> DEVICE void gradient(const Warp& w, float (&sums)[SUMS]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    constexpr int DOWN = Own::P / 16 / Own::WARPS_DOWN, ACROSS = Next::P / 16 / Own::WARPS_ACROSS;
    constexpr int OWNERS = Own::WARPS_DOWN < ACROSS ? Own::WARPS_DOWN : ACROSS;  // of warps with the same columns
    if (w.number >= Own::WARPS_DOWN * Own::WARPS_ACROSS) return;
    const int down = w.number / Own::WARPS_ACROSS, across = w.number % Own::WARPS_ACROSS, mine = down % OWNERS;
    const unsigned above = w.lane < 16 ? ONES : 0u, below = w.lane < 16 ? 0u : ONES;
    SharedAddress rows_of_a[DOWN], rows_of_b[ACROSS];
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
        rows_of_a[i] = w.shared + Own::KEPT + byte_of<Own::P>(8 * w.third(), w.low(), 2 * (down * DOWN + i) + w.second());
    }
#pragma unroll
    for (int p = 0; p < ACROSS; ++p) {
        const int run = 2 * (across * ACROSS + p) + w.third();
        rows_of_b[p] = w.shared + Next::KEPT + byte_of<Next::P>(8 * w.second(), w.low(), run);
    }
    float bias[ACROSS / OWNERS][4] = {};
#pragma unroll
    for (int r = 0; r < ROWS; r += 16) {
        unsigned b[ACROSS][4];
#pragma unroll
        for (int p = 0; p < ACROSS; ++p) load_fragments<true>(b[p], rows_of_b[p] + r * 2 * Next::P);
#pragma unroll
        for (int i = 0; i < DOWN; ++i) {
            unsigned a[4];
            load_fragments<true>(a, rows_of_a[i] + r * 2 * Own::P);
#pragma unroll
            for (int c = 0; c < 2 * ACROSS; ++c) {
                float(&sum)[4] = reinterpret_cast<float(&)[4]>(sums[Own::FIRST_SUM + (i * 2 * ACROSS + c) * 4]);
                multiply_fragments(sum, a, b[c / 2][c % 2 * 2], b[c / 2][c % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (int i = 0; i < ACROSS / OWNERS; ++i) {
            unsigned a[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                a[e] = b[i * OWNERS][e];
#pragma unroll
                for (int d = 1; d < OWNERS; ++d) a[e] = mine == d ? b[i * OWNERS + d][e] : a[e];
            }
            multiply_fragments(bias[i], a, above, below);
        }
    }
    if (down >= OWNERS || w.lane % 2 != 0) return;
#pragma unroll
    for (int i = 0; i < ACROSS / OWNERS; ++i) {  // in a row of the product: 4 equal sums, then 4 others
        const int column = 16 * (across * ACROSS + i * OWNERS + mine) + w.lane % 4 / 2 * 8 + w.lane / 4;
        w.numbers(Own::DB)[column] += bias[i][0] + bias[i][2];
    }
}

// The same for layer `layer`, which is l or one below down to `least`.
template <int l, int least> DEVICE void gradient_of(int layer, const Warp& w, float (&sums)[SUMS]) {
    if (layer == l) {
        gradient<l>(w, sums);
        return;
    }
    if constexpr (l > least) gradient_of<l - 1, least>(layer, w, sums);
}

// BP2 to BP4 of the layer with number k in the run from l down. Delta takes the place of H, which nobody needs after BP4.
template <int l>
DEVICE void backward_layer(const Warp& w, int k, const unsigned (&above)[Layer<l + 1>::P / 16][4],
                           unsigned (&delta)[Layer<l>::P / 16][4], float (&sums)[SUMS]) {
    typedef Layer<l> Own;
    if (w.has_rows && l - k > 1) backward_columns<l, 0>(w.again(), k, above, delta);
    __syncthreads();  // all rows of H[l] and Delta[l + 1] are here
    gradient_of<l, l - Own::RUN_DOWN + 1>(l - k, w.again(), sums);
    __syncthreads();  // H[l] and Delta[l + 1] are not needed any more
    if (w.has_rows && l - k > 1) {
        const Warp own = w.again();
#pragma unroll
        for (int run = 0; run < Own::P / 8; ++run) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                *own.pair<Own::P>(Own::KEPT - k * KEPT_STEP<l>, half, run) = delta[run / 2][run % 2 * 2 + half];
            }
        }
    }
}

// BP2 to BP4 of the layers from l down.
template <int l>
DEVICE void backward(const Warp& w, const unsigned (&above)[Layer<l + 1>::P / 16][4], float (&sums)[SUMS]) {
    typedef Layer<l> Own;
    unsigned delta[Own::P / 16][4];
    backward_layer<l>(w, 0, above, delta, sums);
#pragma unroll 1
    for (int k = 1; k < Own::RUN_DOWN; ++k) {
        unsigned next[Own::P / 16][4];
        backward_layer<l>(w, k, reinterpret_cast<const unsigned(&)[Layer<l + 1>::P / 16][4]>(delta), next, sums);
        copy_fragments(delta, next);
    }
    if constexpr (l > Own::RUN_DOWN) backward<l - Own::RUN_DOWN>(w, delta, sums);
}

// ---------------------------------------------------------------------------------------------- after the last tile

// This block's sums: dW to its slice, db to its row of the partial sums of each layer.
template <int l> DEVICE void store(const Warp& w, const long long* layers, T* slice, const float (&sums)[SUMS]) {
    if constexpr (l < LAST) {
        typedef Layer<l> Own;
        typedef Layer<l + 1> Next;
        constexpr int DOWN = Own::P / 16 / Own::WARPS_DOWN, ACROSS = Next::P / 16 / Own::WARPS_ACROSS;
        const int down = w.number / Own::WARPS_ACROSS, across = w.number % Own::WARPS_ACROSS;
        if (down < Own::WARPS_DOWN) {
#pragma unroll
            for (int e = 0; e < DOWN * ACROSS * 8; e += 2) {
                const int row = 16 * (down * DOWN + e / (8 * ACROSS)) + e / 2 % 2 * 8 + w.lane / 4;
                const int column = 16 * across * ACROSS + e / 4 % (2 * ACROSS) * 8 + w.lane % 4 * 2;
                T* const place = slice + Own::THETA_W + static_cast<long long>(row) * Next::N + column;
                if (row < Own::N && Next::N % 2 == 0 && column < Next::N) {
                    store_run<2>(place, {sums[Own::FIRST_SUM + e], sums[Own::FIRST_SUM + e + 1]});
                } else if (row < Own::N) {
                    if (column < Next::N) place[0] = sums[Own::FIRST_SUM + e];
                    if (column + 1 < Next::N) place[1] = sums[Own::FIRST_SUM + e + 1];
                }
            }
        }
        double* const partial = reinterpret_cast<double*>(layers[(l - 1) * U_COLUMNS + U_PARTIAL]);
        for (int k = threadIdx.x; k < Next::N; k += 32 * WARPS) {
            partial[blockIdx.x * static_cast<long long>(Next::N) + k] = static_cast<double>(w.numbers(Own::DB)[k]);
        }
        store<l + 1>(w, layers, slice, sums);
    }
}

// Forward, loss and backward of a step. copy (size,) is theta (size,) rounded; scales (m,) if samples have weights, else
// `scale`; slices (gridDim.x, size) get dW, the partial sums of `layers` (gridDim.x, n) db.
extern "C" __global__ void __launch_bounds__(256) fused_step(
    const long long* batch, int j, const Operand* copy, const T* theta, const T* scales, T scale,
    const long long* layers, T* slices, double* of_block, long long size, long long m) {
    DYNAMIC_SHARED(memory);
    const Step step = step_of(batch, j, m);
    const int number = threadIdx.x / 32;
    const Warp w = {memory, shared_address(memory), number, static_cast<int>(threadIdx.x) % 32, 16 * number < ROWS};
    load<1>(w, copy, theta);
    clear_errors(w);
    float sums[SUMS] = {};
    double loss = 0.0, right = 0.0;
    finish_copies();
    __syncthreads();
    const int tiles = static_cast<int>((m + ROWS - 1) / ROWS);
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const long long first = static_cast<long long>(tile) * ROWS + 16 * number;
        unsigned delta[Layer<LAST>::P / 16][4];
        if (w.has_rows) {
            const long long after = first + static_cast<long long>(gridDim.x) * ROWS + w.lane / 2;
            const long long next = after < m ? step.index()[after] : -1;
            load_inputs(step, w.again(), first);
            unsigned x[Layer<1>::P / 16][4];
            load_rows<Layer<1>::P>(w.again(), Layer<1>::KEPT, x);
            forward<1>(w, x);
            output(step, w.again(), first, scales, scale, loss, right);
            load_rows<Layer<LAST>::P>(w.again(), Layer<LAST>::KEPT, delta);
            if (next >= 0) ask_for(step, w.lane % 2, 2, next);
        }
        backward<LAST - 1>(w, delta, sums);
    }
    store<1>(w, layers, slices + blockIdx.x * size, sums);
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}
