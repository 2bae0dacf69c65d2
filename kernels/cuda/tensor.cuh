// The same product on tensor cores, through wmma: half with float sums, or float rounded to TF32 with float sums.
//
// A warp holds BM / WM x BN / WN of the tile in fragments of 16 x 16.  Which element of a fragment a lane holds is not
// defined, so the sums go through shared memory before they are handed on, as gl_finish does.
#ifndef GPULSTM_TENSOR_CUH
#define GPULSTM_TENSOR_CUH

#include "cuda/wmma.cuh"

#include "cuda/tile.cuh"

// What wmma multiplies for a storage type, and the depth of its fragments.
template <typename T>
struct GlFragment;
#ifdef GL_HALF
template <>
struct GlFragment<__half> {
    typedef __half type;
    enum : int { depth = 16 };
    template <class F>
    static GL_INLINE void round(F&) {}
};
#else  // TF32 needs compute capability 8.0; half alone, 7.0
template <>
struct GlFragment<float> {
    typedef gl_wmma::precision::tf32 type;
    enum : int { depth = 8 };
    template <class F>
    static GL_INLINE void round(F& f) {
#pragma unroll
        for (int i = 0; i < f.num_elements; ++i) f.x[i] = gl_wmma::__float_to_tf32(f.x[i]);
    }
};
#endif

// BM x BN x BK: tile and its depth in shared memory; WM x WN: warps.
template <typename T, int BM_, int BN_, int BK_, int WM_, int WN_>
struct GlTensorTile {
    enum : int {
        BM = BM_,
        BN = BN_,
        BK = BK_,
        WM = WM_,
        WN = WN_,
        threads = 32 * WM * WN,
        FM = BM / WM / 16,  // fragments of a warp
        FN = BN / WN / 16,
        pitch_a = BK + 8,
        pitch_b = BN + 8,
        pitch_c = BN + 4,
        quads_a = BM * BK / 4,
        quads_b = BK * BN / 4,
        loads_a = (quads_a + threads - 1) / threads,
        loads_b = (quads_b + threads - 1) / threads,
        out = 1,  // sums that are handed on at once, at least
        part = (BM * pitch_a + BK * pitch_b) * (int)sizeof(T),
        sums = BM * pitch_c * 4,
        bytes = 2 * part > sums ? 2 * part : sums
    };

    // The sums of A B in shared memory, [BM][pitch_c].
    template <bool TA, bool TB>
    static GL_INLINE void product(const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K,
                                  unsigned char* shared) {
        namespace wmma = gl_wmma;
        typedef GlFragment<T> Kind;
        const int tid = threadIdx.x, warp = tid / 32;
        const int row = warp / WN * (BM / WM), column = warp % WN * (BN / WN);
        wmma::fragment<wmma::accumulator, 16, 16, Kind::depth, float> acc[FM][FN];
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j) wmma::fill_fragment(acc[i][j], 0.0f);
        GlFour<T> next_a[loads_a], next_b[loads_b];

        auto fetch = [&](int k0) {  // a multiple of four
            const GlMatrix<T> a_k = TA ? gl_from_row(a, k0) : gl_from_column(a, k0);
            const GlMatrix<T> b_k = TB ? gl_from_column(b, k0) : gl_from_row(b, k0);
#pragma unroll
            for (int l = 0; l < loads_a; ++l) {
                int quad = tid + l * threads;
                if (quads_a % threads && quad >= quads_a) continue;
                if (TA)
                    next_a[l] = gl_fetch(a_k, quad / (BM / 4), m0 + quad % (BM / 4) * 4);
                else
                    next_a[l] = gl_fetch(a_k, m0 + quad / (BK / 4), quad % (BK / 4) * 4);
            }
#pragma unroll
            for (int l = 0; l < loads_b; ++l) {
                int quad = tid + l * threads;
                if (quads_b % threads && quad >= quads_b) continue;
                if (TB)
                    next_b[l] = gl_fetch(b_k, n0 + quad / (BK / 4), quad % (BK / 4) * 4);
                else
                    next_b[l] = gl_fetch(b_k, quad / (BN / 4), n0 + quad % (BN / 4) * 4);
            }
        };
        auto put = [&](int half) {
            T* tile_a = (T*)(shared + half * part);
            T* tile_b = tile_a + BM * pitch_a;
#pragma unroll
            for (int l = 0; l < loads_a; ++l) {
                int quad = tid + l * threads;
                if (quads_a % threads && quad >= quads_a) continue;
                if (TA)
                    for (int j = 0; j < 4; ++j)
                        tile_a[(quad % (BM / 4) * 4 + j) * pitch_a + quad / (BM / 4)] = next_a[l].v[j];
                else
                    *(GlFour<T>*)(tile_a + quad / (BK / 4) * pitch_a + quad % (BK / 4) * 4) = next_a[l];
            }
#pragma unroll
            for (int l = 0; l < loads_b; ++l) {
                int quad = tid + l * threads;
                if (quads_b % threads && quad >= quads_b) continue;
                if (TB)
                    for (int j = 0; j < 4; ++j)
                        tile_b[(quad % (BK / 4) * 4 + j) * pitch_b + quad / (BK / 4)] = next_b[l].v[j];
                else
                    *(GlFour<T>*)(tile_b + quad / (BN / 4) * pitch_b + quad % (BN / 4) * 4) = next_b[l];
            }
        };

        fetch(0);
        put(0);
        __syncthreads();
        for (int k0 = 0, half = 0; k0 < K; k0 += BK, half ^= 1) {
            const bool more = k0 + BK < K;
            if (more) fetch(k0 + BK);
            const T* tile_a = (const T*)(shared + half * part) + row * pitch_a;
            const T* tile_b = (const T*)(shared + half * part) + BM * pitch_a + column;
#pragma unroll
            for (int k = 0; k < BK; k += Kind::depth) {
                typedef typename Kind::type E;
                wmma::fragment<wmma::matrix_a, 16, 16, Kind::depth, E, wmma::row_major> left[FM];
                wmma::fragment<wmma::matrix_b, 16, 16, Kind::depth, E, wmma::row_major> right[FN];
#pragma unroll
                for (int i = 0; i < FM; ++i) {
                    wmma::load_matrix_sync(left[i], tile_a + i * 16 * pitch_a + k, pitch_a);
                    Kind::round(left[i]);
                }
#pragma unroll
                for (int j = 0; j < FN; ++j) {
                    wmma::load_matrix_sync(right[j], tile_b + k * pitch_b + j * 16, pitch_b);
                    Kind::round(right[j]);
                }
#pragma unroll
                for (int i = 0; i < FM; ++i)
#pragma unroll
                    for (int j = 0; j < FN; ++j) wmma::mma_sync(acc[i][j], left[i], right[j], acc[i][j]);
            }
            if (more) put(half ^ 1);
            __syncthreads();
        }
        float* to = (float*)shared + row * pitch_c + column;
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j)
                wmma::store_matrix_sync(to + i * 16 * pitch_c + j * 16, acc[i][j], pitch_c, wmma::mem_row_major);
        __syncthreads();
    }

    // Hand each OUT neighboring sums to `write(row, column, sums)`; zeros where there was no product.
    template <int OUT, class Write>
    static GL_INLINE void finish(const unsigned char* shared, bool any, const Write& write) {
        const float* sums = (const float*)shared;
        for (int place = threadIdx.x; place < BM * BN / OUT; place += threads) {
            const int row = place / (BN / OUT), column = place % (BN / OUT) * OUT;
            float total[OUT];
#pragma unroll
            for (int j = 0; j < OUT; ++j) total[j] = any ? sums[row * pitch_c + column + j] : 0.0f;
            write(row, column, total);
        }
    }
};

#endif
