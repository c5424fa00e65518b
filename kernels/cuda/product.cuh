// Matrix products of any size, tile by tile, with the work that follows a product done while its tile is on chip.
//
// Requires: scalar.cuh, memory.cuh, cluster.cuh, factors.cuh, and the constant TOGETHER. C (M, N) = A (M, K) @ B (K, N).
// A block of 256 threads computes one tile of C, or a part of its sum over k: tiles of small products are few, so the
// sum is split among `splits` blocks. If these are a cluster, TOGETHER is their number, and each finishes some rows of
// the tile, reading what the others have in their shared memory. Else TOGETHER is 1; the parts go through memory, and the
// last block to arrive finishes the tile. The parts are always added in the same order.
//
// A product that small is a chain of waits: for the first elements, for one another. So the copies of several stages of
// DEPTH k's are on their way at once. The threads of a block form groups; each takes some of the k's of a stage, and
// each of its threads RM x RN elements of the tile, for which it reads RM + RN numbers a k.

constexpr int RM = 8, RN = 4;
constexpr int WARP_I = 4, WARP_J = 8;  // how the threads of a warp lie
// Stages, and how many blocks a multiprocessor should hold: 74 KB of shared memory and 128 registers, if the
// numbers have four bytes.
constexpr int STAGES = sizeof(T) == 4 ? 4 : 2;
constexpr int BLOCKS_AT_ONCE = sizeof(T) == 4 ? 2 : 1;

// What every product is told: its size, and how the sum over k is split.
struct Product {
    long long M, N, K;
    int splits;
    T* parts;           // (tiles, splits, BM * BN), if they go through memory
    unsigned* arrived;  // (tiles,) zeros, and zeros again afterwards
};

template <int BM, int BN> struct Tile {
    static constexpr int GROUP = (BM / RM) * (BN / RN);  // threads
    static constexpr int GROUPS = PRODUCT_THREADS / GROUP;
    static constexpr int RUN = DEPTH / GROUPS;  // k's of a group in a stage
    static constexpr int LINES = BM * (DEPTH + 4) > DEPTH * (BM + 4) ? BM * (DEPTH + 4) : DEPTH * (BM + 4);
    static constexpr int COLUMNS = BN * (DEPTH + 4) > DEPTH * (BN + 4) ? BN * (DEPTH + 4) : DEPTH * (BN + 4);
    static constexpr int STAGE = LINES + COLUMNS;
    static constexpr int PITCH = BN + 8;  // of a row of sums: the rows of a warp meet different banks
    static constexpr int SUMS = BM * PITCH;
    static constexpr int MEMORY = STAGES * STAGE > GROUPS / 2 * SUMS ? STAGES * STAGE : GROUPS / 2 * SUMS;
    static constexpr int ROWS = BM / TOGETHER;  // that a block finishes
    static_assert(GROUPS >= 2, "the groups of a block hand over their sums in halves");
    static constexpr int TEAM = PRODUCT_THREADS / ROWS < 32 ? PRODUCT_THREADS / ROWS : 32;  // threads for one of them
    // The first of these rows within the tile.
    static DEVICE_MEMBER int first_row(int split) { return TOGETHER > 1 ? split * ROWS : 0; }
    // Elements that a thread finishes: LANES neighbours of a row in each round. The first of these.
    static constexpr int ROUNDS = (ROWS * BN + PRODUCT_THREADS * LANES - 1) / (PRODUCT_THREADS * LANES);
    static DEVICE_MEMBER int own_element(int round) { return (threadIdx.x + PRODUCT_THREADS * round) * LANES; }
};

// The number of this block, counting only those that finish rows of a tile.
DEVICE long long finisher(int splits) { return TOGETHER > 1 ? blockIdx.x : blockIdx.x / splits; }

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

DEVICE void add_to(Pack& sums, const Pack& more) {
#pragma unroll
    for (int k = 0; k < LANES; ++k) sums.v[k] += more.v[k];
}

// sums (ROUNDS,) = this thread's elements of the parts (splits, BM * BN), added up in order. Several are asked for
// before the first is added: each takes as long to come as hundreds of additions.
template <int BM, int BN> DEVICE void add_parts(const T* parts, int splits, Pack (&sums)[Tile<BM, BN>::ROUNDS]) {
    typedef Tile<BM, BN> Shape;
    constexpr int AHEAD = 4;
#pragma unroll
    for (int round = 0; round < Shape::ROUNDS; ++round) sums[round] = Pack{};
    for (int first = 0; first < splits; first += AHEAD) {
        Pack next[AHEAD][Shape::ROUNDS];
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
#pragma unroll
            for (int round = 0; round < Shape::ROUNDS; ++round) {
                next[s][round] = Pack{};
                if (first + s < splits) {
                    next[s][round] = pack_from_elsewhere(parts + (first + s) * BM * BN + Shape::own_element(round));
                }
            }
        }
#pragma unroll
        for (int s = 0; s < AHEAD; ++s) {
#pragma unroll
            for (int round = 0; round < Shape::ROUNDS; ++round) add_to(sums[round], next[s][round]);
        }
    }
}

// The sums of one thread: C[i, j] of its tile over this block's and this group's k's.
template <int BM, int BN, class PartA, class PartB> struct Sums {
    typedef Tile<BM, BN> Shape;
    int group, ti, tj;
    T of[RM][RN];

    DEVICE_MEMBER Sums() : of{} {
        constexpr int WARPS_J = BN / RN / WARP_J;
        const int rank = threadIdx.x % Shape::GROUP, warp = rank / 32, lane = rank % 32;
        group = threadIdx.x / Shape::GROUP;
        ti = warp / WARPS_J * WARP_I + lane / WARP_J;
        tj = warp % WARPS_J * WARP_J + lane % WARP_J;
    }

    DEVICE_MEMBER void multiply(const T* a_tile, const T* b_tile) {
#pragma unroll
        for (int k = 0; k < Shape::RUN; k += 4) {
            T a[RM][4], b[RN][4];
            PartA::fragment(a_tile, ti, group * Shape::RUN + k, a);
            PartB::fragment(b_tile, tj, group * Shape::RUN + k, b);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
#pragma unroll
                for (int i = 0; i < RM; ++i) {
#pragma unroll
                    for (int j = 0; j < RN; ++j) of[i][j] += a[i][c] * b[j][c];
                }
            }
        }
    }

    // tile (BM, PITCH) = these sums, or is increased by them.
    DEVICE_MEMBER void store(T* tile, bool add) const {
#pragma unroll
        for (int i = 0; i < RM; ++i) {
            T* const row = tile + PartA::place(ti, i) * Shape::PITCH;
            if (PartB::ALONG_K) {
#pragma unroll
                for (int j = 0; j < RN; ++j) {
                    T& at = row[PartB::place(tj, j)];
                    at = add ? at + of[i][j] : of[i][j];
                }
            } else {
                Four& at = *reinterpret_cast<Four*>(row + PartB::place(tj, 0));
                Four four = add ? at : Four{};
#pragma unroll
                for (int j = 0; j < RN; ++j) four.v[j] += of[i][j];
                at = four;
            }
        }
    }

    // memory (GROUPS / 2, BM, PITCH) = sums of two groups each; all threads call.
    DEVICE_MEMBER void hand_over(T* memory) const {
        constexpr int HALF = Shape::GROUPS / 2;
        __syncthreads();  // the last stage has been used
        if (group >= HALF) store(memory + (group - HALF) * Shape::SUMS, false);
        __syncthreads();
        if (group < HALF) store(memory + group * Shape::SUMS, true);
        __syncthreads();
    }
};

// Compute the tile with this number, split `split` of it. A block that finishes rows of the tile calls
// finish(i, j, count, sums) for all of their elements, up to LANES neighbours of a row at a time, and returns true.
// A (M, K) by element (i, k), B (K, N) by element (j, k); memory (Tile<BM, BN>::MEMORY,) is shared by the block.
template <int BM, int BN, class FactorA, class FactorB, class Finish>
DEVICE bool multiply(T* memory, Product p, const FactorA& A, const FactorB& B, long long tile, int split,
                     Finish finish) {
    typedef Tile<BM, BN> Shape;
    typedef Part<BM, RM, FactorA> PartA;
    typedef Part<BN, RN, FactorB> PartB;
    const long long columns = (p.N + BN - 1) / BN;
    const long long i0 = tile / columns * BM, j0 = tile % columns * BN;
    const long long share = (p.K + p.splits * DEPTH - 1) / (p.splits * DEPTH) * DEPTH;
    const long long begin = split * share;
    const int terms = p.K <= begin ? 0 : static_cast<int>(p.K - begin < share ? p.K - begin : share);

    // STAGES - 1 stages are on their way before the first is used. That they begin in the same loop keeps the kernel
    // short: instructions have to come, too. Those of B begin first, because the lines of A may be rows by number.
    const PartB b_part(B, j0, p.N, memory + Shape::LINES);
    const PartA a_part(A, i0, p.M, memory);
    typename PartA::Packs a_packs;
    typename PartB::Packs b_packs;
    b_part.find(begin, terms, b_packs);
    a_part.find(begin, terms, a_packs);
    follow();  // up to here nothing was read that another kernel of the step writes
    Sums<BM, BN, PartA, PartB> sums;
    int filled = 0, used = 0;  // where the stage lies that is begun, and the one that is used
    for (int k = -(STAGES - 1) * DEPTH; k < terms; k += DEPTH) {
        if (k >= 0) {
            wait_for_copies<STAGES - 2>();
            __syncthreads();  // this stage is there for all, and the one before has been used by all
        }
        const int next = k + (STAGES - 1) * DEPTH, left = terms - next;
        if (left > 0) {
            b_part.begin(left, b_packs, filled);
            a_part.begin(left, a_packs, filled);
            b_part.find(begin + next + DEPTH, left - DEPTH, b_packs);
            a_part.find(begin + next + DEPTH, left - DEPTH, a_packs);
            filled = filled < (STAGES - 1) * Shape::STAGE ? filled + Shape::STAGE : 0;
        }
        commit_copies();
        if (k < 0) continue;
        sums.multiply(memory + used, memory + used + Shape::LINES);
        used = used < (STAGES - 1) * Shape::STAGE ? used + Shape::STAGE : 0;
    }

    // add up what the groups have found; from here on neighbouring threads have neighbouring columns
    sums.hand_over(memory);
    Pack found[Shape::ROUNDS];
    const auto add_groups = [&](int e) {
        const T* at = memory + e / BN * Shape::PITCH + e % BN;
        Pack sum = *reinterpret_cast<const Pack*>(at);
#pragma unroll
        for (int g = 1; g < Shape::GROUPS / 2; ++g) add_to(sum, *reinterpret_cast<const Pack*>(at + g * Shape::SUMS));
        return sum;
    };
    if constexpr (TOGETHER > 1) {
#pragma unroll
        for (int round = 0; round < BM * BN / (PRODUCT_THREADS * LANES); ++round) {
            const int e = Shape::own_element(round);
            *reinterpret_cast<Pack*>(memory + e / BN * Shape::PITCH + e % BN) = add_groups(e);
        }
        cluster_arrive();
        cluster_wait();
#pragma unroll
        for (int round = 0; round < Shape::ROUNDS; ++round) {
            const int e = Shape::first_row(split) * BN + Shape::own_element(round);
            found[round] = Pack{};
            if (Shape::own_element(round) >= Shape::ROWS * BN) continue;
#pragma unroll
            for (int s = 0; s < TOGETHER; ++s) {
                const T* at = in_block(memory, s) + e / BN * Shape::PITCH + e % BN;
                add_to(found[round], *reinterpret_cast<const Pack*>(at));
            }
        }
        cluster_arrive();
    } else {
        T* const parts = p.parts + tile * p.splits * BM * BN;
#pragma unroll
        for (int round = 0; round < Shape::ROUNDS; ++round) {
            const int e = Shape::own_element(round);
            found[round] = add_groups(e);
            if (p.splits > 1) *reinterpret_cast<Pack*>(parts + split * BM * BN + e) = found[round];
        }
        if (p.splits > 1) {
            if (!is_last(p.arrived + tile, p.splits)) return false;
            add_parts<BM, BN>(parts, p.splits, found);
        }
    }
#pragma unroll
    for (int round = 0; round < Shape::ROUNDS; ++round) {
        const int e = Shape::own_element(round);
        const long long i = i0 + Shape::first_row(split) + e / BN, j = j0 + e % BN;
        if (e >= Shape::ROWS * BN || i >= p.M || j >= p.N) continue;
        finish(i, j, p.N - j < LANES ? static_cast<int>(p.N - j) : LANES, found[round]);
    }
    if constexpr (TOGETHER > 1) cluster_wait();  // nobody leaves while its sums are read
    return true;
}
