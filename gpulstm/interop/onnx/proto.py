"""ONNX's messages as bytes and back, by the onnx package, which is imported when the first model is read or written."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpulstm.errors import InteropError, missing_extra

if TYPE_CHECKING:
    import onnx


def package() -> ModuleType:
    """The onnx package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "reading and writing ONNX models") from error
    return onnx


@cache
def attribute_types() -> dict[tuple[str, str], int]:
    """Numbers of AttributeProto.AttributeType, by an operator of the default domain and the name of its attribute."""
    package()
    from onnx.defs import get_all_schemas_with_history

    schemas: list[Any] = sorted(get_all_schemas_with_history(), key=lambda schema: schema.since_version)
    return {
        (schema.name, name): int(attribute.type.value)
        for schema in schemas
        if schema.domain == ""
        for name, attribute in schema.attributes.items()
    }


def decode(data: bytes | bytearray | memoryview) -> onnx.ModelProto:
    """The model in the bytes of an .onnx file; every text in it is a `str`.

    Raises:
        InteropError: the bytes end too early, are no protobuf message of this kind, or hold text that is not UTF-8.
        MissingExtraError: the onnx package is not installed.
    """
    onnx = package()
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(bytes(data))
    except (DecodeError, UnicodeDecodeError) as error:
        raise InteropError("not an ONNX file, or one that is damaged or truncated") from error
    _check_text(model)
    return model


def _check_text(message: Any) -> None:
    """Protobuf gives text that is not UTF-8 as bytes, without a word."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, (str, bytes)) else value
            if not all(isinstance(text, str) for text in texts):
                raise InteropError(f"the ONNX file is damaged: {field.full_name} is no UTF-8 text")
        elif field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                _check_text(part)


def encode(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, the same for the same model.

    Raises:
        InteropError: they are more than the 2 GB that protobuf allows.
    """
    from google.protobuf.message import EncodeError

    try:
        return model.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise InteropError("the model takes more than the 2 GB that an ONNX file can have") from error
