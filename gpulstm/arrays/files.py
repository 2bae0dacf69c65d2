"""Every file from outside comes in by this gate, and every result goes out by this writer.

The gate: `read` and `opened` take ordinary files and pipes.  A device, a socket, a folder, a path with NUL, a FIFO that
nobody writes to and a pipe without end are refused in one sentence; nothing waits for ever.  `parse_json` bounds
what a small file can make of itself.  What else a format can ask for (extents, counts, depths) its
reader compares with the bytes that are there before memory is taken.

The writer: `write` leaves a file that is whole or as it was.  The bytes go to a temporary file in the same folder, are
synced, and take the name in one step.  A link stays a link and its target is replaced; a pipe or device is written
through.  A temporary file that a killed process left is removed when the next process writes into its folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import json
import os
import re
import select
import socket
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpulstm.errors import CheckpointError, DeviceError, EngineError, GpulstmError, MissingExtraError

MOST_OF_A_PIPE = 2**32  # bytes; a file's length is known before it is read, a pipe's is not
JSON_BYTES = 2**26
PATIENCE = 2.0  # seconds that a FIFO may have no one at its other end
LOCK = ".gpulstm.lock"
_BLOCK = 2**20
_NAME_BYTES = 255  # of one name in a folder, on all common file systems

_Error = type[GpulstmError]
_Path = str | os.PathLike[str]


# -- the gate --------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def opened(
    path: _Path,
    error: _Error,
    *,
    missing: _Error | None = None,
    seekable: bool = False,
    limit: int = MOST_OF_A_PIPE,
) -> Iterator[BinaryIO]:
    """A file or pipe opened for reading, in binary.

    Args:
        path: a regular file, a FIFO, or what `<(command)` of a shell gives.
        error: the class of what is raised.
        missing: the class where there is no such file; None: `error`.
        seekable: a pipe is read to its end first, as the caller will jump about in it.
        limit: most bytes of a pipe that are kept for that.

    Raises:
        error: there is no such file, it is a folder, device or socket, it may not be read, nobody writes to the FIFO,
            or more than `limit` bytes come out of it.
    """
    file = _open(path, error, missing or error)
    with file:
        if seekable and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield io.BytesIO(_all_of(file, path, error, limit))
        else:
            yield file


def read(path: _Path, error: _Error, *, missing: _Error | None = None, limit: int = MOST_OF_A_PIPE) -> bytes:
    """All bytes of a file or pipe; arguments and errors are those of `opened`."""
    with opened(path, error, missing=missing) as file:
        size = os.fstat(file.fileno()).st_size
        return _all_of(file, path, error, max(size, limit))


def standard_input(error: _Error) -> bytes:
    """All bytes of standard input: a file, a pipe, or what a person types.

    Raises:
        error: it is closed, or a device such as /dev/zero; more than 4 GiB come out of it.
    """
    if sys.stdin is None:
        raise error("there is no standard input")
    try:
        about = os.fstat(sys.stdin.buffer.fileno())
    except OSError:  # no file of the system
        return sys.stdin.buffer.read()
    if stat.S_ISCHR(about.st_mode) and not sys.stdin.isatty():
        raise error("standard input is a device, expected a file or a pipe")
    return _all_of(sys.stdin.buffer, "standard input", error, max(about.st_size, MOST_OF_A_PIPE))


def parse_json(data: bytes | str, what: str, error: _Error, *, limit: int = JSON_BYTES) -> Any:
    """The value of a JSON text.

    Args:
        what: how a message names it, as "config.json in model.keras".
        limit: most bytes or characters of it.

    Raises:
        error: it is no JSON, longer than `limit`, nested too deep, or has a number too long for Python.
    """
    if len(data) > limit:
        raise error(f"{what} has {len(data)} bytes, expected at most {limit}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:  # ValueError: JSON's own, text that is not UTF-8, long integers
        reason = "it is nested too deep" if isinstance(problem, RecursionError) else str(problem)
        raise error(f"{what} is damaged: it is no JSON ({reason})") from None


@contextlib.contextmanager
def damaged(what: str, error: _Error, *, own: bool = True) -> Iterator[None]:
    """Where objects are made of what a file says: say that the file is at fault, whatever it made Python stumble over.

    Args:
        what: how a message begins, as "model.safetensors is no whole forecaster".
        error: the class of what is raised.
        own: errors of the package become `error` as well, but for those that say what this machine does not have.
    """
    try:
        yield
    except (error, DeviceError, EngineError, MissingExtraError):
        raise
    except GpulstmError as problem:
        if not own:
            raise
        raise error(f"{what}: {problem}") from problem
    except KeyError as problem:
        name = problem.args[0] if problem.args else ""
        is_name = isinstance(name, str) and " " not in name
        raise error(f"{what}: it has no {name!r}" if is_name else f"{what}: {name}") from problem
    except MemoryError as problem:
        raise error(f"{what}, or there is too little memory for it: {problem or 'MemoryError'}") from problem
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as problem:
        raise error(f"{what}: {problem or type(problem).__name__}") from problem


def _open(path: _Path, error: _Error, missing: _Error) -> BinaryIO:
    if "\0" in os.fspath(path):
        raise error(f"the path {os.fspath(path)!r} has a NUL, which no file's name can have")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO without a writer opens at once
    except FileNotFoundError:
        raise missing(f"there is no file {path}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise error(f"{path} cannot be read: Is a directory")
        if not stat.S_ISFIFO(mode) and not stat.S_ISREG(mode):
            raise error(f"{path} is a device or socket, expected a file or a pipe")
        ahead = _first_bytes(handle, path, error) if stat.S_ISFIFO(mode) else b""
        os.set_blocking(handle, True)
        return io.BufferedReader(_Pipe(handle, ahead)) if ahead else os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _first_bytes(handle: int, path: _Path, error: _Error) -> bytes:
    """What lies in a pipe already; nothing where its writer is still at work or has ended without a byte."""
    try:
        ahead = os.read(handle, _BLOCK)
    except BlockingIOError:  # there is a writer
        return b""
    if not ahead:  # no writer: none any more, or none yet
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            raise error(f"{path} is a FIFO that nobody writes to")
    return ahead


class _Pipe(io.FileIO):
    """A pipe of which some bytes have been read ahead."""

    def __init__(self, handle: int, ahead: bytes) -> None:
        super().__init__(handle, "rb")
        self._ahead = memoryview(ahead)

    def readinto(self, buffer: Any) -> int | None:
        if not self._ahead:
            return super().readinto(buffer)
        size = min(len(buffer), len(self._ahead))
        buffer[:size] = self._ahead[:size]
        self._ahead = self._ahead[size:]
        return size

    def readall(self) -> bytes:
        ahead, self._ahead = bytes(self._ahead), memoryview(b"")
        return ahead + super().readall()


def _all_of(file: BinaryIO, path: _Path, error: _Error, limit: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    try:
        data = file.read(size + 1) if size else b""
        if len(data) <= size and size:  # a file as long as it says, which is the rule
            return data
        parts, total = [data], len(data)
        while block := file.read(_BLOCK):
            parts.append(block)
            total += len(block)
            if total > limit:
                raise error(f"{path} gives more than {limit} bytes")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None
    except MemoryError:
        raise error(f"{path} has {size} bytes, for which there is no memory") from None
    return b"".join(parts)


# -- the writer ------------------------------------------------------------------------------------------------------
def write(path: _Path, data: bytes, error: _Error = CheckpointError) -> None:
    """Write a file so that it is there whole, or as it was.

    Args:
        path: where to.  The target of a link is replaced, not the link; a FIFO, a character device or an open
            descriptor (`/dev/stdout`) is written into.
        data: all of it.
        error: the class of what is raised.

    Raises:
        error: the folder is not there or may not be written to, the disk is full, nobody reads the FIFO.
    """
    if "\0" in os.fspath(path):
        raise error(f"the path {os.fspath(path)!r} has a NUL, which no file's name can have")
    try:
        handle = _special(path, error)
        if handle is not None:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            return
        target = Path(os.path.realpath(path) if os.path.islink(path) else path)
        _sweep(target.absolute().parent)
        _replace(target, data)
    except OSError as problem:
        raise error(f"{path} cannot be written: {problem.strerror or problem}") from problem


def _replace(target: Path, data: bytes) -> None:
    handle, temporary = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            with _tolerated(errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # file systems that keep no permissions
                os.fchmod(file.fileno(), _mode(target))
            with _tolerated(errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:  # Ctrl-C too: nothing half-written stays behind
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The rename itself reaches the disk with its folder, where folders can be opened and synced (FUSE, SMB: not all).
    with _tolerated(errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _tolerated(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno not in numbers:
            raise


def _special(path: _Path, error: _Error) -> int | None:
    """A descriptor to write into where `path` names no file to replace; None where it does."""
    number = _own_descriptor(path)
    if number is not None:
        return os.dup(number)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISFIFO(mode) and not stat.S_ISCHR(mode):
        raise error(f"{path} is a disk or socket, expected a file, a pipe or a character device")
    give_up = time.monotonic() + PATIENCE
    while (handle := _writing(path)) is None:
        if time.monotonic() > give_up:
            raise error(f"{path} is a FIFO that nobody reads")
        time.sleep(0.01)  # the system tells no one when a reader comes
    os.set_blocking(handle, True)
    return handle


def _writing(path: _Path) -> int | None:
    """A descriptor for a device or pipe; None while a FIFO has no reader."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return None
        raise


def _own_descriptor(path: _Path) -> int | None:
    """N for `/dev/stdout`, `/dev/fd/N` and what else leads to `/proc/self/fd/N`: a shell's `>` holds that file open."""
    step = os.path.abspath(path)
    for _ in range(40):
        folder, name = os.path.split(step)
        if re.fullmatch(rf"/proc/(self|{os.getpid()})/fd", os.path.realpath(folder)) and name.isdecimal():
            return int(name)
        try:
            step = os.path.join(folder, os.readlink(step))
        except OSError:
            return None
    return None


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those that a new file would have."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def locked(folder: _Path, error: _Error) -> Iterator[None]:
    """Keep a folder, which is made where there is none, for this process while it fills it.

    The system gives the lock back when a process ends, however it does.  Where a file system has no locks, nothing is
    kept.  Folders that were made and stayed empty are removed.

    Raises:
        error: another process keeps the folder; it is named.  Or the folder cannot be made.
    """
    full, path = Path(os.path.abspath(folder)), os.path.join(folder, LOCK)
    created = [one for one in (full, *full.parents) if not os.path.exists(one)]
    try:
        os.makedirs(folder, exist_ok=True)
        handle = _locked(path)
    except BlockingIOError:
        raise error(f"process {_owner(path)} writes into {folder}; wait for it, or name another folder") from None
    except (FileExistsError, NotADirectoryError):
        raise error(f"{folder} is a file, expected a folder") from None
    except OSError as problem:
        raise error(f"{folder} cannot be written to: {problem.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(handle)
        with contextlib.suppress(OSError):  # one that has files ends it
            for one in created:
                one.rmdir()


def _owner(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(20).strip() or "?"
    except OSError:
        return "?"


def _locked(path: str) -> int:
    """The lock file, locked and with our number in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _tolerated(errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(handle, f"{os.getpid():<20}".encode(), 0)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):  # else its owner removed it
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


# -- temporary files -------------------------------------------------------------------------------------------------
# .NAME.HOST-PID-START.COUNT.tmp says which process of which machine writes it; START tells two of one number apart.
_TEMPORARY = re.compile(r"\..*\.gpulstm-([0-9a-f]{8})-(\d+)-(\d+)\.\d+\.tmp", re.DOTALL)
_count = itertools.count()
_swept: set[tuple[int, int, int]] = set()


def process_start(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None where there is no such process, 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except FileNotFoundError:
        pass
    except (OSError, IndexError, ValueError):
        return 0
    if os.path.exists("/proc/self/stat"):
        return None
    try:  # no /proc: macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0


def host() -> str:
    """Eight digits that stand for this machine: process numbers mean nothing on another one that shares a folder."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _temporary(target: Path) -> tuple[int, str]:
    """A new file in the folder of `target`, open for writing, and its path."""
    pid = os.getpid()
    end = f".gpulstm-{host()}-{pid}-{process_start(pid) or 0}.{next(_count)}.tmp"
    name = os.fsencode(target.name)[: _NAME_BYTES - len(end) - 1]
    path = os.path.join(target.parent, "." + os.fsdecode(name) + end)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path


def _sweep(folder: Path) -> None:
    """Remove what dead processes of this machine left in a folder; each process looks once."""
    try:
        about = os.stat(folder)
    except OSError:
        return  # writing into it will say why
    key = os.getpid(), about.st_dev, about.st_ino
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # a folder that may not be listed is not swept
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or match[1] != host() or not entry.is_file(follow_symlinks=False):
                continue
            start = process_start(int(match[2]))
            if start is None or (start and int(match[3]) and start != int(match[3])):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
