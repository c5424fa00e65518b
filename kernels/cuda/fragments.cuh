// The matrix units: products of 16 x 16 by 16 x 8 numbers of bfloat16, added up in float, by the 32 lanes of a warp.
//
// Requires: scalar.cuh, cluster.cuh. Needs compute capability 8.0. The header that runs these sources on a CPU has
// functions of the same names. With g = lane / 4 and t = lane % 4, a lane holds of
//   a (16, 16)  [0] row g, columns 2t and 2t + 1; [1] row g + 8; [2] row g, columns 2t + 8, 2t + 9; [3] row g + 8, these
//   b (16, 8)   [0] column g, rows 2t and 2t + 1; [1] column g, rows 2t + 8 and 2t + 9
//   c (16, 8)   [0], [1] row g, columns 2t and 2t + 1; [2], [3] row g + 8
// the number with the lower index in the lower half of a word. So two neighbouring c, rounded, are one a: what a product
// gives is what the next product takes, in the same registers.

#ifndef HOST_FRAGMENTS
// Four matrices of 8 x 8 from shared memory; lane i gives where row i % 8 of matrix i / 8 begins, 16 bytes that are
// aligned. A lane gets row g, columns 2t and 2t + 1 of each matrix, or of its transpose.
template <bool TRANSPOSED> DEVICE void load_fragments(unsigned (&r)[4], SharedAddress row) {
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row));
    }
}

// c += a b. Volatile: all lanes have to take part, so it must not be moved into a branch of some.
DEVICE void multiply_fragments(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers, rounded to the nearest, to the even one of two.
DEVICE unsigned pair_of_bfloat16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif
