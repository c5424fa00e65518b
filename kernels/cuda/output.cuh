// The output layer: a row-wise output, the loss, BP1 and the hits, a row to a team of threads.
//
// Requires: step.cuh and what it requires, rowwise.cuh, records.cuh.

// One row: H of a row-wise output, the terms of the loss, BP1, hits. Returns loss and hits to the first of the team.
template <class Team>
DEVICE void output_row(Team team, const T* z, T* h, const T* y, T* delta, T scale, long long label, T weight,
                       T threshold, double& loss, double& right, long long n) {
    T top = T(0), log_sum = T(0), sum = T(1);
    if (OUTPUT_ROWS != 0) {
        top = -infinity_(T());
        for (long long j = team.rank; j < n; j += team.size) top = max_(top, z[j]);
        top = team.reduce(top, -infinity_(T()), Maximum());
        sum = T(0);
        for (long long j = team.rank; j < n; j += team.size) sum += exp_(z[j] - top);
        sum = team.reduce(sum, T(0), Sum());
        log_sum = log_(sum);
    }
    T inner = T(0);
    for (long long j = team.rank; j < n; j += team.size) {
        T logh = T(0), out;
        if (OUTPUT_ROWS != 0) logh = z[j] - top - log_sum;
        if (OUTPUT_ROWS == 0) {
            out = h[j];
        } else {
            out = OUTPUT_ROWS == 1 ? exp_(z[j] - top) / sum : logh;
            h[j] = out;
        }
        T terms, error;
        output_error(z[j], out, y[j], logh, scale, terms, error);
        loss += static_cast<double>(terms);
        delta[j] = error;
        inner += OUTPUT_ROWS == 1 ? error * out : error;
    }
    if (OUTPUT_ROWS != 0 && !PAIRED) {
        inner = team.reduce(inner, T(0), Sum());
        for (long long j = team.rank; j < n; j += team.size) {
            delta[j] = OUTPUT_ROWS == 1 ? h[j] * (delta[j] - inner) : delta[j] - exp_(h[j]) * inner;
        }
    }
    if (CLASSES) {
        T hit = T(0);
        hit_row(team, h, label, threshold, &hit, n);
        right += static_cast<double>(hit * weight);
    }
}

// A row of the step by a team, or nothing but the waiting if there are no `columns`.
template <class Team>
DEVICE void output_sample(Team team, Step step, long long row, long long columns, const T* Z, T* H, T* Delta,
                          const T* scales, T scale, double& loss, double& right, long long n) {
    const long long sample = columns ? step.index()[row] : 0;
    const long long label = CLASSES && columns ? step.labels()[sample] : 0;
    const T weight = WEIGHTED && columns ? step.data(WEIGHTS_AT)[sample] : T(1);
    output_row(team, Z + row * n, H + row * n, step.data(Y_AT) + sample * n, Delta + row * n,
               WEIGHTED && columns ? scales[row] : scale, label, weight, step.threshold(), loss, right, columns);
}

// Z, H, Delta (m, n); scales (m,) if samples have weights, else `scale`; of_block (2 * gridDim.x,)
extern "C" __global__ void output_narrow(
    const long long* batch, int j, const T* Z, T* H, T* Delta, const T* scales, T scale, double* of_block,
    long long m, long long n, int width) {
    const Step step = step_of(batch, j, m);
    double loss = 0.0, right = 0.0;
    for_rows_narrow(m, n, width, [&](LaneTeam team, long long row, long long columns) {
        output_sample(team, step, row, columns, Z, H, Delta, scales, scale, loss, right, n);
    });
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}
extern "C" __global__ void output_wide(
    const long long* batch, int j, const T* Z, T* H, T* Delta, const T* scales, T scale, double* of_block,
    long long m, long long n) {
    const Step step = step_of(batch, j, m);
    double loss = 0.0, right = 0.0;
    for_rows_wide(m, n, [&](BlockTeam team, long long row, long long columns) {
        output_sample(team, step, row, columns, Z, H, Delta, scales, scale, loss, right, n);
    });
    record_block(step, loss, right, of_block, blockIdx.x, gridDim.x);
}
