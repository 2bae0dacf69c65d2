// Arrays as the module's functions take them: as they are or not at all, of one dtype and shape.
#ifndef GPULSTM_CPU_MODULE_ARRAYS_H
#define GPULSTM_CPU_MODULE_ARRAYS_H

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "module_numbers.h"

namespace nb = nanobind;

namespace gpulstm {

typedef nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig> In;
typedef nb::ndarray<nb::device::cpu, nb::c_contig> Out;
typedef std::optional<In> MaybeIn;
typedef std::optional<Out> MaybeOut;

// The data of an array that must have this dtype and these extents.
template <typename R, typename A>
auto data(const char* name, const A& array, std::initializer_list<long> shape) {
    bool fits = array.ndim() == shape.size() && array.dtype() == nb::dtype<R>() && is_aligned<R>(array.data());
    size_t axis = 0;
    for (long extent : shape) {
        fits = fits && long(array.shape(axis)) == extent;
        ++axis;
    }
    if (!fits)
        throw std::invalid_argument(std::string(name) + " has another shape, dtype or alignment than the call's");
    typedef std::conditional_t<std::is_same_v<A, In>, const R, R> T;
    return static_cast<T*>(array.data());
}
template <typename R, typename A>
auto data(const char* name, const std::optional<A>& array, std::initializer_list<long> shape) {
    return array ? data<R>(name, *array, shape) : nullptr;
}

inline void done(bool enough) {
    if (!enough) throw std::bad_alloc();
}

}  // namespace gpulstm

#endif
