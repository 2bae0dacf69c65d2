"""What a recurrent stack is: its cell, sizes and options.

A spec is checked when it is made: a combination of options that no cell implements is refused there, in one sentence,
so that every engine can rely on the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpulstm import validate
from gpulstm.arrays import dtypes
from gpulstm.engines import activations
from gpulstm.errors import ConfigError, DTypeError

CellName = Literal["lstm", "gru", "rnn"]
_LSTM_ONLY = ("peepholes", "proj_size", "coupled")


@dataclass(frozen=True)
class StackSpec:
    """A stack of recurrent layers: sizes, options and dtype, with nothing of device or call.

    Args:
        cell: "lstm", "gru" or "rnn".
        input_size: I, features per time step.
        hidden_size: H, units per layer and direction.
        num_layers: L.
        bidirectional: a second direction per layer that reads the sequence backwards; outputs are concatenated.
        bias: whether gates have biases.
        dtype: "float32", "float64", or "float16" or "bfloat16" (storage on CUDA; arithmetic in float32 where the CUDA
            engine serves the call, while the reference rounds each operation).
        dropout: rate on the sequence between two layers (Zaremba et al. 2014, arXiv:1409.2329).
        recurrent_dropout: rate on h_{t-1} inside the recurrent product, one mask for all steps of a pass
            (Gal & Ghahramani 2016, arXiv:1512.05287, eq. 7).
        zoneout: rates for (h, c): the probability that a unit keeps its old state (Krueger et al. 2017,
            arXiv:1606.01305, eq. 5); outside training the expectation is used.
        peepholes: diagonal weights from the cell state to the gates (Gers & Schmidhuber 2000).
        layer_norm: normalize the input product, the recurrent product and the cell state before its tanh
            (Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 20-22; eq. 19 for the RNN).
        proj_size: P > 0 projects h to P units (LSTMP, Sak, Senior & Beaufays 2014, arXiv:1402.1128).
        coupled: f_t = 1 - i_t (CIFG, Greff et al. 2017, arXiv:1503.04069).
        reset_after: GRU: apply the reset gate to the recurrent product (cuDNN, PyTorch) or before it (Cho et al. 2014).
        nonlinearity: RNN: "tanh" or "relu".
        clip: bound of the inputs of all activations of the gates (ONNX's `clip`), None for none.
        activations: others than the cell's own, by ONNX's names, each a name or `(name, alpha, beta)`: for the LSTM of
            the gates, the candidate and the memory read; for the GRU of the first two; for the RNN its one.
            Empty for the cell's own.
    """

    cell: CellName
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    dtype: str = "float32"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    peepholes: bool = False
    layer_norm: bool = False
    proj_size: int = 0
    coupled: bool = False
    reset_after: bool = True
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    clip: float | None = None
    activations: tuple[activations.Named, ...] = ()

    def __post_init__(self) -> None:
        validate.plain_numbers(self)
        if self.cell not in ("lstm", "gru", "rnn"):
            raise ConfigError(f"cell is {self.cell!r}, expected 'lstm', 'gru' or 'rnn'")
        for name in ("input_size", "hidden_size", "num_layers"):
            validate.count(name, getattr(self, name))
        validate.count("proj_size", self.proj_size, at_least=0)
        for name in ("dropout", "recurrent_dropout"):
            _check_rate(name, getattr(self, name))
        if not isinstance(self.zoneout, tuple) or len(self.zoneout) != 2:
            raise ConfigError(f"zoneout is {self.zoneout!r}, expected one rate or a pair of rates (h, c)")
        for rate in self.zoneout:
            _check_rate("zoneout", rate)
        if self.dtype not in dtypes.NAMES:
            raise DTypeError(f"dtype is {self.dtype!r}, expected one of {', '.join(dtypes.NAMES)}")
        for name in ("bidirectional", "bias", "peepholes", "layer_norm", "coupled", "reset_after"):
            validate.flag(name, getattr(self, name))
        if self.clip is not None:
            validate.real("clip", self.clip, above=0)
        if self.nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"nonlinearity is {self.nonlinearity!r}, expected 'tanh' or 'relu'")
        object.__setattr__(self, "activations", activations.check(self.cell, self.activations))
        if self.proj_size >= self.hidden_size:
            raise ConfigError(
                f"proj_size is {self.proj_size}, expected less than hidden_size ({self.hidden_size}), or 0 for none"
            )
        self._check_combination()

    def _check_combination(self) -> None:
        if self.cell != "lstm":
            for name in _LSTM_ONLY:
                if getattr(self, name):
                    raise ConfigError(f"{name} is an option of the LSTM; the {self.cell.upper()} has none")
            if self.zoneout[1]:
                raise ConfigError(f"zoneout has a rate for c ({self.zoneout[1]}), but the {self.cell.upper()} has no c")
        if self.layer_norm and (self.peepholes or self.coupled):
            raise ConfigError("layer_norm cannot be combined with peepholes or coupled gates")
        if self.layer_norm and self.cell == "gru" and not self.reset_after:
            raise ConfigError("layer_norm needs reset_after=True: it normalizes the whole recurrent product")
        if self.layer_norm and not self.bias:
            raise ConfigError("layer_norm needs bias=True: the bias is the shift of the normalization")
        if not self.reset_after and self.cell != "gru":
            raise ConfigError(f"reset_after is an option of the GRU; the {self.cell.upper()} has no reset gate")
        if self.nonlinearity != "tanh" and self.activations:
            raise ConfigError("nonlinearity and activations both name the RNN's activation; expected one of them")
        if self.nonlinearity != "tanh" and self.cell != "rnn":
            raise ConfigError(f"nonlinearity is an option of the RNN; the {self.cell.upper()} has fixed ones")

    @property
    def data_dtype(self) -> str:
        """The dtype that windows and targets are kept in: float32 for a stack of 16 bits, whose passes round x."""
        return "float32" if dtypes.is_half(self.dtype) else self.dtype

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The gates in stored order."""
        if self.cell == "lstm":
            return ("i", "g", "o") if self.coupled else ("i", "f", "g", "o")
        return ("r", "z", "n") if self.cell == "gru" else ("h",)

    @property
    def gates(self) -> int:
        """G, gates per cell."""
        return len(self.gate_names)

    @property
    def directions(self) -> int:
        """D, 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """Units of h: P with projection, else H."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        """Features of the outputs: D times the units of h."""
        return self.directions * self.state_size

    @property
    def has_memory(self) -> bool:
        """Whether the state has a c in addition to h."""
        return self.cell == "lstm"

    @property
    def draws_masks(self) -> bool:
        """Whether training draws random masks: dropout or zoneout."""
        return bool(self.dropout or self.recurrent_dropout or any(self.zoneout))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of parameter names, in the order of the state's first axis: `_l0`, `_l0_reverse`, `_l1`, ..."""
        ends = ("", "_reverse")[: self.directions]
        return tuple(f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends)

    def layer_input_size(self, layer: int) -> int:
        """Features that layer `layer` (from 0) reads."""
        return self.input_size if layer == 0 else self.output_size

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one direction of one layer, by name without suffix."""
        gates, hidden, state = self.gates * self.hidden_size, self.hidden_size, self.state_size
        shapes: dict[str, tuple[int, ...]] = {"W_x": (self.layer_input_size(layer), gates), "W_h": (state, gates)}
        if self.bias:
            shapes["b"] = (gates,)
            if self.cell == "gru" and self.reset_after:
                shapes["b_hn"] = (hidden,)
        if self.peepholes:
            shapes["p"] = ((2 if self.coupled else 3) * hidden,)
        if self.proj_size:
            shapes["W_p"] = (hidden, self.proj_size)
        if self.layer_norm:
            shapes["gain_x"] = shapes["gain_h"] = (gates,)
            if self.cell == "lstm":
                shapes["gain_c"] = shapes["b_c"] = (hidden,)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of the whole stack, by full name, in stored order."""
        return {
            name + suffix: shape
            for index, suffix in enumerate(self.suffixes)
            for name, shape in self.layer_shapes(index // self.directions).items()
        }


def unsupported(spec: StackSpec) -> list[str]:
    """The options of a stack that change its equations or products, except zoneout: no CUDA kernel has them."""
    options = {
        "peepholes": spec.peepholes,
        "coupled gates": spec.coupled,
        "layer_norm": spec.layer_norm,
        "proj_size": bool(spec.proj_size),
        "clip": spec.clip is not None,
        "activations": bool(spec.activations),
        "reset_after=False": not spec.reset_after,
    }
    return [option for option, used in options.items() if used]


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value < 1:
        raise ConfigError(f"{name} is {value!r}, expected a probability in [0, 1)")
