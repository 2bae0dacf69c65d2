// The gradients of the weights on a matrix unit (amx.h).
#ifndef GPULSTM_CPU_WEIGHTS_TILES_H
#define GPULSTM_CPU_WEIGHTS_TILES_H

#include "amx.h"
#include "gradients.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr long TILED_GRADIENT_ROWS = 512;  // of a part of a block
constexpr long TILED_GRADIENT_COLUMNS =
    24;  // tiles of columns of x or v whose parts, 1.1 MiB, stay in the second-level cache

template <typename R>
struct WeightsOnTiles : WeightGradients<R> {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    typedef typename M::Session Session;
    static constexpr long L = V::LANES;

    R* sums;         // of each thread: a tile's sums
    const R** rows;  // of each thread: where a part's rows of v lie
    Bf16 *tiled_left, *tiled_right;

    WeightsOnTiles(const BackwardCall<R>& c, const Shape<R>& s, int count)
        : WeightGradients<R>(c, s, count, TILED_GRADIENT_ROWS) {}

    void lay_out(Layout& m) {
        const long most = row_tiles_for(this->call.I) + row_tiles_for(this->call.H),
                   blocks = blocks_for(this->depth_most);
        const long tiles = most < TILED_GRADIENT_COLUMNS ? most : TILED_GRADIENT_COLUMNS;
        sums = m.take<R>(this->threads * TILE_ROWS * 4 * L);
        rows = m.take<const R*>(this->threads * this->depth_most);
        tiled_left = m.take<Bf16>(this->threads * tiles * blocks * BLOCK);
        tiled_right = m.take<Bf16>(this->threads * 4 * blocks * BLOCK);
    }

    void run(int thread, const R* dz) {
        this->each_part(thread, [&](long k, long depth, long p0, long p1) { part(thread, dz, k, depth, p0, p1); });
    }

    // The tiles of this->columns of x, then of v, in groups whose parts stay in the cache; for each group all panels of
    // dz.
    void part(int thread, const R* dz, long k, long depth, long p0, long p1) {
        const long x_tiles = row_tiles_for(this->call.I), all = x_tiles + row_tiles_for(this->call.H),
                   blocks = blocks_for(depth);
        const long groups = (all + TILED_GRADIENT_COLUMNS - 1) / TILED_GRADIENT_COLUMNS;
        Bf16* columns_of = tiled_left + thread * ((all + groups - 1) / groups) * blocks_for(this->depth_most) * BLOCK;
        Bf16* z = tiled_right + thread * 4 * blocks_for(this->depth_most) * BLOCK;
        const R** v = rows + thread * this->depth_most;
        for (long d = 0; d < depth; ++d) v[d] = this->before((k + d) / this->call.B, (k + d) % this->call.B);
        for (long g = 0; g < groups; ++g) {
            const long first = share(all, groups, g), last = share(all, groups, g + 1);
            for (long i = first; i < last; ++i) {
                Bf16* to = columns_of + (i - first) * blocks * BLOCK;
                if (i < x_tiles) {
                    const R* x = this->call.x + k * this->call.I + i * TILE_ROWS;
                    M::put_columns(to, depth,
                                   [&](long d) { return V::load(x + d * this->call.I, this->call.I - i * TILE_ROWS); });
                } else {
                    const long c = (i - x_tiles) * TILE_ROWS, room = this->call.H - c;
                    M::put_columns(to, depth, [&](long d) {
                        const V h = V::load(v[d] + c, room);
                        return this->call.mask
                                   ? h * V::load(this->call.mask + (k + d) % this->call.B * this->call.H + c, room)
                                   : h;
                    });
                }
            }
            for (long p = p0; p < p1; ++p) {
                R sum[4 * L];
                M::put_pairs(z, dz + (k * this->shape.panels + p) * 4 * L, this->shape.width, depth, sum);
                for (long i = first; i < last; ++i) {
                    const Bf16* of = columns_of + (i - first) * blocks * BLOCK;
                    const long c = (i < x_tiles ? i : i - x_tiles) * TILE_ROWS;
                    if (i < x_tiles)
                        add_tile(this->shape.x, of, z, blocks, p, c, this->call.I, this->call.dw_x, thread);
                    else
                        add_tile(this->shape.h, of, z, blocks, p, c, this->call.H, this->call.dw_h, thread);
                }
                if (g == 0) this->add_biases(p, sum);
            }
        }
    }

    // dw [M][G*H] += the product for rows c to c + 15 and the this->columns of a panel.
    void add_tile(const Part& part, const Bf16* of, const Bf16* z, long blocks, long p, long c, long count, R* dw,
                  int thread) {
        const long row = this->shape.gates * this->shape.H, rows_there = count - c < TILE_ROWS ? count - c : TILE_ROWS;
        R* own = sums + thread * TILE_ROWS * 4 * L;
        const bool whole = rows_there == TILE_ROWS && this->shape.unit(p, part.count - 1) + L <= this->shape.H;
        R* at[4];
        for (int j = 0; j < part.count; ++j)
            at[j] = whole ? dw + c * row + this->shape.column(part, p, j) : own + j * L;
        if (!whole)  // the tile's own copy: what lies next to it may be another thread's
            for (long r = 0; r < rows_there; ++r)
                for (int j = 0; j < part.count; ++j) {
                    const long room = this->shape.H - this->shape.unit(p, j);
                    const R* from = dw + (c + r) * row + this->shape.column(part, p, j);
                    (room > 0 ? V::load(from, room) : V(R(0))).store(own + (r * 4 + j) * L);
                }
        const long stride = whole ? row : 4 * L;
        z += part.first * BLOCK;
        if (part.count == 4)
            M::template add_product<4>(at, stride, of, z, blocks, 0);
        else
            M::template add_product<3>(at, stride, of, z, blocks, 1);
        if (!whole)
            for (long r = 0; r < rows_there; ++r)
                for (int j = 0; j < part.count; ++j) {
                    const long room = this->shape.H - this->shape.unit(p, j);
                    if (room > 0)
                        V::load(own + (r * 4 + j) * L).store(dw + (c + r) * row + this->shape.column(part, p, j), room);
                }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
