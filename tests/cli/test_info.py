"""`gpulstm info` and `gpulstm bench`, and the manners of the command line: a mistake is a sentence, not a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from variables import SetVariable

import gpulstm
from gpulstm.cli import app, console, info
from gpulstm.errors import ConfigError

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def call(*arguments: str) -> Any:
    """The command line in this process."""
    return CliRunner().invoke(app, list(arguments))


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a person starts it."""
    command = [sys.executable, "-m", "gpulstm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_version() -> None:
    assert spawn("--version").stdout == f"gpulstm {gpulstm.__version__}\n"


def test_without_arguments_it_shows_its_commands() -> None:
    shown = call()
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
    for words in (f"gpulstm {gpulstm.__version__}", "reference", "available on cpu", "matplotlib", "cores"):
        assert words in shown.output


def test_info_says_how_optimizers_and_losses_run(request: pytest.FixtureRequest) -> None:
    assert "on cpu: native" in call("info").output
    request.getfixturevalue("no_native")
    assert "on cpu: NumPy; this installation has no native code" in str(info.machine_facts()["engines"])


def test_info_as_json_with_the_plan() -> None:
    shown = call("info", "--json", "--cell", "gru", "--shape", "50,32,8,64,2", "--device", "cpu", "--bidirectional")
    facts = json.loads(shown.output)
    assert facts["version"] == gpulstm.__version__
    assert [plan.splitlines()[0] for plan in facts["plans"]] == [
        "GRU  T=50 B=32 I=8 H=64 L=2 D=2  float32 on cpu, inference",
        "GRU  T=50 B=32 I=8 H=64 L=2 D=2  float32 on cpu, training",
    ]
    assert all("engine: " in plan for plan in facts["plans"])


def test_what_stands_in_brackets_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal library would take `[cuda12]` for a style and leave it out."""
    monkeypatch.setattr(info, "cuda_missing", lambda: "run: pip install 'gpulstm[cuda12]'")
    monkeypatch.setattr(info, "device_count", lambda: 0)
    assert call("info").stdout.count("pip install 'gpulstm[cuda12]'") == 2


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
    assert [line for line in shown.stderr.splitlines() if not line.startswith("this machine is busy")][1:] == []
    assert shown.stdout == ""


def test_no_traceback_reaches_a_person() -> None:
    run = spawn("info", "--shape", "x")
    assert run.returncode == 2
    assert run.stderr.startswith("gpulstm: shape is 'x'")
    assert "Traceback" not in run.stderr
    run = spawn("info", "--nonsense")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_ctrl_c_gives_130_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gpulstm", "bench", "--shape", "50,32,8,64,1", "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "gpulstm: interrupted" in stderr
    assert "Traceback" not in stderr


def test_faults_of_the_program_keep_their_traceback() -> None:
    @console.polite
    def broken() -> None:
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        broken()


def test_bench_writes_what_it_measured_and_overwrites_only_by_force(tmp_path: Path) -> None:
    arguments = ["bench", "--shape", "2,2,2,2,1", "--kind", "inference", "--rounds", "1", "--seconds", "0.001"]
    arguments += ["--threads", "1", "--peers-python", str(tmp_path / "no python"), "--output", str(tmp_path / "out")]
    shown = call(*arguments)
    assert shown.exit_code == 0
    assert "2,2,2,2,1" in shown.stdout
    assert "not measured: PyTorch: " in shown.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "inference.png"]
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert {row["contender"]: row["calls"] > 0 for row in document["results"]}["gpulstm reference"]
    again = call(*arguments)
    assert again.exit_code == 2
    assert "already holds bench.json, inference.png" in again.stderr
    assert call(*arguments, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (123456.0, "123000"),
        (12.0, "12"),
        (float("nan"), "-"),
        (0.00001234, "0.0000123"),
        (0.0, "0"),
    ],
)
def test_figures_for_tables(value: float, text: str) -> None:
    assert console.number(value) == text


def test_output_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        console.new_files(tmp_path / "file", ["a"], force=True)
