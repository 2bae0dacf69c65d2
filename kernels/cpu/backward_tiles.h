// The products of a backward pass on a matrix unit (amx.h): of a step, and of dx.  dz_t is split into parts as it is
// made.
#ifndef GPULSTM_CPU_BACKWARD_TILES_H
#define GPULSTM_CPU_BACKWARD_TILES_H

#include "amx.h"
#include "backward_vectors.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct BackwardOnTiles {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    static constexpr long L = V::LANES;
    static constexpr size_t WEIGHT_BYTES = 6;
    static constexpr bool NARROWS = false;
    static constexpr long FULL_ROWS = TILE_ROWS;

    Bf16 *tiled_h, *left_dz[2];  // in parts: W_h^T, each group's dz of a step
    BackwardOnVectors<R> first;  // the last step in time, to which nothing comes back through W_h

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        tiled_h = m.take<Bf16>(pass.units.panels * pass.units.nv * blocks_for(pass.depth_h()) * BLOCK);
        for (Bf16*& left : left_dz) left = m.take<Bf16>(pass.plan.groups * left_size(pass));
    }
    template <typename Pass>
    static long scratch_rows(const Pass& pass) {
        const long rows = 2 * row_tiles_for(pass.rows_most()) * TILE_ROWS;
        return rows > CHUNK_ROWS ? rows : CHUNK_ROWS;
    }
    template <typename Pass>
    void pack(const Pass& pass, long q0, long q1) {
        M::pack_transposed(pass.shape, pass.shape.h, pass.call.w_h, pass.units, tiled_h, q0, q1);
    }
    template <typename Pass>
    void clear(const Pass& pass, int group) {  // the rows and columns that no gradient fills
        const long size = left_size(pass);
        for (Bf16* left : left_dz) __builtin_memset(left + group * size, 0, size_t(size) * sizeof(Bf16));
    }
    // Slot j of the panel of units u, for the next product.
    template <typename Pass>
    inline void put(const Pass& pass, const Place& place, long b, long s, long u, int j, V d) {
        if (j < pass.shape.h.first) return;
        const long column = pass.shape.is_rnn() ? u : u * pass.shape.h.count + (j - pass.shape.h.first) * L;
        M::put(left_dz[s & 1] + place.group * left_size(pass), blocks_for(pass.depth_h()), b - place.r0, column, d);
    }

    template <typename Pass>
    void step(Pass& pass, const Place& place, long s, long q0, long q1, R* own) {
        if (s + 1 == pass.call.T) return first.step(pass, place, s, q0, q1, own);
        const long rows = place.r1 - place.r0, row_tiles = row_tiles_for(rows), line = pass.units.nv * L;
        const long all = blocks_for(pass.depth_h()), length = row_tiles > 1 ? depth_blocks(all) : all;
        const Bf16* left = left_dz[(s + 1) & 1] + place.group * left_size(pass);
        const int at_once = int((TILE_ROWS + all - 1) / all);
        struct {  // the tile of rows whose sums are ready: they are finished while the next one is multiplied
            long q, r, end;
            const R* sums;
            int j;
        } ready = {0, 0, 0, nullptr, 0};
        const auto finish_one = [&] {
            if (ready.r == ready.end) return;
            pass.finish_sums(place, place.r0 + ready.r, 1, s, ready.q * pass.units.nv * L + ready.j * L, 1,
                             ready.sums + ready.j * L, line);
            if (++ready.j < pass.units.in_panel(ready.q)) return;
            ready.j = 0;
            ready.sums += line;
            ++ready.r;
        };
        const auto between = [&] {
            for (int n = 0; n < at_once; ++n) finish_one();
        };
        for (long done = q0; done < q1; ++done) {
            const long q = s & 1 ? q0 + q1 - 1 - done : done;
            const int nv = pass.units.in_panel(q);
            const Bf16* right = tiled_h + M::transposed_at(pass.units, q, all);
            for (long k = 0; k < all; k += length) {
                const long now = k + length < all ? length : all - k;
                for (long i = 0; i < row_tiles; ++i) {
                    R* sums = own + ((done & 1) * row_tiles + i) * TILE_ROWS * line;
                    M::product(nv, left + (i * all + k) * BLOCK, right + k * nv * BLOCK, now, k ? sums : nullptr, sums,
                               line, between);
                    if (k + now < all) continue;
                    while (ready.r < ready.end) finish_one();
                    ready = {q, i * TILE_ROWS, rows < (i + 1) * TILE_ROWS ? rows : (i + 1) * TILE_ROWS, sums, 0};
                }
            }
        }
        while (ready.r < ready.end) finish_one();
    }

  private:
    template <typename Pass>
    static long left_size(const Pass& pass) {
        return row_tiles_for(pass.rows_most()) * blocks_for(pass.depth_h()) * BLOCK;
    }
};

template <typename R>
struct InputsOnTiles {
    typedef Vec<R> V;
    typedef Amx<R> M;
    typedef typename M::Bf16 Bf16;
    static constexpr long L = V::LANES;

    Bf16 *tiled_x, *left_row;  // in parts: W_x^T, each thread's rows

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        tiled_x = m.take<Bf16>(pass.inputs.panels * pass.inputs.nv * blocks_for(pass.depth_x()) * BLOCK);
        left_row = m.take<Bf16>(pass.plan.count() * blocks_for(pass.depth_x()) * BLOCK);
    }
    template <typename Pass>
    void pack(const Pass& pass, long q0, long q1) {
        M::pack_transposed(pass.shape, pass.shape.x, pass.call.w_x, pass.inputs, tiled_x, q0, q1);
    }
    template <typename Pass>
    void run(const Pass& pass, int thread, R* own) {
        const long all = pass.call.T * pass.call.B, row_tiles = row_tiles_for(all), blocks = blocks_for(pass.depth_x()),
                   line = 4 * L;
        Bf16* left = left_row + thread * blocks * BLOCK;
        const long slots = pass.depth_x() / L;
        for (long i = share(row_tiles, pass.plan.count(), thread); i < share(row_tiles, pass.plan.count(), thread + 1);
             ++i) {
            const long r0 = i * TILE_ROWS, rows = all - r0 < TILE_ROWS ? all - r0 : TILE_ROWS;
            for (long r = 0; r < TILE_ROWS; ++r)
                for (long slot = 0; slot < blocks * 2; ++slot) {
                    const long column =
                        (slot / pass.shape.x.count * 4 + slot % pass.shape.x.count + pass.shape.x.first) * L;
                    const bool inside = r < rows && slot < slots;
                    M::put(left, blocks, r, slot * L,
                           inside ? V::load(pass.dz + (r0 + r) * pass.shape.width + column) : V(R(0)));
                }
            for (long q = 0; q < pass.inputs.panels; ++q) {
                const int nv = pass.inputs.in_panel(q);
                M::product(nv, left, tiled_x + M::transposed_at(pass.inputs, q, blocks), blocks, nullptr, own, line,
                           [] {});
                for (long r = 0; r < rows; ++r)
                    for (int j = 0; j < nv; ++j) {
                        const long n = (q * pass.inputs.nv + j) * L;
                        V::load(own + r * line + j * L)
                            .store(pass.call.dx + (r0 + r) * pass.call.I + n, pass.call.I - n);
                    }
            }
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
