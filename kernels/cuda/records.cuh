// What is remembered of a step (its loss, its hits and the weight of its samples), the weights of samples in the mean,
// and the count of steps.
//
// Requires: step.cuh and what it requires.

// Write the record of a step; all threads of a block call, each with its part.
DEVICE void record(Step step, double loss, double right) {
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    loss = team.reduce(loss, 0.0, Sum());
    right = team.reduce(right, 0.0, Sum());
    if (threadIdx.x != 0) return;
    *step.record(0) = loss;
    if (CLASSES) *step.record(1) = right;
    if (!WEIGHTED) *step.record(2) = static_cast<double>(step.m);
}

// Loss and hits of the samples of one of `count` blocks. Of several, what each has found waits in of_block (2 * count,)
// for add_records, in a kernel that comes later anyway: to wait for one another here would take longer.
DEVICE void record_block(Step step, double loss, double right, double* of_block, long long number, long long count) {
    if (count == 1) {
        record(step, loss, right);
        return;
    }
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    loss = team.reduce(loss, 0.0, Sum());
    right = team.reduce(right, 0.0, Sum());
    if (threadIdx.x != 0) return;
    of_block[2 * number] = loss;
    of_block[2 * number + 1] = right;
}

// One block: add up, in order, what record_block has left; one block has left nothing.
DEVICE void add_records(Step step, const double* of_block, long long count) {
    if (count == 1) return;
    double loss = 0.0, right = 0.0;
    for (long long b = threadIdx.x; b < count; b += blockDim.x) {
        loss += of_block[2 * b];
        right += of_block[2 * b + 1];
    }
    record(step, loss, right);
}

// One block: scales (m,) = s * w / sum w of the samples of this step
extern "C" __global__ void weigh(const long long* batch, int j, T* scales, T s, long long m) {
    const Step step = step_of(batch, j, m);
    const T* weights = step.data(WEIGHTS_AT);
    const long long* index = step.index();
    double total = 0.0;
    for (long long i = threadIdx.x; i < m; i += blockDim.x) total += static_cast<double>(weights[index[i]]);
    const BlockTeam team = {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
    total = team.reduce(total, 0.0, Sum());
    const T sum = static_cast<T>(total);
    for (long long i = threadIdx.x; i < m; i += blockDim.x) {
        scales[i] = sum > T(0) ? s * weights[index[i]] / sum : T(0);
    }
    if (threadIdx.x == 0) *step.record(2) = total;
}

// One thread: so many steps of the run are done.
extern "C" __global__ void advance_run(long long* batch, long long steps) { batch[DONE] += steps; }
