"""Verdicts: forms are checked, ways are timed by a clock that the tests set, and the file keeps what was found."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from variables import SetVariable

import gpulstm as gl
import hostgpu
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.engines.cuda import persistent, planner, trial, verdicts
from gpulstm.engines.cuda.verdicts import Verdicts, Way
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.errors import ConfigError

pytestmark = pytest.mark.cuda

Times = dict[str, float]


@pytest.fixture
def cuda() -> CupyBackend:
    """The first device."""
    backend = resolve("cuda")
    assert isinstance(backend, CupyBackend)
    return backend


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable) -> Iterator[Path]:
    """A cache of the test's own, empty, with verdicts switched on; the file is `folder / NAME`."""
    monkeypatch.setattr(verdicts, "file", lambda: tmp_path / "gpulstm" / "cuda-verdicts.json")
    set_variable(verdicts.VERIFY, "1")
    verdicts.of.cache_clear()
    yield tmp_path / "gpulstm"
    verdicts.of.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Seconds by way, 1 for those that are not named; filled with what was asked for under "asked"."""
    times: Times = {}

    def told(way: Way, work: Callable[[], Any], wait: Callable[[], None]) -> float:
        work()
        wait()
        asked.append(str(way))
        return times.get(str(way), 1.0)

    asked: list[str] = []
    times["asked"] = asked  # type: ignore[assignment]
    monkeypatch.setattr(trial, "clock", told)
    return times


def document(folder: Path) -> dict[str, Any]:
    """What the file says of the one device."""
    (device,) = json.loads((folder / "cuda-verdicts.json").read_text())["devices"].values()
    return dict(device)


def again(set_variable: SetVariable, mode: str = "1") -> None:
    """As a new process would begin."""
    verdicts.of.cache_clear()
    set_variable(verdicts.VERIFY, mode)


@pytest.mark.parametrize("fastest", ["persistent, graph", "fused, graph", "persistent"])
def test_the_fastest_way_is_taken_and_kept(fastest: str, folder: Path, clock: Times, set_variable: SetVariable) -> None:
    clock[fastest] = 0.5
    layer = gl.LSTM(3, 16, device="cuda", seed=1)
    plan = layer.explain(7, 4, training=True)
    assert (plan.form, plan.no_graph is None) == (fastest.split(",")[0], fastest.endswith("graph"))
    assert f"{fastest} 500 ms" in str(plan)
    assert clock["asked"] == ["persistent, graph", "fused, graph", "persistent"]
    kept = document(folder)
    assert kept["right"] == ["fused lstm float32", "persistent lstm float32"]
    assert kept["choices"]["lstm float32 B=4 I=3 H=16 layers=1 directions=1 training"]["way"] == fastest
    clock["asked"].clear()  # type: ignore[attr-defined]
    clock.update({"first": 0.1})
    again(set_variable)
    assert gl.LSTM(3, 16, device="cuda", seed=1).explain(70, 4, training=True).form == plan.form
    assert clock["asked"] == []


def test_three_modes(folder: Path, clock: Times, set_variable: SetVariable) -> None:
    layer = gl.LSTM(3, 16, device="cuda")
    again(set_variable, "0")
    assert "; by the thresholds)" in str(layer.explain(7, 4))
    assert not (folder / "cuda-verdicts.json").exists()
    again(set_variable, "1")
    layer.explain(7, 4)
    assert len(clock["asked"]) == 3  # type: ignore[arg-type]
    again(set_variable, "again")
    clock["fused, graph"] = 0.5
    assert layer.explain(7, 4).form == "fused"
    assert layer.explain(8, 4).form == "fused"
    assert len(clock["asked"]) == 6  # type: ignore[arg-type]
    again(set_variable, "sometimes")
    with pytest.raises(ConfigError, match="GPULSTM_CUDA_VERIFY is 'sometimes', expected 0, 1 or again"):
        layer.explain(7, 4)


@pytest.mark.parametrize(
    ("cell", "dtype", "training"),
    [
        ("lstm", "float32", True),
        ("gru", "float16", True),
        ("rnn", "float64", False),
        ("gru", "float32", False),
        ("lstm", "float16", True),
    ],
)
def test_every_form_of_this_package_is_found_right(
    cell: str, dtype: str, training: bool, folder: Path, clock: Times
) -> None:
    layer = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}[cell](5, 24, 2, device="cuda", dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.explain(9, 4, training=training)
    kept = document(folder)
    assert kept["wrong"] == {}
    assert len(kept["right"]) >= 1
    (choice,) = kept["choices"].values()
    assert len(choice["milliseconds"]) == planner.CANDIDATES


def test_a_form_that_disagrees_is_not_used_again(
    folder: Path, clock: Times, monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    original = persistent.backward

    def wrong(*arguments: Any) -> Any:
        dx, dstate = original(*arguments)
        dx[..., -1] *= 1.01
        return dx, dstate

    monkeypatch.setattr(persistent, "backward", wrong)
    layer = gl.LSTM(3, 16, device="cuda", seed=1)
    clock["persistent, graph"] = 0.1
    with pytest.warns(RuntimeWarning, match="'persistent' form of the CUDA engine is not used for lstm in float32"):
        plan = layer.explain(7, 4, training=True)
    assert plan.form == "fused"
    assert "persistent is not used: dx is" in str(plan)
    assert "off, allowed are 1e-04" in document(folder)["wrong"]["persistent lstm float32"]
    monkeypatch.setattr(persistent, "backward", original)
    again(set_variable)  # the next process neither uses nor tries it, and says nothing
    clock["asked"].clear()  # type: ignore[attr-defined]
    assert gl.LSTM(9, 16, device="cuda").explain(7, 4, training=True).form == "fused"
    assert not [way for way in clock["asked"] if way.startswith("persistent")]  # type: ignore[attr-defined]
    again(set_variable, "again")
    assert gl.LSTM(9, 16, device="cuda").explain(7, 4, training=True).form == "persistent"
    assert "persistent lstm float32" in document(folder)["right"]


def test_a_form_that_cannot_be_launched_is_not_used_again(folder: Path, clock: Times) -> None:
    if not hostgpu.simulated():
        return
    layer = gl.LSTM(3, 16, device="cuda", seed=1)
    clock["persistent, graph"] = 0.1
    with (
        hostgpu.failing("launch_cooperative=1+"),
        pytest.warns(RuntimeWarning, match="'persistent' form .* is not used .* it fails: .*LAUNCH_OUT_OF_RESOURCES"),
    ):
        plan = layer.explain(7, 4)
    assert plan.form == "fused"
    assert document(folder)["wrong"]["persistent lstm float32"].startswith("it fails: CUDA_ERROR")


def test_a_lack_of_memory_is_no_verdict(folder: Path, clock: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(way: Way, plan: Plan) -> float:
        if way.graph:
            raise MemoryError
        return 1.0

    monkeypatch.setattr(trial, "seconds", none)
    layer = gl.LSTM(3, 16, device="cuda", seed=1)
    assert layer.explain(7, 4).no_graph == "launches are faster"
    assert not (folder / "cuda-verdicts.json").exists()


def test_where_every_other_form_is_wrong_the_plainest_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "check", lambda plan: "it is a test")
    with pytest.warns(RuntimeWarning, match="not used for gru in float32 on .*: it is a test"):
        plan = gl.GRU(3, 16, device="cuda").explain(7, 4)
    assert (plan.form, plan.products) == ("first", "cublas")
    assert "every other form is wrong on this card" in str(plan)


def test_nothing_is_timed_while_the_caller_records(folder: Path, clock: Times, cuda: CupyBackend) -> None:
    layer = gl.LSTM(3, 16, device="cuda", seed=1)
    stream = cuda.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        plan = layer.explain(7, 4)
        stream.end_capture()
    assert "by the thresholds" in str(plan)
    assert clock["asked"] == []


def test_results_are_those_of_the_form_that_is_chosen(folder: Path, clock: Times, set_variable: SetVariable) -> None:
    x = np.random.default_rng(0).normal(size=(7, 4, 3)).astype("f")
    results = {}
    for form in ("persistent", "fused"):
        clock.clear()
        clock.update({"asked": [], f"{form}, graph": 0.5})  # type: ignore[dict-item]
        again(set_variable, "again")
        layer = gl.LSTM(3, 16, device="cuda", seed=1)
        results[form] = to_host(layer(layer.backend.from_host(x))[0])
        assert layer.explain(7, 4).form == form
    assert np.allclose(results["persistent"], results["fused"], atol=1e-5)


def test_a_file_of_another_kind_is_refused(folder: Path, set_variable: SetVariable) -> None:
    folder.mkdir()
    path = folder / "cuda-verdicts.json"
    for text in ("[1]", "no JSON"):
        path.write_text(text)
        again(set_variable)
        with pytest.raises(ConfigError, match="CUDA engine"):
            gl.LSTM(3, 16, device="cuda").explain(7, 4)
    path.write_text('{"gpulstm_cuda_verdicts": 0, "devices": {}}')  # of an older version: found again
    again(set_variable)
    assert "found on this card" in str(gl.LSTM(3, 16, device="cuda").explain(7, 4))


def test_a_folder_that_cannot_be_written_is_said(
    folder: Path, clock: Times, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(verdicts, "file", lambda: tmp_path / "file" / "cuda-verdicts.json")
    layer = gl.LSTM(3, 16, device="cuda")
    layer.explain(7, 4)
    assert "cannot be written: " in str(layer.explain(9, 4, training=True))


def test_ranks_follow_the_verdicts_of_the_first(folder: Path) -> None:
    call = Call(StackSpec("lstm", 3, 16), "cuda:0", 7, 4)
    ways = [Way("persistent", graph=True), Way("fused", graph=True)]
    times = {"persistent": 2.0, "fused": 1.0}
    first, other = Verdicts("card", None), Verdicts("card", None)
    chosen = first.choose(call, "float32", ways, verdicts.Trial(lambda form: None, lambda way: times[way.form]))
    other.adopt(first.document())

    def never(_: Any) -> Any:
        raise AssertionError("nothing is tried")

    assert other.choose(call, "float32", ways, verdicts.Trial(never, never)).way == chosen.way == ways[1]


def test_kinds_are_in_steps_of_a_half() -> None:
    def kind(batch: int, training: bool = True) -> str:
        return verdicts.kind_of(Call(StackSpec("lstm", 3, 100), "cuda:0", 7, batch, training), "float32")

    assert kind(1) == "lstm float32 B=1 I=3 H=128 layers=1 directions=1 training"
    assert [kind(n).split()[2] for n in (2, 3, 4, 5, 6, 7, 9, 12, 13, 97, 129)] == [
        *("B=2", "B=3", "B=4", "B=6", "B=6", "B=8", "B=12", "B=12", "B=16", "B=128", "B=192")
    ]
    assert kind(4, training=False).endswith("inference")
