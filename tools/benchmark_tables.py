"""The tables of docs/benchmarks.md from a bench.json: `python tools/benchmark_tables.py docs/benchmarks/cpu.json`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HEADS = {
    "step": "One step of a stream, state kept, milliseconds",
    "inference": "Inference, outputs of all steps, milliseconds",
    "training": "Training step (forward, backward, gradients of all weights and x), milliseconds",
    "cold": "Cold start, from nothing to the first forecast, milliseconds",
}


def tables(document: dict[str, Any]) -> str:
    """Markdown: a table a kind, then what this package's native engine reaches."""
    rows: list[Row] = [row for row in document["results"] if row["median"] is not None]
    kinds = [kind for kind in HEADS if any(row["case"]["kind"] == kind for row in rows)]
    return "\n".join(times(document, kind, rows) for kind in kinds) + "\n" + rates(rows) + "\n" + fastest(rows)


def times(document: dict[str, Any], kind: str, rows: list[Row]) -> str:
    """Medians of all contenders, who is the best peer, and how many times as fast the first engine is."""
    rows = [row for row in rows if row["case"]["kind"] == kind]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    own = names[0]
    lines = [line(["T,B,I,H,L", *names, "best peer", f"{own} to it"]), line(["---"] * (len(names) + 3))]
    for shape in dict.fromkeys(shape_of(row) for row in rows):
        here = {row["contender"]: row for row in rows if shape_of(row) == shape}
        figures = [milliseconds(here[name]) if name in here else "-" for name in names]
        lines.append(line([shape, *figures, here[own]["base"], f"**{here[own]['speedup']:.2f}**"]))
    if len(lines) > 3:
        mean = document["geometric_mean_speedup"][kind][own]
        lines.append(line(["geometric mean", *("" for _ in names), "", f"**{mean:.2f}**"]))
    return f"### {HEADS[kind]}\n\n" + "\n".join(lines) + "\n"


def rates(rows: list[Row]) -> str:
    """GFLOP/s and share of the machine's matrix product of the first engine."""
    own = rows[0]["contender"]
    rows = [row for row in rows if row["contender"] == own and row["gflops"] is not None]
    lines = [line(["what", "T,B,I,H,L", "ms", "GFLOP/s", "% of sgemm"]), line(["---"] * 5)]
    for row in rows:
        figures = [milliseconds(row), f"{row['gflops']:.3g}", f"{100 * row['share_of_sgemm']:.0f}"]
        lines.append(line([row["case"]["kind"], shape_of(row), *figures]))
    return f"### {own}: rate of the products next to the machine's\n\n" + "\n".join(lines) + "\n"


def milliseconds(row: Row, which: str = "median") -> str:
    """Three figures, or the whole number."""
    value = 1e3 * row[which]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def fastest(rows: list[Row]) -> str:
    """The first engine next to the best peer by the fastest call of each, which other programs disturb least."""
    own = rows[0]["contender"]
    lines = [line(["what", "T,B,I,H,L", f"{own}, ms", "best peer", "its ms", f"{own} to it"]), line(["---"] * 6)]
    times: dict[str, list[float]] = {}
    for row in (row for row in rows if row["contender"] == own):
        kind, shape = row["case"]["kind"], shape_of(row)
        peers = [one for one in rows if one["side"] == "peer" and one["case"] == row["case"]]
        if peers:
            best = min(peers, key=lambda one: one["fastest"])
            times.setdefault(kind, []).append(best["fastest"] / row["fastest"])
            figures = [milliseconds(row, "fastest"), best["contender"], milliseconds(best, "fastest")]
            lines.append(line([kind, shape, *figures, f"**{times[kind][-1]:.2f}**"]))
    for kind, ratios in times.items():
        if len(ratios) > 1:
            lines.append(line([kind, "geometric mean", "", "", "", f"**{statistics.geometric_mean(ratios):.2f}**"]))
    return "### The same by the fastest call of each\n\n" + "\n".join(lines) + "\n"


def shape_of(row: Row) -> str:
    """`T,B,I,H,L`."""
    return ",".join(str(row["case"][name]) for name in ("steps", "batch", "inputs", "hidden", "layers"))


def line(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
