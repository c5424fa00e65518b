// What a product of cuBLAS reads: numbers of type T, numbers of 16 bits that stand for a float, or two planes of TF32
// whose sum is a float.
//
// Requires: scalar.cuh, memory.cuh; `Operand` is declared after this file: T, Bfloat16, Float16 or Tf32. Everything is
// computed in T; an operand is made when it is stored, rounded to the nearest, to the even one of two.

struct Bfloat16 {  // 8 bits of exponent, 7 of fraction: the upper half of a float
    unsigned short bits;
};
struct Float16 {  // 5 bits of exponent, 10 of fraction: 65504 at most
    unsigned short bits;
};
// A part of a float x. In the first plane of an array lies x rounded to what tensor cores read of a float: 8 bits of
// exponent, 10 of fraction, the other 13 are 0. In the second plane, so many numbers further on, lies the rest, exactly.
struct Tf32 {
    float part;
};

// What a product is written as where operands are of type E.
template <class E> struct ProductOf {
    typedef E type;
};
template <> struct ProductOf<Tf32> {
    typedef float type;
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

// Rounded to 10 bits of fraction, or cut off where that would give an infinity; 0 if x is not finite. So an infinity is
// its own rest, and the products of parts make of it what one product of floats would: the rest meets the first part of
// another number, which is 0 where that number is. Were it the first part, it would meet rests, which are 0 wherever ten
// bits are enough, and inf * 0 is NaN.
DEVICE float rounded_to_tf32(float x) {
    const unsigned exponent = 0x7f800000u, bits = static_cast<unsigned>(__float_as_int(x));
    if ((bits & exponent) == exponent) return 0.0f;
    unsigned rounded = bits + 0xfffu + (bits >> 13 & 1u);
    if ((rounded & exponent) == exponent) rounded = bits;
    return __int_as_float(static_cast<int>(rounded & ~0x1fffu));
}
DEVICE void split(float x, Tf32& high, Tf32& low) {
    high.part = rounded_to_tf32(x);
    low.part = __fsub_rn(x, high.part);  // never made one instruction with a multiplication before it
}

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

// Operands that are stored, and read again as numbers of type T. `plane` is the distance of the two planes, for what has
// two.
template <int V, class E> DEVICE void store_operands(E* p, long long, const T (&values)[V]) { store_run<V>(p, values); }
template <int V> DEVICE void store_operands(Tf32* p, long long plane, const float (&values)[V]) {
    Run<V, Tf32> high, low;
#pragma unroll
    for (int k = 0; k < V; ++k) split(values[k], high.v[k], low.v[k]);
    *reinterpret_cast<Run<V, Tf32>*>(p) = high;
    *reinterpret_cast<Run<V, Tf32>*>(p + plane) = low;
}

template <int V, class E> struct Operands {
    Run<V, E> run;
    DEVICE_MEMBER T number(int k) const { return wide_of(run.v[k]); }
};
template <int V> struct Operands<V, Tf32> {
    Run<V, Tf32> high, low;
    DEVICE_MEMBER float number(int k) const { return high.v[k].part + low.v[k].part; }
};

template <int V, class E> DEVICE Operands<V, E> operands_at(const E* p, long long) { return {run_at<V>(p)}; }
template <int V> DEVICE Operands<V, Tf32> operands_at(const Tf32* p, long long plane) {
    return {run_at<V>(p), run_at<V>(p + plane)};
}

// The same numbers if they are a product that was not split.
template <int V, class E> DEVICE Operands<V, E> product_at(const E* p) { return {run_at<V>(p)}; }
template <int V> DEVICE Operands<V, Tf32> product_at(const Tf32* p) {
    Operands<V, Tf32> found = {run_at<V>(p), {}};
    return found;
}

// Single operands from p on, by number in brackets, for round_to.
struct TwoPlanes {
    Tf32* p;
    long long plane;
    struct Number {
        Tf32* p;
        long long plane;
    };
    DEVICE_MEMBER Number operator[](long long j) const { return {p + j, plane}; }
};
DEVICE void round_to(TwoPlanes::Number out, float x) { split(x, *out.p, out.p[out.plane]); }
template <class E> DEVICE E* single_operands(E* p, long long) { return p; }
DEVICE TwoPlanes single_operands(Tf32* p, long long plane) { return {p, plane}; }
