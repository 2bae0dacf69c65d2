// A layer with options forward in time; see variant.h.
#ifndef GPULSTM_CPU_VARIANT_FORWARD_H
#define GPULSTM_CPU_VARIANT_FORWARD_H

#include "variant.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct VariantForwardPass : VariantLayer<R> {
    typedef VariantLayer<R> Base;
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    using Base::B, Base::T, Base::H, Base::I, Base::P, Base::v, Base::width, Base::padded, Base::padded_P,
        Base::columns;

    const ForwardCall<R>& call;
    R* const tape;
    const Plan plan;
    const long rows_most;
    long ahead_steps;
    Matrix<R> w_x, w_h, w_n, w_p;  // w_n: the candidate's part of W_h, where the reset gate comes before it
    R *h, *c, *seen, *ahead, *sums, *parts, *normal;

    VariantForwardPass(const VariantForward<R>& f, const Plan& p)
        : Base(f.call.cell, f.call.T, f.call.B, f.call.I, f.call.H, f.variant),
          call(f.call),
          tape(f.saved),
          plan(p),
          rows_most((f.call.B + p.groups - 1) / p.groups),
          w_x(I, columns.registers),
          w_h(P, v.reset_before ? 2 * padded / L : columns.registers),
          w_n(P, v.reset_before ? padded / L : 0),
          w_p(H, v.w_p ? padded_P / L : 0) {
        ahead_steps = cache_model().ahead / long(sizeof(R)) / (rows_most * width);
        ahead_steps = ahead_steps < 1 ? 1 : ahead_steps > 64 ? 64 : ahead_steps;
        if (ahead_steps > T) ahead_steps = T > 0 ? T : 1;
    }

    void lay_out(Layout& m) {
        this->lay_out_vectors(m);
        for (Matrix<R>* one : {&w_x, &w_h, &w_n, &w_p}) one->lay_out(m);
        h = m.take<R>(B * padded_P);
        seen = m.take<R>(call.mask || v.reset_before ? B * padded_P : 0);  // v, or r * v
        c = m.take<R>(this->is_lstm ? B * padded : 0);
        ahead = m.take<R>(plan.groups * rows_most * ahead_steps * width);
        sums = m.take<R>(B * width);
        parts = m.take<R>(B * (padded > padded_P ? padded : padded_P));  // m before its projection, and fresh h
        normal = m.take<R>(v.layer_norm ? plan.groups * padded : 0);
        if (v.w_p) fresh_h = m.take<R>(B * padded_P);
    }

    static void work(void* self, int thread) {
        const Flushed flushed;
        static_cast<VariantForwardPass*>(self)->run(thread);
    }

    void run(int thread) {
        pack(thread == 0, thread == plan.count() - 1);
        const Place place(plan, thread, B);
        for (long b = place.r0; b < place.r1; ++b) begin_row(b);
        meet_all(plan);
        for (long s = 0; s < T; ++s) {
            if (s % ahead_steps == 0) look_ahead(place, s);
            step(place, s);
        }
        for (long b = place.r0; b < place.r1; ++b) end_row(b);
    }

    void pack(bool first, bool last) {  // two threads share it
        const long row = columns.parts * H;
        if (last) w_h.pack(call.w_h, row, v.reset_before ? Columns<R>(2, H) : columns);
        if (!first) return;
        this->fill_vectors(call.b, call.b_hn);
        w_x.pack(call.w_x, row, columns);
        if (v.reset_before) w_n.pack(call.w_h, row, this->units, 2 * H);
        if (v.w_p) w_p.pack(v.w_p, P, this->outputs);
    }
    void begin_row(long b) {
        for (long u = 0; u < padded_P; u += L)
            (call.h0 && P > u ? V::load(call.h0 + b * P + u, P - u) : V(R(0))).store(h + b * padded_P + u);
        for (long u = 0; this->is_lstm && u < padded; u += L)
            (call.c0 && H > u ? V::load(call.c0 + b * H + u, H - u) : V(R(0))).store(c + b * padded + u);
    }
    void end_row(long b) {
        for (long u = 0; u < P; u += L) V::load(h + b * padded_P + u).store(call.h_end + b * P + u, P - u);
        for (long u = 0; this->is_lstm && u < H; u += L)
            V::load(c + b * padded + u).store(call.c_end + b * H + u, H - u);
    }

    long time(long s) const { return call.reverse ? T - 1 - s : s; }
    R* tape_row(long t, long b) const { return tape ? tape + (t * B + b) * this->saved.all : nullptr; }
    R* ahead_row(const Place& place, long t, long s) const {  // of row r0 at time t, within the block of step s
        const long first = s - s % ahead_steps, last = first + ahead_steps < T ? first + ahead_steps : T;
        const long t0 = call.reverse ? time(last - 1) : first;
        return ahead + (place.group * ahead_steps + (t - t0)) * rows_most * width;
    }

    // a = x W_x + b of the steps from s on, normalized where that is asked for.
    void look_ahead(const Place& place, long s) {
        const long count = s + ahead_steps < T ? ahead_steps : T - s, rows = place.r1 - place.r0;
        const bool together = rows == B && rows == rows_most;  // the rows of all steps lie one after another, in both
        const long t0 = call.reverse ? time(s + count - 1) : s;
        const R* in = v.layer_norm ? nullptr : this->bias;
        for (long i = 0; i < (together ? 1 : count); ++i)
            w_x.multiply(call.x + ((t0 + i) * B + place.r0) * I, I, together ? count * rows : rows, in, 0,
                         ahead_row(place, t0 + i, s), width);
        if (!v.layer_norm) return;
        for (long i = 0; i < count; ++i)
            for (long r = 0; r < rows; ++r) {
                R *a = ahead_row(place, t0 + i, s) + r * width, *saved = tape_row(t0 + i, place.r0 + r);
                const R inverse = normalize(a, this->inside, columns.registers, columns.parts * H, v.epsilon,
                                            saved ? saved + this->saved.normal_x : a, [&](long j, V n) {
                                                (n * V::load(this->gain_x + j) + V::load(this->bias + j)).store(a + j);
                                            });
                if (saved) saved[this->saved.inverse] = inverse;
            }
    }

    void step(const Place& place, long s) {
        const long t = time(s), r0 = place.r0, rows = place.r1 - r0;
        const R *a = ahead_row(place, t, s), *read = h;
        if (call.mask) {
            for (long b = r0; b < place.r1; ++b)
                for (long u = 0; u < P; u += L)
                    (V::load(h + b * padded_P + u) * V::load(call.mask + b * P + u, P - u))
                        .store(seen + b * padded_P + u);
            read = seen;
        }
        R* z = sums + r0 * width;
        w_h.multiply(read + r0 * padded_P, padded_P, rows, this->apart ? nullptr : a, width, z, width);
        if (v.reset_before) candidate_product(place, a, read);
        for (long r = 0; r < rows; ++r) {
            const long b = r0 + r;
            R *saved = tape_row(t, b), *row = z + r * width;
            if (v.layer_norm) {
                const R inverse = normalize(row, this->inside, columns.registers, columns.parts * H, v.epsilon,
                                            saved ? saved + this->saved.normal_h : row,
                                            [&](long j, V n) { (n * V::load(this->gain_h + j)).store(row + j); });
                if (saved) saved[this->saved.inverse + 1] = inverse;
            }
            R* fresh = v.w_p ? parts + b * padded : parts + b * padded_P;
            if (this->is_lstm)
                lstm(t, b, a + r * width, row, saved, fresh, place);
            else if (this->is_gru)
                gru(b, a + r * width, row, saved, fresh);
            else
                rnn(a + r * width, row, saved, fresh);
        }
        const R* fresh = parts + r0 * padded_P;
        if (v.w_p) {
            w_p.multiply(parts + r0 * padded, padded, rows, nullptr, 0, fresh_h + r0 * padded_P, padded_P);
            fresh = fresh_h + r0 * padded_P;
        }
        for (long r = 0; r < rows; ++r) store_h(t, r0 + r, fresh + r * padded_P);
    }

    // A GRU's n-gate before its activation, a_n + (r v) W_hn, where r and z before theirs are in `sums`.
    void candidate_product(const Place& place, const R* a, const R* read) {
        const long r0 = place.r0, rows = place.r1 - r0;
        for (long r = 0; r < rows; ++r)
            for (long u = 0; u < padded; u += L) {
                R* at = sums + (r0 + r) * width + u;
                const V reset = this->gate(V::load(at));
                reset.store(at);
                (reset * V::load(read + (r0 + r) * padded_P + u)).store(seen + (r0 + r) * padded_P + u);
            }
        w_n.multiply(seen + r0 * padded_P, padded_P, rows, a + 2 * padded, width, sums + r0 * width + 2 * padded,
                     width);
    }

    void lstm(long t, long b, const R* a, R* z, R* saved, R* shown_m, const Place& place) {
        const bool valid = !call.lengths || t < call.lengths[b];
        const bool* keep = this->row_of(v.keep_c, t, b, H);
        const long output = this->output(), input = this->cell_input();
        R *c_row = c + b * padded, *c_fresh = v.layer_norm ? normal + place.group * padded : nullptr;
        for (long u = 0; u < padded; u += L) {
            const V c_old = V::load(c_row + u);
            const auto sum = [&](long at) {
                return this->apart ? V::load(a + at + u) + V::load(z + at + u) : V::load(z + at + u);
            };
            V z_i = sum(0), z_o = sum(output);
            if (v.p) z_i = z_i + V::load(this->peep + u) * c_old;
            const V i = this->gate(z_i), g = this->candidate(sum(input));
            V f = V(R(1)) - i;
            if (!v.coupled) f = this->gate(v.p ? sum(padded) + V::load(this->peep + padded + u) * c_old : sum(padded));
            const V c_new = f * c_old + i * g;
            if (v.p) z_o = z_o + V::load(this->peep + 2 * padded + u) * c_new;
            const V o = this->gate(z_o);
            V c_next = this->blend(c_new, c_old, keep, v.hold_c, u, H);
            if (!valid) c_next = c_old;
            c_next.store(c_row + u);
            if (saved) {
                i.store(saved + u);
                if (!v.coupled) f.store(saved + padded + u);
                g.store(saved + input + u);
                o.store(saved + output + u);
                c_next.store(saved + this->saved.memory + u);
                if (this->saved.fresh != this->saved.memory) c_new.store(saved + this->saved.fresh + u);
            }
            if (v.layer_norm) {
                c_new.store(c_fresh + u);
                o.store(shown_m + u);
            } else {
                (o * this->shown(c_new)).store(shown_m + u);
            }
        }
        if (!v.layer_norm) return;
        const R inverse = normalize(c_fresh, this->inside, padded / L, H, v.epsilon,
                                    saved ? saved + this->saved.normal_c : c_fresh, [&](long u, V n) {
                                        const V read =
                                            this->shown(n * V::load(this->gain_c + u) + V::load(this->b_c + u));
                                        if (saved) read.store(saved + this->saved.read + u);
                                        (V::load(shown_m + u) * read).store(shown_m + u);
                                    });
        if (saved) saved[this->saved.inverse + 2] = inverse;
    }

    void gru(long b, const R* a, const R* z, R* saved, R* fresh) {
        for (long u = 0; u < padded; u += L) {
            V reset, update, n, s(R(0));
            if (v.reset_before) {  // r has been taken
                reset = V::load(z + u);
                update = this->gate(V::load(z + padded + u));
                n = this->candidate(V::load(z + 2 * padded + u));
            } else {
                reset = this->gate(V::load(a + u) + V::load(z + u));
                update = this->gate(V::load(a + padded + u) + V::load(z + padded + u));
                s = V::load(z + 2 * padded + u) + V::load(this->b_hn + u);
                n = this->candidate(V::load(a + 2 * padded + u) + reset * s);
                if (saved) s.store(saved + this->saved.sum + u);
            }
            if (saved) {
                reset.store(saved + u);
                update.store(saved + padded + u);
                n.store(saved + 2 * padded + u);
            }
            ((V(R(1)) - update) * n + update * V::load(h + b * padded_P + u)).store(fresh + u);
        }
    }

    void rnn(const R* a, const R* z, R* saved, R* fresh) {
        for (long u = 0; u < padded; u += L) {
            const V value = this->candidate(this->apart ? V::load(a + u) + V::load(z + u) : V::load(z + u));
            value.store(fresh + u);
            if (saved) value.store(saved + u);
        }
    }

    void store_h(long t, long b, const R* fresh) {
        const bool valid = !call.lengths || t < call.lengths[b];
        const bool* keep = this->row_of(v.keep_h, t, b, P);
        for (long u = 0; u < P; u += L) {
            R* at = h + b * padded_P + u;
            const V old = V::load(at), value = valid ? this->blend(V::load(fresh + u), old, keep, v.hold_h, u, P) : old;
            value.store(at, P - u);
            (valid ? value : V(R(0))).store(call.y + (t * B + b) * P + u, P - u);
        }
    }

  private:
    R* fresh_h = nullptr;
};

// Threads divide rows alone, so as many as there are, where the work is worth it.
template <typename R>
static Plan variant_plan(const ForwardCall<R>& call, const Variant<R>& v, int threads) {
    const long width = variant_gates(call.cell, v.coupled) * call.H;
    Plan plan;
    if (double(call.T) * call.B * (call.I + v.P) * width < ALONE) return plan;
    if (threads > BARRIERS - 2) threads = BARRIERS - 2;
    plan.groups = int(call.B < threads ? call.B : threads);
    return plan;
}

template <typename R>
static bool variant_forward(const VariantForward<R>& f, int threads) {
    const Plan plan = variant_plan(f.call, f.variant, team_begin(threads));
    return run_pass<VariantForwardPass<R>>(f, plan);
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
