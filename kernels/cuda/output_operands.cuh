// A row of the output after its product: bias, activation, loss, BP1 as an operand of the next product, and hits.
//
// Requires: scalar.cuh, memory.cuh, team.cuh, operand.cuh and `Operand`, and the pieces of the step. Logits, loss and BP1
// are of type T whatever operands are; Delta is multiplied by the loss scale.

// What the product, the bias and the activation give for one output.
struct Logit {
    T z, h, logh;
};

template <class Team> struct OutputRow {
    Team team;
    const T* product;
    const T* b;
    const T* y;
    T scale;
    int code;
    long long n;
    T top, sum, log_sum;

    DEVICE_MEMBER T z_at(long long j) const { return product[j] + b[j]; }
    DEVICE_MEMBER void prepare() {
        if (OUTPUT_ROWS == 0) return;
        top = -infinity_(T());
        for (long long j = team.rank; j < n; j += team.size) top = max_(top, z_at(j));
        top = team.reduce(top, -infinity_(T()), Maximum());
        sum = T(0);
        for (long long j = team.rank; j < n; j += team.size) sum += exp_(z_at(j) - top);
        sum = team.reduce(sum, T(0), Sum());
        log_sum = log_(sum);
    }
    DEVICE_MEMBER Logit at(long long j) const {
        const T z = z_at(j);
        if (OUTPUT_ROWS == 0) return {z, activate(code, z), T(0)};
        const T logh = z - top - log_sum;
        return {z, OUTPUT_ROWS == 1 ? exp_(z - top) / sum : logh, logh};
    }
    DEVICE_MEMBER T error(long long j, const Logit& found, T& terms) const {
        T delta;
        output_error(found.z, found.h, y[j], found.logh, scale, terms, delta);
        return delta;
    }
};

// One row; the first of the team gets the loss and the hits. Column j of the row adds to sums[0] if SUMS. `Delta` is the
// row of the errors: anything that gives an Operand for a number in brackets.
template <bool SUMS, class Team, class Errors>
DEVICE void output_operands(OutputRow<Team> row, Errors Delta, T loss_scale, long long label, T weight, T threshold,
                            double& loss, double& right, double& sums) {
    row.prepare();
    const Largest none = {-infinity_(T()), 0x7fffffffffffffffLL};
    Largest best = none;
    T inner = T(0);
    for (long long j = row.team.rank; j < row.n; j += row.team.size) {
        const Logit found = row.at(j);
        T terms;
        const T error = row.error(j, found, terms);
        loss += static_cast<double>(terms);
        inner += OUTPUT_ROWS == 1 ? error * found.h : error;
        if (CLASSES) best = FirstLargest()(best, found.h == found.h ? Largest{found.h, j} : Largest{T(0), -1});
        if (OUTPUT_ROWS == 0 || PAIRED) {
            round_to(Delta[j], error * loss_scale);
            if (SUMS) sums += static_cast<double>(error * loss_scale);
        }
    }
    if (OUTPUT_ROWS != 0 && !PAIRED) {
        inner = row.team.reduce(inner, T(0), Sum());
        for (long long j = row.team.rank; j < row.n; j += row.team.size) {
            const Logit found = row.at(j);
            T terms, error = row.error(j, found, terms);
            error = OUTPUT_ROWS == 1 ? found.h * (error - inner) : error - exp_(found.h) * inner;
            round_to(Delta[j], error * loss_scale);
            if (SUMS) sums += static_cast<double>(error * loss_scale);
        }
    }
    if (!CLASSES) return;
    long long guess = row.team.reduce(best, none, FirstLargest()).index;
    if (row.n == 0 || row.team.rank != 0) return;
    if (row.n == 1 && guess == 0) guess = row.at(0).h > threshold;
    right += static_cast<double>((guess >= 0 && guess == label ? T(1) : T(0)) * weight);
}
