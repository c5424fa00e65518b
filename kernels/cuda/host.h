// Runs the .cuh sources on a CPU: the threads of a block as fibers under a random, repeatable schedule.
//
// For tests only; include before the sources and compile with g++ on Linux. A fiber runs until it waits at a barrier or
// a shuffle, then another one is picked at random from the seed. The blocks of a cluster run together, one block from
// barrier to barrier, then one picked at random: so blocks get as far ahead of each other as they may. What this finds: missing barriers (shared memory
// starts as NaN and the order of the threads varies), barriers and shuffles that not all threads reach, and, built
// with AddressSanitizer, every access outside a global or shared array. What it cannot find: races between two
// accesses without a switch between them, and anything about speed.

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define HOST_STACK (256 * 1024)
#else
#define HOST_STACK (64 * 1024)
#endif

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __cluster_dims__(x, y, z)
#define DYNAMIC_SHARED(name) unsigned char* const name = host::dynamic(host::current)
#define SHARED_ARRAY(type, name, count) \
    static char name##_site;            \
    type* const name = static_cast<type*>(host::shared(&name##_site, sizeof(type) * (count)))
#define __syncthreads() host::barrier(__LINE__)
// Appended for every kernel: the entry point through which the tests launch it.
#define HOST_KERNEL(name)                                                                     \
    extern "C" const char* host_launch_##name(const host::Launch* launch, void** arguments) { \
        return host::run(*launch, host::bind(name, arguments));                               \
    }

struct Index3 {
    unsigned x, y, z;
};

static Index3 threadIdx, blockIdx, blockDim, gridDim;

inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline float __ldcg(const float* p) { return *p; }
inline double __ldcg(const double* p) { return *p; }
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* p, unsigned more) {
    const unsigned before = *p;
    *p += more;
    return before;
}
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

struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned cluster;         // blocks that run together
    unsigned shared;          // bytes of dynamic shared memory
    unsigned long long seed;  // 0: threads in order; 1: in reverse order; even: at random; odd: warps at random
    int fibers;               // 0: threads one after another, for kernels without barriers and shuffles
};

enum State { READY, AT_BARRIER, AT_CLUSTER, AT_SHUFFLE, DONE };

struct Copy {
    void* to;
    const void* from;
    size_t size;
};

struct Fiber {
    ucontext_t context;
    char* stack = nullptr;
    Index3 index, block;
    State state;
    unsigned arrivals;          // at the barrier of the cluster
    std::vector<Copy> copies;   // that it has begun
    int line;               // of the barrier at which it waits
    unsigned mask;          // of the shuffle at which it waits
    unsigned generation;    // number of shuffles done
    uint64_t slot[2];       // what it gave to the last two shuffles
    void (*together)(Fiber* lanes);  // what the warp does once all lanes are there, or nullptr for a shuffle
    unsigned words[10];              // what it gives to that, and gets
    float numbers[4];
    const unsigned char* row;
};

struct Shared {
    const void* site;
    int block;  // within the cluster
    void* memory;
};

static std::vector<Fiber> fibers;  // of all blocks of the cluster, block by block
static int threads = 1;            // in a block
static int favoured = 0;           // the block whose threads run
static std::vector<unsigned char*> dynamics;  // dynamic shared memory of each block
static std::vector<int> ready;
static std::vector<Shared> arrays;
static ucontext_t scheduler;
static int current = -1;  // -1: the kernel runs without fibers
static std::string failure;
static void (*body)(const void*);
static const void* closure;
static unsigned long long random_state;

inline unsigned long long next_random() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Dull;
}

#if defined(__SANITIZE_ADDRESS__)
static const void* main_bottom;
static size_t main_size;
#endif

inline void to_scheduler(Fiber& fiber, bool for_ever) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, main_bottom, main_size);
    swapcontext(&fiber.context, &scheduler);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    (void)for_ever;
    swapcontext(&fiber.context, &scheduler);
#endif
}

inline void to_fiber(Fiber& fiber) {
    threadIdx = fiber.index;
    blockIdx = fiber.block;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, HOST_STACK);
    swapcontext(&scheduler, &fiber.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    swapcontext(&scheduler, &fiber.context);
#endif
}

// Stop the kernel. A fiber never returns from here; its stack is used anew by the next launch.
[[noreturn]] inline void fail(const std::string& message) {
    failure = message;
    if (current < 0) throw std::runtime_error(message);
    to_scheduler(fibers[current], true);
    abort();
}

inline void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    to_scheduler(fiber, false);
}

inline void barrier(int line) {
    if (current < 0) fail("__syncthreads in a kernel that was launched without fibers");
    fibers[current].line = line;
    wait(AT_BARRIER);
}

// Shared memory of the block: one allocation a declaration, filled with one bits (NaN, or -1).
inline void* shared(const void* site, size_t size) {
    const int block = current < 0 ? 0 : current / threads;
    for (const Shared& array : arrays) {
        if (array.site == site && array.block == block) return array.memory;
    }
    void* memory = aligned_alloc(16, (size + 15) / 16 * 16);
    memset(memory, 0xff, size);
    arrays.push_back({site, block, memory});
    return memory;
}

inline unsigned char* dynamic(int fiber) { return dynamics[fiber < 0 ? 0 : fiber / threads]; }

// Copies happen as late as they may.
inline void finish_copies() {
    for (const Copy& copy : fibers[current].copies) memcpy(copy.to, copy.from, copy.size);
    fibers[current].copies.clear();
}

template <class V> V shuffle_xor(unsigned mask, V value, int lane_mask) {
    static_assert(sizeof(V) <= 8, "a shuffle moves at most 8 bytes");
    if (current < 0) fail("a shuffle in a kernel that was launched without fibers");
    Fiber& fiber = fibers[current];
    const int parity = fiber.generation++ % 2, partner = current ^ lane_mask;
    memcpy(&fiber.slot[parity], &value, sizeof value);
    fiber.mask = mask;
    fiber.together = nullptr;
    wait(AT_SHUFFLE);
    memcpy(&value, &fibers[partner].slot[parity], sizeof value);
    return value;
}

// Do what a whole warp does as one, when its last lane has arrived.
inline void as_warp(void (*together)(Fiber* lanes)) {
    if (current < 0) fail("an instruction of a warp in a kernel that was launched without fibers");
    fibers[current].mask = 0xffffffffu;
    fibers[current].together = together;
    wait(AT_SHUFFLE);
}

// Wake the lanes of a warp once all lanes of the mask have arrived.
inline void complete_shuffle(int number) {
    const int first = number / 32 * 32;
    const unsigned mask = fibers[number].mask;
    for (int lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        if (first + lane >= static_cast<int>(fibers.size())) {
            failure = "a shuffle names lane " + std::to_string(lane) + ", which the block does not have";
            return;
        }
        const Fiber& other = fibers[first + lane];
        if (other.state == DONE) failure = "a shuffle names lane " + std::to_string(lane) + ", which has returned";
        if (other.state != AT_SHUFFLE || other.mask != mask) return;
    }
    for (int lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) && fibers[first + lane].together != fibers[number].together) {
            failure = "the lanes of a warp are at different instructions";
            return;
        }
    }
    if (fibers[number].together) fibers[number].together(&fibers[first]);
    for (int lane = 0; lane < 32; ++lane) {
        if (mask >> lane & 1) {
            fibers[first + lane].state = READY;
            ready.push_back(first + lane);
        }
    }
}

inline void wake(size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
        fibers[i].state = READY;
        ready.push_back(static_cast<int>(i));
    }
}

// Whether all threads of a block wait at one __syncthreads, or whether there is something wrong with it.
inline bool at_one_barrier(size_t begin, size_t end) {
    int line = -1;
    bool all = true, some = false, done = false;
    for (size_t i = begin; i < end; ++i) {
        const Fiber& fiber = fibers[i];
        all = all && fiber.state == AT_BARRIER;
        done = done || fiber.state == DONE;
        if (fiber.state != AT_BARRIER) continue;
        some = true;
        if (line >= 0 && fiber.line != line) failure = "threads of one block wait at different __syncthreads";
        line = fiber.line;
    }
    if (some && done) failure = "__syncthreads is not reached by a thread that has returned";
    return all;
}

inline bool has_ready(int block) {
    for (int number : ready) {
        if (number / threads == block) return true;
    }
    return false;
}

// No thread of the favoured block can run: favour a block that can, or that waits at a complete barrier, or let the
// cluster go on; else say what holds them.
inline void choose_block() {
    const int blocks = static_cast<int>(fibers.size()) / threads;
    const int first = blocks > 1 ? static_cast<int>(next_random() % blocks) : 0;
    for (int k = 0; k < blocks; ++k) {
        favoured = (first + k) % blocks;
        if (has_ready(favoured)) return;
        const size_t begin = size_t(favoured) * threads, end = begin + threads;
        for (size_t i = begin; i < end; ++i) {
            if (fibers[i].state != AT_SHUFFLE) continue;
            complete_shuffle(static_cast<int>(i));
            if (failure.empty()) failure = "some threads wait at a shuffle, others elsewhere: deadlock";
            return;
        }
        const bool complete = at_one_barrier(begin, end);
        if (!failure.empty()) return;
        if (complete) return wake(begin, end);
    }
    unsigned fewest = ~0u;
    for (const Fiber& fiber : fibers) fewest = fiber.arrivals < fewest ? fiber.arrivals : fewest;
    for (size_t i = 0; i < fibers.size(); ++i) {
        if (fibers[i].state == AT_CLUSTER && fibers[i].arrivals <= fewest) wake(i, i + 1);
    }
    if (ready.empty()) failure = "some threads wait at a barrier of the cluster that others do not reach: deadlock";
}

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
    body(closure);
    fibers[current].state = DONE;
    to_scheduler(fibers[current], true);
}

// Which of the ready threads of the block `favoured` runs next. Odd seeds let a warp run on while it can, which is how
// one warp gets far ahead of another; even seeds mix all threads.
inline int pick(unsigned long long seed) {
    std::vector<size_t> candidates;
    for (size_t i = 0; i < ready.size(); ++i) {
        if (ready[i] / threads == favoured) candidates.push_back(i);
    }
    size_t at = candidates[seed < 2 ? 0 : next_random() % candidates.size()];
    for (size_t i : candidates) {
        if (seed == 0 && ready[i] < ready[at]) at = i;
        if (seed == 1 && ready[i] > ready[at]) at = i;
        if (seed > 1 && seed % 2 && ready[i] / 32 == current / 32) at = i;
    }
    const int number = ready[at];
    ready[at] = ready.back();
    ready.pop_back();
    return number;
}

// Run the blocks of a cluster, from the one with number `first` on.
inline void run_blocks(unsigned long long seed, unsigned first) {
    ready.clear();
    favoured = 0;
    for (size_t i = 0; i < fibers.size(); ++i) {
        Fiber& fiber = fibers[i];
        const unsigned n = static_cast<unsigned>(i % threads), b = first + static_cast<unsigned>(i / threads);
        fiber.block = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        fiber.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        fiber.state = READY;
        fiber.generation = fiber.arrivals = 0;
        fiber.copies.clear();
        if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(HOST_STACK));
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(fiber.stack, HOST_STACK);  // frames of the block before were left, not returned
#endif
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = HOST_STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        ready.push_back(static_cast<int>(i));
    }
    size_t done = 0;
    while (failure.empty() && done < fibers.size()) {
        if (!has_ready(favoured)) {
            choose_block();
            continue;
        }
        current = pick(seed);
        to_fiber(fibers[current]);
        if (fibers[current].state == DONE) ++done;
        if (fibers[current].state == AT_SHUFFLE && failure.empty()) complete_shuffle(current);
    }
}

inline void run_block_without_fibers() {
    current = -1;
    for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z) {
        for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y) {
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) body(closure);
        }
    }
}

// Run every block, in the order of the seed. Returns nullptr, or what went wrong.
template <class Call> const char* run(const Launch& launch, Call call) {
    closure = &call;
    body = [](const void* p) { (*static_cast<const Call*>(p))(); };
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    random_state = launch.seed * 0x9E3779B97F4A7C15ull | 1;
    failure.clear();
    const unsigned together = launch.cluster;
    threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    if (launch.fibers) {
        for (size_t i = size_t(threads) * together; i < fibers.size(); ++i) free(fibers[i].stack);
        fibers.resize(size_t(threads) * together);
    }
    std::vector<unsigned> clusters(gridDim.x * gridDim.y * gridDim.z / together);
    for (unsigned i = 0; i < clusters.size(); ++i) clusters[i] = i;
    for (size_t i = clusters.size(); launch.seed > 1 && i > 1; --i) {
        std::swap(clusters[i - 1], clusters[next_random() % i]);
    }
    for (size_t i = 0; i < clusters.size() && failure.empty(); ++i) {
        const unsigned b = together * clusters[launch.seed == 1 ? clusters.size() - 1 - i : i];
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        for (unsigned d = 0; d < together; ++d) {
            dynamics.push_back(static_cast<unsigned char*>(aligned_alloc(16, (launch.shared + 15) / 16 * 16)));
            memset(dynamics[d], 0xff, launch.shared);
        }
        try {
            launch.fibers ? run_blocks(launch.seed, b) : run_block_without_fibers();
        } catch (const std::runtime_error&) {  // thrown by fail, which has kept the message
        }
        for (const Shared& array : arrays) free(array.memory);
        for (unsigned char* memory : dynamics) free(memory);
        arrays.clear();
        dynamics.clear();
    }
    current = -1;
    return failure.empty() ? nullptr : failure.c_str();
}

template <class... P, size_t... I> auto bind_each(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    return [=] { kernel(*static_cast<P*>(arguments[I])...); };
}
template <class... P> auto bind(void (*kernel)(P...), void** arguments) {
    return bind_each(kernel, arguments, std::index_sequence_for<P...>());
}

}  // namespace host

template <class V> V __shfl_xor_sync(unsigned mask, V value, int lane_mask) {
    return host::shuffle_xor(mask, value, lane_mask);
}

// What fragments.cuh has for a GPU. A warp reads, and multiplies, when its last lane has arrived.
#define HOST_FRAGMENTS
#define __syncwarp() host::as_warp([](host::Fiber*) {})
typedef const unsigned char* SharedAddress;
inline SharedAddress shared_address(const void* place) { return static_cast<SharedAddress>(place); }
inline void prefetch_line(const void*) {}
inline int afresh(int x) { return x; }
inline unsigned pair_of_bfloat16(float low, float high) {
    return bits_of_bfloat16(low) | static_cast<unsigned>(bits_of_bfloat16(high)) << 16;
}
template <bool TRANSPOSED> void load_fragments(unsigned (&r)[4], SharedAddress row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) host::fail("a row of a fragment is not aligned to 16 bytes");
    host::Fiber& fiber = host::fibers[host::current];
    fiber.row = row;
    host::as_warp([](host::Fiber* lanes) {
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
    for (int k = 0; k < 4; ++k) r[k] = fiber.words[k];
}
inline double half_of(unsigned pair, int half) {
    const unsigned bits = half ? pair & 0xffff0000u : pair << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline void multiply_fragments(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    host::Fiber& fiber = host::fibers[host::current];
    for (int k = 0; k < 4; ++k) {
        fiber.words[k] = a[k];
        fiber.numbers[k] = c[k];
    }
    fiber.words[4] = b0;
    fiber.words[5] = b1;
    host::as_warp([](host::Fiber* lanes) {
        for (int lane = 0; lane < 32; ++lane) {
            for (int e = 0; e < 4; ++e) {
                const int row = lane / 4, column = lane % 4 * 2 + e % 2;
                double sum = lanes[lane].numbers[e];
                for (int k = 0; k < 16; ++k) {
                    const host::Fiber& left = lanes[row * 4 + k % 8 / 2];
                    const host::Fiber& right = lanes[column * 4 + k % 8 / 2];
                    sum += half_of(left.words[k / 8 * 2 + e / 2], k % 2) * half_of(right.words[4 + k / 8], k % 2);
                }
                lanes[lane].numbers[e] = static_cast<float>(sum);
            }
        }
    });
    for (int k = 0; k < 4; ++k) c[k] = fiber.numbers[k];
}

// What cluster.cuh has for a GPU.
inline int cluster_rank() { return host::current / host::threads; }
inline void cluster_arrive() { ++host::fibers[host::current].arrivals; }
inline void cluster_wait() { host::wait(host::AT_CLUSTER); }
template <class V> V* in_block(V* place, int rank) {
    const long long at = reinterpret_cast<unsigned char*>(place) - host::dynamic(host::current);
    return reinterpret_cast<V*>(host::dynamics[rank] + at);
}
template <int BYTES> void copy_later(void* to, const void* from) {
    host::fibers[host::current].copies.push_back({to, from, BYTES});
}
inline void finish_copies() { host::finish_copies(); }
