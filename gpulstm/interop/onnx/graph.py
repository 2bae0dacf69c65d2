"""An ONNX file as a checked graph: nodes in an order that can run, weights as NumPy arrays.

Everything that can be known from the file is checked here, before anything runs, and a file is never trusted: sizes are
compared with the bytes that are there before memory is taken for them, weights outside the model's own folder are not
opened, and an operator or attribute that this library does not know is refused by name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.errors import ConfigError, InteropError
from gpulstm.interop.onnx.proto import attribute_types, decode

if TYPE_CHECKING:
    import onnx

OPSETS = range(7, 29)  # of the default domain; 7 is when broadcasting became NumPy's
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 6, 7, 8  # AttributeProto.AttributeType
_EXTERNAL = 1
_LARGEST, _RANKS = 2**40, 32


@dataclass
class Node:
    """One operation: its name in the file, inputs and outputs by name ("" where one is left out), attributes."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or `default` where the file does not have it."""
        return self.attributes.get(name, default)

    def __str__(self) -> str:
        return f"{self.op} node {self.name!r}" if self.name else f"{self.op} node that makes {self.outputs[0]!r}"


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: its name, dtype, and extents (a number, a name or None each; None: any rank)."""

    name: str
    dtype: str | None
    shape: tuple[int | str | None, ...] | None


@dataclass
class Graph:
    """A checked graph."""

    nodes: list[Node]
    weights: dict[str, np.ndarray]
    inputs: list[Value]
    outputs: list[Value]
    opset: int


@dataclass(frozen=True)
class Operator:
    """An operator that can run.

    Args:
        run: gives the outputs, as a tuple where there may be several; called with a context, the node and its inputs
            (None where one is left out).
        attributes: the names that a node may have.
        inputs: least and most of them.
        outputs: most of them.
        host: places of inputs that are read on the host, because shapes depend on them.
    """

    run: Callable[..., Any]
    attributes: frozenset[str]
    inputs: tuple[int, int]
    outputs: int
    host: frozenset[int]


def read(source: Any, operators: Mapping[str, Operator]) -> Graph:
    """The checked graph of a model.

    Args:
        source: the path of an .onnx file, its bytes, or an `onnx.ModelProto`.
        operators: those that can run, by name.

    Raises:
        InteropError: the file is damaged, hostile, or needs an operator that there is not.
        ConfigError: there is no such file.
        MissingExtraError: the onnx package is not installed.
    """
    folder = None
    if isinstance(source, (str, os.PathLike)):
        folder, source = ModelFolder(Path(source).parent), files.read(source, InteropError, missing=ConfigError)
    elif callable(getattr(source, "SerializeToString", None)):
        source = source.SerializeToString()
    if not isinstance(source, (bytes, bytearray, memoryview)):
        raise InteropError(f"source is a {type(source).__name__}, expected a path, bytes or an onnx.ModelProto")
    model = decode(source)
    if not model.HasField("graph") or not model.opset_import:
        raise InteropError("not a whole ONNX model: it has no graph or no operator set")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset not in OPSETS:
        raise InteropError(f"the model uses operator set {opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    return _graph(model.graph, opset, folder, operators)


def _graph(raw: onnx.GraphProto, opset: int, folder: ModelFolder | None, operators: Mapping[str, Operator]) -> Graph:
    if raw.sparse_initializer:
        raise InteropError("the model has sparse weights, which are not read; store them dense")
    _check_operators(raw.node, operators)
    nodes = [_node(node, operators[node.op_type], folder) for node in raw.node]
    inputs, outputs = ([_value(value) for value in values] for values in (raw.input, raw.output))
    weights: dict[str, np.ndarray] = {}
    for tensor in raw.initializer:
        if tensor.name in weights:
            raise InteropError(f"two weights are named {tensor.name!r}")
        weights[tensor.name] = array(tensor, f"weight {tensor.name!r}", folder)
    _check_order(nodes, {value.name for value in inputs} | weights.keys(), outputs)
    for value in inputs:
        default = weights.get(value.name)
        if default is not None and value.dtype not in (None, default.dtype.name):
            raise InteropError(f"input {value.name!r} is {value.dtype}, but its default is {default.dtype.name}")
    return Graph(nodes, weights, inputs, outputs, opset)


def _check_operators(nodes: Iterable[onnx.NodeProto], operators: Mapping[str, Operator]) -> None:
    """Refuse all operators that there are not, each by name, before anything else is looked at."""
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")})
    unknown = sorted({node.op_type for node in nodes if node.domain in ("", "ai.onnx")} - operators.keys())
    if foreign or unknown:
        raise InteropError(f"the model has operators that are not supported: {', '.join(unknown + foreign)}")


def _check_order(nodes: list[Node], known: set[str], outputs: list[Value]) -> None:
    """Every name is made once, and before it is used: so there are no cycles."""
    makers: dict[str, Node] = {}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in known or name in makers:
                raise InteropError(f"{name!r} is made twice, the second time by the {node}")
            makers[name] = node
    ready = set(known)
    for node in nodes:
        for name in filter(None, node.inputs):
            if name in ready:
                continue
            if name in makers:
                raise InteropError(
                    f"the {node} needs {name!r}, which is made later, by the {makers[name]}: a cycle, or not in order"
                )
            raise InteropError(f"the {node} needs {name!r}, which nothing makes")
        ready |= set(node.outputs)
    for value in outputs:
        if value.name not in ready:
            raise InteropError(f"nothing makes the output {value.name!r}")
    if not outputs:
        raise InteropError("the model has no outputs")


def _value(raw: onnx.ValueInfoProto) -> Value:
    if not raw.type.HasField("tensor_type"):
        return Value(raw.name, None, None)
    tensor = raw.type.tensor_type
    if tensor.elem_type and tensor.elem_type not in DTYPES:
        raise InteropError(f"{raw.name!r} has element type {tensor.elem_type} of ONNX, which is not supported")
    shape = tuple(_extent(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    return Value(raw.name, DTYPES.get(tensor.elem_type), shape)


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.WhichOneof("value") == "dim_value" else dim.dim_param or None


def _node(raw: onnx.NodeProto, operator: Operator, folder: ModelFolder | None) -> Node:
    node = Node(raw.op_type, raw.name, list(raw.input), list(raw.output), {})
    if not any(node.outputs):
        raise InteropError(f"a {raw.op_type} node {raw.name!r} has no outputs")
    least, most = operator.inputs
    if not least <= len(node.inputs) <= most or not all(node.inputs[:least]):
        raise InteropError(f"the {node} has {len(node.inputs)} inputs, expected {least} to {most}")
    if len(node.outputs) > operator.outputs:
        raise InteropError(f"the {node} has {len(node.outputs)} outputs, expected at most {operator.outputs}")
    for attribute in raw.attribute:
        if attribute.ref_attr_name:
            raise InteropError(f"the {node} refers to an attribute of a function, outside of one")
        if attribute.name in node.attributes:
            raise InteropError(f"the {node} has attribute {attribute.name!r} twice")
        if attribute.name not in operator.attributes:
            raise InteropError(f"the {node} has an attribute {attribute.name!r}, which is not supported")
        node.attributes[attribute.name] = _attribute(attribute, node, folder)
    return node


def _attribute(raw: onnx.AttributeProto, node: Node, folder: ModelFolder | None) -> Any:
    kinds: dict[int, Callable[[], Any]] = {
        _FLOAT: lambda: raw.f,
        _INT: lambda: raw.i,
        _STRING: lambda: _text(raw.s, node),
        _FLOATS: lambda: list(raw.floats),
        _INTS: lambda: list(raw.ints),
        _STRINGS: lambda: [_text(text, node) for text in raw.strings],
    }
    expected = attribute_types()[node.op, raw.name]
    if raw.type in (*kinds, _TENSOR) and raw.type != expected:
        raise InteropError(f"attribute {raw.name!r} of the {node} has type {raw.type} of ONNX, expected {expected}")
    if raw.type in kinds:
        return kinds[raw.type]()
    if raw.type == _TENSOR and raw.HasField("t"):
        return array(raw.t, f"attribute {raw.name!r} of the {node}", folder)
    raise InteropError(f"attribute {raw.name!r} of the {node} has type {raw.type} of ONNX, which is not supported")


def _text(raw: bytes, node: Node) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InteropError(f"an attribute of the {node} is no UTF-8 text") from error


# -- tensors ---------------------------------------------------------------------------------------------------------
def array(tensor: onnx.TensorProto, what: str, folder: ModelFolder | None) -> np.ndarray:
    """A tensor of a file as a NumPy array.

    Raises:
        InteropError: its extents do not fit the bytes there are, or those lie outside the model's folder.
    """
    if tensor.data_type not in DTYPES:
        raise InteropError(f"{what} has element type {tensor.data_type} of ONNX, which is not supported")
    dtype, shape = np.dtype(DTYPES[tensor.data_type]), tuple(tensor.dims)
    if any(not 0 <= extent <= _LARGEST for extent in shape) or len(shape) > _RANKS:
        raise InteropError(f"{what} has shape {shape}, which no array can have")
    if tensor.HasField("segment"):
        raise InteropError(f"{what} is split into segments, which is not supported")
    count = math.prod(shape)
    data = tensor.raw_data  # a copy
    if tensor.data_location == _EXTERNAL:
        data = _external(tensor, what, folder, count * dtype.itemsize)
    elif count and not data:
        return _listed(tensor, what, dtype, shape)
    if len(data) != count * dtype.itemsize:
        raise InteropError(f"{what} has shape {shape}, {count * dtype.itemsize} bytes, but the file holds {len(data)}")
    little = np.frombuffer(data, dtype.newbyteorder("<"))
    return little.astype(dtype, copy=False).reshape(shape)


def _listed(tensor: onnx.TensorProto, what: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers stored one by one, in the field that ONNX prescribes for the element type."""
    fields = {
        "float32": tensor.float_data,
        "float64": tensor.double_data,
        "int64": tensor.int64_data,
        "uint32": tensor.uint64_data,
        "uint64": tensor.uint64_data,
    }
    stored: Sequence[Any] = fields.get(dtype.name, tensor.int32_data)
    if len(stored) != math.prod(shape):
        raise InteropError(f"{what} has shape {shape}, {math.prod(shape)} numbers, but the file holds {len(stored)}")
    numbers = list(stored)  # of protobuf's own lists NumPy would wrap what does not fit
    if dtype == np.float16:  # its bits, as integers
        return np.array([number & 0xFFFF for number in numbers], np.uint16).view(np.float16).reshape(shape)
    if dtype.kind == "u":
        numbers = [number & (2**64 - 1) for number in numbers]
    try:
        return np.array(numbers, dtype).reshape(shape)
    except OverflowError as error:
        raise InteropError(f"{what} holds numbers that are no {dtype.name}") from error


def _external(tensor: onnx.TensorProto, what: str, folder: ModelFolder | None, size: int) -> bytes:
    """The bytes of a weight that lies in a file of its own, which must be in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise InteropError(f"{what} lies in another file, {location!r}; give the model's path, not its bytes")
    path = folder.path(location, what)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    except ValueError as error:
        raise InteropError(f"{what} has an offset or length that is no number") from error
    held = path.stat().st_size
    if offset < 0 or length != size or offset + length > held:
        raise InteropError(
            f"{what} needs {size} bytes, but the file names {length} from {offset} on in {location!r}, which has {held}"
        )
    folder.take(location, length, held)
    with files.opened(path, InteropError) as file:
        file.seek(offset)
        return file.read(length)


class ModelFolder:
    """The folder of a model, whose files hold weights; what is read of each is added up.

    Args:
        folder: where the model's own file lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: dict[str, int] = {}

    def path(self, location: str, what: str) -> Path:
        """The path of a file in the folder.

        Raises:
            InteropError: it lies elsewhere, a link leads out of the folder or in a circle, or there is no such file.
        """
        try:
            root = self.folder.resolve()
            path = root if "\0" in location else (root / location).resolve()
            is_inside, is_file = root in path.parents, path.is_file()
        except (OSError, RuntimeError) as error:  # a name too long; links in a circle
            raise InteropError(f"{what} lies in {location!r}, which cannot be opened: {error}") from error
        if not is_inside:
            raise InteropError(f"{what} lies in {location!r}, which is outside the model's folder and is not opened")
        if not is_file:
            raise InteropError(f"{what} lies in {location!r}, and there is no such file next to the model")
        return path

    def take(self, location: str, count: int, held: int) -> None:
        """Count bytes that are read of a file of `there` bytes: twice all of it, since weights may be shared.

        Raises:
            InteropError: they are more.
        """
        self._taken[location] = self._taken.get(location, 0) + count
        if self._taken[location] > 2 * held:
            raise InteropError(f"the weights in {location!r} add up to more than twice the {held} bytes that it has")
