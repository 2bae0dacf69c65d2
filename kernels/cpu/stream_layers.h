// The layers of a stream and the memory of all of them, in one piece.  What is compiled once per instruction set uses
// no containers of the standard library: their functions would be shared with code for lesser processors.
#ifndef GPULSTM_CPU_STREAM_LAYERS_H
#define GPULSTM_CPU_STREAM_LAYERS_H

#include <stdlib.h>

#include <new>

#include "plan.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename Layer>
struct StreamLayers {
    const long count;

    explicit StreamLayers(long layers)
        : count(layers), layer(static_cast<Layer**>(calloc(size_t(layers), sizeof(Layer*)))) {}
    ~StreamLayers() {
        for (long i = 0; layer && i < count; ++i) delete layer[i];
        free(layer);
        free(memory);
    }
    StreamLayers(const StreamLayers&) = delete;
    StreamLayers& operator=(const StreamLayers&) = delete;

    Layer& operator[](long i) { return *layer[i]; }
    const Layer& operator[](long i) const { return *layer[i]; }

    // Makes layer i; false when memory is short.
    template <typename... Arguments>
    bool make(long i, const Arguments&... arguments) {
        return layer && (layer[i] = new (std::nothrow) Layer(arguments...));
    }
    // Takes the memory that lay_out(Layout) asks for; false when there is none.
    template <typename F>
    bool place(F lay_out) {
        Layout counted, real;
        lay_out(counted);
        if (posix_memalign(&memory, 64, counted.used)) memory = nullptr;
        real.base = static_cast<char*>(memory);
        if (memory) lay_out(real);
        return memory != nullptr;
    }

  private:
    Layer** layer;
    void* memory = nullptr;
};

// Layer i of a stream as a call of one step whose outputs, and those of the layer below, have P columns.
template <typename R>
static ForwardCall<R> stream_layer_call(const StreamCall<R>& s, long i, long P) {
    ForwardCall<R> call = {};
    call.cell = s.cell, call.T = 1, call.B = s.B, call.I = i ? P : s.I, call.H = s.H;
    call.w_x = s.w_x[i], call.w_h = s.w_h[i], call.b = s.b[i], call.b_hn = s.b_hn[i];
    call.precision = s.precision;
    return call;
}

// `stream` if it is whole, else null, as when it could not be made.
template <typename S>
static S* whole(S* stream) {
    if (stream && stream->made) return stream;
    delete stream;
    return nullptr;
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
