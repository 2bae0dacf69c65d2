// Checks the CPU engine's baseline without Python: the LSTM's outputs against plain loops in double precision, its
// gradients and those of a layer with options by central differences.  Compiled for another processor and run under an
// emulator by tools/cross_check.sh.  Ends with 0 when everything agrees.
#include <math.h>
#include <stdio.h>

#include <vector>

#include "cpu/layer.h"
#include "cpu/variant_call.h"

namespace gpulstm {
namespace baseline {
extern const Engine engine;
extern const Variants variants;
}  // namespace baseline
}  // namespace gpulstm

using namespace gpulstm;

static unsigned state = 1;
static double drawn() {  // in [-1, 1), from a linear congruence
    state = state * 1664525u + 1013904223u;
    return double(state >> 8) / (1 << 23) - 1.0;
}
template <typename R>
static std::vector<R> draw(long count, double scale = 1.0) {
    std::vector<R> values(count);
    for (R& value : values) value = R(scale * drawn());
    return values;
}

enum Option { NONE, PEEPHOLES, NORM, CLIP };

// One LSTM layer: its arrays, and the sum of dy * y + dh * h_end + dc * c_end as a function of them.
template <typename R>
struct Layer {
    long T, B, I, H;
    Option option;
    std::vector<R> x, w_x, w_h, b, h0, c0, p, gain_x, gain_h, gain_c, b_c, y, h_end, c_end, dy, dh, dc;

    Layer(long t, long rows, long inputs, long hidden, Option o)
        : T(t),
          B(rows),
          I(inputs),
          H(hidden),
          option(o),
          x(draw<R>(T * B * I)),
          w_x(draw<R>(I * 4 * H, 0.5)),
          w_h(draw<R>(H * 4 * H, 0.5)),
          b(draw<R>(4 * H)),
          h0(draw<R>(B * H)),
          c0(draw<R>(B * H)),
          p(draw<R>(3 * H)),
          gain_x(draw<R>(4 * H)),
          gain_h(draw<R>(4 * H)),
          gain_c(draw<R>(H)),
          b_c(draw<R>(H)),
          y(T * B * H),
          h_end(B * H),
          c_end(B * H),
          dy(draw<R>(T * B * H)),
          dh(draw<R>(B * H)),
          dc(draw<R>(B * H)) {}

    ForwardCall<R> call() {
        ForwardCall<R> f = {};
        f.cell = Cell::lstm, f.T = T, f.B = B, f.I = I, f.H = H;
        f.x = x.data(), f.w_x = w_x.data(), f.w_h = w_h.data(), f.b = b.data(), f.h0 = h0.data(), f.c0 = c0.data();
        f.y = y.data(), f.h_end = h_end.data(), f.c_end = c_end.data();
        return f;
    }
    Variant<R> variant() {
        Variant<R> v = {};
        v.P = H;
        v.activations[0] = {ActivationKind::sigmoid, 0, 0};
        v.activations[1] = v.activations[2] = {ActivationKind::tanh, 0, 0};
        if (option == PEEPHOLES) v.p = p.data();
        if (option == CLIP) v.limit = 0.8;
        if (option == NORM) {
            v.layer_norm = true, v.epsilon = 1e-5;
            v.gain_x = gain_x.data(), v.gain_h = gain_h.data(), v.gain_c = gain_c.data(), v.b_c = b_c.data();
        }
        return v;
    }
    bool forward(R* gates, R* cells) {  // with an option both are one array
        ForwardCall<R> f = call();
        if constexpr (sizeof(R) == 8) {
            if (option) return baseline::variants.of<double>().forward({f, variant(), gates}, 1);
            f.gates = gates, f.cells = cells;
            return baseline::engine.of<double>().forward(f, 1, Split::automatic);
        } else {
            f.gates = gates, f.cells = cells;
            return baseline::engine.of<float>().forward(f, 1, Split::automatic);
        }
    }
    double objective() {
        forward(nullptr, nullptr);
        double sum = 0;
        for (size_t k = 0; k < y.size(); ++k) sum += double(dy[k]) * y[k];
        for (size_t k = 0; k < h_end.size(); ++k) sum += double(dh[k]) * h_end[k] + double(dc[k]) * c_end[k];
        return sum;
    }
};

static double sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }

// The largest difference between the engine's outputs and plain loops.
template <typename R>
static double forward_error(Layer<R>& layer) {
    const long H = layer.H, B = layer.B, I = layer.I;
    layer.forward(nullptr, nullptr);
    std::vector<double> h(layer.h0.begin(), layer.h0.end()), c(layer.c0.begin(), layer.c0.end()), z(4 * H);
    double worst = 0;
    for (long t = 0; t < layer.T; ++t)
        for (long row = 0; row < B; ++row) {
            for (long j = 0; j < 4 * H; ++j) {
                z[j] = layer.b[j];
                for (long k = 0; k < I; ++k) z[j] += double(layer.x[(t * B + row) * I + k]) * layer.w_x[k * 4 * H + j];
                for (long k = 0; k < H; ++k) z[j] += h[row * H + k] * layer.w_h[k * 4 * H + j];
            }
            for (long u = 0; u < H; ++u) {
                double& memory = c[row * H + u];
                memory = sigmoid(z[H + u]) * memory + sigmoid(z[u]) * tanh(z[2 * H + u]);
                h[row * H + u] = sigmoid(z[3 * H + u]) * tanh(memory);
                worst = fmax(worst, fabs(h[row * H + u] - double(layer.y[(t * B + row) * H + u])));
            }
        }
    return worst;
}

// The largest difference between the engine's gradients and central differences, at some entries of each array.
static double gradient_error(Layer<double>& layer) {
    const long T = layer.T, B = layer.B, I = layer.I, H = layer.H;
    const Variant<double> v = layer.variant();
    const long row = layer.option ? baseline::variants.of<double>().saved_row(Cell::lstm, H, v) : 0;
    const long lanes = baseline::engine.lanes_double, padded = (H + lanes - 1) / lanes * lanes;
    std::vector<double> gates(T * B * (layer.option ? row : 4 * padded)), cells(T * B * padded);
    layer.forward(gates.data(), cells.data());
    std::vector<double> dx(T * B * I), dh0(B * H), dc0(B * H), dw_x(I * 4 * H), dw_h(H * 4 * H), db(4 * H), dp(3 * H);
    std::vector<double> dgain_x(4 * H), dgain_h(4 * H), dgain_c(H), db_c(H);
    BackwardCall<double> call = {};
    call.cell = Cell::lstm, call.T = T, call.B = B, call.I = I, call.H = H;
    call.x = layer.x.data(), call.w_x = layer.w_x.data(), call.w_h = layer.w_h.data(), call.h0 = layer.h0.data();
    call.c0 = layer.c0.data(), call.y = layer.y.data(), call.gates = gates.data(), call.cells = cells.data();
    call.dy = layer.dy.data(), call.dh_end = layer.dh.data(), call.dc_end = layer.dc.data();
    call.dx = dx.data(), call.dh0 = dh0.data(), call.dc0 = dc0.data();
    call.dw_x = dw_x.data(), call.dw_h = dw_h.data(), call.db = db.data();
    if (layer.option) {
        VariantBackward<double> f = {};
        f.call = call, f.variant = v, f.saved = gates.data(), f.dp = layer.option == PEEPHOLES ? dp.data() : nullptr;
        if (layer.option == NORM)
            f.dgain_x = dgain_x.data(), f.dgain_h = dgain_h.data(), f.dgain_c = dgain_c.data(), f.db_c = db_c.data();
        baseline::variants.of<double>().backward(f, 1);
    } else {
        baseline::engine.of<double>().backward(call, 1, Split::automatic);
    }
    struct {
        std::vector<double>*value, *gradient;
        Option needs = NONE;
    } pairs[] = {{&layer.x, &dx},
                 {&layer.w_x, &dw_x},
                 {&layer.w_h, &dw_h},
                 {&layer.b, &db},
                 {&layer.h0, &dh0},
                 {&layer.c0, &dc0},
                 {&layer.p, &dp, PEEPHOLES},
                 {&layer.gain_x, &dgain_x, NORM},
                 {&layer.gain_h, &dgain_h, NORM},
                 {&layer.gain_c, &dgain_c, NORM},
                 {&layer.b_c, &db_c, NORM}};
    double worst = 0;
    for (auto& pair : pairs) {
        if (pair.needs && pair.needs != layer.option) continue;
        for (size_t k = 0; k < pair.value->size(); k += 1 + pair.value->size() / 7) {
            double& entry = (*pair.value)[k];
            const double kept = entry, step = 1e-5;
            entry = kept + step;
            const double above = layer.objective();
            entry = kept - step;
            const double below = layer.objective();
            entry = kept;
            const double slope = (above - below) / (2 * step);
            worst = fmax(worst, fabs(slope - (*pair.gradient)[k]) / fmax(1.0, fabs(slope)));
        }
    }
    return worst;
}

int main() {
    int failed = 0;
    const auto expect = [&](const char* what, double error, double bound) {
        printf("%-40s %.1e (at most %.0e)\n", what, error, bound);
        failed += !(error <= bound);
    };
    const long shapes[][4] = {{5, 3, 4, 7}, {3, 1, 2, 33}, {2, 17, 9, 12}};
    for (const auto& s : shapes) {
        Layer<float> single(s[0], s[1], s[2], s[3], NONE);
        expect("LSTM, float, outputs", forward_error(single), 1e-5);
        Layer<double> twice(s[0], s[1], s[2], s[3], NONE), peep(s[0], s[1], s[2], s[3], PEEPHOLES);
        Layer<double> norm(s[0], s[1], s[2], s[3], NORM), clip(s[0], s[1], s[2], s[3], CLIP);
        expect("LSTM, double, outputs", forward_error(twice), 1e-12);
        expect("LSTM, double, gradients", gradient_error(twice), 1e-7);
        expect("LSTM with peepholes, double, gradients", gradient_error(peep), 1e-7);
        expect("LSTM, normalized, double, gradients", gradient_error(norm), 1e-7);
        expect("LSTM, clipped, double, gradients", gradient_error(clip), 1e-7);
    }
    return failed;
}
