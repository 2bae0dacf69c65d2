// The matrix product all kernels of this folder are built on: one block computes a tile of C = A B.
//
// A thread holds TM rows of TG groups of four neighboring columns in registers.  What a group of four means is the
// caller's matter: in a forward step they are the gates of one hidden unit, so that the gates' nonlinearities follow
// on the same registers.  The threads of a block may share the depth K (KS slices), which gives a small product enough
// threads; the slices are added in a fixed order.  The next tile is read from memory while this one is multiplied.
//
// T is the storage type, R the type to compute in (float for half).  No size needs to be a multiple of anything.
#ifndef GPULSTM_TILE_CUH
#define GPULSTM_TILE_CUH

#include "equations/inline.h"

// Four neighbors, loaded at once: 16 bytes of float, 8 of half, two times 16 of double.
template <typename T>
struct alignas(sizeof(T) * 4 < 16 ? sizeof(T) * 4 : 16) GlFour {
    T v[4];
};

// BM x BN: the tile of C; BK: depth of a tile in shared memory; TM, TG, KS: as above.
template <int BM_, int BN_, int BK_, int TM_, int TG_, int KS_>
struct GlShape {
    enum : int {
        BM = BM_,
        BN = BN_,
        BK = BK_,
        TM = TM_,
        TG = TG_,
        KS = KS_,
        across = BN / (4 * TG),  // threads side by side
        down = BM / TM,
        group = across * down,
        threads = group * KS,
        depth = BK / KS,  // of the tile's depth, the part of one slice
        pitch_a = BM < 8 ? 8 : BM,
        skew_a = 128 / BK < 4 ? 4 : 128 / BK,  // see at_a
        size_a = BK * pitch_a + BK / 4 * skew_a,
        pitch_b = BN + 4,
        quads_a = BM * BK / 4,
        quads_b = BK * BN / 4,
        loads_a = (quads_a + threads - 1) / threads,
        loads_b = (quads_b + threads - 1) / threads,
        out = KS > 1 ? 1 : 4  // sums that are handed on at once, at least
    };
    static_assert(depth % 4 == 0 || 4 % depth == 0, "a slice begins with a group of four, or lies within one");

    // Where row k of A's tile begins in shared memory.  The tile is stored as it comes from memory, in fours along k:
    // four rows further on there is a gap, so that the threads of a warp, which store into many fours, meet other
    // banks.
    static GL_INLINE int at_a(int k) { return k * pitch_a + k / 4 * skew_a; }
};

// A matrix in memory: `q` runs along it, `p` across.  `quad` says that four neighbors can be loaded at once.
template <typename T>
struct GlMatrix {
    const T* at;
    long long pitch;
    int ps, qs;
    bool quad;
};

template <typename T>
GL_INLINE GlMatrix<T> gl_matrix(const T* at, long long pitch, int ps, int qs) {
    bool aligned = (unsigned long long)at % (sizeof(T) * 4 < 16 ? sizeof(T) * 4 : 16) == 0;
    GlMatrix<T> m = {at, pitch, ps, qs, aligned && pitch % 4 == 0};
    return m;
}

// The matrix from row p on, or from column q on: what stays the same over the steps of a loop is computed before it.
template <typename T>
GL_INLINE GlMatrix<T> gl_from_row(const GlMatrix<T>& m, int p) {
    GlMatrix<T> rest = {m.at + p * m.pitch, m.pitch, m.ps - p, m.qs, m.quad};
    return rest;
}

template <typename T>
GL_INLINE GlMatrix<T> gl_from_column(const GlMatrix<T>& m, int q) {
    GlMatrix<T> rest = {m.at + q, m.pitch, m.ps, m.qs - q, m.quad};
    return rest;
}

// Elements (p, q..q+3); zero outside the matrix.
template <typename T>
GL_INLINE GlFour<T> gl_fetch(const GlMatrix<T>& m, int p, int q) {
    if (m.quad && p < m.ps && q + 3 < m.qs) return *(const GlFour<T>*)(m.at + p * m.pitch + q);
    GlFour<T> four;
#pragma unroll
    for (int j = 0; j < 4; ++j) four.v[j] = p < m.ps && q + j < m.qs ? m.at[p * m.pitch + q + j] : (T)0.0f;
    return four;
}

// Shared memory of a product in bytes: two tiles of A and B, or the slices' sums, whichever is more.
template <typename T, typename R, class S>
struct GlShared {
    enum : int {
        a = S::size_a * (int)sizeof(R),
        b = S::BK * S::pitch_b * (int)sizeof(T),
        sums = S::KS > 1 ? S::KS * S::BM * S::BN * (int)sizeof(R) : 0,
        bytes = 2 * (a + b) > sums ? 2 * (a + b) : sums
    };
};

// acc += A B for the tile at row m0, column n0.
//   TA: A lies as [K][M], else [M][K].   TB: B lies as [N][K], else [K][N].
//   USED: of each four columns, how many hold anything (3 for the gates of a GRU).
template <typename T, typename R, class S, bool TA, bool TB, int USED>
GL_INLINE void gl_product(R (&acc)[S::TM][S::TG][4], const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K,
                          unsigned char* shared) {
    typedef GlShared<T, R, S> Layout;
    const int tid = threadIdx.x, slice = tid / S::group, lane = tid % S::group;
    const int row = lane / S::across * S::TM, column = lane % S::across * 4;
    GlFour<T> next_a[S::loads_a], next_b[S::loads_b];

    auto fetch = [&](int k0) {  // a multiple of four
        const GlMatrix<T> a_k = TA ? gl_from_row(a, k0) : gl_from_column(a, k0);
        const GlMatrix<T> b_k = TB ? gl_from_column(b, k0) : gl_from_row(b, k0);
#pragma unroll
        for (int l = 0; l < S::loads_a; ++l) {
            int quad = tid + l * S::threads;
            if (S::quads_a % S::threads && quad >= S::quads_a) continue;
            if (TA)
                next_a[l] = gl_fetch(a_k, quad / (S::BM / 4), m0 + quad % (S::BM / 4) * 4);
            else
                next_a[l] = gl_fetch(a_k, m0 + quad / (S::BK / 4), quad % (S::BK / 4) * 4);
        }
#pragma unroll
        for (int l = 0; l < S::loads_b; ++l) {
            int quad = tid + l * S::threads;
            if (S::quads_b % S::threads && quad >= S::quads_b) continue;
            if (TB)
                next_b[l] = gl_fetch(b_k, n0 + quad / (S::BK / 4), quad % (S::BK / 4) * 4);
            else
                next_b[l] = gl_fetch(b_k, quad / (S::BN / 4), n0 + quad % (S::BN / 4) * 4);
        }
    };
    auto put = [&](int half) {
        R* tile_a = (R*)(shared + half * (Layout::a + Layout::b));
        T* tile_b = (T*)(shared + half * (Layout::a + Layout::b) + Layout::a);
#pragma unroll
        for (int l = 0; l < S::loads_a; ++l) {
            int quad = tid + l * S::threads;
            if (S::quads_a % S::threads && quad >= S::quads_a) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (TA)
                    tile_a[S::at_a(quad / (S::BM / 4)) + quad % (S::BM / 4) * 4 + j] = (R)next_a[l].v[j];
                else
                    tile_a[S::at_a(quad % (S::BK / 4) * 4) + j * S::pitch_a + quad / (S::BK / 4)] = (R)next_a[l].v[j];
            }
        }
#pragma unroll
        for (int l = 0; l < S::loads_b; ++l) {
            int quad = tid + l * S::threads;
            if (S::quads_b % S::threads && quad >= S::quads_b) continue;
            if (TB) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    tile_b[(quad % (S::BK / 4) * 4 + j) * S::pitch_b + quad / (S::BK / 4)] = next_b[l].v[j];
            } else {
                *(GlFour<T>*)(tile_b + quad / (S::BN / 4) * S::pitch_b + quad % (S::BN / 4) * 4) = next_b[l];
            }
        }
    };

    fetch(0);
    put(0);
    __syncthreads();
    for (int k0 = 0, half = 0; k0 < K; k0 += S::BK, half ^= 1) {
        const bool more = k0 + S::BK < K;
        if (more) fetch(k0 + S::BK);
        const int from = slice * S::depth;
        const R* tile_a = (const R*)(shared + half * (Layout::a + Layout::b)) + S::at_a(from) + row;
        const T* tile_b = (const T*)(shared + half * (Layout::a + Layout::b) + Layout::a) + column;
#pragma unroll
        for (int kk = 0; kk < S::depth; ++kk) {
            const int k = from + kk;
            R left[S::TM];
#pragma unroll
            for (int m = 0; m < S::TM; m += 4) {  // TM is a multiple of four
                GlFour<R> four = *(const GlFour<R>*)(tile_a + S::at_a(kk) + m);
#pragma unroll
                for (int j = 0; j < 4; ++j) left[m + j] = four.v[j];
            }
#pragma unroll
            for (int g = 0; g < S::TG; ++g) {
                GlFour<T> right = *(const GlFour<T>*)(tile_b + k * S::pitch_b + g * S::across * 4);
#pragma unroll
                for (int m = 0; m < S::TM; ++m)
#pragma unroll
                    for (int j = 0; j < USED; ++j) acc[m][g][j] += left[m] * (R)right.v[j];
            }
        }
        if (more) put(half ^ 1);
        __syncthreads();
    }
}

// Hand each OUT neighboring sums of the tile to `write(row, column, sums)`, row and column within the tile, each to one
// thread.  Where there is one slice they are four, from the thread's registers.
template <int OUT, typename R, class S, class Write>
GL_INLINE void gl_finish(R (&acc)[S::TM][S::TG][4], unsigned char* shared, const Write& write) {
    const int tid = threadIdx.x, slice = tid / S::group, lane = tid % S::group;
    const int row = lane / S::across * S::TM, column = lane % S::across * 4;
    if constexpr (S::KS == 1) {
        static_assert(OUT == 4, "a thread holds four neighbors");
#pragma unroll
        for (int m = 0; m < S::TM; ++m)
#pragma unroll
            for (int g = 0; g < S::TG; ++g) write(row + m, g * S::across * 4 + column, acc[m][g]);
    } else {
        R* sums = (R*)shared;  // free: the product ends with a barrier
#pragma unroll
        for (int m = 0; m < S::TM; ++m)
#pragma unroll
            for (int g = 0; g < S::TG; ++g) {
                GlFour<R> four;
#pragma unroll
                for (int j = 0; j < 4; ++j) four.v[j] = acc[m][g][j];
                *(GlFour<R>*)(sums + (slice * S::BM + row + m) * S::BN + g * S::across * 4 + column) = four;
            }
        __syncthreads();
        for (int place = tid; place < S::BM * S::BN / OUT; place += S::threads) {
            R total[OUT];
#pragma unroll
            for (int j = 0; j < OUT; ++j) total[j] = sums[place * OUT + j];
#pragma unroll 4
            for (int other = 1; other < S::KS; ++other)
#pragma unroll
                for (int j = 0; j < OUT; ++j) total[j] += sums[other * S::BM * S::BN + place * OUT + j];
            write(place / (S::BN / OUT), place % (S::BN / OUT) * OUT, total);
        }
    }
}

// The two above as one: a tile of a product on ordinary arithmetic units, with what `tensor.cuh` has for tensor cores.
template <typename T, typename R, int USED, int BM_, int BN_, int BK_, int TM_, int TG_, int KS_>
struct GlTile {
    typedef GlShape<BM_, BN_, BK_, TM_, TG_, KS_> S;
    enum : int { BM = BM_, BN = BN_, threads = S::threads, out = S::out, bytes = GlShared<T, R, S>::bytes };
    R acc[S::TM][S::TG][4] = {};

    template <bool TA, bool TB>
    GL_INLINE void product(const GlMatrix<T>& a, const GlMatrix<T>& b, int m0, int n0, int K, unsigned char* shared) {
        gl_product<T, R, S, TA, TB, USED>(acc, a, b, m0, n0, K, shared);
    }

    template <int OUT, class Write>
    GL_INLINE void finish(unsigned char* shared, bool any, const Write& write) {
        gl_finish<OUT, R, S>(acc, shared, write);
    }
};

#endif
