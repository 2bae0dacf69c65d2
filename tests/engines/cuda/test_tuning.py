"""Choices that were measured: written by the benchmark, followed by the planner, explained, refused where damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpulstm
from gpulstm.arrays.devices import to_host
from gpulstm.bench import cuda_forms
from gpulstm.bench.cases import Case, Result
from gpulstm.engines.cuda import planner, tuning
from gpulstm.errors import ConfigError

pytestmark = pytest.mark.cuda
SHAPE = (6, 3, 4, 8, 2)


def written(path: Path, **changes: Any) -> dict[str, Any]:
    """A file with a training entry for `SHAPE` on the card at hand, changed."""
    results = [Result(Case(*SHAPE, "training"), name, "own", [seconds]) for name, seconds in TIMES.items()]
    entry = next(iter(cuda_forms.entries(results, planner.card_of("cuda:0").name).values()))
    document = {tuning.KEY: 1, "entries": [{**entry, **changes}]}
    path.write_text(json.dumps(document))
    return document


TIMES = {"first": 3.0, "fused": 2.0, "fused, graph": 1.5, "fused, graph, wavefront": 1.0, "persistent": 4.0}


def layer() -> Any:
    """The layer that `written` is about."""
    return gpulstm.LSTM(SHAPE[2], SHAPE[3], SHAPE[4], device="cuda", seed=1)


def explained(training: bool = True) -> str:
    """What `explain` says of it."""
    return str(layer().explain(SHAPE[0], SHAPE[1], training=training))


def test_the_planner_follows_the_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuning.json"
    written(path)
    before = explained()
    monkeypatch.setenv(tuning.TUNING, str(path))
    said = explained()
    assert "one fused kernel a step, tiles 4x32; predicted for the recurrence: " in said
    assert f"; chosen by the tuning file {path}" in said
    assert "wavefront over the layers: in chunks of" in said
    assert "tuning file" not in before
    written(path, form="first", graph=False)
    said = explained()
    assert "a product and a fused gate kernel a step" in said
    assert f"graph: none: the tuning file {path} says that launches are faster" in said
    written(path, form="fused", graph=True, wavefront=False)
    assert f"wavefront over the layers: none, as the tuning file {path} says that it is slower" in explained()


def test_a_variable_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "tuning.json", form="first", graph=False)
    monkeypatch.setenv(tuning.TUNING, str(tmp_path / "tuning.json"))
    monkeypatch.setenv(planner.FORM, "fused")
    monkeypatch.setenv(planner.GRAPH, "1")
    said = explained()
    assert "one fused kernel a step" in said
    assert "graph: replayed" in said
    assert "tuning file" not in said


def test_what_is_not_used_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuning.json"
    monkeypatch.setenv(tuning.TUNING, str(path))
    written(path, card="another card")
    card = planner.card_of("cuda:0").name
    assert f"; tuning file not used: {path} has this shape for 'another card', the card is {card!r}" in explained()
    written(path)
    assert f"; tuning file not used: {path} has no entry for this shape" in explained(training=False)
    written(path, form="persistent", hidden=9)
    assert "tuning file not used" in explained()
    monkeypatch.setattr(planner.persistent, "layout", lambda *_: "it is too large")
    planner._cached.cache_clear()
    written(path, form="persistent")
    said = explained()
    planner._cached.cache_clear()
    assert "; tuning file not used: it asks for the persistent form, but it is too large" in said
    assert "one fused kernel a step" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the tuning file '.*' cannot be read: No such file or directory"),
        ("{", "the tuning file '.*' is no JSON: "),
        ("[]", "is no tuning file of version 1, expected one that `gpulstm bench --suite cuda --write-tuning` wrote"),
        ('{"gpulstm_cuda_tuning": 2, "entries": []}', "is no tuning file of version 1"),
        (
            '{"gpulstm_cuda_tuning": 1, "entries": [3]}',
            "entry 0 of the tuning file '.*' has card None, expected a value",
        ),
        ({"form": "quick"}, "entry 0 .* has form 'quick', expected one of first, fused, persistent"),
        ({"graph": 1}, "entry 0 .* has graph 1, expected a value of type bool"),
        ({"batch": True}, "entry 0 .* has batch True, expected a value of type int"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_sentence(
    text: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tuning.json"
    if isinstance(text, dict):
        written(path, **text)
    elif text is not None:
        path.write_text(text)
    monkeypatch.setenv(tuning.TUNING, str(path))
    with pytest.raises(ConfigError, match=message) as caught:
        explained()
    assert "\n" not in str(caught.value)


def test_the_fastest_way_of_each_case_is_written_beside_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    written(path, card="another card")
    case = Case(*SHAPE, "inference")
    results = [Result(case, name, "own", [seconds]) for name, seconds in TIMES.items()]
    results.append(Result(case, "persistent, graph", "own", [0.1], wrong="it computes something else"))
    results.append(Result(Case(*SHAPE, "training"), "first", "own", reason="not here"))
    assert cuda_forms.write(path, results) == 1
    entries = list(tuning.load(path).values())
    assert [entry["card"] for entry in entries] == ["another card", planner.card_of("cuda:0").name]
    assert {name: entries[1][name] for name in tuning.CHOICE} == cuda_forms.WAYS["fused, graph, wavefront"]
    assert entries[1]["milliseconds"]["first"] == 3000


def test_the_command_measures_every_form_and_the_planner_takes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tuning.json"
    bench = [sys.executable, "-m", "gpulstm", "bench", "--suite", "cuda", "--kind", "training", "--shape", "3,2,4,8,2"]
    short = ["--rounds", "1", "--seconds", "0.001"]
    run = subprocess.run([*bench, "--write-tuning", str(path), *short], capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 choices written to" in run.stderr
    (entry,) = tuning.load(path).values()
    assert set(entry["milliseconds"]) == set(cuda_forms.WAYS)
    monkeypatch.setenv(tuning.TUNING, str(path))
    tuned_layer = gpulstm.LSTM(4, 8, 2, device="cuda", seed=1)
    assert f"chosen by the tuning file {path}" in str(tuned_layer.explain(3, 2, training=True))
    x = tuned_layer.backend.xp.ones((3, 2, 4), "f")
    y = [to_host(tuned_layer.forward(x)[0]) for _ in range(3)]
    monkeypatch.delenv(tuning.TUNING)
    assert abs(y[2] - to_host(gpulstm.LSTM(4, 8, 2, device="cuda", seed=1)(x)[0])).max() < 1e-5
    for wrong, message in (
        ([*bench[:5], "cpu", "--write-tuning", str(path)], "--write-tuning needs --suite cuda"),
        ([*bench, "--kind", "step", "--write-tuning", str(path)], "leave out --kind step"),
        ([*bench, "--write-tuning", str(tmp_path / "no" / "file")], "whose folder is not there"),
    ):
        run = subprocess.run(wrong, capture_output=True, text=True, env=os.environ)
        assert run.returncode != 0
        assert message in " ".join(run.stderr.split())
