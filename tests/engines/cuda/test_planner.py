"""The ways that the planner considers: by the thresholds, by what the user names, by what a card has."""

from __future__ import annotations

import dataclasses

import pytest
from variables import SetVariable

import gpulstm
from gpulstm.arrays.gemm import TENSOR_TILES, TILES
from gpulstm.engines.cuda import engine, planner
from gpulstm.engines.cuda.planner import Card, Forms
from gpulstm.engines.spec import Call, Plan, StackSpec
from gpulstm.errors import ConfigError

H100, T4 = Card(132, 232448, 65536, 90), Card(40, 65536, 65536, 75)
SPEC = StackSpec("lstm", 64, 256)


def forms(spec: StackSpec, batch: int, card: Card = H100, tensor: bool = False) -> Forms:
    """The forms for a stack on a card."""
    return planner.choose_forms(spec, batch, card, tensor)


def ways(spec: StackSpec, steps: int, batch: int, training: bool = True, card: Card = H100) -> list[str]:
    """The ways that are tried, the best guess first."""
    plan = Plan(Call(spec, "cuda:0", steps, batch, training), engine)
    return [str(way) for way in planner.candidates(plan, forms(spec, batch, card))]


def test_the_thresholds_name_three_ways() -> None:
    assert ways(SPEC, 100, 64) == ["persistent, graph", "fused, graph", "persistent"]
    assert ways(SPEC, 100, 256) == ["first, graph", "fused, graph", "first"]
    large = StackSpec("lstm", 1024, 2048)  # no persistent kernel, and products that cuBLAS is better at
    assert ways(large, 100, 512) == ["first", "fused", "first, graph"]
    small = StackSpec("lstm", 8, 64, dtype="float64")
    assert ways(small, 50, 32) == ["fused, graph", "first, graph", "fused"]
    assert ways(dataclasses.replace(small, num_layers=2), 50, 32) == [
        "fused, graph",
        "fused, graph, wavefront",
        "first, graph",
    ]


def test_thresholds_are_where_they_are_said_to_be() -> None:
    at, beyond = (ways(StackSpec("lstm", 8, 64), 50, planner.PERSISTENT_ROWS + more)[0] for more in (0, 1))
    assert (at, beyond) == ("persistent, graph", "fused, graph")
    wide = StackSpec("gru", 8, 512, dtype="float64")
    rows = planner.BLAS_NUMBERS // 512
    assert [ways(wide, 5, count)[0].split(",")[0] for count in (rows - 1, rows)] == ["fused", "first"]
    call = Call(StackSpec("rnn", 64, 64), "cuda:0", 1, 1 << 10, True)
    steps = planner.GRAPH_PRODUCTS // (3 * call.batch * 64 * 128)
    assert planner.graph_guess(Plan(dataclasses.replace(call, steps=steps), engine))
    assert not planner.graph_guess(Plan(dataclasses.replace(call, steps=steps + 1), engine))


def test_outside_training_nothing_depends_on_the_steps() -> None:
    for spec in (SPEC, StackSpec("lstm", 512, 1024), dataclasses.replace(SPEC, num_layers=2, dtype="float64")):
        assert len({tuple(ways(spec, steps, 64, training=False)) for steps in (2, 10, 1000, 1 << 20)}) == 1


def test_what_has_no_persistent_kernel_says_why() -> None:
    assert forms(dataclasses.replace(SPEC, dtype="float64"), 64).layout == "the persistent kernel has no float64"
    alone = dataclasses.replace(H100, cooperative=False)
    assert forms(SPEC, 64, alone).layout == "the card cannot launch cooperatively"
    assert "the weights of a block need" in str(forms(StackSpec("lstm", 1024, 2048), 512).layout)
    assert "persistent" not in forms(SPEC, 64, alone).names


def test_a_step_of_more_numbers_than_32_bits_count_is_refused() -> None:
    call = Call(StackSpec("lstm", 8, 1 << 20), "cuda:0", 5, 1 << 10)
    assert str(planner.refusal(call)).startswith("a step has 4294967296 numbers")
    assert str(engine.supports(call)) == planner.refusal(call)


def test_tiles_follow_the_product() -> None:
    assert forms(dataclasses.replace(SPEC, dtype="float16"), 512, tensor=True).tiles[0] in TENSOR_TILES
    assert forms(SPEC, 1).tiles[0] == TILES[0]
    small = StackSpec("lstm", 64, 64, dtype="float16")  # a forward step is 64 deep, a backward step 256
    assert forms(small, 4, tensor=True).tiles == (TILES[0], TENSOR_TILES[0])
    assert forms(StackSpec("lstm", 64, 2048), 512).tiles[0] == TILES[-1]


def test_a_layout_is_put_in_words() -> None:
    whole = forms(StackSpec("lstm", 64, 1024, dtype="float16"), 16, tensor=True)
    assert str(whole.layout) == "64 blocks of 16 units on tensor cores, weights in registers"
    part = forms(StackSpec("lstm", 512, 1536), 4)
    assert "weights to 40% in registers, the rest in shared memory" in str(part.layout)


@pytest.mark.parametrize(
    ("card", "dtype", "reason"),
    [
        (T4, "float32", "tensor cores take float32 from compute capability 8.0 on, the card has 7.5"),
        (T4, "float16", None),
        (T4, "bfloat16", "tensor cores take bfloat16 from compute capability 8.0 on, the card has 7.5"),
        (H100, "bfloat16", None),
        (H100, "float32", None),
        (Card(10, 49152, 65536, 61), "float16", "tensor cores take float16 from compute capability 7.5 on"),
    ],
)
def test_tensor_tiles_are_for_cards_that_have_them(card: Card, dtype: str, reason: str | None) -> None:
    spec = dataclasses.replace(SPEC, dtype=dtype)
    if reason is None:
        assert planner.choose_forms(spec, 64, card, False, "4").tiles == (TENSOR_TILES[0],) * 2
        return
    with pytest.raises(ConfigError, match=f"GPULSTM_CUDA_TILE is '4', but {reason}"):
        planner.choose_forms(spec, 64, card, False, "4")


def test_what_the_user_names_goes_before(set_variable: SetVariable) -> None:
    stack = dataclasses.replace(SPEC, num_layers=2)
    set_variable(planner.FORM, "fused")
    assert ways(SPEC, 100, 64) == ["fused, graph"]
    set_variable(planner.WAVEFRONT, "1")
    assert ways(stack, 100, 64) == ["fused, graph, wavefront"]
    set_variable(planner.GRAPH, "0")
    assert ways(stack, 100, 64) == ["fused"]
    set_variable(planner.FORM, None)
    assert ways(stack, 100, 64) == ["persistent", "fused"]
    set_variable(planner.GRAPH, "1")
    set_variable(planner.WAVEFRONT, "0")
    assert ways(dataclasses.replace(stack, dtype="float64"), 50, 64) == ["fused, graph", "first, graph"]


@pytest.mark.cuda
def test_the_plan_of_the_device_at_hand_is_explained(set_variable: SetVariable) -> None:
    layer = gpulstm.LSTM(3, 8, 2, device="cuda")
    assert "; by the thresholds)" in str(layer.explain(20, 4, training=True))
    set_variable(planner.FORM, "fused")
    set_variable(planner.TILE, "2")
    assert "one fused kernel a step, tiles 32x64" in str(layer.explain(20, 4))
    set_variable(planner.FORM, "first")
    assert layer.explain(20, 4).form == "first"


@pytest.mark.cuda
def test_an_override_that_is_none_is_refused(set_variable: SetVariable) -> None:
    layer = gpulstm.LSTM(2, 3, device="cuda")
    layer.explain(2, 2)  # also for a shape whose forms are known already
    for name in (planner.FORM, planner.TILE):
        set_variable(name, "quick")
        with pytest.raises(ConfigError, match=f"{name} is 'quick', expected"):
            layer.explain(2, 2)
        set_variable(name, None)
