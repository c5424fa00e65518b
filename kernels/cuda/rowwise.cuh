// Operations on rows: softmax, log-softmax, their gradients, and the hits of a classification.
//
// Requires: scalar.cuh, memory.cuh, team.cuh. Every operation is written once, for a team of threads on one row, and
// launched in two ways: NAME_narrow gives a row to `width` lanes of a warp (32 / width rows a warp), NAME_wide gives
// it to a block. Matrices are (m, n), rows contiguous; any m and n. A thread owns the columns rank, rank + size, ...
// of its row and touches no other element, so the output may be the memory of an input.

// h (n,) = exp(z - max z) / sum exp(z - max z)
template <class Team> DEVICE void softmax_row(Team team, const T* z, T* h, long long n) {
    T top = -infinity_(T());
    for (long long j = team.rank; j < n; j += team.size) top = max_(top, z[j]);
    top = team.reduce(top, -infinity_(T()), Maximum());
    T sum = T(0);
    for (long long j = team.rank; j < n; j += team.size) {
        const T e = exp_(z[j] - top);
        h[j] = e;
        sum += e;
    }
    sum = team.reduce(sum, T(0), Sum());
    for (long long j = team.rank; j < n; j += team.size) h[j] /= sum;
}

// h (n,) = z - max z - log sum exp(z - max z)
template <class Team> DEVICE void log_softmax_row(Team team, const T* z, T* h, long long n) {
    T top = -infinity_(T());
    for (long long j = team.rank; j < n; j += team.size) top = max_(top, z[j]);
    top = team.reduce(top, -infinity_(T()), Maximum());
    T sum = T(0);
    for (long long j = team.rank; j < n; j += team.size) sum += exp_(z[j] - top);
    const T log_sum = log_(team.reduce(sum, T(0), Sum()));
    for (long long j = team.rank; j < n; j += team.size) h[j] = z[j] - top - log_sum;
}

// d (n,) = h * (g - sum(g * h)), h the output of softmax
template <class Team> DEVICE void backprop_softmax_row(Team team, const T* g, const T* h, T* d, long long n) {
    T sum = T(0);
    for (long long j = team.rank; j < n; j += team.size) sum += g[j] * h[j];
    sum = team.reduce(sum, T(0), Sum());
    for (long long j = team.rank; j < n; j += team.size) d[j] = h[j] * (g[j] - sum);
}

// d (n,) = g - exp(h) * sum(g), h the output of log_softmax
template <class Team> DEVICE void backprop_log_softmax_row(Team team, const T* g, const T* h, T* d, long long n) {
    T sum = T(0);
    for (long long j = team.rank; j < n; j += team.size) sum += g[j];
    sum = team.reduce(sum, T(0), Sum());
    for (long long j = team.rank; j < n; j += team.size) d[j] = g[j] - exp_(h[j]) * sum;
}

// The first largest column of h (n,), or -1 where the row holds a NaN.
template <class Team> DEVICE long long argmax_row(Team team, const T* h, long long n) {
    const Largest none = {-infinity_(T()), 0x7fffffffffffffffLL};
    Largest best = none;
    for (long long j = team.rank; j < n; j += team.size) {
        best = FirstLargest()(best, h[j] == h[j] ? Largest{h[j], j} : Largest{T(0), -1});
    }
    return team.reduce(best, none, FirstLargest()).index;
}

// 1 where class `label` is predicted, else 0; one column predicts class 1 above the threshold.
template <class Team> DEVICE void hit_row(Team team, const T* h, long long label, T threshold, T* hit, long long n) {
    long long guess = argmax_row(team, h, n);
    if (n == 0 || team.rank != 0) return;
    if (n == 1 && guess == 0) guess = h[0] > threshold;
    *hit = guess >= 0 && guess == label ? T(1) : T(0);
}

// Call body(team, row, number of columns) for every row, a row to `width` lanes. Lanes without a row are called
// with no columns: they have to take part in the reductions of their warp.
template <class Body> DEVICE void for_rows_narrow(long long m, long long n, int width, Body body) {
    const int lane = threadIdx.x % 32;
    const int rows = 32 / width;  // rows a warp
    const LaneTeam team = {lane % width, width};
    for (long long first = grid_index() / 32 * rows; first < m; first += grid_size() / 32 * rows) {
        const long long row = first + lane / width;
        body(team, row, row < m ? n : 0);
    }
}

// Call body(team, row, number of columns) for every row, a row to a block.
template <class Body> DEVICE void for_rows_wide(long long m, long long n, Body body) {
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    for (long long row = blockIdx.x; row < m; row += gridDim.x) body(team, row, n);
}

// Z (m, n), H (m, n)
extern "C" __global__ void softmax_narrow(const T* Z, T* H, long long m, long long n, int width) {
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        softmax_row(team, Z + row * n, H + row * n, columns);
    });
}
extern "C" __global__ void softmax_wide(const T* Z, T* H, long long m, long long n) {
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        softmax_row(team, Z + row * n, H + row * n, columns);
    });
}

// Z (m, n), H (m, n)
extern "C" __global__ void log_softmax_narrow(const T* Z, T* H, long long m, long long n, int width) {
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        log_softmax_row(team, Z + row * n, H + row * n, columns);
    });
}
extern "C" __global__ void log_softmax_wide(const T* Z, T* H, long long m, long long n) {
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        log_softmax_row(team, Z + row * n, H + row * n, columns);
    });
}

// G (m, n), H (m, n), D (m, n)
extern "C" __global__ void backprop_softmax_narrow(
    const T* G, const T* H, T* D, long long m, long long n, int width) {
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        backprop_softmax_row(team, G + row * n, H + row * n, D + row * n, columns);
    });
}
extern "C" __global__ void backprop_softmax_wide(const T* G, const T* H, T* D, long long m, long long n) {
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        backprop_softmax_row(team, G + row * n, H + row * n, D + row * n, columns);
    });
}

// G (m, n), H (m, n), D (m, n)
extern "C" __global__ void backprop_log_softmax_narrow(
    const T* G, const T* H, T* D, long long m, long long n, int width) {
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        backprop_log_softmax_row(team, G + row * n, H + row * n, D + row * n, columns);
    });
}
extern "C" __global__ void backprop_log_softmax_wide(const T* G, const T* H, T* D, long long m, long long n) {
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        backprop_log_softmax_row(team, G + row * n, H + row * n, D + row * n, columns);
    });
}

// H (m, n), labels (m,), hits (m,)
extern "C" __global__ void row_hits_narrow(
    const T* H, const long long* labels, T threshold, T* hits, long long m, long long n, int width) {
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        hit_row(team, H + row * n, columns ? labels[row] : 0, threshold, hits + row, columns);
    });
}
extern "C" __global__ void row_hits_wide(
    const T* H, const long long* labels, T threshold, T* hits, long long m, long long n) {
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        hit_row(team, H + row * n, labels[row], threshold, hits + row, columns);
    });
}
