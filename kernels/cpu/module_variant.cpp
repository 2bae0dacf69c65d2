// The part of gpulstm._cpu that computes layers with options: checks arrays, releases the GIL, calls variant.cpp.
#include <array>

#include "module_stream.h"
#include "variant_call.h"

namespace gpulstm {

#define GPULSTM_DECLARE(isa)        \
    namespace isa {                 \
    extern const Variants variants; \
    }
GPULSTM_DECLARE(baseline)
#ifdef GPULSTM_X86
GPULSTM_DECLARE(avx2)
GPULSTM_DECLARE(avx512)
#endif

namespace {

const char* (*instruction_set)() = nullptr;  // the name of the one in use

// Those of the instruction set in use; the matrix unit serves plain layers alone, so there it is the vector units' one.
const Variants& variants() {
    const std::string name = instruction_set();
#ifdef GPULSTM_X86
    if (name == "amx" || name == "avx512") return avx512::variants;
    if (name == "avx2") return avx2::variants;
#endif
    return baseline::variants;
}

// The options of one layer, made for a call; arrays are kept alive.
template <typename R>
class PyVariant {
    Variant<R> variant = {};
    std::vector<In> arrays;
    std::array<long, 2> masked = {0, 0};  // T and B of the masks of zoneout

    void check(long T, long B, int threads) const {
        threads_of(threads);
        if ((variant.keep_h || variant.keep_c) && masked != std::array<long, 2>{T, B})
            throw std::invalid_argument("the masks of zoneout have another shape than the call's");
    }
    const R* keep(const char* name, const MaybeIn& array, std::initializer_list<long> shape) {
        const R* start = data<R>(name, array, shape);
        if (array) arrays.push_back(*array);
        return start;
    }

  public:
    const bool memory;
    const long gates;
    const Cell cell;
    const long H;

    PyVariant(int which, long hidden, long outputs, bool coupled, bool reset_before,
              const std::vector<std::tuple<int, double, double>>& activations, double limit, double epsilon,
              const MaybeIn& p, const MaybeIn& w_p, const MaybeIn& gain_x, const MaybeIn& gain_h, const MaybeIn& gain_c,
              const MaybeIn& b_c)
        : memory(cell_of(which, Cell::rnn_tanh) == Cell::lstm),
          gates(memory                     ? (coupled ? 3 : 4)
                : Cell(which) == Cell::gru ? 3
                                           : 1),
          cell(Cell(which)),
          H(extent("hidden", hidden)) {
        if (!memory && (coupled || p || w_p || gain_c || b_c))
            throw std::invalid_argument("coupled gates, peepholes, projection, gain_c and b_c are the LSTM's");
        if (reset_before && cell != Cell::gru) throw std::invalid_argument("reset_before is the GRU's");
        if (gain_x && (coupled || p || reset_before))
            throw std::invalid_argument("layer normalization goes with no coupled gates, peepholes or reset_before");
        if (activations.size() != 3) throw std::invalid_argument("there are three activations");
        for (const auto& one : activations) in_range("an activation", std::get<0>(one), 0, long(ActivationKind::elu));
        variant.P = extent("outputs", outputs);
        variant.coupled = coupled;
        variant.reset_before = reset_before;
        variant.layer_norm = gain_x.has_value();
        for (size_t k = 0; k < 3; ++k)
            variant.activations[k] = {ActivationKind(std::get<0>(activations[k])), std::get<1>(activations[k]),
                                      std::get<2>(activations[k])};
        variant.limit = limit;
        variant.epsilon = epsilon;
        variant.p = keep("p", p, {(coupled ? 2 : 3) * H});
        variant.w_p = keep("w_p", w_p, {H, outputs});
        variant.gain_x = keep("gain_x", gain_x, {gates * H});
        variant.gain_h = keep("gain_h", gain_h, {gates * H});
        variant.gain_c = keep("gain_c", gain_c, {H});
        variant.b_c = keep("b_c", b_c, {H});
        if (variant.layer_norm && (!variant.gain_h || (memory && (!variant.gain_c || !variant.b_c))))
            throw std::invalid_argument("layer normalization needs all of its gains");
        if (!w_p && outputs != H) throw std::invalid_argument("without projection an output is a unit");
    }

    // Zoneout of the next call: by masks, or by the weight of the old state.
    void zoneout(double hold_h, double hold_c, const MaybeIn& keep_h, const MaybeIn& keep_c, long T, long B) {
        variant.hold_h = hold_h;
        variant.hold_c = hold_c;
        variant.keep_h = data<bool>("keep_h", keep_h, {T, B, variant.P});
        variant.keep_c = data<bool>("keep_c", keep_c, {T, B, H});
        if (keep_h) arrays.push_back(*keep_h);
        if (keep_c) arrays.push_back(*keep_c);
        masked = {T, B};
    }
    void zoneout_in_training(bool of_c) {  // for sizes alone
        static const bool any = true;
        variant.keep_c = of_c ? &any : nullptr;
        masked = {0, 0};
    }

    Variant<R> without_masks() const {
        Variant<R> plain = variant;
        plain.keep_h = plain.keep_c = nullptr;
        return plain;
    }
    bool alike(const PyVariant& other) const {  // layers of one stack
        return cell == other.cell && H == other.H && gates == other.gates && variant.P == other.variant.P;
    }

    long saved_row() const { return variants().of<R>().saved_row(cell, H, variant); }

    size_t room(long T, long B, long I, int threads) const {
        for (long one : {T, B, I}) extent("an extent", one);
        for (long one : {I, H, variant.P}) in_memory({T, B, one}), in_memory({one, H});
        threads_of(threads);
        VariantBackward<R> f = {sized<BackwardCall<R>>(cell, T, B, I, H), variant};
        return variants().of<R>().room(f, threads);
    }

    void forward(bool reverse, const In& x, const In& w_x, const In& w_h, const MaybeIn& b, const MaybeIn& b_hn,
                 const In& h0, const MaybeIn& c0, const MaybeIn& mask, const MaybeIn& lengths, const Out& y,
                 const Out& h_end, const MaybeOut& c_end, const MaybeOut& saved, int threads) {
        if (x.ndim() != 3) throw std::invalid_argument("x has three axes");
        const long T = x.shape(0), B = x.shape(1), I = x.shape(2), P = variant.P, row = gates * H;
        check(T, B, threads);
        VariantForward<R> f = {sized<ForwardCall<R>>(cell, T, B, I, H), variant};
        ForwardCall<R>& call = f.call;
        take_layer<R>(call, row, P, reverse, x, w_x, w_h, h0, c0, mask, lengths);
        take_outputs(call, row, P, b, b_hn, y, h_end, c_end);
        f.saved = data<R>("saved", saved, {T, B, saved_row()});
        if (memory && (!call.c0 || !call.c_end)) throw std::invalid_argument("an LSTM needs c0 and c_end");
        nb::gil_scoped_release released;
        done(variants().of<R>().forward(f, threads));
    }

    void backward(bool reverse, const In& x, const In& w_x, const In& w_h, const In& h0, const MaybeIn& c0,
                  const MaybeIn& mask, const MaybeIn& lengths, const In& y, const In& saved, const In& dy,
                  const In& dh_end, const MaybeIn& dc_end, const Out& dx, const Out& dh0, const MaybeOut& dc0,
                  const Out& dw_x, const Out& dw_h, const MaybeOut& db, const MaybeOut& db_hn, const MaybeOut& dp,
                  const MaybeOut& dw_p, const MaybeOut& dgain_x, const MaybeOut& dgain_h, const MaybeOut& dgain_c,
                  const MaybeOut& db_c, int threads) {
        if (x.ndim() != 3) throw std::invalid_argument("x has three axes");
        const long T = x.shape(0), B = x.shape(1), I = x.shape(2), P = variant.P, row = gates * H;
        check(T, B, threads);
        VariantBackward<R> f = {sized<BackwardCall<R>>(cell, T, B, I, H), variant};
        BackwardCall<R>& call = f.call;
        take_layer<R>(call, row, P, reverse, x, w_x, w_h, h0, c0, mask, lengths);
        take_gradients(call, row, P, y, dy, dh_end, dc_end, dx, dh0, dc0, dw_x, dw_h, db, db_hn);
        f.saved = data<R>("saved", saved, {T, B, saved_row()});
        f.dp = data<R>("dp", dp, {(variant.coupled ? 2 : 3) * H});
        f.dw_p = data<R>("dw_p", dw_p, {H, P});
        f.dgain_x = data<R>("dgain_x", dgain_x, {row});
        f.dgain_h = data<R>("dgain_h", dgain_h, {row});
        f.dgain_c = data<R>("dgain_c", dgain_c, {H});
        f.db_c = data<R>("db_c", db_c, {H});
        if (memory && (!call.c0 || !call.dc_end || !call.dc0))
            throw std::invalid_argument("an LSTM needs c0, dc_end and dc0");
        if ((variant.p && !f.dp) || (variant.w_p && !f.dw_p) ||
            (variant.layer_norm && (!f.dgain_x || !f.dgain_h || (memory && (!f.dgain_c || !f.db_c)))))
            throw std::invalid_argument("a parameter has no gradient to add to");
        nb::gil_scoped_release released;
        done(variants().of<R>().backward(f, threads));
    }
};

// A stream of layers with options, which are packed: neither they nor the weights are needed afterwards.
template <typename R>
PyStream<R>* make_stream(const std::vector<PyVariant<R>*>& options, long batch, long inputs, const std::vector<In>& w_x,
                         const std::vector<In>& w_h, const std::vector<In>& b, const std::vector<In>& b_hn,
                         int threads) {
    if (options.empty() || !options[0] || options.size() != w_x.size())
        throw std::invalid_argument("options has not one object a layer");
    const PyVariant<R>& first = *options[0];
    std::vector<Variant<R>> variants;
    for (const PyVariant<R>* one : options) {
        if (!one || !one->alike(first)) throw std::invalid_argument("options has layers of several cells or sizes");
        variants.push_back(one->without_masks());
    }
    const StreamSizes sizes(first.memory, batch, inputs, first.H, variants[0].P, long(options.size()));
    const Weights<R> weights(sizes.I, sizes.H, sizes.P, first.gates * sizes.H, w_x, w_h, b, b_hn);
    const StreamCall<R> call = weights.stream_call(first.cell, sizes, threads);
    return new PyStream<R>(gpulstm::variants().of<R>().stream(call, variants.data()), sizes);
}

template <typename R>
void add(nb::module_& m, const char* name) {
    typedef PyVariant<R> C;
    nb::class_<C>(m, name)
        .def(nb::init<int, long, long, bool, bool, const std::vector<std::tuple<int, double, double>>&, double, double,
                      const MaybeIn&, const MaybeIn&, const MaybeIn&, const MaybeIn&, const MaybeIn&, const MaybeIn&>(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none())
        .def("zoneout", &C::zoneout, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg())
        .def("zoneout_in_training", &C::zoneout_in_training)
        .def("saved_row", &C::saved_row)
        .def("room", &C::room)
        .def("forward", &C::forward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
             nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg().none(), nb::arg())
        .def("backward", &C::backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
             nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
             nb::arg());
}

}  // namespace

void add_variants(nb::module_& m, const char* (*in_use)()) {
    instruction_set = in_use;
    add<float>(m, "VariantFloat");
    add<double>(m, "VariantDouble");
    m.def("variant_stream_float", &make_stream<float>);
    m.def("variant_stream_double", &make_stream<double>);
}

}  // namespace gpulstm
