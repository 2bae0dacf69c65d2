// A layer with options that change its equations: zoneout, peepholes, coupled gates, layer normalization, projection,
// named and clipped activations, a GRU whose reset gate comes before the product.
//
// Unlike a plain layer (forward.h) a step is taken row by row in phases: the products of all rows of a thread, then
// what needs a whole row (normalization, projection), then the gates.  Threads divide the rows of the batch and do not
// meet before the end.  gpulstm/engines/cells.py states the equations of each option, reference.py what surrounds a
// cell.
//
// Numbers of a layer lie as [gate][H padded to whole registers] in a row here; `width` is such a row of all gates.
#ifndef GPULSTM_CPU_VARIANT_H
#define GPULSTM_CPU_VARIANT_H

#include "activation.h"
#include "matrix.h"

namespace gpulstm {
namespace GPULSTM_ISA {

// What of a step and row is saved for the gradient, each where its option is used: offsets into a row of `all` numbers.
//
// - gates [G][padded]: activated; sum [padded]: a GRU's u_n + b_hn
// - memory [padded]: c_t, as the next step reads it; fresh [padded]: c_t before zoneout, where that differs
// - read, normal_c [padded]: where c is normalized, what the output gate is multiplied with, and c before its gain
// - normal_x, normal_h [width]: of both products; inverse [3]: of both and of c, 1 / standard deviation
template <typename R>
struct Saved {
    static constexpr long L = Vec<R>::LANES;
    long gates, sum, memory, fresh, read, normal_c, normal_x, normal_h, inverse, all = 0;

    Saved(Cell cell, const Columns<R>& columns, const Variant<R>& v) {
        const long padded = columns.padded;
        const bool lstm = cell == Cell::lstm;
        gates = take(columns.all());
        sum = take(cell == Cell::gru && !v.reset_before ? padded : 0);
        memory = take(lstm ? padded : 0);
        fresh = v.keep_c || v.hold_c > 0 ? take(padded) : memory;
        read = take(lstm && v.layer_norm ? padded : 0);
        normal_c = take(lstm && v.layer_norm ? padded : 0);
        normal_x = take(v.layer_norm ? columns.all() : 0);
        normal_h = take(v.layer_norm ? columns.all() : 0);
        inverse = take(v.layer_norm ? (L > 4 ? L : 4) : 0);  // three of them
    }

  private:
    long take(long count) {
        all += count;
        return all - count;
    }
};

static inline long variant_gates(Cell cell, bool coupled) {
    return cell == Cell::lstm ? (coupled ? 3 : 4) : cell == Cell::gru ? 3 : 1;
}

// The sum of N lanes, half to half.
template <typename R, int N>
struct Lanes {
    typedef R V __attribute__((vector_size(N * sizeof(R))));
    static R sum(V v) {
        typename Lanes<R, N / 2>::V half[2];
        __builtin_memcpy(half, &v, sizeof v);
        return Lanes<R, N / 2>::sum(half[0] + half[1]);
    }
};
template <typename R>
struct Lanes<R, 1> {
    typedef R V;
    static R sum(R lane) { return lane; }
};

// N sums over the registers of a row: `add(j, into)` adds register j to each.  Four of each at a time, so that an
// addition does not wait for the one before it.
template <typename R, int N, typename F>
static void sums_of_row(long registers, const F& add, R (&out)[N]) {
    typedef Vec<R> V;
    V parts[4][N];
    for (auto& part : parts)
        for (V& sum : part) sum = V(R(0));
    long j = 0;
    for (; j + 4 <= registers; j += 4)
        for (long k = 0; k < 4; ++k) add(j + k, parts[k]);
    for (; j < registers; ++j) add(j, parts[0]);
    for (int n = 0; n < N; ++n)
        out[n] = Lanes<R, V::LANES>::sum(((parts[0][n] + parts[1][n]) + (parts[2][n] + parts[3][n])).v);
}

// Layer normalization of one row of `count` numbers (Ba, Kiros & Hinton 2016): x becomes (x - mean) / deviation in
// `normal`, which may be x, `use(j, v)` is given each register v of it, from number j on, and 1 / deviation is
// returned.  `inside` is 1 for the numbers that count, 0 for padding.
template <typename R, typename F>
static R normalize(const R* x, const R* inside, long registers, long count, double epsilon, R* normal, const F& use) {
    typedef Vec<R> V;
    constexpr long L = V::LANES;
    R sum[1], squares[1];
    sums_of_row(
        registers, [&](long j, V* into) { into[0] = into[0] + V::load(x + j * L) * V::load(inside + j * L); }, sum);
    const V mean(sum[0] / R(count));
    sums_of_row(
        registers,
        [&](long j, V* into) {
            const V d = (V::load(x + j * L) - mean) * V::load(inside + j * L);
            d.store(normal + j * L);
            into[0] = into[0] + d * d;
        },
        squares);
    const R inverse = R(1) / R(sqrt(squares[0] / R(count) + R(epsilon)));
    for (long j = 0; j < registers; ++j) {
        const V value = V::load(normal + j * L) * V(inverse);
        value.store(normal + j * L);
        use(j * L, value);
    }
    return inverse;
}

// The gradient of a row x from that of its normalized value times `gain`: out = (n - mean n - normal mean(n normal))
// inverse with n = d gain.  Where padding is, d and normal are zero, and out is made so.
template <typename R>
static void normalize_backward(const R* d, const R* gain, const R* normal, const R* inside, long registers, long count,
                               R inverse, R* out) {
    typedef Vec<R> V;
    constexpr long L = V::LANES;
    R sums[2];  // of n, of n normal
    sums_of_row(
        registers,
        [&](long j, V* into) {
            const V n = V::load(d + j * L) * V::load(gain + j * L);
            into[0] = into[0] + n;
            into[1] = into[1] + n * V::load(normal + j * L);
        },
        sums);
    const V mean(sums[0] / R(count)), mean_product(sums[1] / R(count));
    for (long j = 0; j < registers; ++j) {
        const V n = V::load(d + j * L) * V::load(gain + j * L);
        ((n - mean - V::load(normal + j * L) * mean_product) * V(inverse) * V::load(inside + j * L)).store(out + j * L);
    }
}

// What forward and backward have in common: sizes, activations, and the options' vectors in padded order.
template <typename R>
struct VariantLayer {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    const Variant<R>& v;
    const Cell cell;
    const long T, B, I, H, P;
    const bool is_lstm, is_gru, apart;         // apart: the recurrent product is not added to the input's at once
    const Columns<R> columns, units, outputs;  // of all gates, of H, of P
    const long width, padded, padded_P;        // numbers of a padded row of each
    const Saved<R> saved;
    const Activator<R> gate, candidate, shown;
    R *bias, *b_hn, *peep, *gain_x, *gain_h, *gain_c, *b_c, *inside;

    VariantLayer(Cell c, long t, long b, long i, long h, const Variant<R>& variant)
        : v(variant),
          cell(c),
          T(t),
          B(b),
          I(i),
          H(h),
          P(variant.P),
          is_lstm(c == Cell::lstm),
          is_gru(c == Cell::gru),
          apart(variant.layer_norm || (c == Cell::gru && !variant.reset_before)),
          columns(variant_gates(c, variant.coupled), h),
          units(1, h),
          outputs(1, variant.P),
          width(columns.all()),
          padded(columns.padded),
          padded_P(outputs.padded),
          saved(c, columns, variant),
          gate(variant.activations[0], variant.limit),
          candidate(variant.activations[1], variant.limit),
          shown(variant.activations[2], 0.0) {}

    void lay_out_vectors(Layout& m) {
        bias = m.take<R>(width);
        b_hn = m.take<R>(padded);
        peep = m.take<R>(v.p ? 3 * padded : 0);
        gain_x = m.take<R>(v.layer_norm ? width : 0);
        gain_h = m.take<R>(v.layer_norm ? width : 0);
        gain_c = m.take<R>(v.layer_norm ? padded : 0);
        b_c = m.take<R>(v.layer_norm ? padded : 0);
        inside = m.take<R>(v.layer_norm ? width : 0);
    }
    // In the caller's order -> padded; zeros without.
    static void spread(const R* from, const Columns<R>& c, R* to) {
        for (long j = 0; j < c.registers; ++j)
            (from && c.left(j) > 0 ? V::load(from + c.at(j), c.left(j)) : V(R(0))).store(to + j * L);
    }
    void fill_vectors(const R* b, const R* bias_n) const {
        spread(b, columns, bias);
        spread(bias_n, units, b_hn);
        if (v.p) {  // p_i, p_f, p_o; coupled gates have no p_f
            spread(v.p, units, peep);
            spread(v.coupled ? nullptr : v.p + H, units, peep + padded);
            spread(v.p + (v.coupled ? 1 : 2) * H, units, peep + 2 * padded);
        }
        if (!v.layer_norm) return;
        spread(v.gain_x, columns, gain_x);
        spread(v.gain_h, columns, gain_h);
        spread(v.gain_c, units, gain_c);
        spread(v.b_c, units, b_c);
        for (long j = 0; j < width; ++j) inside[j] = R(j % padded < H);
    }

    // Of an LSTM's gates in stored order: i, f, g, o, or i, g, o.
    long cell_input() const { return (v.coupled ? 1 : 2) * padded; }
    long output() const { return (v.coupled ? 2 : 3) * padded; }

    // One where zoneout takes the fresh value, zero where it keeps the old one; `keep` [count] of a row, from u on.
    static V mask(const bool* keep, long u, long count) {
        R lanes[L];
        if (u + L <= count)
            for (long e = 0; e < L; ++e) lanes[e] = R(keep[u + e]);
        else
            for (long e = 0; e < L; ++e) lanes[e] = R(u + e < count && keep[u + e]);
        return V::load(lanes);
    }
    // A state after zoneout; outside training its expectation.
    static V blend(V fresh, V old, const bool* keep, double hold, long u, long count) {
        if (keep) {
            const V chosen = mask(keep, u, count), zero(R(0));
            return where_greater(chosen, zero, fresh, old);
        }
        return hold > 0 ? V(R(1.0 - hold)) * fresh + V(R(hold)) * old : fresh;
    }
    const bool* row_of(const bool* keep, long t, long b, long count) const {
        return keep ? keep + (t * B + b) * count : nullptr;
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
