// The products of a forward pass with weights in int8 or bfloat16: a policy of ForwardPass (forward.h).
#ifndef GPULSTM_CPU_REDUCED_H
#define GPULSTM_CPU_REDUCED_H

#include <math.h>
#include <string.h>

#include "plan.h"
#include "reduced_call.h"

namespace gpulstm {
namespace GPULSTM_ISA {

const ReducedTiles& reduced_tiles(Precision precision);  // reduced.cpp

// Numbers of 8 and 16 bits from float32, a register at a time.
struct Narrow {
    typedef Vec<float> V;
    typedef Raw<float>::Mask Int;
    static constexpr long L = V::LANES;
    static constexpr float NOTHING = 1e-30f;  // numbers up to here count as zero
    typedef uint32_t Unsigned __attribute__((vector_size(4 * L)));
    typedef int8_t Bytes __attribute__((vector_size(L), aligned(1), may_alias));
    typedef int16_t Halves __attribute__((vector_size(2 * L), aligned(2), may_alias));

    static Int all(int32_t value) { return value - Int{}; }
    static Int size_of(V v) { return Int(v.v) & all(0x7fffffff); }  // ordered as |v|, a NaN above all
    static Int larger(Int a, Int b) { return a > b ? a : b; }
    // Rounded to nearest even, for numbers below 2^22.
    static Int rounded(V v, V factor) {
        const V magic(12582912.0f);  // 1.5 * 2^23
        return Int((v * factor + magic).v) - Int(magic.v);
    }
    // The bits of v rounded to bfloat16, in the upper half; a NaN stays one.
    static Int upper(V v) {
        const Int bits = Int(v.v);
        const Int near = Int(Unsigned(bits) + Unsigned(all(0x7fff) + ((bits >> 16) & all(1))));  // a NaN's may overflow
        return (size_of(v) > all(0x7f800000) ? bits | all(0x400000) : near) & all(-0x10000);
    }
    // What stands for one in int8, and the factor that brings there, of numbers whose largest size is given.
    static float scale_of(float largest, float& factor) {
        factor = largest > NOTHING && largest < INFINITY ? 127.0f / largest : 0.0f;
        return !(largest < INFINITY) ? NAN : factor > 0 ? largest / 127.0f : 0.0f;
    }

    // A row of `count` numbers as it enters a product; room for whole registers.  int8: returns the scale, NaN where a
    // number is not finite.
    static float row(const float* from, long count, Precision precision, const ReducedTiles& tiles, char* to) {
        if (precision == Precision::bfloat16) {
            for (long k = 0; k < count; k += L) {
                if (tiles.word == 8) {
                    V(Raw<float>::V(upper(V::load(from + k, count - k)))).store(reinterpret_cast<float*>(to) + k);
                    continue;
                }
                const Halves halves = __builtin_convertvector(upper(V::load(from + k, count - k)) >> 16, Halves);
                memcpy(to + 2 * k, &halves, sizeof halves);
            }
            return 1;
        }
        Int most = {};
        for (long k = 0; k < count; k += L) most = larger(most, size_of(V::load(from + k, count - k)));
        int32_t largest = 0;
        for (long e = 0; e < L; ++e) largest = most[e] > largest ? most[e] : largest;
        float value, factor;
        memcpy(&value, &largest, sizeof value);
        const float scale = scale_of(value, factor);
        for (long k = 0; k < count; k += L) {
            const Int q = rounded(V::load(from + k, count - k), V(factor)) + all(tiles.offset);
            const Bytes bytes = __builtin_convertvector(q, Bytes);
            memcpy(to + k, &bytes, sizeof bytes);
        }
        return scale;
    }
};

// One of a layer's two matrices: [panel][group][slot] registers, and of int8 each column's scale and start.
struct ReducedMatrix {
    typedef Vec<float> V;
    typedef Narrow::Int Int;
    static constexpr long L = V::LANES;
    long K, groups, row_bytes;  // of a row that it is multiplied with
    char* data;
    float* scales;
    int32_t* starts;

    ReducedMatrix(long k, Precision precision, const ReducedTiles& tiles) : K(k) {
        const long per = precision == Precision::int8 ? 4 : 2;
        groups = (K + per - 1) / per;
        row_bytes = (groups * tiles.word + 63) / 64 * 64;
    }
    void lay_out(const Shape<float>& s, const Part& part, Layout& m) {
        data = m.take<char>(s.panels * groups * part.count * L * 4);
        scales = m.take<float>(s.panels * 4 * L);
        starts = m.take<int32_t>(s.panels * 4 * L);
    }
    const char* panel(const Part& part, long p) const { return data + p * groups * part.count * L * 4; }

    void pack(const Shape<float>& s, const Part& part, const float* w, Precision precision, int offset, long p0,
              long p1) {
        const bool int8 = precision == Precision::int8;
        const long row = s.gates * s.H;
        for (long p = p0; p < p1; ++p)
            for (int j = 0; j < part.count; ++j) {
                const long left = s.H - s.unit(p, j);
                const float* from = w + s.column(part, p, j);
                const auto number = [&](long k) { return k < K && left > 0 ? V::load(from + k * row, left) : V(0.0f); };
                V factor(1.0f);
                if (int8) factor = scale(number, scales + (p * 4 + j) * L);
                Int sum = {};
                char* to = data + (p * groups * part.count + j) * L * 4;
                for (long g = 0; g < groups; ++g, to += part.count * L * 4) {
                    Int group = {};
                    for (int e = 0; int8 && e < 4; ++e) {
                        const Int q = Narrow::rounded(number(g * 4 + e), factor) & Narrow::all(255);
                        sum += (q ^ Narrow::all(128)) - Narrow::all(128);  // as a byte, also where a weight is NaN
                        group |= q << (8 * e);
                    }
                    if (!int8)
                        group = ((Narrow::upper(number(g * 2)) >> 16) & Narrow::all(0xffff)) |
                                Narrow::upper(number(g * 2 + 1));
                    memcpy(to, &group, sizeof group);
                }
                sum *= Narrow::all(-offset);
                memcpy(starts + (p * 4 + j) * L, &sum, sizeof sum);
            }
    }
    // The sums of some rows and a panel, as `finished` reads them.
    void multiply(const ReducedTiles& tiles, const Part& part, long p, const char* a, long rows, char* out) const {
        const ReducedProduct q = {
            a, row_bytes, panel(part, p), groups, reinterpret_cast<const char*>(starts + p * 4 * L), out};
        tiles.tile[part.count - 3][rows - 1](q);
    }

  private:
    template <typename F>
    V scale(F number, float* to) const {
        Int most = {};
        for (long k = 0; k < K; ++k) most = Narrow::larger(most, Narrow::size_of(number(k)));
        float largest[L], factors[L];
        memcpy(largest, &most, sizeof largest);
        for (long e = 0; e < L; ++e) to[e] = Narrow::scale_of(largest[e], factors[e]);
        return V::load(factors);
    }
};

// Each step multiplies x_t and h_{t-1}, both rounded at its beginning by each thread that reads them.
struct ForwardOnReduced {
    typedef Vec<float> V;
    typedef Narrow::Int Int;
    static constexpr long L = V::LANES;
    static constexpr bool NARROWS = false;
    static constexpr long FULL_ROWS = 1;
    struct Session {};
    static constexpr long SUMS = 4 * L;  // of a row and panel

    const Precision precision;
    const ReducedTiles& tiles;
    ReducedMatrix w_x, w_h;

    template <typename Pass>
    explicit ForwardOnReduced(const Pass& pass)
        : precision(pass.call.precision),
          tiles(reduced_tiles(precision)),
          w_x(pass.call.I, precision, tiles),
          w_h(pass.call.H, precision, tiles) {}

    static size_t weight_bytes(const ForwardCall<float>& call) { return call.precision == Precision::int8 ? 1 : 2; }
    long look_ahead_within(long steps) { return steps; }

    template <typename Pass>
    void lay_out(const Pass& pass, Layout& m) {
        w_x.lay_out(pass.shape, pass.shape.x, m);
        w_h.lay_out(pass.shape, pass.shape.h, m);
    }
    template <typename Pass>
    long scratch_size(const Pass& pass) const {  // rows of x and h and their scales; sums of a tile
        return pass.rows_most * ((w_x.row_bytes + w_h.row_bytes) / 4 + 2) + 2 * REDUCED_ROWS * SUMS + SUMS;
    }
    template <typename Pass>
    void pack(const Pass& pass, long p0, long p1) {
        w_x.pack(pass.shape, pass.shape.x, pass.call.w_x, precision, tiles.offset, p0, p1);
        w_h.pack(pass.shape, pass.shape.h, pass.call.w_h, precision, tiles.offset, p0, p1);
    }
    template <typename Pass>
    void clear(const Pass&, int) {}
    template <typename Pass>
    void put(const Pass&, const Place&, long, long, long, V) {}
    template <typename Pass>
    void before_step(const Pass&, const Place&, long, long, long) {}

    template <typename Pass>
    void step(Pass& pass, const Place& place, int, long s, long t, long q0, long q1, float* own) {
        const long rows = place.r1 - place.r0, most = pass.rows_most;
        char *x = reinterpret_cast<char*>(own), *h = x + most * w_x.row_bytes;
        float *x_scales = reinterpret_cast<float*>(h + most * w_h.row_bytes), *h_scales = x_scales + most;
        float* z = h_scales + most;
        char *x_sums = reinterpret_cast<char*>(z + SUMS), *h_sums = x_sums + REDUCED_ROWS * SUMS * 4;
        for (long r = 0; r < rows; ++r) {
            const long b = place.r0 + r, I = pass.call.I;
            x_scales[r] =
                Narrow::row(pass.call.x + (t * pass.call.B + b) * I, I, precision, tiles, x + r * w_x.row_bytes);
            h_scales[r] = Narrow::row(pass.v[s & 1] + b * pass.shape.padded, pass.call.H, precision, tiles,
                                      h + r * w_h.row_bytes);
        }
        const long parts = (rows + tiles.rows - 1) / tiles.rows;
        for (long i = q0; i < q1; ++i) {
            const long p = s & 1 ? q0 + q1 - 1 - i : i;  // up and down by turns, as in forward_vectors.h
            for (long part = 0; part < parts; ++part) {
                const long r = share(rows, parts, part), now = share(rows, parts, part + 1) - r;
                w_x.multiply(tiles, pass.shape.x, p, x + r * w_x.row_bytes, now, x_sums);
                w_h.multiply(tiles, pass.shape.h, p, h + r * w_h.row_bytes, now, h_sums);
                for (long e = 0; e < now; ++e) {
                    for (long j = 0; j < SUMS; j += L) V::load(pass.bias + p * SUMS + j).store(z + j);
                    add(w_x, pass.shape.x, p, x_sums + e * SUMS * 4, x_scales[r + e], z);
                    add(w_h, pass.shape.h, p, h_sums + e * SUMS * 4, h_scales[r + e], z);
                    pass.finish(place, place.r0 + r + e, 1, s, t, p, z, SUMS);
                }
            }
        }
    }

  private:
    void add(const ReducedMatrix& w, const Part& part, long p, const char* sums, float scale, float* z) const {
        for (int j = 0; j < part.count; ++j) {
            float* at = z + (part.first + j) * L;
            Int sum;
            memcpy(&sum, sums + j * L * 4, sizeof sum);
            V value = V(Raw<float>::V(sum));
            if (precision == Precision::int8)
                value =
                    V(__builtin_convertvector(sum, Raw<float>::V)) * (V::load(w.scales + (p * 4 + j) * L) * V(scale));
            (V::load(at) + value).store(at);
        }
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
