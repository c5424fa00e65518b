// Scalar functions that printed formulas call, for float and double.
//
// Requires: nothing. Formulas are printed over a type T (float or double) with calls such as exp_(x) or max_(a, b);
// the overloads below choose the right function of the CUDA math library. Compiled without fast-math: infinities,
// NaN and subnormal numbers mean what they mean on the CPU.

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

DEVICE float infinity_(float) { return __int_as_float(0x7f800000); }
DEVICE double infinity_(double) { return __longlong_as_double(0x7ff0000000000000LL); }

DEVICE float exp_(float x) { return expf(x); }
DEVICE double exp_(double x) { return exp(x); }
DEVICE float expm1_(float x) { return expm1f(x); }
DEVICE double expm1_(double x) { return expm1(x); }
DEVICE float log_(float x) { return logf(x); }
DEVICE double log_(double x) { return log(x); }
DEVICE float log1p_(float x) { return log1pf(x); }
DEVICE double log1p_(double x) { return log1p(x); }
DEVICE float sqrt_(float x) { return sqrtf(x); }
DEVICE double sqrt_(double x) { return sqrt(x); }
DEVICE float abs_(float x) { return fabsf(x); }
DEVICE double abs_(double x) { return fabs(x); }
DEVICE float tanh_(float x) { return tanhf(x); }
DEVICE double tanh_(double x) { return tanh(x); }
DEVICE float sin_(float x) { return sinf(x); }
DEVICE double sin_(double x) { return sin(x); }
DEVICE float cos_(float x) { return cosf(x); }
DEVICE double cos_(double x) { return cos(x); }
DEVICE float erf_(float x) { return erff(x); }
DEVICE double erf_(double x) { return erf(x); }
DEVICE float erfc_(float x) { return erfcf(x); }
DEVICE double erfc_(double x) { return erfc(x); }
DEVICE float pow_(float x, float y) { return powf(x, y); }
DEVICE double pow_(double x, double y) { return pow(x, y); }

template <class S> DEVICE S square_(S x) { return x * x; }
template <class S> DEVICE S cube_(S x) { return x * x * x; }

// sign(NaN) is NaN and sign(-0.0) is -0.0: what is neither positive nor negative is its own sign.
template <class S> DEVICE S sign_(S x) { return x > S(0) ? S(1) : x < S(0) ? S(-1) : x; }

// A NaN on either side is the result: when a is NaN the second test holds, when b is NaN the first one fails.
template <class S> DEVICE S min_(S a, S b) { return a < b || a != a ? a : b; }
template <class S> DEVICE S max_(S a, S b) { return a > b || a != a ? a : b; }

// exp(-x) overflows to infinity for very negative x, and 1 / infinity is the limit, 0.
template <class S> DEVICE S sigmoid_(S x) { return S(1) / (S(1) + exp_(-x)); }
template <class S> DEVICE S softplus_(S x) { return max_(x, S(0)) + log1p_(exp_(-abs_(x))); }

// False for NaN and both infinities.
template <class S> DEVICE bool finite_(S x) { return x - x == S(0); }
