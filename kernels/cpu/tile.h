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

#if defined(__AMX_TILE__)  // on a processor with a matrix unit they are those of AVX-512
#define GPULSTM_TILES avx512
#else
#define GPULSTM_TILES GPULSTM_ISA
#endif

namespace gpulstm {
namespace GPULSTM_TILES {

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

template <typename R>
using Tile = void (*)(const Product<R>&, long v0);

// One panel of `nv` registers, a tile of rows as `tiles_for` gives them; tiles.cpp has them all.
template <typename R>
Tile<R> one_panel(int rows, int nv);

// `panels` panels of 3 or 4 registers, as `panels_at_once` says.
template <typename R>
Tile<R> some_panels(int rows, int nv, int panels);

}  // namespace GPULSTM_TILES

namespace GPULSTM_ISA {
#if defined(__AMX_TILE__)
using GPULSTM_TILES::one_panel;
using GPULSTM_TILES::Product;
using GPULSTM_TILES::ROWS;
using GPULSTM_TILES::some_panels;
using GPULSTM_TILES::Tile;
#endif

// How `rows` are divided into tiles of `registers` a row: so many, of nearly equal size.
static inline long tiles_for(long rows, int registers) {
    if (!FEW_REGISTERS) return (rows + ROWS - 1) / ROWS;
    if (registers == 4) return rows <= 5 ? (rows > 0) : rows / 3;  // of 3 to 5 rows
    const int most = registers == 3 ? 4 : ROWS;
    return (rows + most - 1) / most;
}

// Whether a panel of `registers` is taken in halves by all tiles of so few rows, so that its weights may lie so.
static inline bool in_halves(long rows, int registers) {
    return FEW_REGISTERS && registers == 4 && rows >= 4 && rows <= 5;
}

// How many panels a tile of so few rows takes at once, of those that are left: independent sums for the processor.
static inline int panels_at_once(long rows, long left) {
    int most = FEW_REGISTERS ? (rows == 1 ? 2 : 1) : rows == 1 ? 4 : rows <= 3 ? 2 : 1;
    while (most > left) most /= 2;
    return most;
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
