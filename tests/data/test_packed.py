"""Packed tables: what is within the bounds is read, what is not is refused, however a sheet writes its cells."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gpulstm.data import packed
from gpulstm.errors import DataError

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".csv": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": lambda data: archive({"table.csv": data}),
}


def archive(members: dict[str, bytes]) -> bytes:
    """A ZIP archive."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return held.getvalue()


class Steps(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    step = 1

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.step)


@pytest.mark.parametrize("suffix", PACK)
def test_what_is_packed_comes_out_whole(tmp_path: Path, suffix: str) -> None:
    path, data = tmp_path / f"table{suffix}", b"y\n" + b"1\n2\n" * 100_000
    path.write_bytes(PACK[suffix](data))
    with packed.unpacked(path) as file:
        assert file.read() == data


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zip"])
def test_it_ends_where_it_gives_more_than_it_may(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ROOM", 1000)
    path = tmp_path / f"table{suffix}"
    path.write_bytes(PACK[suffix](b"1\n" * 100_000))
    size = path.stat().st_size
    with packed.unpacked(path) as file, pytest.raises(DataError) as caught:
        file.read()
    assert f"has {size} bytes and unpacks to more than {1000 + 30 * size}; if that is right, unpack it before" in str(
        caught.value
    )


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zip"])
def test_damage_is_one_sentence(tmp_path: Path, suffix: str) -> None:
    path, data = tmp_path / f"table{suffix}", PACK[suffix](bytes(range(256)) * 100)
    for damaged in (data[: len(data) // 2], data[:40] + bytes(40) + data[80:], data[:3]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be unpacked: "), packed.unpacked(path) as file:
            file.read()


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.zip"
    path.write_bytes(archive({"a.csv": b"", "b.csv": b""}))
    with pytest.raises(DataError, match=r"tables.zip holds 2 files, expected one table: a.csv, b.csv"):
        packed.unpacked(path)


@pytest.mark.parametrize(
    ("sheet", "rectangle"),
    [
        ('<row r="1"><c r="A1"/><c r="C1"/></row><row r="7"><c r="B7"/></row>', (7, 3, 3)),
        ("<row><c/><c><v>1</v></c></row><row><c/></row>", (2, 2, 3)),  # places may be left out
        ("<x:row r='3'><x:c r='AA3' s='1'/></x:row>", (3, 27, 1)),
        ('<row spans="1:3" r="2">\n<c\tr="XFD2"/></row>', (2, 16384, 1)),
        ('<row r="99999999999999999999"/>', (10**9, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_the_rectangle_of_a_sheet(sheet: str, rectangle: tuple[int, int, int]) -> None:
    for step in (1, 3, 10**6):
        stream = Steps(f"<sheetData>{sheet}</sheetData>".encode())
        stream.step = step
        assert packed._rectangle(packed._tags(stream)) == rectangle


def test_a_workbook_within_its_bounds_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, name = tmp_path / "book.xlsx", "xl/worksheets/sheet1.xml"
    path.write_bytes(archive({name: b'<row r="9"><c r="C9"/></row>'}))
    packed.check_workbook(path)
    path.write_bytes(archive({name: b'<row r="9999999"><c r="C9"/></row>'}))
    with pytest.raises(DataError, match=r"book.xlsx has 1 cells in a sheet of 9999999 rows and 3 columns"):
        packed.check_workbook(path)
    monkeypatch.setattr(packed, "ROOM", 0)
    path.write_bytes(archive({name: bytes(10**6)}))
    with pytest.raises(DataError, match=r"bytes and unpacks to 1000000; if that is right, unpack it before"):
        packed.check_workbook(path)
