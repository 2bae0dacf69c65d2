"""Signals that ask a process to end: the first lets a training run stop with its state whole.

Ctrl-C is one of them in every program.  A program that wants a service manager's SIGTERM and a closed terminal's SIGHUP
to be taken the same way calls `handle(interrupt)`, as the command line does; in other programs they do what they did.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

received: int | None = None  # the number of the last one
interrupted = False  # whether `interrupt` has ended what was going on


def interrupt(number: int, frame: Any) -> None:
    """A handler that ends what is going on, as Python's own does for Ctrl-C; a further signal ends the process at once.

    Raises:
        KeyboardInterrupt: always.
    """
    global interrupted, received
    interrupted, received = True, number
    handle(leave)
    raise KeyboardInterrupt


def leave(number: int, frame: Any) -> None:
    """A handler that ends the process at once, with one sentence: where there is nothing to clean up, or no time."""
    with contextlib.suppress(OSError):  # a service may have no standard error
        os.write(2, b"gpulstm: interrupted\n")
    os._exit(128 + number)


def handle(handler: Callable[[int, Any], None]) -> None:
    """Use `handler` for all signals that ask this process to end, but those that it was told to ignore (nohup)."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def status() -> int:
    """The exit status of a process that a signal ended, as a shell gives it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (signal.SIGINT if received is None else received)


AsBefore = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def deferred(stop: Callable[[], None]) -> Iterator[AsBefore]:
    """Let the first such signal call `stop`; the second does what it always does.

    Outside of the main thread, and for signals that a program handles itself, nothing is changed.

    Yields:
        a context manager within which every such signal does what it always does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield contextlib.nullcontext
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: old for number, old in before.items() if old in (signal.default_int_handler, interrupt)}
    has_come = False

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    def once(number: int, frame: Any) -> None:
        nonlocal has_come
        global received
        has_come, received = True, number
        restore()
        stop()

    def defer() -> None:
        for number in before:
            signal.signal(number, once)

    @contextlib.contextmanager
    def as_before() -> Iterator[None]:
        restore()
        try:
            yield
        finally:
            if not has_come:
                defer()

    defer()
    try:
        yield as_before
    finally:
        restore()
