// libnccl's all-reduce and broadcast between processes of one machine, over a file in /dev/shm.
//
// A group is a file named by its unique id: a barrier, and one slot a rank.  A collective goes over the data in pieces of a
// slot: every rank puts its piece into its slot, all meet, every rank adds up the slots in the order of ranks, all meet.
// So the sum has the same bits on every rank.  The work is done where that of a stream is: at the call, or, with
// HOSTGPU_LAZY=1, when something waits for the stream; a graph repeats it.
#include "core.h"
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <atomic>
#include <random>
#include <string>

#define API extern "C" __attribute__((visibility("default")))
enum { OK = 0, UNHANDLED = 1, SYSTEM = 2, INTERNAL = 3, ARGUMENT = 4, USAGE = 5 };
enum { SUM = 0, FLOAT32 = 7, FLOAT64 = 8 };

static const size_t SLOT = 1 << 20;
struct Id { char name[128]; };
struct Shared { std::atomic<int> arrived, round; };
struct Group { Shared* shared; char* slots; size_t bytes; std::string path; int size, rank; };
#define G ((Group*)group)

static void meet(Group* g) {
  int round = g->shared->round.load();
  if (g->shared->arrived.fetch_add(1) + 1 == g->size) { g->shared->arrived = 0; g->shared->round = round + 1; return; }
  for (int i = 0; g->shared->round.load() == round; ++i) if (i < 100) sched_yield(); else usleep(50);
}

API int ncclGetVersion(int* v) { *v = 22705; return OK; }
API const char* ncclGetErrorString(int e) {
  static const char* words[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage"};
  return e >= 0 && e < 6 ? words[e] : "unknown error";
}
API int ncclGetUniqueId(Id* id) {
  std::random_device random;
  memset(id, 0, sizeof *id);
  snprintf(id->name, sizeof id->name, "/dev/shm/hostgpu-nccl-%d-%08x%08x", (int)getpid(), random(), random());
  return OK;
}

static int join(void** out, int size, Id id, int rank) {
  if (size < 1 || rank < 0 || rank >= size) return ARGUMENT;
  std::string path = id.name;
  int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  size_t bytes = 4096 + SLOT * size;
  if (fd < 0 || ftruncate(fd, bytes)) { if (fd >= 0) close(fd); return SYSTEM; }   // new bytes are zero
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at == MAP_FAILED) return SYSTEM;
  auto* g = new Group{(Shared*)at, (char*)at + 4096, bytes, path, size, rank};
  meet(g);
  unlink(path.c_str());                                     // what is mapped stays until the last rank ends
  *out = g;
  return OK;
}
API int ncclCommInitRank(void** group, int size, Id id, int rank) { return join(group, size, id, rank); }
API int ncclCommInitRankConfig(void** group, int size, Id id, int rank, void*) { return join(group, size, id, rank); }
API int ncclCommDestroy(void* group) { munmap(G->shared, G->bytes); delete G; return OK; }
API int ncclCommAbort(void* group) { return ncclCommDestroy(group); }
API int ncclCommCount(void* group, int* n) { *n = G->size; return OK; }
API int ncclCommUserRank(void* group, int* n) { *n = G->rank; return OK; }
API int ncclCommGetAsyncError(void*, int* e) { *e = OK; return OK; }
API int ncclGroupStart() { return OK; }
API int ncclGroupEnd() { return OK; }

template <class T> static void add(Group* g, const T* in, T* out, size_t count) {
  const size_t most = SLOT / sizeof(T);
  for (size_t first = 0; first < count; first += most) {
    size_t n = count - first < most ? count - first : most;
    memcpy(g->slots + SLOT * g->rank, in + first, n * sizeof(T));
    meet(g);
    for (size_t i = 0; i < n; ++i) {
      T sum = ((T*)g->slots)[i];
      for (int rank = 1; rank < g->size; ++rank) sum += ((T*)(g->slots + SLOT * rank))[i];
      out[first + i] = sum;
    }
    meet(g);
  }
}
static bool usable(const void* p, HgStream s, const char* what) { return hg_usable(hg_stream_device(s), p, what); }

API int ncclAllReduce(const void* in, void* out, size_t count, int type, int op, void* group, HgStream s) {
  if ((type != FLOAT32 && type != FLOAT64) || op != SUM) { hg_log("ncclAllReduce: only sums of float32 and float64"); return ARGUMENT; }
  if (!usable(in, s, "ncclAllReduce") || !usable(out, s, "ncclAllReduce")) return ARGUMENT;
  Group* g = G;
  return hg_submit(s, "ncclAllReduce", [=] {
    if (type == FLOAT32) add(g, (const float*)in, (float*)out, count); else add(g, (const double*)in, (double*)out, count);
    return 0;
  }) ? UNHANDLED : OK;
}
API int ncclBroadcast(const void* in, void* out, size_t count, int type, int root, void* group, HgStream s) {
  static const int widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  if (type < 0 || type > 9 || root < 0 || root >= G->size) return ARGUMENT;
  if (!usable(out, s, "ncclBroadcast") || (G->rank == root && !usable(in, s, "ncclBroadcast"))) return ARGUMENT;
  Group* g = G; size_t bytes = count * widths[type];
  return hg_submit(s, "ncclBroadcast", [=] {
    for (size_t first = 0; first < bytes; first += SLOT) {
      size_t n = bytes - first < SLOT ? bytes - first : SLOT;
      if (g->rank == root) memcpy(g->slots, (const char*)in + first, n);
      meet(g);
      memcpy((char*)out + first, g->slots, n);
      meet(g);
    }
    return 0;
  }) ? UNHANDLED : OK;
}
API int ncclBcast(void* buffer, size_t count, int type, int root, void* group, HgStream s) { return ncclBroadcast(buffer, buffer, count, type, root, group, s); }

#define NOT_SIMULATED(name) API int name() { hg_log(#name " is not simulated"); return INTERNAL; }
NOT_SIMULATED(ncclAllGather) NOT_SIMULATED(ncclCommCuDevice) NOT_SIMULATED(ncclCommInitAll) NOT_SIMULATED(ncclCommSplit) NOT_SIMULATED(ncclRecv)
NOT_SIMULATED(ncclReduce) NOT_SIMULATED(ncclReduceScatter) NOT_SIMULATED(ncclSend)
