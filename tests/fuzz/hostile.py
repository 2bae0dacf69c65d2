"""Files that mean harm, made small: each asks for memory, time or files that it has no right to."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import helper
from readers import TABLE, whole

from gpulstm.arrays import checkpoint


def _changed(name: str, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """A checkpoint with other arrays or metadata, and the right checksum."""
    arrays, meta = checkpoint.load(whole(name, folder))
    held: dict[str, Any] = dict(arrays)
    change(held, meta)
    checkpoint.save(folder / "changed", held, meta)
    return (folder / "changed").read_bytes()


def _set(*keys: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        entry = meta
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value

    return change


def _array(name: str, value: np.ndarray) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda arrays, meta: arrays.update({name: value})


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def forecasters(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Checkpoints of forecasters."""
    stack = ("network", "stack")
    changes = {
        "a million layers": _set(*stack, "num_layers", value=10**6),
        "a billion layers": _set(*stack, "num_layers", value=10**9),
        "20000 units": _set(*stack, "hidden_size", value=20_000),
        "a horizon of 5e9": _set("network", "horizon", value=5 * 10**9),
        "activations of numbers": _set(*stack, "activations", value=[1, [2]]),
        "zoneout a number": _set(*stack, "zoneout", value=3),
        "options a list": _set("options", value=[]),
        "a network of null": _set("network", value=None),
        "a long text": _set("options", "cell", value="9" * 10**6),
        "nested": _set("options", "quantiles", value=_nested(500)),
        "seasons of text": _set("seasons", value=["x"]),
        "history a number": _set("history", value=7),
        "history with no rows": _set("history", "rows", value=[{}]),
        "columns of lists": _set("series", "columns", value=[[1]]),
        "targets too many": _set("series", "targets", value=4),
        "names twice": _set("series", "names", value=["a", "a"]),
        "missing a number": _set("series", "missing", value=3),
        "no scaler": _set("scaler", value={}),
        "infinite values": _array("tail.values", np.full((4, 1), np.inf)),
        "values of rank 3": _array("tail.values", np.zeros((4, 1, 1))),
        "offsets backwards": _array("tail.offsets", np.array([4, 0])),
        "no times": _array("tail.time", np.zeros(0)),
        "times that are NaN": _array("tail.time", np.full(40, np.nan)),
        "until of another shape": _array("until", np.zeros((3, 3))),
        "a scale of zero": _array("scaler.scale", np.zeros((1, 1))),
        "a location that is infinite": _array("scaler.location", np.full((1, 1), np.inf)),
    }
    for name, change in changes.items():
        yield name, _changed("forecaster", folder, change)
    text = ('{"__metadata__":' + '{"a":' * 20_000).encode()
    yield "a header nested without end", struct.pack("<Q", len(text)) + text
    yield "a header past the end", struct.pack("<Q", 2**63) + b"{}"


def training_runs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Checkpoints of training runs."""
    changes = {
        "counters of text": _set("counters", "epoch", value="9" * 10**6),
        "counters a list": _set("counters", value=[]),
        "a batch without a log": _set("counters", "batch", value=10**9),
        "a log of rank 1": _array("log", np.zeros(3, np.float32)),
        "a state without h": _array("state.c", np.zeros(3)),
        "callbacks a number": _set("callbacks", value=3),
        "a schedule of text": _set("schedule", "bad", value="x"),
        "an optimizer of null": _set("optimizer", value=None),
        "a history of text": _set("history", value="x"),
        "a run of numbers": _set("run", value=3),
        "a loss scale": _array("loss_scale", np.zeros(9)),
        "extra a list": _set("extra", value=[1]),
    }
    for name, change in changes.items():
        yield name, _changed("training_run", folder, change)


def torch_dicts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """PyTorch's dicts in safetensors."""
    from safetensors.numpy import save

    matrices = {"weight_ih_l0": np.zeros((12, 2), "f4"), "weight_hh_l0": np.zeros((12, 3), "f4")}
    yield "layer 999999", save({**matrices, "weight_ih_l999999": np.zeros((12, 3), "f4")})
    yield "a layer of 5000 digits", save({**matrices, "weight_ih_l" + "9" * 5000: np.zeros((12, 3), "f4")})
    yield "an empty projection", save({**matrices, "weight_hr_l0": np.zeros((0, 0), "f4")})
    for entry in ('{"dtype": "F32"}', '{"dtype": 3, "shape": [], "data_offsets": [0, 4]}', "null", "[]"):
        text = f'{{"weight_ih_l0": {entry}}}'.encode()
        yield f"an entry {entry}", struct.pack("<Q", len(text)) + text + bytes(4)


def weights_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """HDF5 files of Keras."""

    def made(fill: Callable[[Any], None]) -> bytes:
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            fill(file)
        return held.getvalue()

    def unwritten(file: Any) -> None:
        for number in range(3):
            file.create_dataset(f"layers/lstm/cell/vars/{number}", (3 << 28,), "f4")

    def shared(file: Any) -> None:
        block = file.create_dataset("block", (1 << 26,), "f4", chunks=(1 << 16,), compression="gzip")
        block[: 1 << 16] = 1
        for number in range(12):
            file[f"layers/lstm/cell/vars/{number}"] = block

    def fan(file: Any) -> None:
        group = file.create_group("deepest")
        for level in range(7):
            above = file.create_group(f"level{level}")
            for number in range(12):
                above[str(number)] = group
            group = above
        file["layers/lstm"] = group

    def circle(file: Any) -> None:
        group = file.create_group("layers/lstm")
        group["again"] = group

    def arrays(file: Any) -> None:
        file["layers/lstm"] = np.zeros(3)

    def texts(file: Any) -> None:
        file["layers/lstm/cell/vars/0"] = "text"

    def nothing(file: Any) -> None:
        file["layers/lstm/cell/vars/0"] = h5py.Empty("f4")

    def digits(file: Any) -> None:
        file["layers/lstm_" + "9" * 5000 + "/cell/vars/0"] = np.zeros(3)

    held = made(lambda file: file.create_dataset("layers/lstm/cell/vars/0", data=np.zeros(3)))
    for name, value in (("length", 0xFF), ("list of free blocks", 0)):  # of a group's heap of names
        at = held.rindex(b"HEAP") + {"length": 14, "list of free blocks": 16}[name]
        yield f"a heap whose {name} is wrong", held[:at] + bytes([value]) + held[at + 1 :]
    for fill in (unwritten, shared, fan, circle, arrays, texts, nothing, digits):
        yield fill.__name__, made(fill)


def archives(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Archives of Keras."""

    def zipped(config: bytes, weights: bytes) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", weights)
        return held.getvalue()

    layer = {"class_name": "LSTM", "config": {"name": "a", "units": "many"}, "inbound_nodes": []}
    yield "zeros packed", zipped(b"{}", bytes(1 << 28))
    yield "a config of blanks", zipped(b" " * (1 << 27), b"")
    yield "a config nested", zipped(b"[" * 10**6, b"")
    for name, nodes in (
        ("nodes of Keras 2", [[["a", 0, 0, {}]]]),
        ("nodes of numbers", [3]),
        ("nodes nested", [{"args": _nested(900)}]),
        ("a history of nothing", [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": []}}]}]),
    ):
        config = {"class_name": "Functional", "config": {"layers": [{**layer, "inbound_nodes": nodes}]}}
        yield name, zipped(json.dumps(config).encode(), b"")
    for name, layers in (("layers null", None), ("a layer of null", [None]), ("a layer without a config", [{}])):
        config = {"class_name": "Sequential", "config": {"layers": layers}}
        yield name, zipped(json.dumps(config).encode(), b"")


def onnx_models(folder: Path) -> Iterator[tuple[str, bytes]]:
    """ONNX models."""

    def model(*nodes: Any, weights: tuple[Any, ...] = ()) -> bytes:
        ends = [[helper.make_tensor_value_info(name, 1, [2])] for name in "xy"]
        graph = helper.make_graph([*nodes, helper.make_node("Identity", ["x"], ["y"])], "g", *ends, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()

    def shape(*extents: int) -> Any:
        return onnx.TensorProto(
            dims=[len(extents)], data_type=7, name="shape", raw_data=struct.pack(f"<{len(extents)}q", *extents)
        )

    def fill(name: str) -> Any:
        return helper.make_node("ConstantOfShape", ["shape"], [name])

    yield "four of 1.9 GiB", model(*(fill(name) for name in "abcd"), weights=(shape(500_000_000),))
    products = [helper.make_node("MatMul", [f"a{n}", f"a{n}"], [f"a{n + 1}"]) for n in range(40)]
    yield "40 products", model(fill("a0"), *products, weights=(shape(1500, 1500),))
    exponents = [helper.make_node("Exp", ["a"], [f"b{n}"]) for n in range(500)]
    yield "500 of one large value", model(fill("a"), *exponents, weights=(shape(4_000_000),))
    spread = [helper.make_node("Expand", ["one", "shape"], ["a"]), helper.make_node("Exp", ["a"], ["b"])]
    one = onnx.TensorProto(dims=[1], data_type=1, name="one", raw_data=bytes(4))
    yield "a view made whole", model(*spread, weights=(shape(500_000_000), one))
    for location in ("a" * 5000, "../x", "loop"):
        entry = onnx.StringStringEntryProto(key="location", value=location)
        outside = onnx.TensorProto(dims=[1], data_type=1, name="w", data_location=1, external_data=[entry])
        yield f"external {location[:9]}", model(weights=(outside,))


def verdict_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files of the CUDA engine's verdicts."""
    kind = "lstm float32 B=2 I=3 H=4 layers=1 directions=1 training"
    devices: list[Any] = [
        {"card": []},
        {"card": {"right": 3}},
        {"card": {"right": [[1]]}},
        {"card": {"wrong": ["fused"]}},
        {"card": {"wrong": {"fused lstm float32": 3}}},
        {"card": {"choices": [1]}},
        {"card": {"choices": {kind: []}}},
        {"card": {"choices": {kind: {"way": "first"}}}},
        {"card": {"choices": {kind: {"way": ["first"], "milliseconds": {}}}}},
        {"card": {"choices": {kind: {"way": "first", "milliseconds": {"first": "fast"}}}}},
        [],
    ]
    for number, held in enumerate(devices):
        yield f"devices {number}", json.dumps({"gpulstm_cuda_verdicts": 1, "devices": held}).encode()
    yield "nested without end", b'{"devices":' + b"[" * 10**6
    yield "no text", b"\xff\xfe{}"


def studies(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Databases of a search."""

    first, path = whole("study", folder).read_bytes(), folder / "study.db"

    def changed(*commands: str) -> bytes:
        path.write_bytes(first)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for command in commands:
                connection.execute(command)
            connection.commit()
        return path.read_bytes()

    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select x as trial_id from n"
    for name, commands in {
        "rows without end": ("drop table trials", f"create view trials as {endless}"),
        "a trigger": ("create trigger t after insert on trials begin delete from studies; end",),
        "a virtual table": ("create virtual table v using fts5(a)",),
        "no studies": ("drop table studies",),
        "a state that is none": ("update trials set state = 'LOST'",),
        "a time that is none": ("update trials set datetime_start = 'yesterday'",),
        "a direction that is none": ("update study_directions set direction = 'UP'",),
        "to be maximized": ("update study_directions set direction = 'MAXIMIZE'",),
        "no direction": ("delete from study_directions",),
        "a distribution that is none": (
            "insert into trial_params(trial_id, param_name, param_value, distribution_json) values (1, 'a', 1, '{')",
        ),
        "a distribution of another name": (
            "insert into trial_params(trial_id, param_name, param_value, distribution_json)"
            ' values (1, \'a\', 1, \'{"name": "X", "attributes": {}}\')',
        ),
        "another search space": (
            "insert into trial_params(trial_id, param_name, param_value, distribution_json) values (1, 'dropout', 1,"
            ' \'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}\')',
        ),
        "attributes that are no JSON": (
            "insert into trial_system_attributes(trial_id, key, value_json) values (1, 'a', '{')",
        ),
    }.items():
        yield name, changed(*commands)
    held = first
    yield "half of it", held[: len(held) // 2]
    yield "zeros in it", held[:2000] + bytes(8000) + held[10000:]
    yield "no database", b"SQLite format 3\0" + b"\xff" * 5000
    yield "a page size of zero", held[:16] + bytes(2) + held[18:]


def texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Tables as text."""
    yield "commas alone", b"," * 1_000_000 + b"\n"
    yield "a quote without end", b'y\n"' + b"a\n" * 500_000
    yield "a number of 200000 digits", b"y\n" + b"1" * 200_000 + b"\n"
    yield "a number beyond all", b"y\n1e99999999999\n" + b"2\n" * 30
    yield "half of a character", TABLE.encode("utf-16")[:-1]
    yield "UTF-32 that is none", b"\xff\xfe\0\0" + TABLE.encode("utf-16-le")
    yield "zero bytes", bytes(1000)
    yield "rows too long", b"a,y\n1,2\n" + b"1," * 10**4 + b"\n"


def packed_tables(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Tables that are packed."""
    held = gzip.compress(TABLE.encode())
    for name, line in {"rows": b"1\n", "blanks": b" ", "lines": b"\n"}.items():
        yield f"{name} without end", gzip.compress(b"y\n1\n" + line * (2**25 // len(line)))
    yield "zeros without end", gzip.compress(b"y\n" + b"1\n" * 2**18 + bytes(2**25))
    yield "cut short", held[:-12]
    yield "a wrong checksum", held[:-8] + bytes(8)
    yield "no more than its mark", held[:2]


def workbooks(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Workbooks of Office's XML."""
    with zipfile.ZipFile(whole("workbook", folder)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"

    def book(**change: bytes | None) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in {**members, **change}.items():
                if data is not None:
                    archive.writestr(member, data)
        return held.getvalue()

    def sheet(rows: str, before: str = "") -> bytes:
        start, _, rest = members[name].decode().partition("<sheetData>")
        return book(
            **{name: f"{before}{start}<sheetData>{rows}</sheetData>{rest.partition('</sheetData>')[2]}".encode()}
        )

    def cells(*places: str, value: str = "1", kind: str = "n") -> str:
        rows = ((place.lstrip("ABCDEFXYZ"), place) for place in places)
        return "".join(f'<row r="{row}"><c r="{at}" t="{kind}"><v>{value}</v></c></row>' for row, at in rows)

    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "a" * 10}">' for n in range(12))
    yield "cells in far corners", sheet(cells("XFD1", "A1048576"))
    yield "a row of nine digits", sheet(cells("A1000000000"))
    yield "a row of 20 digits", sheet(cells("A1" + "0" * 20))
    yield "a row below zero", sheet('<row r="-5"><c r="A1"><v>1</v></c></row>')
    yield "a column of nine letters", sheet(cells("ZZZZZZZZZ1"))
    yield "blanks without end", sheet(" " * 2**26)
    yield "a text without end", sheet(cells("A1", value="a" * 2**26, kind="str"))
    yield "entities of entities", sheet(cells("A1", value="&a11;", kind="str"), f"<!DOCTYPE x [{entities}]>")
    yield "a number beyond all", sheet(cells("A1", "A2", value="1e999999"))
    yield "a text that is not there", sheet(cells("A1", value="99999", kind="s"))
    yield "no sheet", book(**{name: None})
    yield "no book", book(**{"xl/workbook.xml": None})
    yield "half a sheet", book(**{name: members[name][:400]})
    packed = book()
    at = packed.index(b"xl/theme/theme1.xml") + 60
    yield "a theme that does not unpack", packed[:at] + bytes(200) + packed[at + 200 :]


def parquets(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Parquet files, and what pandas says of itself in them."""
    import pyarrow
    import pyarrow.parquet

    def made(column: Any, said: bytes | None = None, **options: Any) -> bytes:
        held = io.BytesIO()
        table = pyarrow.table({"y": column})
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"pandas": said} if said else {}), held, **options)
        return held.getvalue()

    plain = pyarrow.array(np.arange(30.0))
    yield "20 million times one number", made(pyarrow.array(np.zeros(20_000_000)))
    text = pyarrow.array(["a" * 2**24] * 9, type=pyarrow.large_string())
    yield "texts of 16 MiB", made(text, use_dictionary=False, compression="zstd")
    yield "lists of named values", made(pyarrow.array([[{"a": [1.0]}]] * 30))
    for said in (
        b"{",
        b"[1]",
        b"\xff",
        b"[" * 200_000,
        b'{"index_columns":5}',
        b'{"index_columns":[{"a":1}]}',
        b'{"index_columns":[{"start":"x","step":[]}]}',
        b'{"index_columns":[{"start":1e400,"step":1}]}',
        b'{"columns":[1],"index_columns":["y"]}',
        b'{"columns":[{"field_name":"y"}],"index_columns":["y"]}',
    ):
        yield f"pandas says {said[:50]!r}", made(plain, said)
    held = made(plain)
    footer = len(held) - 8 - struct.unpack("<I", held[-8:-4])[0]
    for end in (1, 8, footer, len(held) - 8, len(held) - 1):
        yield f"the first {end} bytes", held[:end]
    yield "rows below zero", held[:footer] + held[footer:].replace(b"\x16\x3c", b"\x16\x3b")
    yield "a footer of 2 GiB", held[:-8] + struct.pack("<I", 2**31 - 1) + held[-4:]


HOSTILE: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
    "forecaster": forecasters,
    "training_run": training_runs,
    "torch_dict": torch_dicts,
    "keras": archives,
    "weights_h5": weights_files,
    "onnx": onnx_models,
    "csv": texts,
    "packed": packed_tables,
    "parquet": parquets,
    "workbook": workbooks,
    "verdicts": verdict_files,
    "study": studies,
}
