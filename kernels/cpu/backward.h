// A layer backward in time: per step and panel of units the product dz_{t+1} W_h^T, then the gates' gradients dz_t on its
// sums; after the last step the gradients of x and of the weights as whole-sequence products (gradients.h).
#ifndef GPULSTM_CPU_BACKWARD_H
#define GPULSTM_CPU_BACKWARD_H

#include "forward.h"
#include "gradients.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct BackwardPass {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    static constexpr long L = V::LANES;

    const BackwardCall<R>& call;
    const Shape<R> shape;
    const Plan plan;
    const bool tiles, tiles_x;       // whether the steps and dx are computed on a matrix unit
    const Transposed units, inputs;  // the forms of W_h^T and W_x^T
    R *w_h, *w_x, *dz, *dc, *around, *scratch;
    Bf16 *tiled_h, *tiled_x, *left_dz[2], *left_row;  // in parts: the weights, each group's dz of a step, each thread's rows
    Gradients<R> gradients;

    BackwardPass(const BackwardCall<R>& f, const Plan& p)
        : call(f), shape(f.cell, f.H), plan(p), tiles(M::pays(f.B)), tiles_x(M::here && f.I > 16),
          units(f.H, L, registers_a_panel(f.H, p.members)), inputs(f.I, L, 4), gradients(f, shape, p.count()) {}

    // Of W_h^T: as many as a tile has, but so that all members of a group have the same share.
    int registers_a_panel(long H, long members) const {
        const long registers = (H + L - 1) / L;
        int nv = 4;
        while (nv > 1 && (registers + nv - 1) / nv % members && (registers + nv - 1) / nv < 4 * members) nv /= 2;
        return nv;
    }
    long rows_most() const { return (call.B + plan.groups - 1) / plan.groups; }
    long depth_h() const { return shape.panels * shape.h.count * L; }  // of the product dz W_h^T
    long depth_x() const { return shape.panels * shape.x.count * L; }
    long left_size() const { return row_tiles_for(rows_most()) * blocks_for(depth_h()) * BLOCK; }
    long scratch_size() const {
        const long rows = tiles ? 2 * row_tiles_for(rows_most()) * TILE_ROWS : 0;
        return (rows > CHUNK_ROWS ? rows : CHUNK_ROWS) * 4 * L;
    }

    void lay_out(Layout& m) {
        w_h = m.take<R>(tiles ? 0 : units.panels * units.nv * L * depth_h());
        w_x = m.take<R>(tiles_x ? 0 : inputs.panels * inputs.nv * L * depth_x());
        tiled_h = m.take<Bf16>(tiles ? units.panels * units.nv * blocks_for(depth_h()) * BLOCK : 0);
        tiled_x = m.take<Bf16>(tiles_x ? inputs.panels * inputs.nv * blocks_for(depth_x()) * BLOCK : 0);
        for (Bf16*& left : left_dz) left = m.take<Bf16>(tiles ? plan.groups * left_size() : 0);
        left_row = m.take<Bf16>(tiles_x ? plan.count() * blocks_for(depth_x()) * BLOCK : 0);
        dz = m.take<R>(call.T * call.B * shape.width);
        dc = call.cell == Cell::lstm ? m.take<R>(call.B * shape.padded) : nullptr;
        around = m.take<R>(call.B * shape.padded);
        scratch = m.take<R>(plan.count() * scratch_size());
        gradients.lay_out(m);
    }

    long time(long step) const { return call.reverse ? call.T - 1 - step : step; }
    bool carries() const { return call.cell == Cell::gru || call.lengths; }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<BackwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        const int count = plan.count();
        pack(share(units.panels, count, thread), share(units.panels, count, thread + 1),
             share(inputs.panels, count, thread), share(inputs.panels, count, thread + 1));
        [[maybe_unused]] const typename M::Configured configured(M::here);
        const Place place(plan, thread, call.B);
        const long q0 = share(units.panels, plan.members, place.member);
        const long q1 = share(units.panels, plan.members, place.member + 1);
        for (long b = place.r0; b < place.r1; ++b) begin_row(b, q0, q1);
        if (place.member == 0) clear_left(place.group);
        meet_all(plan);
        R* own = scratch + thread * scratch_size();
        for (long s = call.T - 1; s >= -1; --s) {
            step(place, s, q0, q1, own);
            if (s >= 0) meet_group(plan, place);
        }
        meet_all(plan);
        if constexpr (M::here) {
            if (tiles_x) input_gradient_on_tiles(thread, own);
        }
        if (!tiles_x) input_gradient(thread, own);
        gradients.run(thread, dz);
    }

    void pack(long units0, long units1, long inputs0, long inputs1) {
        if constexpr (M::here) {
            if (tiles) M::pack_transposed(shape, shape.h, call.w_h, units, tiled_h, units0, units1);
            if (tiles_x) M::pack_transposed(shape, shape.x, call.w_x, inputs, tiled_x, inputs0, inputs1);
        }
        if (!tiles) pack_transposed(shape, shape.h, call.w_h, units, w_h, units0, units1);
        if (!tiles_x) pack_transposed(shape, shape.x, call.w_x, inputs, w_x, inputs0, inputs1);
    }
    void clear_left(int group) {  // the rows and columns that no gradient fills
        for (Bf16* left : left_dz)
            if (tiles) __builtin_memset(left + group * left_size(), 0, size_t(left_size()) * sizeof(Bf16));
    }

    void step(const Place& place, long s, long q0, long q1, R* own) {
        if constexpr (M::here) {
            if (tiles && s + 1 < call.T) return step_on_tiles(place, s, q0, q1, own);
        }
        for (long done = q0; done < q1; ++done) {
            const long q = s & 1 ? q0 + q1 - 1 - done : done;  // up and down by turns, as forwards
            for (long r = place.r0; r < place.r1; r += CHUNK_ROWS)
                panel_step(place, r, place.r1 - r < CHUNK_ROWS ? place.r1 - r : CHUNK_ROWS, s, q, own);
        }
    }

    void step_on_tiles(const Place& place, long s, long q0, long q1, R* own) {
        const long rows = place.r1 - place.r0, row_tiles = row_tiles_for(rows), line = units.nv * L;
        const long all = blocks_for(depth_h()), length = row_tiles > 1 ? depth_blocks(all) : all;
        const Bf16* left = left_dz[(s + 1) & 1] + place.group * left_size();
        const int at_once = int((TILE_ROWS + all - 1) / all);
        struct {  // the tile of rows whose sums are ready: they are finished while the next one is multiplied
            long q, r, end;
            const R* sums;
            int j;
        } ready = {0, 0, 0, nullptr, 0};
        const auto finish_one = [&] {
            if (ready.r == ready.end) return;
            finish_sum(place, place.r0 + ready.r, s, ready.q * units.nv * L + ready.j * L, ready.sums + ready.j * L);
            if (++ready.j < units.in_panel(ready.q)) return;
            ready.j = 0;
            ready.sums += line;
            ++ready.r;
        };
        const auto between = [&] {
            for (int n = 0; n < at_once; ++n) finish_one();
        };
        for (long done = q0; done < q1; ++done) {
            const long q = s & 1 ? q0 + q1 - 1 - done : done;
            const int nv = units.in_panel(q);
            const Bf16* right = tiled_h + M::transposed_at(units, q, all);
            for (long k = 0; k < all; k += length) {
                const long now = k + length < all ? length : all - k;
                for (long i = 0; i < row_tiles; ++i) {
                    R* sums = own + ((done & 1) * row_tiles + i) * TILE_ROWS * line;
                    M::product(nv, left + (i * all + k) * BLOCK, right + k * nv * BLOCK, now, k ? sums : nullptr, sums, line,
                               between);
                    if (k + now < all) continue;
                    while (ready.r < ready.end) finish_one();
                    ready = {q, i * TILE_ROWS, rows < (i + 1) * TILE_ROWS ? rows : (i + 1) * TILE_ROWS, sums, 0};
                }
            }
        }
        while (ready.r < ready.end) finish_one();
    }

    void begin_row(long b, long q0, long q1) {
        for (long u = q0 * units.nv * L; u < q1 * units.nv * L && u < shape.padded; u += L) {
            const long at = b * shape.padded + u, from = b * call.H + u, left = call.H - u;
            (left > 0 ? V::load(call.dh_end + from, left) : V(R(0))).store(around + at);
            if (dc) (left > 0 ? V::load(call.dc_end + from, left) : V(R(0))).store(dc + at);
        }
        if (shape.is_rnn() && q1 == units.panels)  // registers of units beyond H have gradients of zero
            for (long t = 0; t < call.T; ++t)
                for (long u = units.registers * L; u < shape.padded; u += L)
                    V(R(0)).store(dz + (t * call.B + b) * shape.width + u);
    }

    // Rows of one panel of units: what comes back through W_h from the step after, then the gates of step s; s = -1 is
    // the initial state.
    void panel_step(const Place& place, long b0, long rows, long s, long q, R* own) {
        const int nv = units.in_panel(q);
        const long line = nv * L, u0 = q * units.nv * L;
        const bool last = s + 1 == call.T;
        if (!last) {
            Product<R> m = plain_product(dz + (time(s + 1) * call.B + b0) * shape.width + shape.h.first * L, shape.width,
                                         shape.width, w_h + units.offset(q, shape.panels * shape.h.count * L), line, own, line);
            by_panels(m, shape.h);
            product(m, rows, nv);
        }
        for (long r = 0; r < rows; ++r)
            for (int j = 0; j < nv; ++j) finish_sum(place, b0 + r, s, u0 + j * L, last ? nullptr : own + r * line + j * L);
    }

    // One register of units in one row at step s, from what came back through W_h (null: nothing).
    __attribute__((noinline)) void finish_sum(const Place& place, long b, long s, long u, const R* sum) {
        const long at = b * shape.padded + u, left = call.H - u;
        V dh = sum ? V::load(sum) : V(R(0));
        if (call.mask) dh = dh * V::load(call.mask + b * call.H + u, left);
        if (!sum || carries()) dh = dh + V::load(around + at);
        if (s < 0) {
            dh.store(call.dh0 + b * call.H + u, left);
            if (dc) V::load(dc + at).store(call.dc0 + b * call.H + u, left);
        } else {
            finish(place, b, s, u, dh);
        }
    }

    // The gradients of one register of units in one row at step s, from that of h but for dy.
    inline void finish(const Place& place, long b, long s, long u, V dh) {
        const long t = time(s), at = b * shape.padded + u, row = t * call.B + b, left = call.H - u;
        R* to = dz + row * shape.width + (shape.is_rnn() ? u : 4 * u);
        const int registers = shape.is_rnn() ? 1 : 4;
        if (call.lengths && t >= call.lengths[b]) {  // the state was held: its gradient goes on as it is
            dh.store(around + at);
            for (int j = 0; j < registers; ++j) {
                V(R(0)).store(to + j * L);
                put_dz(place, b, s, u, j, V(R(0)));
            }
            return;
        }
        dh = dh + V::load(call.dy + row * call.H + u, left);
        const bool first = t == first_time(call, b);
        const long old_row = (call.reverse ? t + 1 : t - 1) * call.B + b;
        const R* z = shape.is_rnn() ? nullptr : call.gates + row * shape.width + 4 * u;
        V kept(R(0));
        if (call.cell == Cell::lstm) {
            V g[4];
            for (int j = 0; j < 4; ++j) g[j] = V::load(z + j * L);
            V c_old = first ? V::load(call.c0 + b * call.H + u, left) : V::load(call.cells + old_row * shape.padded + u);
            V c = V::load(call.cells + row * shape.padded + u);
            gl_lstm_backward(g[0], g[1], g[2], g[3], c_old, c, dh, V::load(dc + at)).store(dc + at);
            for (int j = 0; j < 4; ++j) {
                g[j].store(to + j * L);
                put_dz(place, b, s, u, j, g[j]);
            }
        } else if (call.cell == Cell::gru) {
            V n = V::load(z), r = V::load(z + L), update = V::load(z + 2 * L), sum = V::load(z + 3 * L);
            V h_old = V::load(first ? call.h0 + b * call.H + u : call.y + old_row * call.H + u, left);
            kept = gl_gru_backward(r, update, n, sum, h_old, dh);
            n.store(to);
            r.store(to + L);
            update.store(to + 2 * L);
            sum.store(to + 3 * L);
            put_dz(place, b, s, u, 1, r);
            put_dz(place, b, s, u, 2, update);
            put_dz(place, b, s, u, 3, sum);
        } else {
            V h = V::load(call.y + row * call.H + u, left);
            const V d = gl_rnn_backward(h, dh, call.cell == Cell::rnn_relu);
            d.store(to);
            put_dz(place, b, s, u, 0, d);
        }
        if (carries()) kept.store(around + at);
    }
    // Slot j of the panel of units u, for the next product.
    inline void put_dz(const Place& place, long b, long s, long u, int j, V d) {
        if constexpr (M::here) {
            if (!tiles || j < shape.h.first) return;
            const long column = shape.is_rnn() ? u : u * shape.h.count + (j - shape.h.first) * L;
            M::put(left_dz[s & 1] + place.group * left_size(), blocks_for(depth_h()), b - place.r0, column, d);
        }
    }

    // Of a row of slots only those of the part, panel by panel, where they are not all.
    void by_panels(Product<R>& m, const Part& part) const {
        if (part.count == 4) return;
        m.segments = shape.panels;
        m.a_segment = 4 * L;
        m.run = part.count * L;
    }

    // dx = dz W_x^T, the rows of all steps divided among all threads.
    void input_gradient_on_tiles(int thread, R* own) {
        const long all = call.T * call.B, row_tiles = row_tiles_for(all), blocks = blocks_for(depth_x()), line = 4 * L;
        Bf16* left = left_row + thread * blocks * BLOCK;
        const long slots = depth_x() / L;
        for (long i = share(row_tiles, plan.count(), thread); i < share(row_tiles, plan.count(), thread + 1); ++i) {
            const long r0 = i * TILE_ROWS, rows = all - r0 < TILE_ROWS ? all - r0 : TILE_ROWS;
            for (long r = 0; r < TILE_ROWS; ++r)
                for (long slot = 0; slot < blocks * 2; ++slot) {
                    const long column = (slot / shape.x.count * 4 + slot % shape.x.count + shape.x.first) * L;
                    const bool there = r < rows && slot < slots;
                    M::put(left, blocks, r, slot * L, there ? V::load(dz + (r0 + r) * shape.width + column) : V(R(0)));
                }
            for (long q = 0; q < inputs.panels; ++q) {
                const int nv = inputs.in_panel(q);
                M::product(nv, left, tiled_x + M::transposed_at(inputs, q, blocks), blocks, nullptr, own, line, [] {});
                for (long r = 0; r < rows; ++r)
                    for (int j = 0; j < nv; ++j) {
                        const long n = (q * inputs.nv + j) * L;
                        V::load(own + r * line + j * L).store(call.dx + (r0 + r) * call.I + n, call.I - n);
                    }
            }
        }
    }
    void input_gradient(int thread, R* own) {
        const long all = call.T * call.B, K = shape.panels * shape.x.count * L;
        const long r0 = share(all, plan.count(), thread), r1 = share(all, plan.count(), thread + 1);
        for (long q = 0; q < inputs.panels; ++q) {
            const int nv = inputs.in_panel(q);
            const long n0 = q * inputs.nv * L;
            for (long r = r0; r < r1; r += CHUNK_ROWS) {
                const long rows = r1 - r < CHUNK_ROWS ? r1 - r : CHUNK_ROWS;
                Product<R> m = plain_product(dz + r * shape.width + shape.x.first * L, shape.width, shape.width,
                                             w_x + inputs.offset(q, K), nv * L, own, nv * L);
                by_panels(m, shape.x);
                product(m, rows, nv);
                for (long e = 0; e < rows; ++e)
                    for (long j = 0; j < nv; ++j) {
                        const long n = n0 + j * L;
                        V::load(own + (e * nv + j) * L).store(call.dx + (r + e) * call.I + n, call.I - n);
                    }
            }
        }
    }
};

template <typename R>
static Plan backward_plan(const BackwardCall<R>& call, int threads, Split split) {
    const Shape<R> shape(call.cell, call.H);
    const bool tiles = Amx<R>::pays(call.B);
    return make_plan(call.T, call.B, call.I + call.H, shape.width, (call.H + Vec<R>::LANES - 1) / Vec<R>::LANES,
                     tiles ? 6 : sizeof(R), tiles ? TILE_ROWS : 1, threads, split);
}

template <typename R>
static bool backward(const BackwardCall<R>& call, int threads, Split split) {
    BackwardPass<R> pass(call, backward_plan(call, team_begin(threads), split));
    Layout counted, real;
    pass.lay_out(counted);
    real.base = static_cast<char*>(team_memory(counted.used));
    if (real.base) {
        pass.lay_out(real);
        team_run(pass.plan.count(), BackwardPass<R>::work, &pass);
    }
    team_end();
    return real.base != nullptr;
}

// Bytes of working space that a layer's gradient takes, with the forward pass before it; of the call only cell and sizes count.
template <typename R>
static size_t working_room(const BackwardCall<R>& call, int threads) {
    ForwardCall<R> there = {};
    there.cell = call.cell;
    there.T = call.T;
    there.B = call.B;
    there.I = call.I;
    there.H = call.H;
    Layout forwards, backwards;
    ForwardPass<R>(there, forward_plan(there, threads, Split::automatic)).lay_out(forwards);
    BackwardPass<R>(call, backward_plan(call, threads, Split::automatic)).lay_out(backwards);
    return forwards.used > backwards.used ? forwards.used : backwards.used;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
