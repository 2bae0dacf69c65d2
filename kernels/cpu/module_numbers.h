// Numbers as the module's functions take them: within bounds, or refused before anything is computed from them.
#ifndef GPULSTM_CPU_MODULE_NUMBERS_H
#define GPULSTM_CPU_MODULE_NUMBERS_H

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>

#include "layer.h"

namespace gpulstm {

inline long in_range(const char* name, long value, long least, long most) {
    if (value < least || value > most)
        throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", expected " +
                                    std::to_string(least) + " to " + std::to_string(most));
    return value;
}
inline long extent(const char* name, long value) { return in_range(name, value, 1, 1l << 31); }
inline int threads_of(int count) { return int(in_range("threads", count, 1, 1024)); }
inline Cell cell_of(int which, Cell last = Cell::rnn_relu) { return Cell(in_range("cell", which, 0, long(last))); }
inline Precision precision_of(int which) { return Precision(in_range("precision", which, 0, long(Precision::int8))); }
inline Split split_of(int which) { return Split(in_range("split", which, 0, long(Split::units))); }

// Elements lie where the compiler expects them: not so in a view into bytes.
template <typename R>
inline bool is_aligned(const void* data) {
    return reinterpret_cast<uintptr_t>(data) % alignof(R) == 0;
}

// The sizes of buffers fit a long.
inline void in_memory(std::initializer_list<long> extents) {
    double bytes = 1024;  // more than any buffer has for an element of this product
    for (long one : extents) bytes *= double(one);
    if (bytes > 0x1p62) throw std::bad_alloc();
}

}  // namespace gpulstm

#endif
