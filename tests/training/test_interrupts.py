"""Signals within one process: the first stops a run, the second ends it; the command line is cli/test_signals.py."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from gpulstm.training import interrupts


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers of the test's process are put back."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    interrupts.received = None
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupts.received = None


def test_the_first_signal_stops_and_the_second_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stops: list[str] = []
    with interrupts.deferred(lambda: stops.append("stop")):
        signal.raise_signal(signal.SIGINT)
        assert stops == ["stop"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert interrupts.status() == 128 + signal.SIGINT


def test_signals_that_a_program_handles_itself_are_left_to_it() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with interrupts.deferred(lambda: seen.append(-1)):
        signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]


def test_a_program_that_asks_for_it_has_all_ending_signals_taken_alike() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.handle(interrupts.interrupt)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup asked
    stops: list[str] = []
    with interrupts.deferred(lambda: stops.append("stop")):
        signal.raise_signal(signal.SIGTERM)
    assert stops == ["stop"] and interrupts.status() == 128 + signal.SIGTERM


def test_an_interrupt_makes_the_next_signal_final() -> None:
    interrupts.handle(interrupts.interrupt)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is interrupts.leave


def test_other_threads_change_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside: list[object] = []

    def work() -> None:
        with interrupts.deferred(lambda: None):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
