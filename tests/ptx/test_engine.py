"""Every form of the CUDA engine as a GPU would run it: NVRTC's PTX, interpreted with checks, against the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import nvrtc
import pytest
from ptx import faults
from ptx.cases import Case, run

from gpulstm.engines.cuda import persistent
from gpulstm.errors import ConfigError

pytestmark = pytest.mark.ptx

SMALL = (("processors", 8),)  # so that a group has several blocks and rows go round
SPARE = (("processors", 8), ("registers", 32768))  # all weights in shared memory

QUICK = [
    Case("fused", "lstm", "float32"),
    Case("fused", "gru", "float32", (2, 9, 3, 20), tile=1, reverse=True, lengths=True),
    Case("fused", "rnn", "float64", (3, 5, 2, 10), tile=1, masks=True, relu=True, capability=75),
    Case("fused", "lstm", "float16", (2, 17, 3, 24), tile=4, masks=True, lengths=True),
    Case("fused", "lstm", "float32", (2, 17, 3, 24), tile=4, capability=80, own=True),
    Case("fused", "lstm", "float32", hold=True, reverse=True),
    Case("persistent", "lstm", "float32", (3, 5, 3, 20), limits=SMALL, masks=True, lengths=True),
    Case("persistent", "gru", "float32", (3, 9, 3, 20), limits=SPARE, reverse=True),
    Case("persistent", "rnn", "float32", (3, 5, 3, 21), limits=SMALL, capability=75),
    Case("persistent", "lstm", "float16", (3, 17, 3, 24), tensor=True, limits=SMALL, reverse=True, masks=True),
    Case("persistent", "lstm", "float32", (3, 5, 3, 20), limits=SMALL, seed=1, late=True),
    Case("fused", "gru", "bfloat16", (2, 17, 3, 24), tile=4, masks=True, own=True),
]
LONG = [
    Case("fused", "lstm", "float32", (2, 33, 3, 20), tile=2, lengths=True),
    Case("fused", "lstm", "float32", (2, 65, 3, 36), tile=3, masks=True),
    Case("fused", "gru", "float64", (2, 33, 3, 20), tile=2),
    Case("fused", "rnn", "float64", (2, 65, 3, 36), tile=3, reverse=True),
    Case("fused", "gru", "float16", (2, 17, 3, 21), tile=5, reverse=True, lengths=True),
    Case("fused", "lstm", "float16", (2, 65, 3, 40), tile=6, masks=True),
    Case("fused", "rnn", "float16", (2, 17, 3, 21), tile=4, capability=75),
    Case("fused", "lstm", "float16", (2, 65, 3, 35), tile=6, reverse=True),
    Case("fused", "lstm", "float16", (2, 17, 3, 72), tile=4, lengths=True, reverse=True),
    Case("fused", "lstm", "float16", (2, 17, 3, 72), tile=4, hold=True, capability=75),
    Case("fused", "gru", "bfloat16", (2, 33, 3, 72), tile=5, masks=True, seed=3),
    Case("fused", "lstm", "float16", (2, 65, 3, 72), tile=6, masks=True, lengths=True, seed=6),
    Case("fused", "gru", "float32", (2, 17, 3, 24), tile=5),
    Case("fused", "rnn", "float32", (2, 65, 3, 40), tile=6, lengths=True),
    Case("fused", "lstm", "float16", (2, 5, 3, 21), tile=0),
    Case("fused", "gru", "float32", (3, 5, 3, 1), tile=0, lengths=True),
    Case("fused", "gru", "float32", hold=True, lengths=True),
    Case("fused", "lstm", "float32", (4, 5, 3, 21), own=True, seed=4),
    Case("fused", "lstm", "float64", (4, 5, 3, 21), tile=1, own=True, capability=75),
    Case("persistent", "lstm", "float32", (3, 37, 3, 40), limits=SMALL, masks=True, reverse=True),
    Case("persistent", "lstm", "float32", (2, 3, 2, 150), lengths=True),
    Case("persistent", "lstm", "float32", (2, 3, 2, 150), limits=(("registers", 256 * 143),)),
    Case("persistent", "gru", "float32", (2, 9, 2, 100), limits=(("registers", 256 * 159),), masks=True),
    Case("persistent", "rnn", "float32", (3, 70, 2, 40), limits=SMALL, relu=True),
    Case("persistent", "lstm", "float32", (3, 5, 3, 20), limits=SMALL, hold=True, reverse=True),
    Case("persistent", "lstm", "float16", (2, 5, 3, 24), limits=SMALL),
    Case("persistent", "gru", "float16", (3, 17, 3, 33), tensor=True, limits=SMALL, lengths=True),
    Case("persistent", "rnn", "float16", (3, 37, 3, 50), tensor=True, limits=SMALL, capability=75),
    Case("persistent", "lstm", "float16", (2, 9, 2, 150), tensor=True, limits=(("registers", 256 * 143),)),
    Case("persistent", "lstm", "float16", (2, 9, 2, 150), tensor=True, limits=(("registers", 32768),), capability=80),
    Case("persistent", "gru", "float32", (3, 17, 3, 24), tensor=True, limits=SMALL),
    Case("persistent", "lstm", "float32", (2, 9, 2, 100), tensor=True, limits=SPARE),
    Case("persistent", "gru", "float16", (3, 17, 3, 33), tensor=True, limits=SMALL, seed=2, late=True),
    Case("persistent", "rnn", "float32", (4, 5, 3, 21), limits=SMALL, seed=5, late=True),
    Case("persistent", "lstm", "bfloat16", (3, 17, 3, 33), tensor=True, limits=SMALL, lengths=True, reverse=True),
    Case("persistent", "gru", "bfloat16", (2, 9, 2, 150), tensor=True, limits=(("registers", 32768),), capability=80),
    Case("persistent", "lstm", "float16", (2, 33, 2, 260), tensor=True, limits=(("registers", 256 * 143),)),
    Case("fused", "lstm", "float16", (2, 33, 3, 40), tile=5, own=True, capability=75),
    Case("stepwise", "lstm", "bfloat16", (2, 5, 3, 21), lengths=True),
]


def judge(case: Case, toolkit: nvrtc.Toolkit) -> None:
    """No fault, and every result within the tolerance."""
    result = run(case, toolkit)
    assert not result.backend.faults, str(result.backend.faults)
    wrong = {name: error for name, error in result.errors.items() if not error <= case.tolerance}
    assert not wrong, wrong


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_a_form_gives_what_the_reference_gives(case: Case, toolkit: nvrtc.Toolkit) -> None:
    judge(case, toolkit)


@pytest.mark.long
@pytest.mark.parametrize("case", LONG, ids=str)
def test_more_of_each_form(case: Case, toolkit: nvrtc.Toolkit) -> None:
    judge(case, toolkit)


@pytest.mark.long
@pytest.mark.parametrize("case", [*QUICK[:4], *QUICK[6:10]], ids=str)
def test_the_newest_toolkit(case: Case, newest: nvrtc.Toolkit) -> None:
    judge(case, newest)


@pytest.mark.long
@pytest.mark.parametrize("case", [QUICK[0], QUICK[6], QUICK[9]], ids=str)
def test_the_order_of_blocks_changes_no_bit(case: Case, toolkit: nvrtc.Toolkit) -> None:
    first = run(case, toolkit).values
    for seed in (1, 2):
        other = run(dataclasses.replace(case, seed=seed, late=True), toolkit)
        assert not other.backend.faults, str(other.backend.faults)
        for name, value in first.items():
            np.testing.assert_array_equal(np.asarray(other.values[name]), np.asarray(value), name)


COUNTERS = [
    Case("persistent", "lstm", "float32", (4, 13, 3, 20), limits=SMALL, seed=1, late=True),
    Case("persistent", "gru", "float16", (3, 37, 3, 40), tensor=True, limits=(("processors", 6),), seed=2, late=True),
]


def ask(monkeypatch: pytest.MonkeyPatch, barrier: str) -> None:
    """Set the variable, for a test that reads the variables again."""
    monkeypatch.setattr(persistent, "variables", lambda: {persistent.BARRIER: barrier})


@pytest.mark.parametrize("case", COUNTERS, ids=str)
def test_blocks_that_wait_for_their_group_alone(
    case: Case, toolkit: nvrtc.Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several groups, blocks in random order, stores that come late unless released; the bits of the grid's barrier."""
    grid = run(case, toolkit).values
    ask(monkeypatch, "counters")
    judge(case, toolkit)
    for name, value in run(dataclasses.replace(case, seed=7), toolkit).values.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(grid[name]), name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("red.release.gpu", "red.relaxed.gpu"),
        ("ld.acquire.gpu", "ld.relaxed.gpu"),
        ("red.release.gpu", "red.release.cta"),
    ],
)
def test_a_counter_that_orders_nothing_is_seen(
    old: str, new: str, toolkit: nvrtc.Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(monkeypatch, "counters")
    result = run(COUNTERS[0], toolkit, lambda text: text.replace(old, new))
    assert result.backend.faults.kinds & {faults.GRID_RACE, faults.SCOPE}


def test_a_barrier_of_no_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, "none")
    with pytest.raises(ConfigError, match="GPULSTM_CUDA_BARRIER is 'none', expected grid or counters"):
        persistent.counts_arrivals()
