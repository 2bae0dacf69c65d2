// How functions that are compiled for CUDA (NVRTC, nvcc) and for the host are declared.
#ifndef GPULSTM_INLINE_H
#define GPULSTM_INLINE_H

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GL_INLINE __device__ __forceinline__
#else
#define GL_INLINE static inline
#endif

#endif
