// What the .cuh sources need to run on a CPU, on the fibers of host.cpp.
//
// For tests only; include before the sources and compile with g++ on Linux. Each kernel that a test prints is a text of
// its own that is built with this header, so it stays short and leaves the C++ library to host.cpp.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __cluster_dims__(x, y, z)
#define DYNAMIC_SHARED(name) unsigned char* const name = host::dynamic(host::current)
#define SHARED_ARRAY(type, name, count) \
    static char name##_site;            \
    type* const name = static_cast<type*>(host::shared(&name##_site, sizeof(type) * (count)))
#define __syncthreads() host::barrier(__LINE__)
// Appended for every kernel: the entry point through which the tests launch it.
#define HOST_KERNEL(name)                                                                     \
    extern "C" const char* host_launch_##name(host::Launch* launch, void** arguments) { \
        return host::bind(name, *launch, arguments);                                          \
    }

struct Index3 {
    unsigned x, y, z;
};

extern Index3 threadIdx, blockIdx, blockDim, gridDim;

inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline float __ldcg(const float* p) { return *p; }
inline double __ldcg(const double* p) { return *p; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t(a) * b) >> 32); }

// Numbers of 16 bits, as operand.cuh has them: to the nearest, to the even one of two. A NaN stays one.
#define HOST_CONVERSIONS
inline unsigned bits_of_float(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline unsigned short bits_of_bfloat16(float x) {
    const unsigned bits = bits_of_float(x);
    if (x != x) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline unsigned short bits_of_float16(float x) {
    const unsigned bits = bits_of_float(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (x != x) return 0x7fff;
    if (rest >= 0x477ff000) return static_cast<unsigned short>(sign | 0x7c00);  // 65520 and more
    if (rest < 0x38800000) {  // below 2^-14 the step is 2^-24
        return static_cast<unsigned short>(sign | static_cast<unsigned>(nearbyintf(fabsf(x) * 16777216.0f)));
    }
    return static_cast<unsigned short>(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}
inline float float_of_float16(unsigned short bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexpf(static_cast<float>(1024 + fraction), exponent - 25)
                                      : ldexpf(static_cast<float>(fraction), -24);
    return bits & 0x8000 ? -size : size;
}

namespace host {

// Memory that is to have other contents from the first follow() on: those that the kernel before has left.
struct Later {
    void* to;
    const void* from;
    size_t size;
};

struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned cluster;         // blocks that run together
    unsigned shared;          // bytes of dynamic shared memory
    unsigned long long seed;  // 0: threads in order; 1: in reverse order; even: at random; odd: warps at random
    int fibers;               // 0: threads one after another, for kernels without barriers and shuffles
    int early;                // whether it begins before the kernel before it has ended
    const Later* later;       // what that one will have written
    int laters;
    int followed;             // out: whether a thread came to follow()
    void* history;            // in and out, of races.cpp: accesses of this kernel, and of those that may go on still
};

// What a thread gives to an instruction of its whole warp, and gets.
struct Lane {
    unsigned words[10];
    float numbers[4];
    const unsigned char* row;
};

extern int current;  // fiber; -1: the kernel runs without fibers
extern int threads;  // in a block

void barrier(int line);
void warp_barrier();
void fence();
unsigned add(unsigned* p, unsigned more);
void* shared(const void* site, size_t size);
unsigned char* dynamic(int fiber);
unsigned char* dynamic_of_block(int block);
void yield_to_copies();
void copy_later(void* to, const void* from, size_t size);
void finish_copies();
void commit_copies();
void wait_for_copies(size_t later);
void make_gate(const void* gate);
void announce(const void* gate, int bytes);
void copy_through(const void* gate, void* to, const void* from, int bytes);
void pass_gate(const void* gate, unsigned parity);
void cluster_arrive();
void cluster_wait();
void follow();
uint64_t shuffle_xor(unsigned mask, uint64_t value, int lane_mask);
Lane& this_lane();
void read_by_warp(const void* row, size_t size);
// Do what a whole warp does as one, when its last lane has arrived.
void as_warp(void (*together)(Lane* lanes));
[[noreturn]] void fail(const char* message);
// Run every block, in the order of the seed. Returns nullptr, or what went wrong.
const char* run(Launch& launch, void (*body)(const void*), const void* closure);

// Call a kernel with arguments of which only the addresses are known.
template <int... I> struct Numbers {};
template <class... P, int... I>
const char* bind_each(void (*kernel)(P...), Launch& launch, void** arguments, Numbers<I...>) {
    const auto call = [=] { kernel(*static_cast<P*>(arguments[I])...); };
    return run(launch, [](const void* p) { (*static_cast<const decltype(call)*>(p))(); }, &call);
}
template <class... P> const char* bind(void (*kernel)(P...), Launch& launch, void** arguments) {
    return bind_each(kernel, launch, arguments, Numbers<__integer_pack(sizeof...(P))...>());
}

}  // namespace host

inline void __threadfence() { host::fence(); }
inline unsigned atomicAdd(unsigned* p, unsigned more) { return host::add(p, more); }

template <class V> V __shfl_xor_sync(unsigned mask, V value, int lane_mask) {
    static_assert(sizeof(V) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = host::shuffle_xor(mask, bits, lane_mask);
    memcpy(&value, &bits, sizeof value);
    return value;
}

// What fragments.cuh has for a GPU. A warp reads, and multiplies, when its last lane has arrived.
#define HOST_FRAGMENTS
#define __syncwarp() host::warp_barrier()
typedef const unsigned char* SharedAddress;
inline SharedAddress shared_address(const void* place) { return static_cast<SharedAddress>(place); }
inline SharedAddress computed(SharedAddress address) { return address; }
inline void prefetch_line(const void*) {}
inline int afresh(int x) { return x; }
inline unsigned pair_of_bfloat16(float low, float high) {
    return bits_of_bfloat16(low) | static_cast<unsigned>(bits_of_bfloat16(high)) << 16;
}
template <bool TRANSPOSED> void load_fragments(unsigned (&r)[4], SharedAddress row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) host::fail("a row of a fragment is not aligned to 16 bytes");
    host::read_by_warp(row, 16);
    host::this_lane().row = row;
    host::as_warp([](host::Lane* lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            for (int k = 0; k < 4; ++k) {
                unsigned short pair[2];
                for (int e = 0; e < 2; ++e) {
                    const int i = TRANSPOSED ? lane % 4 * 2 + e : lane / 4, j = TRANSPOSED ? lane / 4 : lane % 4 * 2 + e;
                    memcpy(&pair[e], lanes[8 * k + i].row + 2 * j, 2);
                }
                lanes[lane].words[k] = pair[0] | static_cast<unsigned>(pair[1]) << 16;
            }
        }
    });
    for (int k = 0; k < 4; ++k) r[k] = host::this_lane().words[k];
}
inline double half_of(unsigned pair, int half) {
    const unsigned bits = half ? pair & 0xffff0000u : pair << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline void multiply_fragments(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    host::Lane& own = host::this_lane();
    for (int k = 0; k < 4; ++k) {
        own.words[k] = a[k];
        own.numbers[k] = c[k];
    }
    own.words[4] = b0;
    own.words[5] = b1;
    host::as_warp([](host::Lane* lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            for (int e = 0; e < 4; ++e) {
                const int row = lane / 4, column = lane % 4 * 2 + e % 2;
                double sum = lanes[lane].numbers[e];
                for (int k = 0; k < 16; ++k) {
                    const host::Lane& left = lanes[row * 4 + k % 8 / 2];
                    const host::Lane& right = lanes[column * 4 + k % 8 / 2];
                    sum += half_of(left.words[k / 8 * 2 + e / 2], k % 2) * half_of(right.words[4 + k / 8], k % 2);
                }
                lanes[lane].numbers[e] = static_cast<float>(sum);
            }
        }
    });
    for (int k = 0; k < 4; ++k) c[k] = host::this_lane().numbers[k];
}

// What cluster.cuh has for a GPU.
inline void follow() { host::follow(); }
inline int cluster_rank() { return host::current / host::threads; }
inline void cluster_arrive() { host::cluster_arrive(); }
inline void cluster_wait() { host::cluster_wait(); }
template <class V> V* in_block(V* place, int rank) {
    const long long at = reinterpret_cast<unsigned char*>(place) - host::dynamic(host::current);
    return reinterpret_cast<V*>(host::dynamic_of_block(rank) + at);
}
template <int BYTES> void copy_later(void* to, const void* from) { host::copy_later(to, from, BYTES); }
inline void copy_later_if(bool exists, SharedAddress to, const void* from) {
    host::copy_later(const_cast<unsigned char*>(to), exists ? from : nullptr, 16);
}
inline void finish_copies() { host::finish_copies(); }
inline void commit_copies() { host::commit_copies(); }
template <int LATER> void wait_for_copies() { host::wait_for_copies(LATER); }
constexpr bool GATES_EXIST = true;
inline void make_gate(unsigned long long* gate) { host::make_gate(gate); }
inline void yield_to_copies() { host::yield_to_copies(); }
inline void announce(unsigned long long* gate, int bytes) { host::announce(gate, bytes); }
inline void copy_through(unsigned long long* gate, void* to, const void* from, int bytes) {
    host::copy_through(gate, to, from, bytes);
}
inline void copy_to_block(unsigned long long* gate, void* place, int bytes, int rank) {
    host::copy_through(in_block(gate, rank), in_block(place, rank), place, bytes);
}
inline void pass_gate(unsigned long long* gate, int parity) { host::pass_gate(gate, parity); }
