"""The command `convert`: weights from one library's file to another's, with both sides run on the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from gpulstm.arrays import checkpoint, files
from gpulstm.cli import other_libraries
from gpulstm.cli.console import console, polite, say, table
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import CheckpointError, ConfigError, InteropError
from gpulstm.interop import KerasNet, from_keras, from_torch, stack_from_onnx, to_keras, to_onnx, to_torch
from gpulstm.interop.arrays import read_safetensors
from gpulstm.interop.onnx.stack_import import difference
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

SOURCES = ".safetensors (a PyTorch state_dict, or a forecaster of gpulstm), .keras, .weights.h5 or .onnx"
TARGETS = ".onnx, .safetensors (a PyTorch state_dict) or .weights.h5 (Keras)"
STEPS, ROWS = 7, 3  # of the random input
TOLERANCE = {"float64": 1e-5, "float32": 1e-3}  # of the largest output; Keras multiplies float64 in float32

Check = tuple[str, str]  # what was compared, and the largest difference or why there is none


class Chosen(NamedTuple):
    """What of a PyTorch file is taken, and what it does not say; see `from_torch`."""

    prefix: str | None
    head: str | None
    nonlinearity: str | None


@polite
def convert(
    source: Annotated[Path, typer.Argument(help=f"File to read: {SOURCES}.", show_default=False)],
    target: Annotated[Path, typer.Argument(help=f"File to write: {TARGETS}.", show_default=False)],
    prefix: Annotated[
        str | None,
        typer.Option(help="PyTorch: what the names of the recurrent weights begin with, if there are several."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="PyTorch: what the names of the dense layer begin with.")] = None,
    nonlinearity: Annotated[str | None, typer.Option(help="PyTorch: tanh or relu, of an RNN.")] = None,
    lengths: Annotated[bool, typer.Option("--lengths", help="ONNX: add an input for the rows' lengths.")] = False,
    check: Annotated[
        bool, typer.Option(help="Run both sides on random input and print the largest difference.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Weights from PyTorch, Keras, ONNX or a forecaster of gpulstm to PyTorch, Keras or ONNX.

    Of an ONNX model the recurrent nodes are taken alone; the onnx package is needed.  Other libraries need not be
    installed; those that are, are run on the same random input as a check.

    Example: gpulstm convert model.safetensors model.onnx
    """
    if _kind(target) not in (".onnx", ".safetensors", ".weights.h5"):
        raise ConfigError(f"target is {target}, expected a name that ends in {TARGETS}")
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already; overwrite it with --force")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {target.absolute().parent} to write {target.name} into")
    rng = np.random.default_rng(0)
    model, checks = _read(source, Chosen(prefix, head, nonlinearity), rng, check)
    checks += _write(model, target, lengths, rng, check)
    out = console()
    out.print(f"{source} -> {target}: {model!r}")
    if check:
        out.print(table(["compared with", "largest difference"], checks, text=1))


def _kind(path: Path) -> str:
    return ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix.lower()


def _input(model: Any, rng: np.random.Generator) -> np.ndarray:
    spec: StackSpec = (model.rnn if isinstance(model, Network) else model).spec
    width = model.config.input_size if isinstance(model, Network) else spec.input_size
    return rng.normal(size=(STEPS, ROWS, width)).astype(spec.dtype)


# -- reading ---------------------------------------------------------------------------------------------------------
def _read(path: Path, chosen: Chosen, rng: np.random.Generator, check: bool) -> tuple[Recurrent | Network, list[Check]]:
    """The model in a file, and how it compares with the library that wrote it."""
    kind = _kind(path)
    if kind not in (".safetensors",) and any(chosen):
        raise ConfigError(f"--prefix, --head and --nonlinearity are for PyTorch's weights; {path} is a {kind} file")
    if kind == ".safetensors":
        return _read_safetensors(path, chosen, rng, check)
    if kind in (".keras", ".weights.h5"):
        net = from_keras(path, device="cpu")
        assert isinstance(net, KerasNet)
        model = net.trainable()
        checks: list[Check] = []
        if check and kind == ".keras":
            x = _input(model, rng)
            theirs = other_libraries.keras_outputs(path, x)
            checks = [_verdict(f"Keras on {path.name}", theirs, other_libraries.outputs(net, x))]
        return model, checks
    if kind == ".onnx":
        stack = stack_from_onnx(path, device="cpu")
        if not check:
            return stack, []
        error = difference(path, stack, rng)
        return stack, [(f"the recurrent nodes of {path.name}", _shown(error, 1.0, stack.spec.dtype))]
    raise ConfigError(f"source is {path}, expected a name that ends in {SOURCES}")


def _read_safetensors(
    path: Path, chosen: Chosen, rng: np.random.Generator, check: bool
) -> tuple[Recurrent | Network, list[Check]]:
    weights, metadata = read_safetensors(path)
    if metadata.get("format") == checkpoint.FORMAT:
        arrays, meta = checkpoint.load(path)
        if "mixture" in meta:
            return _member(path, arrays, meta["mixture"]), []
        if "network" not in meta:
            raise InteropError(f"{path} is a file of gpulstm that holds no network")
        start = "weights."
        with files.damaged(f"{path} is no whole forecaster", CheckpointError):
            config = NetworkConfig.from_dict(meta["network"])
            values = {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}
            config.check_weights(values)
            network = Network(config, device="cpu", initial=False)
            network.params.load(values)
        if meta.get("kind") == "forecaster":
            say(
                f"{path} is a forecaster: the target holds its network alone, without the scaling of values and windows"
                + _more_lacks(meta.get("shape", {}))
            )
        return network, []
    prefix, head, nonlinearity = chosen
    model = from_torch(weights, prefix=prefix, head=head, nonlinearity=nonlinearity, device="cpu")
    if not check:
        return model, []
    x = _input(model, rng)
    theirs = other_libraries.torch_outputs(model, _named(weights, model, chosen), x)
    return model, [_verdict(f"PyTorch on {path.name}", theirs, other_libraries.outputs(model, x))]


def _member(path: Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> Network:
    """The network that counts most in a mixture; what the file will lack is said."""
    networks = [number for number, one in enumerate(meta["members"]) if one["member"] == "network"]
    if not networks:
        raise InteropError(f"{path} is a mixture without a network: there is nothing that another library could run")
    number = max(networks, key=lambda one: float(arrays["mixture.weights"][one]))
    config = NetworkConfig.from_dict(meta["members"][number]["network"])
    network = Network(config, device="cpu", initial=False)
    start = f"mixture.member.{number}.network."
    network.params.load({name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)})
    share = 100 * float(arrays["mixture.weights"][number])
    say(
        f"{path} is a mixture: the target holds its network of {share:.0f} % weight alone, without the scaling of its "
        "windows, the forecast that it adds to, the other members and the bands"
    )
    return network


def _more_lacks(shape: Mapping[str, Any]) -> str:
    """What else of a forecaster the target will lack: a transform, and what the network's forecast is added to."""
    parts = ["their transform"] if shape.get("power", 1.0) != 1.0 else []
    parts += ["what its forecast is added to"] if shape.get("season") is not None else []
    return "".join(f", {part}" for part in parts)


def _named(weights: Mapping[str, np.ndarray], model: Any, chosen: Chosen) -> dict[str, np.ndarray]:
    """The weights of a state_dict that were taken, under the names `rnn.*` and `head.*`."""
    named, ends = {}, to_torch(model.rnn if isinstance(model, Network) else model)
    for name, value in weights.items():
        start, _, short = name.rpartition(".")
        start = f"{start}." if start else ""
        if (short if short in ends else f"{short}_l0") in ends and chosen.prefix in (None, start):
            named[f"rnn.{short if short in ends else f'{short}_l0'}"] = value
        elif isinstance(model, Network) and short in ("weight", "bias") and chosen.head in (None, start):
            named[f"head.{short}"] = value
    if isinstance(model, Network):
        named.setdefault("head.bias", np.zeros(model.config.head_outputs, model.config.stack.dtype))
    return named


# -- writing ---------------------------------------------------------------------------------------------------------
def _write(model: Recurrent | Network, path: Path, lengths: bool, rng: np.random.Generator, check: bool) -> list[Check]:
    """Write the file; how its reader's results compare."""
    kind = _kind(path)
    if lengths and kind != ".onnx":
        raise ConfigError(f"--lengths is for ONNX; {path} is a {kind} file")
    weights: dict[str, np.ndarray] = {}
    if kind == ".onnx":
        to_onnx(model, path, lengths=lengths)
    elif kind == ".safetensors":
        weights = to_torch(model, path)
    else:
        to_keras(model, path)
    if not check:
        return []
    if lengths or (isinstance(model, Network) and model.config.future_size):
        return [(path.name, "not compared: the model reads more than x")]
    x = _input(model, rng)
    ours = other_libraries.outputs(model, x)
    if kind == ".onnx":
        name, theirs = other_libraries.onnx_outputs(path, x)
        return [_verdict(f"{name} on {path.name}", theirs, ours)]
    if kind == ".safetensors":
        return [_verdict(f"PyTorch on {path.name}", other_libraries.torch_outputs(model, weights, x), ours)]
    theirs = other_libraries.keras_model(model, path)
    return [
        _verdict(f"Keras on {path.name}", None if theirs is None else other_libraries.keras_outputs(theirs, x), ours)
    ]


def _verdict(compared: str, theirs: np.ndarray | None, ours: np.ndarray) -> Check:
    if theirs is None:
        return compared, "not compared: it is not installed, or needs options of its own"
    return compared, _shown(
        other_libraries.largest(theirs, ours), float(np.abs(ours).max(initial=1.0)), ours.dtype.name
    )


def _shown(error: float, scale: float, dtype: str) -> str:
    """The difference for the table; one that rounding does not explain is an error."""
    if not error <= TOLERANCE[dtype] * scale:
        raise InteropError(
            f"the two sides differ by {error:.3g} on random input: the conversion is wrong, please report it"
        )
    return f"{error:.1e}"
