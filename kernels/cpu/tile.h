// The inner product of everything here: a tile of some batch rows by NV registers, P panels side by side.
//
//     out[r][p][v] = in[r][p][v] + sum over k of a[r][k] * b[p][k][v]
//
// All sums run over k in one chain a number, whatever the tile's form, so that a result does not depend on how the rows
// were divided into tiles, or among threads.
//
// A processor starts two products a cycle and has each ready after four: below eight sums at once it waits, and from twelve
// on it is near its peak.  So the forms depend on the number of vector registers.  With 32 (AVX-512, NEON) a tile has up to
// six rows of a whole panel.  With 16 (AVX2, SSE2) a panel of four registers is taken whole by up to three rows, and in two
// halves by four to six, one of three registers by up to four rows; what each form reaches stands in docs/cpu-engine.md.
#ifndef GPULSTM_CPU_TILE_H
#define GPULSTM_CPU_TILE_H

#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long AHEAD = 8 << 10;  // bytes by which weights are asked for before they are used
constexpr int ROWS = 6;          // of a tile, at most

// Rows of a tile of `registers` a row, at most.
static inline int rows_of_tile(int registers) { return FEW_REGISTERS && registers == 3 ? 4 : ROWS; }
// In how many passes over its registers a panel is multiplied, whatever the rows of each tile.
static inline int passes_of_panel(int registers) { return FEW_REGISTERS && registers == 4 ? 2 : 1; }

template <typename R>
struct Product {
    const R* in;  // [row][panel][NV registers]; null for zeros
    long in_row;
    R* out;
    long out_row, io_panel;
    const R* a;  // row r, number k of segment s: a[s * a_segment + r * a_row + k * a_step]
    long a_row, a_step, a_segment;
    long segments, run;  // numbers of k: `segments` of `run`
    const R* b;          // [panel][k][NV registers], `b_row` from one k to the next
    long b_panel, b_row;
};

template <typename R, int RS, int NV, int P>
static void tile(const Product<R>& q) {
    typedef typename Raw<R>::V V;
    constexpr int L = Vec<R>::LANES;
    constexpr long SIZE = sizeof(R);
    V acc[P][RS][NV];
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < RS; ++r)
            for (int v = 0; v < NV; ++v)
                acc[p][r][v] = q.in ? Vec<R>::load(q.in + r * q.in_row + p * q.io_panel + v * L).v : V{};
    const R* b = q.b;
    const long row = q.a_row * SIZE, step = q.a_step * SIZE;
    for (long s = 0; s < q.segments; ++s) {
        const char* first = reinterpret_cast<const char*>(q.a + s * q.a_segment);  // rows 0 to 2, and from 3 on:
        const char* second = first + 3 * row;
        for (long k = 0; k < q.run; ++k, b += q.b_row, first += step, second += step) {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                V w[NV];
                if (RS > 3)  // large weights come from the third-level cache
                    for (int v = 0; v < NV; v += 64 / (L * SIZE))
                        __builtin_prefetch(b + p * q.b_panel + v * L + AHEAD / SIZE);
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) w[v] = Vec<R>::load(b + p * q.b_panel + v * L).v;
#pragma GCC unroll 8
                for (int r = 0; r < RS; ++r) {
                    V x = Vec<R>(*reinterpret_cast<const R*>(r < 3 ? first + r * row : second + (r - 3) * row)).v;
#pragma GCC unroll 4
                    for (int v = 0; v < NV; ++v) acc[p][r][v] += x * w[v];
                }
            }
        }
    }
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < RS; ++r)
            for (int v = 0; v < NV; ++v) Vec<R>(acc[p][r][v]).store(q.out + r * q.out_row + p * q.io_panel + v * L);
}

template <typename R, int NV>
static void tile_of_rows(const Product<R>& q, int rows) {
    constexpr int MOST = FEW_REGISTERS ? 12 / NV : ROWS;
    switch (rows) {
        case 1: return tile<R, 1, NV, 1>(q);
        case 2: return tile<R, 2, NV, 1>(q);
        case 3: return tile<R, 3, NV, 1>(q);
        case 4:
            if constexpr (MOST >= 4) return tile<R, 4, NV, 1>(q);
            break;
        case 5:
            if constexpr (MOST >= 5) return tile<R, 5, NV, 1>(q);
            break;
        case 6:
            if constexpr (MOST >= 6) return tile<R, 6, NV, 1>(q);
            break;
    }
    __builtin_unreachable();
}

// One tile of up to `rows_of_tile(nv)` rows: pass `pass` of the panel's `passes_of_panel(nv)`.
template <typename R>
static void one_panel(Product<R> q, int rows, int nv, int pass) {
    constexpr long HALF = 2 * Vec<R>::LANES;
    switch (nv) {
        case 1: return tile_of_rows<R, 1>(q, rows);
        case 2: return tile_of_rows<R, 2>(q, rows);
        case 3: return tile_of_rows<R, 3>(q, rows);
    }
    if (!FEW_REGISTERS) return tile_of_rows<R, 4>(q, rows);
    if (rows <= 3) {
        if (pass == 0) tile_of_rows<R, 4>(q, rows);
        return;
    }
    q.b += pass * HALF;
    q.out += pass * HALF;
    if (q.in) q.in += pass * HALF;
    tile_of_rows<R, 2>(q, rows);
}

// How many panels a tile of so few rows takes at once, of those that are left: independent sums for the processor.
static inline int panels_at_once(long rows, long left) {
    int most = FEW_REGISTERS ? (rows == 1 ? 2 : 1) : rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    while (most > left) most /= 2;
    return most;
}

// `panels` panels of 3 or 4 registers, as `panels_at_once` says.
template <typename R>
static void some_panels(const Product<R>& q, int rows, int nv, int panels, int pass) {
    if (panels == 1) return one_panel<R>(q, rows, nv, pass);
    if (pass) return;
    const bool four = nv == 4;
    if (rows == 1 && panels == 2) return four ? tile<R, 1, 4, 2>(q) : tile<R, 1, 3, 2>(q);
    if constexpr (!FEW_REGISTERS) {
        if (rows == 1) return four ? tile<R, 1, 4, 4>(q) : tile<R, 1, 3, 4>(q);
        if (rows == 2) return four ? tile<R, 2, 4, 2>(q) : tile<R, 2, 3, 2>(q);
        return four ? tile<R, 3, 4, 2>(q) : tile<R, 3, 3, 2>(q);
    }
}

// One panel from memory of its own: sums of zero, one run of k.
template <typename R>
static Product<R> plain_product(const R* a, long a_row, long run, const R* b, long b_row, R* out, long out_row) {
    return Product<R>{nullptr, 0, out, out_row, 0, a, a_row, 1, 0, 1, run, b, 0, b_row};
}

// `count` rows in tiles of nearly equal size: where part `index` of `parts` begins.
static inline long share(long count, long parts, long index) { return count * index / parts; }
static inline long tiles_for(long rows, int registers) {
    const int most = rows_of_tile(registers);
    return (rows + most - 1) / most;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
