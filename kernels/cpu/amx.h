// Float products on AMX, the matrix unit of Intel's server processors, which multiplies bfloat16 and sums in float.
//
// A float is the sum of three bfloat16 numbers, its parts: 24 bits of significand are three times 8.  Of the nine
// products of parts the six largest are taken, high * high to high * low and middle * middle; what is left out is at
// most 2^-21 of a product and some 2^-24 on average, the size of float's own rounding.  The unit is 16 times as fast as
// the vector units, so six products for one still make it more than twice as fast (Henry, Tang, Heinecke 2019,
// arXiv:1904.06376, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations").
//
// Left factors lie in blocks of 16 rows by 32 k, right factors in blocks of 32 k by 16 columns, pairs of k side by
// side; each block is three tiles, one a part.  Sums run over k block by block in one chain a number, whatever rows and
// columns stand next to it.  Infinities count as the largest bfloat16, parts below 2^-126 as zero.
#ifndef GPULSTM_CPU_AMX_H
#define GPULSTM_CPU_AMX_H

#include "pack.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct Amx;  // of float alone

constexpr long TILE_ROWS = 16, TILE_DEPTH = 32;
constexpr long TILE = TILE_ROWS * TILE_DEPTH, BLOCK = 3 * TILE;  // bfloat16 numbers of a tile, and of a block's parts

static inline long blocks_for(long k) { return (k + TILE_DEPTH - 1) / TILE_DEPTH; }
// Blocks of k, at most 480 KiB of a panel, that all tiles of rows take before the next ones.
static inline long depth_blocks(long all) {
    const long parts = (all + 39) / 40;
    return parts ? (all + parts - 1) / parts : 1;
}
static inline long row_tiles_for(long rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }

template <>
struct Amx<float> {
    typedef Vec<float> V;
    typedef uint16_t Bf16;
    static constexpr long L = V::LANES;  // 16: a register is a row of sums

    // From this many rows on a tile is full enough.  A choice by the batch alone: it must not depend on time or
    // threads.
    static bool pays(long rows) { return rows >= 12; }

    // A thread's tiles, 16 rows of 64 bytes each, for as long as this lives.  What another library had configured is so
    // again afterward.
    struct Session {
        Session() {
            _tile_storeconfig(&before);
            struct alignas(64) {
                uint8_t palette = 1, start = 0, none[14] = {};
                uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
                uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
            } form;
            _tile_loadconfig(&form);
        }
        ~Session() { _tile_loadconfig(&before); }
        Session(const Session&) = delete;
        Session& operator=(const Session&) = delete;

      private:
        alignas(64) uint8_t before[64];
    };

    // ---- parts ------------------------------------------------------------------------------------------------------
    static inline __attribute__((always_inline)) __m512i high(V x) {
        return _mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(int(0xffff0000)));
    }
    static inline __attribute__((always_inline)) V finite(V x) {
        return clamp(x, 3.3895313892515355e38f);  // the largest bfloat16
    }
    static inline __attribute__((always_inline)) V rest(V x, __m512i part) { return x - V(_mm512_castsi512_ps(part)); }

    // 16 numbers of one row, k to k + 15 (k a multiple of 16), into a left factor of `blocks` blocks.
    static inline __attribute__((always_inline)) void put(Bf16* left, long blocks, long row, long k, V x) {
        Bf16* to =
            left + (row / TILE_ROWS * blocks + k / TILE_DEPTH) * BLOCK + row % TILE_ROWS * TILE_DEPTH + k % TILE_DEPTH;
        x = finite(x);
#pragma GCC unroll 3
        for (int part = 0; part < 3; ++part) {
            const __m512i h = high(x);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + part * TILE),
                                _mm512_cvtepi32_epi16(_mm512_srli_epi32(h, 16)));
            if (part < 2) x = rest(x, h);
        }
    }

    // 16 numbers each of rows k and k + 1 (k even), to the pair's place in a right factor's block.
    static inline __attribute__((always_inline)) void put_pair(Bf16* block, long pair, V even, V odd) {
        even = finite(even), odd = finite(odd);
#pragma GCC unroll 3
        for (int part = 0; part < 3; ++part) {
            const __m512i e = high(even), o = high(odd);
            _mm512_storeu_si512(block + part * TILE + pair * 2 * L, _mm512_or_si512(_mm512_srli_epi32(e, 16), o));
            if (part < 2) even = rest(even, e), odd = rest(odd, o);
        }
    }

    // Rows [rows][count], `row` apart, as a left factor; k past `count` and rows past `rows` become zero.
    static void put_rows(Bf16* left, const float* from, long row, long rows, long count) {
        const long blocks = blocks_for(count);
        for (long r = 0; r < row_tiles_for(rows) * TILE_ROWS; ++r)
            for (long k = 0; k < blocks * TILE_DEPTH; k += L)
                put(left, blocks, r, k, r < rows && k < count ? V::load(from + r * row + k, count - k) : V(0.0f));
    }

    // 16 columns of [depth][...], transposed: 16 rows of a left factor, k over the depth.  `at` gives those of row d.
    template <typename At>
    static inline void put_columns(Bf16* left, long depth, At at) {
        alignas(64) Bf16 pairs[BLOCK];
        const long blocks = blocks_for(depth);
        for (long i = 0; i < blocks; ++i, left += BLOCK) {
            for (long pair = 0; pair < TILE_ROWS; ++pair) {
                const long d = i * TILE_DEPTH + 2 * pair;
                put_pair(pairs, pair, d < depth ? at(d) : V(0.0f), d + 1 < depth ? at(d + 1) : V(0.0f));
            }
            for (int part = 0; part < 3; ++part) transpose(pairs + part * TILE, left + part * TILE);
        }
    }

    // Four registers of rows [depth][...], `row` apart, as a right factor, k over the depth; and their sums over it.
    static void put_pairs(Bf16* right, const float* from, long row, long depth, float* sums) {
        V total[4] = {V(0.0f), V(0.0f), V(0.0f), V(0.0f)};
        for (long i = 0; i < blocks_for(depth); ++i, right += 4 * BLOCK)
            for (long pair = 0; pair < TILE_ROWS; ++pair) {
                const long d = i * TILE_DEPTH + 2 * pair;
                for (int j = 0; j < 4; ++j) {
                    const V even = d < depth ? V::load(from + d * row + j * L) : V(0.0f);
                    const V odd = d + 1 < depth ? V::load(from + (d + 1) * row + j * L) : V(0.0f);
                    total[j] = total[j] + even + odd;
                    put_pair(right + j * BLOCK, pair, even, odd);
                }
            }
        for (int j = 0; j < 4; ++j) total[j].store(sums + j * L);
    }

    // 16 by 16 numbers of 32 bits.
    static void transpose(const Bf16* from, Bf16* to) {
        __m512i a[16], b[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) a[i] = _mm512_load_si512(from + i * 32);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4) {
            a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
            a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
            a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
            a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            b[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
            b[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
            b[8 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
            b[12 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            _mm512_storeu_si512(to + i * 32, _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88));
            _mm512_storeu_si512(to + (4 + i) * 32, _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0x88));
            _mm512_storeu_si512(to + (8 + i) * 32, _mm512_shuffle_i32x4(b[i], b[8 + i], 0xdd));
            _mm512_storeu_si512(to + (12 + i) * 32, _mm512_shuffle_i32x4(b[4 + i], b[12 + i], 0xdd));
        }
    }

    // ---- weights: right factors, [panel][block of k][register of the panel]
    // --------------------------------------------
    static long weights_size(long panels, long K, long registers) { return panels * blocks_for(K) * registers * BLOCK; }

    // w [K][G*H], the slots of a part of the gates; zeros for k from K to `padded`.
    static void pack_weights(const Shape<float>& s, const Part& part, const float* w, long K, long padded, Bf16* out,
                             long p0, long p1) {
        const long row = s.gates * s.H, blocks = blocks_for(padded);
        for (long p = p0; p < p1; ++p)
            for (int j = 0; j < part.count; ++j) {
                const long left = s.H - s.unit(p, j);
                const float* from = w + s.column(part, p, j);
                for (long i = 0; i < blocks; ++i)
                    for (long pair = 0; pair < TILE_ROWS; ++pair) {
                        const long k = i * TILE_DEPTH + 2 * pair;
                        const bool even = left > 0 && k < K, odd = left > 0 && k + 1 < K;
                        put_pair(out + ((p * blocks + i) * part.count + j) * BLOCK, pair,
                                 even ? V::load(from + k * row, left) : V(0.0f),
                                 odd ? V::load(from + (k + 1) * row, left) : V(0.0f));
                    }
            }
    }

    // w [N][G*H] transposed: columns n, k over panels and slots of the part as a row of slots has them.
    static void pack_transposed(const Shape<float>& s, const Part& part, const float* w, const Transposed& form,
                                Bf16* out, long q0, long q1) {
        const long row = s.gates * s.H, slots = s.panels * part.count, blocks = blocks_for(slots * L);
        alignas(64) float square[2 * L][L];
        for (long q = q0; q < q1; ++q)
            for (int v = 0; v < form.in_panel(q); ++v) {
                const long n0 = (q * form.nv + v) * L;
                for (long i = 0; i < blocks; ++i) {
                    for (long half = 0; half < 2; ++half) {
                        const long slot = 2 * i + half, p = slot / part.count;
                        const int j = int(slot % part.count);
                        const long unit = slot < slots ? s.unit(p, j) : s.H;
                        const float* from = w + (slot < slots ? s.column(part, p, j) : 0);
                        for (long k = 0; k < L; ++k)
                            for (long n = 0; n < L; ++n)
                                square[half * L + k][n] =
                                    unit + k < s.H && n0 + n < form.N ? from[(n0 + n) * row + k] : 0.0f;
                    }
                    Bf16* block = out + transposed_at(form, q, blocks) + (i * form.in_panel(q) + v) * BLOCK;
                    for (long pair = 0; pair < TILE_ROWS; ++pair)
                        put_pair(block, pair, V::load(square[2 * pair]), V::load(square[2 * pair + 1]));
                }
            }
    }
    static long transposed_at(const Transposed& form, long panel, long blocks) {
        return panel * form.nv * blocks * BLOCK;
    }
    static long transposed_size(const Transposed& form, long K) {
        return form.panels * form.nv * blocks_for(K) * BLOCK;
    }

    // ---- products: tiles 0 to 3 are sums, 4 to 6 the parts of the left factor, 7 one part of the right one
    // --------------
#define GPULSTM_EACH(first, count, DO)                        \
    do {                                                      \
        if constexpr (first <= 0 && 0 < first + count) DO(0); \
        if constexpr (first <= 1 && 1 < first + count) DO(1); \
        if constexpr (first <= 2 && 2 < first + count) DO(2); \
        if constexpr (first <= 3 && 3 < first + count) DO(3); \
    } while (0)

    // GCC does not know that loading a tile reads memory: what was to be written before is written here.
    static inline void written() { asm volatile("" ::: "memory"); }

    // Registers `count` of sums from `in` [16 rows][...], rows `row` floats apart (0: the same for all); null: zeros.
    template <int COUNT>
    static inline void load(const float* in, long row) {
#define GPULSTM_DO(n) _tile_loadd(n, in + n * L, row * 4)
        written();
        if (in) {
            GPULSTM_EACH(0, COUNT, GPULSTM_DO);
        } else {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
#undef GPULSTM_DO
    }
    template <int COUNT>
    static inline void store(float* out, long row) {
#define GPULSTM_DO(n) _tile_stored(n, out + n * L, row * 4)
        GPULSTM_EACH(0, COUNT, GPULSTM_DO);
#undef GPULSTM_DO
    }

    // Sums FIRST to FIRST + COUNT - 1 += left * right over `blocks` of k; `right` has `skip` more blocks for each k.
    // `between` is called after every register's six products, which take the unit some hundred cycles: its work is
    // done meanwhile.
    template <int FIRST, int COUNT, typename Between>
    static inline void multiply(const Bf16* left, const Bf16* right, long blocks, Between&& between, long skip = 0) {
        written();
        for (long i = 0; i < blocks; ++i, left += BLOCK) {
            _tile_loadd(4, left, 64);
            _tile_loadd(5, left + TILE, 64);
            _tile_loadd(6, left + 2 * TILE, 64);
#define GPULSTM_DO(n)                         \
    do {                                      \
        _tile_loadd(7, right, 64);            \
        _tile_dpbf16ps(n, 4, 7);              \
        _tile_dpbf16ps(n, 5, 7);              \
        _tile_dpbf16ps(n, 6, 7);              \
        _tile_loadd(7, right + TILE, 64);     \
        _tile_dpbf16ps(n, 4, 7);              \
        _tile_dpbf16ps(n, 5, 7);              \
        _tile_loadd(7, right + 2 * TILE, 64); \
        _tile_dpbf16ps(n, 4, 7);              \
        right += BLOCK;                       \
        between();                            \
    } while (0)
            GPULSTM_EACH(FIRST, COUNT, GPULSTM_DO);
#undef GPULSTM_DO
            right += skip * BLOCK;
        }
    }

    // The slots of a part of the gates: all four, or a GRU's three.
    template <typename Between>
    static inline void multiply_slots(const Part& part, const Bf16* left, const Bf16* right, long blocks,
                                      Between&& between) {
        if (part.count == 4)
            multiply<0, 4>(left, right, blocks, between);
        else if (part.first == 0)
            multiply<0, 3>(left, right, blocks, between);
        else
            multiply<1, 3>(left, right, blocks, between);
    }

    // Sums at[0], at[1], ... [16 rows][16], rows `row` floats apart, += left * right.
    template <int COUNT>
    static inline void add_product(float* const* at, long row, const Bf16* left, const Bf16* right, long blocks,
                                   long skip) {
        written();
#define GPULSTM_DO(n) _tile_loadd(n, at[n], row * 4)
        GPULSTM_EACH(0, COUNT, GPULSTM_DO);
#undef GPULSTM_DO
        multiply<0, COUNT>(left, right, blocks, [] {}, skip);
#define GPULSTM_DO(n) _tile_stored(n, at[n], row * 4)
        GPULSTM_EACH(0, COUNT, GPULSTM_DO);
#undef GPULSTM_DO
    }

    // out [16 rows][count registers] = in + left * right; `in` as for `load`, rows of out `row` floats apart.
    template <typename Between>
    static inline void product(int count, const Bf16* left, const Bf16* right, long blocks, const float* in, float* out,
                               long row, Between&& between) {
#define GPULSTM_DO(n)                                 \
    do {                                              \
        load<n>(in, row);                             \
        multiply<0, n>(left, right, blocks, between); \
        store<n>(out, row);                           \
    } while (0)
        switch (count) {
            case 1: GPULSTM_DO(1); break;
            case 2: GPULSTM_DO(2); break;
            case 3: GPULSTM_DO(3); break;
            default: GPULSTM_DO(4);
        }
#undef GPULSTM_DO
    }
#undef GPULSTM_EACH
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
