// The recurrent weights in the order in which the step kernels read them, once a call, and the states' first slots.
//
// Compiled for one choice of macros: GL_T, GL_R, GL_CELL.
#include "cuda/step.cuh"

// W_h [H][G*H] -> [H][pitch]: the gates of a unit side by side, a GRU's three in four places, zeros behind the last
// unit.  One thread an element of the result.
extern "C" __global__ void gpulstm_pack_forward(const GL_T* w, GL_T* packed, long long units, long long pitch) {
    const int gates = GlGates<GL_CELL>::count, wide = GlGates<GL_CELL>::wide;
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= units * pitch) return;
    long long k = at / pitch, column = at % pitch, unit = column / wide, gate = column % wide;
    packed[at] = gate < gates && unit < units ? w[k * gates * units + gate * units + unit] : (GL_T)0.0f;
}

// W_h [H][G*H] -> its transpose [G*H][pitch], zeros behind the last unit.  Blocks of 32 x 8 threads turn 32 x 32 tiles.
extern "C" __global__ void gpulstm_pack_backward(const GL_T* w, GL_T* packed, long long units, long long pitch) {
    __shared__ GL_T tile[32][33];
    const long long width = GlGates<GL_CELL>::count * units;
    const long long unit0 = blockIdx.x * 32ll, column0 = blockIdx.y * 32ll;
    for (int j = threadIdx.y; j < 32; j += 8) {
        long long unit = unit0 + j, column = column0 + threadIdx.x;
        tile[j][threadIdx.x] = unit < units && column < width ? w[unit * width + column] : (GL_T)0.0f;
    }
    __syncthreads();
    for (int j = threadIdx.y; j < 32; j += 8) {
        long long column = column0 + j, unit = unit0 + threadIdx.x;
        if (column < width && unit < pitch) packed[column * pitch + unit] = tile[threadIdx.x][j];
    }
}

// The state before the first step: h into its slot of hs (and times the mask of vs), c into its own.
extern "C" __global__ void gpulstm_begin(const GL_T* h, const GL_T* c, const GL_T* mask, GL_T* hs, GL_T* vs, GL_R* cs,
                                         long long size) {
    long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e >= size) return;
    hs[e] = h[e];
    if (vs) vs[e] = (GL_T)((GL_R)h[e] * (GL_R)mask[e]);
    if (cs) cs[e] = (GL_R)c[e];
}

// The gradient of the final state where the backward steps keep it: that of h in `around`, that of c in `dc`.
extern "C" __global__ void gpulstm_begin_backward(const GL_T* h, const GL_T* c, GL_R* around, GL_R* dc,
                                                  long long size) {
    long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (e >= size) return;
    around[e] = (GL_R)h[e];
    if (dc) dc[e] = (GL_R)c[e];
}
