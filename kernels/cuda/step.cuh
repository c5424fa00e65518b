// What the kernels of a training step share: the step, and what is done with the results of its products.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, philox.cuh, and the pieces of the step (pieces.py). A kernel is told by
// `batch`, a table in device memory, where the data of the run lies and how many steps of it are done, and by `j`,
// which step after these it belongs to: a captured step can be replayed for ever.

// Columns of `batch`.
enum { X_AT, Y_AT, LABELS_AT, WEIGHTS_AT, INDEX_AT, RECORDS_AT, NUMBERS_AT, RECORDS_STRIDE, DONE, FIRST_STEP, THRESHOLD };

// A step of the run, as its kernels see it.
struct Step {
    const long long* batch;
    long long k;         // number of the step within the run
    long long m;         // samples in a step
    DEVICE_MEMBER const T* data(int column) const { return reinterpret_cast<const T*>(batch[column]); }
    DEVICE_MEMBER const long long* index() const {
        return reinterpret_cast<const long long*>(batch[INDEX_AT]) + k * m;
    }
    DEVICE_MEMBER const long long* labels() const { return reinterpret_cast<const long long*>(batch[LABELS_AT]); }
    DEVICE_MEMBER const T* numbers() const { return data(NUMBERS_AT) + k * NUMBERS; }
    DEVICE_MEMBER double* record(int row) const {
        return reinterpret_cast<double*>(batch[RECORDS_AT]) + row * batch[RECORDS_STRIDE] + k;
    }
    DEVICE_MEMBER unsigned long long number() const { return batch[FIRST_STEP] + k; }
    DEVICE_MEMBER T threshold() const { return static_cast<T>(__longlong_as_double(batch[THRESHOLD])); }
};

DEVICE Step step_of(const long long* batch, int j, long long m) { return {batch, batch[DONE] + j, m}; }

enum { NO_DROPOUT, PER_BATCH, PER_SAMPLE };

// Dropout of one layer.
struct Dropout {
    T* mask;  // (m, n), or (n,) if all samples lose the same neurons
    unsigned threshold;
    T kept;
    int dropout;
    unsigned layer, key0, key1;
};

// The mask of an element, as bpcore/random.py draws it.
DEVICE T draw(const Dropout& drop, unsigned long long step, long long position) {
    const unsigned purpose = 2u << 24 | static_cast<unsigned>(step >> 32);
    const Words words = words_of_block({drop.key0, drop.key1, drop.layer, static_cast<unsigned>(step), purpose},
                                       position / 4);
    // chosen by comparisons, because an index that is not known to the compiler would put the words in memory
    const unsigned at = static_cast<unsigned>(position) & 3;
    const unsigned word = at == 0 ? words.w[0] : at == 1 ? words.w[1] : at == 2 ? words.w[2] : words.w[3];
    return word < drop.threshold ? T(0) : drop.kept;
}

// After the product of a layer: Z = sum + b, H = act(Z), and what is handed on.
struct Forward {
    const T* b;
    T* Z;
    T* H;
    T* passed;  // H * mask; not used without dropout
    long long n;
    int code;
    Dropout drop;
    unsigned long long step;
    DEVICE_MEMBER void operator()(long long i, long long j, int count, Pack z) const {
        const long long at = i * n + j;
        const Pack bias = load_pack(b + j, count);
        Pack h;
#pragma unroll
        for (int k = 0; k < LANES; ++k) z.v[k] += bias.v[k];
        store_pack(Z + at, z, count);
        if (code < 0) return;  // row-wise: a kernel of its own follows
#pragma unroll
        for (int k = 0; k < LANES; ++k) h.v[k] = activate(code, z.v[k]);
        store_pack(H + at, h, count);
        if (drop.dropout == NO_DROPOUT) return;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            if (k < count) passed[at + k] = h.v[k] * mask(i, j + k);
        }
    }
    DEVICE_MEMBER T mask(long long i, long long j) const {
        const T mask = draw(drop, step, drop.dropout == PER_SAMPLE ? i * n + j : j);
        if (drop.dropout == PER_SAMPLE) {
            drop.mask[i * n + j] = mask;
        } else if (i == 0) {
            drop.mask[j] = mask;
        }
        return mask;
    }
};

// After the product of BP2: Delta = sum * mask * act'(Z).
struct Backward {
    const T* Z;
    const T* H;
    T* Delta;
    const T* mask;
    int dropout;
    long long n;
    int code;
    DEVICE_MEMBER void operator()(long long i, long long j, int count, Pack delta) const {
        const long long at = i * n + j;
        if (dropout != NO_DROPOUT) {
            const Pack keep = load_pack(mask + (dropout == PER_SAMPLE ? at : j), count);
#pragma unroll
            for (int k = 0; k < LANES; ++k) delta.v[k] *= keep.v[k];
        }
        if (code >= 0) {
            const Pack z = load_pack(Z + at, count), h = load_pack(H + at, count);
#pragma unroll
            for (int k = 0; k < LANES; ++k) delta.v[k] = backprop(code, delta.v[k], z.v[k], h.v[k]);
        }
        store_pack(Delta + at, delta, count);
    }
};

// One layer's part of the gradient, a row of the table that the kernels of the parameters get.
enum { G_IN, G_OUT, G_W, G_B, G_INPUT, G_DELTA, G_TILE, G_KEEP_IN, G_KEEP_OUT, G_COLUMNS };

enum { CLIP_NOT, CLIP_ELEMENT, CLIP_ALL, CLIP_LAYER };

// Parameters and what moves them.
struct Parameters {
    T* theta;
    T* grad;
    const long long* states;  // (STATES,) addresses of arrays like theta
    const T* prices;
    const T* numbers;
    T limit;
    int clip;
};

// Where parameter (i, j) of a layer lies; row G_IN is the bias.
DEVICE long long parameter(const long long* layer, long long i, long long j) {
    return i < layer[G_IN] ? layer[G_W] + i * layer[G_OUT] + j : layer[G_B] + j;
}

// The update rule, unless dropout has taken one of the neurons that the parameter joins.
DEVICE void move(const Parameters& p, const long long* layer, long long i, long long j, long long at, T g) {
    const T* keep_in = reinterpret_cast<const T*>(layer[G_KEEP_IN]);
    const T* keep_out = reinterpret_cast<const T*>(layer[G_KEEP_OUT]);
    if (keep_in != nullptr && i < layer[G_IN] && !(keep_in[i] > T(0))) return;
    if (keep_out != nullptr && !(keep_out[j] > T(0))) return;
    T state[STATES + 1];
#pragma unroll
    for (int s = 0; s < STATES; ++s) state[s] = reinterpret_cast<T*>(p.states[s])[at];
    T theta = p.theta[at];
    update(theta, g, state, p.numbers);
    p.theta[at] = theta;
#pragma unroll
    for (int s = 0; s < STATES; ++s) reinterpret_cast<T*>(p.states[s])[at] = state[s];
}

// The update rule for `count` neighbours that no mask touches.
DEVICE void move_pack(const Parameters& p, long long at, const Pack& g, int count) {
    Pack theta = load_pack(p.theta + at, count), state[STATES + 1];
#pragma unroll
    for (int s = 0; s < STATES; ++s) state[s] = load_pack(reinterpret_cast<T*>(p.states[s]) + at, count);
#pragma unroll
    for (int k = 0; k < LANES; ++k) {
        T own[STATES + 1];
#pragma unroll
        for (int s = 0; s < STATES; ++s) own[s] = state[s].v[k];
        update(theta.v[k], g.v[k], own, p.numbers);
#pragma unroll
        for (int s = 0; s < STATES; ++s) state[s].v[k] = own[s];
    }
    store_pack(p.theta + at, theta, count);
#pragma unroll
    for (int s = 0; s < STATES; ++s) store_pack(reinterpret_cast<T*>(p.states[s]) + at, state[s], count);
}

// After the product of BP4 (and BP3, whose sums are the row below it): the gradient, and the update with it.
struct Update {
    Parameters p;
    const long long* layer;
    double* squares;  // this thread's sum, if the norm of the gradient must be known before anything moves
    DEVICE_MEMBER void operator()(long long i, long long j, int count, Pack g) const {
        const long long at = parameter(layer, i, j);
        if (PENALISED && i < layer[G_IN]) {
            const Pack w = load_pack(p.theta + at, count);
#pragma unroll
            for (int k = 0; k < LANES; ++k) g.v[k] = penalise(g.v[k], w.v[k], p.prices);
        }
        if (p.clip == CLIP_ELEMENT) {
#pragma unroll
            for (int k = 0; k < LANES; ++k) g.v[k] = min_(max_(g.v[k], -p.limit), p.limit);
        }
        store_pack(p.grad + at, g, count);
        if (p.clip >= CLIP_ALL) {
#pragma unroll
            for (int k = 0; k < LANES; ++k) {
                if (k < count) *squares += static_cast<double>(g.v[k]) * static_cast<double>(g.v[k]);
            }
        } else if (layer[G_KEEP_IN] == 0 && layer[G_KEEP_OUT] == 0) {
            move_pack(p, at, g, count);
        } else {
#pragma unroll
            for (int k = 0; k < LANES; ++k) {
                if (k < count) move(p, layer, i, j + k, at + k, g.v[k]);
            }
        }
    }
};
