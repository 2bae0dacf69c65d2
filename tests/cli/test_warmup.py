"""`gpulstm warmup`: what first calls compile is compiled, once."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from gpulstm.arrays.devices import resolve
from gpulstm.cli import app


def test_the_cpu_needs_none() -> None:
    result = CliRunner().invoke(app, ["warmup", "--shape", "3,2,2,4,1", "--device", "cpu"])
    assert result.exit_code == 2
    assert "expected a CUDA device: nothing is compiled for the cpu" in result.output


@pytest.mark.cuda
def test_nothing_is_left_to_compile() -> None:
    shapes = ["--shape", "3,2,2,19,2", "--shape", "4,2,2,19,2"]
    first = CliRunner().invoke(app, ["warmup", *shapes])
    assert first.exit_code == 0, first.output
    numbers = [int(number) for number in re.findall(r"(\d+) kernels made ready", first.output)]
    assert numbers[1] == 0  # the second shape takes the same kernels
    before = resolve("cuda").compiled  # type: ignore[attr-defined]
    assert CliRunner().invoke(app, ["warmup", *shapes, "--inference"]).exit_code == 0
    assert resolve("cuda").compiled == before > 0  # type: ignore[attr-defined]
    wrong = CliRunner().invoke(app, ["warmup", *shapes, "--cell", "cnn"])
    assert (wrong.exit_code, "--cell is 'cnn', expected lstm, gru, rnn" in wrong.output) == (2, True)
