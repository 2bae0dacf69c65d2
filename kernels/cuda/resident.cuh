// A product whose right factor never leaves the block: part of it lies in registers, the rest in shared memory.
//
// A block multiplies BM rows of A with its own BN columns of B, over and over with the same B.  The depth K is cut into
// steps, a step into slices, and each slice of a column group has one owner: a thread here, a warp in
// `resident_tensor.cuh`.  So no number of B is held twice, and an owner keeps what it needs of the first HELD steps in
// registers (their indices are constants, all loops over them unrolled) and of the others in shared memory.  Each owner
// has a sum of its own for every element of the tile; these parts are added in a fixed order.
//
// A comes through shared memory in stretches of TURNS steps, one being copied while another is multiplied.  It was
// written by other multiprocessors since the last barrier of the grid: it is read from L2, never from a cache of this
// one.
#ifndef GPULSTM_RESIDENT_CUH
#define GPULSTM_RESIDENT_CUH

#include <cuda_pipeline.h>

#include "cuda/tile.cuh"

// A number that stays in a register: without this the compiler computes it again wherever it is used.
template <typename N>
GL_INLINE void gl_keep(N& number) {
#ifndef HOSTGPU
    if constexpr (sizeof(N) == 8)
        asm volatile("" : "+l"(number));
    else
        asm volatile("" : "+r"(number));
#endif
}

// 16 bytes from L2 to shared memory, a constant number of bytes behind a place that a register holds; before compute
// capability 8.0 by way of registers.
struct GlCopyTo {
#ifdef HOSTGPU
    unsigned char* place;

    GL_INLINE void begin(unsigned char* at) { place = at; }

    GL_INLINE void copy_16(int offset, const void* from) const {
#if __CUDA_ARCH__ >= 800
        __pipeline_memcpy_async(place + offset, from, 16);
#else
        *(uint4*)(place + offset) = __ldcg((const uint4*)from);
#endif
    }
#else
    unsigned int place;

    GL_INLINE void begin(unsigned char* at) {
        place = (unsigned int)__cvta_generic_to_shared(at);
        gl_keep(place);
    }

    GL_INLINE void copy_16(int offset, const void* from) const {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place + offset), "l"(from) : "memory");
#else
        const uint4 four = __ldcg((const uint4*)from);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(place + offset), "r"(four.x), "r"(four.y),
                     "r"(four.z), "r"(four.w)
                     : "memory");
#endif
    }
#endif
};

// Rows of A in shared memory, [BM][pitch], DEPTH columns at a time, in two buffers.  A has more than SURE columns.
// Threads side by side take pieces side by side, and where that leaves some over, those take other rows.
template <typename T, int BM, int DEPTH, int THREADS, int SURE>
struct GlStage {
    enum : int {
        piece = 16 / (int)sizeof(T),  // numbers that are copied at once
        pitch = DEPTH + piece,
        bytes = BM * pitch * (int)sizeof(T),
        across = DEPTH / piece < THREADS ? DEPTH / piece : THREADS,  // threads side by side
        rows_at_once = THREADS / across,
        at_once = rows_at_once < BM ? rows_at_once : BM  // rows
    };
    static_assert(DEPTH % piece == 0, "a stretch is copied in pieces of 16 bytes");

    GlCopyTo to;            // this thread's first piece, and where that lies:
    int row0, column;       // in shared memory
    long long from, below;  // numbers from the start of A, and to the next row of this thread's

    static GL_INLINE T* at(unsigned char* shared, int stretch) { return (T*)(shared + stretch % 2 * bytes); }

    // Before the first copy, for matrices of K columns.  There are zeros everywhere then.  Ends with a barrier.
    GL_INLINE void begin(unsigned char* shared, int K) {
        for (int i = threadIdx.x; i < 2 * (int)bytes / 16; i += THREADS) ((uint4*)shared)[i] = uint4{0, 0, 0, 0};
        row0 = threadIdx.x / across;
        column = threadIdx.x % across * piece;
        to.begin(shared + (row0 * pitch + column) * (int)sizeof(T));
        from = (long long)row0 * K + column;
        below = (long long)at_once * K;
        gl_keep(row0);
        gl_keep(column);
        gl_keep(from);
        gl_keep(below);
        __syncthreads();
    }

    // Begin to copy `used` columns from k0 on of a matrix [rows][K]; columns behind the last one are zero, rows behind
    // the last one are what was there, since nobody wants their sums.  Ends with `wait` and a barrier.  `whole`: K and
    // the matrix's address are such that pieces can be copied at once.
    GL_INLINE void copy(const T* a, int rows, int K, int k0, int used, bool whole, unsigned char* shared, int stretch) {
        if ((int)at_once * (int)across == THREADS || row0 < at_once) {
#pragma unroll
            for (int more = 0; more < DEPTH;
                 more += THREADS * piece) {  // once where a stretch is no wider than the threads
                if ((used < DEPTH || DEPTH % (across * piece) != 0) && column + more >= used) break;
                const T* next = a + from + (k0 + more);
                const bool within = k0 + used <= SURE || k0 + more + column < K;
                if (whole && within) {
                    const int left = (BM % at_once == 0 || rows < BM ? rows : BM) - row0;
#pragma unroll
                    for (int row = 0; row < BM; row += at_once, next += below)
                        if (row < left) to.copy_16(stretch % 2 * bytes + (row * pitch + more) * (int)sizeof(T), next);
                } else {
                    copy_slowly(next, rows, K - k0 - more - column, at(shared, stretch) + more);
                }
            }
        }
        __pipeline_commit();
    }

    static GL_INLINE bool whole(const T* a, int K) { return (unsigned long long)a % 16 == 0 && K % piece == 0; }

    static GL_INLINE void wait() { __pipeline_wait_prior(0); }

  private:
    // Numbers one by one, of which `left` are in a row, or zeros where that is 0 or less.
    GL_INLINE void copy_slowly(const T* next, int rows, int left, T* to) const {
#pragma unroll 1
        for (int row = row0; row < BM; row += at_once, next += below)
#pragma unroll 1
            for (int j = 0; j < piece; ++j)
                to[row * pitch + column + j] = row < rows && j < left ? __ldcg(next + j) : (T)0.0f;
    }
};

// total += OUT neighbors, or = where they are the FIRST, loaded at once where they are four.
template <bool FIRST, int OUT, typename R>
GL_INLINE void gl_add(R (&total)[OUT], const R* from) {
    if constexpr (OUT == 4) {
        const GlFour<R> four = *(const GlFour<R>*)from;
#pragma unroll
        for (int j = 0; j < 4; ++j) total[j] = FIRST ? four.v[j] : total[j] + four.v[j];
    } else {
#pragma unroll
        for (int j = 0; j < OUT; ++j) total[j] = FIRST ? from[j] : total[j] + from[j];
    }
}

// Add the parts of a tile and hand each OUT neighboring sums to `write(row, column, sums)`, each to one thread.
// Part s of element (row, column) lies at s * SLICE + row * ROW + column.  Where the tile has so few elements that
// threads would have nothing to do, several share the parts of four neighbors.  `shared` has room for four numbers a
// thread.
template <typename R, int BM, int BN, int KS, int SLICE, int ROW, int THREADS, int OUT, class Write>
GL_INLINE void gl_gather(const R* sums, R* shared, bool any, const Write& write) {
    constexpr unsigned int size = BM * BN, places = size / OUT, across = BN / OUT, fours = size / 4;
    constexpr unsigned int fit = THREADS / fours < 16 ? THREADS / fours : 16, sharing = fit < KS ? fit : KS;
    static_assert(SLICE % 4 == 0 && ROW % 4 == 0 && BN % 4 == 0, "neighbors are loaded at once");
    const unsigned int i = threadIdx.x;
    if (!any) {
        const R none[OUT] = {};
        for (unsigned int place = i; place < places; place += THREADS)
            write(place / across, place % across * OUT, none);
        return;
    }
    __syncthreads();  // all parts are written
    if constexpr (2 * places > THREADS || sharing < 2) {
        for (unsigned int place = i; place < places; place += THREADS) {
            const R* part = sums + place / across * ROW + place % across * OUT;
            R total[OUT];
            gl_add<true>(total, part);
#pragma unroll
            for (int s = 1; s < KS; ++s) gl_add<false>(total, part + s * SLICE);
            write(place / across, place % across * OUT, total);
        }
    } else {
        R four[4];
        if (THREADS == fours * sharing || i < fours * sharing) {
            const unsigned int first = i / fours, place = i % fours * 4;
            const R* part = sums + place / BN * ROW + place % BN + first * SLICE;
            gl_add<true>(four, part);
#pragma unroll
            for (unsigned int s = sharing; s < KS; s += sharing)
                if (KS % sharing == 0 || first + s < KS) gl_add<false>(four, part + s * SLICE);
#pragma unroll
            for (int j = 0; j < 4; ++j) shared[i * 4 + j] = four[j];
        }
        __syncthreads();
        if (i < places) {
            R total[OUT];
            gl_add<true>(total, shared + i * OUT);
#pragma unroll
            for (unsigned int s = 1; s < sharing; ++s) gl_add<false>(total, shared + s * size + i * OUT);
            write(i / across, i % across * OUT, total);
        }
    }
    __syncthreads();  // the next product writes where this one's sums lie
}

// On ordinary arithmetic units: a thread owns four columns and every KS-th four of the depth, for all BM rows.
//   USED: of each four columns, how many hold anything (3 for the gates of a GRU).
//   TURNS, HELD, STEPS: steps of the depth in a stretch of A, with weights in registers, and in all.
template <typename T, typename R, int USED, int BM_, int BN_, int KS, int TURNS, int HELD, int STEPS>
struct GlResident {
    enum : int {
        BM = BM_,
        BN = BN_,
        across = BN / 4,
        threads = across * KS,
        depth = 4 * KS,       // of a step
        row = (KS + 1) * BN,  // of the sums; one more than there are slices, so that rows lie in different banks
        sums = BM * row * (int)sizeof(R)
    };
    typedef GlStage<T, BM, depth * TURNS, threads, (STEPS - 1) * depth> Stage;
    enum : int {
        tiles = 2 * (int)Stage::bytes > (int)sums ? 2 * (int)Stage::bytes : (int)sums,
        parts = (tiles + 15) / 16 * 16,
        work = parts + (threads * 4 * (int)sizeof(R) + 31) / 32 * 32  // bytes of shared memory before the resident part
    };
    static_assert(HELD == STEPS || HELD % TURNS == 0, "the registers hold whole stretches");

    Stage stage;
    GlFour<T> held[HELD ? HELD : 1][4];  // [step][depth]: four columns each

    GL_INLINE GlFour<T>* spare(unsigned char* shared, int step, int k) const {
        return (GlFour<T>*)(shared + work) + ((step - HELD) * 4 + k) * threads + threadIdx.x;
    }

    // This block's columns of B, into the registers and the shared memory of their owners.
    GL_INLINE void load(const GlMatrix<T>& b, int n0, int K, unsigned char* shared) {
        const int slice = threadIdx.x / across, column = n0 + threadIdx.x % across * 4;
#pragma unroll
        for (int step = 0; step < HELD; ++step)
#pragma unroll
            for (int k = 0; k < 4; ++k) held[step][k] = gl_fetch(b, step * depth + slice * 4 + k, column);
        for (int step = HELD; step < STEPS; ++step)
#pragma unroll
            for (int k = 0; k < 4; ++k) *spare(shared, step, k) = gl_fetch(b, step * depth + slice * 4 + k, column);
        stage.begin(shared, K);
    }

    // The sums of A B in parts, for the first BM rows of A [rows][K]; `whole` as Stage::whole says.
    GL_INLINE void product(const T* a, int rows, int K, bool whole, unsigned char* shared) {
        constexpr int stretches = (STEPS + TURNS - 1) / TURNS;
        const int slice = threadIdx.x / across;
        R acc[BM][4] = {};
        auto multiply = [&](const GlFour<T>(&right)[4], const T* left) {
#pragma unroll
            for (int m = 0; m < BM; ++m) {
                const GlFour<T> four = *(const GlFour<T>*)(left + m * Stage::pitch);
#pragma unroll
                for (int k = 0; k < 4; ++k)
#pragma unroll
                    for (int j = 0; j < USED; ++j) acc[m][j] += (R)four.v[k] * (R)right[k].v[j];
            }
        };
        auto copy = [&](int stretch) {  // no more of a stretch than the steps that are left
            const int left = STEPS - stretch * TURNS;
            stage.copy(a, rows, K, stretch * TURNS * depth, (left < TURNS ? left : TURNS) * depth, whole, shared,
                       stretch);
        };
        auto next = [&](int stretch) {  // stretch lies there for all; the one after it is on its way
            Stage::wait();
            __syncthreads();
            if (stretch + 1 < stretches) copy(stretch + 1);
            return Stage::at(shared, stretch) + slice * 4;
        };
        copy(0);
#pragma unroll
        for (int stretch = 0; stretch * TURNS < HELD; ++stretch) {
            const T* left = next(stretch);
#pragma unroll
            for (int turn = 0; turn < TURNS && stretch * TURNS + turn < HELD; ++turn)
                multiply(held[stretch * TURNS + turn], left + turn * depth);
        }
#pragma unroll 1
        for (int stretch = HELD / TURNS; HELD < STEPS && stretch < stretches; ++stretch) {
            const T* left = next(stretch);
            const int turns = STEPS - stretch * TURNS < TURNS ? STEPS - stretch * TURNS : TURNS;
#pragma unroll 1
            for (int turn = 0; turn < turns; ++turn) {
                GlFour<T> right[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) right[k] = *spare(shared, stretch * TURNS + turn, k);
                multiply(right, left + turn * depth);
            }
        }
        __syncthreads();  // the sums lie where the stretches were
        GlFour<R>* to = (GlFour<R>*)shared + threadIdx.x;
#pragma unroll
        for (int m = 0; m < BM; ++m) {
            GlFour<R> four;
#pragma unroll
            for (int j = 0; j < 4; ++j) four.v[j] = acc[m][j];
            to[m * (row / 4)] = four;
        }
    }

    template <int OUT, class Write>
    GL_INLINE void finish(unsigned char* shared, bool any, const Write& write) const {
        gl_gather<R, BM, BN, KS, BN, row, threads, OUT>((const R*)shared, (R*)(shared + parts), any, write);
    }
};

#endif
