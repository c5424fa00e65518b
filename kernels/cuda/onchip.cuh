// Small matrix products whose factors lie in shared memory.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, and the constant THREADS. A lane computes a tile of TI x TJ sums in
// registers. The 32 lanes of a warp are J tiles side by side, I tiles one below the other, and G lanes that share each
// tile: each of these takes every G-th term of its sums, and at the end they add up what they have, so that each holds
// a G-th of the tile. Rows begin at multiples of 16 bytes, and follow one another at an odd multiple: then lanes that
// read different rows meet different banks. What lies between the end of a row and the next is 0.

enum Form {
    FORWARD,   // A (M, K) @ B (K, N): terms are taken LANES at a time, along the rows of A
    BACKWARD,  // A (M, K) @ B (N, K).T: along the rows of both
    GRADIENT   // A (K, M).T @ B (K, N): one at a time
};

template <int TI_, int PACKS, int J_, int G_> struct Tiling {
    static constexpr int TI = TI_, TJ = PACKS * LANES, J = J_, G = G_, I = 32 / (J * G);
    static constexpr int SUMS = TI * TJ;
    static constexpr int HELD = SUMS > G ? SUMS / G : 1;  // sums that a lane holds at the end
};

// Some elements of a row that lie side by side.
template <int N> struct alignas(N * sizeof(T)) Few {
    static constexpr int SIZE = N;
    T v[N];
};

// Element r of a lane's rows and element t of its columns, counted from where its warp begins.
template <class S, Form F> DEVICE int row_of(int i, int r) {
    return F == GRADIENT ? (r / LANES * S::I + i) * LANES + r % LANES : i + r * S::I;
}
template <class S, Form F> DEVICE int column_of(int j, int t) {
    return F == BACKWARD ? j + t * S::J : (t / LANES * S::J + j) * LANES + t % LANES;
}

DEVICE Pack pack_at(const T* p) { return *reinterpret_cast<const Pack*>(p); }
DEVICE int at_most(int a, int b) { return a < b ? a : b; }

// Add the terms q * LANES ... to the sums, or term q for a GRADIENT. `a` and `b`: where the lane's rows (or packs of
// them) and columns begin.
template <class S, Form F>
DEVICE void add_terms(T* sums, const T* const* a, const T* const* b, int q, int a_row, int b_row) {
    constexpr int TI = S::TI, TJ = S::TJ;
    if (F == GRADIENT) {
        Pack left[TI / LANES + 1], right[TJ / LANES];
#pragma unroll
        for (int r = 0; r < TI / LANES; ++r) left[r] = pack_at(a[r] + q * a_row);
#pragma unroll
        for (int t = 0; t < TJ / LANES; ++t) right[t] = pack_at(b[t] + q * b_row);
#pragma unroll
        for (int e = 0; e < S::SUMS; ++e) {
            sums[e] += left[e / TJ / LANES].v[e / TJ % LANES] * right[e % TJ / LANES].v[e % TJ % LANES];
        }
        return;
    }
    Pack right[F == FORWARD ? LANES * (TJ / LANES) : TJ];
    if (F == FORWARD) {
#pragma unroll
        for (int x = 0; x < LANES * (TJ / LANES); ++x) {
            right[x] = pack_at(b[x % (TJ / LANES)] + (q * LANES + x / (TJ / LANES)) * b_row);
        }
    } else {
#pragma unroll
        for (int t = 0; t < TJ; ++t) right[t] = pack_at(b[t] + q * LANES);
    }
#pragma unroll
    for (int r = 0; r < TI; ++r) {
        const Pack left = pack_at(a[r] + q * LANES);
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
#pragma unroll
            for (int t = 0; t < TJ; ++t) {
                const T factor = F == FORWARD ? right[k * (TJ / LANES) + t / LANES].v[t % LANES] : right[t].v[k];
                sums[r * TJ + t] += left.v[k] * factor;
            }
        }
    }
}

// Add up the sums of the lanes that share a tile: each step two lanes exchange halves, and each keeps one.
template <int HELD, int MASK, int J> DEVICE void share_sums(T* sums, int g) {
    if constexpr (MASK > 0) {
        constexpr int HALF = HELD > 1 ? HELD / 2 : 1;
        const bool upper = HELD > 1 && (g & MASK);
#pragma unroll
        for (int k = 0; k < HALF; ++k) {
            const T lower_sum = sums[k], upper_sum = sums[HELD > 1 ? k + HALF : k];
            sums[k] = (upper ? upper_sum : lower_sum) + shuffle_xor(upper ? lower_sum : upper_sum, MASK * J);
        }
        share_sums<HALF, MASK / 2, J>(sums, g);
    }
}

// How many tiles of a warp a product (M, N) has.
template <class S> DEVICE constexpr int tasks_of(int M, int N) {
    return (N + S::J * S::TJ - 1) / (S::J * S::TJ) * ((M + S::I * S::TI - 1) / (S::I * S::TI));
}

// Compute a product (M, N) and call finish(i, j, few) for the sums at (i, j), (i, j + 1), ...; those of the last columns
// may reach beyond N, up to a multiple of LANES. Sums have `count` terms, or `count` times LANES. All threads call. The
// warp BUSY has the first tile: of products that follow one another without a barrier, each begins where the last ends.
template <class S, Form F, int BUSY = 0, class Finish>
DEVICE void multiply_on_chip(int M, int N, int count, const T* A, int a_row, const T* B, int b_row, Finish finish) {
    constexpr int TI = S::TI, TJ = S::TJ, FEW = F == BACKWARD ? 1 : S::HELD < LANES ? S::HELD : LANES;
    constexpr int STARTS = F == BACKWARD ? TJ : TJ / LANES, ROWS = F == GRADIENT ? TI / LANES : TI;
    const int lane = threadIdx.x % 32, tj = lane % S::J, g = lane / S::J % S::G, ti = lane / (S::J * S::G);
    const int across = (N + S::J * TJ - 1) / (S::J * TJ), down = (M + S::I * TI - 1) / (S::I * TI);
    const int last_row = F == GRADIENT ? (M - 1) / LANES * LANES : M - 1;
    const int last_column = F == BACKWARD ? N - 1 : (N - 1) / LANES * LANES;
    constexpr int WARPS = THREADS / 32;
    for (int task = (threadIdx.x / 32 + WARPS - BUSY % WARPS) % WARPS; task < across * down; task += WARPS) {
        const int i0 = task / across * (S::I * TI), j0 = task % across * (S::J * TJ);
        const T* a[ROWS];
        const T* b[STARTS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int i = at_most(i0 + row_of<S, F>(ti, F == GRADIENT ? r * LANES : r), last_row);
            a[r] = A + (F == GRADIENT ? i : i * a_row);
        }
#pragma unroll
        for (int t = 0; t < STARTS; ++t) {
            const int j = at_most(j0 + column_of<S, F>(tj, F == BACKWARD ? t : t * LANES), last_column);
            b[t] = B + (F == BACKWARD ? j * b_row : j);
        }
        T sums[S::SUMS];
#pragma unroll
        for (int e = 0; e < S::SUMS; ++e) sums[e] = T(0);
#pragma unroll(S::SUMS <= 16 ? 4 : F == GRADIENT ? 2 : 1)
        for (int q = g; q < count; q += S::G) add_terms<S, F>(sums, a, b, q, a_row, b_row);
        share_sums<S::SUMS, S::G / 2, S::J>(sums, g);
        constexpr int SAME = S::G > S::SUMS ? S::G / S::SUMS : 1;  // lanes that hold one and the same sum
        if (g % SAME != 0) continue;
        const int first = g / SAME * S::HELD;
#pragma unroll
        for (int x = 0; x < S::HELD / FEW; ++x) {
            const int e = first + x * FEW;
            const int i = i0 + row_of<S, F>(ti, e / TJ), j = j0 + column_of<S, F>(tj, e % TJ);
            Few<FEW> few;
#pragma unroll
            for (int k = 0; k < FEW; ++k) few.v[k] = sums[x * FEW + k];
            if (i < M && j < N) finish(i, j, few);
        }
    }
}
