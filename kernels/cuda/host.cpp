// Runs the threads of a block as fibers under a random, repeatable schedule; built once, with host.h as its interface.
//
// A fiber runs until it waits at a barrier or a shuffle, then another one is picked at random from the seed. The blocks
// of a cluster run together, one block from barrier to barrier, then one picked at random: so blocks get as far ahead
// of each other as they may. What this finds: missing barriers (shared memory starts as NaN and the order of the
// threads varies), barriers and shuffles that not all threads reach, and, built with AddressSanitizer, every access
// outside a global or shared array. What no schedule shows, races.cpp finds, built in by HOST_RACES: two accesses that
// nothing orders. What neither finds is anything about speed.

#undef _FORTIFY_SOURCE  // it takes a jump to another stack for a mistake

#include "host.h"
#include "races.h"

#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#include <deque>
#include <map>
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

Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

enum State { READY, AT_BARRIER, AT_CLUSTER, AT_SHUFFLE, AT_GATE, DONE };

struct Copy {
    void* to;
    const void* from;
    size_t size;
};

#if defined(__SANITIZE_ADDRESS__)
typedef ucontext_t Place;
#else
typedef jmp_buf Place;  // a change of context asks the kernel of the system for the signals each time
#endif

struct Fiber {
    Place place;  // where it goes on
    char* stack = nullptr;
    bool begun = false;
    Index3 index, block;
    State state;
    unsigned arrivals;         // at the barrier of the cluster
    std::deque<std::vector<Copy>> copies;  // that it has begun, by groups, the last of which is open
    int line;                  // of the barrier at which it waits
    unsigned mask;             // of the shuffle at which it waits
    unsigned generation;       // number of shuffles done
    uint64_t slot[2];          // what it gave to the last two shuffles
    void (*together)(Lane*);   // what the warp does once all lanes are there, or nullptr for a shuffle
};

struct Gate {
    int announced = 0, begun = 0;  // bytes of this opening
    bool announcement = false;
    unsigned openings = 0;
    std::vector<Copy> copies;
};

struct Shared {
    const void* site;
    int block;  // within the cluster
    void* memory;
    size_t size;
};

static std::vector<Fiber> fibers;  // of all blocks of the cluster, block by block
static std::vector<Lane> lanes;    // of the fibers
int threads = 1;
int current = -1;
static int favoured = 0;                      // the block whose threads run
static std::vector<std::vector<int>> ready;   // fibers of each block
static std::vector<unsigned char*> dynamics;  // dynamic shared memory of each block
static size_t dynamic_size;
static std::vector<int> alive;                // threads of each block that have not returned
static std::map<const void*, Gate> gates;
static bool early;  // whether copies happen as soon as they may, else as late as they may
static std::vector<Shared> arrays;
static Place scheduler;
static Launch* now;
static std::string failure;
static void (*body)(const void*);
static const void* closure;
static unsigned long long random_state;

static unsigned long long next_random() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Dull;
}

static void enter();

// Let a fiber begin at `enter`, on its own stack.
static void prepare(Fiber& fiber, ucontext_t& context) {
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = HOST_STACK;
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
}

#if defined(__SANITIZE_ADDRESS__)
static const void* main_bottom;
static size_t main_size;

static void to_scheduler(Fiber& fiber) {
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(fiber.state == DONE ? nullptr : &fake, main_bottom, main_size);
    swapcontext(&fiber.place, &scheduler);
    __sanitizer_finish_switch_fiber(fake, &main_bottom, &main_size);
}

static void to_fiber(Fiber& fiber) {
    if (!fiber.begun) {
        __asan_unpoison_memory_region(fiber.stack, HOST_STACK);  // frames of a launch that failed did not return
        prepare(fiber, fiber.place);
    }
    fiber.begun = true;
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, HOST_STACK);
    swapcontext(&scheduler, &fiber.place);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
#else
static void to_scheduler(Fiber& fiber) {
    if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}

static void to_fiber(Fiber& fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    ucontext_t context;
    prepare(fiber, context);
    setcontext(&context);
}
#endif

// Stop the kernel. A fiber never returns from here; its stack is used anew by the next launch.
void fail(const char* message) {
    failure = message;
    if (current < 0) throw std::runtime_error(message);
    fibers[current].state = DONE;
    to_scheduler(fibers[current]);
    abort();
}

static void wait(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    to_scheduler(fiber);
}

void barrier(int line) {
    if (current < 0) fail("__syncthreads in a kernel that was launched without fibers");
    fibers[current].line = line;
    wait(AT_BARRIER);
}

// Shared memory of the block: one allocation a declaration, filled with one bits (NaN, or -1).
void* shared(const void* site, size_t size) {
    const int block = current < 0 ? 0 : current / threads;
    for (const Shared& array : arrays) {
        if (array.site == site && array.block == block) return array.memory;
    }
    void* memory = aligned_alloc(16, (size + 15) / 16 * 16);
    memset(memory, 0xff, size);
    arrays.push_back({site, block, memory, size});
    return memory;
}

unsigned char* dynamic(int fiber) { return dynamics[fiber < 0 ? 0 : fiber / threads]; }
unsigned char* dynamic_of_block(int block) { return dynamics[block]; }

static void carry_out(const Copy& copy) {
    copy.from ? memcpy(copy.to, copy.from, copy.size) : memset(copy.to, 0, copy.size);
}

// Copies happen as late as they may, or, with an odd seed, at once. From nowhere come zeros.
void copy_later(void* to, const void* from, size_t size) {
    WATCHED(begin_copy(current, to, from, size));
    const size_t both = reinterpret_cast<size_t>(to) | reinterpret_cast<size_t>(from);
    if (both % size) fail("a copy is not aligned to its size");
    if (early) {
        carry_out({to, from, size});
    } else {
        fibers[current].copies.back().push_back({to, from, size});
    }
}
void commit_copies() {
    WATCHED(end_group(current));
    fibers[current].copies.emplace_back();
}
static void finish_first_copies() {
    std::deque<std::vector<Copy>>& groups = fibers[current].copies;
    for (const Copy& copy : groups.front()) carry_out(copy);
    groups.pop_front();
}
void wait_for_copies(size_t later) {
    WATCHED(complete_groups(current, later));
    while (fibers[current].copies.size() - 1 > later) finish_first_copies();
}
void finish_copies() {
    commit_copies();
    wait_for_copies(0);
}

void follow() {
    WATCHED(follow(current));
    if (!now->followed) {
        for (int i = 0; i < now->laters; ++i) memcpy(now->later[i].to, now->later[i].from, now->later[i].size);
    }
    now->followed = 1;
}

void cluster_arrive() {
    WATCHED(arrive(current));
    ++fibers[current].arrivals;
}
void cluster_wait() {
    wait(AT_CLUSTER);
    WATCHED(leave(current));
}

void fence() { WATCHED(fence(current)); }
void yield_to_copies() { WATCHED(yield_to_copies(current)); }
unsigned add(unsigned* p, unsigned more) {
    WATCHED(atomic(current, p, sizeof *p));
    const unsigned before = *p;
    *p += more;
    return before;
}

uint64_t shuffle_xor(unsigned mask, uint64_t value, int lane_mask) {
    if (current < 0) fail("a shuffle in a kernel that was launched without fibers");
    Fiber& fiber = fibers[current];
    const int parity = fiber.generation++ % 2, partner = current ^ lane_mask;
    fiber.slot[parity] = value;
    fiber.mask = mask;
    fiber.together = nullptr;
    wait(AT_SHUFFLE);
    return fibers[partner].slot[parity];
}

Lane& this_lane() { return lanes[current]; }

void as_warp(void (*together)(Lane* lanes)) {
    if (current < 0) fail("an instruction of a warp in a kernel that was launched without fibers");
    fibers[current].mask = 0xffffffffu;
    fibers[current].together = together;
    wait(AT_SHUFFLE);
}

void warp_barrier() {
    as_warp([](Lane* own) { WATCHED(meet(static_cast<int>(own - lanes.data()), 32)); });
}

void read_by_warp(const void* row, size_t size) { WATCHED(read(current, row, size)); }

static void wake(int number) {
    fibers[number].state = READY;
    ready[number / threads].push_back(number);
}

// Something has happened at a gate: who waits at one looks again.
static void wake_at_gates() {
    for (size_t i = 0; i < fibers.size(); ++i) {
        if (fibers[i].state == AT_GATE) wake(static_cast<int>(i));
    }
}

void make_gate(const void* gate) {
    WATCHED(make_gate(current, gate));
    gates[gate] = {};
}

static Gate& gate_at(const void* place) {
    const auto found = gates.find(place);
    if (found == gates.end()) fail("a gate is used that was not made before");
    return found->second;
}

void announce(const void* place, int bytes) {
    Gate& gate = gate_at(place);
    if (gate.announcement) fail("a gate is announced twice");
    WATCHED(announce(current, place));
    gate.announcement = true;
    gate.announced = bytes;
    wake_at_gates();
}

void copy_through(const void* place, void* to, const void* from, int bytes) {
    const size_t both = reinterpret_cast<size_t>(to) | reinterpret_cast<size_t>(from);
    if (bytes % 16 || both % 16) fail("a copy through a gate is not of whole runs of 16 bytes");
    Gate& gate = gate_at(place);
    WATCHED(begin_copy_through(current, place, to, from, bytes));
    gate.begun += bytes;
    if (early) {
        memcpy(to, from, bytes);
    } else {
        gate.copies.push_back({to, from, size_t(bytes)});
    }
    wake_at_gates();
}

// Copies that are late happen when the first thread passes.
void pass_gate(const void* place, unsigned parity) {
    for (;;) {
        Gate& gate = gate_at(place);
        if (gate.openings % 2 != parity) break;
        if (gate.announcement && gate.begun == gate.announced) {
            for (const Copy& copy : gate.copies) memcpy(copy.to, copy.from, copy.size);
            gate = {0, 0, false, gate.openings + 1, {}};
            WATCHED(open_gate(place));
            wake_at_gates();
            break;
        }
        wait(AT_GATE);
    }
    WATCHED(pass_gate(current, place));
}

// Wake the lanes of a warp once all lanes of the mask have arrived.
static void complete_shuffle(int number) {
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
    if (fibers[number].together) {
        const int last = std::exchange(current, -1);  // what the warp does is done by none of its threads
        fibers[number].together(&lanes[first]);
        current = last;
    }
    for (int lane = 0; lane < 32; ++lane) {
        if (mask >> lane & 1) {
            wake(first + lane);
        }
    }
}

// Whether all threads of a block wait at one __syncthreads, or whether there is something wrong with it.
static bool at_one_barrier(size_t begin, size_t end) {
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

// No thread of the favoured block can run: favour a block that can, or that waits at a complete barrier, or let the
// cluster go on; else say what holds them.
static void choose_block() {
    const int blocks = static_cast<int>(fibers.size()) / threads;
    const int first = blocks > 1 ? static_cast<int>(next_random() % blocks) : 0;
    for (int k = 0; k < blocks; ++k) {
        favoured = (first + k) % blocks;
        if (!ready[favoured].empty()) return;
        const size_t begin = size_t(favoured) * threads, end = begin + threads;
        for (size_t i = begin; i < end; ++i) {
            if (fibers[i].state != AT_SHUFFLE) continue;
            complete_shuffle(static_cast<int>(i));
            if (failure.empty()) failure = "some threads wait at a shuffle, others elsewhere: deadlock";
            return;
        }
        const bool complete = at_one_barrier(begin, end);
        if (!failure.empty()) return;
        if (complete) {
            WATCHED(meet(static_cast<int>(begin), threads));
            for (size_t i = begin; i < end; ++i) wake(static_cast<int>(i));
            return;
        }
    }
    unsigned fewest = ~0u;
    for (const Fiber& fiber : fibers) fewest = fiber.arrivals < fewest ? fiber.arrivals : fewest;
    bool woken = false;
    for (size_t i = 0; i < fibers.size(); ++i) {
        if (fibers[i].state != AT_CLUSTER || fibers[i].arrivals > fewest) continue;
        wake(static_cast<int>(i));
        woken = true;
    }
    if (!woken) failure = "some threads wait at a gate, or at a barrier of the cluster that others do not reach: deadlock";
}

static void enter() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
    for (;;) {  // the fiber of one block is that of the next
        body(closure);
        fibers[current].state = DONE;
        to_scheduler(fibers[current]);
    }
}

// Which of the ready threads of the block `favoured` runs next. Odd seeds let a warp run on while it can, which is how
// one warp gets far ahead of another; even seeds mix all threads.
static int pick(unsigned long long seed) {
    std::vector<int>& candidates = ready[favoured];
    size_t at = seed < 2 ? 0 : next_random() % candidates.size();
    if (seed < 2 || seed % 2) {
        for (size_t i = 0; i < candidates.size(); ++i) {
            if (seed == 0 && candidates[i] < candidates[at]) at = i;
            if (seed == 1 && candidates[i] > candidates[at]) at = i;
            if (seed > 1 && candidates[i] / 32 == current / 32) at = i;
        }
    }
    const int number = candidates[at];
    candidates[at] = candidates.back();
    candidates.pop_back();
    return number;
}

// Run the blocks of a cluster, from the one with number `first` on.
static void run_blocks(unsigned long long seed, unsigned first) {
    ready.assign(fibers.size() / threads, {});
    alive.assign(fibers.size() / threads, threads);
    favoured = 0;
    for (size_t i = 0; i < fibers.size(); ++i) {
        Fiber& fiber = fibers[i];
        const unsigned n = static_cast<unsigned>(i % threads), b = first + static_cast<unsigned>(i / threads);
        fiber.block = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        fiber.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        fiber.generation = fiber.arrivals = 0;
        fiber.copies.assign(1, {});
        if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(HOST_STACK));
        wake(static_cast<int>(i));
    }
    size_t done = 0;
    while (failure.empty() && done < fibers.size()) {
        if (ready[favoured].empty()) {
            choose_block();
            continue;
        }
        current = pick(seed);
        threadIdx = fibers[current].index;
        blockIdx = fibers[current].block;
        to_fiber(fibers[current]);
        if (fibers[current].state == DONE) {
            ++done;
            const int block = current / threads;  // what a block has on chip is gone when its last thread is
            if (--alive[block] == 0) {
                WATCHED(end_block(block, dynamics[block], dynamic_size));
                memset(dynamics[block], 0xff, dynamic_size);
            }
        }
        if (fibers[current].state == AT_SHUFFLE && failure.empty()) complete_shuffle(current);
    }
    if (!failure.empty()) {
        for (Fiber& fiber : fibers) fiber.begun = false;  // wherever it is, it begins anew
    }
}

static void run_block_without_fibers() {
    current = -1;
    for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z) {
        for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y) {
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) body(closure);
        }
    }
}

const char* run(Launch& launch, void (*kernel)(const void*), const void* arguments) {
    now = &launch;
    body = kernel;
    closure = arguments;
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    random_state = launch.seed * 0x9E3779B97F4A7C15ull | 1;
    failure.clear();
    early = launch.seed % 2;
    WATCHED(begin_launch(launch));
    dynamic_size = launch.shared;
    const unsigned together = launch.cluster;
    threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    const size_t wanted = size_t(threads) * together;
    if (launch.fibers && fibers.size() != wanted) {
        for (size_t i = wanted; i < fibers.size(); ++i) free(fibers[i].stack);
        fibers.resize(wanted);
        lanes.resize(wanted);
        for (Fiber& fiber : fibers) fiber.begun = false;  // a context holds addresses within itself
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
        WATCHED(begin_cluster(b, together));
        try {
            launch.fibers ? run_blocks(launch.seed, b) : run_block_without_fibers();
        } catch (const std::runtime_error&) {  // thrown by fail, which has kept the message
        }
        for (const Shared& array : arrays) {
            WATCHED(forget(array.memory, array.size));
            free(array.memory);
        }
        for (unsigned char* memory : dynamics) {
            WATCHED(forget(memory, dynamic_size));
            free(memory);
        }
        arrays.clear();
        dynamics.clear();
        gates.clear();
    }
    current = -1;
    return failure.empty() ? nullptr : failure.c_str();
}

}  // namespace host
