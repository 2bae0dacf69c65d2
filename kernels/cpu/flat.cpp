// The passes of flat.h, compiled once per instruction set (GPULSTM_ISA) and without contraction into fused
// multiply-adds: each operation rounds as NumPy's does, so a step gives the bits of gpulstm/optimizers.py's own sweep.
#include "flat.h"

#include <string.h>

#include <algorithm>

#include "equations/losses.h"
#include "equations/optimizers.h"
#include "equations/philox.h"
#include "threads.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {
namespace {

constexpr long LANES = 32;         // sums are taken in so many chains side by side
constexpr long SEGMENT = 1 << 16;  // elements that are worth a sum of their own
constexpr long SEGMENTS = 64;      // at most
constexpr long ALONE = 4 << 20;    // bytes of one array up to which a step is not worth waking other threads
constexpr long BLOCK = 512;        // costs that lie between a loss and their sum

// Runs work(part) for part 0 .. parts-1, on several threads where the arrays are large.
template <typename F>
void divide(long parts, long bytes, int threads, const F& work) {
    struct Context {
        const F& work;
        long parts;
        int members;
    } context = {work, parts, 1};
    if (bytes > ALONE && threads > 1 && parts > 1)
        context.members = team_begin(threads < parts ? threads : int(parts));
    else
        return work(0, parts);
    team_run(
        context.members,
        [](void* given, int member) {
            Context& c = *static_cast<Context*>(given);
            c.work(c.parts * member / c.members, c.parts * (member + 1) / c.members);
        },
        &context);
    team_end();
}

// ---- steps --------------------------------------------------------------------------------------------------------
// The functions of kernels/equations/optimizers.h over elements begin .. end; a moment that is not kept lives in
// `none`.

template <typename R, bool MOMENTUM, bool NESTEROV>
void sgd(const StepCall<R>& s, long begin, long end) {
    R* __restrict__ w = s.w, * __restrict__ velocity = s.moments[0];
    const R* __restrict__ g = s.g;
    const R scale = s.scale, a0 = s.a[0], a1 = s.a[1], a2 = s.a[2];
    for (long k = begin; k < end; ++k) {
        R none = 0;
        gl_sgd<R, MOMENTUM, NESTEROV>(w[k], MOMENTUM ? velocity[k] : none, g[k] * scale, a0, a1, a2);
    }
}

template <typename R, bool MOMENTUM, bool CENTERED>
void rmsprop(const StepCall<R>& s, long begin, long end) {
    R* __restrict__ w = s.w, * __restrict__ square = s.moments[0], * __restrict__ average = s.moments[1], * __restrict__ velocity = s.moments[2];
    const R* __restrict__ g = s.g;
    const R scale = s.scale, a0 = s.a[0], a1 = s.a[1], a2 = s.a[2], a3 = s.a[3], a4 = s.a[4], a5 = s.a[5];
    for (long k = begin; k < end; ++k) {
        R none = 0, no_average = 0;
        gl_rmsprop<R, MOMENTUM, CENTERED>(w[k], square[k], CENTERED ? average[k] : no_average,
                                          MOMENTUM ? velocity[k] : none, g[k] * scale, a0, a1, a2, a3, a4, a5);
    }
}

template <typename R>
void adam(const StepCall<R>& s, long begin, long end) {
    R* __restrict__ w = s.w, * __restrict__ mean = s.moments[0], * __restrict__ square = s.moments[1];
    const R* __restrict__ g = s.g;
    const R scale = s.scale, a0 = s.a[0], a1 = s.a[1], a2 = s.a[2], a3 = s.a[3], a4 = s.a[4], a5 = s.a[5], a6 = s.a[6],
            a7 = s.a[7];
    for (long k = begin; k < end; ++k)
        gl_adam<R>(w[k], mean[k], square[k], g[k] * scale, a0, a1, a2, a3, a4, a5, a6, a7);
}

template <typename R>
bool step(const char* function, const StepCall<R>& call) {
    typedef void (*Sweep)(const StepCall<R>&, long, long);
    static const struct {
        const char* name;  // as Optimizer._call gives it
        Sweep sweep;
    } sweeps[] = {
        {"gl_adam<T>", adam<R>},
        {"gl_sgd<T, false, false>", sgd<R, false, false>},
        {"gl_sgd<T, true, false>", sgd<R, true, false>},
        {"gl_sgd<T, true, true>", sgd<R, true, true>},
        {"gl_rmsprop<T, false, false>", rmsprop<R, false, false>},
        {"gl_rmsprop<T, true, false>", rmsprop<R, true, false>},
        {"gl_rmsprop<T, false, true>", rmsprop<R, false, true>},
        {"gl_rmsprop<T, true, true>", rmsprop<R, true, true>},
    };
    for (const auto& one : sweeps)
        if (!strcmp(one.name, function)) {
            const Sweep sweep = one.sweep;
            constexpr long LINE = 1024;  // elements: threads meet no cache line of each other
            divide((call.size + LINE - 1) / LINE, call.size * long(sizeof(R)), call.threads,
                   [&](long first, long last) {
                       const long end = last * LINE;
                       sweep(call, first * LINE, end < call.size ? end : call.size);
                   });
            return true;
        }
    return false;
}

// ---- sums ---------------------------------------------------------------------------------------------------------

double plain(double x) { return x; }
double squared(double x) { return x * x; }

// The sum of f(x) in LANES chains, which are then added in pairs.
template <double (*f)(double), typename R>
double sum(const R* x, long size) {
    double lane[LANES] = {};
    long k = 0;
    for (; k + LANES <= size; k += LANES)
        for (long j = 0; j < LANES; ++j) lane[j] += f(double(x[k + j]));
    for (long j = 0; k + j < size; ++j) lane[j] += f(double(x[k + j]));
    for (long half = LANES / 2; half > 0; half /= 2)
        for (long j = 0; j < half; ++j) lane[j] += lane[j + half];
    return lane[0];
}

template <typename R>
double squares(const R* x, long size, int threads) {
    long parts = (size + SEGMENT - 1) / SEGMENT;
    if (parts > SEGMENTS) parts = SEGMENTS;
    if (parts == 0) return 0.0;
    const long each = ((size + parts - 1) / parts + LANES - 1) / LANES * LANES;
    double found[SEGMENTS] = {};
    divide(parts, size * long(sizeof(R)) / 4, threads, [&](long first, long last) {  // a quarter of a step's work
        for (long part = first; part < last; ++part) {
            const long begin = part * each, end = begin + each < size ? begin + each : size;
            if (begin < end) found[part] = sum<squared>(x + begin, end - begin);
        }
    });
    return sum<plain>(found, SEGMENTS);
}

// ---- losses -------------------------------------------------------------------------------------------------------
// Each: element(raw, target, slope) gives the cost of one target and writes its slopes.

template <typename R, long P, typename E>
double mean(const LossCall<R>& call, const E& element) {
    const long width = P ? P : call.outputs;
    const double amount = call.weight ? sum<plain>(call.weight, call.count) : double(call.count);
    const R total = amount > 0 ? R(amount) : R(1), share = R(1) / total;
    double value = 0;
    R cost[BLOCK];
    for (long start = 0; start < call.count; start += BLOCK) {
        const long size = call.count - start < BLOCK ? call.count - start : BLOCK;
        const R* __restrict__ raw = call.raw + start * width;
        const R* __restrict__ target = call.target + start;
        R* __restrict__ draw = call.draw + start * width;
        if (call.weight) {
            const R* __restrict__ weight = call.weight + start;
            for (long k = 0; k < size; ++k) {
                const R part = weight[k] / total;
                cost[k] = part * element(raw + k * width, weight[k] > 0 ? target[k] : R(0), draw + k * width);
                for (long p = 0; p < width; ++p) draw[k * width + p] *= part;
            }
        } else {
            for (long k = 0; k < size; ++k) {
                cost[k] = element(raw + k * width, target[k], draw + k * width);
                for (long p = 0; p < width; ++p) draw[k * width + p] *= share;
            }
        }
        value += sum<plain>(cost, size);
    }
    return call.weight ? value : value / double(call.count);
}

template <typename R, long P>
double pinball(const LossCall<R>& call) {
    const long levels = P ? P : call.outputs;
    const R *rise = call.options, *fall = call.options + levels;
    return mean<R, P>(call, [=](const R* z, R y, R* slope) {
        R cost = 0;
        for (long p = 0; p < levels; ++p) cost += gl_pinball<R>(z[p], y, rise[p], fall[p], slope[p]);
        return cost;
    });
}

// With up to three levels, known to the compiler, the loop over targets becomes vector code.
template <typename R, long P>
double pinball_of(const LossCall<R>& call) {
    if constexpr (P == 0)
        return pinball<R, 0>(call);
    else
        return call.outputs == P ? pinball<R, P>(call) : pinball_of<R, P - 1>(call);
}

template <typename R>
bool loss(const char* name, const LossCall<R>& call, double& value) {
    const R* options = call.options;
    if (!strcmp(name, "mse")) {
        value = mean<R, 1>(call, [](const R* z, R y, R* slope) { return gl_mse<R>(z[0], y, slope[0]); });
    } else if (!strcmp(name, "mae")) {
        value = mean<R, 1>(call, [](const R* z, R y, R* slope) { return gl_mae<R>(z[0], y, slope[0]); });
    } else if (!strcmp(name, "huber")) {
        const R delta = options[0];
        value = mean<R, 1>(call, [=](const R* z, R y, R* slope) { return gl_huber<R>(z[0], y, delta, slope[0]); });
    } else if (!strcmp(name, "pinball")) {
        value = pinball_of<R, 3>(call);
    } else if (!strcmp(name, "softmax")) {
        const long classes = call.outputs;
        value = mean<R, 0>(call, [=](const R* z, R y, R* slope) { return gl_softmax<R>(z, y, classes, slope); });
    } else if (!strcmp(name, "gaussian")) {
        const R floor = options[0];
        value = mean<R, 2>(
            call, [=](const R* z, R y, R* slope) { return gl_gaussian<R>(z[0], z[1], y, floor, slope[0], slope[1]); });
    } else {
        return false;
    }
    return true;
}

// ---- masks --------------------------------------------------------------------------------------------------------

void keep(const KeepCall& call) {
    const long begin = call.first / 4, end = (call.first + call.size + 3) / 4;
    divide(call.steps, call.steps * call.size * 16, call.threads,
           [&](long first, long last) {  // as long as a step's bytes
               for (long step = first; step < last; ++step) {
                   bool* __restrict__ kept = call.kept + step * call.size;
                   for (long block = begin; block < end; ++block) {
                       unsigned word[4];
                       gl_philox(unsigned(block), call.first_step + unsigned(step), call.stream, call.call, call.k0,
                                 call.k1, word);
                       const long low = std::max(block * 4, call.first);
                       const long high = std::min(block * 4 + 4, call.first + call.size);
                       for (long at = low; at < high; ++at) kept[at - call.first] = word[at - block * 4] >= call.least;
                   }
               }
           });
}

}  // namespace

template <typename R>
constexpr FlatFunctions<R> all() {
    return {step<R>, squares<R>, loss<R>};
}

extern const Flat flat;
const Flat flat = {{all<float>(), all<double>()}, GPULSTM_NAME(GPULSTM_ISA), keep};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
