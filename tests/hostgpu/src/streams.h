// Streams, events, captures and graphs, and how work is put on a stream.
#pragma once
#include "device.h"
#include <deque>
#include <map>
#include <memory>
#include <set>

enum OpKind : unsigned char { OP_OTHER, OP_KERNEL, OP_BLAS, OP_LIB, OP_COPY, OP_MEMSET };
struct Op { std::function<int()> fn; const char* what; uint64_t seq; OpKind kind; Tally* tally; };   // fn empty: HOSTGPU_NULL
struct Graph {
  std::vector<Op> ops;
  uint64_t runs = 0;                  // replays that are not yet in the counters
  void fold();                        // brings the counters up to date
  ~Graph() { fold(); }
};
struct Stream;
struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Stream* origin; int mode; bool invalid = false;
  std::set<Stream*> members;
  std::map<Stream*, size_t> last;     // op count when a member stream last did something
  std::map<Stream*, size_t> joined;   // ... and what of it the origin has waited for
};
struct Stream {
  bool nonblocking = false; unsigned flags = 0; int priority = 0, dev = 0;
  bool gone = false;                  // destroyed by the program; what it still holds is done when something waits for it
  std::deque<Op> q;
  std::shared_ptr<Capture> cap;
};
struct Event {
  unsigned flags = 0; int dev = 0; bool recorded = false, done = true; double t = 0; uint64_t seq = 0;
  Stream* s = nullptr;
  std::shared_ptr<Capture> cap; size_t cap_pos = 0; Stream* cap_stream = nullptr;
};

// streams.cpp
extern std::set<Stream*> g_streams;
extern int g_async_err;
Stream* get_stream(HgStream h);                          // null: not a stream
bool is_legacy(Stream* s);                               // the default stream of a device
bool stream_capturing(HgStream h);
int submit(HgStream h, const char* what, OpKind kind, Tally* tally, std::function<int()> fn);
int stream_sync(HgStream h);
int flush_device(int dev);
void flush_all();

// graphs.cpp
extern std::set<Capture*> g_caps;                        // that are going on
void invalidate(Capture* c);
int legacy_check(int dev);                               // each check: 0, or the error after making captures invalid
int unsafe_check(const char* what);
int sync_check(Stream* s, const char* what);
int any_capture_check(const char* what);
