// The simulated card: settings, errors, properties, contexts.
#include "memory.h"
#include "streams.h"
#include "../include/hg_abi.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <string>

long env_num(const char* n, long d) { const char* v = getenv(n); return v && *v ? atol(v) : d; }
const bool kLazy = env_num("HOSTGPU_LAZY", 0);
const bool kVerbose = env_num("HOSTGPU_VERBOSE", 0);
const bool kMemcheck = env_num("HOSTGPU_MEMCHECK", 0);
const bool kNull = env_num("HOSTGPU_NULL", 0);          // count kernels and library calls, do not run them
const long kPoison = env_num("HOSTGPU_POISON", kNull ? 0 : -1);   // 0 off, 1 on, -1 on but for large allocations
const int kDevs = (int)std::max(1L, std::min((long)kMaxDev, env_num("HOSTGPU_DEVICES", 1)));
const long kSMs = env_num("HOSTGPU_SMS", 8);
static const Card kCards[] = {
  {60, 2048, 32, 65536, 49152, 0}, {70, 2048, 32, 98304, 98304, 0}, {75, 1024, 16, 65536, 65536, 0}, {80, 2048, 32, 167936, 166912, 1024},
  {86, 1536, 16, 102400, 101376, 1024}, {89, 1536, 24, 102400, 101376, 1024}, {90, 2048, 32, 233472, 232448, 1024}, {120, 1536, 24, 102400, 101376, 1024}};
const Card& card() {
  static const Card* c = [] {
    long n = env_num("HOSTGPU_CAPABILITY", 90);
    for (auto& k : kCards) if (k.capability == n) return &k;
    fprintf(stderr, "hostgpu: HOSTGPU_CAPABILITY is %ld, expected one of 60 70 75 80 86 89 90 120\n", n);
    exit(2);
  }();
  return *c;
}
API int hg_capability(void) { return card().capability; }
static const bool kPretend = env_num("HOSTGPU_PRETEND_GPU", 0);
static const char* device_name() { return kPretend ? "NVIDIA card that is not there" : "hostgpu simulator (no GPU)"; }
const size_t kStack = (size_t)env_num("HOSTGPU_STACK_KB", 256) << 10;
size_t total_mem() {
  static size_t t = [] {
    long mb = env_num("HOSTGPU_MEM_MB", 0);
    if (mb > 0) return (size_t)mb << 20;
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2 / (size_t)kDevs;
  }();
  return t;
}

API void hg_log(const char* fmt, ...) {
  va_list ap; va_start(ap, fmt);
  char buf[4096];
  vsnprintf(buf, sizeof buf, fmt, ap);
  va_end(ap);
  fprintf(stderr, "hostgpu: %s\n", buf);
}

// HOSTGPU_FAIL="malloc=3,graph_launch=1+": the third cudaMalloc fails, and every graph launch from the first on.
struct Fault { long from = 0; bool on = false; long calls = 0; };
static std::map<std::string, Fault> g_faults;
static void set_faults(const char* text) {
  g_faults.clear();
  for (std::string t = text ? text : ""; !t.empty();) {
    std::string one = t.substr(0, t.find(','));
    t.erase(0, one.size() + 1);
    size_t eq = one.find('=');
    char* end = nullptr;
    long n = eq == std::string::npos ? 0 : strtol(one.c_str() + eq + 1, &end, 10);
    if (n < 1 || (*end && strcmp(end, "+"))) { hg_log("HOSTGPU_FAIL: %s is not CALL=N or CALL=N+", one.c_str()); abort(); }
    g_faults[one.substr(0, eq)] = Fault{n, *end == '+', 0};
  }
}
bool fails(const char* call) {
  static bool once = (set_faults(getenv("HOSTGPU_FAIL")), true); (void)once;
  if (g_faults.empty()) return false;
  auto it = g_faults.find(call);
  if (it == g_faults.end()) return false;
  Fault& f = it->second;
  ++f.calls;
  return f.calls == f.from || (f.on && f.calls > f.from);
}

std::recursive_mutex g_mu;
thread_local int g_depth = 0;
void stats_lock() { g_mu.lock(); }
void stats_unlock() { g_mu.unlock(); }

API void hg_fail(const char* text) { Lock l; fails(""); set_faults(text); }
API int hg_fails(const char* call) { Lock l; return fails(call); }

thread_local int t_dev = 0;    // the current device of this host thread
bool g_peer[kMaxDev][kMaxDev]; // g_peer[a][b]: work on a may touch memory of b
bool no_dev(int d) { return d < 0 || d >= kDevs; }
static thread_local int t_last = 0;
int g_sticky = 0;
int ret(int e) { if (!e && g_sticky) e = g_sticky; if (e) t_last = e; return e; }
API int hg_sticky(void) { return g_sticky; }
int fatal(int e) { if (!g_sticky) g_sticky = e; return e; }

double now_s() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }

struct ErrName { int e; const char *n, *s; };
static const ErrName kErr[] = {
  {0, "cudaSuccess", "no error"}, {1, "cudaErrorInvalidValue", "invalid argument"}, {2, "cudaErrorMemoryAllocation", "out of memory"},
  {3, "cudaErrorInitializationError", "initialization error"}, {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
  {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"}, {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
  {200, "cudaErrorInvalidKernelImage", "device kernel image is invalid"}, {201, "cudaErrorDeviceUninitialized", "invalid device context"},
  {209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
  {301, "cudaErrorFileNotFound", "file not found"}, {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"}, {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
  {500, "cudaErrorSymbolNotFound", "named symbol not found"}, {600, "cudaErrorNotReady", "device not ready"},
  {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"}, {701, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
  {702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"}, {704, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"}, {705, "cudaErrorPeerAccessNotEnabled", "peer access has not been enabled"},
  {710, "cudaErrorAssert", "device-side assert triggered"}, {715, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"},
  {716, "cudaErrorMisalignedAddress", "misaligned address"}, {719, "cudaErrorLaunchFailure", "unspecified launch failure"}, {720, "cudaErrorCooperativeLaunchTooLarge", "too many blocks in cooperative launch"},
  {801, "cudaErrorNotSupported", "operation not supported"}, {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
  {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"}, {903, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
  {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"}, {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
  {906, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
  {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"}};
static const ErrName* err_of(int e) { for (auto& k : kErr) if (k.e == e) return &k; return nullptr; }
API const char* cudaGetErrorName(int e) { auto* k = err_of(e); return k ? k->n : "cudaErrorUnknown"; }
static const char* unable();
API const char* cudaGetErrorString(int e) { if (e == HG_ENOTSUP && *unable()) return unable(); auto* k = err_of(e); return k ? k->s : "unknown error"; }
API int cudaGetLastError() { int e = t_last ? t_last : g_sticky; t_last = 0; return e; }
API int cudaPeekAtLastError() { return t_last ? t_last : g_sticky; }
API int cudaDriverGetVersion(int* v) { *v = 12090; return 0; }
API int cudaRuntimeGetVersion(int* v) { *v = 12090; return 0; }
API int cudaGetDeviceCount(int* n) { *n = kDevs; return 0; }
API int cudaGetDevice(int* d) { *d = t_dev; return 0; }
API int cudaSetDevice(int d) { if (no_dev(d)) return ret(HG_EBADDEV); t_dev = d; return ret(0); }
API int cudaDeviceSynchronize() { Lock l; ++g_stats.sync_device; if (int e = any_capture_check("device synchronize")) return ret(e); int e = flush_device(t_dev); fflush(stdout); return ret(e); }
API int cudaDeviceReset() { return cudaDeviceSynchronize(); }
API int cudaDeviceCanAccessPeer(int* c, int a, int b) { if (no_dev(a) || no_dev(b)) return ret(HG_EBADDEV); *c = a != b; return 0; }
API int cudaDeviceEnablePeerAccess(int d, unsigned) { L0; if (no_dev(d) || d == t_dev) return ret(HG_EBADDEV); if (g_peer[t_dev][d]) return ret(704); g_peer[t_dev][d] = true; return 0; }
API int cudaDeviceDisablePeerAccess(int d) { L0; if (no_dev(d)) return ret(HG_EBADDEV); if (!g_peer[t_dev][d]) return ret(705); g_peer[t_dev][d] = false; return 0; }
static std::map<int, size_t> g_limits = {{0, 1024}, {1, 1 << 20}, {2, 8 << 20}};
API int cudaDeviceGetLimit(size_t* v, int k) { Lock l; *v = g_limits[k]; return 0; }
API int cudaDeviceSetLimit(int k, size_t v) { Lock l; g_limits[k] = v; return 0; }
API int cudaDeviceGetPCIBusId(char* s, int n, int d) { if (no_dev(d)) return ret(HG_EBADDEV); snprintf(s, n, "0000:%02x:00.0", d); return 0; }
API int cudaDeviceGetByPCIBusId(int* d, const char* s) {
  unsigned dom, bus, slot, fn;
  if (sscanf(s, "%x:%x:%x.%x", &dom, &bus, &slot, &fn) != 4) return ret(strchr(s, ':') ? HG_EBADDEV : HG_EINVAL);
  if (dom || slot || fn || no_dev((int)bus)) return ret(HG_EBADDEV);
  *d = (int)bus; return 0;
}
API int cudaDeviceGetStreamPriorityRange(int* lo, int* hi) { *lo = 0; *hi = -5; return 0; }
API int cudaDeviceGetAttribute(int* v, int a, int dev) {
  if (no_dev(dev)) return ret(HG_EBADDEV);
  static const std::map<int, int> t = {
    {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 49152}, {9, 65536}, {10, 32}, {11, 2147483647}, {12, 65536},
    {13, 1000000}, {14, 512}, {15, 1}, {18, 0}, {19, 1}, {20, 0}, {31, 1}, {32, 0}, {33, 0}, {34, 0}, {35, 0}, {36, 1000000}, {37, 64}, {38, 1 << 22},
    {39, card().threads}, {40, 1}, {41, 1}, {50, 0}, {75, card().capability / 10}, {76, card().capability % 10}, {78, 1}, {79, 1}, {80, 1}, {81, (int)card().shared}, {82, 65536}, {83, 1}, {86, 0}, {87, 2}, {88, 0}, {89, 0}, {90, 1},
    {91, 0}, {95, 1}, {96, 0}, {97, (int)card().optin}, {98, 0}, {99, 1}, {100, 0}, {101, 0}, {106, card().blocks}, {108, 1 << 20}, {109, 0}, {111, (int)card().reserved}, {115, 1}, {116, 0}, {120, 0}};
  if (a == 16) { *v = (int)kSMs; return 0; }
  if (a == 17) { *v = env_num("HOSTGPU_WATCHED", 0) != 0; return 0; }   // kernelExecTimeout
  if (a == 33) { *v = dev; return 0; }      // PCI bus
  auto it = t.find(a);
  *v = it == t.end() ? 0 : it->second;
  return 0;
}
struct Prop12 {   // the CUDA 12 layout of cudaDeviceProp
  char name[256]; char uuid[16]; char luid[8]; unsigned luidMask; size_t totalGlobalMem, sharedMemPerBlock; int regsPerBlock, warpSize; size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate; size_t totalConstMem; int major, minor; size_t textureAlignment, texturePitchAlignment;
  int deviceOverlap, multiProcessorCount, kernelExecTimeoutEnabled, integrated, canMapHostMemory, computeMode;
  int tex[40]; size_t surfaceAlignment;
  int concurrentKernels, ECCEnabled, pciBusID, pciDeviceID, pciDomainID, tccDriver, asyncEngineCount, unifiedAddressing, memoryClockRate, memoryBusWidth, l2CacheSize, persistingL2CacheMaxSize;
  int maxThreadsPerMultiProcessor, streamPrioritiesSupported, globalL1CacheSupported, localL1CacheSupported; size_t sharedMemPerMultiprocessor;
  int regsPerMultiprocessor, managedMemory, isMultiGpuBoard, multiGpuBoardGroupID, hostNativeAtomicSupported, singleToDoublePrecisionPerfRatio, pageableMemoryAccess, concurrentManagedAccess,
      computePreemptionSupported, canUseHostPointerForRegisteredMem, cooperativeLaunch, cooperativeMultiDeviceLaunch; size_t sharedMemPerBlockOptin;
  int tail1[4]; size_t reservedSharedMemPerBlock; int tail2[13]; int reserved[63];
};
API int cudaGetDeviceProperties_v2(Prop12* p, int dev) {
  if (no_dev(dev)) return ret(HG_EBADDEV);
  memset(p, 0, sizeof *p);
  strcpy(p->name, device_name());
  memcpy(p->uuid, "hostgpu-simulat0", 16); p->uuid[15] += (char)dev; p->pciBusID = dev;
  p->totalGlobalMem = total_mem(); p->sharedMemPerBlock = 49152; p->regsPerBlock = 65536; p->warpSize = 32; p->memPitch = 2147483647;
  p->maxThreadsPerBlock = 1024; p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535; p->clockRate = 1000000; p->totalConstMem = 65536;
  p->major = card().capability / 10; p->minor = card().capability % 10; p->textureAlignment = 512; p->texturePitchAlignment = 32; p->multiProcessorCount = (int)kSMs;
  p->kernelExecTimeoutEnabled = env_num("HOSTGPU_WATCHED", 0) != 0;
  p->canMapHostMemory = 1; p->concurrentKernels = 1; p->asyncEngineCount = 1; p->unifiedAddressing = 1; p->memoryClockRate = 1000000; p->memoryBusWidth = 64; p->l2CacheSize = 1 << 22;
  p->maxThreadsPerMultiProcessor = card().threads; p->streamPrioritiesSupported = 1; p->sharedMemPerMultiprocessor = card().shared; p->regsPerMultiprocessor = 65536; p->managedMemory = 1;
  p->cooperativeLaunch = 1; p->sharedMemPerBlockOptin = card().optin; p->reservedSharedMemPerBlock = card().reserved; p->computePreemptionSupported = 1;
  p->tail1[2] = card().blocks;
  return 0;
}
API int cudaGetDeviceProperties(Prop12* p, int dev) { return cudaGetDeviceProperties_v2(p, dev); }
API int cudaDeviceSetCacheConfig(int) { return 0; }
API int cudaProfilerStart() { return 0; }
API int cudaProfilerStop() { return 0; }
API int cudaFuncGetAttributes(void*, const void*) { return ret(HG_ENOTSUP); }

// Kernels compiled into extension modules are GPU machine code: nothing here can run them.
// The callers tend to ignore the error, so it is made permanent, as after a crash.
static char g_unable[512];            // said in place of "operation not supported" from then on
static const char* unable() { return g_unable; }
static int embedded(void* from) {
  Lock l;
  Dl_info di{}; dladdr(from, &di);
  const char* f = di.dli_fname ? strstr(di.dli_fname, "cupy") : nullptr;
  snprintf(g_unable, sizeof g_unable, "operation not supported by the hostgpu simulator: %s launched a kernel that is compiled into it as GPU code. "
           "(cupy.random.default_rng / Generator, CUB and Thrust are like this; cupy.random.RandomState and CuPy's own reductions work)", f ? f : "an extension module");
  hg_log("%s", g_unable);
  return ret(fatal(HG_ENOTSUP));
}
API int cudaLaunchKernel(const void*, HgDim, HgDim, void**, size_t, HgStream) { return embedded(__builtin_return_address(0)); }
API int cudaLaunchCooperativeKernel(const void*, HgDim, HgDim, void**, size_t, HgStream) { return embedded(__builtin_return_address(0)); }
API int cudaLaunchKernelExC(const void*, const void*, void**) { return embedded(__builtin_return_address(0)); }

API int cuInit(unsigned) { return 0; }
API int cuDriverGetVersion(int* v) { *v = 12090; return 0; }
API int cuGetErrorName(int e, const char** s) {
  static std::map<int, std::string> t; Lock l;
    static const std::map<int, const char*> n = {{1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {200, "CUDA_ERROR_INVALID_IMAGE"}, {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {301, "CUDA_ERROR_FILE_NOT_FOUND"}, {400, "CUDA_ERROR_INVALID_HANDLE"}, {500, "CUDA_ERROR_NOT_FOUND"}, {600, "CUDA_ERROR_NOT_READY"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"}, {702, "CUDA_ERROR_LAUNCH_TIMEOUT"}, {710, "CUDA_ERROR_ASSERT"}, {716, "CUDA_ERROR_MISALIGNED_ADDRESS"}, {719, "CUDA_ERROR_LAUNCH_FAILED"},
    {720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"}, {801, "CUDA_ERROR_NOT_SUPPORTED"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}, {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}, {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"}};
  auto it = n.find(e);
  *s = it != n.end() ? it->second : (t[e] = std::string("CUDA_ERROR_") + std::to_string(e)).c_str();
  return 0;
}
API int cuGetErrorString(int e, const char** s) { *s = cudaGetErrorString(e); return 0; }
static char g_ctx[kMaxDev];           // the primary context of each device: its address is all there is to it
static bool ctx_dev(void* c, int* d) { *d = (int)((char*)c - g_ctx); return c >= (void*)g_ctx && c < (void*)(g_ctx + kDevs); }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuDevicePrimaryCtxRelease(int) { return 0; }
API int cuDevicePrimaryCtxRetain(void** c, int d) { if (no_dev(d)) return HG_EBADDEV; *c = &g_ctx[d]; return 0; }
API int cuCtxGetCurrent(void** c) { *c = &g_ctx[t_dev]; return 0; }
API int cuCtxSetCurrent(void* c) { int d; if (!c) return 0; if (!ctx_dev(c, &d)) return 201; t_dev = d; return 0; }
API int cuCtxCreate_v2(void** c, unsigned, int d) { if (no_dev(d)) return HG_EBADDEV; t_dev = d; *c = &g_ctx[d]; return 0; }
API int cuCtxDestroy_v2(void*) { return 0; }
API int cuCtxGetDevice(int* d) { *d = t_dev; return 0; }
API int cuCtxSynchronize() { return cudaDeviceSynchronize(); }
API int cuDeviceGet(int* d, int i) { *d = i; return no_dev(i) ? HG_EBADDEV : 0; }
API int cuDeviceGetCount(int* n) { *n = kDevs; return 0; }
API int cuDeviceGetName(char* s, int n, int) { snprintf(s, n, "%s", device_name()); return 0; }
API int cuDeviceGetAttribute(int* v, int a, int d) { return cudaDeviceGetAttribute(v, a, d); }
API int cuStreamGetCtx(HgStream s, void** c) { int d = hg_stream_device(s); if (d < 0) return HG_EBADHANDLE; *c = &g_ctx[d]; return 0; }
