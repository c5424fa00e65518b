// Passes around the products of cuBLAS: the inputs, bias and activation, BP2's derivative with the sums of BP3.
//
// Requires: step.cuh and what it requires, plane.cuh. A pass reads and writes each of its arrays once. Bytes for each
// element of a layer, of operands of s bytes: forward 2 s (the product, what is handed on), backward 3 s (the product,
// one array for the derivative, Delta). What the derivative needs is one array: either what was handed on, or the
// product of the forward pass, from which z and h are computed again; no mask of single elements is stored, since
// drawing it again costs less than its bytes. Operands of two planes are 8 bytes, a product of them 4: forward 12,
// backward 20, or 16 from a product. An operand (m, n) has its second plane m * n numbers behind the first; a product
// lies where the first plane will.

typedef ProductOf<Operand>::type Product;

// What an array for the derivative holds.
enum { HANDED_ON, PRODUCT };

// out (m, n) = rows of the inputs of this step
template <int V> struct Gather {
    const T* X;
    const long long* index;
    Operand* out;
    long long plane, n;
    typedef Run<V, T> Read;
    DEVICE_MEMBER void begin(long long) {}
    DEVICE_MEMBER Read read(long long row, long long column) { return run_at<V>(X + index[row] * n + column); }
    DEVICE_MEMBER void finish(long long row, long long column, const Read& x) {
        store_operands<V>(out + row * n + column, plane, x.v);
    }
    DEVICE_MEMBER void end(long long, bool) {}
};

extern "C" __global__ void gather_inputs(const long long* batch, int j, Operand* out, long long m, long long n) {
    const Step step = step_of(batch, j, m);
    const T* X = step.data(X_AT);
    if (n % LONGEST_RUN == 0 && takes_runs<LONGEST_RUN>(X)) {
        Gather<LONGEST_RUN> pass = {X, step.index(), out, m * n, n};
        walk<LONGEST_RUN>(pass, m, n);
    } else {
        Gather<1> pass = {X, step.index(), out, m * n, n};
        walk<1>(pass, m, n);
    }
}

// The masks of some neighbours: of one sample's, or of all samples', which do not change from row to row.
template <int V> struct Masks {
    Dropout drop;
    unsigned long long step;
    T of_column[V];
    DEVICE_MEMBER void begin(long long column) {
        if (drop.dropout == PER_BATCH) draw_run<V>(drop, step, column, of_column);
    }
    DEVICE_MEMBER void of(long long position, T (&mask)[V]) const {
        if (drop.dropout == PER_SAMPLE) {
            draw_run<V>(drop, step, position, mask);
            return;
        }
#pragma unroll
        for (int k = 0; k < V; ++k) mask[k] = of_column[k];
    }
};

// out (m, n) = act(product + b) * mask; out may be the product
template <int V, class In, class Out> struct ForwardPass {
    const In* product;
    const T* b;  // or nullptr
    Out* out;
    int code;    // below 0: the identity
    Masks<V> masks;
    long long plane, n;
    T bias[V];
    typedef Run<V, In> Read;
    DEVICE_MEMBER void begin(long long column) {
#pragma unroll
        for (int k = 0; k < V; ++k) bias[k] = b != nullptr ? b[column + k] : T(0);
        masks.begin(column);
        if (masks.drop.dropout == PER_BATCH && blockIdx.y == 0 && threadIdx.y == 0) {  // the update asks for it
#pragma unroll
            for (int k = 0; k < V; ++k) masks.drop.mask[column + k] = masks.of_column[k];
        }
    }
    DEVICE_MEMBER Read read(long long row, long long column) { return run_at<V>(product + row * n + column); }
    DEVICE_MEMBER void finish(long long row, long long column, const Read& sum) {
        const long long at = row * n + column;
        T h[V], mask[V];
        if (masks.drop.dropout != NO_DROPOUT) masks.of(at, mask);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const T z = wide_of(sum.v[k]) + bias[k];
            h[k] = code < 0 ? z : activate(code, z);
            if (masks.drop.dropout != NO_DROPOUT) h[k] *= mask[k];
        }
        store_operands<V>(out + at, plane, h);
    }
    DEVICE_MEMBER void end(long long, bool) {}
};

template <class In, class Out>
DEVICE void forward_pass(const In* product, const T* b, Out* out, int code, const Dropout& drop,
                         unsigned long long step, long long m, long long n) {
    if (n % LONGEST_RUN == 0) {
        ForwardPass<LONGEST_RUN, In, Out> pass = {product, b, out, code, {drop, step}, m * n, n};
        walk<LONGEST_RUN>(pass, m, n);
    } else {
        ForwardPass<1, In, Out> pass = {product, b, out, code, {drop, step}, m * n, n};
        walk<1>(pass, m, n);
    }
}

// product (m, n), b (n,), out (m, n)
extern "C" __global__ void finish_forward(
    const long long* batch, int j, const Product* product, const T* b, Operand* out, int code, T* mask,
    unsigned int threshold, T kept, int dropout, unsigned int layer, unsigned int key0, unsigned int key1, long long m,
    long long n) {
    forward_pass(product, b, out, code, {mask, threshold, kept, dropout, layer, key0, key1},
                 step_of(batch, j, m).number(), m, n);
}

// For a row-wise activation: Z (m, n) += b before it, and what is handed on, H * mask, after it.
extern "C" __global__ void add_bias(const T* b, T* Z, long long m, long long n) {
    forward_pass(Z, b, Z, -1, {nullptr, 0, T(1), NO_DROPOUT, 0, 0, 0}, 0, m, n);
}
extern "C" __global__ void hand_on(
    const long long* batch, int j, const T* H, Operand* out, T* mask, unsigned int threshold, T kept, int dropout,
    unsigned int layer, unsigned int key0, unsigned int key1, long long m, long long n) {
    forward_pass(H, static_cast<const T*>(nullptr), out, -1, {mask, threshold, kept, dropout, layer, key0, key1},
                 step_of(batch, j, m).number(), m, n);
}

// Delta (m, n) = sum * mask * act'(z), and the sums of its columns; Delta may be the array of the sum
template <int V, class In, class Out> struct BackwardPass {
    const In* sum;
    const Operand* source;
    int holds;   // HANDED_ON or PRODUCT
    const T* b;  // of the layer itself, if the source is a product
    Out* Delta;
    int code;    // below 0: no derivative here
    Masks<V> masks;
    double* partial;  // or nullptr
    long long plane, n;
    T bias[V];
    double sums[V];
    struct Read {
        Run<V, In> sum;
        Operands<V, Operand> source;
    };
    DEVICE_MEMBER void begin(long long column) {
#pragma unroll
        for (int k = 0; k < V; ++k) {
            bias[k] = holds == PRODUCT ? b[column + k] : T(0);
            sums[k] = 0.0;
        }
        masks.begin(column);
    }
    DEVICE_MEMBER Read read(long long row, long long column) {
        const long long at = row * n + column;
        Read found;
        found.sum = run_at<V>(sum + at);
        if (code >= 0) {
            found.source = holds == PRODUCT ? product_at<V>(source + at) : operands_at<V>(source + at, plane);
        }
        return found;
    }
    DEVICE_MEMBER void finish(long long row, long long column, const Read& found) {
        const long long at = row * n + column;
        T delta[V], mask[V];
        if (masks.drop.dropout != NO_DROPOUT) masks.of(at, mask);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            delta[k] = wide_of(found.sum.v[k]);
            if (masks.drop.dropout != NO_DROPOUT) delta[k] *= mask[k];
            if (code >= 0) {
                const T value = found.source.number(k), z = value + bias[k];
                delta[k] = backprop(code, delta[k], z, holds == PRODUCT ? activate(code, z) : value);
            }
            sums[k] += static_cast<double>(delta[k]);
        }
        store_operands<V>(Delta + at, plane, delta);
    }
    DEVICE_MEMBER void end(long long column, bool inside) {
        if (partial == nullptr) return;
        if (!inside) {
#pragma unroll
            for (int k = 0; k < V; ++k) sums[k] = 0.0;
        }
        write_partial<V>(sums, partial, column, inside, n);
    }
};

template <class In, class Out>
DEVICE void backward_pass(const In* sum, const Operand* source, int holds, const T* b, Out* Delta, int code,
                          const Dropout& drop, unsigned long long step, double* partial, long long m, long long n) {
    if (n % LONGEST_RUN == 0) {
        BackwardPass<LONGEST_RUN, In, Out> pass = {sum, source, holds, b, Delta, code, {drop, step}, partial, m * n, n};
        walk<LONGEST_RUN>(pass, m, n);
    } else {
        BackwardPass<1, In, Out> pass = {sum, source, holds, b, Delta, code, {drop, step}, partial, m * n, n};
        walk<1>(pass, m, n);
    }
}

// Delta (m, n) holds the product already; source (m, n); partial (gridDim.y, n)
extern "C" __global__ void finish_backward(
    const long long* batch, int j, const Operand* source, int holds, const T* b, Operand* Delta, int code, T* mask,
    unsigned int threshold, T kept, int dropout, unsigned int layer, unsigned int key0, unsigned int key1,
    double* partial, long long m, long long n) {
    backward_pass(reinterpret_cast<const Product*>(Delta), source, holds, b, Delta, code,
                  {mask, threshold, kept, dropout, layer, key0, key1}, step_of(batch, j, m).number(), partial, m, n);
}

// For a row-wise activation: D (m, n) *= mask before its Jacobian, and Delta with the sums of its columns after it.
extern "C" __global__ void drop_errors(
    const long long* batch, int j, T* D, T* mask, unsigned int threshold, T kept, int dropout, unsigned int layer,
    unsigned int key0, unsigned int key1, long long m, long long n) {
    backward_pass(D, static_cast<const Operand*>(nullptr), HANDED_ON, static_cast<const T*>(nullptr), D, -1,
                  {mask, threshold, kept, dropout, layer, key0, key1}, step_of(batch, j, m).number(),
                  static_cast<double*>(nullptr), m, n);
}
extern "C" __global__ void hand_back(const T* D, Operand* Delta, double* partial, long long m, long long n) {
    backward_pass(D, static_cast<const Operand*>(nullptr), HANDED_ON, static_cast<const T*>(nullptr), Delta, -1,
                  {nullptr, 0, T(1), NO_DROPOUT, 0, 0, 0}, 0, partial, m, n);
}
