"""The recurrent cells: one step forward and its gradient, as the equations read.

Every function here uses only the array API standard, so it runs on NumPy, CuPy and array-api-strict.  Row vectors; `@`
is the matrix product, `*` is elementwise.  Names: `a` is the input's part of the pre-activations, `u` the recurrent
part, `z` their sum; `v` is h_{t-1} as the recurrent product sees it (under recurrent dropout); `dx` is the gradient of
the loss with respect to `x`.

A cell is a pair of step functions.  An option that changes the equations is another cell, derived from the plain one;
what is common to all of them (time, direction, lengths, zoneout) is not here but in `reference.py`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from gpulstm.arrays.backend import Array
from gpulstm.engines import activations
from gpulstm.engines.activations import Clipped, Relu, Sigmoid, Tanh
from gpulstm.engines.quantized import product
from gpulstm.engines.spec import Grads, StackSpec, State

Params = Mapping[str, Array]
Saved = tuple[Any, ...]
Gradients = tuple[Array, Array, Array, State]  # of a step: da, dproduct, dv, and of the old state but for v

LAYER_NORM_EPSILON = 1e-5


class Cell(ABC):
    """One step of a recurrent layer and its gradient; derived classes give `step` and `step_backward`.

    The input product has no recurrence in it, so `input` computes it for all time steps at once, and the gradient of
    W_h is one product over all time steps as well (`recurrent_gradients`), from what the steps return.
    """

    def __init__(self, xp: Any, spec: StackSpec) -> None:
        self.xp, self.spec = xp, spec
        plain: list[Any] = [activations.make(entry) for entry in spec.activations] or [Sigmoid(), Tanh(), Tanh()]
        clipped = plain if spec.clip is None else [Clipped(activation, spec.clip) for activation in plain]
        self.sigmoid, self.tanh = clipped[0], clipped[min(1, len(clipped) - 1)]  # of the gates; of the candidate
        self.shown = plain[-1]  # LSTM: of the memory that the output gate shows, unclipped

    def split(self, z: Array) -> list[Array]:
        """The gates' columns of `(B, G*H)`, in stored order."""
        size = self.spec.hidden_size
        return [z[:, gate * size : (gate + 1) * size] for gate in range(self.spec.gates)]

    # -- the input's part, all time steps at once ----------------------------------------------------------------
    def input(self, p: Params, x: Array) -> tuple[Array, Saved]:
        """a_t = x_t W_x + b for all t: x `(T, B, I)` -> `(T, B, G*H)`."""
        a = product(self.xp, x, p["W_x"])
        return (a + p["b"] if self.spec.bias else a), ()

    def input_backward(self, p: Params, saved: Saved, x: Array, da: Array, grads: Grads) -> Array:
        """dx `(T, B, I)` from da `(T, B, G*H)`; adds to the gradients of W_x and b."""
        if self.spec.bias:
            grads["b"] += self.xp.sum(_rows(self.xp, da), axis=0)
        grads["W_x"] += _outer(self.xp, x, da)
        return self.xp.matmul(da, self.xp.matrix_transpose(p["W_x"]))

    # -- the recurrent part, step by step ------------------------------------------------------------------------
    def recurrent(self, p: Params, v: Array) -> tuple[Array, Saved]:
        """u = v W_h: v `(B, P)` -> `(B, G*H)`."""
        return product(self.xp, v, p["W_h"]), ()

    def recurrent_backward(self, p: Params, saved: Saved, du: Array, grads: Grads) -> tuple[Array, Array]:
        """From du the gradients of v and of the plain product v W_h, from which that of W_h is taken later."""
        return self.xp.matmul(du, self.xp.matrix_transpose(p["W_h"])), du

    def recurrent_gradients(self, v: Array, dproduct: Array, saved: list[Saved], grads: Grads) -> None:
        """Adds to the gradient of W_h: sum over t of v_t^T dproduct_t, with v `(T, B, P)`, dproduct `(T, B, G*H)`.

        `saved` is what the steps saved, in the order of the first axis of `v`.
        """
        grads["W_h"] += _outer(self.xp, v, dproduct)

    @abstractmethod
    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        """The new state from a `(B, G*H)`, v `(B, P)` and the old state, and what the gradient needs."""

    @abstractmethod
    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        """(da, dproduct, dv, gradient of the old state apart from its way through v); adds to the other gradients."""


class RNN(Cell):
    """h_t = tanh(x_t W_x + h_{t-1} W_h + b), or relu in place of tanh (Elman 1990)."""

    def __init__(self, xp: Any, spec: StackSpec) -> None:
        super().__init__(xp, spec)
        if spec.nonlinearity == "relu":
            self.tanh = Relu() if spec.clip is None else Clipped(Relu(), spec.clip)

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        u, saved_u = self.recurrent(p, v)
        h = self.tanh(self.xp, a + u)
        return State(h, None), (h, saved_u)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        h, saved_u = saved
        dz = dh * self.tanh.slope(self.xp, h)
        dv, dproduct = self.recurrent_backward(p, saved_u, dz, grads)
        return dz, dproduct, dv, State(self.xp.zeros_like(dh), None)


class LSTM(Cell):
    """The LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000.

    f, i, o = sigmoid(z_f), sigmoid(z_i), sigmoid(z_o);  g = tanh(z_g);  c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t)
    """

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        u, saved_u = self.recurrent(p, v)
        z_i, z_f, z_g, z_o = self.split(a + u)
        f = self.sigmoid(self.xp, z_f)  # forget gate: how much of the long memory stays
        i = self.sigmoid(self.xp, z_i)  # input gate: how much of the candidate is taken in
        g = self.tanh(self.xp, z_g)  # candidate: what could be remembered
        c = f * state.c + i * g  # long memory: the additive conveyor belt
        o = self.sigmoid(self.xp, z_o)  # output gate: how much of the memory is shown
        r, saved_r = self.read(p, c)
        return State(o * r, c), (i, f, g, o, state.c, r, saved_r, saved_u)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        i, f, g, o, c_old, r, saved_r, saved_u = saved
        do = dh * r
        dc = dc + self.read_backward(p, saved_r, r, dh * o, grads)
        dz = self.xp.concat(
            [
                dc * g * self.sigmoid.slope(self.xp, i),
                dc * c_old * self.sigmoid.slope(self.xp, f),
                dc * i * self.tanh.slope(self.xp, g),
                do * self.sigmoid.slope(self.xp, o),
            ],
            axis=1,
        )
        dv, dproduct = self.recurrent_backward(p, saved_u, dz, grads)
        return dz, dproduct, dv, State(self.xp.zeros_like(dv), dc * f)

    def read(self, p: Params, c: Array) -> tuple[Array, Saved]:
        """What the output gate is multiplied with: tanh(c)."""
        return self.shown(self.xp, c), ()

    def read_backward(self, p: Params, saved: Saved, r: Array, dr: Array, grads: Grads) -> Array:
        """The gradient of c from that of r = tanh(c)."""
        return dr * self.shown.slope(self.xp, r)


class GatedLSTM(LSTM):
    """LSTM with peepholes, coupled gates, or both.

    Peepholes (Gers & Schmidhuber 2000) show the gates the cell state through diagonal weights: z_i += p_i * c_{t-1},
    z_f += p_f * c_{t-1}, z_o += p_o * c_t.  Coupled gates (CIFG, Greff et al. 2017): f_t = 1 - i_t, without a z_f.
    """

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        u, saved_u = self.recurrent(p, v)
        z = dict(zip(self.spec.gate_names, self.split(a + u), strict=True))
        seen = self.peepholes(p)
        for gate in "if":
            if gate in seen:
                z[gate] = z[gate] + seen[gate] * state.c
        i = self.sigmoid(self.xp, z["i"])
        f = 1.0 - i if self.spec.coupled else self.sigmoid(self.xp, z["f"])
        g = self.tanh(self.xp, z["g"])
        c = f * state.c + i * g
        o = self.sigmoid(self.xp, z["o"] + seen["o"] * c if seen else z["o"])
        r = self.shown(self.xp, c)
        kept = None if self.spec.coupled else f, c if seen else None  # the others follow from what is saved anyway
        return State(o * r, c), (i, g, o, state.c, r, *kept, saved_u)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        xp, coupled, seen = self.xp, self.spec.coupled, self.peepholes(p)
        i, g, o, c_old, r, f, c, saved_u = saved
        f = 1.0 - i if coupled else f
        dz = {"o": dh * r * self.sigmoid.slope(xp, o)}
        dc = dc + dh * o * self.shown.slope(xp, r)
        if seen:
            dc = dc + dz["o"] * seen["o"]
        dz["i"] = dc * (g - c_old if coupled else g) * self.sigmoid.slope(xp, i)
        if not coupled:
            dz["f"] = dc * c_old * self.sigmoid.slope(xp, f)
        dz["g"] = dc * i * self.tanh.slope(xp, g)
        dc = dc * f
        if seen:
            products = [dz[gate] * (c if gate == "o" else c_old) for gate in seen]
            grads["p"] += xp.sum(xp.concat(products, axis=1), axis=0)
            for gate in [gate for gate in seen if gate != "o"]:
                dc = dc + dz[gate] * seen[gate]
        dz_all = xp.concat([dz[gate] for gate in self.spec.gate_names], axis=1)
        dv, dproduct = self.recurrent_backward(p, saved_u, dz_all, grads)
        return dz_all, dproduct, dv, State(xp.zeros_like(dv), dc)

    def peepholes(self, p: Params) -> dict[str, Array]:
        """The diagonal weights by gate, in stored order; none without peepholes."""
        if not self.spec.peepholes:
            return {}
        gates = "io" if self.spec.coupled else "ifo"
        size = self.spec.hidden_size
        return {gate: p["p"][index * size : (index + 1) * size] for index, gate in enumerate(gates)}


class GRU(Cell):
    """The GRU with the reset gate applied after the recurrent product (cuDNN's form of Cho et al. 2014).

    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z);  n = tanh(a_n + r * (u_n + b_hn));  h_t = (1 - z) * n + z * h_{t-1}
    """

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        u, saved_u = self.recurrent(p, v)
        (a_r, a_z, a_n), (u_r, u_z, u_n) = self.split(a), self.split(u)
        r = self.sigmoid(self.xp, a_r + u_r)  # reset gate: how much of the past the candidate sees
        z = self.sigmoid(self.xp, a_z + u_z)  # update gate: how much of the past stays
        s = u_n + p["b_hn"] if self.spec.bias else u_n
        n = self.tanh(self.xp, a_n + r * s)
        return State((1.0 - z) * n + z * state.h, None), (r, z, n, s, state.h, saved_u)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        xp = self.xp
        r, z, n, s, h_old, saved_u = saved
        da_n = dh * (1.0 - z) * self.tanh.slope(xp, n)
        da_r = da_n * s * self.sigmoid.slope(xp, r)
        da_z = dh * (h_old - n) * self.sigmoid.slope(xp, z)
        ds = da_n * r
        if self.spec.bias:
            grads["b_hn"] += xp.sum(ds, axis=0)
        dv, dproduct = self.recurrent_backward(p, saved_u, xp.concat([da_r, da_z, ds], axis=1), grads)
        return xp.concat([da_r, da_z, da_n], axis=1), dproduct, dv, State(dh * z, None)


class GRUResetBefore(Cell):
    """The GRU of Cho et al. 2014: the reset gate is applied to h_{t-1} before the candidate's product.

    n = tanh(a_n + (r * h_{t-1}) W_hn), the rest as in `GRU`; so W_h is used in two products, one after the other.
    """

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        size = self.spec.hidden_size
        a_r, a_z, a_n = self.split(a)
        u = self.xp.matmul(v, p["W_h"][:, : 2 * size])
        r = self.sigmoid(self.xp, a_r + u[:, :size])
        z = self.sigmoid(self.xp, a_z + u[:, size:])
        n = self.tanh(self.xp, a_n + self.xp.matmul(r * v, p["W_h"][:, 2 * size :]))
        return State((1.0 - z) * n + z * state.h, None), (r, z, n, v, state.h)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        xp, size = self.xp, self.spec.hidden_size
        r, z, n, v, h_old = saved
        da_n = dh * (1.0 - z) * self.tanh.slope(xp, n)
        drv = xp.matmul(da_n, xp.matrix_transpose(p["W_h"][:, 2 * size :]))
        da_r = drv * v * self.sigmoid.slope(xp, r)
        da_z = dh * (h_old - n) * self.sigmoid.slope(xp, z)
        da = xp.concat([da_r, da_z, da_n], axis=1)
        dv = drv * r + xp.matmul(da[:, : 2 * size], xp.matrix_transpose(p["W_h"][:, : 2 * size]))
        return da, da, dv, State(dh * z, None)

    def recurrent_gradients(self, v: Array, dproduct: Array, saved: list[Saved], grads: Grads) -> None:
        xp, size = self.xp, self.spec.hidden_size
        rv = xp.stack([r * v_t for r, _, _, v_t, _ in saved], axis=0)
        first, last = dproduct[:, :, : 2 * size], dproduct[:, :, 2 * size :]
        grads["W_h"] += xp.concat([_outer(xp, v, first), _outer(xp, rv, last)], axis=1)


class LayerNorm:
    """Layer normalization of rows: (x - mean) / sqrt(variance + epsilon), times a gain (Ba, Kiros & Hinton 2016)."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def __call__(self, x: Array, gain: Array) -> tuple[Array, Saved]:
        """Normalizes the last axis; returns the value and what the gradient needs."""
        xp = self.xp
        centered = x - xp.mean(x, axis=-1, keepdims=True)
        inverse = 1.0 / xp.sqrt(xp.mean(centered * centered, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        normal = centered * inverse
        return normal * gain, (normal, inverse)

    def backward(self, saved: Saved, dy: Array, gain: Array) -> tuple[Array, Array]:
        """(dx, dgain), the gain's summed over all axes but the last."""
        xp = self.xp
        normal, inverse = saved
        dnormal = dy * gain
        mean, product = (xp.mean(v, axis=-1, keepdims=True) for v in (dnormal, dnormal * normal))
        dgain = xp.sum(_rows(xp, dy * normal), axis=0)
        return (dnormal - mean - normal * product) * inverse, dgain


class NormalizedProducts(Cell):
    """Mix-in: both products pass through layer normalization, a = LN(x W_x) * gain_x + b and u = LN(h W_h) * gain_h."""

    def __init__(self, xp: Any, spec: StackSpec) -> None:
        super().__init__(xp, spec)
        self.norm = LayerNorm(xp)

    def input(self, p: Params, x: Array) -> tuple[Array, Saved]:
        a, saved = self.norm(self.xp.matmul(x, p["W_x"]), p["gain_x"])
        return a + p["b"], saved

    def input_backward(self, p: Params, saved: Saved, x: Array, da: Array, grads: Grads) -> Array:
        grads["b"] += self.xp.sum(_rows(self.xp, da), axis=0)
        dproduct, dgain = self.norm.backward(saved, da, p["gain_x"])
        grads["gain_x"] += dgain
        grads["W_x"] += _outer(self.xp, x, dproduct)
        return self.xp.matmul(dproduct, self.xp.matrix_transpose(p["W_x"]))

    def recurrent(self, p: Params, v: Array) -> tuple[Array, Saved]:
        return self.norm(self.xp.matmul(v, p["W_h"]), p["gain_h"])

    def recurrent_backward(self, p: Params, saved: Saved, du: Array, grads: Grads) -> tuple[Array, Array]:
        dproduct, dgain = self.norm.backward(saved, du, p["gain_h"])
        grads["gain_h"] += dgain
        return self.xp.matmul(dproduct, self.xp.matrix_transpose(p["W_h"])), dproduct


class LayerNormRNN(NormalizedProducts, RNN):
    """RNN with normalized products."""


class LayerNormGRU(NormalizedProducts, GRU):
    """GRU (reset after the product) with normalized products."""


class LayerNormLSTM(NormalizedProducts, LSTM):
    """LSTM with normalized products that reads tanh(LN(c) * gain_c + b_c) (Ba et al. 2016, eq. 20-22)."""

    def read(self, p: Params, c: Array) -> tuple[Array, Saved]:
        y, saved = self.norm(c, p["gain_c"])
        return self.shown(self.xp, y + p["b_c"]), saved

    def read_backward(self, p: Params, saved: Saved, r: Array, dr: Array, grads: Grads) -> Array:
        dy = dr * self.shown.slope(self.xp, r)
        grads["b_c"] += self.xp.sum(dy, axis=0)
        dc, dgain = self.norm.backward(saved, dy, p["gain_c"])
        grads["gain_c"] += dgain
        return dc


class Projected(Cell):
    """Any LSTM cell whose h is projected to P units, h_t = m_t W_p (LSTMP, Sak, Senior & Beaufays 2014)."""

    def __init__(self, inner: Cell) -> None:
        super().__init__(inner.xp, inner.spec)
        self.inner = inner
        self.input, self.input_backward = inner.input, inner.input_backward  # type: ignore[method-assign]
        self.recurrent_gradients = inner.recurrent_gradients  # type: ignore[method-assign]

    def step(self, p: Params, a: Array, v: Array, state: State) -> tuple[State, Saved]:
        new, saved = self.inner.step(p, a, v, state)
        return State(self.xp.matmul(new.h, p["W_p"]), new.c), (new.h, saved)

    def step_backward(self, p: Params, saved: Saved, dh: Array, dc: Array | None, grads: Grads) -> Gradients:
        m, inner = saved
        grads["W_p"] += self.xp.matmul(self.xp.matrix_transpose(m), dh)
        return self.inner.step_backward(p, inner, self.xp.matmul(dh, self.xp.matrix_transpose(p["W_p"])), dc, grads)


@functools.lru_cache(maxsize=64)
def make_cell(xp: Any, spec: StackSpec) -> Cell:
    """The cell that a spec's options ask for."""
    kind: Any
    if spec.layer_norm:
        kind = {"lstm": LayerNormLSTM, "gru": LayerNormGRU, "rnn": LayerNormRNN}[spec.cell]
    elif spec.peepholes or spec.coupled:
        kind = GatedLSTM
    elif not spec.reset_after:
        kind = GRUResetBefore
    else:
        kind = {"lstm": LSTM, "gru": GRU, "rnn": RNN}[spec.cell]
    cell = kind(xp, spec)
    return Projected(cell) if spec.proj_size else cell


def _rows(xp: Any, x: Array) -> Array:
    """All axes but the last made one."""
    rows = 1
    for extent in x.shape[:-1]:
        rows *= extent
    return xp.reshape(x, (rows, x.shape[-1]))


def _outer(xp: Any, x: Array, dy: Array) -> Array:
    """Sum over time and batch of x^T dy: the gradient of W in y = x W."""
    return xp.matmul(xp.matrix_transpose(_rows(xp, x)), _rows(xp, dy))
