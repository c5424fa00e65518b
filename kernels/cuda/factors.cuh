// The factors of a product: where their elements lie, and how a part of one comes on chip.
//
// Requires: scalar.cuh, memory.cuh, cluster.cuh.

// Elements along k that a stage of the product holds.
constexpr int DEPTH = 32;
constexpr int PRODUCT_THREADS = 256;

struct alignas(16) Four {
    T v[4];
};

// A matrix with contiguous rows, or some of them by number.
struct Rows {
    const T* at;
    long long stride;
    const long long* index;  // nullptr: all of them, in order
    DEVICE_MEMBER const T* line(long long row) const { return at + (index ? index[row] : row) * stride; }
};

// A factor as the product sees it: element (i, k). Either its lines are those of i, and k runs along them, or its lines
// are those of k, and i runs along them. With ONES there is one i more behind the line's end, all of whose elements
// are 1.
template <bool ALONG_K_, bool ONES_ = false> struct Factor {
    static constexpr bool ALONG_K = ALONG_K_;
    static constexpr bool ONES = ONES_;
    Rows matrix;
    // Whether lines can be read sixteen bytes at a time.
    DEVICE_MEMBER bool is_packed() const { return is_aligned(matrix.at) && matrix.stride % LANES == 0; }
};

// Begin to copy a pack of which only `inside` elements exist; 0 stands for the others, but 1 for the first if `one`.
// The rare case, so its instructions are kept apart.
static __device__ __noinline__ void copy_ragged(T* to, const T* from, int inside, bool one) {
#pragma unroll
    for (int c = 0; c < LANES; ++c) {
        if (c < inside) {
            copy_later<sizeof(T)>(to + c, from + c);
        } else {
            to[c] = T(one && c == inside);
        }
    }
}

// (B, DEPTH) elements of a factor in shared memory, in the order of their lines. Lines are padded so that what a warp
// reads at once meets all banks. The block fills it by copies that do not wait, and a thread takes R of its i's.
template <int B, int R, class F> struct Part {
    static constexpr bool ALONG_K = F::ALONG_K;
    static constexpr int LINE = ALONG_K ? DEPTH : B;  // elements along a line
    static constexpr int ROW = LINE + 4;
    static constexpr int PACKS = LINE / LANES;
    static constexpr int ROUNDS = B * DEPTH / LANES / PRODUCT_THREADS;
    typedef const T* Packs[ROUNDS];  // where those lie that this thread moves

    const F& factor;
    long long first;  // i
    int size;         // i's from there on, the ones among them; one more than B tells that these are elsewhere
    bool packed;
    T* mine;                // where this thread's first pack of the first stage comes
    SharedAddress address;  // the same, computed once
    Packs along;            // those at k = 0, if k runs along the lines

    DEVICE_MEMBER Part(const F& f, long long first_, long long end, T* first_stage)
        : factor(f),
          first(first_),
          size(end - first < B + F::ONES ? static_cast<int>(end - first) : B + F::ONES),
          packed(f.is_packed()),
          mine(first_stage + line(0) * ROW + column()),
          address(computed(shared_address(mine))) {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            if (ALONG_K) along[round] = line(round) < size ? factor.matrix.line(first + line(round)) + column() : nullptr;
        }
    }

    // Which line, and which of its elements, this thread moves in a round: neighbouring lanes move neighbouring packs.
    static DEVICE_MEMBER int line(int round) { return (threadIdx.x + PRODUCT_THREADS * round) / PACKS; }
    static DEVICE_MEMBER int column() { return threadIdx.x % PACKS * LANES; }

    // Where the packs of a stage lie that begins with k0, with `left` k's from there on. Apart from the copies, since a
    // row's number takes as long to come.
    DEVICE_MEMBER void find(long long k0, int left, Packs& packs) const {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            packs[round] = ALONG_K                 ? along[round] + k0
                           : line(round) < left ? factor.matrix.line(k0 + line(round)) + (first + column())
                                                  : nullptr;
        }
    }

    // Begin to copy them, so many elements behind the first stage; what lies outside the matrix is 0.
    DEVICE_MEMBER void begin(int left, const Packs& packs, int behind) const {
        // elements of a pack
        const int inside = (ALONG_K ? left : size - F::ONES) - column();
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const bool exists = line(round) < (ALONG_K ? size : left);
            const bool whole = exists && inside >= LANES, none = !exists || inside + F::ONES <= 0;
            const int to = behind + round * (PRODUCT_THREADS / PACKS) * ROW;
            if (packed && (whole || none)) {
                copy_later_if(whole, address + to * static_cast<int>(sizeof(T)), packs[round]);
            } else {
                copy_ragged(mine + to, packs[round], exists ? inside : 0, F::ONES && exists);
            }
        }
    }

    // The i's of thread `rank` of B / R at four k's. Where i runs along a line they are fours of neighbours, else they
    // are B / R apart, so that neighbouring threads read neighbouring lines.
    static DEVICE_MEMBER void fragment(const T* tile, int rank, int k, T (&f)[R][4]) {
#pragma unroll
        for (int q = 0; q < R; ++q) {
            const Four four = *reinterpret_cast<const Four*>(
                ALONG_K ? tile + place(rank, q) * ROW + k : tile + (k + q % 4) * ROW + place(rank, q / 4 * 4));
#pragma unroll
            for (int c = 0; c < 4; ++c) (ALONG_K ? f[q][c] : f[q / 4 * 4 + c][q % 4]) = four.v[c];
        }
    }

    // Where the r-th i of a thread is.
    static DEVICE_MEMBER int place(int rank, int r) {
        return ALONG_K ? rank + r * (B / R) : r / 4 * (4 * B / R) + rank * 4 + r % 4;
    }
};
