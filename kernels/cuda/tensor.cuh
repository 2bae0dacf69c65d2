// The same product on tensor cores: half or bfloat16 with float sums, or float rounded to TF32 with float sums.
//
// A warp holds BM / WM x BN / WN of the tile in tiles of 16 x 8, and hands its sums on from the registers where they
// are.
#ifndef GPULSTM_TENSOR_CUH
#define GPULSTM_TENSOR_CUH

#include "cuda/mma.cuh"
#include "cuda/pieces.cuh"
#include "cuda/tile.cuh"

// BM x BN x BK: tile and its depth in shared memory; WM x WN: warps.
template <typename T, int BM_, int BN_, int BK_, int WM_, int WN_>
struct GlTensorTile {
    typedef GlFragment<T> Fragment;
    enum : int {
        BM = BM_,
        BN = BN_,
        BK = BK_,
        WM = WM_,
        WN = WN_,
        threads = 32 * WM * WN,
        FM = BM / WM / 16,  // tiles of a warp
        FN = BN / WN / 8,
        quads_a = BM * BK / 4,
        quads_b = BK * BN / 4,
        loads_a = quads_a / threads,
        loads_b = quads_b / threads,
        out = 2,  // sums that are handed on at once, at least
        // A tile lies in shared memory as it does in memory.  Rows are such that eight of them, 16 bytes of each, or
        // eight neighbors of four, lie in different banks.
        deep = BK + Fragment::piece,
        size_a = BM * deep > BK*(BM + 8) ? BM * deep : BK * (BM + 8),
        size_b = BN * deep > BK*(BN + 8) ? BN * deep : BK * (BN + 8),
        part = (size_a + size_b) * (int)sizeof(T),
        bytes = 2 * part
    };
    static_assert(BM % (16 * WM) == 0 && BN % (16 * WN) == 0 && BK % Fragment::depth == 0, "a tile is whole fragments");
    static_assert(quads_a % threads == 0 && quads_b % threads == 0, "each thread loads as much");

    float sums[FM][FN][4] = {};

    // sums += A B for the tile at row m0, column n0.   TA: A lies as [K][M], else [M][K].   TB: B lies as [N][K], else
    // [K][N].
    template <bool TA, bool TB>
    GL_INLINE void product(const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K, unsigned char* shared) {
        typedef Order<TA, TB> O;
        if (K <= 0) return;
        if (O::PiecesA::whole(a) && O::PiecesB::whole(b))
            product_of_pieces<TA, TB>(a, b, m0, n0, K, shared);
        else
            product_of_fours<TA, TB>(a, b, m0, n0, K, shared);
    }

    // Hand each OUT neighboring sums to `write(row, column, sums)`; zeros where there was no product.
    template <int OUT, class Write>
    GL_INLINE void finish(unsigned char*, bool, const Write& write) {
        const int warp = threadIdx.x / 32;
        gl_hand_on<OUT>(sums, warp / WN * (BM / WM), warp % WN * (BN / WN), write);
    }

  private:
    // How the factors lie: rows of a chunk and what they hold, from a row to the next in shared memory.
    template <bool TA, bool TB>
    struct Order {
        enum : int { rows_a = TA ? BK : BM, across_a = TA ? BM : BK, rows_b = TB ? BN : BK, across_b = TB ? BK : BN };
        enum : int { pitch_a = TA ? BM + 8 : (int)deep, pitch_b = TB ? (int)deep : BN + 8 };
        typedef GlPieces<T, !TA, rows_a, across_a, pitch_a, part, threads> PiecesA;
        typedef GlPieces<T, TB, rows_b, across_b, pitch_b, part, threads> PiecesB;
    };

    // sums += the product of the chunks that lie in shared memory from `chunk` on.
    template <bool TA, bool TB>
    GL_INLINE void multiply(const unsigned char* chunk) {
        enum : int { pitch_a = Order<TA, TB>::pitch_a, pitch_b = Order<TA, TB>::pitch_b };
        const int warp = threadIdx.x / 32, row = warp / WN * (BM / WM), column = warp % WN * (BN / WN);
        const T* tile_a = (const T*)chunk + (TA ? row : row * pitch_a);
        const T* tile_b = (const T*)chunk + size_a + (TB ? column * pitch_b : column);
#pragma unroll
        for (int k = 0; k < BK; k += Fragment::depth) {
            unsigned int left[FM][4], right[FN / 2][4];
#pragma unroll
            for (int i = 0; i < FM; ++i) {
                if constexpr (TA)
                    Fragment::left_turned(left[i], tile_a + k * pitch_a + i * 16, pitch_a);
                else
                    Fragment::left(left[i], tile_a + i * 16 * pitch_a + k, pitch_a);
            }
#pragma unroll
            for (int j = 0; j < FN / 2; ++j) {
                if constexpr (TB)
                    Fragment::right(right[j], tile_b + j * 16 * pitch_b + k, pitch_b);
                else
                    Fragment::right_turned(right[j], tile_b + k * pitch_b + j * 16, pitch_b);
            }
#pragma unroll
            for (int i = 0; i < FM; ++i)
#pragma unroll
                for (int j = 0; j < FN; ++j)
                    gl_mma<T>(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
    }

    // Where rows lie so that 16 bytes can be copied at once.  The first chunk is what is left over of the depth, so
    // that the loop has whole ones alone.
    template <bool TA, bool TB>
    GL_INLINE void product_of_pieces(const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K,
                                     unsigned char* shared) {
        typename Order<TA, TB>::PiecesA pieces_a;
        typename Order<TA, TB>::PiecesB pieces_b;
        const int more = (K - 1) / BK, first = K - more * BK;
        pieces_a.begin(a, m0, shared);
        pieces_b.begin(b, n0, shared + size_a * (int)sizeof(T));
        pieces_a.template copy<true>(0, first);
        pieces_b.template copy<true>(0, first);
        pieces_a.end(0);
        pieces_b.end(0);
        pieces_a.wait();
        __syncthreads();
        int half = 0;
#pragma unroll 1
        for (int turn = more; turn > 0; --turn) {
            const int other = part - half;
            pieces_a.template copy<false>(other);
            pieces_b.template copy<false>(other);
            multiply<TA, TB>(shared + half);
            pieces_a.end(other);
            pieces_b.end(other);
            pieces_a.wait();
            __syncthreads();
            half = other;
        }
        multiply<TA, TB>(shared + half);
    }

    // Where they do not: four neighbors at once where these can be loaded so, and each number is asked about.
    template <bool TA, bool TB>
    GL_INLINE void product_of_fours(const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K,
                                    unsigned char* shared) {
        typedef Order<TA, TB> O;
        const int tid = threadIdx.x;
        GlFour<T> next_a[loads_a], next_b[loads_b];

        auto fetch = [&](int k0) {  // a multiple of four
            const GlMatrix<T> a_k = TA ? gl_from_row(a, k0) : gl_from_column(a, k0);
            const GlMatrix<T> b_k = TB ? gl_from_column(b, k0) : gl_from_row(b, k0);
#pragma unroll
            for (int l = 0; l < loads_a; ++l) {
                const int quad = tid + l * threads, p = quad / (O::across_a / 4), q = quad % (O::across_a / 4) * 4;
                next_a[l] = TA ? gl_fetch(a_k, p, m0 + q) : gl_fetch(a_k, m0 + p, q);
            }
#pragma unroll
            for (int l = 0; l < loads_b; ++l) {
                const int quad = tid + l * threads, p = quad / (O::across_b / 4), q = quad % (O::across_b / 4) * 4;
                next_b[l] = TB ? gl_fetch(b_k, n0 + p, q) : gl_fetch(b_k, p, n0 + q);
            }
        };
        auto put = [&](int half) {
            T* tile_a = (T*)(shared + half);
            T* tile_b = tile_a + size_a;
#pragma unroll
            for (int l = 0; l < loads_a; ++l) {
                const int quad = tid + l * threads, p = quad / (O::across_a / 4), q = quad % (O::across_a / 4) * 4;
                *(GlFour<T>*)(tile_a + p * O::pitch_a + q) = next_a[l];
            }
#pragma unroll
            for (int l = 0; l < loads_b; ++l) {
                const int quad = tid + l * threads, p = quad / (O::across_b / 4), q = quad % (O::across_b / 4) * 4;
                *(GlFour<T>*)(tile_b + p * O::pitch_b + q) = next_b[l];
            }
        };

        fetch(0);
        put(0);
        __syncthreads();
#pragma unroll 1
        for (int k0 = 0, half = 0; k0 < K; k0 += BK, half = part - half) {
            const bool more = k0 + BK < K;
            if (more) fetch(k0 + BK);
            multiply<TA, TB>(shared + half);
            if (more) put(part - half);
            __syncthreads();
        }
    }
};

#endif
