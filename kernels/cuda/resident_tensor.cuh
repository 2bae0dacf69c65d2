// The product of resident.cuh on tensor cores: a warp owns FN tiles of eight columns side by side and every KS-th piece
// of the depth, D fragments deep.
//
// The held part of B is fragments; the rest lies in shared memory as [BN][its depth].  Where a warp has the whole depth
// (KS is 1: the gates of a forward step) its sums are handed on from the registers where they are, else the parts of
// the warps are added as in resident.cuh.
#ifndef GPULSTM_RESIDENT_TENSOR_CUH
#define GPULSTM_RESIDENT_TENSOR_CUH

#include "cuda/mma.cuh"
#include "cuda/resident.cuh"

template <typename T, int BM_, int BN_, int WN, int KS, int TURNS, int HELD, int STEPS>
struct GlResidentTensor {
    typedef GlFragment<T> Fragment;
    enum : int {
        BM = BM_,
        BN = BN_,
        threads = 32 * WN * KS,
        FM = BM / 16,
        FN = BN / 8 / WN,
        D = KS < 4 ? 4 / KS : 1,
        piece = Fragment::depth * D,
        depth = piece * KS,                        // of a step
        chains = FM * FN < 4 ? 4 / (FM * FN) : 1,  // sums that do not wait for one another
        pad = 16 / (int)sizeof(T),
        row = BN + 8,  // of the parts, so that what a warp stores at once lies in different banks
        sums = KS > 1 ? KS * BM * row * 4 : 0
    };
    typedef GlStage<T, BM, depth * TURNS, threads, (STEPS - 1) * depth> Stage;
    enum : int {
        pitch_load = depth + pad,  // of a step of B on its way into registers
        loads = BN * pitch_load * (int)sizeof(T),
        most = (int)sums > 2 * (int)Stage::bytes ? (int)sums : 2 * (int)Stage::bytes,
        tiles = most > (int)loads ? most : (int)loads,
        parts = (tiles + 15) / 16 * 16,
        work = (parts + (KS > 1 ? threads * 16 : 0) + 31) / 32 * 32,
        pitch_spare = (STEPS - HELD) * depth + pad  // of the part in shared memory
    };
    static_assert(HELD == STEPS || HELD % TURNS == 0, "the registers hold whole stretches");
    static_assert(BN % (8 * WN) == 0 && BM % 16 == 0, "a tile is whole fragments");
    typedef unsigned int Right[FN][D][2];

    Stage stage;
    Right held[HELD ? HELD : 1];
    float total[FM][FN][4];

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

    // This warp's fragments of a step; `from`: its columns and its piece.
    static GL_INLINE void take(Right& right, const T* from, int pitch) {
#pragma unroll
        for (int j = 0; j < FN; ++j) {
            if constexpr (D == 1) {
                Fragment::right_deep(right[j][0], from + j * 8 * pitch, pitch);
            } else {
#pragma unroll
                for (int d = 0; d < D; d += 2) {
                    unsigned int two[4];
                    Fragment::right_deep(two, from + j * 8 * pitch + d * Fragment::depth, pitch);
#pragma unroll
                    for (int i = 0; i < 4; ++i) right[j][d + i / 2][i % 2] = two[i];
                }
            }
        }
    }

    GL_INLINE void load(const GlMatrix<T>& b, int n0, int K, unsigned char* shared) {
        const int warp = threadIdx.x / 32, column = warp % WN * FN * 8, k = warp / WN * piece;
#pragma unroll
        for (int step = 0; step < HELD; ++step) {
            turned(b, n0, step * depth, depth, (T*)shared, pitch_load);
            __syncthreads();
            take(held[step], (const T*)shared + column * pitch_load + k, pitch_load);
            __syncthreads();
        }
        if (STEPS > HELD) turned(b, n0, HELD * depth, (STEPS - HELD) * depth, spare(shared), pitch_spare);
        stage.begin(shared, K);
    }

    GL_INLINE void product(const T* a, int rows, int K, bool whole, unsigned char* shared) {
        const int warp = threadIdx.x / 32, slice = warp / WN, column = warp % WN * FN * 8;
        constexpr int stretches = (STEPS + TURNS - 1) / TURNS;
        float acc[chains][FM][FN][4] = {};
        auto multiply = [&](const Right& right, const T* from, int first) {  // `first`: of its fragments' chains
#pragma unroll
            for (int d = 0; d < D; ++d)
#pragma unroll
                for (int i = 0; i < FM; ++i) {
                    unsigned int left[4];
                    Fragment::left(left, from + i * 16 * Stage::pitch + d * Fragment::depth, Stage::pitch);
#pragma unroll
                    for (int j = 0; j < FN; ++j)
                        gl_mma<T>(acc[(first + d) % chains][i][j], left, right[j][d][0], right[j][d][1]);
                }
        };
        auto copy = [&](int stretch) {  // no more of a stretch than the steps that are left
            const int left = STEPS - stretch * TURNS;
            stage.copy(a, rows, K, stretch * TURNS * depth, (left < TURNS ? left : TURNS) * depth, whole, shared,
                       stretch);
        };
        auto next = [&](int stretch) {  // as in resident.cuh
            Stage::wait();
            __syncthreads();
            if (stretch + 1 < stretches) copy(stretch + 1);
            return Stage::at(shared, stretch) + slice * piece;
        };
        copy(0);
#pragma unroll
        for (int stretch = 0; stretch * TURNS < HELD; ++stretch) {
            const T* left = next(stretch);
#pragma unroll
            for (int turn = 0; turn < TURNS && stretch * TURNS + turn < HELD; ++turn)
                multiply(held[stretch * TURNS + turn], left + turn * depth, turn * D);
        }
#pragma unroll 1
        for (int stretch = HELD / TURNS; HELD < STEPS && stretch < stretches; ++stretch) {
            const T* left = next(stretch);
            const int turns = STEPS - stretch * TURNS < TURNS ? STEPS - stretch * TURNS : TURNS;
#pragma unroll 1
            for (int turn = 0; turn < turns; ++turn) {
                const int k = (stretch * TURNS + turn - HELD) * depth + slice * piece;
                Right right;
                take(right, spare(shared) + column * pitch_spare + k, pitch_spare);
                multiply(right, left + turn * depth, 0);
            }
        }
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j)
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    total[i][j][k] = acc[0][i][j][k];
#pragma unroll
                    for (int chain = 1; chain < chains; ++chain) total[i][j][k] += acc[chain][i][j][k];
                }
        __syncthreads();  // the parts, or what the next product reads, lie where the stretches were
        if constexpr (KS > 1)
            gl_hand_on<2>(total, slice * BM, column, [&](int at, int to, const float* pair) {
                *(GlTwo*)((float*)shared + at * row + to) = GlTwo{pair[0], pair[1]};
            });
    }

    template <int OUT, class Write>
    GL_INLINE void finish(unsigned char* shared, bool any, const Write& write) {
        if constexpr (KS > 1) {
            gl_gather<float, BM, BN, KS, BM * row, row, threads, OUT>((const float*)shared, (float*)(shared + parts),
                                                                      any, write);
        } else {
            if (!any) {
#pragma unroll
                for (int i = 0; i < FM * FN * 4; ++i) total[i / 4 / FN][i / 4 % FN][i % 4] = 0.0f;
            }
            gl_hand_on<OUT>(total, 0, threadIdx.x / 32 * FN * 8, write);
        }
    }

  private:
    struct alignas(8) GlTwo {
        float first, second;
    };
};

#endif
