// Many training steps in one launch: parameters and the state of the update rule stay in shared memory.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, rowwise.cuh, philox.cuh, cluster.cuh, onchip.cuh, the pieces of the step
// (pieces.py), and the shape of the network (resident.py): where everything lies, as struct Layer<l> and constants.
//
// One cluster of BLOCKS thread blocks carries out the run. W[1], with b[1] as one more row, is cut into ROW_BLOCKS x
// COLUMN_BLOCKS parts, one for each block. A step:
//
// 1. Every block multiplies its columns of the inputs by its part of W[1] and puts what it finds for Z[2] where it is
//    needed.
// 2. Every block takes some of the samples (every SHARES-th) from Z[2] through the loss to Delta[2].
// 3. Every block computes its part of dW[1], and some rows of each other dW and db, and updates these parameters while
//    the gradient is in registers.
//
// Blocks meet after 1 and 2. What they have made of the upper parameters travels as whole rows, through a gate at which
// they wait after 1 of the next step. With SHARES = 1 the layers above the first are small: then every block does all samples
// and all of these parameters itself, in the same order with the same result, and blocks meet after 1 only.

enum { CLIP_NOT, CLIP_ELEMENT, CLIP_ALL, CLIP_LAYER };

// What a run is told.
struct Run {
    const T* X;
    const T* Y;
    const long long* labels;
    const T* weights;
    const long long* index;   // (steps, m)
    const double* numbers;    // (steps, NUMBERS)
    double* records;          // (3, steps), rows `stride` apart
    long long stride;
    T* theta;
    T* grad;
    T* const* states;
    const T* prices;
    T limit;
    double norm_limit;
    T scale;                  // 1 / m times the factor of the loss; that factor if samples have weights
    T threshold;
    long long first;          // finished steps
    unsigned key0, key1;      // of the dropout masks
    long long steps;
    int m;
};

// A block's view of the run.
struct Block {
    T* memory;
    int rank, share;      // number of this block, and of its share of the samples and of the upper parameters
    int row_part, column_part;  // which part of W[1]
    int mine;             // samples of this block: share, share + SHARES, ...
    int buffer;           // of the inputs: 0, 1, 0, ...
    DEVICE_MEMBER T* at(int place) const { return memory + place; }
    DEVICE_MEMBER T* there(int rank, int place) const {
        return BLOCKS == 1 ? memory + place : in_block(memory + place, rank);
    }
    template <class V> DEVICE_MEMBER V* as(int place) const { return reinterpret_cast<V*>(memory + place); }
};

// Rows of the parameters that leave layer l (the last row is the bias) and are this block's to update.
template <int l> DEVICE int first_row(const Block& b) { return (l == 1 ? b.row_part : b.share) * Layer<l>::CHUNK; }
template <int l> DEVICE int rows(const Block& b) {
    const int rest = Layer<l>::N + 1 - first_row<l>(b);
    return rest < 0 ? 0 : at_most(rest, Layer<l>::CHUNK);
}
template <int l> DEVICE int first_column(const Block& b) { return l == 1 ? b.column_part * COLUMNS : 0; }
template <int l> DEVICE int columns(const Block& b) {
    const int rest = Layer<l + 1>::N - first_column<l>(b);
    return l > 1 ? Layer<l + 1>::N : rest < 0 ? 0 : at_most(rest, COLUMNS);
}
template <int l> DEVICE T* own_weights(const Block& b) {
    return b.at(Layer<l>::W + (l == 1 ? 0 : first_row<l>(b) * Layer<l>::W_ROW));
}

DEVICE void meet() {
    if (BLOCKS == 1) {
        __syncthreads();
    } else {
        cluster_arrive();
        cluster_wait();
    }
}

// ---------------------------------------------------------------------------------------------- inputs

// Whether rows of the inputs come through a gate: one copy for each, where they are long enough to be worth it.
constexpr bool GATED = WIDE_INPUTS && GATES_EXIST && Layer<1>::CHUNK * sizeof(T) >= 64;

// How many inputs of a sample this block needs, the ones of the bias not counted.
DEVICE int input_width(const Block& b) {
    const int width = at_most(rows<1>(b), Layer<1>::N - first_row<1>(b));
    return width < 0 ? 0 : width;
}

// Number of this thread, counted from a warp on: what is short is fetched by one warp each, at the same time.
DEVICE int from_warp(int warp) { return (threadIdx.x + THREADS - warp * 32 % THREADS) % THREADS; }

// Begin to fetch the rows of X for step k.
DEVICE void fetch_inputs(const Run& run, const Block& b, int slot, const long long* index) {
    T* const X = b.at(Layer<1>::IN + slot * INPUTS);
    const int left = first_row<1>(b), width = input_width(b);
    if constexpr (GATED) {
        if (width == 0) return;
        unsigned long long* const gate = b.as<unsigned long long>(GATES) + slot;
        if (threadIdx.x == 0) announce(gate, run.m * width * static_cast<int>(sizeof(T)));
        constexpr int WARPS = THREADS / 32;  // the lanes of a warp begin their copies one after the other
        for (int i = threadIdx.x % 32 * WARPS + threadIdx.x / 32; i < run.m; i += THREADS) {
            const T* row = run.X + index[i] * Layer<1>::N + left;
            copy_through(gate, X + i * Layer<1>::IN_ROW, row, width * static_cast<int>(sizeof(T)));
        }
        return;
    }
    constexpr int MOVED = WIDE_INPUTS ? LANES : 1, ROW_PACKS = (Layer<1>::CHUNK + MOVED - 1) / MOVED;
#pragma unroll 1
    for (int e = threadIdx.x; e < run.m * ROW_PACKS; e += THREADS) {
        const int i = e / ROW_PACKS, j = e % ROW_PACKS * MOVED;
        if (j >= width) continue;
        copy_later<MOVED * sizeof(T)>(X + i * Layer<1>::IN_ROW + j, run.X + index[i] * Layer<1>::N + left + j);
    }
}

// Begin to fetch what step k needs. Row k of the index is here already.
DEVICE void fetch(const Run& run, const Block& b, long long k) {
    const int slot = k % 2;
    const long long* index = b.as<long long>(INDEX) + slot * BATCH;
    fetch_inputs(run, b, slot, index);
    constexpr int N = Layer<LAST>::N;
#pragma unroll 1
    for (int e = from_warp(1); e < b.mine * N; e += THREADS) {
        const long long sample = index[e / N * SHARES + b.share];
        copy_later<sizeof(T)>(b.at(TARGETS + (slot * MINE * N + e)), run.Y + sample * N + e % N);
    }
#pragma unroll 1
    for (int i = from_warp(2); CLASSES && i < b.mine; i += THREADS) {
        copy_later<8>(b.as<long long>(LABELS) + slot * MINE + i, run.labels + index[i * SHARES + b.share]);
    }
#pragma unroll 1
    for (int i = from_warp(2); WEIGHTED && i < run.m; i += THREADS) {
        copy_later<sizeof(T)>(b.at(WEIGHTS + slot * BATCH + i), run.weights + index[i]);
    }
#pragma unroll 1
    for (int i = from_warp(3); i < NUMBERS; i += THREADS) {
        copy_later<8>(b.as<double>(RATES) + slot * NUMBERS + i, run.numbers + k * NUMBERS + i);
    }
}

// Wait for what this thread has begun to fetch for step k; for what others have begun, a barrier must follow.
DEVICE void finish_fetch(const Block& b, long long k) {
    finish_copies();
    if (GATED && input_width(b) > 0) pass_gate(b.as<unsigned long long>(GATES) + k % 2, k / 2 % 2);
}

DEVICE void fetch_index(const Run& run, const Block& b, long long k) {
#pragma unroll 1
    for (int i = from_warp(THREADS / 32 - 1); i < run.m; i += THREADS) {
        copy_later<8>(b.as<long long>(INDEX) + k % 2 * BATCH + i, run.index + k * run.m + i);
    }
}

// ---------------------------------------------------------------------------------------------- dropout

// The masks of a layer: one row for all samples, or a row for each sample of this block.
template <int l> DEVICE void draw_masks(const Run& run, const Block& b, unsigned long long step) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        if constexpr (Own::DROPS) {
            constexpr int GROUPS = Own::N / 4 + 2;  // of four words, which need not begin where a row does
            const unsigned purpose = 2u << 24 | static_cast<unsigned>(step >> 32);
            const Stream stream = {run.key0, run.key1, l, static_cast<unsigned>(step), purpose};
            for (int e = threadIdx.x; e < (PER_SAMPLE ? b.mine : 1) * GROUPS; e += THREADS) {
                const int q = e / GROUPS;
                const long long begin = PER_SAMPLE ? (q * SHARES + b.share) * static_cast<long long>(Own::N) : 0;
                const long long group = begin / 4 + e % GROUPS;
                const Words words = words_of_block(stream, group);
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const long long j = 4 * group + k - begin;
                    if (j < 0 || j >= Own::N) continue;
                    b.memory[Own::MASK + q * Own::ROW + j] = words.w[k] < Own::LIMIT ? T(0) : Own::KEPT;
                }
            }
        }
        draw_masks<l + 1>(run, b, step);
    }
}

template <int l> DEVICE T mask(const Block& b, int q, int j) {
    return b.memory[Layer<l>::MASK + (PER_SAMPLE ? q * Layer<l>::ROW : 0) + j];
}

// ---------------------------------------------------------------------------------------------- forward

// Hand on H of sample q and neuron j: to this block's products, and to the block whose rows of dW need it.
template <int l> DEVICE void pass(const Block& b, int q, int j, T h) {
    typedef Layer<l> Own;
    if constexpr (Own::DROPS) h *= mask<l>(b, q, j);
    b.memory[Own::PASSED + q * Own::ROW + j] = h;
    if (SHARES == 1) return;
    const int owner = j / Own::CHUNK;
    *b.there(owner, Own::IN + (q * SHARES + b.share) * Own::IN_ROW + j - owner * Own::CHUNK) = h;
}

// Z of layer l is known.
template <int l> DEVICE void finish_z(const Block& b, int q, int j, T z) {
    typedef Layer<l> Own;
    b.memory[Own::Z + q * Own::ROW + j] = z;
    if constexpr (l < LAST && Own::CODE >= 0) {
        const T h = activate(Own::CODE, z);
        b.memory[Own::H + q * Own::ROW + j] = h;
        pass<l>(b, q, j, h);
    }
}

// Lanes for a row of N columns.
constexpr int lanes_for(int N) { return N > 16 ? 32 : N > 8 ? 16 : N > 4 ? 8 : N > 2 ? 4 : N; }

// Call body(team, q, number of columns) for every sample of this block, a sample to a few lanes.
template <int N, int WIDTH = lanes_for(N), class Body> DEVICE void for_samples(const Block& b, Body body) {
    constexpr int AT_ONCE = 32 / WIDTH;
    const int lane = threadIdx.x % 32;
    const LaneTeam team = {lane % WIDTH, WIDTH};
    for (int first = threadIdx.x / 32 * AT_ONCE; first < b.mine; first += THREADS / 32 * AT_ONCE) {
        const int q = first + lane / WIDTH;
        body(team, q, q < b.mine ? N : 0);
    }
}

// After a barrier: what remains to be done for whole rows of layer l.
template <int l> DEVICE void finish_rows(const Block& b) {
    typedef Layer<l> Own;
    if constexpr (l < LAST && Own::CODE < 0) {
        for_samples<Own::N>(b, [&](LaneTeam team, int q, int n) {
            T* const h = b.at(Own::H + q * Own::ROW);
            if constexpr (Own::CODE == -1) softmax_row(team, b.at(Own::Z + q * Own::ROW), h, n);
            if constexpr (Own::CODE == -2) log_softmax_row(team, b.at(Own::Z + q * Own::ROW), h, n);
            for (int j = team.rank; j < n; j += team.size) pass<l>(b, q, j, h[j]);
        });
        __syncthreads();
    }
}

// The products of the layers from l on. On return Z of the output is known to all threads.
template <int l> DEVICE void forward(const Block& b) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        multiply_on_chip<typename Own::Forward, FORWARD>(
            b.mine, Layer<l + 1>::N, (Own::N + LANES) / LANES, b.at(Own::PASSED), Own::ROW, b.at(Own::W), Own::W_ROW,
            [&](int q, int j, auto few) {
#pragma unroll
                for (int k = 0; k < few.SIZE; ++k) {
                    if (j + k < Layer<l + 1>::N) finish_z<l + 1>(b, q, j + k, few.v[k]);
                }
            });
        __syncthreads();
        finish_rows<l + 1>(b);
        forward<l + 1>(b);
    }
}

// This block's part of Z[2], for all samples, to the blocks that go on with them.
DEVICE void first_product(const Run& run, const Block& b) {
    typedef Layer<1> Own;
    const int parts = PARTS + (SHARES < BLOCKS ? b.buffer * PARTS_SIZE : 0) + b.row_part * MINE * Layer<2>::ROW;
    multiply_on_chip<Own::Forward, FORWARD>(
        run.m, columns<1>(b), Own::CHUNK / LANES, b.at(Own::IN + b.buffer * INPUTS), Own::IN_ROW, b.at(Own::W),
        Own::W_ROW, [&](int i, int j, auto few) {
            typedef decltype(few) Held;
            const int place = parts + i / SHARES * Layer<2>::ROW + first_column<1>(b) + j;
            if (SHARES == BLOCKS) {
                *reinterpret_cast<Held*>(b.there(i % SHARES, place)) = few;
            } else {
                for (int d = 0; d < BLOCKS; ++d) *reinterpret_cast<Held*>(b.there(d, place)) = few;
            }
        });
}

// Add up the parts of Z[2].
DEVICE void add_parts(const Block& b) {
    typedef Layer<2> Up;
    const T* parts = b.at(PARTS + (SHARES < BLOCKS ? b.buffer * PARTS_SIZE : 0));
    for (int e = threadIdx.x; e < b.mine * Up::N; e += THREADS) {
        const int q = e / Up::N, j = e % Up::N;
        T z = parts[q * Up::ROW + j];
#pragma unroll
        for (int part = 1; part < ROW_BLOCKS; ++part) z += parts[(part * MINE + q) * Up::ROW + j];
        finish_z<2>(b, q, j, z);
    }
    __syncthreads();
    finish_rows<2>(b);
}

// ---------------------------------------------------------------------------------------------- backward

// Delta of a sample to all blocks whose part of the gradient needs it.
template <int l> DEVICE void give_delta(const Block& b, int q, int j, T delta) {
    typedef Layer<l> Own;
    const int row = Own::DELTA + (q * SHARES + b.share) * Own::DELTA_ROW;
    if constexpr (l == 2) {
        const int part = j / COLUMNS, place = row + j - part * COLUMNS;
        if (SHARES == BLOCKS) {
#pragma unroll
            for (int r = 0; r < ROW_BLOCKS; ++r) *b.there(r * COLUMN_BLOCKS + part, place) = delta;
        } else if (part == b.column_part) {
            b.memory[place] = delta;
        }
    } else {
#pragma unroll
        for (int d = 0; d < SHARES; ++d) *b.there(SHARES == 1 ? b.rank : d, row + j) = delta;
    }
}

// Row-wise output and BP1 of every sample of this block. The terms of the loss are left for `judge`.
DEVICE void output(const Run& run, const Block& b, int slot) {
    typedef Layer<LAST> Out;
    T total = T(0);
    if (WEIGHTED) total = static_cast<T>(b.as<double>(WEIGHT)[slot]);
    for_samples<Out::N>(b, [&](LaneTeam team, int q, int n) {
        T* const z = b.at(Out::Z + q * Out::ROW);
        T* const h = b.at(Out::H + q * Out::ROW);
        T* const terms = b.at(TERMS + q * Out::ROW);  // before that, the logarithms of h
        const T* y = b.at(TARGETS + (slot * MINE + q) * Out::N);
        const int i = q * SHARES + b.share;
        const T weight = WEIGHTED && n > 0 ? b.memory[WEIGHTS + slot * BATCH + i] : T(1);
        const T scale = !WEIGHTED ? run.scale : total > T(0) ? run.scale * weight / total : T(0);
        if constexpr (Out::CODE == -1) softmax_row(team, z, h, n);
        if constexpr (Out::CODE == -2) log_softmax_row(team, z, h, n);
        if constexpr (NEEDS_LOG) log_softmax_row(team, z, terms, n);
        for (int j = team.rank; j < n; j += team.size) {
            if constexpr (Out::CODE >= 0) h[j] = activate(Out::CODE, z[j]);
            T term, delta;
            output_error(z[j], h[j], y[j], NEEDS_LOG ? terms[j] : T(0), scale, term, delta);
            terms[j] = term;
            z[j] = delta;
        }
        if constexpr (!PAIRED && Out::CODE == -1) backprop_softmax_row(team, z, h, z, n);
        if constexpr (!PAIRED && Out::CODE == -2) backprop_log_softmax_row(team, z, h, z, n);
        for (int j = team.rank; j < n; j += team.size) give_delta<LAST>(b, q, j, z[j]);
    });
}

// Loss and hits of every sample of this block, to the last block, which has the fewest. Nobody waits for them in this
// step. One lane goes through a short row faster than many find out together what they have.
DEVICE void judge(const Run& run, const Block& b, int slot) {
    typedef Layer<LAST> Out;
    for_samples<Out::N, Out::N <= 16 ? 1 : 32>(b, [&](LaneTeam team, int q, int n) {
        const int i = q * SHARES + b.share;
        const T* const terms = b.at(TERMS + q * Out::ROW);
        const T weight = WEIGHTED && n > 0 ? b.memory[WEIGHTS + slot * BATCH + i] : T(1);
        double loss = 0.0;
        for (int j = team.rank; j < n; j += team.size) loss += static_cast<double>(terms[j]);
        loss = team.reduce(loss, 0.0, Sum());
        T hit = T(0);
        if constexpr (CLASSES) {
            const long long label = n > 0 ? b.as<long long>(LABELS)[slot * MINE + q] : 0;
            hit_row(team, b.at(Out::H + q * Out::ROW), label, run.threshold, &hit, n);
        }
        if (team.rank == 0 && n > 0) {
            double* losses = reinterpret_cast<double*>(b.there(SHARES == 1 ? b.rank : BLOCKS - 1, LOSSES)) + slot * 2 * BATCH;
            losses[i] = loss;
            losses[BATCH + i] = static_cast<double>(hit * weight);
        }
    });
}

// BP2 from layer l + 1 to l, down to 2. Own rows of Delta[l + 1] are known to all threads.
template <int l> DEVICE void backward(const Block& b) {
    typedef Layer<l> Own;
    if constexpr (l >= 2) {
        typedef Layer<l + 1> Next;
        multiply_on_chip<typename Own::Backward, BACKWARD>(
            b.mine, Own::N, (Next::N + LANES - 1) / LANES, b.at(Next::DELTA + b.share * Next::DELTA_ROW),
            SHARES * Next::DELTA_ROW, b.at(Own::W), Own::W_ROW, [&](int q, int j, auto few) {
                T delta = few.v[0];
                if constexpr (Own::DROPS) delta *= mask<l>(b, q, j);
                const int at = q * Own::ROW + j;
                if constexpr (Own::CODE >= 0) {
                    delta = backprop(Own::CODE, delta, b.memory[Own::Z + at], b.memory[Own::H + at]);
                    give_delta<l>(b, q, j, delta);
                } else {
                    b.memory[Own::Z + at] = delta;
                }
            });
        if constexpr (Own::CODE < 0) {
            __syncthreads();
            for_samples<Own::N>(b, [&](LaneTeam team, int q, int n) {
                T* const d = b.at(Own::Z + q * Own::ROW);
                if constexpr (Own::CODE == -1) backprop_softmax_row(team, d, b.at(Own::H + q * Own::ROW), d, n);
                if constexpr (Own::CODE == -2) backprop_log_softmax_row(team, d, b.at(Own::H + q * Own::ROW), d, n);
                for (int j = team.rank; j < n; j += team.size) give_delta<l>(b, q, j, d[j]);
            });
        }
        if constexpr (l > 2) __syncthreads();
        backward<l - 1>(b);
    }
}

// ---------------------------------------------------------------------------------------------- gradient and update

// Move some parameters of a row that lie side by side; row and column within this block's part.
template <int l, int SIZE>
DEVICE void move(const Run& run, const Block& b, const T* numbers, int i, int j, const Few<SIZE>& g) {
    typedef Layer<l> Own;
    const int at = i * Own::W_ROW + j;
    Few<SIZE>* const place = reinterpret_cast<Few<SIZE>*>(own_weights<l>(b) + at);
    Few<SIZE> theta = *place, states[STATES + 1];
#pragma unroll
    for (int s = 0; s < STATES; ++s) {
        states[s] = *reinterpret_cast<Few<SIZE>*>(b.at(Own::STATE + s * Own::STATE_SIZE + at));
    }
#pragma unroll
    for (int k = 0; k < SIZE; ++k) {
        if (j + k >= columns<l>(b)) continue;
        if constexpr (Own::DROPS && !PER_SAMPLE) {
            const int row = first_row<l>(b) + i;
            if (row < Own::N && !(b.memory[Own::MASK + row] > T(0))) continue;
        }
        if constexpr (Layer<l + 1>::DROPS && !PER_SAMPLE) {
            if (!(b.memory[Layer<l + 1>::MASK + first_column<l>(b) + j + k] > T(0))) continue;
        }
        T state[STATES + 1];
#pragma unroll
        for (int s = 0; s < STATES; ++s) state[s] = states[s].v[k];
        update(theta.v[k], g.v[k], state, numbers);
#pragma unroll
        for (int s = 0; s < STATES; ++s) states[s].v[k] = state[s];
    }
#pragma unroll
    for (int s = 0; s < STATES; ++s) {
        *reinterpret_cast<Few<SIZE>*>(b.at(Own::STATE + s * Own::STATE_SIZE + at)) = states[s];
    }
    *place = theta;
}

// Whether blocks tell each other what they have made of the upper parameters: whole rows at once, through a gate.
constexpr bool SPREADS = SHARES > 1 && LAST > 2;

// Bytes of the layers from l on that this block owns, or gets from the others.
template <int l> DEVICE int own_bytes(const Block& b) {
    return rows<l>(b) * Layer<l>::W_ROW * static_cast<int>(sizeof(T));
}
template <int l> DEVICE int awaited_bytes(const Block& b) {
    if constexpr (l == LAST) {
        return 0;
    } else {
        constexpr int ALL = (Layer<l>::N + 1) * Layer<l>::W_ROW * static_cast<int>(sizeof(T));
        return ALL - own_bytes<l>(b) + awaited_bytes<l + 1>(b);
    }
}

DEVICE unsigned long long* spread_gate(const Block& b) { return b.as<unsigned long long>(GATES) + 2; }

// Begin to send this block's rows of the layers from l on, which all its threads have moved. Each warp serves some blocks.
template <int l> DEVICE void spread(const Block& b) {
    if constexpr (l < LAST) {
        for (int d = threadIdx.x / 32; d < BLOCKS; d += THREADS / 32) {
            if (threadIdx.x % 32 != l % 32 || d == b.rank || rows<l>(b) == 0) continue;
            copy_to_block(spread_gate(b), own_weights<l>(b), own_bytes<l>(b), d);
        }
        spread<l + 1>(b);
    }
}

// Wait for what the others have made of the upper parameters in step k.
DEVICE void finish_spread(const Block& b, long long k) {
    if (SPREADS && awaited_bytes<2>(b) > 0) pass_gate(spread_gate(b), k % 2);
}

// Where a parameter of this block's part lies in theta.
template <int l> DEVICE long long in_theta(const Block& b, int i, int j) {
    typedef Layer<l> Own;
    const int row = first_row<l>(b) + i, column = first_column<l>(b) + j;
    return row < Own::N ? Own::THETA_W + static_cast<long long>(row) * Layer<l + 1>::N + column : Own::THETA_B + column;
}

template <int l, int SIZE> DEVICE void keep_gradient(const Run& run, const Block& b, int i, int j, const Few<SIZE>& g) {
    if (l > 1 && SHARES == 1 && b.rank != 0) return;
#pragma unroll
    for (int k = 0; k < SIZE; ++k) {
        if (j + k < columns<l>(b)) run.grad[in_theta<l>(b, i, j + k)] = g.v[k];
    }
}

// How many tiles the gradients of the layers below l have.
template <int l> DEVICE constexpr int tasks_below() {
    if constexpr (l == 1) {
        return 0;
    } else {
        constexpr int N = l == 2 ? COLUMNS : Layer<l>::N;
        return tasks_below<l - 1>() + tasks_of<typename Layer<l - 1>::Gradient>(Layer<l - 1>::CHUNK, N);
    }
}

// BP3 and BP4 of the layers from l on, penalty, clipping of components, and the update, unless a norm must be known
// first: then this thread's sums of squares.
template <int l>
DEVICE void gradient(const Run& run, const Block& b, const T* numbers, const T* prices, bool last, double* squares) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        multiply_on_chip<typename Own::Gradient, GRADIENT, tasks_below<l>()>(
            rows<l>(b), columns<l>(b), run.m, b.at(Own::IN + (l == 1 ? b.buffer * INPUTS : 0)), Own::IN_ROW,
            b.at(Layer<l + 1>::DELTA), Layer<l + 1>::DELTA_ROW, [&](int i, int j, auto few) {
                auto g = few;
                const bool bias = first_row<l>(b) + i == Own::N;
#pragma unroll
                for (int k = 0; k < few.SIZE; ++k) {
                    if (PENALISED && !bias) {
                        g.v[k] = penalise(g.v[k], own_weights<l>(b)[i * Own::W_ROW + j + k], prices);
                    }
                    if (CLIP == CLIP_ELEMENT) g.v[k] = min_(max_(g.v[k], -run.limit), run.limit);
                    if (CLIP >= CLIP_ALL && j + k < columns<l>(b)) {
                        squares[l - 1] += static_cast<double>(g.v[k]) * static_cast<double>(g.v[k]);
                    }
                }
                if constexpr (CLIP >= CLIP_ALL) {
                    *reinterpret_cast<decltype(g)*>(b.at(Own::GRAD + i * Own::W_ROW + j)) = g;
                } else {
                    move<l>(run, b, numbers, i, j, g);
                    if (last) keep_gradient<l>(run, b, i, j, g);
                }
            });
        gradient<l + 1>(run, b, numbers, prices, last, squares);
    }
}

// Sum of the squares of each layer's gradient, from this thread's part of it; all threads of all blocks get the same.
DEVICE void add_squares(const Block& b, double* squares) {
    double* const of_warp = b.as<double>(SQUARES);  // (LAST - 1, 32), and behind it (BLOCKS, LAST - 1)
    for (int l = 0; l < LAST - 1; ++l) {
        squares[l] = reduce_lanes(squares[l], 32, Sum());
        if (threadIdx.x % 32 == 0) of_warp[l * 32 + threadIdx.x / 32] = squares[l];
    }
    __syncthreads();
    for (int l = threadIdx.x; l < LAST - 1; l += THREADS) {
        double sum = 0.0;
        for (int w = 0; w < THREADS / 32; ++w) sum += of_warp[l * 32 + w];
        for (int d = 0; d < BLOCKS; ++d) {
            double* there = reinterpret_cast<double*>(b.there(d, SQUARES));
            there[(LAST - 1) * 32 + b.rank * (LAST - 1) + l] = sum;
        }
    }
    meet();
    const double* of_block = of_warp + (LAST - 1) * 32;
    for (int l = 0; l < LAST - 1; ++l) {
        squares[l] = 0.0;
        const bool split = l == 0 || SHARES > 1;  // else every block has the sum of the whole layer
        for (int d = 0; d < (split ? BLOCKS : 1); ++d) squares[l] += of_block[d * (LAST - 1) + l];
    }
}

// Clip by the norm, and update.
template <int l> DEVICE void move_clipped(const Run& run, const Block& b, const T* numbers, bool last, double* squares) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        double sum = squares[l - 1];
        for (int other = 0; CLIP == CLIP_ALL && other < LAST - 1; ++other) sum = other == 0 ? squares[0] : sum + squares[other];
        const T factor = static_cast<T>(min_(1.0, run.norm_limit / max_(sqrt(sum), 1e-37)));
        constexpr int PACKS = Own::W_ROW / LANES;
        for (int e = threadIdx.x; e < rows<l>(b) * PACKS; e += THREADS) {
            const int i = e / PACKS, j = e % PACKS * LANES;
            if (j >= columns<l>(b)) continue;
            Few<LANES> g = *reinterpret_cast<Few<LANES>*>(b.at(Own::GRAD + i * Own::W_ROW + j));
#pragma unroll
            for (int k = 0; k < LANES; ++k) g.v[k] *= factor;
            move<l>(run, b, numbers, i, j, g);
            if (last) keep_gradient<l>(run, b, i, j, g);
        }
        move_clipped<l + 1>(run, b, numbers, last, squares);
    }
}

// One warp of the last block: loss, hits and weight of step k, added up in one order. They are here since all blocks have met
// in step k + 1, and stay until all have met in step k + 2.
DEVICE void record(const Run& run, const Block& b, long long k) {
    if (b.rank != BLOCKS - 1 || threadIdx.x / 32 != THREADS / 32 - 1) return;
    const int lane = threadIdx.x % 32;
    const double* losses = b.as<double>(LOSSES) + k % 2 * 2 * BATCH;
    double loss = 0.0, right = 0.0;
#pragma unroll 1
    for (int i = lane; i < run.m; i += 32) {
        loss += losses[i];
        right += losses[BATCH + i];
    }
    loss = reduce_lanes(loss, 32, Sum());
    right = reduce_lanes(right, 32, Sum());
    if (lane != 0) return;
    run.records[k] = loss;
    if (CLASSES) run.records[run.stride + k] = right;
    run.records[2 * run.stride + k] = WEIGHTED ? b.as<double>(WEIGHT)[k % 2] : static_cast<double>(run.m);
}

// One warp of each block: the sum of the weights of a step.
DEVICE void add_weights(const Run& run, const Block& b, int slot) {
    if (!WEIGHTED || threadIdx.x >= 32) return;
    double sum = 0.0;
    for (int i = threadIdx.x; i < run.m; i += 32) sum += static_cast<double>(b.memory[WEIGHTS + slot * BATCH + i]);
    sum = reduce_lanes(sum, 32, Sum());
    if (threadIdx.x == 0) b.as<double>(WEIGHT)[slot] = sum;
}

// ---------------------------------------------------------------------------------------------- the run

// Parameters and states of the layers from l on, and the ones that stand for the inputs of the bias.
template <int l> DEVICE void load(const Run& run, const Block& b) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        const int m = rows<l>(b), n = columns<l>(b), all = l == 1 ? m : Own::N + 1;
        for (int e = threadIdx.x; e < all * n; e += THREADS) {
            const int i = e / n, j = e % n, own = l == 1 ? i : i - first_row<l>(b);
            b.memory[Own::W + i * Own::W_ROW + j] = run.theta[in_theta<l>(b, own, j)];
            if (own < 0 || own >= m) continue;
            for (int s = 0; s < STATES; ++s) {
                b.memory[Own::STATE + s * Own::STATE_SIZE + own * Own::W_ROW + j] =
                    run.states[s][in_theta<l>(b, own, j)];
            }
        }
        const int ones = Own::N - first_row<l>(b);
        for (int i = threadIdx.x; i < BATCH; i += THREADS) {
            if constexpr (l > 1) {
                if (i < MINE) b.memory[Own::PASSED + i * Own::ROW + Own::N] = T(1);
            }
            if (ones < 0 || ones >= Own::CHUNK) continue;
            b.memory[Own::IN + i * Own::IN_ROW + ones] = T(1);
            if (l == 1) b.memory[Own::IN + INPUTS + i * Own::IN_ROW + ones] = T(1);
        }
        load<l + 1>(run, b);
    }
}

template <int l> DEVICE void store(const Run& run, const Block& b) {
    typedef Layer<l> Own;
    if constexpr (l < LAST) {
        const int n = columns<l>(b), own = l > 1 && SHARES == 1 && b.rank != 0 ? 0 : rows<l>(b);
        for (int e = threadIdx.x; e < own * n; e += THREADS) {
            const int i = e / n, j = e % n, at = i * Own::W_ROW + j;
            const long long place = in_theta<l>(b, i, j);
            run.theta[place] = own_weights<l>(b)[at];
            for (int s = 0; s < STATES; ++s) run.states[s][place] = b.memory[Own::STATE + s * Own::STATE_SIZE + at];
        }
        store<l + 1>(run, b);
    }
}

DEVICE void train(const Run& run, unsigned char* shared) {
    if (run.steps == 0) return;
    Block b;
    b.memory = reinterpret_cast<T*>(shared);
    b.rank = BLOCKS == 1 ? 0 : cluster_rank();
    b.share = SHARES == 1 ? 0 : b.rank;
    b.row_part = b.rank / COLUMN_BLOCKS;
    b.column_part = b.rank % COLUMN_BLOCKS;
    b.mine = (run.m - b.share + SHARES - 1) / SHARES;
    if (b.mine < 0) b.mine = 0;
    T prices[PRICES + 1];
    for (int k = 0; k < PRICES; ++k) prices[k] = run.prices[k];
    for (int e = threadIdx.x; e < MEMORY; e += THREADS) b.memory[e] = T(0);
    __syncthreads();
    for (int k = 0; k < 3 && (GATED || SPREADS) && threadIdx.x == 0; ++k) {
        make_gate(b.as<unsigned long long>(GATES) + k);
    }
    load<1>(run, b);
    fetch_index(run, b, 0);
    if (run.steps > 1) fetch_index(run, b, 1);
    finish_copies();
    if (GATED || SPREADS) yield_to_copies();
    meet();  // nobody writes into a block that still clears its memory
    fetch(run, b, 0);

    for (long long k = 0; k < run.steps; ++k) {
        const int slot = k % 2;
        b.buffer = slot;
        finish_fetch(b, k);
        __syncthreads();  // the inputs of this step are here, and nobody is busy with the step before
        if (k + 1 < run.steps) fetch(run, b, k + 1);
        if (k + 2 < run.steps) fetch_index(run, b, k + 2);
        first_product(run, b);
        add_weights(run, b, slot);
        draw_masks<2>(run, b, run.first + k);
        meet();
        if (k > 0) finish_spread(b, k - 1);
        add_parts(b);
        forward<2>(b);
        output(run, b, slot);
        __syncthreads();
        backward<LAST - 1>(b);
        if (SHARES == 1) {
            __syncthreads();
        } else {
            cluster_arrive();  // what nobody waits for is done while others arrive
        }
        judge(run, b, slot);
        if (k > 0) record(run, b, k - 1);
        if (SHARES > 1) cluster_wait();
        T numbers[NUMBERS + 1];
        for (int i = 0; i < NUMBERS; ++i) numbers[i] = static_cast<T>(b.as<double>(RATES)[slot * NUMBERS + i]);
        double squares[LAST] = {};
        const bool last = k + 1 == run.steps;
        gradient<1>(run, b, numbers, prices, last, squares);
        if (CLIP >= CLIP_ALL) {
            add_squares(b, squares);
            move_clipped<1>(run, b, numbers, last, squares);
        }
        if constexpr (SPREADS) {
            if (threadIdx.x == 0 && awaited_bytes<2>(b) > 0) announce(spread_gate(b), awaited_bytes<2>(b));
            yield_to_copies();
            __syncthreads();
            spread<2>(b);
        }
    }
    finish_spread(b, run.steps - 1);
    meet();  // nobody needs this block's memory any more
    record(run, b, run.steps - 1);
    store<1>(run, b);
}
