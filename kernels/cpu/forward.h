// A layer forward in time: per step and panel the products, then the gates and the new state of the panel's units.
//
// Two forms, of the same sums in the same order.  Shared: each step multiplies x_t and h_{t-1} in one go.  Hoisted: the
// input's product is taken for several steps at once, where a step's own rows are too few to be worth streaming W_x for.
// On a matrix unit (amx.h) the shared form runs over its tiles, and the state is kept in parts beside the numbers.
#ifndef GPULSTM_CPU_FORWARD_H
#define GPULSTM_CPU_FORWARD_H

#include "amx.h"
#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long HOIST_ROWS = 12;          // rows of a group up to which the input's product is hoisted
constexpr long SCRATCH_ROW = 16;         // registers: 4 panels of 4

template <typename R>
struct ForwardPass {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    static constexpr long L = V::LANES;

    const ForwardCall<R>& call;
    const Shape<R> shape;
    const Plan plan;
    const long rows_most;  // of a group
    const bool tiles;      // on a matrix unit
    long hoist;            // steps whose input product is taken at once; 0: shared
    R *w_x, *w_h, *bias, *c, *h[2], *v[2], *scratch, *ahead;
    Bf16 *tiled_x, *tiled_h, *left_x, *left_v[2];  // in parts: the weights, each thread's x_t, each group's v

    ForwardPass(const ForwardCall<R>& f, const Plan& p)
        : call(f), shape(f.cell, f.H), plan(p), rows_most((f.B + p.groups - 1) / p.groups), tiles(M::pays(f.B)), hoist(0) {
        if (!tiles && rows_most <= HOIST_ROWS && f.T > 1) {
            hoist = cache_model().ahead / long(sizeof(R)) / (rows_most * shape.width);
            if (hoist < 1) hoist = 1;
            if (hoist > 64) hoist = 64;
            if (hoist > f.T) hoist = f.T;
        }
    }

    void lay_out(Layout& m) {
        const long state = call.B * shape.padded;
        w_x = m.take<R>(tiles ? 0 : shape.panels * call.I * shape.x.count * L);
        w_h = m.take<R>(tiles ? 0 : shape.panels * call.H * shape.h.count * L);
        tiled_x = m.take<Bf16>(tiles ? weights_size(call.I, shape.x) : 0);
        tiled_h = m.take<Bf16>(tiles ? weights_size(shape.padded, shape.h) : 0);
        left_x = m.take<Bf16>(tiles ? plan.count() * left_size(call.I) : 0);
        for (Bf16*& left : left_v) left = m.take<Bf16>(tiles ? plan.groups * left_size(shape.padded) : 0);
        bias = m.take<R>(shape.width);
        c = call.cell == Cell::lstm ? m.take<R>(state) : nullptr;
        for (int i = 0; i < 2; ++i) h[i] = m.take<R>(state);
        for (int i = 0; i < 2; ++i) v[i] = call.mask ? m.take<R>(state) : h[i];
        scratch = m.take<R>(plan.count() * scratch_size());
        ahead = m.take<R>(hoist * plan.groups * rows_most * shape.width);
    }

    long weights_size(long K, const Part& part) const { return shape.panels * blocks_for(K) * part.count * BLOCK; }
    long left_size(long K) const { return row_tiles_for(rows_most) * blocks_for(K) * BLOCK; }
    long scratch_size() const {  // of a thread: some rows of a few panels, or on tiles all rows of two
        return (tiles ? 2 * row_tiles_for(rows_most) * TILE_ROWS * 4 : CHUNK_ROWS * SCRATCH_ROW) * L;
    }

    long time(long step) const { return call.reverse ? call.T - 1 - step : step; }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<ForwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        const int count = plan.count();
        pack(share(shape.panels, count, thread), share(shape.panels, count, thread + 1));
        if (thread == 0) pack_biases(shape, call.b, call.b_hn, bias);
        const Place place(plan, thread, call.B);
        if (place.member == 0) clear_left(place.group);
        meet_group(plan, place);
        const long q0 = share(shape.panels, plan.members, place.member);
        const long q1 = share(shape.panels, plan.members, place.member + 1);
        for (long b = place.r0; b < place.r1; ++b) begin_row(place, b, q0, q1);
        meet_all(plan);
        steps(place, thread, 0, call.T);
        for (long b = place.r0; b < place.r1; ++b) end_row(b, q0, q1);
    }

    // The same in three parts, for one thread that does it all.
    void begin(const Place& place) {
        pack(0, shape.panels);
        pack_biases(shape, call.b, call.b_hn, bias);
        clear_left(0);
        for (long b = 0; b < call.B; ++b) begin_row(place, b, 0, shape.panels);
    }
    void steps(const Place& place, int thread, long start, long stop) {
        [[maybe_unused]] const typename M::Configured configured(tiles);
        const long q0 = share(shape.panels, plan.members, place.member);
        const long q1 = share(shape.panels, plan.members, place.member + 1);
        R* own = scratch + thread * scratch_size();
        for (long s = start; s < stop; ++s) {
            if (hoist && s % hoist == 0) look_ahead(place, s, q0, q1);
            step(place, thread, s, time(s), q0, q1, own);
            meet_group(plan, place);
        }
    }
    void end() {
        for (long b = 0; b < call.B; ++b) end_row(b, 0, shape.panels);
    }

    void pack(long p0, long p1) {
        if constexpr (M::here) {
            if (tiles) {
                M::pack_weights(shape, shape.x, call.w_x, call.I, call.I, tiled_x, p0, p1);
                M::pack_weights(shape, shape.h, call.w_h, call.H, shape.padded, tiled_h, p0, p1);
                return;
            }
        }
        pack_weights(shape, shape.x, call.w_x, call.I, w_x, p0, p1);
        pack_weights(shape, shape.h, call.w_h, call.H, w_h, p0, p1);
    }

    // ---- the state's way in and out of the padded buffers -----------------------------------------------------
    void clear_left(int group) {  // the rows and units that no state fills
        for (Bf16* left : left_v)
            if (tiles)
                __builtin_memset(left + group * left_size(shape.padded), 0, size_t(left_size(shape.padded)) * sizeof(Bf16));
    }
    void begin_row(const Place& place, long b, long q0, long q1) {
        for (long u = q0 * shape.units; u < q1 * shape.units; u += L) {
            const long at = b * shape.padded + u, from = b * call.H + u, left = call.H - u;
            V state = left > 0 && call.h0 ? V::load(call.h0 + from, left) : V(R(0));
            state.store(h[0] + at);
            if (call.mask) state = left > 0 ? state * V::load(call.mask + from, left) : state;
            if (call.mask) state.store(v[0] + at);
            put_v(place, b, 0, u, state);
            if (c) (left > 0 && call.c0 ? V::load(call.c0 + from, left) : V(R(0))).store(c + at);
        }
    }
    void end_row(long b, long q0, long q1) {
        const R* last = h[call.T & 1];
        for (long u = q0 * shape.units; u < q1 * shape.units && u < call.H; u += L) {
            const long at = b * shape.padded + u, to = b * call.H + u, left = call.H - u;
            V::load(last + at).store(call.h_end + to, left);
            if (c) V::load(c + at).store(call.c_end + to, left);
        }
    }

    // ---- the input's product for the steps from s on -------------------------------------------------------------
    void look_ahead(const Place& place, long s, long q0, long q1) {
        const long steps = s + hoist < call.T ? hoist : call.T - s, rows = place.r1 - place.r0;
        const long t0 = call.reverse ? time(s + steps - 1) : time(s);
        const bool whole = rows == call.B;  // the rows of all steps lie one after another
        const long runs = whole ? 1 : steps, length = whole ? steps * rows : rows;
        for (long p = q0; p < q1; ++p)
            for (long i = 0; i < runs; ++i)
                for (long r = 0; r < length; r += CHUNK_ROWS) {
                    Product<R> q = plain_product(call.x + ((t0 + i) * call.B + place.r0 + r) * call.I, call.I, call.I,
                                                 w_x + p * call.I * shape.x.count * L, shape.x.count * L,
                                                 ahead_row(place, i * rows + r) + p * 4 * L, shape.width);
                    q.in = bias + p * 4 * L;
                    product(q, length - r < CHUNK_ROWS ? length - r : CHUNK_ROWS, shape.x.count);
                }
        if (call.cell != Cell::gru) return;
        for (long p = q0; p < q1; ++p)
            for (long r = 0; r < steps * rows; ++r)
                V::load(bias + p * 4 * L + 3 * L).store(ahead_row(place, 0) + r * shape.width + p * 4 * L + 3 * L);
    }
    R* ahead_row(const Place& place, long row) const {
        return ahead + (place.group * rows_most * hoist + row) * shape.width;
    }

    // ---- one step ------------------------------------------------------------------------------------------------
    // The step at time t, the s-th since the initial state.
    void step(const Place& place, int thread, long s, long t, long q0, long q1, R* own) {
        if constexpr (M::here) {
            if (tiles) return step_on_tiles(place, thread, s, t, q0, q1, own);
        }
        const long rows = place.r1 - place.r0;
        const long first = s - (hoist ? s % hoist : 0), last = hoist && first + hoist < call.T ? first + hoist : call.T;
        const long slot = call.reverse ? last - 1 - s : s - first;  // of this step among those looked ahead
        // Up and down by turns: what the last step left in the second-level cache is what this one reads first, so weights a
        // little larger than that are mostly read from there, where going round in one direction would find none.
        const bool down = s & 1;
        for (long done = q0; done < q1;) {
            const int at_once = rows <= 3 ? panels_at_once(rows, q1 - done) : 1;
            const long p = down ? q0 + q1 - done - at_once : done;
            for (long r = 0; r < rows; r += CHUNK_ROWS) {
                const long now = rows - r < CHUNK_ROWS ? rows - r : CHUNK_ROWS;
                const R* start = hoist ? ahead_row(place, slot * rows + r) + p * 4 * L : nullptr;
                panel_step(place, place.r0 + r, now, s, t, p, at_once, start, own);
            }
            done += at_once;
        }
    }

    void step_on_tiles(const Place& place, int thread, long s, long t, long q0, long q1, R* own) {
        const long rows = place.r1 - place.r0, row_tiles = row_tiles_for(rows), line = 4 * L;
        const long x_blocks = blocks_for(call.I), h_blocks = blocks_for(shape.padded), all = x_blocks + h_blocks;
        Bf16* x = left_x + thread * left_size(call.I);
        const Bf16* v_old = left_v[s & 1] + place.group * left_size(shape.padded);
        M::put_rows(x, call.x + (t * call.B + place.r0) * call.I, call.I, rows, call.I);
        struct {  // the tile of rows whose sums are ready: its rows are finished while the next one is multiplied
            long p, r, end;
            const R* sums;
        } ready = {0, 0, 0, nullptr};
        const auto finish_one = [&] {
            if (ready.r == ready.end) return;
            finish_row(place, place.r0 + ready.r, s, t, ready.p, ready.sums);
            ready.sums += line;
            ++ready.r;
        };
        const long length = row_tiles > 1 ? depth_blocks(all) : all;
        for (long done = q0; done < q1; ++done) {
            const long p = s & 1 ? q0 + q1 - 1 - done : done;  // why: see `step`
            const Bf16* w_x_panel = tiled_x + p * x_blocks * shape.x.count * BLOCK;
            const Bf16* w_h_panel = tiled_h + p * h_blocks * shape.h.count * BLOCK;
            for (long k = 0; k < all; k += length) {
                const long end = k + length < all ? k + length : all;
                for (long i = 0; i < row_tiles; ++i) {
                    R* sums = own + ((done & 1) * row_tiles + i) * TILE_ROWS * line;
                    M::template load<4>(k ? sums : bias + p * line, k ? line : 0);
                    if (k < x_blocks)
                        M::multiply_slots(shape.x, x + (i * x_blocks + k) * BLOCK, w_x_panel + k * shape.x.count * BLOCK,
                                          (end < x_blocks ? end : x_blocks) - k, finish_one);
                    const long from = k < x_blocks ? 0 : k - x_blocks;
                    if (end > x_blocks)
                        M::multiply_slots(shape.h, v_old + (i * h_blocks + from) * BLOCK,
                                          w_h_panel + from * shape.h.count * BLOCK, end - x_blocks - from, finish_one);
                    M::template store<4>(sums, line);
                    if (end < all) continue;
                    while (ready.r < ready.end) finish_one();
                    ready = {p, i * TILE_ROWS, rows < (i + 1) * TILE_ROWS ? rows : (i + 1) * TILE_ROWS, sums};
                }
            }
        }
        while (ready.r < ready.end) finish_one();
    }
    __attribute__((noinline)) void finish_row(const Place& place, long b, long s, long t, long p, const R* sums) {
        finish(place, b, s, t, p, sums);
    }

    void panel_step(const Place& place, long b0, long rows, long s, long t, long p, int at_once, const R* start, R* own) {
        const long tiles = tiles_for(rows, shape.h.count), line = at_once * 4 * L;
        bool begun = false;
        Product<R> q;
        q.io_panel = 4 * L;
        q.a_step = 1;
        q.a_segment = 0;
        q.segments = 1;
        q.out_row = line;
        if (call.cell == Cell::gru) {  // its products fill different slots: all are set before
            for (long r = 0; r < rows; ++r)
                for (long j = 0; j < at_once * 4 * L; j += L)
                    V::load(start ? start + r * shape.width + j : bias + p * 4 * L + j).store(own + r * line + j);
            begun = true;
        }
        for (int which = start ? 1 : 0; which < 2; ++which) {
            const Part& part = which ? shape.h : shape.x;
            const long K = which ? call.H : call.I, per = part.count * L;
            const R* weights = (which ? w_h : w_x) + p * K * per;
            const long length = tiles > 1 ? block_length(K, per * long(sizeof(R))) : K;
            q.b_panel = K * per;
            q.b_row = per;
            q.a_row = which ? shape.padded : call.I;
            const R* a = which ? v[s & 1] + b0 * shape.padded : call.x + (t * call.B + b0) * call.I;
            for (long k = 0; k < K; k += length) {
                q.run = k + length < K ? length : K - k;
                q.b = weights + k * per;
                const bool ends = which && k + length >= K;
                for (long i = 0; i < tiles; ++i) {
                    const long r = share(rows, tiles, i), r_end = share(rows, tiles, i + 1);
                    q.out = own + r * line + part.first * L;
                    q.in = begun ? q.out : start ? start + r * shape.width : bias + p * 4 * L;
                    q.in_row = begun ? line : start ? shape.width : 0;
                    q.a = a + r * q.a_row + k;
                    some_panels<R>(int(r_end - r), part.count, at_once)(q, 0);
                    if (!ends) continue;
                    for (long e = r; e < r_end; ++e)
                        for (int j = 0; j < at_once; ++j) finish(place, b0 + e, s, t, p + j, own + e * line + j * 4 * L);
                }
                begun = true;
            }
        }
    }

    // ---- the gates and the new state of one panel's units in one row ------------------------------------------------
    inline void finish(const Place& place, long b, long s, long t, long p, const R* sums) {
        const bool valid = !call.lengths || t < call.lengths[b];
        const long u = p * shape.units, at = b * shape.padded + u;
        R* saved = call.gates ? call.gates + (t * call.B + b) * shape.width + p * 4 * L : nullptr;
        V z[4];
        for (int j = 0; j < 4; ++j) z[j] = V::load(sums + j * L);
        if (call.cell == Cell::lstm) {
            V c_old = V::load(c + at), c_new;
            V fresh = gl_lstm(z[0], z[1], z[2], z[3], c_old, c_new);
            if (!valid) c_new = c_old;
            c_new.store(c + at);
            if (saved) {
                for (int j = 0; j < 4; ++j) z[j].store(saved + j * L);
                c_new.store(call.cells + (t * call.B + b) * shape.padded + u);
            }
            store_h(place, b, s, t, u, fresh, valid);
        } else if (call.cell == Cell::gru) {
            V r = z[1], update = z[2], n = z[0], h_old = V::load(h[s & 1] + at);
            V fresh = gl_gru(r, update, n, z[3], h_old);
            if (saved) {
                n.store(saved);
                r.store(saved + L);
                update.store(saved + 2 * L);
                z[3].store(saved + 3 * L);
            }
            store_h(place, b, s, t, u, fresh, valid);
        } else {
            for (int j = 0; j < 4; ++j) store_h(place, b, s, t, u + j * L, gl_rnn(z[j], call.cell == Cell::rnn_relu), valid);
        }
    }

    inline void store_h(const Place& place, long b, long s, long t, long u, V fresh, bool valid) {
        const long at = b * shape.padded + u, left = call.H - u;
        V value = valid ? fresh : V::load(h[s & 1] + at);
        value.store(h[~s & 1] + at);
        if (left <= 0) return;
        (valid ? value : V(R(0))).store(call.y + (t * call.B + b) * call.H + u, left);
        if (call.mask) value = value * V::load(call.mask + b * call.H + u, left);
        if (call.mask) value.store(v[~s & 1] + at);
        put_v(place, b, s + 1, u, value);
    }
    inline void put_v(const Place& place, long b, long s, long u, V value) {
        if constexpr (M::here) {
            if (tiles)
                M::put(left_v[s & 1] + place.group * left_size(shape.padded), blocks_for(shape.padded), b - place.r0, u, value);
        }
    }
};

template <typename R>
static Plan forward_plan(const ForwardCall<R>& call, int threads, Split split) {
    const Shape<R> shape(call.cell, call.H);
    const bool tiles = Amx<R>::pays(call.B);
    return make_plan(call.T, call.B, call.I + call.H, shape.width, shape.panels, tiles ? 6 : sizeof(R), tiles ? TILE_ROWS : 1,
                     threads, split);
}

template <typename R>
static bool forward(const ForwardCall<R>& call, int threads, Split split) {
    ForwardPass<R> pass(call, forward_plan(call, team_begin(threads), split));
    Layout counted, real;
    pass.lay_out(counted);
    real.base = static_cast<char*>(team_memory(counted.used));
    if (real.base) {
        pass.lay_out(real);
        team_run(pass.plan.count(), ForwardPass<R>::work, &pass);
    }
    team_end();
    return real.base != nullptr;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
