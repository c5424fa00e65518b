// Matrix products of any size, tile by tile, with the work that follows a product done while its tile is on chip.
//
// Requires: scalar.cuh, memory.cuh. C (M, N) = A (M, K) @ B (K, N). A block of 256 threads computes one tile of C, or a
// part of its sum over k: tiles of small products are few, so the sum is split among `splits` blocks, and the last of
// them to arrive adds the parts, always in the same order. Inside a block the threads form groups; each group takes
// some of the k's that are on chip, each of its threads 4 x 4 elements of the tile.

// Elements along k that are on chip at once.
constexpr int DEPTH = 32;
constexpr int PRODUCT_THREADS = 256;

// What every product is told: its size, and how the sum over k is split.
struct Product {
    long long M, N, K;
    int splits;
    T* parts;           // (tiles, splits, BM * BN), if splits > 1
    unsigned* arrived;  // (tiles,) zeros, and zeros again afterwards
};

struct alignas(16) Four {
    T v[4];
};

// ---------------------------------------------------------------------------------------------- where factors lie

// A matrix with contiguous rows.
struct Rows {
    const T* at;
    long long stride;
    DEVICE_MEMBER const T* line(long long row) const { return at + row * stride; }
};

// Rows of a matrix by number.
struct Gathered {
    const T* at;
    long long stride;
    const long long* index;
    DEVICE_MEMBER const T* line(long long row) const { return at + index[row] * stride; }
};

// A factor as the product sees it: element (i, k). Either its lines are those of i, and k runs along them, or its lines
// are those of k, and i runs along them. With ONES there is one i more behind the line's end, all of whose elements
// are 1.
template <class Matrix, bool ALONG_K_, bool ONES_ = false> struct Factor {
    static constexpr bool ALONG_K = ALONG_K_;
    static constexpr bool ONES = ONES_;
    Matrix matrix;
    // Whether lines can be read sixteen bytes at a time.
    DEVICE_MEMBER bool is_packed() const { return is_aligned(matrix.at) && matrix.stride % LANES == 0; }
};

// A (B, DEPTH) part of a factor: in registers on its way, then in shared memory, whose rows are padded so that what a
// warp reads at once meets all banks.
template <int B, class F> struct Part {
    static constexpr int LINE = F::ALONG_K ? DEPTH : B;  // elements along a line
    static constexpr int ROW = LINE + 4;
    static constexpr int PACKS = LINE / LANES;
    static constexpr int ROUNDS = B * DEPTH / LANES / PRODUCT_THREADS;
    static constexpr int SIZE = (F::ALONG_K ? B : DEPTH) * ROW;

    const F& factor;
    long long first, size, end;  // the first i, and the ends of i and k
    bool packed;
    const T* lines[ROUNDS];
    Pack next[ROUNDS];

    DEVICE_MEMBER Part(const F& f, long long first_, long long size_, long long end_)
        : factor(f), first(first_), size(size_), end(end_), packed(f.is_packed()) {
        if (!F::ALONG_K) return;
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const long long i = first + line(round);
            lines[round] = i < size ? factor.matrix.line(i) : nullptr;
        }
    }

    // Which line, and which of its elements, this thread moves in a round: neighbouring lanes read neighbouring packs.
    DEVICE_MEMBER int line(int round) const { return (threadIdx.x + PRODUCT_THREADS * round) / PACKS; }
    DEVICE_MEMBER int column() const { return threadIdx.x % PACKS * LANES; }

    // Ask for the elements from k0 on; what lies outside the matrix is 0.
    DEVICE_MEMBER void read(long long k0) {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            long long from;
            const T* at;
            if (F::ALONG_K) {
                from = k0 + column();
                at = lines[round];
            } else {
                const long long k = k0 + line(round);
                from = first + column();
                at = k < end ? factor.matrix.line(k) : nullptr;
            }
            const long long stop = F::ALONG_K ? end : size - F::ONES;
            if (at != nullptr && packed && from + LANES <= stop) {
                next[round] = *reinterpret_cast<const Pack*>(at + from);
            } else {
#pragma unroll
                for (int c = 0; c < LANES; ++c) {
                    next[round].v[c] = at != nullptr && from + c < stop ? at[from + c] : T(0);
                    if (F::ONES && at != nullptr && from + c == stop) next[round].v[c] = T(1);
                }
            }
        }
    }

    DEVICE_MEMBER void write(T* tile) const {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            *reinterpret_cast<Pack*>(tile + line(round) * ROW + column()) = next[round];
        }
    }

    // Four i's of thread `rank` of a group at four k's. Where i runs along a line the four are neighbours, else they
    // are B / 4 apart, so that neighbouring threads read neighbouring lines.
    static DEVICE_MEMBER void fragment(const T* tile, int rank, int k, T (&f)[4][4]) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const Four four = *reinterpret_cast<const Four*>(
                F::ALONG_K ? tile + (rank + r * (B / 4)) * ROW + k : tile + (k + r) * ROW + rank * 4);
#pragma unroll
            for (int c = 0; c < 4; ++c) (F::ALONG_K ? f[r][c] : f[c][r]) = four.v[c];
        }
    }

    static DEVICE_MEMBER int place(int rank, int r) { return F::ALONG_K ? rank + r * (B / 4) : rank * 4 + r; }
};

// ---------------------------------------------------------------------------------------------- the product

template <int BM, int BN> struct Tile {
    static constexpr int GROUP = (BM / 4) * (BN / 4);  // threads
    static constexpr int GROUPS = PRODUCT_THREADS / GROUP;
    static constexpr int RUN = DEPTH / GROUPS;  // k's of a group at a time
    static constexpr int LINES = BM * (DEPTH + 4) > DEPTH * (BM + 4) ? BM * (DEPTH + 4) : DEPTH * (BM + 4);
    static constexpr int COLUMNS = BN * (DEPTH + 4) > DEPTH * (BN + 4) ? BN * (DEPTH + 4) : DEPTH * (BN + 4);
    static constexpr int SUMS = GROUPS * BM * BN;
    static constexpr int MEMORY = LINES + COLUMNS > SUMS ? LINES + COLUMNS : SUMS;
};

// Whether this block is the last of `count` to come here. All threads of the block get the answer.
DEVICE bool is_last(unsigned* arrived, long long count) {
    SHARED_ARRAY(int, last, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last[0] = atomicAdd(arrived, 1u) == static_cast<unsigned>(count) - 1;
        if (last[0]) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last[0];
}

// Elements of a tile that a thread finishes: LANES neighbours of a row in each round.
DEVICE int own_element(int round) { return (threadIdx.x + PRODUCT_THREADS * round) * LANES; }

// sums (ROUNDS,) = this thread's elements of the parts (splits, SIZE), added up in order. Several are asked for before
// the first is added: each takes as long to come as hundreds of additions.
template <int ROUNDS, int SIZE> DEVICE void add_parts(const T* parts, int splits, Pack (&sums)[ROUNDS]) {
    constexpr int AHEAD = 4;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) sums[round] = Pack{};
    for (int first = 0; first < splits; first += AHEAD) {
        Pack next[AHEAD][ROUNDS];
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
#pragma unroll
            for (int round = 0; round < ROUNDS; ++round) {
                next[s][round] = Pack{};
                if (first + s < splits) next[s][round] = pack_from_elsewhere(parts + (first + s) * SIZE + own_element(round));
            }
        }
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
#pragma unroll
            for (int round = 0; round < ROUNDS; ++round) {
#pragma unroll
                for (int k = 0; k < LANES; ++k) sums[round].v[k] += next[s][round].v[k];
            }
        }
    }
}

// Compute the tile with this number, split `split` of it. The block that finishes the tile calls
// finish(i, j, count, sums) for all of its elements, up to LANES neighbours of a row at a time, and returns true.
// A (M, K) by element (i, k), B (K, N) by element (j, k); memory (Tile<BM, BN>::MEMORY,) is shared by the block.
template <int BM, int BN, class FactorA, class FactorB, class Finish>
DEVICE bool multiply(T* memory, Product p, const FactorA& A, const FactorB& B, long long tile, int split,
                     Finish finish) {
    typedef Tile<BM, BN> Shape;
    typedef Part<BM, FactorA> PartA;
    typedef Part<BN, FactorB> PartB;
    T* const a_tile = memory;
    T* const b_tile = memory + Shape::LINES;
    const long long columns = (p.N + BN - 1) / BN;
    const long long i0 = tile / columns * BM, j0 = tile % columns * BN;
    const long long share = (p.K + p.splits * DEPTH - 1) / (p.splits * DEPTH) * DEPTH;
    const long long begin = split * share, end = begin + share < p.K ? begin + share : p.K;
    const int group = threadIdx.x / Shape::GROUP, rank = threadIdx.x % Shape::GROUP;
    const int ti = rank / (BN / 4), tj = rank % (BN / 4);

    T sums[4][4] = {};
    PartA a_part(A, i0, p.M, end);
    PartB b_part(B, j0, p.N, end);
    a_part.read(begin);
    b_part.read(begin);
    for (long long k0 = begin; k0 < end; k0 += DEPTH) {
        __syncthreads();  // the part before has been used
        a_part.write(a_tile);
        b_part.write(b_tile);
        __syncthreads();
        if (k0 + DEPTH < end) {  // the next part is on its way while this one is multiplied
            a_part.read(k0 + DEPTH);
            b_part.read(k0 + DEPTH);
        }
#pragma unroll
        for (int k = group * Shape::RUN; k < (group + 1) * Shape::RUN; k += 4) {
            T a[4][4], b[4][4];
            PartA::fragment(a_tile, ti, k, a);
            PartB::fragment(b_tile, tj, k, b);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) sums[i][j] += a[i][c] * b[j][c];
                }
            }
        }
    }

    // add up what the groups have found; from here on neighbouring threads have neighbouring columns
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            memory[group * BM * BN + PartA::place(ti, i) * BN + PartB::place(tj, j)] = sums[i][j];
        }
    }
    __syncthreads();
    constexpr int ROUNDS = BM * BN / PRODUCT_THREADS / LANES;
    T* const parts = p.parts + tile * p.splits * BM * BN;
    Pack found[ROUNDS];
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int e = own_element(round);
        found[round] = *reinterpret_cast<const Pack*>(memory + e);
#pragma unroll
        for (int g = 1; g < Shape::GROUPS; ++g) {
            const Pack more = *reinterpret_cast<const Pack*>(memory + g * BM * BN + e);
#pragma unroll
            for (int k = 0; k < LANES; ++k) found[round].v[k] += more.v[k];
        }
        if (p.splits > 1) *reinterpret_cast<Pack*>(parts + split * BM * BN + e) = found[round];
    }
    if (p.splits > 1) {
        if (!is_last(p.arrived + tile, p.splits)) return false;
        add_parts<ROUNDS, BM * BN>(parts, p.splits, found);
    }
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int e = own_element(round);
        const long long i = i0 + e / BN, j = j0 + e % BN;
        if (i < p.M && j < p.N) finish(i, j, p.N - j < LANES ? static_cast<int>(p.N - j) : LANES, found[round]);
    }
    return true;
}
