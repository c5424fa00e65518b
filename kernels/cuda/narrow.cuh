// Prediction: the end of a network behind a product by cuBLAS. What follows that product, bias and activation, is done
// where the last layer reads it, so that its H is never written; the last layer is narrow, and finishes its rows.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, rowwise.cuh, the printed activations (pieces.py), and the constants BELOW,
// the width of the layer below, and OUTPUTS, that of the last layer, 32 or less. A warp has ROWS samples at a time. Its
// lanes share the sums over k, a pack each; W lies in shared memory, turned, so that a lane reads packs along k.

constexpr int NARROW_THREADS = 256;
constexpr int WARPS = NARROW_THREADS / 32;
constexpr int SUM_WORDS = OUTPUTS * static_cast<int>(sizeof(T) / 4);  // registers for the sums of a sample
constexpr int ROWS = SUM_WORDS <= 16 ? 4 : SUM_WORDS <= 32 ? 2 : 1;
constexpr int PACKED = (BELOW + LANES - 1) / LANES * LANES;
constexpr int LINE = PACKED + LANES;  // what a warp writes at once meets different banks

// Add up v (COUNT,) over the lanes of a warp. Lane i is left with the sums of v[i], v[i + 32], ... in v[0], v[1], ...:
// at each step it hands every second value to its partner, so that there are half as many to add at the next.
template <int COUNT, int MASK, int SIZE> DEVICE void add_lanes(T (&v)[SIZE], int lane) {
    const bool upper = lane & MASK;
#pragma unroll
    for (int i = 0; i < (COUNT + 1) / 2; ++i) {
        const T low = v[2 * i], high = 2 * i + 1 < COUNT ? v[2 * i + 1] : T(0);
        v[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, MASK);
    }
    if constexpr (MASK < 16) add_lanes<(COUNT + 1) / 2, 2 * MASK>(v, lane);
}

// Z (m, BELOW) = H @ W by cuBLAS, before (BELOW,), W (BELOW, OUTPUTS), b (OUTPUTS,), odd (1,);
// H (m, OUTPUTS) = act(act_before(Z + before) @ W + b). Z begins at a multiple of 16 bytes. `watch` is about Z, as in
// inference.cuh.
extern "C" __global__ void __launch_bounds__(NARROW_THREADS) answer_narrow(
    const T* Z, const T* W, const T* b, T* H, const T* before, int code_before, int watch, unsigned int* odd, int code,
    long long m) {
    SHARED_ARRAY(Pack, packs_of_weights, (OUTPUTS * LINE / LANES));
    SHARED_ARRAY(T, answers, (WARPS * ROWS * OUTPUTS));
    T* const weights = reinterpret_cast<T*>(packs_of_weights);
    for (int e = threadIdx.x; e < PACKED * OUTPUTS; e += NARROW_THREADS) {
        const int k = e / OUTPUTS;
        weights[e % OUTPUTS * LINE + k] = k < BELOW ? W[e] : T(0);
    }
    __syncthreads();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    constexpr int WIDTH = 32 / ROWS;  // lanes that finish a sample
    const LaneTeam team = {lane % WIDTH, WIDTH};
    T* const of_warp = answers + warp * ROWS * OUTPUTS;
    T* const answer = of_warp + lane / WIDTH * OUTPUTS;
    const long long step = static_cast<long long>(gridDim.x) * WARPS * ROWS;
    for (long long first = (static_cast<long long>(blockIdx.x) * WARPS + warp) * ROWS; first < m; first += step) {
        T sums[ROWS * OUTPUTS] = {};
        for (int k = lane * LANES; k < BELOW; k += 32 * LANES) {
            const int count = BELOW - k < LANES ? BELOW - k : LANES;
            const Pack bias = load_pack(before + k, count);
            Pack h[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                h[r] = Pack{};
                const T* z = Z + (first + r) * BELOW + k;
                if (first + r < m) h[r] = BELOW % LANES == 0 ? *reinterpret_cast<const Pack*>(z) : load_pack(z, count);
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int c = 0; c < LANES; ++c) {
                    if (watch && !finite_(h[r].v[c])) raise_flag(odd);
                    h[r].v[c] = c < count ? activate(code_before, h[r].v[c] + bias.v[c]) : T(0);
                }
            }
#pragma unroll
            for (int j = 0; j < OUTPUTS; ++j) {
                const Pack w = packs_of_weights[(j * LINE + k) / LANES];
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                    for (int c = 0; c < LANES; ++c) sums[r * OUTPUTS + j] += h[r].v[c] * w.v[c];
                }
            }
        }
        add_lanes<ROWS * OUTPUTS, 1>(sums, lane);
#pragma unroll
        for (int q = 0; q < (ROWS * OUTPUTS + 31) / 32; ++q) {
            const int e = lane + 32 * q;
            if (e < ROWS * OUTPUTS) {
                const T z = sums[q] + b[e % OUTPUTS];
                of_warp[e] = code >= 0 ? activate(code, z) : z;
            }
        }
        __syncwarp();
        if (code == -1) {
            softmax_row(team, answer, answer, OUTPUTS);
        } else if (code < 0) {
            log_softmax_row(team, answer, answer, OUTPUTS);
        }
        if (first + lane / WIDTH < m) {
            for (int j = team.rank; j < OUTPUTS; j += WIDTH) H[(first + lane / WIDTH) * OUTPUTS + j] = answer[j];
        }
        __syncwarp();  // the next sums are written where these were read
    }
}
