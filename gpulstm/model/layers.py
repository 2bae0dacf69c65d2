"""The layers by name: `LSTM`, `GRU` and `RNN` stacks with their options, and the dense layer.

What a stack does with them is in `stack.py`; what a cell computes is in `engines/cells.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.dtypes import dtype_of
from gpulstm.arrays.gemm import Products, matmul
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.spec import StackSpec
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
    """y = x W + b.

    Args:
        params: a `ParamDict` with `W (I, O)` and `b (O,)`; see `Dense.shapes`.
        seed: of the initial weights: Glorot uniform W, zero b; None leaves `params` as they are.
    """

    def __init__(self, params: ParamDict, seed: int | None) -> None:
        self.params = params
        if seed is not None:
            inputs, outputs = params.shapes["W"]
            params.load(dense_values(inputs, outputs, seed))

    @staticmethod
    def shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes by name."""
        return {"W": (inputs, outputs), "b": (outputs,)}

    def forward(self, x: Array, products: Products = "cublas") -> Array:
        """x `(B, I)` -> y `(B, O)`; a CUDA graph needs the products "own"."""
        return matmul(self.params.backend, x, self.params["W"], products) + self.params["b"]

    def backward(self, x: Array, dy: Array, grads: ParamDict, products: Products = "cublas") -> Array:
        """dx `(B, I)` from the input and dy `(B, O)`; adds to the gradients of W and b."""
        grads["W"] += matmul(self.params.backend, x, dy, products, transa=True)
        grads["b"] += dy.sum(axis=0)
        return matmul(self.params.backend, dy, self.params["W"], products, transb=True)


def _pair(zoneout: Any) -> Any:
    return tuple(zoneout) if isinstance(zoneout, (tuple, list)) else (zoneout, zoneout)


def _dtype_name(dtype: Any) -> str:
    return dtype_of(dtype).name
