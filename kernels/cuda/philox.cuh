// Philox4x32-10: four random words from a 128-bit counter and a 64-bit key (Salmon et al., SC 2011).
//
// Requires: scalar.cuh. Bit for bit the generator of bpcore/random.py, where the meaning of the counter is laid down.

struct alignas(16) Words {
    unsigned int w[4];
};

DEVICE Words philox4x32(Words c, unsigned int key0, unsigned int key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned int high0 = __umulhi(0xD2511F53u, c.w[0]), low0 = 0xD2511F53u * c.w[0];
        const unsigned int high1 = __umulhi(0xCD9E8D57u, c.w[2]), low1 = 0xCD9E8D57u * c.w[2];
        c = Words{{high1 ^ c.w[1] ^ key0, low1, high0 ^ c.w[3] ^ key1, low0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// What the words of one field are for.
struct Stream {
    unsigned int key0, key1;  // seed, low and high 32 bits
    unsigned int layer;       // 16 bits
    unsigned int step;        // low 32 bits of the step
    unsigned int purpose;     // purpose << 24 | high 24 bits of the step
};

// The words of the positions 4 * block ... 4 * block + 3.
DEVICE Words words_of_block(Stream s, long long block) {
    const unsigned int low = static_cast<unsigned int>(block);
    const unsigned int high = static_cast<unsigned int>(block >> 32);
    return philox4x32(Words{{low, s.layer << 16 | high, s.step, s.purpose}}, s.key0, s.key1);
}
