// Products of whole matrices on the tiles: rows times a packed right factor, and sums of outer products over rows.
//
// Columns may be the gates of a layer, [G*H] in the caller's arrays and [G][padded H] here, so that a register never
// holds units of two gates; `Columns` says where a register lies in both.
#ifndef GPULSTM_CPU_MATRIX_H
#define GPULSTM_CPU_MATRIX_H

#include <initializer_list>

#include "gradients.h"

namespace gpulstm {
namespace GPULSTM_ISA {

// `parts` runs of `size` numbers that lie one after another, each padded to whole registers.
template <typename R>
struct Columns {
    static constexpr long L = Vec<R>::LANES;
    long parts, size, padded, registers;
    Columns(long count, long numbers)
        : parts(count), size(numbers), padded((numbers + L - 1) / L * L), registers(count * padded / L) {}
    long all() const { return parts * padded; }
    // Of a register: where its numbers lie in the caller's row, and how many of them there are.
    long at(long j) const { return j * L / padded * size + j * L % padded; }
    long left(long j) const { return size - j * L % padded; }
};

// A right factor [K][columns], packed in panels of four registers.
template <typename R>
struct Matrix {
    typedef Vec<R> V;
    static constexpr long L = V::LANES;
    long K;
    Transposed form;
    R* data = nullptr;

    Matrix(long k, long registers) : K(k), form(registers * L, L, 4) {}
    void lay_out(Layout& m) { data = m.take<R>(form.panels * form.nv * L * K); }
    long line() const { return form.registers * L; }

    // From w [K][row], columns as described, from number `first` of a row on.
    void pack(const R* w, long row, const Columns<R>& columns, long first = 0) {
        each([&](R* to, long j, int step) {
            for (long k = 0; k < K; ++k, to += step)
                V::load(w + k * row + first + columns.at(j), columns.left(j)).store(to);
        });
    }
    // From w [N][row] transposed: k over the columns described, padding included.
    void pack_transposed(const R* w, long N, long row, const Columns<R>& columns, long first = 0) {
        each([&](R* to, long j, int step) {
            for (long k = 0; k < K; k += L) {
                const long count = columns.left(k / L);
                const R* from = w + first + columns.at(k / L);
                for (long e = 0; e < L; ++e, to += step)
                    for (long n = 0; n < L; ++n)
                        to[n] = e < count && j * L + n < N ? from[(j * L + n) * row + e] : R(0);
            }
        });
    }

    // out [rows][line] = in + a b, `in_row` 0 for the same row everywhere, in null for zeros.
    void multiply(const R* a, long a_row, long rows, const R* in, long in_row, R* out, long out_row) const {
        for (long r = 0; r < rows; r += CHUNK_ROWS) {
            const long now = rows - r < CHUNK_ROWS ? rows - r : CHUNK_ROWS;
            for (long q = 0; q < form.panels; ++q) {
                const long column = q * form.nv * L;
                const int nv = form.in_panel(q);
                Product<R> m = plain_product(a + r * a_row, a_row, K, data + form.offset(q, K), nv * L,
                                             out + r * out_row + column, out_row);
                if (in) m.in = in + r * in_row + column, m.in_row = in_row;
                product(m, now, nv);
            }
        }
    }

  private:
    template <typename F>
    void each(F fill) {
        for (long q = 0; q < form.panels; ++q)
            for (int j = 0; j < form.in_panel(q); ++j)
                fill(data + form.offset(q, K) + j * L, q * form.nv + j, int(form.in_panel(q) * L));
    }
};

// The working space of `add_outer`, of each thread.
template <typename R>
struct OuterRoom {
    static constexpr long L = Vec<R>::LANES, DEPTH = 128;
    R *left, *right, *sums;
    long each;
    void lay_out(Layout& m, int threads, long most) {
        each = DEPTH * most;
        left = m.take<R>(threads * each);
        right = m.take<R>(threads * DEPTH * 4 * L);
        sums = m.take<R>(threads * ROWS * 4 * L);
    }
};

// dw [M][row] (from number `first` of a row on) += sum over rows k of a(k)[M]^T d[k][columns], for the registers that
// fall to a thread.  a(k) gives a row and a factor for it, null for ones.
template <typename R, typename A>
static void add_outer(const OuterRoom<R>& room, int thread, int threads, long k0, long depth, long M, A a, const R* d,
                      long d_row, const Columns<R>& columns, R* dw, long row, long first = 0) {
    typedef Vec<R> V;
    constexpr long L = V::LANES;
    const long panels = (columns.registers + 3) / 4, q0 = share(panels, threads, thread),
               q1 = share(panels, threads, thread + 1);
    if (q0 == q1) return;
    R *left = room.left + thread * room.each, *right = room.right + thread * OuterRoom<R>::DEPTH * 4 * L;
    R* sum = room.sums + thread * ROWS * 4 * L;
    const LeftFactor<R> factors{M, depth, left};
    for (long k = 0; k < depth; ++k) {
        const R *factor = nullptr, *from = a(k0 + k, factor);
        factors.put(from, factor, k);
    }
    for (long q = q0; q < q1; ++q) {
        const int nv = int(columns.registers - q * 4 < 4 ? columns.registers - q * 4 : 4);
        for (long k = 0; k < depth; ++k)
            for (int j = 0; j < nv; ++j)
                V::load(d + (k0 + k) * d_row + (q * 4 + j) * L).store(right + (k * nv + j) * L);
        factors.each_tile(nv, right, nv * L, sum, [&](long c, long count) {
            for (int j = 0; j < nv; ++j) {
                const long left_over = columns.left(q * 4 + j);
                if (left_over <= 0) continue;
                R* to = dw + c * row + first + columns.at(q * 4 + j);
                for (long e = 0; e < count; ++e, to += row)
                    (V::load(to, left_over) + V::load(sum + (e * nv + j) * L)).store(to, left_over);
            }
        });
    }
}

// N registers of `add_columns` from register j on: a row is read in whole cache lines, and b(k) asked once for all.
template <typename R, int N, typename B>
static void add_some_columns(long j, long k0, long depth, const R* d, long d_row, B b, const Columns<R>& columns,
                             R* out) {
    typedef Vec<R> V;
    constexpr long L = V::LANES;
    typename Raw<R>::V total[N] = {};
    for (long k = k0; k < k0 + depth; ++k) {
        const R *row = d + k * d_row + j * L, *other = b(k);
        for (int n = 0; n < N; ++n) {
            const auto value = V::load(row + n * L).v;
            total[n] += other ? value * V::load(other + (j + n) * L).v : value;
        }
    }
    for (int n = 0; n < N; ++n) {
        const long left = columns.left(j + n);
        if (left <= 0) continue;
        R* to = out + columns.at(j + n);
        (V::load(to, left) + V(total[n])).store(to, left);
    }
}

// out [columns] += sum over rows k of d[k][columns] times b(k)[columns], or of d alone where b gives null.
template <typename R, typename B>
static void add_columns(int thread, int threads, long k0, long depth, const R* d, long d_row, B b,
                        const Columns<R>& columns, R* out) {
    long j = share(columns.registers, threads, thread);
    const long stop = share(columns.registers, threads, thread + 1);
    for (; j + 8 <= stop; j += 8) add_some_columns<R, 8>(j, k0, depth, d, d_row, b, columns, out);
    for (; j + 2 <= stop; j += 2) add_some_columns<R, 2>(j, k0, depth, d, d_row, b, columns, out);
    for (; j < stop; ++j) add_some_columns<R, 1>(j, k0, depth, d, d_row, b, columns, out);
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
