"""The cost model and what is chosen by it, on cards that need not be there."""

from __future__ import annotations

import dataclasses
import runpy

import pytest
from paths import DOCS, TOOLS

import gpulstm
from gpulstm.arrays.gemm import TENSOR_TILES, TILES
from gpulstm.engines.cuda import cost, planner
from gpulstm.engines.spec import Call, StackSpec

SPEC = StackSpec("lstm", 64, 256, 2)


@pytest.mark.parametrize("card", [cost.H100, cost.RTX4090], ids=lambda card: card.name)
def test_small_layers_stay_on_the_card_and_large_ones_go_to_blas(card: cost.Card) -> None:
    assert planner.plan_for(SPEC, 100, 64, True, card).form == "persistent"
    large = planner.plan_for(StackSpec("lstm", 1024, 2048), 100, 512, True, card)
    assert large.form == "first"
    assert "bytes of shared memory" in (large.declined or "")
    assert "not persistent: the weights of a block need" in str(large)


def test_what_has_no_persistent_kernel_is_fused() -> None:
    wide = planner.plan_for(dataclasses.replace(SPEC, dtype="float64"), 100, 64, True, cost.H100)
    assert (wide.form, wide.declined) == ("fused", "the persistent kernel has no float64")
    alone = dataclasses.replace(cost.H100, name="H100 without cooperative launches", cooperative=False)
    plan = planner.plan_for(SPEC, 100, 64, True, alone)
    assert (plan.form, plan.declined) == ("fused", "the card cannot launch cooperatively")
    assert plan.layout is None


def test_tiles_follow_the_product() -> None:
    half = planner.plan_for(dataclasses.replace(SPEC, dtype="float16"), 100, 512, True, cost.H100, tensor=True)
    assert half.forward_tile in TENSOR_TILES
    one = planner.plan_for(SPEC, 100, 1, False, cost.H100)
    assert one.forward_tile == TILES[0]
    many = planner.plan_for(StackSpec("lstm", 64, 2048), 100, 512, True, cost.H100)
    assert many.forward_tile == TILES[-1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 8, 128), (50, 32, 8, 64), (100, 64, 64, 256), (100, 64, 512, 1024)], ids=str)
def test_no_prediction_is_below_the_floor(size: tuple[int, int, int, int], training: bool) -> None:
    steps, batch, inputs, hidden = size
    for card in (cost.H100, cost.RTX4090):
        for dtype in ("float16", "float32", "float64"):
            spec = StackSpec("lstm", inputs, hidden, dtype=dtype)
            plan = planner.plan_for(spec, steps, batch, training, card, tensor=dtype == "float16")
            layer = planner.layers(spec, steps, batch)[0]
            alone = dataclasses.replace(layer, inputs=0)
            floor = cost.floor(card, alone, False)[0]
            assert dict(plan.seconds)[plan.form] == min(seconds for _, seconds in plan.seconds)
            for form, seconds in plan.seconds:
                assert seconds > floor, form


def test_a_graph_is_for_what_launches_would_slow() -> None:
    small, large = StackSpec("lstm", 8, 64, 2), StackSpec("lstm", 1024, 2048)
    times = []
    for spec, batch in ((small, 32), (large, 512)):
        plan = planner.plan_for(spec, 50, batch, True, cost.H100)
        replayed, launched = planner.graph_seconds(spec, 50, batch, plan, cost.H100)
        times.append(replayed / launched)
    assert times[0] < 1 < times[1]


def test_more_work_costs_more() -> None:
    layer = planner.layers(SPEC, 100, 64)[0]
    wider = dataclasses.replace(layer, hidden=1024)
    for backward in (False, True):
        assert cost.step_first(cost.H100, wider, backward) > cost.step_first(cost.H100, layer, backward)
        for tile in TILES:
            thin, thick = (cost.step_fused(cost.H100, one, tile, backward) for one in (layer, wider))
            assert thick > thin
            assert cost.step_fused(cost.H100, layer, tile, backward, recorded=True) <= thin


def test_weights_in_registers_and_tensor_cores_are_predicted_to_be_faster() -> None:
    spec = StackSpec("lstm", 512, 1024, dtype="float16")
    fewer = dataclasses.replace(cost.H100, name="H100 with half of its registers", registers=32768)
    seconds = [
        dict(planner.plan_for(spec, 100, 64, True, card, tensor=tensor).seconds)["persistent"]
        for card, tensor in ((cost.H100, True), (cost.H100, False), (fewer, False))
    ]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[1] < seconds[2]
    plan = planner.plan_for(spec, 100, 64, True, cost.H100, tensor=True)
    assert "one persistent kernel, 128 blocks of 16 units on tensor cores, weights in registers;" in str(plan)
    part = planner.plan_for(StackSpec("lstm", 512, 1536), 100, 4, True, cost.H100)
    assert "weights to 40% in registers, the rest in shared memory" in str(part)


@pytest.mark.cuda
def test_the_plan_of_the_device_at_hand_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = gpulstm.LSTM(3, 9, device="cuda")
    said = str(layer.explain(20, 4, training=True))
    assert "engine: cuda (hoisted input product, then " in said
    assert "predicted for the recurrence: first " in said
    monkeypatch.setenv(planner.FORM, "fused")
    monkeypatch.setenv(planner.TILE, "2")
    assert "one fused kernel a step, tiles 32x64" in str(layer.explain(20, 4))
    monkeypatch.setenv(planner.FORM, "first")
    assert "a product and a fused gate kernel a step" in str(layer.explain(20, 4))
    card = planner.card_of("cuda:0")
    assert card.processors > 0
    assert card.clock > 0
    assert planner.plan(Call(layer.spec, "cuda:0", 20, 4)).form == "first"


def test_the_documented_predictions_are_those_of_the_model() -> None:
    page = (DOCS / "cuda-engine.md").read_text(encoding="utf-8")
    for table in runpy.run_path(str(TOOLS / "predictions.py"))["tables"]():
        assert table in page
