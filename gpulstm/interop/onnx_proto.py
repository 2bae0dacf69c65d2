"""ONNX's file format: protobuf messages read and written by tables, with nothing but the standard library.

Only the messages and fields that inference needs are named (onnx.proto, github.com/onnx/onnx); others are skipped, as
protobuf asks for.  Subgraphs are not decoded, so messages nest to a fixed depth whatever a file says.  Bytes are cut
out of the file without a copy, and every length is checked against what is there before it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from gpulstm.errors import InteropError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PACKED = {"float": ("<f", _FIXED32), "double": ("<d", _FIXED64)}


class Message:
    """Base of the messages below: `TABLE` gives for each field number the attribute, its kind, and whether it repeats.

    Kinds are "int", "float", "double", "str", "bytes", "raw" (kept undecoded), or a message class.
    """

    TABLE: ClassVar[dict[int, tuple[str, Any, bool]]]


@dataclass
class Entry(Message):
    """StringStringEntryProto."""

    key: str = ""
    value: str = ""
    TABLE: ClassVar = {1: ("key", "str", False), 2: ("value", "str", False)}


@dataclass
class Tensor(Message):
    """TensorProto."""

    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    segment: bytes = b""
    float_data: list[float] = field(default_factory=list)
    int32_data: list[int] = field(default_factory=list)
    int64_data: list[int] = field(default_factory=list)
    name: str = ""
    raw_data: bytes = b""
    double_data: list[float] = field(default_factory=list)
    uint64_data: list[int] = field(default_factory=list)
    external_data: list[Entry] = field(default_factory=list)
    data_location: int = 0
    TABLE: ClassVar = {
        1: ("dims", "int", True),
        2: ("data_type", "int", False),
        3: ("segment", "bytes", False),
        4: ("float_data", "float", True),
        5: ("int32_data", "int", True),
        7: ("int64_data", "int", True),
        8: ("name", "str", False),
        9: ("raw_data", "bytes", False),
        10: ("double_data", "double", True),
        11: ("uint64_data", "int", True),
        13: ("external_data", Entry, True),
        14: ("data_location", "int", False),
    }


@dataclass
class Attribute(Message):
    """AttributeProto; graphs in it are kept undecoded."""

    name: str = ""
    type: int = 0
    f: float = 0.0
    i: int = 0
    s: bytes = b""
    t: Tensor | None = None
    floats: list[float] = field(default_factory=list)
    ints: list[int] = field(default_factory=list)
    strings: list[bytes] = field(default_factory=list)
    ref_attr_name: str = ""
    TABLE: ClassVar = {
        1: ("name", "str", False),
        2: ("f", "float", False),
        3: ("i", "int", False),
        4: ("s", "bytes", False),
        5: ("t", Tensor, False),
        7: ("floats", "float", True),
        8: ("ints", "int", True),
        9: ("strings", "bytes", True),
        20: ("type", "int", False),
        21: ("ref_attr_name", "str", False),
    }


@dataclass
class Node(Message):
    """NodeProto."""

    input: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    name: str = ""
    op_type: str = ""
    attribute: list[Attribute] = field(default_factory=list)
    domain: str = ""
    TABLE: ClassVar = {
        1: ("input", "str", True),
        2: ("output", "str", True),
        3: ("name", "str", False),
        4: ("op_type", "str", False),
        5: ("attribute", Attribute, True),
        7: ("domain", "str", False),
    }


@dataclass
class Dimension(Message):
    """TensorShapeProto.Dimension: a number, a name, or neither."""

    dim_value: int | None = None
    dim_param: str = ""
    TABLE: ClassVar = {1: ("dim_value", "int", False), 2: ("dim_param", "str", False)}


@dataclass
class Shape(Message):
    """TensorShapeProto."""

    dim: list[Dimension] = field(default_factory=list)
    TABLE: ClassVar = {1: ("dim", Dimension, True)}


@dataclass
class TensorType(Message):
    """TypeProto.Tensor."""

    elem_type: int = 0
    shape: Shape | None = None
    TABLE: ClassVar = {1: ("elem_type", "int", False), 2: ("shape", Shape, False)}


@dataclass
class Type(Message):
    """TypeProto; kinds other than tensors are not read."""

    tensor_type: TensorType | None = None
    TABLE: ClassVar = {1: ("tensor_type", TensorType, False)}


@dataclass
class ValueInfo(Message):
    """ValueInfoProto."""

    name: str = ""
    type: Type | None = None
    TABLE: ClassVar = {1: ("name", "str", False), 2: ("type", Type, False)}


@dataclass
class Graph(Message):
    """GraphProto."""

    node: list[Node] = field(default_factory=list)
    name: str = ""
    initializer: list[Tensor] = field(default_factory=list)
    input: list[ValueInfo] = field(default_factory=list)
    output: list[ValueInfo] = field(default_factory=list)
    sparse_initializer: list[bytes] = field(default_factory=list)
    TABLE: ClassVar = {
        1: ("node", Node, True),
        2: ("name", "str", False),
        5: ("initializer", Tensor, True),
        11: ("input", ValueInfo, True),
        12: ("output", ValueInfo, True),
        15: ("sparse_initializer", "raw", True),
    }


@dataclass
class OperatorSet(Message):
    """OperatorSetIdProto."""

    domain: str = ""
    version: int = 0
    TABLE: ClassVar = {1: ("domain", "str", False), 2: ("version", "int", False)}


@dataclass
class Model(Message):
    """ModelProto."""

    ir_version: int = 0
    producer_name: str = ""
    producer_version: str = ""
    graph: Graph | None = None
    opset_import: list[OperatorSet] = field(default_factory=list)
    metadata_props: list[Entry] = field(default_factory=list)
    TABLE: ClassVar = {
        1: ("ir_version", "int", False),
        2: ("producer_name", "str", False),
        3: ("producer_version", "str", False),
        7: ("graph", Graph, False),
        8: ("opset_import", OperatorSet, True),
        14: ("metadata_props", Entry, True),
    }


# -- reading ---------------------------------------------------------------------------------------------------------
def decode(data: bytes | memoryview) -> Model:
    """The model in the bytes of an .onnx file.

    Raises:
        InteropError: the bytes end too early, or are no protobuf message of this kind.
    """
    return _decode(Model, memoryview(data))


def _decode(kind: Any, data: memoryview) -> Any:
    found, place = kind(), 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == _VARINT:
            value, place = _varint(data, place)
        elif wire in (_FIXED64, _FIXED32, _BYTES):
            size = 8 if wire == _FIXED64 else 4
            if wire == _BYTES:
                size, place = _varint(data, place)
            if size > len(data) - place:
                raise InteropError(f"the ONNX file is truncated: {size} bytes announced, {len(data) - place} are left")
            value, place = data[place : place + size], place + size
        else:
            raise InteropError(f"not an ONNX file: wire type {wire} in a {kind.__name__}")
        if number not in kind.TABLE:
            continue
        name, form, repeats = kind.TABLE[number]
        values = _values(form, wire, value, repeats, f"{kind.__name__}.{name}")
        if repeats:
            getattr(found, name).extend(values)
        else:
            setattr(found, name, values[-1])
    return found


def _values(form: Any, wire: int, value: Any, repeats: bool, name: str) -> list[Any]:
    """What one field holds; several numbers where they are packed."""
    if form == "int":
        if wire == _VARINT:
            return [_signed(value)]
        if wire == _BYTES and repeats:
            numbers, place = [], 0
            while place < len(value):
                number, place = _varint(value, place)
                numbers.append(_signed(number))
            return numbers
    elif form in _PACKED:
        code, single = _PACKED[form]
        if wire == single or (wire == _BYTES and repeats):
            if len(value) % struct.calcsize(code):
                raise InteropError(f"the ONNX file is damaged: {name} has {len(value)} bytes of {form}s")
            return [number for (number,) in struct.iter_unpack(code, value)]
    elif wire == _BYTES:
        if form == "str":
            try:
                return [str(value, "utf-8")]
            except UnicodeDecodeError as error:
                raise InteropError(f"the ONNX file is damaged: {name} is no UTF-8 text") from error
        return [value if form in ("bytes", "raw") else _decode(form, value)]
    raise InteropError(f"not an ONNX file: {name} has wire type {wire}")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise InteropError("the ONNX file is truncated inside a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), place
    raise InteropError("not an ONNX file: a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# -- writing ---------------------------------------------------------------------------------------------------------
def encode(message: Any) -> bytes:
    """The bytes of a message; fields with their default value are left out, as protobuf does."""
    parts: list[bytes] = []
    plain = {entry.name: entry.default for entry in fields(message)}
    for number, (name, form, repeats) in message.TABLE.items():
        value = getattr(message, name)
        if repeats:
            if value and form in ("int", *_PACKED):
                packed = b"".join(_scalar(form, entry) for entry in value)
                parts.append(_key(number, _BYTES) + _write_varint(len(packed)) + packed)
            else:
                parts += [_field(number, form, entry) for entry in value]
        elif value is not None and value != plain[name]:
            parts.append(_field(number, form, value))
    return b"".join(parts)


def _field(number: int, form: Any, value: Any) -> bytes:
    if form == "int":
        return _key(number, _VARINT) + _scalar(form, value)
    if form in _PACKED:
        return _key(number, _PACKED[form][1]) + _scalar(form, value)
    data = value.encode() if form == "str" else bytes(value) if form in ("bytes", "raw") else encode(value)
    return _key(number, _BYTES) + _write_varint(len(data)) + data


def _scalar(form: str, value: Any) -> bytes:
    return _write_varint(value & (2**64 - 1)) if form == "int" else struct.pack(_PACKED[form][0], value)


def _key(number: int, wire: int) -> bytes:
    return _write_varint(number << 3 | wire)


def _write_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
