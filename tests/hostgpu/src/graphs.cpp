// Capture of streams, what is not allowed meanwhile, and graphs.
#include "streams.h"
#include <stdio.h>

static std::map<Graph*, std::shared_ptr<Graph>> g_graphs, g_execs;
std::set<Capture*> g_caps;

void invalidate(Capture* c) { c->invalid = true; }
// An operation that would wait for the whole legacy stream is not allowed while a
// blocking stream captures.
int legacy_check(int dev) {
  if (g_caps.empty()) return 0;
  int e = 0;
  for (Stream* s : g_streams) if (s->cap && !s->nonblocking && s->dev == dev) { invalidate(s->cap.get()); e = HG_ECAPIMPL; }
  if (e) hg_log("use of the legacy default stream while a blocking stream is being captured");
  return e;
}
// Calls that CUDA lists as unsafe during a capture in mode "global"
int unsafe_check(const char* what) {
  for (Capture* c : g_caps) if (c->mode == 0) { invalidate(c); hg_log("%s during a stream capture in global mode", what); return HG_ECAPUNSUP; }
  return 0;
}
int sync_check(Stream* s, const char* what) {
  if (s->cap) { invalidate(s->cap.get()); hg_log("%s on a stream that is being captured", what); return HG_ECAPUNSUP; }
  return 0;
}
int any_capture_check(const char* what) {
  for (Capture* c : g_caps) { invalidate(c); hg_log("%s while a stream is being captured", what); return HG_ECAPUNSUP; }
  return 0;
}

void Graph::fold() {
  if (!runs) return;
  g_stats.graph_nodes += runs * ops.size();
  for (Op& o : ops) {
    uint64_t* c = o.kind == OP_KERNEL ? &g_stats.graph_kernels : o.kind == OP_BLAS ? &g_stats.graph_blas : o.kind == OP_LIB ? &g_stats.graph_lib
                : o.kind == OP_COPY ? &g_stats.graph_copies : o.kind == OP_MEMSET ? &g_stats.graph_memsets : nullptr;
    if (c) *c += runs;
    if (o.tally) o.tally->graph += runs;
  }
  runs = 0;
}
void stats_fold() { for (auto& g : g_execs) g.second->fold(); }

API int cudaStreamBeginCapture(HgStream h, int mode) {
  L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE);
  if (is_legacy(s)) { hg_log("the legacy default stream cannot be captured"); return ret(HG_ECAPUNSUP); }
  if (s->cap) return ret(HG_EILLSTATE);
  s->cap = std::make_shared<Capture>();
  s->cap->origin = s; s->cap->mode = mode; s->cap->members.insert(s);
  g_caps.insert(s->cap.get());
  return 0;
}
API int cudaStreamEndCapture(HgStream h, void** out) {
  L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE);
  *out = nullptr;
  if (!s->cap) return ret(HG_EILLSTATE);
  auto c = s->cap;
  if (c->origin != s) { c->invalid = true; return ret(HG_ECAPUNMATCHED); }
  int e = c->invalid || fails("capture") ? HG_ECAPINVAL : 0;
  for (Stream* o : c->members) if (o != s && !e && (!c->joined.count(o) || c->joined[o] < c->last[o])) e = HG_ECAPUNJOINED;
  for (Stream* o : c->members) o->cap.reset();
  s->cap.reset();
  g_caps.erase(c.get());
  if (e) return ret(e);
  g_graphs[c->graph.get()] = c->graph;
  ++g_stats.graph_captures;
  *out = c->graph.get();
  return 0;
}
API int cudaStreamIsCapturing(HgStream h, int* st) {
  L0; Stream* s = get_stream(h); if (!s) return ret(HG_EBADHANDLE);
  if (is_legacy(s)) { for (Stream* o : g_streams) if (o->cap && !o->nonblocking && o->dev == s->dev) return ret(HG_ECAPIMPL); }
  *st = s->cap ? (s->cap->invalid ? 2 : 1) : 0;
  return 0;
}
API int cudaGraphCreate(void** out, unsigned) { L0; auto g = std::make_shared<Graph>(); g_graphs[g.get()] = g; *out = g.get(); return 0; }
API int cudaGraphInstantiate(void** out, void* g, unsigned long long) {
  L0; auto it = g_graphs.find((Graph*)g); if (it == g_graphs.end()) return ret(HG_EINVAL);
  if (fails("graph_instantiate")) return ret(HG_ENOMEM);
  auto x = std::make_shared<Graph>();
  x->ops = it->second->ops;
  ++g_stats.graph_instantiations;
  g_execs[x.get()] = x;
  *out = x.get();
  return 0;
}
API int cudaGraphInstantiateWithFlags(void** out, void* g, unsigned long long f) { return cudaGraphInstantiate(out, g, f); }
API int cudaGraphLaunch(void* x, HgStream h) {
  L0; auto it = g_execs.find((Graph*)x); if (it == g_execs.end()) return ret(HG_EINVAL);
  if (fails("graph_launch")) return ret(HG_ENOMEM);
  auto g = it->second;
  bool child = stream_capturing(h);                // a graph launched into a capture becomes part of that graph
  if (!child) { ++g_stats.graph_launches; ++g->runs; }
  return ret(submit(h, "graph", OP_OTHER, nullptr, [=] {
    if (child) ++g->runs;
    for (Op& o : g->ops) {
      if (kVerbose) hg_log("graph node %s", o.what);
      if (o.fn) if (int e = o.fn()) return e;
    }
    return 0;
  }));
}
API int cudaGraphUpload(void* x, HgStream) { L0; return ret(g_execs.count((Graph*)x) ? 0 : HG_EINVAL); }
API int cudaGraphDestroy(void* g) { Lock l; return ret(g_graphs.erase((Graph*)g) ? 0 : HG_EINVAL); }
API int cudaGraphExecDestroy(void* g) { Lock l; return ret(g_execs.erase((Graph*)g) ? 0 : HG_EINVAL); }
API int cudaGraphGetNodes(void* g, void** nodes, size_t* n) {
  L0; auto it = g_graphs.find((Graph*)g); if (it == g_graphs.end()) return ret(HG_EINVAL);
  auto& ops = it->second->ops;
  if (nodes) for (size_t i = 0; i < *n; ++i) nodes[i] = i < ops.size() ? (void*)&ops[i] : nullptr;
  if (!nodes || *n > ops.size()) *n = ops.size();
  return 0;
}
API int cudaGraphDebugDotPrint(void* g, const char* path, unsigned flags) {
  L0; auto it = g_graphs.find((Graph*)g); if (it == g_graphs.end()) return ret(HG_EINVAL);
  FILE* f = fopen(path, "w"); if (!f) return ret(HG_EINVAL);
  fprintf(f, "digraph hostgpu {\n  // flags %u\n", flags);
  auto& ops = it->second->ops;
  for (size_t i = 0; i < ops.size(); ++i) { fprintf(f, "  n%zu [label=\"%s\"];\n", i, ops[i].what); if (i) fprintf(f, "  n%zu -> n%zu;\n", i - 1, i); }
  fprintf(f, "}\n"); fclose(f);
  return 0;
}
