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

// What a call of a layer's forward pass and one of its backward pass have in common; a row of W_x and W_h is `row`
// long, h has P units, c has H.
template <typename R, typename Call>
void take_layer(Call& call, long row, long P, bool reverse, const In& x, const In& w_x, const In& w_h, const In& h0,
                const MaybeIn& c0, const MaybeIn& mask, const MaybeIn& lengths) {
    const long T = call.T, B = call.B, I = call.I;
    call.reverse = reverse;
    call.x = data<R>("x", x, {T, B, I});
    call.w_x = data<R>("w_x", w_x, {I, row});
    call.w_h = data<R>("w_h", w_h, {P, row});
    call.h0 = data<R>("h0", h0, {B, P});
    call.c0 = data<R>("c0", c0, {B, call.H});
    call.mask = data<R>("mask", mask, {B, P});
    call.lengths = data<int64_t>("lengths", lengths, {B});
}
template <typename R>
void take_outputs(ForwardCall<R>& call, long row, long P, const MaybeIn& b, const MaybeIn& b_hn, const Out& y,
                  const Out& h_end, const MaybeOut& c_end) {
    call.b = data<R>("b", b, {row});
    call.b_hn = data<R>("b_hn", b_hn, {call.H});
    call.y = data<R>("y", y, {call.T, call.B, P});
    call.h_end = data<R>("h_end", h_end, {call.B, P});
    call.c_end = data<R>("c_end", c_end, {call.B, call.H});
}
template <typename R>
void take_gradients(BackwardCall<R>& call, long row, long P, const In& y, const In& dy, const In& dh_end,
                    const MaybeIn& dc_end, const Out& dx, const Out& dh0, const MaybeOut& dc0, const Out& dw_x,
                    const Out& dw_h, const MaybeOut& db, const MaybeOut& db_hn) {
    const long T = call.T, B = call.B, I = call.I, H = call.H;
    call.y = data<R>("y", y, {T, B, P});
    call.dy = data<R>("dy", dy, {T, B, P});
    call.dh_end = data<R>("dh_end", dh_end, {B, P});
    call.dc_end = data<R>("dc_end", dc_end, {B, H});
    call.dx = data<R>("dx", dx, {T, B, I});
    call.dh0 = data<R>("dh0", dh0, {B, P});
    call.dc0 = data<R>("dc0", dc0, {B, H});
    call.dw_x = data<R>("dw_x", dw_x, {I, row});
    call.dw_h = data<R>("dw_h", dw_h, {P, row});
    call.db = data<R>("db", db, {row});
    call.db_hn = data<R>("db_hn", db_hn, {H});
}

// The sizes of a call; the other fields are null.
template <typename Call>
Call sized(Cell cell, long T, long B, long I, long H) {
    Call call = {};
    call.cell = cell, call.T = T, call.B = B, call.I = I, call.H = H;
    return call;
}

inline void done(bool enough) {
    if (!enough) throw std::bad_alloc();
}

}  // namespace gpulstm

#endif
