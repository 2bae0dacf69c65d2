"""How a file of delimited text is written: its encoding, its separator, its names, and the marks in its numbers."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpulstm.errors import DataError, option

HEAD = 1 << 18  # bytes of a file that its dialect is told from
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        encoding: of the text.
        sep: between cells.
        names: of the columns; "" where one has none.
        decimal, thousands: marks in numbers; `thousands` may be None.
        rows: the first rows below the names, as text.
        spaced: whether quotes come after a separator and a blank.
    """

    encoding: str
    sep: str
    names: tuple[str, ...]
    decimal: str
    thousands: str | None
    rows: tuple[tuple[str, ...], ...]
    spaced: bool = False


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with `head`: by its byte order mark, its zero bytes, or UTF-8."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if len(head) > 3 and head[1::2].count(0) > len(head) // 5:
        return "utf-16-le"
    if len(head) > 3 and head[::2].count(0) > len(head) // 5:
        return "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return other_encoding(head)
    return "utf-8"


def other_encoding(part: bytes) -> str:
    """The one-byte encoding of text that is not UTF-8."""
    try:
        part.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def find_dialect(
    head: bytes, whole: bool, label: str, sep: str | None, marks: tuple[str | None, str | None], encoding: str | None
) -> Dialect:
    """The dialect of a file.

    Args:
        head: its first bytes.
        whole: whether they are all of it.
        label: the file's name, for messages.
        sep, encoding: as the user gave them, or None.
        marks: decimal and thousands mark, likewise.

    Raises:
        DataError: the file is empty, is no text, or its numbers can be read in two ways.
    """
    encoding = encoding or find_encoding(head)
    try:
        text = codecs.getincrementaldecoder(encoding)(errors="strict").decode(head, final=whole)
    except LookupError:
        raise DataError(f"{option('encoding')} is {encoding!r}, which Python does not know") from None
    except UnicodeError as error:
        raise DataError(f"{label} cannot be read as {encoding}: {error.args[-1]}") from None
    text = text.lstrip("\ufeff")
    if not text.strip():
        raise DataError(f"{label} is empty, expected a first row with the names of the columns")
    if "\0" in text:
        raise DataError(f"{label} holds bytes that are no text; name its encoding as {option('encoding', ...)}")
    if not whole:
        text = text[: text.rfind("\n") + 1] or text
    sep = sep or _separator(text)
    spaced = f'{sep} "' in text
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sep, skipinitialspace=spaced) if row]
    except csv.Error as error:
        raise DataError(f"{label} cannot be read as CSV: {error}") from None
    if not whole and len(rows) > 2:
        rows = rows[:-1]
    names, body = [name.strip() for name in rows[0]], rows[1:]
    if body and len(body[0]) == len(names) + 1 and all(len(row) == len(names) + 1 for row in body[:20]):
        if all(not row[-1].strip() for row in body[:20]):
            names.append("")  # rows that end in a separator
        else:
            names.insert(0, "")  # row names of R, which have no name themselves
    for at, row in enumerate(body[:1000]):
        if len(row) > len(names):
            raise DataError(
                f"row {at + 2} of {label} has {len(row)} cells, expected {len(names)} as in the first row "
                f"(between cells: {sep!r}; name another with {option('sep', ...)})"
            )
    width = len(names)
    body = [[*row, *[""] * (width - len(row))][:width] for row in body]
    decimal, thousands = _marks(body[:1000], sep, marks, label, names)
    return Dialect(encoding, sep, tuple(names), decimal, thousands, tuple(map(tuple, body[:1000])), spaced)


def _separator(text: str) -> str:
    """The mark that cuts the first lines into the same number of cells, and the most; a comma where there is none."""
    best, most = ",", (0.0, 0)
    for mark in _SEPARATORS:
        try:
            rows = [row for row in csv.reader(io.StringIO(text[:20_000], newline=""), delimiter=mark) if row]
        except csv.Error:
            continue
        width = len(rows[0])
        if width < 2:
            continue
        alike = sum(len(row) in (width, width + 1) for row in rows[:50]) / len(rows[:50])
        if (round(alike, 1), width) > most:
            best, most = mark, (round(alike, 1), width)
    return best


def _marks(
    rows: Sequence[Sequence[str]],
    sep: str,
    given: tuple[str | None, str | None],
    label: str,
    names: Sequence[str],
) -> tuple[str, str | None]:
    """The decimal and the thousands mark of a file's numbers.

    A comma between digits is decimal where a group after it has not three digits; it marks thousands where it comes
    twice, or next to a point.  Where every number has one comma and three digits after it, the separator tells: quoted
    cells between commas are English, cells between semicolons are not.
    """
    decimal, thousands = given
    if decimal is not None:
        return decimal, thousands
    shapes = {"comma": 0, "thousands": 0, "decimal": 0, "point": 0, "points": 0}
    shown = ""
    other = None
    for row in rows:
        for cell in row:
            text = cell.strip().lstrip("+-")
            if not text or not text[-1].isdigit() or not re.fullmatch(r"[\d.,'\u00a0\u202f ]+", text):
                continue
            if re.fullmatch(r"\d{1,3}(['\u00a0\u202f ]\d{3})+([.,]\d+)?", text):
                other = next(mark for mark in text if not mark.isdigit())
            commas, points = text.count(","), text.count(".")
            if commas and points:
                shapes["thousands" if text.rindex(".") > text.rindex(",") else "decimal"] += 1
                if text.rindex(",") > text.rindex("."):
                    shapes["points"] += 1
            elif commas > 1:
                shapes["thousands" if re.fullmatch(r"\d{1,3}(,\d{3})+", text) else "point"] += 1
            elif commas:
                grouped = re.fullmatch(r"[1-9]\d{0,2},\d{3}", text)
                shapes["comma" if grouped else "decimal"] += 1
                shown = shown or (text if grouped else "")
            elif points > 1:
                shapes["points"] += bool(re.fullmatch(r"\d{1,3}(\.\d{3})+", text))
            elif points:
                shapes["point"] += 1
    if shapes["decimal"]:
        return ",", thousands or ("." if shapes["points"] else other)
    if shapes["points"]:
        return ",", thousands or "."
    if shapes["thousands"] or (shapes["comma"] and (shapes["point"] or sep == ",")):
        return ".", thousands or ","
    if shapes["comma"] and sep != ";" and thousands is None:
        raise DataError(
            f"the numbers of {label} can be read in two ways: {shown!r} is {shown.replace(',', '.')} or "
            f"{shown.replace(',', '')}; say {option('decimal', ',')} or {option('thousands', ',')}"
        )
    if shapes["comma"]:
        return (",", None) if thousands != "," else (".", ",")
    return ".", thousands or other
