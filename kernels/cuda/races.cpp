// Finds accesses that nothing orders, under whatever schedule they happen.
//
// g++ -fsanitize=thread puts a call before each access of a kernel. Here are the functions that it calls; they judge by
// what orders threads in CUDA, where the library of ThreadSanitizer judges by what orders those of C++. Two accesses to
// one place, of which one writes, are a mistake unless the first happens before the second: because the same thread
// does both, or through a barrier, a gate, a copy that was waited for, or a fence with an atomic operation behind it. A
// shuffle orders nothing.
//
// Time is a vector (Lamport, 1978; Mattern, 1989): each agent counts its own steps, and `seen` of a thread says up to
// which step of each agent everything happened before. Agents are threads, the copies of each thread, and gates, on
// behalf of the copies that come through them. What threads have handed over to such copies, and to other blocks by a
// fence, is counted beside it. A read is kept until a later one stands for it (Flanagan and Freund, FastTrack, 2009).
//
// One text with host.cpp.

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>

namespace host {
namespace races {

typedef std::vector<unsigned> Times;
typedef std::shared_ptr<const Times> Seen;
typedef std::map<unsigned, Seen> SeenOfClusters;  // by the first block of a cluster

enum Kind : unsigned char { READ, WRITE, ATOMIC };  // a volatile store is atomic, and orders nothing

struct Access {
    unsigned launch, cluster, agent, time;
    unsigned char bytes;  // of a word of four, a bit each
    Kind kind;
    const void *line, *caller;
};

struct Agent {
    unsigned time, groups, complete, yielded, fenced;
    Seen seen, seen_at_arrival;
    unsigned arrivals;         // at the barrier of the cluster
    SeenOfClusters elsewhere;  // of clusters that ran before
    SeenOfClusters released;   // by the last fence
    SeenOfClusters acquired;   // by atomic operations since the last fence
    bool followed;             // whether the kernels before have ended
    std::vector<const void*> calls;
};

struct GateOfCopies {
    unsigned number, openings;
    Seen announced;              // what happened before it was announced
    Seen opened;                 // and what has come through it
    Seen passing, passed;        // what the last thread had seen before and after it passed: most have seen the same
};

struct Meeting {
    Times times;
    bool followed;
    Seen last;      // what the last thread to arrive had seen: most have seen the same
    Seen together;  // once it is complete
};

struct Atomic {
    SeenOfClusters released;
    unsigned cluster, thread;  // that changed it last
};

struct Gone {
    uintptr_t begin, end;
};

constexpr uintptr_t PAGE = 4096;
// Accesses to a word for which no later one stands.
struct Cell {
    std::vector<Access> changes, reads;
    size_t many = 8;  // reads, that it is worth looking
};
typedef std::array<Cell, PAGE / 4> Page;

// Of one kernel, and of all those that may still run when it begins. Libraries of several kernels share it.
struct History {
    unsigned launches;
    std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
};

static History* history;
static std::vector<Agent> agents;
static std::map<const void*, GateOfCopies> gates_of_copies;
static std::vector<Meeting> meetings;
static std::map<const void*, Atomic> atomics;
static std::vector<Gone> gone;
static unsigned cluster;

// Places of Times. Gates are counted from 4 * N on.
static unsigned N() { return static_cast<unsigned>(agents.size()); }
static unsigned copies_of(unsigned thread) { return N() + thread; }
static unsigned yielded_by(unsigned thread) { return 2 * N() + thread; }
static unsigned fenced_by(unsigned thread) { return 3 * N() + thread; }
static unsigned at(const Seen& seen, unsigned agent) { return seen && agent < seen->size() ? (*seen)[agent] : 0; }

// ------------------------------------------------------------------------------------------ what is before what

static void join(Times& times, const Seen& more) {
    if (!more) return;
    if (times.size() < more->size()) times.resize(more->size());
    for (size_t i = 0; i < more->size(); ++i) times[i] = std::max(times[i], (*more)[i]);
}
static Seen joined(const Seen& a, const Seen& b) {
    if (!a || !b || a == b) return a ? a : b;
    Times times = *a;
    join(times, b);
    return std::make_shared<const Times>(std::move(times));
}
static void join(SeenOfClusters& seen, const SeenOfClusters& more) {
    for (const auto& entry : more) seen[entry.first] = joined(seen[entry.first], entry.second);
}

// Put into `times` what the thread itself has done.
static void add_own(Times& times, unsigned thread) {
    const Agent& agent = agents[thread];
    if (times.size() < 4 * N()) times.resize(4 * N());
    times[thread] = agent.time;
    times[copies_of(thread)] = agent.complete;
    times[yielded_by(thread)] = agent.yielded;
    times[fenced_by(thread)] = agent.fenced;
}

// Everything before this moment of a thread; its next access is after it.
static Seen release(unsigned thread) {
    Times times = agents[thread].seen ? *agents[thread].seen : Times();
    add_own(times, thread);
    ++agents[thread].time;
    return std::make_shared<const Times>(std::move(times));
}

static bool is_before(const Access& access, unsigned thread, bool for_copies) {
    const Agent& agent = agents[thread];
    if (access.launch != history->launches) return agent.followed;
    if (access.cluster != cluster) {
        const auto there = agent.elsewhere.find(access.cluster);
        return there != agent.elsewhere.end() && access.time <= at(there->second, access.agent);
    }
    const bool yields = for_copies && access.kind != READ && access.agent < N();
    if (access.agent == thread) return !yields || access.time <= agent.yielded;
    if (access.agent == copies_of(thread)) return access.time <= agent.complete;
    return access.time <= at(agent.seen, yields ? yielded_by(access.agent) : access.agent);
}

// ------------------------------------------------------------------------------------------ reports

static std::string thread_name(unsigned first_block, unsigned thread) {
    return "thread " + std::to_string(thread % threads) + " of block " + std::to_string(first_block + thread / threads);
}

static std::string agent_name(const Access& access) {
    if (access.launch != history->launches) return "a kernel before, which may go on still,";
    if (access.agent < N()) return thread_name(access.cluster, access.agent);
    if (access.agent < 2 * N()) return "a copy that " + thread_name(access.cluster, access.agent - N()) + " began";
    return "a copy through a gate";
}

// Places in the code as <offset within the library>, for the reader to look up.
static std::string line_name(const Access& access) {
    std::string text;
    if (access.launch != history->launches) return text;  // it may be of another library
    for (const void* place : {access.line, access.caller}) {
        Dl_info info;
        if (!place || !dladdr(place, &info)) continue;
        char name[32];
        snprintf(name, sizeof name, "%s<%zx>", text.empty() ? " in " : " called in ",
                 static_cast<size_t>(static_cast<const char*>(place) - static_cast<const char*>(info.dli_fbase)));
        text += name;
    }
    return text;
}

static const char* memory_name(uintptr_t place) {
    const unsigned char* byte = reinterpret_cast<const unsigned char*>(place);
    for (const unsigned char* memory : dynamics) {
        if (byte >= memory && byte < memory + dynamic_size) return "shared";
    }
    for (const Shared& array : arrays) {
        const unsigned char* memory = static_cast<const unsigned char*>(array.memory);
        if (byte >= memory && byte < memory + array.size) return "shared";
    }
    return "global";
}

static std::string deed(const Access& access) {
    const char* verbs[] = {" reads", " writes", " changes"};
    return agent_name(access) + verbs[access.kind] + line_name(access);
}

[[noreturn]] static void fail_with(const std::string& message) { fail(message.c_str()); }

// ------------------------------------------------------------------------------------------ accesses

static uintptr_t page_number;  // of the last access: most others are near
static Page* page;

static Cell& cell_of(uintptr_t place) {
    if (place / PAGE != page_number) {
        std::unique_ptr<Page>& found = history->pages[place / PAGE];
        if (!found) found.reset(new Page);
        page = found.get();
        page_number = place / PAGE;
    }
    return (*page)[place % PAGE / 4];
}

// Leave out the accesses for which another one stands, later and of the same thread or ordered behind them.
static void forget_before(std::vector<Access>& accesses, const Access& access, unsigned thread, bool for_copies) {
    const auto stands_for = [&](const Access& old) {
        const bool same = access.kind == WRITE || old.kind == access.kind;
        return same && !(old.bytes & ~access.bytes) && is_before(old, thread, for_copies);
    };
    accesses.erase(std::remove_if(accesses.begin(), accesses.end(), stands_for), accesses.end());
}

// An access to one word, judged by what `thread` has seen. Atomic changes happen in turn, and whoever made the last of
// all may go on with the word as its own.
static void enter(Cell& cell, const Access& access, unsigned thread, bool for_copies, bool changed_it_last,
                  uintptr_t place) {
    for (const std::vector<Access>* accesses : {&cell.changes, &cell.reads}) {
        if (access.kind == READ && accesses == &cell.reads) break;
        for (const Access& old : *accesses) {
            const bool in_turn = old.kind == ATOMIC && (access.kind == ATOMIC || changed_it_last);
            if (in_turn || !(old.bytes & access.bytes) || is_before(old, thread, for_copies)) continue;
            fail_with(std::string("a race in ") + memory_name(place) + " memory: " + deed(access) +
                      "; nothing orders it behind this: " + deed(old));
        }
    }
    if (access.kind == READ) {
        if (cell.reads.size() >= cell.many) {
            forget_before(cell.reads, access, thread, for_copies);
            cell.many = 2 * cell.reads.size() + 8;
        }
        cell.reads.push_back(access);
    } else {
        forget_before(cell.reads, access, thread, for_copies);
        forget_before(cell.changes, access, thread, for_copies);
        cell.changes.push_back(access);
    }
}

static void visit(Access access, unsigned thread, const void* memory, size_t size, bool for_copies = false) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory), end = begin + size;
    for (const Gone& region : gone) {
        if (begin < region.end && end > region.begin) {
            fail_with(deed(access) + ", in the memory of a block that has ended");
        }
    }
    bool changed_it_last = false;
    if (!atomics.empty()) {
        const auto found = atomics.find(memory);
        changed_it_last = found != atomics.end() && found->second.cluster == cluster &&
                          found->second.thread == thread;
    }
    for (uintptr_t place = begin; place < end; place = place / 4 * 4 + 4) {
        const uintptr_t first = place % 4, last = std::min<uintptr_t>(4, end - place / 4 * 4);
        access.bytes = static_cast<unsigned char>((1u << last) - (1u << first));
        enter(cell_of(place), access, thread, for_copies, changed_it_last, place);
    }
}

// An access of a thread by the instruction before `line`, or within a function of host.h.
static Access access_of(unsigned thread, Kind kind, const void* line = nullptr) {
    const std::vector<const void*>& calls = agents[thread].calls;
    size_t depth = calls.size();
    if (!line && depth) line = calls[--depth];
    const void* caller = depth ? calls[depth - 1] : nullptr;
    return {history->launches, cluster, thread, agents[thread].time, 0, kind, line, caller};
}

static void instruction(Kind kind, const void* memory, size_t size, bool whole, const void* line) {
    if (current < 0) return;
    const char* byte = static_cast<const char*>(memory);
    const char* stack = fibers[current].stack;
    if (byte >= stack && byte < stack + HOST_STACK) return;
    const char* own = reinterpret_cast<const char*>(lanes.data());
    if (byte >= own && byte < own + lanes.size() * sizeof(Lane)) return;
    const Access access = access_of(current, kind, line);
    if (whole && reinterpret_cast<uintptr_t>(memory) % size) {
        fail_with(deed(access) + " " + std::to_string(size) + " bytes that are not aligned to their size");
    }
    visit(access, current, memory, size);
}

// ------------------------------------------------------------------------------------------ what happens

void begin_launch(Launch& launch) {
    if (!launch.history) launch.history = new History();
    history = static_cast<History*>(launch.history);
    if (!launch.early) history->pages.clear();
    ++history->launches;
    page_number = 0;
    atomics.clear();
}

void begin_cluster(unsigned first_block, int blocks) {
    cluster = first_block;
    agents.assign(size_t(threads) * blocks, Agent());
    for (Agent& agent : agents) {
        agent.time = 1;
        agent.followed = !now->early;
    }
    gates_of_copies.clear();
    meetings.clear();
    gone.clear();
}

void forget(const void* memory, size_t size) {
    for (size_t i = 0; i < size; i += 4) {
        const uintptr_t place = reinterpret_cast<uintptr_t>(memory) + i;
        const auto found = history->pages.find(place / PAGE);
        if (found != history->pages.end()) (*found->second)[place % PAGE / 4] = Cell();
    }
}

// All that others did with the memory of a block must be before the end of one of its threads.
void end_block(int block, const void* memory, size_t size) {
    Times end;
    for (int i = 0; i < threads; ++i) {
        const unsigned thread = block * threads + i;
        join(end, agents[thread].seen);
        add_own(end, thread);
    }
    for (size_t i = 0; i < size; i += 4) {
        const uintptr_t place = reinterpret_cast<uintptr_t>(memory) + i;
        const auto found = history->pages.find(place / PAGE);
        if (found == history->pages.end()) continue;
        const Cell& cell = (*found->second)[place % PAGE / 4];
        for (const std::vector<Access>* accesses : {&cell.changes, &cell.reads}) {
            for (const Access& access : *accesses) {
                if (access.agent < end.size() && access.time <= end[access.agent]) continue;
                failure = "block " + std::to_string(cluster + block) + " may end before this: " + deed(access);
                return;
            }
        }
    }
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
    gone.push_back({begin, begin + size});
}

void meet(int first, int count) {
    Times together;
    SeenOfClusters elsewhere, acquired;
    Seen last;
    bool followed = false;
    for (int i = first; i < first + count; ++i) {
        followed = followed || agents[i].followed;
        if (agents[i].seen != last) join(together, agents[i].seen);
        last = agents[i].seen;
        join(elsewhere, agents[i].elsewhere);
        join(acquired, agents[i].acquired);
    }
    for (int i = first; i < first + count; ++i) add_own(together, i);
    const Seen seen = std::make_shared<const Times>(std::move(together));
    for (int i = first; i < first + count; ++i) {
        agents[i].seen = seen;
        agents[i].followed = followed;
        agents[i].elsewhere = elsewhere;
        agents[i].acquired = acquired;
        ++agents[i].time;
    }
}

void arrive(int thread) {
    Agent& agent = agents[thread];
    if (meetings.size() <= agent.arrivals) meetings.push_back({});
    Meeting& meeting = meetings[agent.arrivals++];
    if (agent.seen != meeting.last) join(meeting.times, agent.seen);
    add_own(meeting.times, thread);
    meeting.followed = meeting.followed || agent.followed;
    ++agent.time;
    agent.seen_at_arrival = meeting.last = agent.seen;
}

void leave(int thread) {
    Agent& agent = agents[thread];
    Meeting& meeting = meetings[agent.arrivals - 1];
    if (!meeting.together) meeting.together = std::make_shared<const Times>(std::move(meeting.times));
    const bool unchanged = agent.seen == agent.seen_at_arrival;
    agent.followed = agent.followed || meeting.followed;
    agent.seen = unchanged ? meeting.together : joined(agent.seen, meeting.together);
}

void follow(int thread) { agents[thread].followed = true; }

void fence(int thread) {
    Agent& agent = agents[thread];
    agent.fenced = agent.time;
    for (const auto& entry : agent.acquired) {
        if (entry.first == cluster) {
            agent.seen = joined(agent.seen, entry.second);
        } else {
            agent.elsewhere[entry.first] = joined(agent.elsewhere[entry.first], entry.second);
        }
    }
    agent.acquired.clear();
    agent.released = agent.elsewhere;
    agent.released[cluster] = release(thread);
}

// It hands over what was before the last fence of this thread, and what other threads had fenced before it met them.
void atomic(int thread, const void* place, size_t size) {
    Agent& agent = agents[thread];
    Atomic& own = atomics[place];
    join(agent.acquired, own.released);
    join(own.released, agent.released);
    Times fenced(N());
    for (unsigned other = 0; other < N(); ++other) fenced[other] = at(agent.seen, fenced_by(other));
    own.released[cluster] = joined(own.released[cluster], std::make_shared<const Times>(std::move(fenced)));
    visit(access_of(thread, ATOMIC), thread, place, size);
    own.cluster = cluster;
    own.thread = thread;
}

void begin_copy(int thread, const void* to, const void* from, size_t size) {
    for (const Kind kind : {READ, WRITE}) {
        Access access = access_of(thread, kind);
        access.agent = copies_of(thread);
        access.time = agents[thread].groups + 1;
        const void* memory = kind == READ ? from : to;
        if (memory) visit(access, thread, memory, size);
    }
}
void end_group(int thread) { ++agents[thread].groups; }
void complete_groups(int thread, size_t later) {
    Agent& agent = agents[thread];
    if (agent.groups > later) agent.complete = std::max<unsigned>(agent.complete, agent.groups - later);
}

static void use_gate(int thread, const void* gate) {
    visit(access_of(thread, READ), thread, gate, sizeof(unsigned long long));
}

void make_gate(int thread, const void* gate) {
    const unsigned number = 4 * N() + static_cast<unsigned>(gates_of_copies.size());
    gates_of_copies.insert({gate, {number, 0, nullptr, nullptr, nullptr, nullptr}});
    visit(access_of(thread, WRITE), thread, gate, sizeof(unsigned long long));
}

void announce(int thread, const void* gate) {
    use_gate(thread, gate);
    GateOfCopies& own = gates_of_copies.at(gate);
    own.announced = joined(own.announced, release(thread));
}

void begin_copy_through(int thread, const void* gate, const void* to, const void* from, size_t size) {
    use_gate(thread, gate);
    const GateOfCopies& own = gates_of_copies.at(gate);
    for (const Kind kind : {READ, WRITE}) {
        Access access = access_of(thread, kind);
        access.agent = own.number;
        access.time = own.openings + 1;
        visit(access, thread, kind == READ ? from : to, size, true);
    }
}

void open_gate(const void* gate) {
    GateOfCopies& own = gates_of_copies.at(gate);
    Times times = own.announced ? *own.announced : Times();
    times.resize(std::max<size_t>(times.size(), own.number + 1));
    times[own.number] = ++own.openings;
    own.opened = std::make_shared<const Times>(std::move(times));
    own.passed = nullptr;
}

void pass_gate(int thread, const void* gate) {
    use_gate(thread, gate);
    GateOfCopies& own = gates_of_copies.at(gate);
    if (!own.passed || own.passing != agents[thread].seen) {
        own.passing = agents[thread].seen;
        own.passed = joined(own.passing, own.opened);
    }
    agents[thread].seen = own.passed;
}

void yield_to_copies(int thread) {
    agents[thread].yielded = agents[thread].time;
    ++agents[thread].time;
}

void read(int thread, const void* place, size_t size) {
    visit(access_of(thread, READ), thread, place, size);
}

}  // namespace races
}  // namespace host

// ------------------------------------------------------------------------------------------ what g++ calls

#define LINE __builtin_return_address(0)
#define ACCESSES(size)                                                                                        \
    extern "C" void __tsan_read##size(void* p) { host::races::instruction(host::races::READ, p, size, true, LINE); } \
    extern "C" void __tsan_write##size(void* p) { host::races::instruction(host::races::WRITE, p, size, true, LINE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
extern "C" void __tsan_volatile_write4(void* p) {
    host::races::instruction(host::races::ATOMIC, p, 4, true, LINE);
}
extern "C" void __tsan_read_range(void* p, size_t size) {
    host::races::instruction(host::races::READ, p, size, false, LINE);
}
extern "C" void __tsan_write_range(void* p, size_t size) {
    host::races::instruction(host::races::WRITE, p, size, false, LINE);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void* caller) {
    if (host::current >= 0) host::races::agents[host::current].calls.push_back(caller);
}
extern "C" void __tsan_func_exit() {
    if (host::current >= 0) host::races::agents[host::current].calls.pop_back();
}
