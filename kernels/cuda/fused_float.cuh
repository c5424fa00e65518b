// A training step of a narrow network in one launch, in float32: a block takes tiles of samples through all layers and
// back.
//
// Requires: step.cuh and what it requires, records.cuh, output_operands.cuh, wide_update.cuh, cluster.cuh, the shape of
// the network (fused_float.py): struct Layer<l>, and constants; and fused_shared.cuh. T and Operand are float.
//
// Every block has all weights in shared memory, and two tiles: what a layer hands on for ROWS samples, and what the next
// one makes of it. Layer l has tile l % 2. What the hidden layers hand on is kept in global memory besides, in a room of the
// block's own that stays in the second-level cache; going back, each thread fetches what it has written, while the block
// multiplies. BP3 adds up in shared memory, BP4 in registers, until the block has done its last tile.
//
// Neighbouring layers of one shape are a run: they go through one loop, so that the instructions of a deep network stay in
// the cache. `k` is the number of a layer in its run; places in shared memory are a constant step apart.
//
// A matrix on chip has rows of P numbers, a power of two from 16 to 128, in packs of four. A product reads packs, of one
// row by a lane or of neighbouring ones, and what a half of a warp reads at once must lie in different banks: so the
// packs of a row are in an order that depends on the four rows to which it belongs (`turn`).

constexpr int THREADS = 32 * WARPS;
constexpr int TEAM = THREADS / ROWS;  // threads for a row of the output
constexpr int PACK = 16;              // bytes
// Packs of a row that a product takes in a round, and fours of rows that BP4 does: its text is there for every layer.
constexpr int AHEAD = 4, FOURS_AHEAD = 2;

// A pack comes to the place of its number ^ turn. Of a ^ b it is turn(a) ^ turn(b).
template <int P> DEVICE constexpr int turn_of(int fours) {
    return P < 32 ? (fours << 1 | (fours & 3) >> 1) & 3 : (fours << 2 | (fours & 7) >> 1) & 7;
}
template <int P> DEVICE int turn(int fours) { return turn_of<P>(fours); }

// Where pack `pack` of a row begins, in bytes. A matrix begins at a multiple of its rows: so the number of a pack can be
// put in by ^ at last.
template <int P> DEVICE int place_of(int row, int pack) { return 4 * P * row + PACK * (pack ^ turn<P>(row / 4)); }

// Where a thread is among DOWN x ACROSS: a warp has 4 x 8 of them, or 8 x 4. The lowest bit of a lane goes down, the next
// ones across: what a product reads is then the same for two lanes of any four, and a warp gets a pack to a lane in two
// accesses instead of four.
template <int DOWN, int ACROSS> struct Grid {
    static constexpr int LANES_ACROSS = ACROSS < 8 ? ACROSS : 8, LANES_DOWN = 32 / LANES_ACROSS;
    static constexpr int SIZE = DOWN * ACROSS;
    static_assert(DOWN % LANES_DOWN == 0 && ACROSS % LANES_ACROSS == 0 && SIZE <= THREADS, "warps are whole");
    int thread;
    DEVICE_MEMBER bool exists() const { return thread < SIZE; }  // the same for all lanes of a warp
    DEVICE_MEMBER int down() const {
        const int lane = thread % 32;
        return thread / 32 / (ACROSS / LANES_ACROSS) * LANES_DOWN + lane / (2 * LANES_ACROSS) * 2 + lane % 2;
    }
    DEVICE_MEMBER int across() const {
        return thread / 32 % (ACROSS / LANES_ACROSS) * LANES_ACROSS + thread / 2 % LANES_ACROSS;
    }
};

// How the threads share a tile of layer l: each has fours of neighbouring rows, and four columns.
template <int l> struct Share {
    static constexpr int P = Layer<l>::P, HEIGHT = Layer<l>::HEIGHT;
    typedef Grid<ROWS / HEIGHT, P / 4> Threads;
    static_assert(HEIGHT == 4 || ROWS % 64 == 0, "all rows of a thread have the same turn");
    int down, across, order;
    bool exists;
    DEVICE_MEMBER explicit Share(int thread) {
        const Threads threads = {thread};
        down = threads.down();
        across = threads.across();
        order = turn<P>(down);
        exists = threads.exists();
    }
    // The row of number q.
    DEVICE_MEMBER int row(int q) const { return q / 4 * (ROWS / 2) + 4 * down + q % 4; }
    // Where its columns lie in the tile, in bytes.
    DEVICE_MEMBER int place(int q) const { return 4 * P * row(q) + PACK * (across ^ order); }
    // Whether column e of the four is a neuron.
    DEVICE_MEMBER bool is_neuron(int e) const { return P == Layer<l>::N || 4 * across + e < Layer<l>::N; }
};

typedef Run<4, T> Four;

// A thread's view of the block.
struct Block {
    unsigned char* memory;
    T* kept;  // the room of this block outside
    int thread;
    // The sums take so many registers that addresses of one layer may not stay in others until the next.
    DEVICE_MEMBER Block again() const { return {memory, kept, afresh(thread)}; }
    DEVICE_MEMBER T* numbers(int place) const { return reinterpret_cast<T*>(memory + place); }
    DEVICE_MEMBER Four& four(int place) const { return *reinterpret_cast<Four*>(memory + place); }
    DEVICE_MEMBER SharedAddress shared(int place) const { return shared_address(memory + place); }
    // Where the tile of a layer begins.
    static DEVICE_MEMBER int tile(int layer) { return TILES + layer % 2 * TILE_BYTES; }
};

// z (HEIGHT, 4) += rows of a tile (ROWS, K) times columns of a matrix (K, P), or, going back, times the transpose of rows
// of a matrix (P, K): four of either, those of number `across`.
template <int K, int P, int HEIGHT, bool BACK>
DEVICE void multiply(const Block& w, int tile, int matrix, int down, int across, T (&z)[HEIGHT][4]) {
    const int a_at = tile + 4 * K * 4 * down + PACK * turn<K>(down);
    const int b_at = matrix + (BACK ? 4 * K * 4 * across + PACK * turn<K>(across) : PACK * across);
#pragma unroll 1
    for (int first = 0; first < K / 4; first += AHEAD) {
        const int a_round = a_at ^ PACK * first;
        const int b_round = BACK ? b_at ^ PACK * first : (b_at ^ PACK * turn<P>(first)) + 4 * P * 4 * first;
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            const int a_place = a_round ^ PACK * k;
            const int b_place = BACK ? b_round ^ PACK * k : (b_round ^ PACK * turn_of<P>(k)) + 4 * P * 4 * k;
            Four a[HEIGHT], b[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) b[c] = w.four(b_place + 4 * (BACK ? K : P) * c);
#pragma unroll
            for (int q = 0; q < HEIGHT; ++q) a[q] = w.four(a_place + 4 * K * (q / 4 * (ROWS / 2) + q % 4));
#pragma unroll
            for (int c = 0; c < 4; ++c) {
#pragma unroll
                for (int q = 0; q < HEIGHT; ++q) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) z[q][e] += a[q].v[c] * (BACK ? b[e].v[c] : b[c].v[e]);
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- before the first tile

// A pack of a matrix (any, N) on its way to shared memory; beyond column N it is 0, and all of it if there is no such row.
template <int N, bool IN_PACKS> DEVICE void fetch_pack(const Block& w, int place, const T* row, int pack, bool exists) {
    if constexpr (N % 4 == 0 && IN_PACKS) {
        copy_later_if(exists && 4 * pack < N, w.shared(place), row + 4 * pack);
        return;
    }
    T* const to = w.numbers(place);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        if (exists && 4 * pack + e < N) {
            copy_later<sizeof(T)>(to + e, row + 4 * pack + e);
        } else {
            to[e] = T(0);
        }
    }
}

// Weights and biases of the layers from l on, with zeros around them; sums of BP3. Most of it is on its way when this
// returns.
template <int l> DEVICE void load(const Block& w, const T* theta) {
    if constexpr (l < LAST) {
        typedef Layer<l> Own;
        typedef Layer<l + 1> Next;
        constexpr int PACKS = Next::P / 4;
        for (int e = w.thread; e < Own::P * PACKS; e += THREADS) {
            const int row = e / PACKS, pack = e % PACKS;
            const bool exists = row < Own::N;
            const T* const from = theta + Own::THETA_W + (exists ? row : 0) * Next::N;
            fetch_pack<Next::N, true>(w, Own::W + place_of<Next::P>(row, pack), from, pack, exists);
        }
        if (w.thread < Next::P / 4) {
            fetch_pack<Next::N, true>(w, Own::B + PACK * w.thread, theta + Own::THETA_B, w.thread, true);
        }
        w.numbers(Own::DB)[w.thread] = T(0);
        load<l + 1>(w, theta);
    }
}

// Number `e` of the packs of X from sample `first` of the step on.
template <bool IN_PACKS> DEVICE void fetch_input(const Step& step, const Block& w, const T* X, long long first, int e) {
    typedef Layer<1> Own;
    constexpr int PACKS = Own::P / 4;
    const int row = e / PACKS, pack = e % PACKS;
    if (row >= ROWS) return;
    const T* const x = X + sample_of(step, first + row) * Own::N;
    fetch_pack<Own::N, IN_PACKS>(w, w.tile(1) + place_of<Own::P>(row, pack), x, pack, true);
}

// Rows of X from number `first` of the step on begin to come. What is rare is one round at a time, to be short.
DEVICE void fetch_inputs(const Step& step, const Block& w, long long first) {
    constexpr int COUNT = ROWS * Layer<1>::P / 4;
    const T* const X = step.data(X_AT);
    if (Layer<1>::N % 4 == 0 && is_aligned(X)) {
#pragma unroll 4
        for (int e = w.thread; e < COUNT; e += THREADS) fetch_input<true>(step, w, X, first, e);
    } else {
#pragma unroll 1
        for (int e = w.thread; e < COUNT; e += THREADS) fetch_input<false>(step, w, X, first, e);
    }
}

// ---------------------------------------------------------------------------------------------- forward

template <int l> constexpr int KEPT_STEP = ROWS * Layer<l>::P;

// Number k of the run of layers from l + 1 on.
template <int l> DEVICE void forward_layer(const Block& w, int k) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    const Share<l + 1> share(w.thread);
    if (!share.exists) return;
    const Four b = w.four(Own::B + k * Own::STEP + PACK * share.across);
    T z[Next::HEIGHT][4];
#pragma unroll
    for (int q = 0; q < Next::HEIGHT; ++q) {
#pragma unroll
        for (int e = 0; e < 4; ++e) z[q][e] = b.v[e];
    }
    multiply<Own::P, Next::P, Next::HEIGHT, false>(w, w.tile(l + k), Own::W + k * Own::STEP, share.down, share.across, z);
    const int H = w.tile(l + 1 + k);
    T* const kept = w.kept + Next::KEPT + k * KEPT_STEP<l + 1> + 4 * w.thread;
    const bool is_kept = l + 1 + k < LAST - 1;  // the last one is still there when it is needed
#pragma unroll
    for (int q = 0; q < Next::HEIGHT; ++q) {
        Four h;
#pragma unroll
        for (int e = 0; e < 4; ++e) h.v[e] = share.is_neuron(e) ? activate(Next::CODE, z[q][e]) : T(0);
        w.four(H + share.place(q)) = h;
        if (is_kept) store_run<4>(kept + q * 4 * Share<l + 1>::Threads::SIZE, h.v);
    }
}

// The products of the layers from l on; that of the output, without its bias, goes to a place of its own.
template <int l> DEVICE void forward(const Block& w) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    if constexpr (l + 1 < LAST) {
#pragma unroll 1
        for (int k = 0; k < Own::RUN_UP; ++k) {
            forward_layer<l>(w.again(), k);
            __syncthreads();  // all of H is there
        }
        forward<l + Own::RUN_UP>(w);
    } else {
        const Share<LAST> share(w.thread);
        if (share.exists) {
            T z[Next::HEIGHT][4] = {};
            multiply<Own::P, Next::P, Next::HEIGHT, false>(w, w.tile(l), Own::W, share.down, share.across, z);
#pragma unroll
            for (int q = 0; q < Next::HEIGHT; ++q) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int column = 4 * share.across + e;
                    if (column < Next::N) w.numbers(LOGITS)[share.row(q) * LOGITS_ROW + column] = z[q][e];
                }
            }
        }
        __syncthreads();  // all logits are there
    }
}

// ---------------------------------------------------------------------------------------------- the loss

// A row of the errors of the output.
struct ErrorRow {
    const Block& w;
    int row;
    DEVICE_MEMBER T& operator[](long long j) const {
        const int column = static_cast<int>(j);
        return w.numbers(w.tile(LAST) + place_of<Layer<LAST>::P>(row, column / 4))[column % 4];
    }
};

// Row-wise output, loss, BP1 and hits: a row to a team.
DEVICE void output(const Step& step, const Block& w, long long first, const T* scales, T scale, double& loss,
                   double& right) {
    typedef Layer<LAST> Out;
    const LaneTeam team = {w.thread % TEAM, TEAM};
    const int row = w.thread / TEAM;
    const long long i = first + row;
    const bool inside = i < step.m;
    const long long sample = sample_of(step, i);
    const long long label = CLASSES && inside ? step.labels()[sample] : 0;
    const T weight = WEIGHTED && inside ? step.data(WEIGHTS_AT)[sample] : T(1);
    const ErrorRow errors = {w, row};
    const OutputRow<LaneTeam> found = {team, w.numbers(LOGITS) + row * LOGITS_ROW, w.numbers(Layer<LAST - 1>::B),
                                       step.data(Y_AT) + sample * Out::N, WEIGHTED && inside ? scales[i] : scale,
                                       OUTPUT_ROWS != 0 ? 0 : Out::CODE, inside ? Out::N : 0, T(0), T(1), T(0)};
    double none = 0.0;
    output_operands<false>(found, errors, T(1), label, weight, step.threshold(), loss, right, none);
    for (int k = (inside ? Out::N : 0) + team.rank; k < Out::P; k += TEAM) errors[k] = T(0);
}

// ---------------------------------------------------------------------------------------------- backward

// What layer l has handed on, or number k of a run from l down, on its way back by the threads that wrote it.
template <int l> DEVICE void fetch_kept(const Block& w, int k) {
    const Share<l> share(w.thread);
    if (!share.exists) return;
    const int H = w.tile(l + k);  // l - k has the same
    const T* const kept = w.kept + Layer<l>::KEPT - k * KEPT_STEP<l> + 4 * w.thread;
#pragma unroll
    for (int q = 0; q < Layer<l>::HEIGHT; ++q) {
        copy_later_if(true, w.shared(H + share.place(q)), kept + q * 4 * Share<l>::Threads::SIZE);
    }
}

// The same for the layer below number k of the run from l down.
template <int l> DEVICE void fetch_below(const Step& step, const Block& w, int k, long long first) {
    constexpr int LEAST = l - Layer<l>::RUN_DOWN;
    if (l - k == 2) {
        fetch_inputs(step, w, first);
    } else if (k + 1 < Layer<l>::RUN_DOWN) {
        fetch_kept<l>(w, k + 1);
    } else {
        if constexpr (LEAST > 1) fetch_kept<LEAST>(w, 0);
    }
}

// BP3 of number k of the run from l down, over the tile: a thread adds up some rows of one column.
template <int l> DEVICE void add_errors(const Block& w, int k) {
    constexpr int P = Layer<l + 1>::P, SHARE = ROWS * P / THREADS, FOURS = SHARE < 4 ? SHARE : 4;
    const int column = w.thread % P, first = w.thread / P * SHARE;
    const int at = w.tile(l + k + 1) + place_of<P>(first, column / 4) + 4 * (column % 4);
    T sum = T(0);
#pragma unroll
    for (int r = 0; r < SHARE; r += FOURS) {
        const int place = (at ^ PACK * turn_of<P>(r / 4)) + 4 * P * r;
#pragma unroll
        for (int i = 0; i < FOURS; ++i) sum += *w.numbers(place + 4 * P * i);
    }
    w.numbers(Layer<l>::DB - k * Layer<l>::STEP)[w.thread] += sum;
}

// How the threads share dW of layer l: each has fours of rows, as far apart as there are threads, and of columns, or
// neighbouring columns if it has fewer than four.
template <int l> struct Part {
    typedef Layer<l> Own;
    static constexpr int ACROSS = Layer<l + 1>::P / Own::SUMS_ACROSS, DOWN = Own::P / Own::SUMS_DOWN;
    static constexpr int FOURS_DOWN = Own::SUMS_DOWN / 4;
    static constexpr int FOURS_ACROSS = Own::SUMS_ACROSS < 4 ? 1 : Own::SUMS_ACROSS / 4;
    static constexpr int WIDTH = Own::SUMS_ACROSS < 4 ? Own::SUMS_ACROSS : 4;
    typedef Grid<DOWN, ACROSS> Threads;
    int down, across;
    DEVICE_MEMBER explicit Part(const Threads& threads) : down(threads.down()), across(threads.across()) {}
    // The first of a four of rows, or of columns.
    DEVICE_MEMBER int row(int i) const { return 4 * (down + i * DOWN); }
    DEVICE_MEMBER int column(int j) const { return WIDTH * (across + j * ACROSS); }
    static DEVICE_MEMBER constexpr int number(int i, int c, int j, int e) {
        return Own::FIRST_SUM + ((4 * i + c) * FOURS_ACROSS + j) * WIDTH + e;
    }
};

// BP4 of layer l over the tile.
template <int l> DEVICE void gradient(const Block& w, T (&sums)[SUMS]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    typedef Part<l> Mine;
    constexpr int WIDTH = Mine::WIDTH;
    const typename Mine::Threads threads = {w.thread};
    if (!threads.exists()) return;
    const Mine mine(threads);
    const int h_at = w.tile(l) + PACK * mine.down, d_at = w.tile(l + 1) + 4 * mine.column(0);
#pragma unroll 1
    for (int first = 0; first < ROWS / 4; first += FOURS_AHEAD) {
        const int h_round = (h_at ^ PACK * turn<Own::P>(first)) + 4 * Own::P * 4 * first;
        const int d_round = (d_at ^ PACK * turn<Next::P>(first)) + 4 * Next::P * 4 * first;
#pragma unroll
        for (int r = 0; r < 4 * FOURS_AHEAD; ++r) {
            const int h = (h_round ^ PACK * turn_of<Own::P>(r / 4)) + 4 * Own::P * r;
            const int d = (d_round ^ PACK * turn_of<Next::P>(r / 4)) + 4 * Next::P * r;
            Four a[Mine::FOURS_DOWN];
            Run<WIDTH, T> b[Mine::FOURS_ACROSS];
#pragma unroll
            for (int i = 0; i < Mine::FOURS_DOWN; ++i) a[i] = w.four(h + PACK * i * Mine::DOWN);
#pragma unroll
            for (int j = 0; j < Mine::FOURS_ACROSS; ++j) b[j] = run_at<WIDTH>(w.numbers(d + PACK * j * Mine::ACROSS));
#pragma unroll
            for (int i = 0; i < Mine::FOURS_DOWN; ++i) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
#pragma unroll
                    for (int j = 0; j < Mine::FOURS_ACROSS; ++j) {
#pragma unroll
                        for (int e = 0; e < WIDTH; ++e) sums[Mine::number(i, c, j, e)] += a[i].v[c] * b[j].v[e];
                    }
                }
            }
        }
    }
}

// The same for layer `layer`, which is l or one below down to `least`.
template <int l, int least> DEVICE void gradient_of(int layer, const Block& w, T (&sums)[SUMS]) {
    if (layer == l) {
        gradient<l>(w, sums);
        return;
    }
    if constexpr (l > least) gradient_of<l - 1, least>(layer, w, sums);
}

// BP2 to BP4 of the layer with number k in the run from l down. Delta takes the place of H, which nobody needs after
// BP4; what the layer below has handed on, that of the Delta above.
template <int l>
DEVICE void backward_layer(const Step& step, const Block& w, int k, long long first, T (&sums)[SUMS]) {
    typedef Layer<l> Own;
    typedef Layer<l + 1> Next;
    const bool goes_on = l - k > 1;
    T d[Own::HEIGHT][4] = {};
    if (goes_on) {
        const Share<l> share(w.again().thread);
        if (share.exists) {
            multiply<Next::P, Own::P, Own::HEIGHT, true>(w, w.tile(l + k + 1), Own::W - k * Own::STEP, share.down,
                                                         share.across, d);
        }
    }
    add_errors<l>(w.again(), k);
    finish_copies();
    __syncthreads();  // H[l] is there
    gradient_of<l, l - Own::RUN_DOWN + 1>(l - k, w.again(), sums);
    const Share<l> share(w.again().thread);
    const int tile = w.tile(l + k);
    if (goes_on && share.exists) {
#pragma unroll
        for (int q = 0; q < Own::HEIGHT; ++q) {
            const Four h = w.four(tile + share.place(q));
#pragma unroll
            for (int e = 0; e < 4; ++e) d[q][e] = share.is_neuron(e) ? backprop(Own::CODE, d[q][e], h.v[e], h.v[e]) : T(0);
        }
    }
    __syncthreads();  // nobody needs H[l] and Delta[l + 1] any more
    if (!goes_on) return;
    fetch_below<l>(step, w.again(), k, first);
    if (share.exists) {
#pragma unroll
        for (int q = 0; q < Own::HEIGHT; ++q) store_run<4>(w.numbers(tile + share.place(q)), d[q]);
    }
    __syncthreads();  // all of Delta[l] is there
}

// BP2 to BP4 of the layers from l down.
template <int l> DEVICE void backward(const Step& step, const Block& w, long long first, T (&sums)[SUMS]) {
    typedef Layer<l> Own;
#pragma unroll 1
    for (int k = 0; k < Own::RUN_DOWN; ++k) backward_layer<l>(step, w, k, first, sums);
    if constexpr (l > Own::RUN_DOWN) backward<l - Own::RUN_DOWN>(step, w, first, sums);
}

// ---------------------------------------------------------------------------------------------- after the last tile

// This block's sums: dW to its slice, db to its row of the partial sums of each layer.
template <int l> DEVICE void store(const Block& w, const long long* layers, T* slice, const T (&sums)[SUMS]) {
    if constexpr (l < LAST) {
        typedef Layer<l> Own;
        typedef Layer<l + 1> Next;
        typedef Part<l> Mine;
        const typename Mine::Threads threads = {w.thread};
        if (threads.exists()) {
            const Mine mine(threads);
#pragma unroll
            for (int i = 0; i < Mine::FOURS_DOWN; ++i) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
#pragma unroll
                    for (int j = 0; j < Mine::FOURS_ACROSS; ++j) {
                        const int row = mine.row(i) + c, column = mine.column(j);
                        T* const place = slice + Own::THETA_W + row * Next::N + column;
                        T values[Mine::WIDTH];
#pragma unroll
                        for (int e = 0; e < Mine::WIDTH; ++e) values[e] = sums[Mine::number(i, c, j, e)];
                        if (row < Own::N && Next::N % Mine::WIDTH == 0 && column < Next::N) {
                            store_run<Mine::WIDTH>(place, values);
                        } else if (row < Own::N) {
#pragma unroll
                            for (int e = 0; e < Mine::WIDTH; ++e) {
                                if (column + e < Next::N) place[e] = values[e];
                            }
                        }
                    }
                }
            }
        }
        double* const partial = reinterpret_cast<double*>(layers[(l - 1) * U_COLUMNS + U_PARTIAL]);
        if (w.thread < Next::N) {
            double sum = 0.0;
            for (int k = w.thread; k < THREADS; k += Next::P) sum += static_cast<double>(w.numbers(Own::DB)[k]);
            partial[blockIdx.x * static_cast<long long>(Next::N) + w.thread] = sum;
        }
        store<l + 1>(w, layers, slice, sums);
    }
}

// Forward, loss and backward of a step. kept (gridDim.x, KEPT) is room for what layers hand on; theta (size,); scales
// (m,) if samples have weights, else `scale`; slices (gridDim.x, size) get dW, the partial sums of `layers`
// (gridDim.x, n) db.
extern "C" __global__ void __launch_bounds__(256, 1) fused_step(
    const long long* batch, int j, T* kept, const T* theta, const T* scales, T scale, const long long* layers,
    T* slices, double* of_block, long long size, long long m) {
    DYNAMIC_SHARED(memory);
    const Step step = step_of(batch, j, m);
    const Block w = {memory, kept + blockIdx.x * static_cast<long long>(KEPT), static_cast<int>(threadIdx.x)};
    load<1>(w, theta);
    T sums[SUMS] = {};
    double loss = 0.0, right = 0.0;
    const int tiles = static_cast<int>((m + ROWS - 1) / ROWS);
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const long long first = static_cast<long long>(tile) * ROWS;
        const long long after = first + static_cast<long long>(gridDim.x) * ROWS + w.thread / TEAM;
        const long long next = after < m ? step.index()[after] : -1;
        fetch_inputs(step, w.again(), first);
        finish_copies();
        __syncthreads();  // weights and inputs are there
        forward<1>(w);
        output(step, w.again(), first, scales, scale, loss, right);
        if (next >= 0) ask_for(step, w.thread % TEAM, TEAM, next);
        __syncthreads();  // all errors of the output are there
        backward<LAST - 1>(step, w, first, sums);
    }
    finish_copies();  // of a block that has no tile
    __syncthreads();
    store<1>(w, layers, slices + blockIdx.x * size, sums);
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}
