// A stack's layers in one call, nothing saved: one after another, or at once as a wave.
//
// A wave takes the layers by parts of up to 16 steps: while one thread has layer l at steps 16 to 31, another has layer
// l + 1 at 0 to 15.  It is for batches of so few rows that threads could only share a step, and would have to meet in
// each; here they meet once a part.  A thread takes whichever part is furthest behind of those that can go on, so that
// three layers occupy two threads.  The sums are the same.
#ifndef GPULSTM_CPU_STACK_H
#define GPULSTM_CPU_STACK_H

#include <stdlib.h>

#include <atomic>
#include <new>

#include "forward.h"
#include "memory.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long WAVE_STEPS = 16;     // of a part, at most
constexpr long WAVE_PARTS = 4;      // of a sequence, at least
constexpr double WAVE_ALONE = 4e5;  // multiply-adds of the whole call below which one thread is faster
constexpr long WAVE_ROWS = 4;       // of the batch, at most

template <typename R>
static ForwardCall<R> layer_of(const StackCall<R>& s, long layer, const R* x, R* y) {
    const long state = layer * s.B * s.H;
    ForwardCall<R> call = {};
    call.cell = s.cell;
    call.T = s.T;
    call.B = s.B;
    call.I = layer ? s.H : s.I;
    call.H = s.H;
    call.x = x;
    call.w_x = s.w_x[layer];
    call.w_h = s.w_h[layer];
    call.b = s.b[layer];
    call.b_hn = s.b_hn[layer];
    call.h0 = s.h0 ? s.h0 + state : nullptr;
    call.c0 = s.c0 ? s.c0 + state : nullptr;
    call.lengths = s.lengths;
    call.y = y;
    call.h_end = s.h_end + state;
    call.c_end = s.c_end ? s.c_end + state : nullptr;
    call.precision = s.precision;
    return call;
}

template <typename R, typename Products>
struct Wave {
    struct alignas(128) Layer {
        ForwardCall<R> call;
        ForwardPass<R, Products> pass;  // of few rows
        std::atomic<bool> taken{false};
        std::atomic<long> done{NOT_BEGUN};  // steps whose outputs are there
        Layer(const ForwardCall<R>& c) : call(c), pass(call, Plan()) {}
    };
    static constexpr long NOT_BEGUN = -1;
    Layer** layer;
    long layers, T, part;
    std::atomic<long> turns{0};  // parts that have been given back

    Wave(Layer** all, long count, long steps) : layer(all), layers(count), T(steps) {
        part = (T + WAVE_PARTS - 1) / WAVE_PARTS;
        part = part < WAVE_STEPS ? part : WAVE_STEPS;
        for (long i = 0; i < layers; ++i) part = layer[i]->pass.products.look_ahead_within(part);
    }

    static void work(void* self, int) {
        const Flushed flushed;
        static_cast<Wave*>(self)->run();
    }

    void run() {
        for (;;) {
            const long seen = turns.load(std::memory_order_acquire);
            bool over = true;
            Layer* next = take(over);
            if (over) return;
            if (!next) {
                team_wait_for(turns, seen + 1);
                continue;
            }
            go_on(*next);
            next->taken.store(false, std::memory_order_release);
            turns.fetch_add(1, std::memory_order_release);
        }
    }

    bool can_go_on(long i, long done) const {
        if (done == NOT_BEGUN) return true;
        return done < T && (i == 0 || layer[i - 1]->done.load(std::memory_order_acquire) >= end_of(done));
    }
    long end_of(long done) const { return done + part < T ? done + part : T; }

    // A layer that can go on and that no other thread has, the one with the most parts before its end and that of the
    // layers above it; null where there is none now.  `over`: there will be none.
    Layer* take(bool& over) {
        for (;;) {
            long first = -1, least = 0;
            for (long i = 0; i < layers; ++i) {
                const long done = layer[i]->done.load(std::memory_order_acquire), behind = done + i * part;
                if (done < T) over = false;
                if (layer[i]->taken.load(std::memory_order_relaxed) || !can_go_on(i, done)) continue;
                if (first < 0 || behind < least) first = i, least = behind;
            }
            if (first < 0) return nullptr;
            Layer* one = layer[first];
            if (one->taken.exchange(true, std::memory_order_acquire)) continue;
            if (can_go_on(first, one->done.load(std::memory_order_acquire))) return one;
            one->taken.store(false, std::memory_order_release);  // another thread had it in between
        }
    }

    void go_on(Layer& one) {
        const Place place(Plan(), 0, one.call.B);
        const long done = one.done.load(std::memory_order_relaxed);
        if (done == NOT_BEGUN) {
            one.pass.begin(place);
            one.done.store(0, std::memory_order_release);
            return;
        }
        const long stop = end_of(done);
        one.pass.steps(place, 0, done, stop);
        if (stop == T) one.pass.end();
        one.done.store(stop, std::memory_order_release);
    }
};

template <typename R, typename Products>
static bool run_wave(const StackCall<R>& s, const R* const* x, R* const* y, int threads) {
    typedef typename Wave<R, Products>::Layer Layer;
    Layer** layer = static_cast<Layer**>(calloc(size_t(s.layers), sizeof(Layer*)));
    bool there = layer != nullptr;
    for (long i = 0; there && i < s.layers; ++i) {
        layer[i] = new (std::nothrow) Layer(layer_of(s, i, x[i], y[i]));
        there = layer[i] != nullptr;
    }
    if (there) {
        const int have = team_begin(threads);
        Wave<R, Products> wave(layer, s.layers, s.T);
        Layout counted, real;
        for (long i = 0; i < s.layers; ++i) layer[i]->pass.lay_out(counted);
        real.base = static_cast<char*>(team_memory(counted.used));
        there = real.base != nullptr;
        if (there) {
            for (long i = 0; i < s.layers; ++i) layer[i]->pass.lay_out(real);
            team_run(int(s.layers < have ? s.layers : have), Wave<R, Products>::work, &wave);
        }
        team_end();
    }
    for (long i = 0; layer && i < s.layers; ++i) delete layer[i];
    free(layer);
    return there;
}

// Whether a wave pays: several layers, few rows, and weights of a layer that stay in a processor's second-level cache.
template <typename R>
static bool is_wave(const StackCall<R>& s, size_t weight_bytes, int threads) {
    const Shape<R> shape(s.cell, s.H, 0);
    const double sums = double(s.T) * s.B * shape.width * (s.I + s.H + 2.0 * s.H * (s.layers - 1));
    return s.layers > 1 && threads > 1 && s.B <= WAVE_ROWS && s.T > WAVE_STEPS && sums > WAVE_ALONE &&
           2 * s.H * shape.width * long(weight_bytes) < cache_model().resident;
}

// `forward` computes a layer, `Products` those of a wave.
template <typename R, typename Products, typename F>
static bool stack_by(const StackCall<R>& s, int threads, F forward) {
    const ForwardCall<R> first = layer_of(s, 0, s.x, s.y);
    if (s.layers == 1) return forward(first, threads, Split::automatic);
    const bool wave = is_wave(s, Products::weight_bytes(first), threads);
    const long between = wave            ? s.layers - 1
                         : s.layers == 2 ? 1
                                         : 2;  // outputs that are there at a time, besides the last
    const size_t size = size_t(s.T * s.B * s.H) * sizeof(R), room = (size + 127) & ~size_t(127);
    char* memory = static_cast<char*>(memory_take(room * size_t(between) + size_t(s.layers) * 2 * sizeof(R*)));
    if (!memory) return false;
    const R** x = reinterpret_cast<const R**>(memory + room * size_t(between));
    R** y = const_cast<R**>(x + s.layers);
    for (long i = 0; i < s.layers; ++i) {
        y[i] = i + 1 == s.layers ? s.y : reinterpret_cast<R*>(memory + room * size_t(i % between));
        x[i] = i ? y[i - 1] : s.x;
    }
    bool enough = true;
    if (wave)
        enough = run_wave<R, Products>(s, x, y, threads);
    else
        for (long i = 0; enough && i < s.layers; ++i)
            enough = forward(layer_of(s, i, x[i], y[i]), threads, Split::automatic);
    memory_give(memory);
    return enough;
}

template <typename R>
static bool stack_forward(const StackCall<R>& s, int threads) {
    return stack_by<R, ForwardOnVectors<R>>(s, threads, forward<R>);
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
