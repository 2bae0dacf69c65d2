"""The code in the documentation: quotations are literal, examples run and print what is said, languages agree.

A fenced block is what the HTML comment in the line above it says:

    <!-- from gpulstm/engines/cells.py -->   a quotation: the file holds these very lines (indented as a whole, maybe)
    <!-- cuda -->                            an example that needs a CUDA device
    <!-- sketch -->                          signatures in outline, not to be run
    <!-- run -->                             commands of a shell, to be run in the same folder
    <!-- prints -->                          the output of the Python block before it

Any other Python block is an example; those of one file run in order, in one namespace, in an empty folder.  A Chinese
text has the same blocks as the English one, so it is compared and not run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paths import CHECKOUT

FILES = [*sorted(CHECKOUT.glob("README*.md")), *sorted((CHECKOUT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LONG = {"beyond-one-machine.md"}  # several processes: under make test-all
PAIRS = [(path.with_name(path.name.replace(".zh.md", ".md")), path) for path in FILES if path.name.endswith(".zh.md")]


@dataclass(frozen=True)
class Block:
    """One fenced block of a file, and the line that its code begins at."""

    mark: str
    language: str
    text: str
    line: int

    @property
    def is_example(self) -> bool:
        """Whether it is Python to run."""
        return self.language == "python" and self.mark in ("", "cuda")


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a Markdown file, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(match["mark"] or "", match["language"], match["text"], text.count("\n", 0, match.start("text")) + 1)
        for match in FENCE.finditer(text)
    ]


def holds(source: str, quotation: str) -> bool:
    """Whether `source` holds the lines of `quotation`, all of them moved to the right by the same amount."""
    return any(textwrap.indent(quotation, " " * spaces) in source for spaces in range(0, 21, 4))


def run(path: Path, mark: str) -> int:
    """Run the examples with one mark, compare what they print, and say how many there were."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    count = 0
    for block in blocks(path):
        if block.mark == "prints":
            assert printed is None or printed == block.text, f"{path.name}:{block.line}"
        elif block.is_example:
            printed = _printed(block, path, namespace) if block.mark == mark else None
            count += block.mark == mark
        elif block.mark == "run" and mark == "":
            _shell(block, path)
            count += 1
    return count


def _printed(block: Block, path: Path, namespace: dict[str, Any]) -> str:
    source = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the document
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, str(path), "exec"), namespace)
    return output.getvalue()


def _shell(block: Block, path: Path) -> None:
    """Run commands with this interpreter's programs first in the path."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, env={**os.environ, "PATH": search}, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{path.name}:{block.line}: {done.stdout}{done.stderr}"


def having(test: Any) -> list[Any]:
    """The English files with a block for which `test` holds, as parameters named by their path."""
    return [
        pytest.param(path, id=str(path.relative_to(CHECKOUT)), marks=[pytest.mark.slow] if path.name in LONG else [])
        for path in FILES
        if not path.name.endswith(".zh.md") and any(test(block) for block in blocks(path))
    ]


@pytest.mark.parametrize("path", having(lambda block: block.mark.startswith("from ")))
def test_quotations_are_literal(path: Path) -> None:
    for block in blocks(path):
        if block.mark.startswith("from "):
            source = CHECKOUT / block.mark.removeprefix("from ")
            assert source.is_file(), f"{path.name}:{block.line}: {source} is not there"
            assert holds(source.read_text(encoding="utf-8"), block.text), f"{path.name}:{block.line} is not in {source}"


@pytest.mark.parametrize("path", having(lambda block: block.mark == "run" or (block.is_example and not block.mark)))
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(path, "")


@pytest.mark.cuda
@pytest.mark.parametrize("path", having(lambda block: block.mark == "cuda"))
def test_cuda_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(path, "cuda")


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CHECKOUT)) for path in FILES])
def test_marks_are_known(path: Path) -> None:
    for block in blocks(path):
        assert block.mark in ("", "cuda", "sketch", "run", "prints") or block.mark.startswith("from "), (
            f"{path.name}:{block.line}"
        )
    assert path.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(path)), "a fence is not closed or not seen"


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[path.name for _, path in PAIRS])
def test_both_languages_have_the_same_code_and_pictures(english: Path, chinese: Path) -> None:
    assert [(b.mark, b.language, b.text) for b in blocks(english)] == [
        (b.mark, b.language, b.text) for b in blocks(chinese)
    ]
    one, other = (FENCE.sub("", path.read_text(encoding="utf-8")) for path in (english, chinese))
    headings, pictures = re.compile(r"^#+ ", re.MULTILINE), re.compile(r"^!\[.*?\]\((.+?)\)", re.MULTILINE)
    assert headings.findall(one) == headings.findall(other)
    assert pictures.findall(one) == pictures.findall(other)


def test_the_check_of_quotations_can_fail() -> None:
    source = "def f():\n    a = 1\n    b = 2\n"
    assert holds(source, "a = 1\nb = 2\n")
    assert not holds(source, "a = 1\nb = 3\n")
