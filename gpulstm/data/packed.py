"""Packed tables, unpacked within bounds: a few kilobytes can say gigabytes, and a workbook cells that it does not hold.

A packed file may unpack to `ROOM` bytes and `RATIO` times its own length.  A real table beyond that is read once it has
been unpacked, which every message says.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpulstm.errors import DataError, GpulstmError, missing_extra

ROOM = 2**24
RATIO = 30
SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
_CELLS = 2**22  # of a workbook's rectangle of cells, beyond four times those that it holds
_BLOCK = 2**20


def most(path: Path) -> int:
    """The bytes that a packed file may unpack to."""
    return ROOM + RATIO * path.stat().st_size


def too_much(path: Path, what: str) -> DataError:
    """The error for a file that unpacks to more than it may."""
    size = path.stat().st_size
    return DataError(f"{path.name} has {size} bytes and unpacks to {what}; if that is right, unpack it before")


@contextlib.contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with a packed file."""
    import lzma
    import zlib

    damage: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
    damage += (RuntimeError, ValueError, struct.error)  # of zipfile: encrypted, packed in a way unknown, places outside
    if zstandard := sys.modules.get("zstandard"):
        damage += (zstandard.ZstdError,)
    try:
        yield
    except GpulstmError:
        raise
    except damage as error:
        raise DataError(f"{path.name} cannot be unpacked: {error}") from None


class _Bounded(io.RawIOBase):
    """An unpacked stream that ends in an error where it gives more than it may."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path, self._most = stream, path, most(path)
        self._left = self._most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with unpacking(self._path):
            count = int(self._stream.readinto(buffer))
        self._left -= count
        if self._left < 0:
            raise too_much(self._path, f"more than {self._most}")
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def unpacked(path: Path) -> io.BufferedReader:
    """The bytes of a text file, unpacked where its name says that it is packed.

    Raises:
        DataError: it is an archive of several files, or damaged; when it is read: it unpacks to more than it may.
        MissingExtraError: a library that unpacks it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return open(path, "rb")
    with unpacking(path):
        return io.BufferedReader(_Bounded(_stream(path, suffix), path), _BLOCK)


def _stream(path: Path, suffix: str) -> Any:
    if suffix == ".gz":
        import gzip

        return gzip.open(path, "rb")
    if suffix == ".bz2":
        import bz2

        return bz2.open(path, "rb")
    if suffix == ".xz":
        import lzma

        return lzma.open(path, "rb")
    if suffix == ".zip":
        archive = zipfile.ZipFile(path)
        members = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(members) != 1:
            raise DataError(f"{path.name} holds {len(members)} files, expected one table: {', '.join(members[:5])}")
        return archive.open(members[0])
    try:
        import zstandard
    except ImportError:
        raise missing_extra("zstandard", f"reading {path.name}") from None
    return zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), closefd=True)


# -- workbooks --------------------------------------------------------------------------------------------------------
_ROW = re.compile(rb"<(?:\w+:)?row\b")
_CELL = re.compile(rb"<(?:\w+:)?c[\s/>]")
_COLUMN = re.compile(rb"""\br=["']([A-Z]+)[0-9]""")
_NUMBER = re.compile(rb"""\br=["']([0-9]+)""")


def check_workbook(path: Path) -> None:
    """Refuse a workbook of Office's XML or OpenDocument that asks for more memory than its length lets it.

    Its parts may not unpack to more than a packed file may; and a reader fills up the rectangle of a sheet's cells, so
    that two cells in far corners stand for millions.

    Raises:
        DataError: it asks for more, or is damaged.
    """
    if not zipfile.is_zipfile(path):
        return  # the old format of .xls, which packs nothing; or damaged, which its reader says
    with unpacking(path), zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > most(path):
            raise too_much(path, f"{size}")
        for name in archive.namelist():
            if re.fullmatch(r"/?xl/worksheets/[^/]*\.xml", name):
                with archive.open(name) as sheet:
                    rows, columns, held = _rectangle(_tags(sheet))
                if rows * columns > _CELLS + 4 * held:
                    raise DataError(
                        f"{path.name} has {held} cells in a sheet of {rows} rows and {columns} columns; remove those "
                        "that lie apart"
                    )


def _tags(stream: Any) -> Iterator[bytes]:
    """A text of XML in parts, none of which cuts a tag."""
    rest = bytearray()
    while block := stream.read(_BLOCK):
        cut = block.rfind(b"<")
        if cut < 0:
            rest += block
            continue
        yield bytes(rest + block[:cut])
        rest = bytearray(block[cut:])
    yield bytes(rest)


def _rectangle(parts: Iterator[bytes]) -> tuple[int, int, int]:
    """The rows and columns of the smallest rectangle around a sheet's cells, and how many cells there are."""
    rows = columns = held = of_row = 0
    for part in parts:
        for at, row in enumerate(_ROW.split(part)):
            count = len(_CELL.findall(row))
            of_row = count if at else of_row + count
            rows, columns, held = rows + (at > 0), max(columns, of_row), held + count
        named = [_number(letters) for letters in set(_COLUMN.findall(part))]
        numbered = [int(digits) if len(digits) < 10 else 10**9 for digits in set(_NUMBER.findall(part))]
        rows, columns = max([rows, *numbered]), max([columns, *named])
    return rows, columns, held


def _number(letters: bytes) -> int:
    """The number of a column by its letters: 1 for A, 27 for AA."""
    number = 0
    for letter in letters[:9]:
        number = 26 * number + letter - 64
    return number
