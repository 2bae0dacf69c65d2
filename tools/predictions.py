"""The predictions of the cost model: the tables of docs/cuda-engine.md, two cards and what others have published."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpulstm.engines.cuda import cost, persistent, planner
from gpulstm.engines.spec import StackSpec

SHAPES = (
    (200, 1, 8, 64, 2),
    (50, 32, 8, 64, 2),
    (50, 256, 32, 128, 2),
    (100, 64, 64, 256, 2),
    (100, 64, 512, 1024, 1),
    (100, 512, 1024, 2048, 1),
)


def rows(card: cost.Card, dtype: str) -> list[str]:
    """A table's lines: a training pass through the stack, in milliseconds."""
    lines = [
        f"| {card.name}, {dtype} | arithmetic | bytes | first | fused | persistent | chosen | launched | graph |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for steps, batch, inputs, hidden, layers in SHAPES:
        spec = StackSpec("lstm", inputs, hidden, layers, dtype=dtype)
        plan = planner.plan_for(spec, steps, batch, True, card, tensor=dtype == "float16")
        floors = [cost.floor(card, layer, True) for layer in planner.layers(spec, steps, batch)]
        replayed, launched = planner.graph_seconds(spec, steps, batch, plan, card)
        seconds = dict(plan.seconds)
        forms = [ms(seconds[form]) if form in seconds else "-" for form in planner.FORMS]
        numbers = [*(ms(sum(part)) for part in zip(*floors, strict=True)), *forms]
        sizes = ",".join(map(str, (steps, batch, inputs, hidden, layers)))
        lines.append(f"| {sizes} | {' | '.join(numbers)} | {plan.form} | {ms(launched)} | {ms(replayed)} |")
    return lines


# Milliseconds forward, and forward and backward, on an H100 at T=1024, B=16, H=768, one layer, as read from the plots
# of FlashRNN (Pöppel et al. 2024, arXiv:2412.07752).
PUBLISHED = (
    ("cuDNN through PyTorch, float16", 2.01, 5.19),
    ("FlashRNN, fused", 4.87, 13.6),
    ("FlashRNN, alternating", 10.8, 26.5),
    ("Haste, float32", 18.4, 43.9),
    ("a loop in PyTorch", 147.0, 484.0),
)


def beside_others() -> list[str]:
    """Published times of one shape, and this project's predictions for it, with and without the input's products."""
    lines = ["| T=1024, B=16, H=768, H100 | forward | forward and backward | |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {name} | {one:g} | {both:g} | published |" for name, one, both in PUBLISHED]
    for dtype in ("float16", "float32"):
        spec, tensor = StackSpec("lstm", 768, 768, dtype=dtype), dtype == "float16"
        layer = planner.layers(spec, 1024, 16)[0]
        alone, whole, form = [], [], ""
        for training in (False, True):
            plan = planner.plan_for(spec, 1024, 16, training, cost.H100, tensor=tensor)
            form = plan.form
            alone.append(dict(plan.seconds)[form])
            whole.append(alone[-1] + cost.around(cost.H100, layer, training, own=False, tensor=tensor)[0])
        for what, numbers in (("its steps", alone), ("with the products of an input of I=768", whole)):
            lines.append(f"| {form} kernel, {dtype}, {what} | {' | '.join(map(ms, numbers))} | prediction |")
    return lines


def small_batch() -> list[str]:
    """The classic persistent RNN (Diamos et al. 2016, ICML) beside the same thing here, as predicted."""
    steps, batch, hidden = 1000, 4, 1024
    plan = planner.plan_for(StackSpec("rnn", hidden, hidden), steps, batch, False, cost.H100)
    seconds = dict(plan.seconds)
    rate = 2 * steps * batch * hidden * hidden / seconds["persistent"]
    peak = 2 * cost.H100.rate("float32") * cost.H100.processors
    times = seconds["first"] / seconds["persistent"]
    numbers = f"{rate / 1e12:.2g} | {100 * rate / peak:.0f} % | {times:.2g}"
    return [
        "| RNN, B=4, float32, forward | TFLOP/s | of peak | times a product a step | |",
        "| --- | ---: | ---: | ---: | --- |",
        "| Diamos et al. 2016, Titan X | 2.8 | 45 % | 30 | published |",
        f"| {plan.form} kernel, H=1024, H100 | {numbers} | prediction |",
    ]


# Multiprocessors, bytes of shared memory and registers that a block may have (CUDA C++ Programming Guide).
LIMITS = {
    "H100": (132, 232448, 65536),
    "A100": (108, 166912, 65536),
    "RTX 4090": (128, 101376, 65536),
    "RTX 3090": (82, 101376, 65536),
    "T4": (40, 65536, 65536),
}


def largest() -> list[str]:
    """The largest H (a multiple of 32) of an LSTM whose weights stay on a card, and the part of them in registers."""
    kinds = (("float32", False), ("float32", True), ("float16", True))
    lines = ["| card | float32 | TF32, in fragments | float16 |", "| --- | ---: | ---: | ---: |"]
    for name, limits in LIMITS.items():
        cells = []
        for dtype, tensor in kinds:
            best = "-"
            for hidden in range(32, 4097, 32):
                found = persistent.layout("lstm", dtype, 64, hidden, *limits, tensor)
                if isinstance(found, persistent.Layout) and found.forward.tensor == tensor:
                    best = f"{hidden} ({100 * found.held:.0f} %)"
            cells.append(best if name != "T4" or (dtype, tensor) != ("float32", True) else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ms(seconds: float) -> str:
    """Milliseconds to three digits."""
    return f"{1e3 * seconds:.3g}"


def tables() -> list[str]:
    """All tables, in the order of the page."""
    parts = [rows(card, dtype) for card in (cost.H100, cost.RTX4090) for dtype in ("float32", "float16")]
    return ["\n".join(part) for part in (largest(), *parts, beside_others(), small_batch())]


if __name__ == "__main__":
    print("\n\n".join(tables()))
