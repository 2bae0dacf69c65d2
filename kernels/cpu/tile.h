// The inner product of everything here: a tile of up to ROWS batch rows by NV registers, P panels side by side.
//
//     out[r][p][v] = in[r][p][v] + sum over k of a[r][k] * b[p][k][v]
//
// All sums run over k in one chain a number, whatever the tile's form, so that a result does not depend on how the rows
// were divided into tiles, or among threads.  P > 1 is for few rows: it gives the processor independent chains.
#ifndef GPULSTM_CPU_TILE_H
#define GPULSTM_CPU_TILE_H

#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long AHEAD = 8 << 10;  // bytes by which weights are asked for before they are used

template <typename R>
struct Product {
    const R* in;  // [row][panel][NV registers]; null for zeros
    long in_row;
    R* out;
    long out_row, io_panel;
    const R* a;  // [row][k], the k in `segments` runs of `run`, `a_segment` apart; packed: [segment][k][ROWS of the tile]
    long a_row, a_segment;
    long segments, run;
    const R* b;  // [panel][k][NV registers], `b_row` from one k to the next
    long b_panel, b_row;
};

template <typename R, int RS, int NV, int P, bool PACKED>
static void tile(const Product<R>& q) {
    typedef typename Raw<R>::V V;
    constexpr int L = Vec<R>::LANES;
    V acc[P][RS][NV];
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < RS; ++r)
            for (int v = 0; v < NV; ++v)
                acc[p][r][v] = q.in ? Vec<R>::load(q.in + r * q.in_row + p * q.io_panel + v * L).v : V{};
    const R* b = q.b;
    for (long s = 0; s < q.segments; ++s) {
        const R* a[RS];
#pragma GCC unroll 8
        for (int r = 0; r < RS; ++r) a[r] = q.a + s * q.a_segment + (PACKED ? r : r * q.a_row);
        for (long k = 0; k < q.run; ++k, b += q.b_row) {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                V w[NV];
                if (RS > 3)  // large weights come from the third-level cache
                    for (int v = 0; v < NV; ++v) __builtin_prefetch(b + p * q.b_panel + v * L + AHEAD / long(sizeof(R)));
#pragma GCC unroll 4
                for (int v = 0; v < NV; ++v) w[v] = Vec<R>::load(b + p * q.b_panel + v * L).v;
#pragma GCC unroll 8
                for (int r = 0; r < RS; ++r) {
                    V x = Vec<R>(a[r][PACKED ? k * RS : k]).v;
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

template <typename R>
using Tile = void (*)(const Product<R>&);

template <typename R, int NV, bool PACKED>
static Tile<R> tile_of_rows(int rows) {
    switch (rows) {
        case 1: return tile<R, 1, NV, 1, PACKED>;
        case 2: return tile<R, 2, NV, 1, PACKED>;
        case 3: return tile<R, 3, NV, 1, PACKED>;
#if GPULSTM_TILE_ROWS > 3
        case 4: return tile<R, 4, NV, 1, PACKED>;
        case 5: return tile<R, 5, NV, 1, PACKED>;
        case 6: return tile<R, 6, NV, 1, PACKED>;
#endif
    }
    return nullptr;
}

// One panel of `nv` registers a row.
template <typename R, bool PACKED>
static Tile<R> one_panel(int rows, int nv) {
    switch (nv) {
        case 1: return tile_of_rows<R, 1, PACKED>(rows);
        case 2: return tile_of_rows<R, 2, PACKED>(rows);
        case 3: return tile_of_rows<R, 3, PACKED>(rows);
        case 4: return tile_of_rows<R, 4, PACKED>(rows);
    }
    return nullptr;
}

// How many panels a tile of so few rows takes at once, of those that are left.
static inline int panels_at_once(long rows, long left) {
    int most = 1;
    if (ROWS == 6) most = rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    else if (rows == 1) most = 2;
    while (most > left) most /= 2;
    return most;
}

// `panels` panels of 3 or 4 registers, as `panels_at_once` says.
template <typename R>
static Tile<R> some_panels(int rows, int nv, int panels) {
    if (panels == 1) return one_panel<R, false>(rows, nv);
    bool four = nv == 4;
    if (rows == 1 && panels == 2) return four ? tile<R, 1, 4, 2, false> : tile<R, 1, 3, 2, false>;
#if GPULSTM_TILE_ROWS > 3
    if (rows == 1 && panels == 4) return four ? tile<R, 1, 4, 4, false> : tile<R, 1, 3, 4, false>;
    if (rows == 2) return four ? tile<R, 2, 4, 2, false> : tile<R, 2, 3, 2, false>;
    if (rows == 3) return four ? tile<R, 3, 4, 2, false> : tile<R, 3, 3, 2, false>;
#endif
    return nullptr;
}

// One panel from memory of its own: sums of zero, one run of k.
template <typename R>
static Product<R> plain_product(const R* a, long a_row, long run, const R* b, long b_row, R* out, long out_row) {
    return Product<R>{nullptr, 0, out, out_row, 0, a, a_row, 0, 1, run, b, 0, b_row};
}

// `count` rows in tiles of nearly equal size: where part `index` of `parts` begins.
static inline long share(long count, long parts, long index) { return count * index / parts; }
static inline long tiles_for(long rows) { return (rows + ROWS - 1) / ROWS; }

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
