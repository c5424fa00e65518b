// The factors of a product: where their elements lie, and how a part of one comes on chip.
//
// Requires: scalar.cuh, memory.cuh, cluster.cuh.

// Elements along k that a stage of the product holds.
constexpr int DEPTH = 32;
constexpr int PRODUCT_THREADS = 256;

struct alignas(16) Four {
    T v[4];
};

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

// (B, DEPTH) elements of a factor in shared memory, in the order of their lines. Lines are padded so that what a warp
// reads at once meets all banks. The block fills it by copies that do not wait, and a thread takes R of its i's.
template <int B, int R, class F> struct Part {
    static constexpr bool ALONG_K = F::ALONG_K;
    static constexpr int LINE = F::ALONG_K ? DEPTH : B;  // elements along a line
    static constexpr int ROW = LINE + 4;
    static constexpr int PACKS = LINE / LANES;
    static constexpr int ROUNDS = B * DEPTH / LANES / PRODUCT_THREADS;
    typedef const T* Lines[ROUNDS];  // those of which this thread moves a pack, nullptr for one outside

    const F& factor;
    long long first, size, end;  // the first i, and the ends of i and k
    bool packed;
    Lines fixed;  // if k runs along them

    DEVICE_MEMBER Part(const F& f, long long first_, long long size_, long long end_)
        : factor(f), first(first_), size(size_), end(end_), packed(f.is_packed()) {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const long long i = first + line(round);
            if (F::ALONG_K) fixed[round] = i < size ? factor.matrix.line(i) : nullptr;
        }
    }

    // Which line, and which of its elements, this thread moves in a round: neighbouring lanes move neighbouring packs.
    static DEVICE_MEMBER int line(int round) { return (threadIdx.x + PRODUCT_THREADS * round) / PACKS; }
    static DEVICE_MEMBER int column() { return threadIdx.x % PACKS * LANES; }

    // The lines of the elements from k0 on. Apart from the copies, since a number of a row takes as long to come.
    DEVICE_MEMBER void find(long long k0, Lines& lines) const {
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const long long k = k0 + line(round);
            lines[round] = F::ALONG_K ? fixed[round] : k < end ? factor.matrix.line(k) : nullptr;
        }
    }

    // Begin to copy the elements from k0 on; what lies outside the matrix is 0.
    DEVICE_MEMBER void begin(long long k0, const Lines& lines, T* tile) const {
        const long long from = F::ALONG_K ? k0 + column() : first + column();
        const long long stop = F::ALONG_K ? end : size - F::ONES;
#pragma unroll
        for (int round = 0; round < ROUNDS; ++round) {
            const T* at = lines[round];
            T* to = tile + line(round) * ROW + column();
            if (at != nullptr && packed && from + LANES <= stop) {
                copy_later<16>(to, at + from);
                continue;
            }
#pragma unroll
            for (int c = 0; c < LANES; ++c) {
                if (at != nullptr && from + c < stop) {
                    copy_later<sizeof(T)>(to + c, at + from + c);
                } else {
                    to[c] = T(F::ONES && at != nullptr && from + c == stop);
                }
            }
        }
    }

    // The i's of thread `rank` of B / R at four k's. Where i runs along a line they are fours of neighbours, else they
    // are B / R apart, so that neighbouring threads read neighbouring lines.
    static DEVICE_MEMBER void fragment(const T* tile, int rank, int k, T (&f)[R][4]) {
#pragma unroll
        for (int q = 0; q < R; ++q) {
            const Four four = *reinterpret_cast<const Four*>(
                F::ALONG_K ? tile + place(rank, q) * ROW + k : tile + (k + q % 4) * ROW + place(rank, q / 4 * 4));
#pragma unroll
            for (int c = 0; c < 4; ++c) (F::ALONG_K ? f[q][c] : f[q / 4 * 4 + c][q % 4]) = four.v[c];
        }
    }

    // Where the r-th i of a thread is.
    static DEVICE_MEMBER int place(int rank, int r) {
        return F::ALONG_K ? rank + r * (B / R) : r / 4 * (4 * B / R) + rank * 4 + r % 4;
    }
};
