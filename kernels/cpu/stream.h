// A stack one time step at a time: every layer's weights packed once, its state kept, nothing allocated in a step.
#ifndef GPULSTM_CPU_STREAM_H
#define GPULSTM_CPU_STREAM_H

#include "forward.h"
#include "stream_layers.h"

namespace gpulstm {
namespace GPULSTM_ISA {

constexpr double STREAM_ALONE = 4e6;  // multiply-adds of a step of one layer from which threads share it

template <typename R, typename Products>
struct PackedStream final : Stream<R> {
    static constexpr long L = Vec<R>::LANES;

    struct Layer {
        ForwardCall<R> call;
        ForwardPass<R, Products> pass;
        Layer(const ForwardCall<R>& c, const Plan& plan) : call(c), pass(call, plan) {}
    };

    const long B, H;
    long steps = 0;
    Plan plan;
    StreamLayers<Layer> layers;
    R* between[2];      // outputs of a layer for the next one
    bool made = false;  // there was memory for all

    explicit PackedStream(const StreamCall<R>& s) : B(s.B), H(s.H), layers(s.layers) {
        const Shape<R> shape(s.cell, s.H, 0);
        if (double(B) * 2 * H * shape.width > STREAM_ALONE) {
            plan.members = int(shape.panels < s.threads ? shape.panels : s.threads);
            if (plan.members > BARRIERS - 2) plan.members = BARRIERS - 2;
        }
        for (long i = 0; i < layers.count; ++i)
            if (!layers.make(i, stream_layer_call(s, i, H), plan)) return;
        if (!layers.place([this](Layout& m) { lay_out(m); })) return;
        for (long i = 0; i < layers.count; ++i) {
            ForwardPass<R, Products>& p = layers[i].pass;
            p.products.pack(p, 0, p.shape.panels);
            pack_biases(p.shape, layers[i].call.b, layers[i].call.b_hn, p.bias);
        }
        made = true;
    }

    void lay_out(Layout& m) {
        for (R*& buffer : between) buffer = m.take<R>(B * H);
        for (long i = 0; i < layers.count; ++i) layers[i].pass.lay_out(m);
    }

    void step(const R* x, R* y) override {
        for (long i = 0; i < layers.count; ++i) {
            layers[i].call.x = i ? between[(i - 1) & 1] : x;
            layers[i].call.y = i + 1 < layers.count ? between[i & 1] : y;
        }
        if (plan.members == 1) {
            run(0, 1);
        } else {  // the team may be fewer than planned, or busy: the results are the same
            members = team_begin(plan.members);
            team_run(members, work, this);
            team_end();
        }
        ++steps;
    }
    static void work(void* self, int member) {
        PackedStream* stream = static_cast<PackedStream*>(self);
        stream->run(member, stream->members);
    }
    void run(int member, int count) {
        const Flushed flushed;
        [[maybe_unused]] const typename Products::Session session;
        Plan now;
        now.members = count;
        const Place place(now, member, B);
        for (long i = 0; i < layers.count; ++i) {
            ForwardPass<R, Products>& p = layers[i].pass;
            const long q0 = share(p.shape.panels, count, member), q1 = share(p.shape.panels, count, member + 1);
            p.products.step(p, place, member, steps, 0, q0, q1, p.scratch + member * p.scratch_size());
            meet_group(now, place);
        }
    }

    void read(R* h, R* c) const override {
        for (long i = 0; i < layers.count; ++i) {
            const ForwardPass<R, Products>& p = layers[i].pass;
            for (long b = 0; b < B; ++b)
                for (long u = 0; u < H; ++u) {
                    h[(i * B + b) * H + u] = p.h[steps & 1][b * p.shape.padded + u];
                    if (c) c[(i * B + b) * H + u] = p.c[b * p.shape.padded + u];
                }
        }
    }
    void write(const R* h, const R* c) override {
        steps = 0;
        for (long i = 0; i < layers.count; ++i) {
            layers[i].call.h0 = h + i * B * H;
            layers[i].call.c0 = c ? c + i * B * H : nullptr;
            layers[i].pass.products.clear(layers[i].pass, 0);
            for (long b = 0; b < B; ++b) layers[i].pass.begin_row(Place(plan, 0, B), b, 0, layers[i].pass.shape.panels);
        }
    }

  private:
    int members = 1;
};

template <typename R, typename Products>
static Stream<R>* stream_by(const StreamCall<R>& call) {
    return whole(new (std::nothrow) PackedStream<R, Products>(call));
}

template <typename R>
static Stream<R>* make_stream(const StreamCall<R>& call) {
    return with_products<R>(call.B,
                            [&](auto products) { return stream_by<R, typename decltype(products)::Forward>(call); });
}

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
