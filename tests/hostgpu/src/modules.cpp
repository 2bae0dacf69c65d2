// Modules: loading images made by NVRTC, their kernels and variables; linking.
#include "memory.h"
#include "modules.h"
#include "streams.h"
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <algorithm>

static std::set<Module*> g_modules;
std::set<Function*> g_functions;

extern "C" size_t hg_image_wrap(const char* so, size_t n, char* out);   // nvrtc.cpp
static const char kMagic[8] = {'H', 'G', 'P', 'U', 'I', 'M', 'G', '1'};

static int load_image(const void* image, Module** out) {
  const char* p = (const char*)image;
  std::string decoded;
  if (!strncmp(p, "//HGPUPTX\n", 10)) {
    const char* q = strchr(p + 10, '\n') + 1;
    auto hex = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
    for (; hex(q[0]) >= 0 && hex(q[1]) >= 0; q += 2) decoded += (char)(hex(q[0]) * 16 + hex(q[1]));
    decoded.append(16, 0);
    p = decoded.data();
  }
  if (memcmp(p, kMagic, 8)) { hg_log("this module image was not made by hostgpu's NVRTC (real PTX or cubin cannot run here)"); return HG_ENOBIN; }
  size_t n; memcpy(&n, p + 8, 8);
  const char* so = p + 16;
  char path[256];
  const char* dir = getenv("HOSTGPU_TMP");
  snprintf(path, sizeof path, "%s/hgmod-%d-XXXXXX", dir && *dir ? dir : "/tmp", (int)getpid());
  int fd = mkstemp(path);
  if (fd < 0) return HG_ENOMEM;
  for (size_t o = 0; o < n;) { ssize_t w = write(fd, so + o, n - o); if (w <= 0) { close(fd); unlink(path); return HG_ENOMEM; } o += (size_t)w; }
  close(fd);
  void* h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!h) { hg_log("module does not load: %s", dlerror()); unlink(path); return HG_EBADIMG; }
  if (!getenv("HOSTGPU_KEEP")) unlink(path);
  auto* d = (HgModuleDesc*)dlsym(h, "hg_module_desc");
  if (!d || d->magic != HG_ABI_MAGIC) { hg_log("module of another hostgpu version; clear the kernel cache"); return HG_EBADIMG; }
  auto* m = new Module{h, d, 0, t_dev, false};
  ++g_stats.modules_loaded;
  link_map* lm = nullptr;
  dlinfo(h, RTLD_DI_LINKMAP, &lm);
  m->base = lm ? (uintptr_t)lm->l_addr : 0;
  std::vector<std::pair<std::string, size_t>> shared;
  auto* eh = (const Elf64_Ehdr*)so;
  auto* ph = (const Elf64_Phdr*)(so + eh->e_phoff);
  for (int i = 0; i < eh->e_phnum; ++i) {
    if (ph[i].p_type == PT_TLS) m->tls_size = ph[i].p_memsz;
    if (ph[i].p_type == PT_LOAD && ph[i].p_flags & PF_X) { m->text_lo = m->base + ph[i].p_vaddr; m->text_hi = m->text_lo + ph[i].p_memsz; }
  }
  auto* sh = (const Elf64_Shdr*)(so + eh->e_shoff);
  static const std::set<std::string> waiting = {"hg_barrier", "hg_warp", "hg_grid_sync", "hg_yield", "hg_activemask"};
  for (int i = 0; i < eh->e_shnum; ++i) if (sh[i].sh_type == SHT_SYMTAB) {
    auto* sy = (const Elf64_Sym*)(so + sh[i].sh_offset);
    const char* st = so + sh[sh[i].sh_link].sh_offset;
    for (size_t k = 0; k < sh[i].sh_size / sizeof *sy; ++k) {
      int ty = ELF64_ST_TYPE(sy[k].st_info);
      const char* nm = st + sy[k].st_name;
      if (sy[k].st_shndx == SHN_UNDEF && waiting.count(nm)) m->waits = true;
      if (ty == STT_TLS && strstr(nm, "hg_tls_first")) m->tls_first = sy[k].st_value;
      else if (ty == STT_TLS) shared.push_back({nm, sy[k].st_size});
      if (ty == STT_OBJECT && sy[k].st_shndx != SHN_UNDEF && sy[k].st_size) {
        std::string name = nm;
        if (name.compare(0, 3, "_ZL") == 0) { char* q; long len = strtol(nm + 3, &q, 10); if (len > 0) name.assign(q, std::min((size_t)len, strlen(q))); }
        m->vars.insert({name, {m->base + sy[k].st_value, sy[k].st_size}});
      }
    }
  }
  for (HgEntry* e = *d->entries; e; e = e->next) {
    if (e->thread) { m->fns[e->name].reset(new Function{m, e, tally_new(e->name, 'k')}); g_functions.insert(m->fns[e->name].get()); }
    else m->vars[e->name] = {(uintptr_t)e->var, e->var_size};
  }
  // Static shared memory per kernel: variables inside the kernel, plus those of device
  // functions (it is not known who calls them, so they count for every kernel).
  std::vector<size_t> mine(shared.size(), 0);
  for (auto& f : m->fns) {
    std::string pre = "_ZZ" + std::to_string(f.first.size()) + f.first + "E";
    for (size_t i = 0; i < shared.size(); ++i) if (!shared[i].first.compare(0, pre.size(), pre)) { mine[i] = 1; f.second->own_smem += shared[i].second; }
  }
  size_t common = 0;
  for (size_t i = 0; i < shared.size(); ++i) if (!mine[i]) common += shared[i].second;
  for (auto& f : m->fns) f.second->smem = f.second->own_smem + common;
  g_modules.insert(m);
  *out = m;
  return 0;
}

API int cuModuleLoadData(void** out, const void* image) { L0; if (fails("module_load")) return HG_ENOMEM; Module* m; int e = load_image(image, &m); if (!e) *out = m; return e; }
API int cuModuleLoadDataEx(void** out, const void* image, unsigned, void*, void**) { return cuModuleLoadData(out, image); }
API int cuModuleLoad(void** out, const char* path) {
  FILE* f = fopen(path, "rb"); if (!f) return 301;
  std::vector<char> b; char t[65536]; size_t n;
  while ((n = fread(t, 1, sizeof t, f)) > 0) b.insert(b.end(), t, t + n);
  fclose(f); b.resize(b.size() + 16);
  return cuModuleLoadData(out, b.data());
}
API int cuModuleUnload(void* h) {
  Lock l; Module* m = (Module*)h;
  if (!g_modules.erase(m)) return HG_EBADHANDLE;
  flush_all();
  // Graphs may still hold its kernels, so the code stays mapped; only the handles go.
  for (auto& f : m->fns) g_functions.erase(f.second.get());
  return 0;
}
API int cuModuleGetFunction(void** out, void* h, const char* name) {
  L0; Module* m = (Module*)h; if (!g_modules.count(m)) return HG_EBADHANDLE;
  auto it = m->fns.find(name);
  if (it == m->fns.end()) return HG_ENOTFOUND;
  *out = it->second.get();
  return 0;
}
API int cuModuleGetGlobal_v2(void** p, size_t* n, void* h, const char* name) {
  L0; Module* m = (Module*)h; if (!g_modules.count(m)) return HG_EBADHANDLE;
  auto it = m->vars.find(name);
  if (it == m->vars.end()) return HG_ENOTFOUND;
  if (p) *p = (void*)it->second.first;
  if (n) *n = it->second.second;
  g_modmem[it->second.first] = Range{it->second.second, m->dev};
  return 0;
}

API int cuFuncGetAttribute(int* v, int a, void* h) {
  L0; Function* f = (Function*)h; if (!g_functions.count(f)) return HG_EBADHANDLE;
  switch (a) {
    case 0: *v = 1024; break;
    case 1: *v = (int)f->smem; break;
    case 4: *v = 32; break;
    case 5: case 6: *v = card().capability; break;
    case 8: *v = f->max_dyn ? f->max_dyn : 49152; break;
    case 9: *v = -1; break;
    default: *v = 0;
  }
  return 0;
}
API int cuFuncSetAttribute(void* h, int a, int v) {
  L0; Function* f = (Function*)h; if (!g_functions.count(f)) return HG_EBADHANDLE;
  if (a == 8) { if (v < 0 || (size_t)v + f->own_smem > card().optin) return HG_EINVAL; f->max_dyn = v; }
  return 0;
}

// linking: one hostgpu image goes in and comes out unchanged
API int cuLinkCreate_v2(unsigned, void*, void**, void** st) { *st = new std::vector<char>; return 0; }
API int cuLinkAddData_v2(void* st, int, void* data, size_t n, const char*, unsigned, void*, void**) {
  auto* v = (std::vector<char>*)st;
  if (n >= 8 && !memcmp(data, kMagic, 8)) { v->assign((char*)data, (char*)data + n); return 0; }
  hg_log("cuLink: only images made by hostgpu can be linked");
  return HG_ENOBIN;
}
API int cuLinkAddFile_v2(void*, int, const char* p, unsigned, void*, void**) { hg_log("cuLink: %s is ignored", p); return 0; }
API int cuLinkComplete(void* st, void** out, size_t* n) { auto* v = (std::vector<char>*)st; *out = v->data(); *n = v->size(); return 0; }
API int cuLinkDestroy(void* st) { delete (std::vector<char>*)st; return 0; }
