"""Compilation: each kernel once, two at a time, and a line where it takes long."""

from __future__ import annotations

import threading
import time

import pytest

from gpulstm.arrays import compilation
from gpulstm.arrays.compilation import Compilations

LONG = 600.0  # seconds after which a test has failed


def test_each_is_compiled_once_whoever_asks() -> None:
    compilations, count, results = Compilations("a card"), [], []

    def compile_one() -> str:
        count.append(1)
        return "kernel"

    compilations.begin("key", compile_one)
    threads = [threading.Thread(target=lambda: results.append(compilations.get("key", compile_one))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    compilations.begin("key", compile_one)
    assert results == ["kernel"] * 4
    assert len(count) == 1


def test_two_are_compiled_at_once() -> None:
    meeting = threading.Barrier(2)
    compilations = Compilations("a card")
    compilations.begin("backward", lambda: meeting.wait(LONG))
    compilations.get("forward", lambda: meeting.wait(LONG))  # neither ends without the other
    compilations.get("backward", lambda: pytest.fail("it had begun"))


def test_an_error_is_raised_for_everyone() -> None:
    compilations = Compilations("a card")

    def fails() -> None:
        raise ValueError("no such card")

    compilations.begin("begun", fails)
    for key in ("begun", "begun", "here", "here"):
        with pytest.raises(ValueError, match="no such card"):
            compilations.get(key, fails)


def test_a_line_is_shown_where_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compilations = Compilations("a card")
    compilations.get("quick", lambda: None)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(compilation, "PATIENCE", 0.0)

    def slow() -> str:
        end = time.monotonic() + LONG
        while not compilations._shown and time.monotonic() < end:
            time.sleep(0.001)
        return "kernel"

    assert compilations.get("slow", slow) == "kernel"
    begin, end = capsys.readouterr().err.splitlines()
    assert begin == "gpulstm: compiling kernels for a card; they are kept for the next time"
    assert end.startswith("gpulstm: compiled in ")
