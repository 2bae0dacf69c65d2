// The products of a forward pass on a matrix unit (amx.h), whose shared form runs over its tiles; the state is kept in
// parts next to the numbers.  Gates are computed between the products of the next tile.
#ifndef GPULSTM_CPU_FORWARD_TILES_H
#define GPULSTM_CPU_FORWARD_TILES_H

#include "amx.h"
#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct ForwardOnTiles {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    typedef typename M::Session Session;
    static constexpr long L = V::LANES;
    static size_t weight_bytes(const ForwardCall<R>&) { return 6; }
    static constexpr bool NARROWS = false;
    static constexpr long FULL_ROWS = TILE_ROWS;

    Bf16 *tiled_x, *tiled_h, *left_x, *left_v[2];  // in parts: the weights, each thread's x_t, each group's v

    template <typename Pass>
    explicit ForwardOnTiles(const Pass&) {}

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        const auto weights_size = [&](long K, const Part& part) {
            return pass.shape.panels * blocks_for(K) * part.count * BLOCK;
        };
        tiled_x = m.take<Bf16>(weights_size(pass.call.I, pass.shape.x));
        tiled_h = m.take<Bf16>(weights_size(pass.shape.padded, pass.shape.h));
        left_x = m.take<Bf16>(pass.plan.count() * left_size(pass, pass.call.I));
        for (Bf16*& left : left_v) left = m.take<Bf16>(pass.plan.groups * left_size(pass, pass.shape.padded));
    }
    // Of a thread's scratch: all rows of two panels.
    template <typename Pass>
    static long scratch_size(const Pass& pass) {
        return 2 * row_tiles_for(pass.rows_most) * TILE_ROWS * 4 * L;
    }

    template <typename Pass>
    void pack(const Pass& pass, long p0, long p1) {
        M::pack_weights(pass.shape, pass.shape.x, pass.call.w_x, pass.call.I, pass.call.I, tiled_x, p0, p1);
        M::pack_weights(pass.shape, pass.shape.h, pass.call.w_h, pass.call.H, pass.shape.padded, tiled_h, p0, p1);
    }
    template <typename Pass>
    void clear(const Pass& pass, int group) {  // the rows and units that no state fills
        const long size = left_size(pass, pass.shape.padded);
        for (Bf16* left : left_v) __builtin_memset(left + group * size, 0, size_t(size) * sizeof(Bf16));
    }
    template <typename Pass>
    inline void put(const Pass& pass, const Place& place, long b, long s, long u, V value) {
        M::put(left_v[s & 1] + place.group * left_size(pass, pass.shape.padded), blocks_for(pass.shape.padded),
               b - place.r0, u, value);
    }
    template <typename Pass>
    void before_step(const Pass&, const Place&, long, long, long) {}

    template <typename Pass>
    void step(Pass& pass, const Place& place, int thread, long s, long t, long q0, long q1, R* own) {
        const long rows = place.r1 - place.r0, row_tiles = row_tiles_for(rows), line = 4 * L;
        const long x_blocks = blocks_for(pass.call.I), h_blocks = blocks_for(pass.shape.padded),
                   all = x_blocks + h_blocks;
        Bf16* x = left_x + thread * left_size(pass, pass.call.I);
        const Bf16* v_old = left_v[s & 1] + place.group * left_size(pass, pass.shape.padded);
        M::put_rows(x, pass.call.x + (t * pass.call.B + place.r0) * pass.call.I, pass.call.I, rows, pass.call.I);
        struct {  // the tile of rows whose sums are ready: its rows are finished while the next one is multiplied
            long p, r, end;
            const R* sums;
        } ready = {0, 0, 0, nullptr};
        const auto finish_one = [&] {
            if (ready.r == ready.end) return;
            pass.finish(place, place.r0 + ready.r, 1, s, t, ready.p, ready.sums, line);
            ready.sums += line;
            ++ready.r;
        };
        const long length = row_tiles > 1 ? depth_blocks(all) : all;
        for (long done = q0; done < q1; ++done) {
            const long p = s & 1 ? q0 + q1 - 1 - done : done;  // why: see `step`
            const Bf16* w_x_panel = tiled_x + p * x_blocks * pass.shape.x.count * BLOCK;
            const Bf16* w_h_panel = tiled_h + p * h_blocks * pass.shape.h.count * BLOCK;
            for (long k = 0; k < all; k += length) {
                const long end = k + length < all ? k + length : all;
                for (long i = 0; i < row_tiles; ++i) {
                    R* sums = own + ((done & 1) * row_tiles + i) * TILE_ROWS * line;
                    M::template load<4>(k ? sums : pass.bias + p * line, k ? line : 0);
                    if (k < x_blocks)
                        M::multiply_slots(pass.shape.x, x + (i * x_blocks + k) * BLOCK,
                                          w_x_panel + k * pass.shape.x.count * BLOCK,
                                          (end < x_blocks ? end : x_blocks) - k, finish_one);
                    const long from = k < x_blocks ? 0 : k - x_blocks;
                    if (end > x_blocks)
                        M::multiply_slots(pass.shape.h, v_old + (i * h_blocks + from) * BLOCK,
                                          w_h_panel + from * pass.shape.h.count * BLOCK, end - x_blocks - from,
                                          finish_one);
                    M::template store<4>(sums, line);
                    if (end < all) continue;
                    while (ready.r < ready.end) finish_one();
                    ready = {p, i * TILE_ROWS, rows < (i + 1) * TILE_ROWS ? rows : (i + 1) * TILE_ROWS, sums};
                }
            }
        }
        while (ready.r < ready.end) finish_one();
    }

  private:
    template <typename Pass>
    static long left_size(const Pass& pass, long K) {
        return row_tiles_for(pass.rows_most) * blocks_for(K) * BLOCK;
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
