// The part of gpulstm._cpu that works on flat buffers: checks arrays, releases the GIL, calls flat.cpp.
// Arrays are taken as they are or refused: a converted copy would be written in place of the caller's.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "flat.h"
#include "module_numbers.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace gpulstm {

#define GPULSTM_DECLARE(isa) \
    namespace isa {          \
    extern const Flat flat;  \
    }
GPULSTM_DECLARE(baseline)
#ifdef GPULSTM_X86
GPULSTM_DECLARE(avx2)
#endif

namespace {

template <typename R>
using In = nb::ndarray<const R, nb::device::cpu, nb::c_contig>;
template <typename R>
using Out = nb::ndarray<R, nb::device::cpu, nb::c_contig>;

const char* (*instruction_set)() = nullptr;  // the name of the one in use

// Wider vectors than AVX2's bring little here, and on some processors Adam takes twice as long: docs/cpu-engine.md.
const Flat& flat() {
#ifdef GPULSTM_X86
    if (std::string(instruction_set()) != baseline::flat.name) return avx2::flat;
#endif
    return baseline::flat;
}

void same_size(const char* name, size_t size, size_t expected) {
    if (size != expected) throw std::invalid_argument(std::string(name) + " has another size than the call's");
}
template <typename R>
void aligned(std::initializer_list<const void*> arrays) {
    for (const void* one : arrays)
        if (!is_aligned<R>(one)) throw std::invalid_argument("an array is not aligned");
}

template <typename R>
void step(const std::string& function, const Out<R>& w, const In<R>& g,
          const std::vector<std::optional<Out<R>>>& moments, double scale, const std::vector<double>& numbers,
          int threads) {
    StepCall<R> call = {w.data(), g.data(), {}, R(scale), {}, long(w.size()), threads_of(threads)};
    same_size("g", g.size(), w.size());
    aligned<R>({w.data(), g.data()});
    if (moments.size() > 3 || numbers.size() > 8) throw std::invalid_argument("too many moments or numbers");
    for (size_t k = 0; k < moments.size(); ++k) {
        if (!moments[k]) continue;
        same_size("a moment", moments[k]->size(), w.size());
        call.moments[k] = moments[k]->data();
        aligned<R>({call.moments[k]});
    }
    for (size_t k = 0; k < numbers.size(); ++k) call.a[k] = R(numbers[k]);
    const Flat& passes = flat();
    bool known;
    {
        nb::gil_scoped_release released;
        known = passes.of<R>().step(function.c_str(), call);
    }
    if (!known) throw std::invalid_argument("there is no native step " + function);
}

template <typename R>
double squares(const In<R>& x, int threads) {
    const Flat& passes = flat();
    threads_of(threads);
    aligned<R>({x.data()});
    nb::gil_scoped_release released;
    return passes.of<R>().squares(x.data(), long(x.size()), threads);
}

template <typename R>
double loss(const std::string& name, const In<R>& raw, const In<R>& target, const std::optional<In<R>>& weight,
            const Out<R>& draw, const std::vector<double>& options) {
    const size_t count = target.size(), outputs = count ? raw.size() / count : 0;
    same_size("raw", raw.size(), count * outputs);
    same_size("draw", draw.size(), raw.size());
    aligned<R>({raw.data(), target.data(), draw.data(), weight ? weight->data() : nullptr});
    if (weight) same_size("weight", weight->size(), count);
    const std::vector<R> own(options.begin(), options.end());
    const size_t numbers = name == "huber" || name == "gaussian" ? 1 : name == "pinball" ? 2 * outputs : 0;
    same_size("options", own.size(), numbers);
    if (name != "pinball" && name != "softmax") same_size("raw", outputs, name == "gaussian" ? 2 : 1);
    const LossCall<R> call = {raw.data(),    target.data(), weight ? weight->data() : nullptr, draw.data(), long(count),
                              long(outputs), own.data()};
    const Flat& passes = flat();
    double value = 0;
    bool known;
    {
        nb::gil_scoped_release released;
        known = passes.of<R>().loss(name.c_str(), call, value);
    }
    if (!known) throw std::invalid_argument("there is no native loss " + name);
    return value;
}

template <typename R>
void add(nb::module_& m, const std::string& dtype) {
    m.def(("step_" + dtype).c_str(), &step<R>, "function"_a, "w"_a.noconvert(), "g"_a.noconvert(),
          "moments"_a.noconvert(), "scale"_a, "numbers"_a, "threads"_a);
    m.def(("squares_" + dtype).c_str(), &squares<R>, "x"_a.noconvert(), "threads"_a);
    m.def(("loss_" + dtype).c_str(), &loss<R>, "name"_a, "raw"_a.noconvert(), "target"_a.noconvert(),
          "weight"_a.noconvert().none(), "draw"_a.noconvert(), "options"_a);
}

void keep(const nb::ndarray<bool, nb::device::cpu, nb::c_contig>& kept, unsigned first_step, unsigned k0, unsigned k1,
          unsigned stream, unsigned call, unsigned least, int threads, long first) {
    if (kept.ndim() == 0) throw std::invalid_argument("kept has no axis of time");
    const long steps = long(kept.shape(0)), size = steps ? long(kept.size()) / steps : 0;
    in_range("first", first, 0, 1l << 34);  // a block of Philox's counter has four numbers, and its count 32 bits
    const KeepCall f = {kept.data(), steps, first, size, first_step, k0, k1, stream, call, least, threads_of(threads)};
    nb::gil_scoped_release released;
    flat().keep(f);
}

}  // namespace

void add_flat(nb::module_& m, const char* (*in_use)()) {
    instruction_set = in_use;
    add<float>(m, "float");
    add<double>(m, "double");
    m.def("keep", &keep, "kept"_a.noconvert(), "first_step"_a, "k0"_a, "k1"_a, "stream"_a, "call"_a, "least"_a,
          "threads"_a, "first"_a = 0);
}

}  // namespace gpulstm
