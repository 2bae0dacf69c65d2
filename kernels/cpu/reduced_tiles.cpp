// The inner products of weights in int8 and bfloat16 (reduced_call.h), compiled once per instruction set (GPULSTM_ISA).
#include "reduced_call.h"
#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {
namespace {

typedef Raw<float>::V Float;
typedef Raw<float>::Mask Int;  // 32 bits a lane
typedef int32_t UnalignedInt __attribute__((vector_size(GPULSTM_VECTOR_BYTES), aligned(4), may_alias));
constexpr long BYTES = GPULSTM_VECTOR_BYTES;

inline __attribute__((always_inline)) Int load(const char* p) { return Int(*reinterpret_cast<const UnalignedInt*>(p)); }
inline __attribute__((always_inline)) void store(Int v, char* p) { *reinterpret_cast<UnalignedInt*>(p) = v; }
inline __attribute__((always_inline)) Int everywhere(const char* p) {
    typedef int32_t Word __attribute__((aligned(4), may_alias));
    return *reinterpret_cast<const Word*>(p) - Int{};
}

// acc += the four products of each lane.  int8: maddubs wants one side unsigned, so a's sign goes to w; of pairs of
// products none leaves 16 bits, as q is -127 to 127.  VNNI sums four products in 32 bits, and has a from 1 to 255.
struct Int8 {
    static constexpr int WORD = 4;
    typedef Int Sum;
    typedef Int Weights;
    struct Row {
        Int a, size;
#if defined(__AVX512BW__) && !defined(__AVX512VNNI__)
        __mmask64 negative;
#endif
        inline __attribute__((always_inline)) explicit Row(const char* p) : a(everywhere(p)), size(a) {
#if defined(__AVX512VNNI__)
#elif defined(__AVX512BW__)
            size = Int(_mm512_abs_epi8(__m512i(a)));
            negative = _mm512_movepi8_mask(__m512i(a));
#elif defined(__AVX2__)
            size = Int(_mm256_abs_epi8(__m256i(a)));
#endif
        }
    };
    static inline __attribute__((always_inline)) Int add(Int acc, const Row& row, Int w) {
#if defined(__AVX512VNNI__)
        return Int(_mm512_dpbusd_epi32(__m512i(acc), __m512i(row.a), __m512i(w)));
#elif defined(__AVX512BW__)
        const __m512i turned = _mm512_mask_sub_epi8(__m512i(w), row.negative, _mm512_setzero_si512(), __m512i(w));
        const __m512i pairs = _mm512_maddubs_epi16(__m512i(row.size), turned);
        return acc + Int(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
        const __m256i pairs = _mm256_maddubs_epi16(__m256i(row.size), _mm256_sign_epi8(__m256i(w), __m256i(row.a)));
        return acc + Int(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
        for (int e = 24; e >= 0; e -= 8) acc += ((row.a << e) >> 24) * ((w << e) >> 24);
        return acc;
#endif
    }
};

struct Bfloat16 {
    typedef Float Sum;
#if defined(__AVX512BF16__)
    static constexpr int WORD = 4;
    typedef Int Weights;
    struct Row {
        Int a;
        inline __attribute__((always_inline)) explicit Row(const char* p) : a(everywhere(p)) {}
    };
    static inline __attribute__((always_inline)) Float add(Float acc, const Row& row, Int w) {
        return _mm512_dpbf16_ps(acc, __m512bh(row.a), __m512bh(w));
    }
#else
    static constexpr int WORD = 8;
    struct Weights {
        Float first, second;
        inline __attribute__((always_inline)) explicit Weights(Int pair)
            : first(Float(pair << 16)), second(Float(pair & Int(-0x10000 - Int{}))) {}
    };
    struct Row {
        Float first, second;
        inline __attribute__((always_inline)) explicit Row(const char* p)
            : first(Float(everywhere(p))), second(Float(everywhere(p + 4))) {}
    };
    static inline __attribute__((always_inline)) Float add(Float acc, const Row& row, const Weights& w) {
        return acc + row.first * w.first + row.second * w.second;
    }
#endif
};

template <typename Format, int RS, int NV>
void tile(const ReducedProduct& q) {
    typedef typename Format::Sum Sum;
    Sum acc[RS][NV];
#pragma GCC unroll 6
    for (int r = 0; r < RS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = q.start ? Sum(load(q.start + v * BYTES)) : Sum{};
    const char *w = q.w, *a = q.a;
    for (long g = 0; g < q.groups; ++g, w += NV * BYTES, a += Format::WORD) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            const typename Format::Weights b(load(w + v * BYTES));
#pragma GCC unroll 6
            for (int r = 0; r < RS; ++r) acc[r][v] = Format::add(acc[r][v], typename Format::Row(a + r * q.a_row), b);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < RS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) store(Int(acc[r][v]), q.out + (r * 4 + v) * BYTES);
}

template <typename Format>
constexpr ReducedTiles tiles_of(const char* name, int offset) {
#if GPULSTM_VECTOR_BYTES == 64
    return {name,
            6,
            offset,
            Format::WORD,
            {{tile<Format, 1, 3>, tile<Format, 2, 3>, tile<Format, 3, 3>, tile<Format, 4, 3>, tile<Format, 5, 3>,
              tile<Format, 6, 3>},
             {tile<Format, 1, 4>, tile<Format, 2, 4>, tile<Format, 3, 4>, tile<Format, 4, 4>, tile<Format, 5, 4>,
              tile<Format, 6, 4>}}};
#else
    return {name,
            2,
            offset,
            Format::WORD,
            {{tile<Format, 1, 3>, tile<Format, 2, 3>}, {tile<Format, 1, 4>, tile<Format, 2, 4>}}};
#endif
}

}  // namespace

#if !defined(__AVX512BF16__)
extern const ReducedTiles int8_tiles;
#if defined(__AVX512VNNI__)
const ReducedTiles int8_tiles = tiles_of<Int8>("VNNI", 128);
#elif defined(__AVX2__)
const ReducedTiles int8_tiles = tiles_of<Int8>("maddubs", 0);
#else
const ReducedTiles int8_tiles = tiles_of<Int8>("plain", 0);
#endif
#endif

#if !defined(__AVX512VNNI__)
extern const ReducedTiles bfloat16_tiles;
#if defined(__AVX512BF16__)
const ReducedTiles bfloat16_tiles = tiles_of<Bfloat16>("AVX512-BF16", 0);
#else
const ReducedTiles bfloat16_tiles = tiles_of<Bfloat16>("widened", 0);
#endif
#endif

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
