// The forms of the inner product (tile.h), compiled once per instruction set (GPULSTM_ISA).
#include "tile.h"

namespace gpulstm {
namespace GPULSTM_ISA {
namespace {

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

}  // namespace

template <typename R>
Tile<R> one_panel(int rows, int nv) {
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

template <typename R>
Tile<R> some_panels(int rows, int nv, int panels) {
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

template Tile<float> one_panel<float>(int, int);
template Tile<float> some_panels<float>(int, int, int);
template Tile<double> one_panel<double>(int, int);
template Tile<double> some_panels<double>(int, int, int);

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
