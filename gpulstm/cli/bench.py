"""The command `bench`: this package and its peers on this machine, as tables, JSON and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gpulstm.arrays import files
from gpulstm.bench import cases, report, runner
from gpulstm.bench.cases import KINDS, Case, Result
from gpulstm.cli.console import aside, can_draw, console, new_files, number, polite, say, table
from gpulstm.cli.forecasts import FORECAST, bench_forecasts
from gpulstm.errors import ConfigError
from gpulstm.plots import figures

WRONG = 1  # exit code: a contender computed something else
THREADS = {"cpu": 2, "cuda": 0, "long": 0}  # where none are asked for


@polite
def bench(
    suite: Annotated[
        str,
        typer.Option(help="cpu; cuda (on a GPU, or counted under the simulator); long (memory); forecast."),
    ] = "cpu",
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"Only {', '.join(KINDS)} (may be repeated).", show_default="all but update"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="T,B,I,H,L", help="This shape in place of the suite's (may be repeated)."),
    ] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option(help="Only this one, by its name in the tables (may be repeated).", show_default="all"),
    ] = None,
    quantize: Annotated[
        str,
        typer.Option(help="With --suite cpu: weights in int8 or bfloat16, steps and inference.", show_default=False),
    ] = "",
    number_of_rounds: Annotated[
        int, typer.Option("--rounds", help="How often each contender gets its turn on a case.")
    ] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.3,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of each contender; 0 leaves it to the libraries.", show_default="2 on the cpu"),
    ] = None,
    peers_python: Annotated[
        str | None,
        typer.Option(
            help="Interpreter that has PyTorch, ONNX Runtime, OpenVINO and JAX, where this one has not; with --suite "
            "forecast one that has darts and neuralforecast.",
            envvar="GPULSTM_PEERS_PYTHON",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --suite forecast: folder of further series; see docs/forecasts.md.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="With --suite forecast: only this task (may be repeated).")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for bench.json and a picture of each kind.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of an earlier run there.")] = False,
) -> None:
    """Time this package and its peers: each alone in its process, in turn, compared with the reference first.

    The suite "long" takes training steps on sequences of 250 to 16000 steps and measures their peak memory too.

    Example: gpulstm bench --kind inference --shape 50,32,8,64,2 --peers-python ~/peers/bin/python
    """
    if suite == FORECAST:
        bench_forecasts(data, task or (), number_of_rounds, output, force, peers_python)
        return
    chosen = cases.cases(suite, kind or (cases.QUANTIZED_KINDS if quantize else ()), shape or ())
    who = cases.contenders(suite, peers_python, contender or (), quantize)
    kinds = list(dict.fromkeys(case.kind for case in chosen))
    names = ["bench.json", *(f"{name}.png" for name in kinds)]
    paths = [] if output is None else new_files(output, names, force)
    count = THREADS[suite] if threads is None else threads
    facts = report.machine(suite)
    if facts["load"] > 0.3:
        say(f"this machine is busy (load {facts['load']:.1f}): threads that wait for one another will look slow")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    stderr = aside()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        waiting = progress.add_task(f"0 of {len(chosen)} cases")
        done = 0

        def shown(case: Case, measured: list[Result]) -> None:
            nonlocal done
            done += 1
            progress.update(waiting, description=f"{done} of {len(chosen)} cases, last {case.name}")

        settings: Any = {"rounds": number_of_rounds, "seconds": seconds, "threads": count}
        limited = suite == "cpu" and any(name in report.COMPUTED for name in kinds)
        measured_limits = [runner.measured_limits(count, 3 * min(seconds, 1.0))] if limited else []
        results = runner.run(suite, chosen, who, **settings, report=shown)
        if (
            measured_limits
        ):  # a machine may slow down under load, so its limits are taken before and after, and the better holds
            measured_limits.append(runner.measured_limits(count, 3 * min(seconds, 1.0)))
    limits = report.best_of(measured_limits)
    show(kinds, results, facts, limits)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = report.as_json(suite, results, facts=facts, limits=limits, settings=settings)
        files.write(paths[0], text.encode(), ConfigError)
        written = paths[:1]
        if can_draw():
            for name, path in zip(kinds, paths[1:], strict=True):
                draw(path, name, results, str(facts.get("device", facts["processor"])))
            written = paths
        say(f"written: {', '.join(str(path) for path in written)}")
    if any(result.wrong for result in results):
        raise typer.Exit(WRONG)


def show(
    kinds: Sequence[str], results: Sequence[Result], facts: Mapping[str, Any], limits: Mapping[str, float]
) -> None:
    """All tables on stdout; who was not measured, and why, on stderr."""
    out = console()
    out.print(f"{facts['processor']}, {facts['cores']} cores, NumPy {facts['numpy']}")
    if "device" in facts:
        out.print(f"{facts['device']}, CuPy {facts['cupy']}")
    if limits:
        out.print(
            f"limits of {limits['threads']:.0f} threads: sgemm {limits['sgemm_gflops']} GFLOP/s, copies "
            f"{limits['copy_l2_gbs']} GB/s within L2, {limits['copy_memory_gbs']} GB/s in memory"
        )
    for name in kinds:
        chosen = [result for result in results if result.case.kind == name]
        if any(result.counts for result in chosen):
            out.print(counts_table(name, chosen))
            continue
        if name == "memory":
            out.print(memory_table(chosen))
            continue
        out.print(times_table(name, chosen))
        if name in report.COMPUTED:
            out.print(rates_table(name, chosen, limits))
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.wrong:
            say(f"wrong: {result.contender} on {result.case.name}: {result.wrong}")
        if result.reason:
            reasons.setdefault((result.contender, result.reason), []).append(result.case.name)
    everywhere = {name: sum(result.contender == name for result in results) for name, _ in reasons}
    for (name, reason), names in reasons.items():
        where = "" if len(names) == everywhere[name] else f" ({'; '.join(names)})"
        say(f"not measured: {name}{where}: {reason}")


def times_table(kind: str, results: Sequence[Result]) -> Any:
    """Median milliseconds of every contender, who is the best peer, and how many times as fast the first of ours is."""
    names = list(dict.fromkeys(result.contender for result in results if result.seconds or result.wrong))
    own = next((result.contender for result in results if result.side == "own" and result.seconds), "")
    base, faster = report.base_times(results), report.speedups(results).get(own, {})
    rows = []
    for case in dict.fromkeys(result.case for result in results):
        by_name = {result.contender: result for result in results if result.case == case}
        cells = [_milliseconds(by_name.get(name)) for name in names]
        rows.append([case.shape, *cells, base.get(case, (0.0, "-"))[1], _times(faster.get(case, math.nan))])
    if len(rows) > 1:
        mean = report.geometric_mean(list(faster.values()))
        rows.append(["geometric mean", *("" for _ in names), "", _times(mean)])
    divisor = report.baseline(results)
    head = f"{own} to it" if own else "-"
    return table(["T,B,I,H,L", *names, divisor or "-", head], rows, title=f"{kind} ({KINDS[kind]}): median ms")


def rates_table(kind: str, results: Sequence[Result], limits: Mapping[str, float]) -> Any:
    """What each engine of this package reaches, next to the best peer and the machine's matrix product."""
    faster = report.speedups(results)
    rows = [
        [
            result.case.shape,
            result.contender.removeprefix("gpulstm "),
            number(result.median * 1e3),
            _times(faster.get(result.contender, {}).get(result.case, math.nan)),
            number(report.gflops(result)),
            number(100 * report.share(result, limits)),
        ]
        for result in results
        if result.side == "own" and result.seconds
    ]
    heads = ["T,B,I,H,L", "engine", "ms", f"to {report.baseline(results)}", "GFLOP/s", "% of sgemm"]
    return table(heads, rows, title=f"{kind}, this package (above 1x is faster)", text=2)


def counts_table(kind: str, results: Sequence[Result]) -> Any:
    """Under the simulator: host time, and what a call asks of the device."""
    rows = [
        [
            result.case.shape,
            result.contender.removeprefix("gpulstm "),
            number(result.median * 1e6),
            *(str(sum(int(result.counts.get(key, 0)) for key in keys)) for keys in _COUNTS.values()),
        ]
        for result in results
        if result.seconds
    ]
    heads = ["T,B,I,H,L", "engine", "host us", *_COUNTS]
    return table(heads, rows, title=f"{kind}, one call (simulated device)", text=2)


def memory_table(results: Sequence[Result]) -> Any:
    """A row a case: the peak over the start in MiB and the median seconds of a step, by contender."""
    names = list(dict.fromkeys(result.contender for result in results if result.seconds))
    rows = []
    for case in dict.fromkeys(result.case for result in results):
        by_name = {result.contender: result for result in results if result.case == case}
        cells = [f"{number(by_name[name].mebibytes)} / {number(by_name[name].median, 3)}" for name in names]
        rows.append([case.shape, *cells])
    title = "One training step, loss on the last output: peak MiB over the start / seconds"
    return table(["T,B,I,H,L", *names], rows, title=title)


def draw(path: Path, kind: str, results: Sequence[Result], machine: str) -> None:
    """The picture of one kind: times relative to the baseline, or memory over the length of the sequence."""
    chosen = [result for result in results if result.case.kind == kind]
    if kind == "memory":
        ran = [result for result in chosen if result.seconds]
        lines = {name: [(one.case.steps, one.mebibytes) for one in ran if one.contender == name]
                 for name in dict.fromkeys(one.contender for one in ran)}  # fmt: skip
        shape = "B={0.batch} I={0.inputs} H={0.hidden} L={0.layers}, float32".format(chosen[0].case)
        figures.memory(path, lines, title=f"Memory of a training step, {shape}")
        return
    faster, cases = report.speedups(chosen), list(dict.fromkeys(result.case for result in chosen))
    ratios = {name: [1 / by_case.get(case, math.nan) for case in cases] for name, by_case in faster.items()}
    names = [f"T,B,I,H,L = {case.shape}" for case in cases]
    divisor = report.baseline(chosen)
    figures.timings(path, names, ratios, baseline=divisor, title=f"{kind.capitalize()}, float32, {machine}")


_COUNTS = {
    "launches": ("launches",),
    "library calls": ("blas", "lib"),
    "graph launches": ("graph_launches",),
    "copies": ("copies_h2d", "copies_d2h", "copies_d2d"),
    "memsets": ("memsets",),
    "waits": ("sync_stream", "sync_device", "sync_event", "sync_implicit"),
}


def _milliseconds(result: Result | None) -> str:
    return "-" if result is None else "wrong" if result.wrong else number(result.median * 1e3)


def _times(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}x"
