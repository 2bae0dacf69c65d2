"""`gpulstm bench --suite long`: peak memory and time of training steps on long sequences, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gpulstm.arrays import files
from gpulstm.bench import long_sequences
from gpulstm.bench.long_sequences import Measured
from gpulstm.bench.report import machine
from gpulstm.cli.console import aside, console, new_files, number, say, table
from gpulstm.errors import ConfigError
from gpulstm.plots import figures


def bench_long(
    shapes: Sequence[str], rounds: int, threads: int, peers_python: str | None, output: Path | None, force: bool
) -> None:
    """Measure, print a table, and write `bench.json` and `memory.png` where there is a folder for them."""
    chosen, who = long_sequences.chosen_cases(shapes), long_sequences.contenders(peers_python)
    paths = [] if output is None else new_files(output, ["bench.json", "memory.png"], force)
    facts = machine("cpu")
    if facts["load"] > 0.3:
        say(f"this machine is busy (load {facts['load']:.1f}): times will look longer than they are")
    stderr, done, total = aside(), 0, len(chosen) * len(who)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        waiting = progress.add_task(f"0 of {total} measurements")

        def report(measured: Measured) -> None:
            nonlocal done
            done += 1
            last = f"{measured.case.name}, {measured.contender}"
            progress.update(waiting, description=f"{done} of {total} measurements, last {last}")

        results = long_sequences.run(chosen, who, rounds=rounds, threads=threads, report=report)
    console().print(f"{facts['processor']}, {facts['cores']} cores, NumPy {facts['numpy']}")
    console().print(results_table(results))
    for contender, reason in {result.contender: result.reason for result in results if result.reason}.items():
        say(f"not measured: {contender}: {reason}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        files.write(paths[0], long_sequences.as_json(results).encode(), ConfigError)
        draw(paths[1], results)
        say(f"written: {', '.join(map(str, paths))}")


def results_table(results: Sequence[Measured]) -> Any:
    """A row a case: the peak over the start in MiB and the median seconds of a step, by contender."""
    names = list(dict.fromkeys(result.contender for result in results if result.seconds))
    rows = []
    for case in dict.fromkeys(result.case for result in results):
        by_name = {result.contender: result for result in results if result.case == case}
        cells = [f"{number(by_name[name].mebibytes)} / {number(by_name[name].median, 3)}" for name in names]
        rows.append([case.name.rpartition(" ")[0], *cells])
    title = "One training step, loss on the last output: peak MiB over the start / seconds"
    return table(["T,B,I,H,L", *names], rows, title=title)


def draw(path: Path, results: Sequence[Measured]) -> Path:
    """Peak memory over the length of the sequence."""
    names = list(dict.fromkeys(result.contender for result in results if result.seconds))
    lines = {
        name: [(r.case.steps, r.mebibytes) for r in results if r.contender == name and r.seconds] for name in names
    }
    case = results[0].case
    shape = f"B={case.batch} I={case.inputs} H={case.hidden} L={case.layers}, float32"
    return figures.memory(path, lines, title=f"Peak memory of a training step, {shape}")
