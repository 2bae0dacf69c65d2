// The dtypes of CuPy's own kernels that are compiled into it (Thrust sorts, CUB reductions), by number.
#pragma once
#include <math.h>
#include <string.h>
#include <complex>
#include <stdexcept>
#include <type_traits>

struct Half {
  unsigned short x;
  Half() = default;
  Half(float f) { _Float16 h = (_Float16)f; memcpy(&x, &h, 2); }
  operator float() const { _Float16 h; memcpy(&h, &x, 2); return (float)h; }
};
template <class T> struct is_cplx : std::false_type {};
template <class T> struct is_cplx<std::complex<T>> : std::true_type {};
template <class T> static bool is_nan(const T& v) {
  if constexpr (is_cplx<T>::value) return isnan(v.real()) || isnan(v.imag());
  else if constexpr (std::is_same<T, Half>::value || std::is_floating_point<T>::value) return isnan((double)(v + 0.0f * 0));
  else return false;
}
// NumPy's order: NaN last
template <class T> static bool less_(const T& a, const T& b) {
  if (is_nan(a) || is_nan(b)) return !is_nan(a) && is_nan(b);
  if constexpr (is_cplx<T>::value) return a.real() < b.real() || (a.real() == b.real() && a.imag() < b.imag());
  else if constexpr (std::is_same<T, Half>::value) return (float)a < (float)b;
  else return a < b;
}
template <class F> static void by_dtype(int d, F f) {
  switch (d) {
    case 0: return f((int8_t*)0); case 1: return f((uint8_t*)0); case 2: return f((int16_t*)0); case 3: return f((uint16_t*)0);
    case 4: return f((int32_t*)0); case 5: return f((uint32_t*)0); case 6: return f((int64_t*)0); case 7: return f((uint64_t*)0);
    case 8: return f((Half*)0); case 9: return f((float*)0); case 10: return f((double*)0);
    case 11: return f((std::complex<float>*)0); case 12: return f((std::complex<double>*)0); case 13: return f((bool*)0);
    default: throw std::runtime_error("Unsupported dtype ID");
  }
}
