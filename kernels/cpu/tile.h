// The inner product of everything here: a tile of some batch rows by NV registers, P panels side by side.
//
//     out[r][p][v] = in[r][p][v] + sum over k of a[r][k] * b[p][k][v]
//
// All sums run over k in one chain a number, whatever the tile's form, so that a result does not depend on how the rows
// were divided into tiles, or among threads.
//
// A processor starts two products a cycle and has each ready after four: with fewer than eight sums at once it waits,
// with twelve it is near its peak.  So the forms depend on the number of vector registers.  With 32 (AVX-512, NEON) a
// tile has up to six rows of a whole panel.  With 16 (AVX2, SSE2) a panel of four registers is taken whole by up to
// three rows and in two halves by four or five, one of three registers by up to four rows; what each form reaches
// stands in docs/cpu-engine.md.
#ifndef GPULSTM_CPU_TILE_H
#define GPULSTM_CPU_TILE_H

#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long AHEAD = 8 << 10;  // bytes by which weights are asked for before they are used
constexpr int ROWS = 6;          // of a tile, at most

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

// Registers v0 to v0 + NV - 1 of the panels.
template <typename R, int RS, int NV, int P>
static void tile(const Product<R>& q, long v0 = 0) {
    typedef typename Raw<R>::V V;
    constexpr int L = Vec<R>::LANES;
    constexpr long SIZE = sizeof(R);
    V acc[P][RS][NV];
    const R* in = q.in ? q.in + v0 * L : nullptr;
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < RS; ++r)
            for (int v = 0; v < NV; ++v)
                acc[p][r][v] = in ? Vec<R>::load(in + r * q.in_row + p * q.io_panel + v * L).v : V{};
    const R* b = q.b + v0 * L;
    const long row = q.a_row * SIZE, step = q.a_step * SIZE;
    for (long s = 0; s < q.segments; ++s) {
        const char* first = reinterpret_cast<const char*>(q.a + s * q.a_segment);  // rows 0 to 2, and from 3 on:
        const char* second = first + 3 * row;
        for (long k = 0; k < q.run; ++k, b += q.b_row, first += step, second += step) {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                V w[NV];
                if (RS > 3)  // large weights come from the third-level cache
                    for (int v = 0; v < NV; v += int(64 / (L * SIZE)))
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
    R* out = q.out + v0 * L;
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < RS; ++r)
            for (int v = 0; v < NV; ++v) Vec<R>(acc[p][r][v]).store(out + r * q.out_row + p * q.io_panel + v * L);
}

template <typename R, int RS>
static void tile_in_halves(const Product<R>& q, long) {
    tile<R, RS, 2, 1>(q, 0);
    tile<R, RS, 2, 1>(q, 2);
}

template <typename R, int RS>
static void tile_of_two_and_one(const Product<R>& q, long) {
    tile<R, RS, 2, 1>(q, 0);
    tile<R, RS, 1, 1>(q, 2);
}

template <typename R>
using Tile = void (*)(const Product<R>&, long v0);

// How `rows` are divided into tiles of `registers` a row: so many, of nearly equal size.
static inline long tiles_for(long rows, int registers) {
    if (!FEW_REGISTERS) return (rows + ROWS - 1) / ROWS;
    if (registers == 4) return rows <= 5 ? (rows > 0) : rows / 3;  // of 3 to 5 rows
    const int most = registers == 3 ? 4 : ROWS;
    return (rows + most - 1) / most;
}

// One panel of `nv` registers, a tile of rows as `tiles_for` gives them.
template <typename R>
static Tile<R> one_panel(int rows, int nv) {
    static constexpr Tile<R> forms[4][ROWS] = {
        {tile<R, 1, 1, 1>, tile<R, 2, 1, 1>, tile<R, 3, 1, 1>, tile<R, 4, 1, 1>, tile<R, 5, 1, 1>, tile<R, 6, 1, 1>},
        {tile<R, 1, 2, 1>, tile<R, 2, 2, 1>, tile<R, 3, 2, 1>, tile<R, 4, 2, 1>, tile<R, 5, 2, 1>, tile<R, 6, 2, 1>},
#if GPULSTM_FEW_REGISTERS
        {tile<R, 1, 3, 1>, tile<R, 2, 3, 1>, tile<R, 3, 3, 1>, tile<R, 4, 3, 1>, tile_of_two_and_one<R, 5>},
        {tile<R, 1, 4, 1>, tile<R, 2, 4, 1>, tile<R, 3, 4, 1>, tile_in_halves<R, 4>, tile_in_halves<R, 5>},
#else
        {tile<R, 1, 3, 1>, tile<R, 2, 3, 1>, tile<R, 3, 3, 1>, tile<R, 4, 3, 1>, tile<R, 5, 3, 1>, tile<R, 6, 3, 1>},
        {tile<R, 1, 4, 1>, tile<R, 2, 4, 1>, tile<R, 3, 4, 1>, tile<R, 4, 4, 1>, tile<R, 5, 4, 1>, tile<R, 6, 4, 1>},
#endif
    };
    return forms[nv - 1][rows - 1];
}

// How many panels a tile of so few rows takes at once, of those that are left: independent sums for the processor.
static inline int panels_at_once(long rows, long left) {
    int most = FEW_REGISTERS ? (rows == 1 ? 2 : 1) : rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    while (most > left) most /= 2;
    return most;
}

// `panels` panels of 3 or 4 registers, as `panels_at_once` says.
template <typename R>
static Tile<R> some_panels(int rows, int nv, int panels) {
    if (panels == 1) return one_panel<R>(rows, nv);
    const bool four = nv == 4;
    if (rows == 1 && panels == 2) return four ? tile<R, 1, 4, 2> : tile<R, 1, 3, 2>;
#if !GPULSTM_FEW_REGISTERS
    if (rows == 1) return four ? tile<R, 1, 4, 4> : tile<R, 1, 3, 4>;
    if (rows == 2) return four ? tile<R, 2, 4, 2> : tile<R, 2, 3, 2>;
    if (rows == 3) return four ? tile<R, 3, 4, 2> : tile<R, 3, 3, 2>;
#endif
    return nullptr;
}

// One panel from memory of its own: sums of zero, one run of k.
template <typename R>
static Product<R> plain_product(const R* a, long a_row, long run, const R* b, long b_row, R* out, long out_row) {
    return Product<R>{nullptr, 0, out, out_row, 0, a, a_row, 1, 0, 1, run, b, 0, b_row};
}

// `count` rows in tiles of nearly equal size: where part `index` of `parts` begins.
static inline long share(long count, long parts, long index) { return count * index / parts; }

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
