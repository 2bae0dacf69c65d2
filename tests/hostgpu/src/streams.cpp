// Streams and events: work is run at once, queued, or recorded into a graph.
#include "streams.h"
#include <stdio.h>
#include <algorithm>

static Stream g_legacy[kMaxDev];      // the default stream of each device
bool is_legacy(Stream* s) { return s >= g_legacy && s < g_legacy + kMaxDev; }
std::set<Stream*> g_streams;
static std::set<Event*> g_events;

static uint64_t g_seq;

Stream* get_stream(HgStream h) {
  if (h == nullptr || h == (void*)1 || h == (void*)2) { g_legacy[t_dev].dev = t_dev; return &g_legacy[t_dev]; }
  Stream* s = (Stream*)h;
  return g_streams.count(s) && !s->gone ? s : nullptr;
}
int g_async_err;
static int g_running;    // g_running: nested calls of run_upto, whose streams must stay
static int run_upto(Stream* s, uint64_t seq);
static int run_op(Stream* s, Op& op) {
  // the legacy stream and blocking streams wait for one another
  if (kLazy) {
    if (is_legacy(s)) { for (Stream* o : std::vector<Stream*>(g_streams.begin(), g_streams.end())) if (!o->nonblocking && o->dev == s->dev) run_upto(o, op.seq); }
    else if (!s->nonblocking) run_upto(&g_legacy[s->dev], op.seq);
  }
  if (g_sticky) return g_sticky;
  int e = op.fn();
  if (kVerbose) hg_log("ran %s -> %d", op.what, e);
  return e;
}
static int run_upto(Stream* s, uint64_t seq) {   // run the queued operations older than seq
  int e = 0;
  ++g_running;
  while (!s->q.empty() && s->q.front().seq < seq) {
    Op op = std::move(s->q.front());
    s->q.pop_front();
    int r = run_op(s, op);
    if (r && !e) e = r;
  }
  --g_running;
  if (e && !g_async_err) g_async_err = e;
  return e;
}
static void bury() {                            // streams that were destroyed and have nothing left to do
  if (g_running) return;
  for (auto it = g_streams.begin(); it != g_streams.end();) {
    Stream* s = *it;
    if (!s->gone || !s->q.empty()) { ++it; continue; }
    for (Event* e : g_events) if (e->s == s) e->s = nullptr;
    it = g_streams.erase(it);
    delete s;
  }
}
static int flush(Stream* s) {
  run_upto(s, ~0ull);
  int e = g_async_err; g_async_err = 0;
  return e;
}
static int flush_legacy(int dev) {
  if (kLazy) for (Stream* o : std::vector<Stream*>(g_streams.begin(), g_streams.end())) if (!o->nonblocking && o->dev == dev) run_upto(o, ~0ull);
  return flush(&g_legacy[dev]);
}
int flush_device(int dev) {
  std::vector<Stream*> v(g_streams.begin(), g_streams.end());
  for (auto it = v.rbegin(); it != v.rend(); ++it) if ((*it)->dev == dev) run_upto(*it, ~0ull);
  return flush(&g_legacy[dev]);
}
void flush_all() { int e = 0; for (int d = 0; d < kDevs; ++d) if (int r = flush_device(d)) e = r; if (e) g_async_err = e; }

int submit(HgStream h, const char* what, OpKind kind, Tally* tally, std::function<int()> fn) {
  Lock l;
  Stream* s = get_stream(h);
  if (!s) { hg_log("%s: not a stream: %p", what, h); return HG_EBADHANDLE; }
  if (g_sticky) return g_sticky;
  bool skip = kNull && (kind == OP_KERNEL || kind == OP_BLAS || kind == OP_LIB);
  if (skip) fn = nullptr;
  if (s->cap) {
    Capture* c = s->cap.get();
    if (c->invalid) return HG_ECAPINVAL;
    ++g_stats.captured_nodes;
    c->graph->ops.push_back(Op{std::move(fn), what, 0, kind, tally});
    c->last[s] = c->graph->ops.size();
    return 0;
  }
  if (is_legacy(s)) { if (int e = legacy_check(s->dev)) return e; }
  if (kind == OP_KERNEL) ++g_stats.launches; else if (kind == OP_BLAS) ++g_stats.blas; else if (kind == OP_LIB) ++g_stats.lib; else if (kind == OP_MEMSET) ++g_stats.memsets;
  if (tally) ++tally->direct;
  if (skip) return 0;
  Op op{std::move(fn), what, g_seq++, kind, tally};
  if (kLazy) { s->q.push_back(std::move(op)); return 0; }
  return run_op(s, op);
}
__attribute__((visibility("default"))) int hg_submit(HgStream h, const char* what, std::function<int()> fn, bool blas) {
  Lock l;
  return submit(h, what, blas ? OP_BLAS : OP_LIB, tally_call(what, blas ? 'b' : 'l'), std::move(fn));
}
bool stream_capturing(HgStream h) { Stream* s = get_stream(h); return s && s->cap; }
API int hg_stream_device(HgStream h) { Lock l; Stream* s = get_stream(h); return s ? s->dev : -1; }
int stream_sync(HgStream h) {
  Stream* s = get_stream(h);
  if (!s) return HG_EBADHANDLE;
  if (int e = sync_check(s, "synchronize")) return e;
  int e = is_legacy(s) ? flush_legacy(s->dev) : flush(s);
  return e ? e : g_sticky;
}
API int hg_stream_wait(HgStream h) { Lock l; ++g_stats.sync_implicit; return stream_sync(h); }

// --- streams
static int stream_new(HgStream* out, unsigned flags, int prio) {
  L0;
  bury();
  auto* s = new Stream; s->nonblocking = flags & 1; s->flags = flags; s->priority = prio; s->dev = t_dev;
  g_streams.insert(s);
  *out = s;
  return 0;
}
API int cudaStreamCreate(HgStream* s) { return stream_new(s, 0, 0); }
API int cudaStreamCreateWithFlags(HgStream* s, unsigned f) { return stream_new(s, f, 0); }
API int cudaStreamCreateWithPriority(HgStream* s, unsigned f, int p) { return stream_new(s, f, std::max(-5, std::min(0, p))); }
API int cudaStreamGetFlags(HgStream h, unsigned* f) { L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE); *f = s->flags; return 0; }
API int cudaStreamGetPriority(HgStream h, int* p) { L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE); *p = s->priority; return 0; }
API int cudaStreamDestroy(HgStream h) {
  Lock l;
  Stream* s = get_stream(h);
  if (!s || is_legacy(s)) return ret(HG_EBADHANDLE);
  if (s->cap) { s->cap->invalid = true; s->cap->members.erase(s); if (s->cap->origin == s) { for (Stream* o : s->cap->members) if (o != s) o->cap.reset(); g_caps.erase(s->cap.get()); } }
  s->cap.reset();
  s->gone = true;                                // returns at once, as on a GPU: in lazy mode its work may be still to come
  bury();
  return 0;
}
API int cudaStreamSynchronize(HgStream h) { Lock l; ++g_stats.sync_stream; int e = stream_sync(h); fflush(stdout); return ret(e); }
API int cudaStreamQuery(HgStream h) {
  L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE);
  ++g_stats.queries;
  if (int e = sync_check(s, "query")) return ret(e);
  if (!s->q.empty()) { run_upto(s, s->q.front().seq + 1); return s->q.empty() ? 0 : HG_ENOTREADY; }   // polling makes progress
  return 0;
}
struct HostCall { void (*f)(void*); };
API int cudaLaunchHostFunc(HgStream h, void (*f)(void*), void* ud) { Lock l; ++g_stats.host_funcs; return ret(submit(h, "host function", OP_OTHER, nullptr, [=] { Unlock u; f(ud); return 0; })); }
API int cudaStreamAddCallback(HgStream h, void (*f)(HgStream, int, void*), void* ud, unsigned) {
  Lock l;
  Stream* s = get_stream(h);
  if (s && s->cap) { s->cap->invalid = true; return ret(HG_ECAPUNSUP); }
  ++g_stats.host_funcs;
  return ret(submit(h, "stream callback", OP_OTHER, nullptr, [=] { Unlock u; f(h, 0, ud); return 0; }));
}

// --- events
API int cudaEventCreateWithFlags(void** e, unsigned f) { L0; auto* v = new Event; v->flags = f; v->dev = t_dev; g_events.insert(v); *e = v; return 0; }
API int cudaEventCreate(void** e) { return cudaEventCreateWithFlags(e, 0); }
static Event* get_event(void* e) { return g_events.count((Event*)e) ? (Event*)e : nullptr; }
static void event_wait(Event* e) {               // until it is done, run the stream it was recorded on
  while (!e->done && e->s && !e->s->q.empty()) run_upto(e->s, e->s->q.front().seq + 1);
  e->done = true;
}
API int cudaEventDestroy(void* h) { Lock l; Event* e = get_event(h); if (!e) return ret(HG_EBADHANDLE); g_events.erase(e); delete e; return 0; }   // does not wait
static int event_record(Event* e, HgStream h) {
  Stream* s = get_stream(h);
  if (!s) return HG_EBADHANDLE;
  if (s->dev != e->dev) { hg_log("an event of device %d is recorded on a stream of device %d", e->dev, s->dev); return HG_EBADHANDLE; }
  ++g_stats.event_records;
  if (s->cap) {
    if (s->cap->invalid) return HG_ECAPINVAL;
    e->cap = s->cap; e->cap_pos = s->cap->graph->ops.size(); e->cap_stream = s;
    return 0;
  }
  e->cap.reset(); e->recorded = true; e->done = false; e->s = s; uint64_t my = e->seq = g_seq;
  return submit(h, "event record", OP_OTHER, nullptr, [=] { if (g_events.count(e) && e->seq == my) { e->t = now_s(); e->done = true; } return 0; });
}
API int cudaEventRecord(void* h, HgStream s) { L0; Event* e = get_event(h); return ret(e ? event_record(e, s) : HG_EBADHANDLE); }
API int cudaEventRecordWithFlags(void* h, HgStream s, unsigned) { return cudaEventRecord(h, s); }
API int cudaEventQuery(void* h) {
  L0; Event* e = get_event(h); if (!e) return ret(HG_EBADHANDLE);
  ++g_stats.queries;
  if (e->cap) return ret(HG_ECAPEVENT);
  if (!e->done && e->s && !e->s->q.empty()) run_upto(e->s, e->s->q.front().seq + 1);
  return e->done ? 0 : HG_ENOTREADY;
}
API int cudaEventSynchronize(void* h) {
  L0; Event* e = get_event(h); if (!e) return ret(HG_EBADHANDLE);
  ++g_stats.sync_event;
  if (e->cap) { invalidate(e->cap.get()); return ret(HG_ECAPEVENT); }
  event_wait(e);
  int r = g_async_err; g_async_err = 0;
  return ret(r);
}
API int cudaEventElapsedTime(float* ms, void* a, void* b) {
  L0; Event *x = get_event(a), *y = get_event(b);
  if (!x || !y) return ret(HG_EBADHANDLE);
  if (x->cap || y->cap) return ret(HG_ECAPEVENT);
  if (!x->recorded || !y->recorded || (x->flags & 2) || (y->flags & 2)) return ret(HG_EBADHANDLE);
  if (!x->done || !y->done) return HG_ENOTREADY;
  *ms = (float)((y->t - x->t) * 1e3);
  return 0;
}
API int cudaEventElapsedTime_v2(float* ms, void* a, void* b) { return cudaEventElapsedTime(ms, a, b); }
API int cudaStreamWaitEvent(HgStream h, void* ev, unsigned) {
  L0; Event* e = get_event(ev); Stream* s = get_stream(h);
  if (!e || !s) return ret(HG_EBADHANDLE);
  ++g_stats.event_waits;
  if (e->cap) {
    if (e->cap->invalid || !g_caps.count(e->cap.get())) return ret(HG_ECAPINVAL);
    if (s->cap && s->cap != e->cap) return ret(902);
    if (!s->cap) {
      if (is_legacy(s)) { invalidate(e->cap.get()); return ret(HG_ECAPIMPL); }
      s->cap = e->cap; s->cap->members.insert(s);               // the other stream joins the capture
      s->cap->last[s] = s->cap->graph->ops.size();
    }
    // what s waits for: the event's stream up to the event, and all that stream had joined by then
    Capture* c = e->cap.get();
    if (s == c->origin) { auto& j = c->joined[e->cap_stream]; j = std::max(j, e->cap_pos); }
    else if (e->cap_stream != c->origin && e->cap_stream != s) { auto& j = c->joined[e->cap_stream]; j = std::max(j, e->cap_pos); c->last[s] = std::max(c->last[s], e->cap_pos + 1); }
    return 0;
  }
  if (s->cap) {
    if (!e->recorded) return 0;
    invalidate(s->cap.get()); hg_log("a capturing stream waits for an event recorded outside the capture");
    return ret(HG_ECAPISO);
  }
  if (!e->recorded || e->done) return 0;
  uint64_t seq = e->seq; Stream* from = e->s;
  return ret(submit(h, "wait event", OP_OTHER, nullptr, [=] { if (from && (is_legacy(from) || g_streams.count(from))) run_upto(from, seq + 1); return 0; }));
}
