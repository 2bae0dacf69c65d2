// The Python module gpulstm._cpu: chooses the instruction set, checks arrays, releases the GIL, calls the engine.
// gpulstm/_cpu.pyi documents what it gives; gpulstm/engines/cpu.py is the caller of what is defined here.
#ifdef GPULSTM_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "caches.h"
#include "layer.h"
#include "memory.h"
#include "module_stream.h"
#include "reduced_call.h"

using namespace nb::literals;

namespace gpulstm {

void add_flat(nb::module_& m, const char* (*instruction_set)());      // module_flat.cpp
void add_variants(nb::module_& m, const char* (*instruction_set)());  // module_variant.cpp

#define GPULSTM_DECLARE(isa)      \
    namespace isa {               \
    extern const Engine engine;   \
    extern const Reduced reduced; \
    }
GPULSTM_DECLARE(baseline)
#ifdef GPULSTM_X86
GPULSTM_DECLARE(avx2)
GPULSTM_DECLARE(avx512)
#endif
#ifdef GPULSTM_AMX
namespace amx {
extern const Engine engine;
}

bool may_use_amx() {  // the processor has tiles for bfloat16, and the system lets this process use them
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h, Linux 5.16
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

namespace {

std::vector<const Engine*> usable() {  // the best last
    std::vector<const Engine*> engines = {&baseline::engine};
#ifdef GPULSTM_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        engines.push_back(&avx2::engine);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
            engines.push_back(&avx512::engine);
    }
#ifdef GPULSTM_AMX
    if (engines.back() == &avx512::engine && may_use_amx()) engines.push_back(&amx::engine);
#endif
#endif
    return engines;
}

const Engine* engine = usable().back();

void use(const std::string& name) {
    for (const Engine* one : usable())
        if (name == one->name) {
            engine = one;
            return;
        }
    throw std::invalid_argument("this machine has no instruction set " + name);
}

// Double precision has no matrix unit: there the vector units' engine serves it.
template <typename R>
const EngineFunctions<R>& functions() {
#ifdef GPULSTM_AMX
    if (sizeof(R) == 8 && engine == &amx::engine) return avx512::engine.of<R>();
#endif
    return engine->of<R>();
}
template <typename R>
long lanes_of() {
    return functions<R>().lanes;
}

// Rounded weights run on the vector units.
const Reduced& reduced() {
#ifdef GPULSTM_AMX
    if (engine == &amx::engine) return avx512::reduced;
#endif
#ifdef GPULSTM_X86
    if (engine == &avx512::engine) return avx512::reduced;
    if (engine == &avx2::engine) return avx2::reduced;
#endif
    return baseline::reduced;
}

long padded(Cell cell, long H, long lanes) {
    long units = cell == Cell::lstm || cell == Cell::gru ? lanes : 4 * lanes;
    return (H + units - 1) / units * units;
}
long width(Cell cell, long H, long lanes) {
    return padded(cell, H, lanes) * (cell == Cell::lstm || cell == Cell::gru ? 4 : 1);
}
long gates(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

nb::tuple saved_sizes(int which, long H, bool is_double) {
    const Cell cell = cell_of(which);
    extent("hidden", H);
    const long lanes = is_double ? lanes_of<double>() : lanes_of<float>();
    return nb::make_tuple(width(cell, H, lanes), padded(cell, H, lanes));
}

template <typename R>
size_t room_of(Cell cell, long T, long B, long I, long H, int threads) {
    return functions<R>().room(sized<BackwardCall<R>>(cell, T, B, I, H), threads);
}
size_t working_room(int cell, long T, long B, long I, long H, bool is_double, int threads) {
    for (long one : {T, B, I, H}) extent("an extent", one);
    in_memory({T, B, I + H});
    in_memory({I + H, H});
    return (is_double ? room_of<double> : room_of<float>)(cell_of(cell), T, B, I, H, threads_of(threads));
}

template <typename R>
void forward(int cell, bool reverse, const In& x, const In& w_x, const In& w_h, const MaybeIn& b, const MaybeIn& b_hn,
             const In& h0, const MaybeIn& c0, const MaybeIn& mask, const MaybeIn& lengths, const Out& y,
             const Out& h_end, const MaybeOut& c_end, const MaybeOut& saved, const MaybeOut& cells, int threads,
             int split, int precision) {
    if (x.ndim() != 3 || h0.ndim() != 2) throw std::invalid_argument("x has three axes and h0 two");
    auto call = sized<ForwardCall<R>>(cell_of(cell), x.shape(0), x.shape(1), x.shape(2), h0.shape(1));
    const long T = call.T, B = call.B, H = call.H, row = gates(call.cell) * H, lanes = lanes_of<R>();
    take_layer<R>(call, row, H, reverse, x, w_x, w_h, h0, c0, mask, lengths);
    take_outputs(call, row, H, b, b_hn, y, h_end, c_end);
    call.gates = data<R>("gates", saved, {T, B, width(call.cell, H, lanes)});
    call.cells = data<R>("cells", cells, {T, B, padded(call.cell, H, lanes)});
    if (call.cell == Cell::lstm && (!call.c0 || !call.c_end || !call.gates != !call.cells))
        throw std::invalid_argument("an LSTM needs c0, c_end, and both of gates and cells or none");
    const int count = threads_of(threads);
    const Split way = split_of(split);
    nb::gil_scoped_release released;
    if constexpr (sizeof(R) == 8)
        done(functions<R>().forward(call, count, way));
    else if ((call.precision = precision_of(precision)) != Precision::full)
        done(reduced().forward(call, count, way));
    else
        done(functions<R>().forward(call, count, way));
}

template <typename R>
void backward(int cell, bool reverse, const In& x, const In& w_x, const In& w_h, const In& h0, const MaybeIn& c0,
              const MaybeIn& mask, const MaybeIn& lengths, const In& y, const MaybeIn& saved, const MaybeIn& cells,
              const In& dy, const In& dh_end, const MaybeIn& dc_end, const Out& dx, const Out& dh0, const MaybeOut& dc0,
              const Out& dw_x, const Out& dw_h, const MaybeOut& db, const MaybeOut& db_hn, int threads, int split) {
    if (x.ndim() != 3 || h0.ndim() != 2) throw std::invalid_argument("x has three axes and h0 two");
    auto call = sized<BackwardCall<R>>(cell_of(cell), x.shape(0), x.shape(1), x.shape(2), h0.shape(1));
    const long T = call.T, B = call.B, H = call.H, row = gates(call.cell) * H, lanes = lanes_of<R>();
    take_layer<R>(call, row, H, reverse, x, w_x, w_h, h0, c0, mask, lengths);
    take_gradients(call, row, H, y, dy, dh_end, dc_end, dx, dh0, dc0, dw_x, dw_h, db, db_hn);
    call.gates = data<R>("gates", saved, {T, B, width(call.cell, H, lanes)});
    call.cells = data<R>("cells", cells, {T, B, padded(call.cell, H, lanes)});
    if (call.cell == Cell::lstm && (!call.c0 || !call.gates || !call.cells || !call.dc_end || !call.dc0))
        throw std::invalid_argument("an LSTM needs c0, gates, cells, dc_end and dc0");
    if (call.cell == Cell::gru && !call.gates) throw std::invalid_argument("a GRU needs gates");
    const int count = threads_of(threads);
    const Split way = split_of(split);
    nb::gil_scoped_release released;
    done(functions<R>().backward(call, count, way));
}

// A stack in one direction without anything saved; each call reads the weights again.
template <typename R>
class PyStack {
    Cell cell;
    long I, H, layers;
    Weights<R> weights;
    Precision precision;

  public:
    PyStack(int which, long inputs, long hidden, const std::vector<In>& w_x, const std::vector<In>& w_h,
            const std::vector<In>& b, const std::vector<In>& b_hn, int precision)
        : cell(cell_of(which)),
          I(extent("inputs", inputs)),
          H(extent("hidden", hidden)),
          layers(extent("layers", long(w_x.size()))),
          weights(I, H, H, gates(cell) * H, w_x, w_h, b, b_hn),
          precision(precision_of(precision)) {}

    void forward(const In& x, const MaybeIn& h0, const MaybeIn& c0, const MaybeIn& lengths, const Out& y,
                 const Out& h_end, const MaybeOut& c_end, int threads) {
        if (x.ndim() != 3) throw std::invalid_argument("x has three axes");
        const long T = x.shape(0), B = x.shape(1);
        StackCall<R> call = {cell,
                             T,
                             B,
                             I,
                             H,
                             layers,
                             weights.w_x.data(),
                             weights.w_h.data(),
                             weights.b.data(),
                             weights.b_hn.data(),
                             data<R>("x", x, {T, B, I}),
                             data<R>("h0", h0, {layers, B, H}),
                             data<R>("c0", c0, {layers, B, H}),
                             data<int64_t>("lengths", lengths, {B}),
                             data<R>("y", y, {T, B, H}),
                             data<R>("h_end", h_end, {layers, B, H}),
                             data<R>("c_end", c_end, {layers, B, H}),
                             precision};
        if ((cell == Cell::lstm) != (call.c_end != nullptr))
            throw std::invalid_argument("c_end is for the LSTM and for it alone");
        threads_of(threads);
        nb::gil_scoped_release released;
        if constexpr (sizeof(R) == 8)
            done(functions<R>().stack(call, threads));
        else if (precision != Precision::full)
            done(reduced().stack(call, threads));
        else
            done(functions<R>().stack(call, threads));
    }
};

// An array that is not cleared, whose memory goes on to the next one when it is gone.
template <typename R>
nb::ndarray<nb::numpy, R> empty(const std::vector<size_t>& shape) {
    size_t size = sizeof(R);
    for (size_t one : shape)
        if (__builtin_mul_overflow(size, one, &size) || size > size_t(1) << 62) throw std::bad_alloc();
    void* memory = memory_take(size);
    if (!memory) throw std::bad_alloc();
    nb::capsule owner(memory, [](void* p) noexcept { memory_give(p); });
    return nb::ndarray<nb::numpy, R>(memory, shape.size(), shape.data(), owner);
}

template <typename R>
PyStream<R>* make_stream(int which, long batch, long inputs, long hidden, const std::vector<In>& w_x,
                         const std::vector<In>& w_h, const std::vector<In>& b, const std::vector<In>& b_hn, int threads,
                         int precision) {
    const Cell cell = cell_of(which);
    const StreamSizes sizes(cell == Cell::lstm, batch, inputs, hidden, hidden, long(w_x.size()));
    const Weights<R> weights(sizes.I, sizes.H, sizes.H, gates(cell) * sizes.H, w_x, w_h, b, b_hn);
    StreamCall<R> call = weights.stream_call(cell, sizes, threads);
    call.precision = precision_of(precision);
    if constexpr (sizeof(R) == 8)
        return new PyStream<R>(functions<R>().stream(call), sizes);
    else if (call.precision != Precision::full)
        return new PyStream<R>(reduced().stream(call), sizes);
    else
        return new PyStream<R>(functions<R>().stream(call), sizes);
}

template <typename R>
void add_stack(nb::module_& m, const char* name) {
    typedef PyStack<R> S;
    nb::class_<S>(m, name)
        .def(nb::init<int, long, long, const std::vector<In>&, const std::vector<In>&, const std::vector<In>&,
                      const std::vector<In>&, int>())
        .def("forward", &S::forward, nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(),
             nb::arg(), nb::arg().none(), nb::arg());
}

}  // namespace
}  // namespace gpulstm

NB_MODULE(_cpu, m) {
    nb::set_leak_warnings(false);  // what a program still holds when it ends is no leak
    using namespace gpulstm;
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Engine* one : usable()) names.push_back(one->name);
        return names;
    });
    m.def("instruction_set", [] { return std::string(engine->name); });
    m.def("use", &use, "name"_a);
    m.def("caches", [] {
        const Caches& c = caches();
        return nb::make_tuple(c.first, c.second, c.third, std::string(c.source));
    });
    m.def("cache_model", [] {
        const CacheModel model = cache_model();
        return nb::make_tuple(model.block, model.resident, model.ahead);
    });
    m.def("give_caches", &give_caches, "first"_a, "second"_a, "third"_a);
    m.def("saved_sizes", &saved_sizes, "cell"_a, "hidden"_a, "is_double"_a);
    m.def("working_room", &working_room, "cell"_a, "steps"_a, "batch"_a, "inputs"_a, "hidden"_a, "is_double"_a,
          "threads"_a);
    m.def(
        "reduced_form", [](int precision) { return std::string(reduced().tiles(precision_of(precision)).name); },
        "precision"_a);
    m.def("forward_float", &forward<float>);
    m.def("forward_double", &forward<double>);
    m.def("backward_float", &backward<float>);
    m.def("backward_double", &backward<double>);
    add_stack<float>(m, "StackFloat");
    add_stack<double>(m, "StackDouble");
    m.def("empty_float", &empty<float>);
    m.def("empty_double", &empty<double>);
    stream_class<float>(m, "StreamFloat").def(nb::new_(&make_stream<float>));
    stream_class<double>(m, "StreamDouble").def(nb::new_(&make_stream<double>));
    add_flat(m, [] { return engine->name; });
    add_variants(m, [] { return engine->name; });
}
