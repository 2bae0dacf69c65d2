// Streams of the module: weights in the layers' order, and a stack that keeps its state.
#ifndef GPULSTM_CPU_MODULE_STREAM_H
#define GPULSTM_CPU_MODULE_STREAM_H

#include <memory>
#include <mutex>

#include "module_arrays.h"

namespace gpulstm {

// Outputs have P columns, memories H.
struct StreamSizes {
    bool memory;
    long B, I, H, P, layers;
    StreamSizes(bool has_memory, long batch, long inputs, long hidden, long outputs, long count)
        : memory(has_memory),
          B(extent("batch", batch)),
          I(extent("inputs", inputs)),
          H(extent("hidden", hidden)),
          P(extent("outputs", outputs)),
          layers(extent("layers", count)) {
        in_memory({layers, B, H + I + P});
    }
};

// The weights of a stack, one array a layer; the arrays are kept alive.
template <typename R>
struct Weights {
    std::vector<In> arrays;
    std::vector<const R*> w_x, w_h, b, b_hn;

    Weights(long I, long H, long P, long row, const std::vector<In>& x, const std::vector<In>& h,
            const std::vector<In>& biases, const std::vector<In>& biases_hn) {
        const long count = long(x.size());
        w_x = all("w_x", x, count, I, P, row);
        w_h = all("w_h", h, count, P, P, row);
        b = biases.empty() ? std::vector<const R*>(count, nullptr) : all("b", biases, count, 0, 0, row);
        b_hn = biases_hn.empty() ? std::vector<const R*>(count, nullptr) : all("b_hn", biases_hn, count, 0, 0, H);
    }

    StreamCall<R> stream_call(Cell cell, const StreamSizes& sizes, int threads) const {
        return {cell,       sizes.B,    sizes.I,  sizes.H,     sizes.layers,
                w_x.data(), w_h.data(), b.data(), b_hn.data(), threads_of(threads)};
    }

  private:
    std::vector<const R*> all(const char* name, const std::vector<In>& given, long count, long first, long rest,
                              long row) {
        if (long(given.size()) != count) throw std::invalid_argument(std::string(name) + " has not one array a layer");
        std::vector<const R*> pointers;
        for (const In& one : given) {
            const long rows = pointers.empty() ? first : rest;
            pointers.push_back(rows ? data<R>(name, one, {rows, row}) : data<R>(name, one, {row}));
            arrays.push_back(one);
        }
        return pointers;
    }
};

// A stack that keeps its state; several Python threads take turns.
template <typename R>
class PyStream {
    const std::unique_ptr<Stream<R>> stream;
    const StreamSizes sizes;
    std::mutex turn;

    void check_memory(bool came) const {
        if (sizes.memory != came) throw std::invalid_argument("c is for the LSTM and for it alone");
    }

  public:
    PyStream(Stream<R>* made, const StreamSizes& s) : stream(made), sizes(s) { done(made != nullptr); }

    void step(const In& x, const Out& y) {
        const R* from = data<R>("x", x, {sizes.B, sizes.I});
        R* to = data<R>("y", y, {sizes.B, sizes.P});
        nb::gil_scoped_release released;
        std::lock_guard<std::mutex> lock(turn);
        stream->step(from, to);
    }
    void read(const Out& h, const MaybeOut& c) {
        R* to_h = data<R>("h", h, {sizes.layers, sizes.B, sizes.P});
        R* to_c = data<R>("c", c, {sizes.layers, sizes.B, sizes.H});
        check_memory(to_c != nullptr);
        nb::gil_scoped_release released;
        std::lock_guard<std::mutex> lock(turn);
        stream->read(to_h, to_c);
    }
    void write(const In& h, const MaybeIn& c) {
        const R* from_h = data<R>("h", h, {sizes.layers, sizes.B, sizes.P});
        const R* from_c = data<R>("c", c, {sizes.layers, sizes.B, sizes.H});
        check_memory(from_c != nullptr);
        nb::gil_scoped_release released;
        std::lock_guard<std::mutex> lock(turn);
        stream->write(from_h, from_c);
    }
};

template <typename R>
nb::class_<PyStream<R>> stream_class(nb::module_& m, const char* name) {
    typedef PyStream<R> S;
    return nb::class_<S>(m, name)
        .def("step", &S::step)
        .def("read", &S::read, nb::arg(), nb::arg().none())
        .def("write", &S::write, nb::arg(), nb::arg().none());
}

}  // namespace gpulstm

#endif
