// The engine's own threads: one team, lent to one call at a time.
//
// A call that finds the team busy (another Python thread is in the engine) works alone; results do not depend on the
// number of threads, so nobody notices but the clock.  After a fork the child starts with a fresh team.
#ifndef GPULSTM_CPU_THREADS_H
#define GPULSTM_CPU_THREADS_H

#include <stddef.h>

#include <atomic>

namespace gpulstm {

typedef void (*Work)(void* context, int member);

// Between begin and end the team belongs to the calling thread; begin returns how many of the `asked` members it has.
int team_begin(int asked);
// Runs work(context, member) for member 0 .. count-1, member 0 on the calling thread; returns when all are done.
void team_run(int count, Work work, void* context);
void team_end();

// Memory for the call that holds the team, kept for the next one; a call without the team gets its own.  Aligned to 64
// bytes, not cleared; null when memory is short.  Valid until team_end.
void* team_memory(size_t bytes);

constexpr int BARRIERS = 64;
// Waits until `members` members have come to barrier `which`: spins briefly, then yields.
void team_wait(int which, int members);
// Waits until another thread has brought `count` to `least`.
void team_wait_for(const std::atomic<long>& count, long least);

}  // namespace gpulstm

#endif
