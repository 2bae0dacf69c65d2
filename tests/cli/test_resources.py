"""Full disks, read-only folders, pipes that close, memory that ends: one sentence, and all is whole."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, forked

import gpulstm as gl
from gpulstm.arrays import checkpoint, files
from gpulstm.cli import info
from gpulstm.data.loading import load_series
from gpulstm.engines import cpu
from gpulstm.errors import ConfigError, GpulstmError

NETWORK = ["--members", "network", "--horizon", "2", "--context", "4", "--hidden-size", "4", "--num-layers", "1"]
TRAIN = ["--target", "y", *NETWORK, "--epochs", "1", "--test", "0", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("y\n" + "".join(f"{value}\n" for value in np.sin(np.arange(60) / 3)))
    return path


@pytest.fixture(scope="module")
def model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    assert call("train", table, *TRAIN, "--output", folder).exit_code == 0
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def large(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes more memory than this process has at hand, for which another one trains it."""
    folder = tmp_path_factory.mktemp("large")
    wide = [*TRAIN, "--context", "32", "--hidden-size", "512", "--force", "--output", folder]
    assert forked("train", table, *wide)[0] == 0
    return folder / "model.safetensors"


def one_sentence(status: int, stderr: str, *parts: str) -> None:
    """Assert that the program ended with 2, and that the last it said is one sentence with these parts."""
    assert status == 2 and "Traceback" not in stderr, stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("gpulstm: ") and all(part in last for part in parts), stderr


def quota(size: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def memory(size: int, for_ever: bool = True) -> Callable[[], None]:
    """So many bytes of addresses more than there are now: `ulimit -v`."""

    def limit() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + size, now + size if for_ever else resource.RLIM_INFINITY))

    return limit


@pytest.mark.parametrize("command", ["train", "forecast", "backtest", "convert"])
def test_a_full_disk_is_said_with_the_file_and_the_next_run_is_right(
    command: str, table: Path, model: Path, tmp_path: Path
) -> None:
    arguments: dict[str, list[Any]] = {
        "train": [table, *TRAIN, "--output", tmp_path / "out"],
        "forecast": [model, "--output", tmp_path / "out"],
        "backtest": [model, table, "--origins", "3", "--output", tmp_path / "out"],
        "convert": [model, tmp_path / "out.safetensors", "--no-check"],
    }
    status, stderr = forked(command, *arguments[command], prepare=quota(100))
    one_sentence(status, stderr, str(tmp_path / "out"), "cannot be written: File too large")
    assert not list(tmp_path.rglob(".*"))
    force = [] if command == "convert" else ["--force"]
    assert call(command, *arguments[command], *force).exit_code == 0
    for path in tmp_path.rglob("model.safetensors"):
        checkpoint.load(path)


def test_a_full_disk_in_the_midst_of_a_run_keeps_the_last_checkpoint(table: Path, tmp_path: Path) -> None:
    def device() -> None:  # the history can be written, the model cannot
        (tmp_path / "model.safetensors").symlink_to("/dev/full")

    arguments = [table, *TRAIN, "--force", "--output", tmp_path]
    status, stderr = forked("train", *arguments, prepare=device)
    one_sentence(status, stderr, "model.safetensors cannot be written: No space left on device")
    checkpoint.load(tmp_path / "run.safetensors")
    (tmp_path / "model.safetensors").unlink()
    assert call("train", table, *TRAIN, "--resume", "--output", tmp_path).exit_code == 0


def test_a_full_disk_behind_standard_output(model: Path, tmp_path: Path) -> None:
    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    status, stderr = forked("forecast", model, "--output", tmp_path, prepare=full)
    one_sentence(status, stderr, "standard output", "No space left on device")
    assert (tmp_path / "forecast.csv").read_text().endswith("\n")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    command = f'"{sys.executable}" -m gpulstm info | head -1; exit "${{PIPESTATUS[0]}}"'
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert len(run.stdout.splitlines()) == 1 and run.stderr == "" and run.returncode in (0, 1, 141)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def as_nobody(action: Callable[[], object]) -> str:
    """What the package says of an action of who may not do it; root may write everywhere."""

    def act() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        action()

    return in_a_child(act)


def in_a_child(action: Callable[[], object]) -> str:
    """What the package says of an action in a child of this process."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
        child = os.fork()
    if child == 0:
        try:
            action()
        except GpulstmError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


def test_a_read_only_folder_is_named(read_only: Path) -> None:
    for folder in read_only.parents:  # so that nobody can reach it
        if folder.name.startswith(("pytest", "test_")):
            folder.chmod(folder.stat().st_mode | 0o011)

    def lock(folder: Path) -> None:
        with files.locked(folder, ConfigError):
            pass

    for folder in (read_only, read_only / "new"):
        assert as_nobody(lambda folder=folder: lock(folder)) == f"{folder} cannot be written to: Permission denied"
    path = read_only / "file"
    assert as_nobody(lambda: files.write(path, b"")) == f"{path} cannot be written: Permission denied"
    assert as_nobody(lambda: checkpoint.save(path, {}, {})) == f"{path} cannot be written: Permission denied"


@pytest.mark.parametrize("command", ["train", "tune", "demo"])
def test_a_folder_that_cannot_be_made_is_said_before_any_work(command: str) -> None:
    arguments = [] if command == "demo" else ["co2", "--target", "co2"]
    shown = call(command, *arguments, "--output", "/proc/none/here")
    one_sentence(shown.exit_code, shown.stderr, "/proc/none/here cannot be written to: No such file or directory")


def test_too_little_memory_names_the_size_and_what_helps(table: Path, tmp_path: Path) -> None:
    large = [*TRAIN, "--hidden-size", "6000", "--output", tmp_path / "out"]
    status, stderr = forked("train", table, *large, prepare=memory(200 << 20))
    one_sentence(status, stderr, "iB", "a smaller batch or --memory takes less")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("command", ["forecast", "backtest"])
def test_too_little_memory_for_a_forecast_is_said(command: str, table: Path, large: Path, tmp_path: Path) -> None:
    arguments = [large] if command == "forecast" else [large, table, "--origins", "3"]
    failures = 0
    for size in (1 << 20, 12 << 20, 20 << 20):
        status, stderr = forked(command, *arguments, "--force", "--output", tmp_path / "out", prepare=memory(size))
        if status:
            one_sentence(status, stderr, "memory")
            failures += 1
    assert failures
    assert call(command, *arguments, "--force", "--output", tmp_path / "out").exit_code == 0


def test_after_too_little_memory_the_next_call_is_right(large: Path) -> None:
    forecaster = gl.Forecaster.load(large, device="cpu")
    expected = forecaster.predict().mean
    said = in_a_child(lambda: starved(forecaster, expected))
    assert "iB" in said and "takes less" in said


def starved(forecaster: gl.Forecaster, expected: np.ndarray) -> None:
    """Forecast without memory, then with it; raises what the first call says once the second is right."""
    memory(1 << 20, for_ever=False)()
    try:
        forecaster.predict()
    except MemoryError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if np.array_equal(forecaster.predict().mean, expected):
            raise ConfigError(str(error)) from None


@pytest.mark.parametrize("reason", ["failed to map segment from shared object", "a name is missing"])
def test_a_library_that_memory_has_no_room_for(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise ImportError(reason)

    monkeypatch.setattr(info, "machine_facts", fails)
    status, stderr = forked("info")
    if "segment" in reason:
        one_sentence(status, stderr, "not enough memory for a library that this needs", reason)
    else:
        assert "Traceback" in stderr


def test_a_table_that_memory_does_not_hold_is_named(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("y\n" + "0.25\n" * (5 << 20))  # an array of 40 MiB, which no freed piece of the heap can hold
    status, stderr = forked("train", path, *TRAIN, "--output", tmp_path / "out", prepare=memory(24 << 20))
    one_sentence(status, stderr, "memory")


def test_what_native_code_has_no_memory_for_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match=r"no memory for 4096\.0 GiB, an array of shape \(1099511627776,\)"):
        cpu._empty((1 << 40,), np.float32)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: gl.Forecaster.load(path),
        lambda path: load_series(path, target="y"),
        lambda path: gl.interop.from_onnx(path),
        lambda path: gl.interop.from_keras(path),
        lambda path: gl.interop.from_torch(path),
        lambda path: gl.interop.to_torch(gl.LSTM(2, 3, device="cpu"), path),
        lambda path: gl.interop.to_onnx(gl.LSTM(2, 3, device="cpu"), path),
        lambda path: gl.interop.to_keras(gl.LSTM(2, 3, device="cpu"), path),
    ],
)
def test_a_path_with_nul_is_refused(use: Callable[[str], object]) -> None:
    for end in ("", ".safetensors", ".csv", ".onnx", ".weights.h5"):
        with pytest.raises(GpulstmError):
            use(f"a\0b{end}")
