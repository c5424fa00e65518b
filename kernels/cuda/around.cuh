// The kernels of a step between and after the products: masks of row-wise layers, and the update after a clipped norm.
//
// Requires: step.cuh and what it requires.

// Row-wise activations: what is handed on is h * mask, and a mask is drawn here.
extern "C" __global__ void drop_rows(
    const long long* batch, int j, const T* H, T* passed, T* mask, unsigned int threshold, T kept, int dropout,
    unsigned int layer, unsigned int key0, unsigned int key1, long long m, long long n) {
    const Forward finish = {nullptr, nullptr, nullptr, passed, n, 0,
                            {mask, threshold, kept, dropout, layer, key0, key1}, step_of(batch, j, m).number()};
    for (long long at = grid_index(); at < m * n; at += grid_size()) {
        passed[at] = H[at] * finish.mask(at / n, at % n);
    }
}

// ---------------------------------------------------------------------------------------------- the parameters

// Call body(i, j) for every parameter of a layer from row `first` on, the bias last.
template <class Body> DEVICE void for_parameters(const long long* layer, long long first, Body body) {
    const long long n = layer[G_OUT], size = (layer[G_IN] + 1) * n;
    for (long long e = first * n + grid_index(); e < size; e += grid_size()) body(e / n, e % n);
}

// Sum of some partial sums of squares, in order; all threads of the block get it.
DEVICE double sum_of(const double* squares, long long begin, long long end) {
    double sum = 0.0;
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) sum += squares[i];
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    return team.reduce(sum, 0.0, Sum());
}

// Clip and move parameters that lie side by side. All blocks begin at multiples of 64 bytes.
DEVICE void move_all(const Parameters& p, long long begin, long long size, T factor) {
    for (long long e = grid_index() * LANES; e < size; e += grid_size() * LANES) {
        const int count = size - e < LANES ? static_cast<int>(size - e) : LANES;
        Pack g = load_pack(p.grad + begin + e, count);
#pragma unroll
        for (int k = 0; k < LANES; ++k) g.v[k] *= factor;
        store_pack(p.grad + begin + e, g, count);
        move_pack(p, begin + e, g, count);
    }
}

// Clip by the norm and move. `ends` (count,): how many partial sums belong to the layers up to each.
extern "C" __global__ void update_parameters(
    const long long* batch, int j, const long long* layers, int count, T* theta, T* grad, const long long* states,
    const double* squares, const long long* ends, double norm_limit, int clip) {
    const Step step = step_of(batch, j, 0);
    const Parameters p = {theta, grad, states, nullptr, step.numbers(), T(0), clip};
    double sum = clip == CLIP_ALL ? sum_of(squares, 0, ends[count - 1]) : 0.0;
    for (int l = 0; l < count; ++l) {
        if (clip == CLIP_LAYER) sum = sum_of(squares, l > 0 ? ends[l - 1] : 0, ends[l]);
        const T factor = static_cast<T>(min_(1.0, norm_limit / max_(sqrt(sum), 1e-37)));
        const long long* layer = layers + l * G_COLUMNS;
        long long done = 0;  // rows of W
        if (layer[G_KEEP_IN] == 0 && layer[G_KEEP_OUT] == 0) {
            move_all(p, layer[G_W], layer[G_IN] * layer[G_OUT], factor);
            done = layer[G_IN];
        }
        for_parameters(layer, done, [&](long long i, long long j) {
            const long long at = parameter(layer, i, j);
            const T g = grad[at] = grad[at] * factor;
            move(p, layer, i, j, at, g);
        });
    }
}
