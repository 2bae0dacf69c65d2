"""Compilation of kernels: each once, up to two at a time, with a line on stderr where it takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PATIENCE = 1.0  # seconds of silence


class Compilations:
    """What has been compiled, or is being compiled, by key.

    Args:
        card: the end of the line that is shown: "compiling ... for `card`".
    """

    def __init__(self, card: str) -> None:
        self._card = card
        self._results: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()
        self._helper: ThreadPoolExecutor | None = None
        self._waiting = 0  # threads that wait
        self._since = 0.0
        self._shown = False

    def __len__(self) -> int:
        return len(self._results)

    def begin(self, key: Hashable, compile_one: Callable[[], Any]) -> None:
        """Compile on another thread, if it has not begun yet; the result is there for a later `get`."""
        with self._lock:
            if key in self._results:
                return
            if self._helper is None:
                self._helper = ThreadPoolExecutor(1, "gpulstm-compile")
            self._results[key] = self._helper.submit(compile_one)

    def get(self, key: Hashable, compile_one: Callable[[], Any]) -> Any:
        """What `compile_one` gives; it is called once for a key, here unless it has begun elsewhere.

        An error is raised each time the key is asked for.
        """
        with self._lock:
            result = self._results.get(key)
            mine = result is None
            if result is None:
                result = self._results[key] = Future()
        if not mine and result.done():
            return result.result()
        with self._patience():
            if mine:
                try:
                    result.set_result(compile_one())
                except BaseException as error:
                    result.set_exception(error)
                    raise
            return result.result()

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Say so if this takes long, once for all threads that wait at the same time."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1:
                self._since, self._shown = time.monotonic(), False
        timer = threading.Timer(PATIENCE, self._say)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._waiting -= 1
                if self._shown and not self._waiting:
                    print(f"gpulstm: compiled in {time.monotonic() - self._since:.1f} s", file=sys.stderr, flush=True)

    def _say(self) -> None:
        with self._lock:
            if self._waiting and not self._shown:
                self._shown = True
                print(
                    f"gpulstm: compiling kernels for {self._card}; they are kept for the next time",
                    file=sys.stderr,
                    flush=True,
                )
