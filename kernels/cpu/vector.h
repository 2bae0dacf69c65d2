// One vector register of float or double with the usual operators, for whichever instruction set this file is compiled.
//
// GCC's vector extensions (Clang has them too): the compiler picks the instructions, so one source serves AVX-512, AVX2
// with FMA, SSE2 and NEON.
#ifndef GPULSTM_CPU_VECTOR_H
#define GPULSTM_CPU_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own header
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#define GPULSTM_OWN_TANH
#include "equations/gates.h"

#if defined(__AVX512F__)
#define GPULSTM_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define GPULSTM_VECTOR_BYTES 32
#else
#define GPULSTM_VECTOR_BYTES 16
#endif

namespace gpulstm {
namespace GPULSTM_ISA {

// Vector registers of the processor: AVX-512 and NEON have 32, the older x86 sets 16.
#if defined(__x86_64__) && !defined(__AVX512F__)
#define GPULSTM_FEW_REGISTERS 1
#else
#define GPULSTM_FEW_REGISTERS 0
#endif
constexpr bool FEW_REGISTERS = GPULSTM_FEW_REGISTERS;

// Whether a part of a register is loaded and stored as fast as a whole one (AVX-512, by a mask), and no matrix unit
// wants whole registers.
#if defined(__AVX512F__) && !defined(__AMX_TILE__)
constexpr bool CHEAP_PARTS = true;
#else
constexpr bool CHEAP_PARTS = false;
#endif

template <typename R>
struct Raw;
template <>
struct Raw<float> {
    typedef float V __attribute__((vector_size(GPULSTM_VECTOR_BYTES)));
    typedef float Unaligned __attribute__((vector_size(GPULSTM_VECTOR_BYTES), aligned(4), may_alias));
    typedef int32_t Mask __attribute__((vector_size(GPULSTM_VECTOR_BYTES)));
};
template <>
struct Raw<double> {
    typedef double V __attribute__((vector_size(GPULSTM_VECTOR_BYTES)));
    typedef double Unaligned __attribute__((vector_size(GPULSTM_VECTOR_BYTES), aligned(8), may_alias));
    typedef int64_t Mask __attribute__((vector_size(GPULSTM_VECTOR_BYTES)));
};

template <typename R>
struct Vec {
    static constexpr int LANES = GPULSTM_VECTOR_BYTES / sizeof(R);
    typename Raw<R>::V v;

    Vec() = default;
    // A broadcast: s - 0 is s, also for -0 and NaN, so the compiler drops the subtraction (it would have to keep s +
    // 0).
    explicit inline __attribute__((always_inline)) Vec(R s) : v(s - typename Raw<R>::V{}) {}
    explicit inline __attribute__((always_inline)) Vec(typename Raw<R>::V raw) : v(raw) {}

    static inline __attribute__((always_inline)) Vec load(const R* p) {
        return Vec(typename Raw<R>::V(*reinterpret_cast<const typename Raw<R>::Unaligned*>(p)));
    }
    inline __attribute__((always_inline)) void store(R* p) const {
        *reinterpret_cast<typename Raw<R>::Unaligned*>(p) = v;
    }
    // The first `count` lanes; the others are zero on loading and left alone on storing.
    static inline __attribute__((always_inline)) Vec load(const R* p, long count) {
        return count >= LANES ? load(p) : load_some(p, count);
    }
    inline __attribute__((always_inline)) void store(R* p, long count) const {
        count >= LANES ? store(p) : store_some(p, count);
    }

    friend inline __attribute__((always_inline)) Vec operator+(Vec a, Vec b) { return Vec(a.v + b.v); }
    friend inline __attribute__((always_inline)) Vec operator-(Vec a, Vec b) { return Vec(a.v - b.v); }
    friend inline __attribute__((always_inline)) Vec operator*(Vec a, Vec b) { return Vec(a.v * b.v); }
    friend inline __attribute__((always_inline)) Vec operator/(Vec a, Vec b) { return Vec(a.v / b.v); }

  private:
#if defined(__AVX512F__)
    // By a mask: lanes that go through memory one by one make the load wait for them.
    static unsigned first(long count) { return count > 0 ? (1u << count) - 1 : 0; }
    static inline __attribute__((always_inline)) Vec load_some(const R* p, long count) {
        if constexpr (sizeof(R) == 4)
            return Vec(typename Raw<R>::V(_mm512_maskz_loadu_ps(first(count), p)));
        else
            return Vec(typename Raw<R>::V(_mm512_maskz_loadu_pd(first(count), p)));
    }
    inline __attribute__((always_inline)) void store_some(R* p, long count) const {
        if constexpr (sizeof(R) == 4)
            _mm512_mask_storeu_ps(p, first(count), v);
        else
            _mm512_mask_storeu_pd(p, first(count), v);
    }
#else
    static inline __attribute__((always_inline)) Vec load_some(const R* p, long count) {
        R part[LANES] = {};
        for (long j = 0; j < count; ++j) part[j] = p[j];
        return load(part);
    }
    inline __attribute__((always_inline)) void store_some(R* p, long count) const {
        R part[LANES];
        store(part);
        for (long j = 0; j < count; ++j) p[j] = part[j];
    }
#endif
};

template <typename R>
static inline __attribute__((always_inline)) Vec<R> gl_where_positive(Vec<R> x, Vec<R> v) {
    typename Raw<R>::V zero = {};
    return Vec<R>(x.v <= zero ? zero : v.v);
}

// Bounded to [-limit, limit]; a NaN stays one (x86: the second operand is the result then, as in the expression below).
template <typename R>
static inline __attribute__((always_inline)) Vec<R> clamp(Vec<R> x, R limit) {
    typename Raw<R>::V high = Vec<R>(limit).v, low = Vec<R>(-limit).v;
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) return Vec<R>(_mm512_max_ps(low, _mm512_min_ps(high, x.v)));
#elif defined(__AVX2__)
    if constexpr (sizeof(R) == 4) return Vec<R>(_mm256_max_ps(low, _mm256_min_ps(high, x.v)));
#endif
    typename Raw<R>::V y = x.v > high ? high : x.v;
    return Vec<R>(y < low ? low : y);
}

// a / b for finite b > 0.  AVX-512 takes an estimate of 1 / b (14 bits) and one step of Newton's method: within 2 ulp,
// and a fifth of the division's time, of which an LSTM has five for each hidden unit and step.
static inline __attribute__((always_inline)) Vec<float> divide(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
    typedef Vec<float> V;
    V r(Raw<float>::V(_mm512_rcp14_ps(b.v)));
    return a * (r + r * (V(1.0f) - b * r));
#else
    return a / b;
#endif
}

// tanh x = x P(x^2) / Q(x^2) up to a limit, beyond which it stays what it is there.  P and Q are the minimax fit of
// degrees 4 and 4 on [-7.9, 7.9] to the relative error (6e-9 before rounding, by iteratively reweighted least squares);
// with rounding at most 6 ulp.  Of the limits near 8 this is one where rounding gives 1 - 2^-24 and never more than 1,
// with FMA and without: a sigmoid is 1 there, so that an open gate of a GRU adds nothing to what it keeps.
static inline __attribute__((always_inline)) Vec<float> gl_tanh(Vec<float> x) {
    typedef Vec<float> V;
    x = clamp(x, 7.9647717f);
    V u = x * x;
    V p = V(1.5427996205148435e-08f) * u + V(2.2023262651429972e-05f);
    V q = V(8.598789881466612e-07f) * u + V(0.0003423652315362622f);
    p = p * u + V(0.003578993112531757f);
    q = q * u + V(0.026192242100035693f);
    p = p * u + V(0.1345062149378795f);
    q = q * u + V(0.46783949494451516f);
    p = p * u + V(0.9999999943495633f);
    q = q * u + V(1.0f);
    return divide(x * p, q);
}

// tanh x = m / (m + 2) with m = exp(2 x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), 2 x = n log 2 + r, exp(r) - 1 by its
// Taylor series to degree 13 (|r| <= 0.35: rest below 1e-17).
static inline __attribute__((always_inline)) Vec<double> gl_tanh(Vec<double> x) {
    typedef Vec<double> V;
    typedef Raw<double>::Mask Bits;
    Bits sign = Bits(x.v) & Bits(V(-0.0).v);
    V a = V(Raw<double>::V(Bits(x.v) ^ sign));
    a = clamp(a + a, 44.0);
    V magic(6755399441055744.0);  // 1.5 * 2^52: adding it rounds to an integer, which is then in the low bits
    V shifted = a * V(1.4426950408889634) + magic;
    V n = shifted - magic;
    V r = (a - n * V(0.693147180369123816490)) - n * V(1.90821492927058770002e-10);
    V p(1.0 / 6227020800.0);
    const double inverse[] = {1.0 / 479001600.0,
                              1.0 / 39916800.0,
                              1.0 / 3628800.0,
                              1.0 / 362880.0,
                              1.0 / 40320.0,
                              1.0 / 5040.0,
                              1.0 / 720.0,
                              1.0 / 120.0,
                              1.0 / 24.0,
                              1.0 / 6.0,
                              0.5};
#pragma GCC unroll 11
    for (int k = 0; k < 11; ++k) p = p * r + V(inverse[k]);
    p = p * r * r + r;
    V e = V(Raw<double>::V((Bits(shifted.v) << 52) + Bits(V(1.0).v)));
    V m = e * p + (e - V(1.0));
    V t = m / (m + V(2.0));
    return V(Raw<double>::V(Bits(t.v) | sign));
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
