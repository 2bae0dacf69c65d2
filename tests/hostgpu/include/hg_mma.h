// What is inline PTX on a GPU, for kernels that hold it under #ifndef HOSTGPU: ldmatrix, mma.sync (m16n8k16 of half and
// bfloat16, m16n8k8 of TF32) and cvt.rna.tf32.f32.  Lanes hold what the PTX ISA says (9.7.14).  Every operation is one
// rendezvous of the warp.  Products and sums are exact to double and rounded once.
#pragma once
#include <mma.h>
static_assert(__CUDA_ARCH__ >= 750, "ldmatrix and mma.m16n8k8 need compute capability 7.5");
static inline unsigned hg_tf32(unsigned bits) { return hg_bits<unsigned>(nvcuda::wmma::__float_to_tf32(hg_bits<float>(bits))); }

template <bool TURNED, int N> struct hg_ldmatrix_lane {
  unsigned* f; const void* row;
  static void run(const void** in) {
    auto lane = [&](int l) -> const hg_ldmatrix_lane& { return *(const hg_ldmatrix_lane*)in[l]; };
    for (int m = 0; m < N; ++m)
      for (int l = 0; l < 32; ++l) {
        unsigned word = 0;
        for (int part = 0; part < 2; ++part) {
          int r = l / 4, c = l % 4 * 2 + part;
          if (TURNED) std::swap(r, c);
          word |= (unsigned)((const unsigned short*)lane(8 * m + r).row)[c] << 16 * part;
        }
        lane(l).f[m] = word;
      }
  }
};
template <bool TURNED, int N> static inline void hg_ldmatrix(unsigned (&f)[N], const void* row) {
  if ((size_t)row % 16 && hg_lane() < 8 * N) hg_kernel_abort(716, "ldmatrix: a row has to be aligned to 16 bytes", "", 0);
  nvcuda::wmma::hg_all(&hg_ldmatrix_lane<TURNED, N>::run, hg_ldmatrix_lane<TURNED, N>{f, row});
}

template <class T> struct hg_mma_lane {
  float* c; const unsigned* a; unsigned b[2];
  static double number(unsigned word, int part) {
    if constexpr (sizeof(T) == 4) return hg_bits<float>(hg_tf32(word));
    else return (double)(float)hg_bits<T>((unsigned short)(word >> 16 * part));
  }
  static void run(const void** in) {
    constexpr int per = 4 / sizeof(T), K = 8 * per;
    double a[16][K], b[K][8];
    for (int l = 0; l < 32; ++l) {
      auto& lane = *(const hg_mma_lane*)in[l];
      for (int part = 0; part < per; ++part) {
        for (int r = 0; r < 4; ++r) a[l / 4 + r % 2 * 8][l % 4 * per + r / 2 * (K / 2) + part] = number(lane.a[r], part);
        for (int r = 0; r < 2; ++r) b[l % 4 * per + r * (K / 2) + part][l / 4] = number(lane.b[r], part);
      }
    }
    for (int l = 0; l < 32; ++l)
      for (int r = 0; r < 4; ++r) {
        float& c = ((const hg_mma_lane*)in[l])->c[r];
        double sum = c;
        for (int k = 0; k < K; ++k) sum += a[l / 4 + r / 2 * 8][k] * b[k][l % 4 * 2 + r % 2];
        c = (float)sum;
      }
  }
};
template <class T> static inline void hg_mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  static_assert(__CUDA_ARCH__ >= 800 || std::is_same_v<T, __half>, "mma: this type needs compute capability 8.0");
  nvcuda::wmma::hg_all(&hg_mma_lane<T>::run, hg_mma_lane<T>{c, a, {b0, b1}});
}
