// What tells races.cpp of everything that puts the accesses of a kernel in an order; see there.
//
// A thread is a fiber: one of the cluster that runs, counted over its blocks.

#pragma once

#include <stddef.h>

#if defined(HOST_RACES)
#define WATCHED(event) ::host::races::event

namespace host {

struct Launch;

namespace races {

void begin_launch(Launch& launch);
void begin_cluster(unsigned first_block, int blocks);
// The memory of a block, all of whose threads have returned; memory that will hold other things from here on.
void end_block(int block, const void* memory, size_t size);
void forget(const void* memory, size_t size);
// Threads are at one barrier, of a block or a warp; the two halves of a barrier of the cluster.
void meet(int first, int count);
void arrive(int thread);
void leave(int thread);
// Of a kernel that begins early: the kernels before have ended for this thread.
void follow(int thread);
// __threadfence, and an atomic operation.
void fence(int thread);
void atomic(int thread, const void* place, size_t size);
// Copies that a thread begins, their groups, and how many groups are complete.
void begin_copy(int thread, const void* to, const void* from, size_t size);
void end_group(int thread);
void complete_groups(int thread, size_t later);
// Gates, copies through them, and the fence between what a thread has written and such copies.
void make_gate(int thread, const void* gate);
void announce(int thread, const void* gate);
void begin_copy_through(int thread, const void* gate, const void* to, const void* from, size_t size);
void open_gate(const void* gate);
void pass_gate(int thread, const void* gate);
void yield_to_copies(int thread);
// What an instruction of a whole warp reads for a lane.
void read(int thread, const void* place, size_t size);

}  // namespace races
}  // namespace host

#else
#define WATCHED(event) ((void)0)
#endif
