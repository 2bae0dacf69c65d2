// The product of resident.cuh on tensor cores: a warp owns FN fragments side by side and every KS-th of the depth.
//
// The held part of B is fragments; the rest lies in shared memory as [BN][its depth].  Half with float sums, or float
// rounded to TF32 with float sums.
#ifndef GPULSTM_RESIDENT_TENSOR_CUH
#define GPULSTM_RESIDENT_TENSOR_CUH

#include "cuda/resident.cuh"
#include "cuda/tensor.cuh"

template <typename T, int BM_, int BN_, int WN, int KS, int TURNS, int HELD>
struct GlResidentTensor {
    typedef GlFragment<T> Kind;
    enum : int {
        BM = BM_,
        BN = BN_,
        threads = 32 * WN * KS,
        FM = BM / 16,
        FN = BN / 16 / WN,
        depth = Kind::depth * KS,  // of a step
        pad = 16 / (int)sizeof(T),
        row = BN + 4,  // of the sums
        sums = KS * BM * row * 4
    };
    typedef GlStage<T, BM, depth * TURNS, threads> Stage;
    enum : int {
        pitch_load = depth + pad,  // of a step of B on its way into registers
        loads = BN * pitch_load * (int)sizeof(T),
        most = (int)sums > 2 * (int)Stage::bytes ? (int)sums : 2 * (int)Stage::bytes,
        tiles = most > (int)loads ? most : (int)loads,
        parts = (tiles + 15) / 16 * 16,
        work = (parts + threads * 16 + 31) / 32 * 32
    };
    static_assert(HELD % TURNS == 0, "the registers hold whole chunks");
    static_assert(BN % (16 * WN) == 0 && BM % 16 == 0, "a tile is whole fragments");
    typedef gl_wmma::fragment<gl_wmma::matrix_a, 16, 16, Kind::depth, typename Kind::type, gl_wmma::row_major> Left;
    typedef gl_wmma::fragment<gl_wmma::matrix_b, 16, 16, Kind::depth, typename Kind::type, gl_wmma::col_major> Right;

    Right held[HELD ? HELD : 1][FN];
    int steps, pitch;  // pitch: of the part in shared memory

    GL_INLINE T* spare(unsigned char* shared) const { return (T*)(shared + work); }

    // Columns n0.. of B, rows k0..k0+count, to `to` as [BN][pitch]; zeros outside of B.
    static GL_INLINE void turned(const GlMatrix<T>& b, int n0, int k0, int count, T* to, int pitch) {
        for (int i = threadIdx.x; i < count * (BN / 4); i += threads) {
            const int k = i / (BN / 4), column = i % (BN / 4) * 4;
            const GlFour<T> four = gl_fetch(b, k0 + k, n0 + column);
#pragma unroll
            for (int j = 0; j < 4; ++j) to[(column + j) * pitch + k] = four.v[j];
        }
    }

    static GL_INLINE void take(Right& right, const T* from, int pitch) {
        gl_wmma::load_matrix_sync(right, from, pitch);
        Kind::round(right);
    }

    GL_INLINE void load(const GlMatrix<T>& b, int n0, int K, unsigned char* shared) {
        const int warp = threadIdx.x / 32, column = warp % WN * FN * 16, k = warp / WN * Kind::depth;
        steps = (K + depth - 1) / depth;
        pitch = (steps - HELD) * depth + pad;
#pragma unroll
        for (int step = 0; step < HELD; ++step) {
            turned(b, n0, step * depth, depth, (T*)shared, pitch_load);
            __syncthreads();
#pragma unroll
            for (int j = 0; j < FN; ++j)
                take(held[step][j], (const T*)shared + (column + j * 16) * pitch_load + k, pitch_load);
            __syncthreads();
        }
        if (steps > HELD) turned(b, n0, HELD * depth, (steps - HELD) * depth, spare(shared), pitch);
        __syncthreads();
    }

    GL_INLINE void product(const T* a, int rows, int K, bool whole, unsigned char* shared) {
        namespace wmma = gl_wmma;
        const int warp = threadIdx.x / 32, slice = warp / WN, column = warp % WN * FN * 16;
        const int chunks = (steps + TURNS - 1) / TURNS;
        wmma::fragment<wmma::accumulator, 16, 16, Kind::depth, float> acc[FM][FN];
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j) wmma::fill_fragment(acc[i][j], 0.0f);
        auto multiply = [&](const Right(&right)[FN], const T* from) {
#pragma unroll
            for (int i = 0; i < FM; ++i) {
                Left left;
                wmma::load_matrix_sync(left, from + i * 16 * Stage::pitch, Stage::pitch);
                Kind::round(left);
#pragma unroll
                for (int j = 0; j < FN; ++j) wmma::mma_sync(acc[i][j], left, right[j], acc[i][j]);
            }
        };
        auto copy = [&](int chunk) {  // no more of a chunk than the steps that are left
            const int left = steps - chunk * TURNS, k0 = chunk * TURNS * depth;
            Stage::copy(a, rows, K, k0, (left < TURNS ? left : TURNS) * depth, whole, Stage::at(shared, chunk));
        };
        auto next = [&](int chunk) {  // as in resident.cuh
            Stage::wait();
            __syncthreads();
            if (chunk + 1 < chunks) copy(chunk + 1);
            return Stage::at(shared, chunk) + slice * Kind::depth;
        };
        copy(0);
#pragma unroll
        for (int chunk = 0; chunk < HELD / TURNS; ++chunk) {
            if (chunk >= chunks) break;
            const T* left = next(chunk);
#pragma unroll
            for (int turn = 0; turn < TURNS; ++turn) {
                if (chunk * TURNS + turn >= steps) break;
                multiply(held[chunk * TURNS + turn], left + turn * depth);
            }
        }
        for (int chunk = HELD / TURNS; chunk < chunks; ++chunk) {
            const T* left = next(chunk);
#pragma unroll 1
            for (int turn = 0; turn < TURNS && chunk * TURNS + turn < steps; ++turn) {
                const T* from = spare(shared) + column * pitch;
                const int k = (chunk * TURNS + turn - HELD) * depth + slice * Kind::depth;
                Right right[FN];
#pragma unroll
                for (int j = 0; j < FN; ++j) take(right[j], from + j * 16 * pitch + k, pitch);
                multiply(right, left + turn * depth);
            }
        }
        __syncthreads();  // the sums lie where the chunks were
        float* to = (float*)shared + slice * BM * row + column;
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j)
                wmma::store_matrix_sync(to + i * 16 * row + j * 16, acc[i][j], row, wmma::mem_row_major);
    }

    template <int OUT, class Write>
    GL_INLINE void finish(unsigned char* shared, bool any, const Write& write) const {
        gl_gather<float, BM, BN, KS, BM * row, row, threads, OUT>((const float*)shared, (float*)(shared + parts), any,
                                                                  write);
    }
};

#endif
