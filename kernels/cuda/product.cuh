// Matrix products of any size, tile by tile, with the work that follows a product done while its tile is on chip.
//
// Requires: scalar.cuh, memory.cuh. C (M, N) = A (M, K) @ B (K, N). A block of 256 threads computes one tile of C, or a
// part of its sum over k: tiles of small products are few, so the sum is split among `splits` blocks, and the last of
// them to arrive adds the parts, always in the same order. Inside a block the threads form groups; each group takes
// every GROUPS-th run of k's, each of its threads 4 x 4 elements of the tile.

// Elements along k that are on chip at once.
constexpr int DEPTH = 32;
constexpr int PRODUCT_THREADS = 256;

template <int BM, int BN> struct Tile {
    static constexpr int GROUP = (BM / 4) * (BN / 4);  // threads
    static constexpr int GROUPS = PRODUCT_THREADS / GROUP;
    static constexpr int RUN = DEPTH / GROUPS;  // k's of a group at a time
    // rows of a tile are 4 longer than needed: then 8 k's by 4 rows, which a warp writes at once, meet 32 banks
    static constexpr int A_ROW = BM + 4;
    static constexpr int B_ROW = BN + 4;
    static constexpr int INPUTS = DEPTH * (A_ROW + B_ROW);
    static constexpr int SUMS = GROUPS * BM * BN;
    static constexpr int MEMORY = INPUTS > SUMS ? INPUTS : SUMS;
};

struct alignas(16) Four {
    T v[4];
};

// What every product is told: its size, and how the sum over k is split.
struct Product {
    long long M, N, K;
    int splits;
    T* parts;           // (tiles, splits, BM * BN), if splits > 1
    unsigned* arrived;  // (tiles,) zeros, and zeros again afterwards
};

// A matrix whose rows are contiguous: element (row, column).
struct Rows {
    const T* at;
    long long stride;
    DEVICE_MEMBER T operator()(long long row, long long column) const { return at[row * stride + column]; }
};

// Rows of a matrix by number.
struct Gathered {
    const T* at;
    const long long* index;
    long long stride;
    DEVICE_MEMBER T operator()(long long row, long long column) const { return at[index[row] * stride + column]; }
};

// Element (i, k) of a factor whose lines along k are rows of a matrix.
template <class Matrix> struct AlongK {
    static constexpr bool ALONG_K = true;
    Matrix matrix;
    DEVICE_MEMBER T operator()(long long i, long long k) const { return matrix(i, k); }
};

// Element (i, k) of a factor whose lines along i are rows of a matrix.
template <class Matrix> struct Across {
    static constexpr bool ALONG_K = false;
    Matrix matrix;
    DEVICE_MEMBER T operator()(long long i, long long k) const { return matrix(k, i); }
};

// Which element of a (B, DEPTH) tile a thread moves in a round. Neighbouring lanes read neighbouring addresses.
template <int B, bool ALONG_K> DEVICE void place(int round, int& i, int& k) {
    const int e = threadIdx.x + PRODUCT_THREADS * round;
    if (ALONG_K) {
        k = e % 8 + e / 32 % (DEPTH / 8) * 8;
        i = e / 8 % 4 + e / 32 / (DEPTH / 8) * 4;
    } else {
        i = e % B;
        k = e / B;
    }
}

// Read this thread's elements of a tile; what lies outside the matrix is 0.
template <int B, class Factor>
DEVICE void read_tile(const Factor& factor, long long first, long long k0, long long size, long long end, T* v) {
#pragma unroll
    for (int round = 0; round < B * DEPTH / PRODUCT_THREADS; ++round) {
        int i, k;
        place<B, Factor::ALONG_K>(round, i, k);
        v[round] = first + i < size && k0 + k < end ? factor(first + i, k0 + k) : T(0);
    }
}

template <int B, bool ALONG_K> DEVICE void write_tile(const T* v, T* tile) {
#pragma unroll
    for (int round = 0; round < B * DEPTH / PRODUCT_THREADS; ++round) {
        int i, k;
        place<B, ALONG_K>(round, i, k);
        tile[k * (B + 4) + i] = v[round];
    }
}

// Whether this block is the last of `splits` to come here. All threads of the block get the answer.
DEVICE bool is_last(unsigned* arrived, int splits) {
    SHARED_ARRAY(int, last, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last[0] = atomicAdd(arrived, 1u) == static_cast<unsigned>(splits) - 1;
        if (last[0]) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last[0];
}

// Compute the tile with this number, split `split` of it. The block that finishes the tile calls finish(i, j, sum) once
// for each of its elements, and returns true.
// A (M, K) by element (i, k), B (K, N) by element (j, k); memory (Tile<BM, BN>::MEMORY,) is shared by the block.
template <int BM, int BN, class FactorA, class FactorB, class Finish>
DEVICE bool multiply(T* memory, Product p, const FactorA& A, const FactorB& B, long long tile, int split,
                     Finish finish) {
    typedef Tile<BM, BN> Shape;
    T* const a_tile = memory;
    T* const b_tile = memory + DEPTH * Shape::A_ROW;
    const long long columns = (p.N + BN - 1) / BN;
    const long long i0 = tile / columns * BM, j0 = tile % columns * BN;
    const long long share = (p.K + p.splits * DEPTH - 1) / (p.splits * DEPTH) * DEPTH;
    const long long begin = split * share, end = begin + share < p.K ? begin + share : p.K;
    const int group = threadIdx.x / Shape::GROUP, rank = threadIdx.x % Shape::GROUP;
    const int ti = rank / (BN / 4) * 4, tj = rank % (BN / 4) * 4;

    T sums[4][4] = {};
    T a_next[BM * DEPTH / PRODUCT_THREADS], b_next[BN * DEPTH / PRODUCT_THREADS];
    read_tile<BM>(A, i0, begin, p.M, end, a_next);
    read_tile<BN>(B, j0, begin, p.N, end, b_next);
    for (long long k0 = begin; k0 < end; k0 += DEPTH) {
        __syncthreads();  // the tile before has been used
        write_tile<BM, FactorA::ALONG_K>(a_next, a_tile);
        write_tile<BN, FactorB::ALONG_K>(b_next, b_tile);
        __syncthreads();
        // the next tile is on its way while this one is multiplied
        read_tile<BM>(A, i0, k0 + DEPTH, p.M, end, a_next);
        read_tile<BN>(B, j0, k0 + DEPTH, p.N, end, b_next);
#pragma unroll
        for (int k = 0; k < Shape::RUN; ++k) {
            const int row = group * Shape::RUN + k;
            const Four a = *reinterpret_cast<const Four*>(a_tile + row * Shape::A_ROW + ti);
            const Four b = *reinterpret_cast<const Four*>(b_tile + row * Shape::B_ROW + tj);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] += a.v[i] * b.v[j];
            }
        }
    }

    // add up what the groups have found; from here on neighbouring threads have neighbouring columns
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) memory[group * BM * BN + (ti + i) * BN + tj + j] = sums[i][j];
    }
    __syncthreads();
    constexpr int ROUNDS = BM * BN / PRODUCT_THREADS;
    T* const parts = p.parts + tile * p.splits * BM * BN;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int e = threadIdx.x + PRODUCT_THREADS * round;
        T sum = memory[e];
#pragma unroll
        for (int g = 1; g < Shape::GROUPS; ++g) sum += memory[g * BM * BN + e];
        memory[e] = sum;  // read by this thread only
        if (p.splits > 1) parts[split * BM * BN + e] = sum;
    }
    if (p.splits > 1 && !is_last(p.arrived + tile, p.splits)) return false;
    // four at a time: what follows may be long, and is compiled once for each
#pragma unroll 4
    for (int round = 0; round < ROUNDS; ++round) {
        const int e = threadIdx.x + PRODUCT_THREADS * round;
        T sum = memory[e];
        if (p.splits > 1) {
            sum = from_elsewhere(parts + e);
            for (int s = 1; s < p.splits; ++s) sum += from_elsewhere(parts + s * BM * BN + e);
        }
        const long long i = i0 + e / BN, j = j0 + e % BN;
        if (i < p.M && j < p.N) finish(i, j, sum);
    }
    return true;
}
