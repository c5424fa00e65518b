// What a product of cuBLAS reads: numbers of type T, or of 16 bits that stand for a float.
//
// Requires: scalar.cuh, memory.cuh; `Operand` is declared after this file: T, Bfloat16 or Float16. Everything is
// computed in T; a number of 16 bits is made when it is stored, rounded to the nearest, to the even one of two.

struct Bfloat16 {  // 8 bits of exponent, 7 of fraction: the upper half of a float
    unsigned short bits;
};
struct Float16 {  // 5 bits of exponent, 10 of fraction: 65504 at most
    unsigned short bits;
};

// The conversions as instructions. The header that runs these sources on a CPU has its own.
#ifndef HOST_CONVERSIONS
DEVICE unsigned short bits_of_bfloat16(float x) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE unsigned short bits_of_float16(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
DEVICE float float_of_float16(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
#endif

DEVICE float wide_of(float x) { return x; }
DEVICE double wide_of(double x) { return x; }
DEVICE float wide_of(Bfloat16 x) { return __int_as_float(static_cast<int>(static_cast<unsigned>(x.bits) << 16)); }
DEVICE float wide_of(Float16 x) { return float_of_float16(x.bits); }

DEVICE void round_to(float& out, float x) { out = x; }
DEVICE void round_to(double& out, double x) { out = x; }
DEVICE void round_to(Bfloat16& out, float x) { out.bits = bits_of_bfloat16(x); }
DEVICE void round_to(Float16& out, float x) { out.bits = bits_of_float16(x); }

// V neighbours, moved at once; the address is a multiple of their size.
template <int V, class E> struct alignas(V * sizeof(E)) Run {
    E v[V];
};

template <int V, class E> DEVICE Run<V, E> run_at(const E* p) { return *reinterpret_cast<const Run<V, E>*>(p); }

template <int V, class E> DEVICE void store_run(E* p, const T (&values)[V]) {
    Run<V, E> run;
#pragma unroll
    for (int k = 0; k < V; ++k) round_to(run.v[k], values[k]);
    *reinterpret_cast<Run<V, E>*>(p) = run;
}

// Whether runs of V can be moved from and to p on.
template <int V, class E> DEVICE bool takes_runs(const E* p) {
    return reinterpret_cast<unsigned long long>(p) % (V * sizeof(E)) == 0;
}
