"""The layers by name: `LSTM`, `GRU` and `RNN` stacks with their options, and the dense layer.

What a stack does with them is in `stack.py`; what a cell computes is in `engines/cells.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gpulstm import validate
from gpulstm.arrays import dtypes
from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.gemm import Products, matmul
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ShapeError
from gpulstm.model.initializers import dense_values
from gpulstm.model.stack import Recurrent


class LSTM(Recurrent):
    """A stack of LSTM layers (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).

    Args:
        input_size: I, features per time step.
        hidden_size: H, units per layer and direction.
        num_layers: L.
        bidirectional: read the sequence in both directions; outputs are concatenated, `(T, B, 2*H)`.
        dropout: rate on the sequence between two layers, in [0, 1).
        bias: whether gates have biases.
        dtype: "float32", "float64", or "float16" or "bfloat16" (storage on CUDA; kernels compute in float32).
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial weights and of all dropout masks.
        recurrent_dropout: rate on h_{t-1} in the recurrent product, one mask a pass (Gal & Ghahramani 2016).
        zoneout: rate for h and c, or a pair of rates (Krueger et al. 2017).
        peepholes: gates see the cell state (Gers & Schmidhuber 2000).
        layer_norm: layer normalization (Ba, Kiros & Hinton 2016).
        proj_size: P > 0 projects h to P units (Sak, Senior & Beaufays 2014).
        coupled: f_t = 1 - i_t (Greff et al. 2017).
        forget_bias: initial bias of the forget gate (Jozefowicz, Zaremba & Sutskever 2015).
        chrono: T_max, about as many steps as memory may have to reach: the biases of the gates start so that the units
            forget over 2 to T_max steps (Tallec & Ollivier 2018; `initializers.chrono_bias`),
            whatever `forget_bias` is.
        clip: bound of the inputs of the gates' activations, None for none.
        activations: of the gates, the candidate and the memory read, others than sigmoid, tanh, tanh; each a name of
            ONNX's list or `(name, alpha, beta)` (see `StackSpec`).
        engine: force "reference", "cpu" or "cuda"; None chooses.

    Weights start as Glorot uniform (input), orthogonal (recurrent) and zero biases but for the forget gate's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        seed: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        peepholes: bool = False,
        layer_norm: bool = False,
        proj_size: int = 0,
        coupled: bool = False,
        forget_bias: float = 1.0,
        chrono: int | None = None,
        clip: float | None = None,
        activations: Sequence[Any] = (),
        engine: str | None = None,
    ) -> None:
        spec = StackSpec(
            "lstm",
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            bias=bias,
            dtype=_dtype_name(dtype),
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=_pair(zoneout),
            peepholes=peepholes,
            layer_norm=layer_norm,
            proj_size=proj_size,
            coupled=coupled,
            clip=clip,
            activations=tuple(activations),
        )
        super().__init__(spec, device=device, seed=seed, forget_bias=forget_bias, chrono=chrono, engine=engine)


class GRU(Recurrent):
    """A stack of GRU layers (Cho et al. 2014); `reset_after=True` is the form of cuDNN, PyTorch and Keras.

    Args:
        input_size: I, features per time step.
        hidden_size: H, units per layer and direction.
        num_layers: L.
        bidirectional: read the sequence in both directions; outputs are concatenated, `(T, B, 2*H)`.
        dropout: rate on the sequence between two layers, in [0, 1).
        bias: whether gates have biases.
        dtype: "float32", "float64", or "float16" or "bfloat16" (storage on CUDA; kernels compute in float32).
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial weights and of all dropout masks.
        recurrent_dropout: rate on h_{t-1} in the recurrent product, one mask a pass (Gal & Ghahramani 2016).
        zoneout: rate for h (Krueger et al. 2017).
        layer_norm: layer normalization (Ba, Kiros & Hinton 2016).
        reset_after: apply the reset gate to the recurrent product (cuDNN, PyTorch, Keras); False applies it before.
        chrono: T_max, about as many steps as memory may have to reach: the update gate's bias starts so that the units
            forget over 2 to T_max steps (Tallec & Ollivier 2018; `initializers.chrono_bias`).
        clip: bound of the inputs of the gates' activations, None for none.
        activations: of the reset and update gates, and of the candidate, others than sigmoid, tanh; each a name of
            ONNX's list or `(name, alpha, beta)` (see `StackSpec`).
        engine: force "reference", "cpu" or "cuda"; None chooses.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        seed: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        reset_after: bool = True,
        chrono: int | None = None,
        clip: float | None = None,
        activations: Sequence[Any] = (),
        engine: str | None = None,
    ) -> None:
        spec = StackSpec(
            "gru",
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            bias=bias,
            dtype=_dtype_name(dtype),
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=(zoneout, 0.0),
            layer_norm=layer_norm,
            reset_after=reset_after,
            clip=clip,
            activations=tuple(activations),
        )
        super().__init__(spec, device=device, seed=seed, chrono=chrono, engine=engine)


class RNN(Recurrent):
    """A stack of vanilla RNN layers (Elman 1990), h_t = tanh(x_t W_x + h_{t-1} W_h + b), or relu.

    Args:
        input_size: I, features per time step.
        hidden_size: H, units per layer and direction.
        num_layers: L.
        nonlinearity: "tanh" or "relu".
        bidirectional: read the sequence in both directions; outputs are concatenated, `(T, B, 2*H)`.
        dropout: rate on the sequence between two layers, in [0, 1).
        bias: whether gates have biases.
        dtype: "float32", "float64", or "float16" or "bfloat16" (storage on CUDA; kernels compute in float32).
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial weights and of all dropout masks.
        recurrent_dropout: rate on h_{t-1} in the recurrent product, one mask a pass (Gal & Ghahramani 2016).
        zoneout: rate for h (Krueger et al. 2017).
        layer_norm: layer normalization (Ba, Kiros & Hinton 2016).
        clip: bound of the inputs of the activation, None for none.
        activations: the one activation, other than `nonlinearity`: a name of ONNX's list or `(name, alpha, beta)`.
        engine: force "reference", "cpu" or "cuda"; None chooses.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        seed: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        clip: float | None = None,
        activations: Sequence[Any] = (),
        engine: str | None = None,
    ) -> None:
        spec = StackSpec(
            "rnn",
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            bias=bias,
            dtype=_dtype_name(dtype),
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=(zoneout, 0.0),
            layer_norm=layer_norm,
            nonlinearity=nonlinearity,
            clip=clip,
            activations=tuple(activations),
        )
        super().__init__(spec, device=device, seed=seed, engine=engine)


class Dense:
    """A dense layer, y = x W + b, on what a stack gives, or alone.

    Args:
        input_size: I, features of the last axis.
        output_size: O.
        dtype: "float32", "float64", or, on CUDA, "float16" or "bfloat16".
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the initial weights: Glorot uniform W (Glorot & Bengio 2010), zero b.
        params: views with `W (I, O)` and `b (O,)` into a larger buffer; None allocates them.
        initial: draw initial weights; False leaves `params` as they are.

    Attributes:
        params: `W` and `b`, views into `params.flat`.

    Raises:
        ConfigError: a size below 1.
        DTypeError: a dtype that the device has not.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        seed: int = 0,
        params: ParamDict | None = None,
        initial: bool = True,
    ) -> None:
        self.backend = resolve(device)
        self.input_size = validate.count("input_size", input_size)
        self.output_size = validate.count("output_size", output_size)
        self.dtype = _dtype_name(dtype)
        dtypes.check(self.dtype, self.backend.device, self.backend.capability)
        shapes = self.shapes(self.input_size, self.output_size)
        self.params = ParamDict.allocate(self.backend, shapes, self.dtype) if params is None else params
        if initial:
            self.params.load(dense_values(input_size, output_size, validate.seed(seed)))

    def __repr__(self) -> str:
        return f"Dense({self.input_size}, {self.output_size}, dtype={self.dtype!r}, device={self.backend.device!r})"

    @staticmethod
    def shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes by name."""
        return {"W": (inputs, outputs), "b": (outputs,)}

    def __call__(self, x: Any) -> Array:
        """As `forward`."""
        return self.forward(x)

    def forward(self, x: Any, *, products: Products = "cublas") -> Array:
        """x `(..., I)` -> y `(..., O)`.

        Args:
            x: real numbers on this device, converted to the layer's dtype; any leading axes.
            products: who multiplies on CUDA; a graph needs "own".

        Raises:
            ShapeError, DTypeError, DeviceError: one sentence each, before anything is computed.
        """
        x = self._checked("x", x, self.input_size)
        with self.backend.activate():
            flat = x.reshape(-1, self.input_size)
            y = matmul(self.backend, flat, self.params["W"], products) + self.params["b"]
            return y.reshape(*x.shape[:-1], self.output_size)

    def backward(
        self, x: Any, dy: Any, grads: ParamDict | None = None, *, products: Products = "cublas"
    ) -> tuple[Array, ParamDict]:
        """The gradients of a scalar loss, from that of y.

        Args:
            x: what `forward` read, `(..., I)`.
            dy: gradient of y, `(..., O)`.
            grads: the parameters' gradients are added to these; new zeros if None.
            products: as of `forward`.

        Returns:
            dx `(..., I)` and `grads`, named as `params`.

        Raises:
            ShapeError, DTypeError, DeviceError: one sentence each, before anything is computed.
        """
        x, dy = self._checked("x", x, self.input_size), self._checked("dy", dy, self.output_size)
        if x.shape[:-1] != dy.shape[:-1]:
            raise ShapeError(f"dy has shape {dy.shape}, expected {(*x.shape[:-1], self.output_size)}, the shape of y")
        grads = self.params.like() if grads is None else grads
        with self.backend.activate():
            flat, flat_dy = x.reshape(-1, self.input_size), dy.reshape(-1, self.output_size)
            grads["W"] += matmul(self.backend, flat, flat_dy, products, transa=True)
            grads["b"] += flat_dy.sum(axis=0)
            dx = matmul(self.backend, flat_dy, self.params["W"], products, transb=True)
            return dx.reshape(x.shape), grads

    def _checked(self, name: str, values: Any, size: int) -> Array:
        values = self.backend.asarray(values, self.dtype, name=name)
        if values.ndim == 0 or values.shape[-1] != size:
            raise ShapeError(f"{name} has shape {values.shape}, expected (..., {size})")
        return values


def _pair(zoneout: Any) -> Any:
    return tuple(zoneout) if isinstance(zoneout, (tuple, list)) else (zoneout, zoneout)


def _dtype_name(dtype: Any) -> str:
    return dtypes.dtype_of(dtype).name
