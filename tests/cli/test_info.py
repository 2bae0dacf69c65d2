"""`gpulstm info` and `gpulstm bench`, and the manners of the command line: a mistake is a sentence, not a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from command_line import call, spawn
from variables import SetVariable

import gpulstm
from gpulstm.cli import app, info

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_version() -> None:
    assert spawn("--version").stdout == f"gpulstm {gpulstm.__version__}\n"


def test_help_shows_the_commands() -> None:
    shown = call("--help")
    for name in ("info", "bench"):
        assert name in shown.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    command = COMMANDS[name]
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []
    assert "Example: gpulstm " in command.help


def test_info_says_what_is_here() -> None:
    shown = call("info")
    assert shown.exit_code == 0
    for words in (f"gpulstm {gpulstm.__version__}", "reference", "available on cpu", "matplotlib", " core"):
        assert words in shown.output


def test_info_shows_the_caches_and_what_is_decided_from_them() -> None:
    engines = dict(info.machine_facts()["engines"])
    assert "L1 " in engines["caches"] and "blocks of" in engines["caches"]


def test_info_says_how_optimizers_and_losses_run(request: pytest.FixtureRequest) -> None:
    assert "on cpu: native" in call("info").output
    request.getfixturevalue("no_native")
    assert "has no native code" in str(info.machine_facts()["engines"])


def test_info_as_json_with_the_plan() -> None:
    shown = call("info", "--json", "--cell", "gru", "--shape", "50,32,8,64,2", "--device", "cpu", "--bidirectional")
    facts = json.loads(shown.output)
    assert facts["version"] == gpulstm.__version__
    assert [plan.splitlines()[0] for plan in facts["plans"]] == [
        "GRU  T=50 B=32 I=8 H=64 L=2 D=2  float32 on cpu, inference",
        "GRU  T=50 B=32 I=8 H=64 L=2 D=2  float32 on cpu, training",
    ]
    assert all("engine: " in plan for plan in facts["plans"])


def test_info_tells_of_a_forced_engine(set_variable: SetVariable) -> None:
    set_variable("GPULSTM_ENGINE", "cuda")
    shown = call("info", "--shape", "1,1,1,1,1", "--device", "cpu")
    assert "GPULSTM_ENGINE=cuda forces that engine" in shown.output
    assert "engine 'cuda' was asked for but cannot serve this call: the model is on the CPU" in shown.output


@pytest.mark.cuda
def test_info_on_a_device() -> None:
    facts = json.loads(call("info", "--json", "--shape", "5,4,3,2,1", "--device", "cuda").output)
    assert "CuPy" in facts["devices"]["cuda:0"]
    assert ["cuda", "available on cuda:0"] in facts["engines"]
    assert "engine: cuda" in facts["plans"][0]


MISTAKES = {
    "shape": (["info", "--shape", "1,2,3"], "shape is '1,2,3', expected five whole numbers"),
    "cell": (["info", "--cell", "mlp", "--shape", "1,1,1,1,1"], "--cell is 'mlp', expected one of lstm, gru, rnn"),
    "device": (["info", "--device", "gpu", "--shape", "1,1,1,1,1"], "device is 'gpu', expected 'auto', 'cpu'"),
    "dtype": (["info", "--dtype", "int8", "--shape", "1,1,1,1,1"], "int8"),
    "suite": (["bench", "--suite", "tpu"], "suite is 'tpu', expected one of cpu, cuda, long"),
    "kind": (["bench", "--kind", "fast"], "kind is 'fast', expected one of step, inference, training"),
    "rounds": (["bench", "--rounds", "0", "--shape", "1,1,1,1,1"], "rounds is 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_on_stderr(mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    shown = call(*arguments)
    assert shown.exit_code == 2
    assert words in shown.stderr
    lines = [line for line in shown.stderr.splitlines() if line]  # older Rich: an empty one after a hidden bar
    assert [line for line in lines if not line.startswith("this machine is busy")][1:] == []
    assert shown.stdout == ""


def test_no_traceback_reaches_a_person() -> None:
    run = spawn("info", "--shape", "x")
    assert run.returncode == 2
    assert run.stderr.startswith("gpulstm: shape is 'x'")
    assert "Traceback" not in run.stderr
    run = spawn("info", "--nonsense")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
