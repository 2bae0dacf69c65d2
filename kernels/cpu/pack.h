// The engine's order of weights, gates and states: panels of hidden units.
//
// A panel is four registers ("slots") a row.  LSTM: the gates i, f, g, o of as many units as a register has lanes. GRU,
// whose candidate keeps its two products apart: a_n, r, z, u_n; the input's product fills slots 0-2, the recurrent one
// slots 1-3.  RNN: four registers of units.  Units are padded to whole panels; padded weights and states are zero.
//
// The last panel of an LSTM may be narrow: where its units fill half a register or a quarter, so do its slots, and all
// four are two registers or one.  With 133 units and 16 lanes that is 136 instead of 144 columns a gate.  It lies at
// the beginning of the place that a whole panel would have.
#ifndef GPULSTM_CPU_PACK_H
#define GPULSTM_CPU_PACK_H

#include "layer.h"
#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long NARROW_ROWS = 8;  // of the batch; with fewer several panels are multiplied at once, all of one form

struct Part {  // which slots a product fills, and with which gates in stored order
    int first, count;
    int gates[4];
};

template <typename R>
struct Shape {
    static constexpr long L = Vec<R>::LANES;
    Cell cell;
    long H, gates, panels, units, padded, width;  // units a panel; padded H; width of a row of slots
    long narrow = L;                              // lanes of a slot of the last panel
    Part x, h;

    // `rows` of the batch where the last panel may be narrow, else 0.
    Shape(Cell c, long hidden, long rows) : cell(c), H(hidden) {
        bool rnn = c == Cell::rnn_tanh || c == Cell::rnn_relu;
        gates = c == Cell::lstm ? 4 : c == Cell::gru ? 3 : 1;
        units = rnn ? 4 * L : L;
        panels = (H + units - 1) / units;
        padded = panels * units;
        width = panels * 4 * L;
        x = h = {0, 4, {0, 1, 2, 3}};  // for the RNN the "gates" are the panel's registers of units
        if (c == Cell::gru) {
            x = {0, 3, {2, 0, 1, 0}};
            h = {1, 3, {0, 1, 2, 0}};
        }
        if (CHEAP_PARTS && c == Cell::lstm && rows >= NARROW_ROWS)
            for (long lanes = L / 2; lanes >= L / 4; lanes /= 2)
                if (H - (panels - 1) * L <= lanes) narrow = lanes;
    }
    bool is_rnn() const { return units != L; }
    bool has_narrow() const { return CHEAP_PARTS && narrow < L; }
    bool is_narrow(long panel) const { return has_narrow() && panel + 1 == panels; }
    long lanes(long panel) const { return is_narrow(panel) ? narrow : L; }  // of a slot
    // Registers of some of a panel's slots, and numbers of a part in a row of slots.
    int registers(int slots, long panel) const { return is_narrow(panel) ? int(slots * narrow / L) : slots; }
    long depth(const Part& part) const { return part.count * (panels * L - (has_narrow() ? L - narrow : 0)); }
    // The first unit of a slot's register, and where its numbers lie in a row of G*H in stored order.
    long unit(long panel, int slot_of_part) const { return is_rnn() ? panel * units + slot_of_part * L : panel * L; }
    long column(const Part& part, long panel, int slot_of_part) const {
        return (is_rnn() ? 0 : part.gates[slot_of_part] * H) + unit(panel, slot_of_part);
    }
};

constexpr long PACK_ROWS = 8;  // of weights that are read side by side, each from one panel to the next

// w [K][G*H] -> out [panel][K][slots of the part], panels from p0 to p1; with `each` fewer than the slots,
// [panel][group of `each` slots][K][slots of the group].
template <typename R>
static void pack_weights(const Shape<R>& s, const Part& part, const R* w, long K, R* out, long p0, long p1,
                         int each = 4) {
    typedef Vec<R> V;
    constexpr long L = V::LANES;
    const long row = s.gates * s.H, full = s.is_narrow(p1 - 1) ? p1 - 1 : p1;
    const int step = each < part.count ? each : part.count;
    for (long k0 = 0; k0 < K; k0 += PACK_ROWS) {
        const long rows = K - k0 < PACK_ROWS ? K - k0 : PACK_ROWS;
        for (int j = 0; j < part.count; ++j) {
            const R* from = w + k0 * row + s.column(part, p0, j);
            R* to = out + (p0 * K * part.count + j / step * K * step + k0 * step + j % step) * L;
            for (long p = p0; p < full; ++p, from += s.units, to += K * part.count * L) {
                const long left = s.H - s.unit(p, j);
                if (left >= L && rows == PACK_ROWS)
                    for (long k = 0; k < PACK_ROWS; ++k) V::load(from + k * row).store(to + k * step * L);
                else
                    for (long k = 0; k < rows; ++k)
                        (left > 0 ? V::load(from + k * row, left) : V(R(0))).store(to + k * step * L);
            }
        }
    }
    if (full == p1) return;
    R* to = out + full * K * part.count * L;
    for (long k = 0; k < K; ++k)
        for (int j = 0; j < part.count; ++j, to += s.narrow)
            V::load(w + k * row + s.column(part, full, j), s.H - s.unit(full, j)).store(to, s.narrow);
}

// The biases in the slots' order, [panel][4 slots]; zeros without them.
template <typename R>
static void pack_biases(const Shape<R>& s, const R* b, const R* b_hn, R* out) {
    constexpr long L = Vec<R>::LANES;
    for (long p = 0; p < s.panels; ++p, out += 4 * L) {
        for (int j = 0; j < 4; ++j) Vec<R>(R(0)).store(out + j * L);
        if (!b) continue;
        for (int j = 0; j < s.x.count; ++j)
            if (s.H > s.unit(p, j))
                Vec<R>::load(b + s.column(s.x, p, j), s.H - s.unit(p, j))
                    .store(out + (s.x.first + j) * s.lanes(p), s.lanes(p));
        if (b_hn && s.H > p * L) Vec<R>::load(b_hn + p * L, s.H - p * L).store(out + 3 * L);
    }
}

// A transposed matrix in panels of up to four registers: the last panel has only those that it needs.
struct Transposed {
    long N, lanes, registers, panels;  // registers of all panels; each panel but the last has `nv`
    int nv;
    Transposed(long n, long l, int most) : N(n), lanes(l), registers((n + l - 1) / l), nv(most) {
        panels = (registers + nv - 1) / nv;
    }
    int in_panel(long p) const { return int(p + 1 < panels ? nv : registers - p * nv); }
    long offset(long p, long K) const { return p * K * nv * lanes; }
};

// w [N][G*H] -> out [panel of N][k][nv registers], k over panels and slots of the part as they lie in a row of slots.
template <typename R>
static void pack_transposed(const Shape<R>& s, const Part& part, const R* w, const Transposed& form, R* out, long q0,
                            long q1) {
    constexpr long L = Vec<R>::LANES;
    const long row = s.gates * s.H, K = s.depth(part);
    for (long q = q0; q < q1; ++q) {
        const long nv = form.in_panel(q), n0 = q * form.nv * L;
        R* to = out + form.offset(q, K);
        for (long p = 0; p < s.panels; ++p)
            for (int j = 0; j < part.count; ++j) {
                const long left = s.H - s.unit(p, j), lanes = s.lanes(p);
                const R* from = w + s.column(part, p, j);
                if (left >= L && n0 + nv * L <= form.N) {
                    for (long n = 0; n < nv * L; ++n)
                        for (long k = 0; k < L; ++k) to[k * nv * L + n] = from[(n0 + n) * row + k];
                } else {
                    for (long n = 0; n < nv * L; ++n)
                        for (long k = 0; k < lanes; ++k)
                            to[k * nv * L + n] = n0 + n < form.N && k < left ? from[(n0 + n) * row + k] : R(0);
                }
                to += nv * L * lanes;
            }
    }
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
