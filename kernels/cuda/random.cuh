// Random fields: raw bits and dropout masks.
//
// Requires: scalar.cuh, memory.cuh, philox.cuh. A thread owns four consecutive elements at a time, which are the four
// words of one Philox call. The bits of an element depend on its position only, so any launch gives the same field.

struct alignas(16) Quad {
    T v[4];
};

// out (p,)
extern "C" __global__ void random_bits(
    unsigned int* out, long long p, unsigned int key0, unsigned int key1, unsigned int layer, unsigned int step,
    unsigned int purpose) {
    const Stream stream = {key0, key1, layer, step, purpose};
    const bool aligned = is_aligned(out);
    for (long long block = grid_index(); 4 * block < p; block += grid_size()) {
        const Words words = words_of_block(stream, block);
        if (aligned && 4 * block + 4 <= p) {
            reinterpret_cast<Words*>(out)[block] = words;
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (4 * block + k < p) out[4 * block + k] = words.w[k];
            }
        }
    }
}

// mask (p,): 0 where the bits are below `threshold`, else `kept`
extern "C" __global__ void dropout_mask(
    T* mask, long long p, unsigned int threshold, T kept, unsigned int key0, unsigned int key1, unsigned int layer,
    unsigned int step, unsigned int purpose) {
    const Stream stream = {key0, key1, layer, step, purpose};
    const bool aligned = is_aligned(mask);
    for (long long block = grid_index(); 4 * block < p; block += grid_size()) {
        const Words words = words_of_block(stream, block);
        Quad quad;
#pragma unroll
        for (int k = 0; k < 4; ++k) quad.v[k] = words.w[k] < threshold ? T(0) : kept;
        if (aligned && 4 * block + 4 <= p) {
            reinterpret_cast<Quad*>(mask)[block] = quad;
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (4 * block + k < p) mask[4 * block + k] = quad.v[k];
            }
        }
    }
}

// mask (p,): the elements from `first` on of a longer mask
extern "C" __global__ void dropout_part(
    T* mask, long long first, long long p, unsigned int threshold, T kept, unsigned int key0, unsigned int key1,
    unsigned int layer, unsigned int step, unsigned int purpose) {
    const Stream stream = {key0, key1, layer, step, purpose};
    for (long long block = first / 4 + grid_index(); 4 * block < first + p; block += grid_size()) {
        const Words words = words_of_block(stream, block);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const long long element = 4 * block + k - first;
            if (element >= 0 && element < p) mask[element] = words.w[k] < threshold ? T(0) : kept;
        }
    }
}
