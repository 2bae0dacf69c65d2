// A layer with options backward in time; see variant.h.  Per step and row the gradients of the gates, then what reaches
// h_{t-1} through W_h; after a few steps, while what they left is in the caches, dx and the sums over their rows.
#ifndef GPULSTM_CPU_VARIANT_BACKWARD_H
#define GPULSTM_CPU_VARIANT_BACKWARD_H

#include "variant_forward.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct VariantBackwardPass : VariantLayer<R> {
    typedef VariantLayer<R> Base;
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    using Base::B, Base::T, Base::H, Base::I, Base::P, Base::v, Base::width, Base::padded, Base::padded_P,
        Base::columns;

    const VariantBackward<R>& f;
    const BackwardCall<R>& call;
    const Plan plan;
    const Columns<R> inputs;
    Matrix<R> w_x, w_h, w_n, w_p;        // transposed; w_n as in the forward pass
    const long block_steps, part_steps;  // of a block of sums, see gradient_parts; of what is summed at once
    // Of the steps of a part: gradients of the gates' inputs as x W_x has a part in them, as h W_h has; the same before
    // normalization.
    R *da, *du, *dpx, *dph;
    R *dm, *dh_new, *shown_m, *dread, *reset_v;  // of a part where an option needs them for its sums
    R *dh, *dc, *dv, *around, *c_start, *own;
    OuterRoom<R> room;

    VariantBackwardPass(const VariantBackward<R>& b, const Plan& p)
        : Base(b.call.cell, b.call.T, b.call.B, b.call.I, b.call.H, b.variant),
          f(b),
          call(b.call),
          plan(p),
          inputs(1, b.call.I),
          w_x(width, inputs.registers),
          w_h(v.reset_before ? 2 * padded : width, padded_P / L),
          w_n(padded, v.reset_before ? padded_P / L : 0),
          w_p(padded_P, v.w_p ? padded / L : 0),
          block_steps(gradient_steps(B)),
          part_steps(B > 0 && B < OuterRoom<R>::DEPTH ? OuterRoom<R>::DEPTH / B : 1) {}

    bool after() const { return this->is_gru && !v.reset_before; }  // a GRU's u is not its a

    void lay_out(Layout& m) {
        const long rows = (T < part_steps ? T : part_steps) * B;
        this->lay_out_vectors(m);
        for (Matrix<R>* one : {&w_x, &w_h, &w_n, &w_p}) one->lay_out(m);
        da = m.take<R>(rows * width);
        du = after() ? m.take<R>(rows * width) : da;
        dpx = v.layer_norm ? m.take<R>(rows * width) : da;
        dph = v.layer_norm ? m.take<R>(rows * width) : du;
        dh_new = m.take<R>((v.w_p ? rows : B) * padded_P);
        shown_m = m.take<R>(v.w_p ? rows * padded : 0);
        dm = v.w_p ? m.take<R>(B * padded) : nullptr;
        dread = m.take<R>(this->is_lstm && v.layer_norm ? rows * padded : 0);
        reset_v = m.take<R>(v.reset_before ? rows * padded : 0);
        dh = m.take<R>(B * padded_P);
        dc = m.take<R>(this->is_lstm ? B * padded : 0);
        c_start = m.take<R>(this->is_lstm ? B * padded : 0);
        dv = m.take<R>(B * padded_P);
        around = m.take<R>(B * padded_P);
        const long most = I > P ? I : P;
        own = m.take<R>(plan.count() * CHUNK_ROWS * inputs.padded);
        room.lay_out(m, plan.count(), most > H ? most : H);
    }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<VariantBackwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        pack(thread == 0, thread == plan.count() - 1);
        const Place place(plan, thread, B);
        for (long b = place.r0; b < place.r1; ++b) begin_row(b);
        meet_all(plan);
        for (long s = T - 1; s >= 0; --s) {
            const long t = call.reverse ? T - 1 - s : s, first = part_begin(t), stop = part_end(t);
            step(place, t);
            if (t != (call.reverse ? stop - 1 : first)) continue;
            meet_all(plan);
            input_gradient(thread, first * B, (stop - first) * B);
            for (long k = 0; k < (stop - first) * B; k += OuterRoom<R>::DEPTH) {
                const long left = (stop - first) * B - k;
                sum(thread, first * B, k, left < OuterRoom<R>::DEPTH ? left : OuterRoom<R>::DEPTH);
            }
            meet_all(plan);
        }
        for (long b = place.r0; b < place.r1; ++b) {
            for (long u = 0; u < P; u += L) V::load(dh + b * padded_P + u).store(call.dh0 + b * P + u, P - u);
            for (long u = 0; this->is_lstm && u < H; u += L)
                V::load(dc + b * padded + u).store(call.dc0 + b * H + u, H - u);
        }
    }

    // The steps that are summed together with step t: blocks begin at time 0 and at whole blocks, whatever T is, so
    // that segments of a sequence are summed as the whole is.
    long part_begin(long t) const { return t - t % block_steps % part_steps; }
    long part_end(long t) const {
        const long block = t - t % block_steps + block_steps, part = part_begin(t) + part_steps;
        const long stop = part < block ? part : block;
        return stop < T ? stop : T;
    }
    long row_in_part(long t, long b) const { return (t - part_begin(t)) * B + b; }

    void pack(bool first, bool last) {
        const long row = columns.parts * H;
        if (last) {
            w_h.pack_transposed(call.w_h, P, row, v.reset_before ? Columns<R>(2, H) : columns);
            if (v.reset_before) w_n.pack_transposed(call.w_h, P, row, this->units, 2 * H);
        }
        if (!first) return;
        this->fill_vectors(nullptr, nullptr);
        w_x.pack_transposed(call.w_x, I, row, columns);
        if (v.w_p) w_p.pack_transposed(v.w_p, H, P, this->outputs);
    }
    void begin_row(long b) {
        const auto load = [](const R* from, long count, long u) {
            return count > u ? V::load(from + u, count - u) : V(R(0));
        };
        for (long u = 0; u < padded_P; u += L) load(call.dh_end + b * P, P, u).store(dh + b * padded_P + u);
        for (long u = 0; this->is_lstm && u < padded; u += L) {
            load(call.dc_end + b * H, H, u).store(dc + b * padded + u);
            load(call.c0 + b * H, H, u).store(c_start + b * padded + u);
        }
    }

    const R* tape_row(long t, long b) const { return f.saved + (t * B + b) * this->saved.all; }
    long before(long t) const { return call.reverse ? t + 1 : t - 1; }
    const R* c_before(long t, long b) const {
        const long old = before(t);
        return old < 0 || old == T ? c_start + b * padded : tape_row(old, b) + this->saved.memory;
    }
    // h as row b had it before step t.  Beyond the row's end the gradient is zero, and any h will do.
    const R* h_before(long t, long b) const {
        const long old = before(t);
        const bool first = t == first_time(call, b) || old < 0 || old == T;
        return first ? call.h0 + b * P : call.y + (old * B + b) * P;
    }
    V v_before(long t, long b, long u) const {
        const V h = V::load(h_before(t, b) + u, P - u);
        return call.mask ? h * V::load(call.mask + b * P + u, P - u) : h;
    }

    void step(const Place& place, long t) {
        const long r0 = place.r0, rows = place.r1 - r0, first = row_in_part(t, r0);
        R* fresh = v.w_p ? dh_new + first * padded_P : dh_new + r0 * padded_P;
        for (long r = 0; r < rows; ++r) split_h(t, r0 + r, fresh + r * padded_P);
        const R* dmemory = fresh;
        if (v.w_p) {
            w_p.multiply(fresh, padded_P, rows, nullptr, 0, dm + r0 * padded, padded);
            dmemory = dm + r0 * padded;
        }
        for (long r = 0; r < rows; ++r) {
            const R* d = dmemory + r * padded;
            if (this->is_lstm)
                lstm(t, r0 + r, d);
            else if (this->is_gru)
                gru(t, r0 + r, d);
            else
                rnn(t, r0 + r, d);
        }
        if (v.reset_before) reset(place, t);
        for (long r = 0; v.layer_norm && r < rows; ++r) {
            const R* saved = tape_row(t, r0 + r);
            const long at = (first + r) * width;
            normalize_backward(da + at, this->gain_x, saved + this->saved.normal_x, this->inside, columns.registers,
                               columns.parts * H, saved[this->saved.inverse], dpx + at);
            normalize_backward(du + at, this->gain_h, saved + this->saved.normal_h, this->inside, columns.registers,
                               columns.parts * H, saved[this->saved.inverse + 1], dph + at);
        }
        R* back = dv + r0 * padded_P;
        w_h.multiply(dph + first * width, width, rows, v.reset_before ? back : nullptr, padded_P, back, padded_P);
        for (long b = r0; b < place.r1; ++b)
            for (long u = 0; u < P; u += L) {
                const long at = b * padded_P + u;
                V d = V::load(dv + at);
                if (call.mask) d = d * V::load(call.mask + b * P + u, P - u);
                (V::load(around + at) + d).store(dh + at);
            }
    }

    // Of the gradient of h_t after the step, the part that reaches the fresh value; the rest stays with the old state.
    void split_h(long t, long b, R* fresh) {
        const bool valid = !call.lengths || t < call.lengths[b];
        const bool* keep = this->row_of(v.keep_h, t, b, P);
        for (long u = 0; u < padded_P; u += L) {
            const long at = b * padded_P + u;
            V d = V::load(dh + at), none(R(0)), part = none;
            if (valid) {
                if (P > u) d = d + V::load(call.dy + (t * B + b) * P + u, P - u);
                part = keep ? d * this->mask(keep, u, P) : d;
            }
            part.store(fresh + u);
            (d - part).store(around + at);
        }
    }

    void lstm(long t, long b, const R* d) {
        const bool valid = !call.lengths || t < call.lengths[b];
        const bool* keep = this->row_of(v.keep_c, t, b, H);
        const R *saved = tape_row(t, b), *c_old_row = c_before(t, b);
        const long row = row_in_part(t, b), output = this->output(), input = this->cell_input();
        R *z = da + row * width, *dc_row = dc + b * padded, *read_row = v.layer_norm ? dread + row * padded : nullptr;
        const V one(R(1));
        for (long u = 0; u < padded; u += L) {  // the way through the output gate, and of c as far as it is read there
            const V o = V::load(saved + output + u), m = V::load(d + u);
            const V read = v.layer_norm ? V::load(saved + this->saved.read + u)
                                        : this->shown(V::load(saved + this->saved.fresh + u));
            (m * read * this->gate.slope(o)).store(z + output + u);
            (m * o * this->shown.slope(read)).store(v.layer_norm ? read_row + u : z + input + u);
            if (v.w_p) (o * read).store(shown_m + row * padded + u);
        }
        if (v.layer_norm)
            normalize_backward(read_row, this->gain_c, saved + this->saved.normal_c, this->inside, padded / L, H,
                               saved[this->saved.inverse + 2], z + input);
        for (long u = 0; u < padded; u += L) {
            const V i = V::load(saved + u), g = V::load(saved + input + u), c_old = V::load(c_old_row + u);
            const V whole = V::load(dc_row + u), none(R(0));
            const V part = !valid ? none : keep ? whole * this->mask(keep, u, H) : whole;
            V total = part + V::load(z + input + u);
            if (v.p) total = total + V::load(z + output + u) * V::load(this->peep + 2 * padded + u);
            const V f_gate = v.coupled ? one - i : V::load(saved + padded + u);
            const V dz_i = total * (v.coupled ? g - c_old : g) * this->gate.slope(i);
            V dc_old = total * f_gate;
            if (v.p) dc_old = dc_old + dz_i * V::load(this->peep + u);
            dz_i.store(z + u);
            if (!v.coupled) {
                const V dz_f = total * c_old * this->gate.slope(f_gate);
                dz_f.store(z + padded + u);
                if (v.p) dc_old = dc_old + dz_f * V::load(this->peep + padded + u);
            }
            (total * i * this->candidate.slope(g)).store(z + input + u);
            (dc_old + (whole - part)).store(dc_row + u);
        }
    }

    void gru(long t, long b, const R* d) {
        const R* saved = tape_row(t, b);
        const long row = row_in_part(t, b);
        R *a = da + row * width, *s = du + row * width;
        for (long u = 0; u < padded; u += L) {
            const V r = V::load(saved + u), z = V::load(saved + padded + u), n = V::load(saved + 2 * padded + u),
                    dh_t = V::load(d + u);
            const V h_old = P > u ? V::load(h_before(t, b) + u, P - u) : V(R(0));
            const V dn = dh_t * (V(R(1)) - z) * this->candidate.slope(n), dz = dh_t * (h_old - n) * this->gate.slope(z);
            dn.store(a + 2 * padded + u);
            dz.store(a + padded + u);
            if (after()) {
                const V dr = dn * V::load(saved + this->saved.sum + u) * this->gate.slope(r);
                dr.store(a + u);
                dr.store(s + u);
                dz.store(s + padded + u);
                (dn * r).store(s + 2 * padded + u);
            } else {
                const V seen = P > u ? v_before(t, b, u) : V(R(0));
                (r * seen).store(reset_v + row * padded + u);
            }
            (V::load(around + b * padded_P + u) + dh_t * z).store(around + b * padded_P + u);
        }
    }

    // The reset gate before the product: from the candidate's gradient that of r v, of r, and the part of v's that goes
    // there.
    void reset(const Place& place, long t) {
        const long r0 = place.r0, rows = place.r1 - r0, first = row_in_part(t, r0);
        w_n.multiply(da + first * width + 2 * padded, width, rows, nullptr, 0, dv + r0 * padded_P, padded_P);
        for (long r = 0; r < rows; ++r)
            for (long u = 0; u < padded; u += L) {
                const V gate = V::load(tape_row(t, r0 + r) + u), d = V::load(dv + (r0 + r) * padded_P + u);
                const V seen = P > u ? v_before(t, r0 + r, u) : V(R(0));
                (d * seen * this->gate.slope(gate)).store(da + (first + r) * width + u);
                (d * gate).store(dv + (r0 + r) * padded_P + u);
            }
    }

    void rnn(long t, long b, const R* d) {
        const R* saved = tape_row(t, b);
        R* a = da + row_in_part(t, b) * width;
        for (long u = 0; u < padded; u += L) (V::load(d + u) * this->candidate.slope(V::load(saved + u))).store(a + u);
    }

    // dx of a part that begins at row `first` of time and batch, its rows divided among the threads.
    void input_gradient(int thread, long first, long all) {
        R* out = own + thread * CHUNK_ROWS * inputs.padded;
        const long stop = share(all, plan.count(), thread + 1);
        for (long r = share(all, plan.count(), thread); r < stop; r += CHUNK_ROWS) {
            const long rows = stop - r < CHUNK_ROWS ? stop - r : CHUNK_ROWS;
            w_x.multiply(dpx + r * width, width, rows, nullptr, 0, out, inputs.padded);
            for (long e = 0; e < rows; ++e)
                __builtin_memcpy(call.dx + (first + r + e) * I, out + e * inputs.padded, size_t(I) * sizeof(R));
        }
    }

    // The gradients of the parameters, rows k to k + depth - 1 of a part that begins at row `first` of time and batch.
    void sum(int thread, long first, long k, long depth) {
        const int count = plan.count();
        const long row = columns.parts * H;
        const auto nothing = [](long) -> const R* { return nullptr; };
        const auto saved_at = [&](long field) {
            return [=](long r) { return f.saved + (first + r) * this->saved.all + field; };
        };
        const auto x = [&](long r, const R*&) { return call.x + (first + r) * I; };
        const auto v_of = [&](long r, const R*& factor) {
            if (call.mask) factor = call.mask + r % B * P;
            return h_before((first + r) / B, r % B);
        };
        add_outer(room, thread, count, k, depth, I, x, dpx, width, columns, call.dw_x, row);
        if (v.reset_before) {
            const auto rv = [&](long r, const R*&) -> const R* { return reset_v + r * padded; };
            add_outer(room, thread, count, k, depth, P, v_of, dph, width, Columns<R>(2, H), call.dw_h, row);
            add_outer(room, thread, count, k, depth, P, rv, dph + 2 * padded, width, this->units, call.dw_h, row,
                      2 * H);
        } else {
            add_outer(room, thread, count, k, depth, P, v_of, dph, width, columns, call.dw_h, row);
        }
        if (v.w_p) {
            const auto m = [&](long r, const R*&) -> const R* { return shown_m + r * padded; };
            add_outer(room, thread, count, k, depth, H, m, dh_new, padded_P, this->outputs, f.dw_p, P);
        }
        if (call.db) add_columns(thread, count, k, depth, da, width, nothing, columns, call.db);
        if (call.db_hn) add_columns(thread, count, k, depth, du + 2 * padded, width, nothing, this->units, call.db_hn);
        if (v.layer_norm) {
            add_columns(thread, count, k, depth, da, width, saved_at(this->saved.normal_x), columns, f.dgain_x);
            add_columns(thread, count, k, depth, du, width, saved_at(this->saved.normal_h), columns, f.dgain_h);
            if (this->is_lstm) {
                add_columns(thread, count, k, depth, dread, padded, saved_at(this->saved.normal_c), this->units,
                            f.dgain_c);
                add_columns(thread, count, k, depth, dread, padded, nothing, this->units, f.db_c);
            }
        }
        if (v.p) {
            const auto c_old = [&](long r) { return c_before((first + r) / B, r % B); };
            add_columns(thread, count, k, depth, da, width, c_old, this->units, f.dp);
            if (!v.coupled) add_columns(thread, count, k, depth, da + padded, width, c_old, this->units, f.dp + H);
            add_columns(thread, count, k, depth, da + this->output(), width, saved_at(this->saved.fresh), this->units,
                        f.dp + (v.coupled ? 1 : 2) * H);
        }
    }
};

template <typename R>
static Plan variant_backward_plan(const VariantBackward<R>& f, int threads) {
    ForwardCall<R> sizes = {};
    sizes.cell = f.call.cell, sizes.T = f.call.T, sizes.B = f.call.B, sizes.I = f.call.I, sizes.H = f.call.H;
    return variant_plan(sizes, f.variant, threads);
}

template <typename R>
static bool variant_backward(const VariantBackward<R>& f, int threads) {
    const Plan plan = variant_backward_plan(f, team_begin(threads));
    return run_pass<VariantBackwardPass<R>>(f, plan);
}

template <typename R>
static size_t variant_room(const VariantBackward<R>& f, int threads) {
    Layout counted;
    VariantBackwardPass<R>(f, variant_backward_plan(f, threads)).lay_out(counted);
    return counted.used;
}

template <typename R>
static long variant_saved_row(Cell cell, long H, const Variant<R>& v) {
    return Saved<R>(cell, Columns<R>(variant_gates(cell, v.coupled), H), v).all;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
