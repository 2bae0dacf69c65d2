// One factor of a product on its way to shared memory, in pieces of 16 bytes, chunk by chunk of the depth.
//
// From compute capability 8.0 on pieces are copied asynchronously; before, they wait in registers while the chunk
// before them is multiplied.  All that is asked about a piece is asked before the first copy: the loop over the depth
// has nothing to do but copy and step on.
#ifndef GPULSTM_PIECES_CUH
#define GPULSTM_PIECES_CUH

#include <cuda_pipeline.h>

#include "cuda/tile.cuh"

// A chunk is ROWS x COLUMNS of a matrix in memory and [ROWS][PITCH] in shared memory, where two of them lie HALF bytes
// apart.  ALONG: the depth runs along rows, else across.  A thread has `count` pieces of one row, `side` pieces apart:
// all of them lie a constant number of bytes behind the first.
template <typename T, bool ALONG, int ROWS, int COLUMNS, int PITCH, int HALF, int THREADS>
struct GlPieces {
    enum : int {
        piece = 16 / (int)sizeof(T),
        side = THREADS / ROWS,  // threads side by side
        count = COLUMNS / piece / side,
        depth = ALONG ? COLUMNS : ROWS
    };
    static_assert(THREADS % ROWS == 0 && COLUMNS % (piece * side) == 0 && ROWS % 8 == 0, "each has as many pieces");

    const T* next;       // where the first piece of the next chunk lies
    long long onward;    // numbers to what is one deeper
    unsigned char* to;   // where the first piece lies in the first half
    int k;               // how deep in a chunk it is
    bool inside[count];  // whether a piece is within the matrix, whatever the depth
#if __CUDA_ARCH__ < 800
    uint4 held[count];
#endif

    // Whether pieces can be loaded at once, and are within a matrix as a whole or not at all.
    static GL_INLINE bool whole(const GlMatrix<T>& m) {
        return (unsigned long long)m.at % 16 == 0 && m.pitch % piece == 0 && m.qs % piece == 0;
    }

    // `from`: of the tile's rows or columns, the first.  What is not within the matrix is zero from here on.
    GL_INLINE void begin(const GlMatrix<T>& m, int from, unsigned char* shared) {
        // Eight threads write at once, to rows so far apart that these pieces lie in different banks.
        enum : int { apart = side < 8 ? side : 8, together = 8 / apart };
        const int place = threadIdx.x / side, column = threadIdx.x % side * piece;
        const int row = place / 8 * 8 + place % together * apart + place % 8 / together;
        const int p = ALONG ? from + row : row, q = ALONG ? column : from + column;
        next = m.at + p * m.pitch + q;
        onward = ALONG ? 1 : m.pitch;
        to = shared + (row * PITCH + column) * (int)sizeof(T);
        k = ALONG ? column : row;
#pragma unroll
        for (int i = 0; i < count; ++i) {
            inside[i] = ALONG ? p < m.ps : q + i * side * piece < m.qs;
            if (!inside[i]) *piece_at(i, 0) = *piece_at(i, HALF) = uint4{0, 0, 0, 0};
        }
    }

    // Begin to copy the next chunk to a half.  The FIRST is `deep` deep and zeros behind that, all others are whole.
    template <bool FIRST>
    GL_INLINE void copy(int half, int deep = depth) {
        const Place at = place(half);
#pragma unroll
        for (int i = 0; i < count; ++i) {
            if (!inside[i]) continue;
            if (FIRST && k + (ALONG ? i * side * piece : 0) >= deep)
                put(i, half, uint4{0, 0, 0, 0});
            else
                put(i, at + i * side * 16, (const uint4*)(next + i * side * piece));
        }
        next += deep * onward;
    }

    // Pieces that have waited in registers go to their half.
    GL_INLINE void end(int half) {
#if __CUDA_ARCH__ < 800
#pragma unroll
        for (int i = 0; i < count; ++i)
            if (inside[i]) *piece_at(i, half) = held[i];
#endif
    }

    // All that this thread has begun to copy, of other factors too, lies there.
    static GL_INLINE void wait() {
        __pipeline_commit();
        __pipeline_wait_prior(0);
    }

  private:
#ifdef HOSTGPU
    typedef unsigned char* Place;

    GL_INLINE Place place(int half) const { return to + half; }
#else
    typedef unsigned int Place;

    // In a register, which pieces lie a constant number of bytes behind.
    GL_INLINE Place place(int half) const {
        Place at = (unsigned int)__cvta_generic_to_shared(to + half);
        asm volatile("" : "+r"(at));
        return at;
    }
#endif

    GL_INLINE uint4* piece_at(int i, int half) const { return (uint4*)(to + half + i * side * 16); }

    GL_INLINE void put(int i, int half, uint4 four) {
#if __CUDA_ARCH__ >= 800
        *piece_at(i, half) = four;
#else
        held[i] = four;
#endif
    }

    GL_INLINE void put(int i, Place at, const uint4* from) {
#if __CUDA_ARCH__ < 800
        held[i] = *from;
#elif defined(HOSTGPU)
        __pipeline_memcpy_async(at, from, 16);
#else
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#endif
    }
};

#endif
