"""The predictions of the cost model for two cards: the tables of docs/cuda-engine.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpulstm.engines.cuda import cost, planner
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


def ms(seconds: float) -> str:
    """Milliseconds to three digits."""
    return f"{1e3 * seconds:.3g}"


def tables() -> str:
    """All tables."""
    parts = [rows(card, dtype) for card in (cost.H100, cost.RTX4090) for dtype in ("float32", "float16")]
    return "\n\n".join("\n".join(part) for part in parts)


if __name__ == "__main__":
    print(tables())
