// A stack of layers with options one time step at a time: weights packed once, the state kept, nothing allocated in a
// step.  Threads divide the rows of the batch and never meet.
#ifndef GPULSTM_CPU_VARIANT_STREAM_H
#define GPULSTM_CPU_VARIANT_STREAM_H

#include <string.h>

#include "stream_layers.h"
#include "variant_forward.h"

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct VariantStream final : Stream<R> {
    typedef VariantForwardPass<R> Pass;

    struct Layer {
        VariantForward<R> forward;
        Pass pass;
        Layer(const ForwardCall<R>& call, const Variant<R>& variant, const Plan& plan)
            : forward{call, variant, nullptr}, pass(forward, plan) {}
    };

    const long B, H, P;
    Plan plan;
    StreamLayers<Layer> layers;
    R* between[2];      // outputs of a layer for the next one
    bool made = false;  // there was memory for all

    VariantStream(const StreamCall<R>& s, const Variant<R>* options)
        : B(s.B), H(s.H), P(options[0].P), layers(s.layers) {
        plan = variant_plan(stream_layer_call(s, 0, P), options[0], s.threads);
        for (long i = 0; i < layers.count; ++i)
            if (!layers.make(i, stream_layer_call(s, i, P), options[i], plan)) return;
        if (!layers.place([this](Layout& m) { lay_out(m); })) return;
        for (long i = 0; i < layers.count; ++i) layers[i].pass.pack(true, true);
        made = true;
    }

    void lay_out(Layout& m) {
        for (R*& buffer : between) buffer = m.take<R>(B * P);
        for (long i = 0; i < layers.count; ++i) layers[i].pass.lay_out(m);
    }

    void step(const R* x, R* y) override {
        for (long i = 0; i < layers.count; ++i) {
            layers[i].forward.call.x = i ? between[(i - 1) & 1] : x;
            layers[i].forward.call.y = i + 1 < layers.count ? between[i & 1] : y;
        }
        groups = 1;
        if (plan.groups == 1) {
            work(this, 0);
        } else {  // rows are laid out for the team that was planned: where it is smaller, or busy, one thread takes all
            if (team_begin(plan.groups) == plan.groups) groups = plan.groups;
            team_run(groups, work, this);
            team_end();
        }
    }
    static void work(void* self, int member) {
        const Flushed flushed;
        VariantStream* stream = static_cast<VariantStream*>(self);
        Plan now;
        now.groups = stream->groups;
        const Place place(now, member, stream->B);
        for (long i = 0; i < stream->layers.count; ++i) {
            stream->layers[i].pass.look_ahead(place, 0);
            stream->layers[i].pass.step(place, 0);
        }
    }

    void read(R* h, R* c) const override {
        for (long i = 0; i < layers.count; ++i) {
            const Pass& p = layers[i].pass;
            for (long b = 0; b < B; ++b) {
                memcpy(h + (i * B + b) * P, p.h + b * p.padded_P, size_t(P) * sizeof(R));
                if (c) memcpy(c + (i * B + b) * H, p.c + b * p.padded, size_t(H) * sizeof(R));
            }
        }
    }
    void write(const R* h, const R* c) override {
        for (long i = 0; i < layers.count; ++i) {
            layers[i].forward.call.h0 = h + i * B * P;
            layers[i].forward.call.c0 = c ? c + i * B * H : nullptr;
            for (long b = 0; b < B; ++b) layers[i].pass.begin_row(b);
        }
    }

  private:
    int groups = 1;
};

template <typename R>
static Stream<R>* variant_stream(const StreamCall<R>& call, const Variant<R>* options) {
    return whole(new (std::nothrow) VariantStream<R>(call, options));
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
