// Rows of a matrix by number.
//
// Requires: scalar.cuh. Bits are copied as they are, so one kernel a word size serves every dtype; a row is counted in
// words of 4, 8 or 16 bytes.

struct alignas(16) Word16 {
    unsigned long long half[2];
};

DEVICE void fill_ones(unsigned int& word) { word = ~0u; }
DEVICE void fill_ones(unsigned long long& word) { word = ~0ull; }
DEVICE void fill_ones(Word16& word) { word.half[0] = word.half[1] = ~0ull; }

// X (p, words), index (m,), out (m, words). A thread owns one column of words and every (gridDim.y * blockDim.y)-th
// row. A number outside 0 ... p - 1 reads nothing and fills the row with one bits: NaN in a float, -1 in an int.
template <class Word>
DEVICE void take(const Word* X, const long long* index, Word* out, long long p, long long m, long long words) {
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    const long long rows = static_cast<long long>(gridDim.y) * blockDim.y;
    for (long long j = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; j < words; j += step) {
        for (long long i = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; i < m; i += rows) {
            const long long row = index[i];
            Word word;
            if (row >= 0 && row < p) {
                word = X[row * words + j];
            } else {
                fill_ones(word);
            }
            out[i * words + j] = word;
        }
    }
}

// X (p, words), index (m,), out (m, words)
extern "C" __global__ void take_rows_4(
    const unsigned int* X, const long long* index, unsigned int* out, long long p, long long m, long long words) {
    take(X, index, out, p, m, words);
}
extern "C" __global__ void take_rows_8(
    const unsigned long long* X, const long long* index, unsigned long long* out, long long p, long long m,
    long long words) {
    take(X, index, out, p, m, words);
}
// X and out must be multiples of 16.
extern "C" __global__ void take_rows_16(
    const Word16* X, const long long* index, Word16* out, long long p, long long m, long long words) {
    take(X, index, out, p, m, words);
}
