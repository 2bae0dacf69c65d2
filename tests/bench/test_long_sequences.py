"""Peak memory and time over the length of the sequence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bench_cases import TINY, peer, script

from gpulstm.bench import long_sequences
from gpulstm.bench.long_sequences import Measured
from gpulstm.errors import ConfigError


def test_memory_of_long_sequences() -> None:
    """Small, but large enough that segments show: 40 MiB kept whole."""
    who = [one for one in long_sequences.contenders() if one[0].engine]
    assert [contender.name.split(", ")[1] for contender, _ in who] == ["whole", "sqrt"]
    whole, cut = long_sequences.run(long_sequences.chosen_cases(["1000,16,8,64,1"]), who, rounds=1, threads=1)
    assert whole.reason == cut.reason == ""
    assert 20 < whole.mebibytes < 80 and cut.mebibytes < whole.mebibytes / 2
    assert "kept whole" in whole.plan and "segments of" in cut.plan
    document = json.loads(long_sequences.as_json([whole, cut, Measured(TINY, "x", reason="no")]))
    assert document["results"][0]["mebibytes"] == whole.mebibytes and document["results"][2]["reason"] == "no"


def test_a_contender_of_the_long_suite_that_cannot_run_is_named(tmp_path: Path) -> None:
    dying = script(tmp_path / "python", "exit 3")
    who = [(peer("PyTorch", path), None) for path in (dying, tmp_path / "nowhere")]
    first, second = long_sequences.run(long_sequences.chosen_cases(["2,2,2,2,1"]), who, rounds=1)
    assert first.reason == "its process ended with status 3" and math.isnan(first.mebibytes)
    assert "cannot be started: No such file" in second.reason
    assert [case.steps for case in long_sequences.chosen_cases()] == [250, 500, 1000, 2000, 4000, 8000, 16000]
    with pytest.raises(ConfigError, match="rounds is 0, threads 0"):
        long_sequences.run([], [], rounds=0)
