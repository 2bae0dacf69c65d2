"""The gate for files from outside, and the writer: nothing hangs, nothing is torn, nothing stays behind."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gpulstm.arrays import files
from gpulstm.errors import ConfigError, DataError, DeviceError, GpulstmError, InteropError, one_line

KILLED = """
import os, signal, sys
from gpulstm.arrays import files
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.write(sys.argv[1], b"half of it")
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the other end of a pipe may take its time."""
    monkeypatch.setattr(files, "PATIENCE", 600.0)


# -- reading ---------------------------------------------------------------------------------------------------------
def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"abc", bytes(3 << 20)):
        path.write_bytes(content)
        assert files.read(path, DataError) == content
        with files.opened(path, DataError, seekable=True) as file:
            assert file.read() == content


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    ear = socket.socket(socket.AF_UNIX)
    ear.bind(str(tmp_path / "socket"))
    with ear:
        for path, message in (
            (tmp_path / "none", "there is no file"),
            (tmp_path, "cannot be read: Is a directory"),
            (loop, "cannot be read: Too many levels"),
            (tmp_path / "socket", "cannot be read: No such device|is a device or socket"),
            ("/dev/zero", "/dev/zero is a device or socket, expected a file or a pipe"),
            ("a\0b", "has a NUL"),
            ("a" * 5000, "cannot be read: File name too long"),
        ):
            with pytest.raises(DataError, match=message) as caught:
                files.read(path, DataError)
            assert len(str(caught.value)) <= 300
    with pytest.raises(ConfigError, match="there is no file"):
        files.read(tmp_path / "none", DataError, missing=ConfigError)


def test_a_fifo_without_a_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="is a FIFO that nobody writes to"):
        files.read(tmp_path / "fifo", DataError)


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000])
@pytest.mark.parametrize("seekable", [False, True])
def test_a_fifo_with_a_writer_is_read_to_its_end(tmp_path: Path, content: bytes, seekable: bool) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    with files.opened(path, DataError, seekable=seekable) as file:
        assert file.read() == content
    writer.join()


def test_what_a_shell_pipes_in_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"0123456789" * 30000)
    code = "import sys; from gpulstm.arrays import files; from gpulstm.errors import DataError; "
    code += "print(len(files.read(sys.argv[1], DataError)))"
    for source in ('<(cat "$1")', "<(true)"):
        command = ["bash", "-c", f'"$0" -c "$2" {source}', sys.executable, str(tmp_path / "data"), code]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stdout == ("300000\n" if "cat" in source else "0\n")


def test_a_pipe_without_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with subprocess.Popen(["bash", "-c", f"exec cat /dev/zero > {path}"], stderr=subprocess.DEVNULL) as writer:
        with pytest.raises(DataError, match="gives more than 3000000 bytes"):
            files.read(path, DataError, limit=3_000_000)
        writer.wait()


def test_json_is_bounded() -> None:
    assert files.parse_json(b'{"a": [1, null]}', "it", DataError) == {"a": [1, None]}
    for text, message in (
        (b"{", "it is damaged: it is no JSON"),
        (b"[" * 100_000, r"it is no JSON \(it is nested too deep\)"),
        (b"1" * 5000, "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b" " * 99, "has 99 bytes, expected at most 50"),
    ):
        with pytest.raises(DataError, match=message):
            files.parse_json(text, "it", DataError, limit=50 if text.isspace() else 2**20)


def test_what_python_stumbles_over_is_the_files_fault() -> None:
    def deep() -> None:
        deep()

    stumbles: list[Callable[[], object]] = [
        lambda: {}["size"],
        lambda: [][1],
        lambda: None + 1,  # type: ignore[operator]
        lambda: "a".size,  # type: ignore[attr-defined]
        lambda: int("x"),
        lambda: 1 // 0,
        deep,
    ]
    for stumble in stumbles:
        with pytest.raises(InteropError, match=r"^f is damaged: .+"), files.damaged("f is damaged", InteropError):
            stumble()
    with pytest.raises(InteropError, match="it has no 'size'"), files.damaged("f", InteropError):
        stumbles[0]()
    with pytest.raises(DeviceError), files.damaged("f", InteropError):
        raise DeviceError("no such device here")
    with pytest.raises(ConfigError, match=r"^own$"), files.damaged("f", InteropError, own=False):
        raise ConfigError("own")
    with pytest.raises(NameError), files.damaged("f", InteropError):
        raise NameError("a fault of the program stays one")


def test_messages_are_one_line_of_300_characters() -> None:
    assert one_line("a\x1b[31m\n\u2028b") == "a [31m b"
    assert str(GpulstmError("short")) == "short"
    text = str(DataError("start " + "x" * 10**6 + " end"))
    assert len(text) == 300 and text.startswith("start") and text.endswith("end") and " ... " in text


# -- writing ---------------------------------------------------------------------------------------------------------
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "latest").symlink_to("store/epoch-1")
    for content in (b"new", b"newer"):  # the target is made, then replaced
        files.write(tmp_path / "latest", content)
        assert (tmp_path / "latest").is_symlink()
        assert (tmp_path / "store" / "epoch-1").read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["latest", "store"] and os.listdir(tmp_path / "store") == ["epoch-1"]


def test_a_pipe_and_a_device_are_written_into(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.append(path.read_bytes()))
    reader.start()
    files.write(path, bytes(200_000))
    reader.join()
    assert parts == [bytes(200_000)] and stat.S_ISFIFO(path.stat().st_mode)
    (tmp_path / "null").symlink_to("/dev/null")
    files.write(tmp_path / "null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_fifo_without_a_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="is a FIFO that nobody reads"):
        files.write(tmp_path / "fifo", b"text", DataError)


def test_a_shells_redirection_keeps_its_file(tmp_path: Path) -> None:
    code = "from gpulstm.arrays import files; print('before', flush=True); files.write('/dev/stdout', b'in it\\n'); "
    code += "print('after')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text().split("\n") == ["before", "in it", "after", ""]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "x" * 250])
def test_long_names_are_written(tmp_path: Path, name: str) -> None:
    files.write(tmp_path / name, b"1")
    files.write(tmp_path / name, b"2")
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"2"


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "no" / "file", "no/file cannot be written: No such file or directory"),
        (tmp_path, "cannot be written: Is a directory"),
        ("a\0b", "has a NUL"),
        (tmp_path / ("a" * 256), "cannot be written: File name too long"),
        ("/dev/full", "/dev/full cannot be written: No space left on device"),
    ):
        with pytest.raises(DataError, match=message):
            files.write(path, b"text", DataError)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_or_read_is_no_failure(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, synced = os.open, os.fsync

    def open_(path: object, *args: object, **more: object) -> int:
        if number == errno.EACCES and path == tmp_path:
            raise OSError(number, os.strerror(number))
        return opened(path, *args, **more)  # type: ignore[arg-type]

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        synced(handle)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    files.write(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text" and os.listdir(tmp_path) == ["file"]


def test_what_killed_processes_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert run.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".run.safetensors.gpulstm-")
    start = files.process_start(os.getpid())
    others = {
        f".a.gpulstm-{files.host()}-{os.getpid()}-{start}.0.tmp": True,  # of a process that lives
        f".a.gpulstm-{files.host()}-{os.getpid()}-{(start or 0) + 1}.0.tmp": False,  # its number was given again
        f".a.gpulstm-00000000-{left.split('-')[2]}-1.0.tmp": True,  # of another machine
        ".a.tmp": True,  # of another program
    }
    for name in others:
        (tmp_path / name).touch()
    subprocess.run(
        [sys.executable, "-c", "import sys; from gpulstm.arrays import files; files.write(sys.argv[1], b'x')", path],
        check=True,
    )
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *(name for name, stays in others.items() if stays)])


def test_a_folder_is_kept_for_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with files.locked(folder, DataError):
        message = f"process {os.getpid()} writes into .*run; wait for it"
        with pytest.raises(DataError, match=message), files.locked(folder, DataError):
            pass
        (folder / "result").touch()
    assert os.listdir(folder) == ["result"]
    with files.locked(tmp_path / "deep" / "empty", DataError):
        assert os.listdir(tmp_path / "deep" / "empty") == [files.LOCK]
    assert os.listdir(tmp_path) == ["run"]
    with pytest.raises(DataError, match="is a file, expected a folder"), files.locked(folder / "result", DataError):
        pass


def test_the_lock_of_a_dead_process_clears_itself(tmp_path: Path) -> None:
    code = "import os, signal, sys\nfrom gpulstm.arrays import files\nfrom gpulstm.errors import DataError\n"
    code += "with files.locked(sys.argv[1], DataError): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert os.listdir(tmp_path) == [files.LOCK]
    with files.locked(tmp_path, DataError):
        assert (tmp_path / files.LOCK).read_text().strip() == str(os.getpid())
    assert not os.listdir(tmp_path)
