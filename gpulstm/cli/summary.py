"""What `gpulstm train` says about a table before it trains: rows, series, step, seasons, parts and windows."""

from __future__ import annotations

import shlex

import numpy as np

from gpulstm.data.options import TableOptions
from gpulstm.data.seasons import seasons_of
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import chronological_cuts
from gpulstm.data.times import format_time
from gpulstm.forecast.config import ForecasterConfig


def summary(series: SeriesSet, config: ForecasterConfig) -> list[str]:
    """Lines on the series, and on what training with `config` makes of them; errors as `chronological_cuts`."""
    return [_table(series), *_columns(series), *_step(series, config), *series.notes, *_parts(series, config)]


def guessed(series: SeriesSet, asked: TableOptions) -> list[str]:
    """Which columns were taken for what without being named, as the options that name them, and what else to say."""
    time = () if series.origin.time is None else (series.origin.time,)
    roles: dict[str, tuple[str, ...]] = {"time": time, "target": series.target_names, "series": series.origin.series}
    told = {role: names for role, names in roles.items() if not getattr(asked, role)}
    if not told or told == {"series": ()}:  # one series is what nobody has to be told
        return []
    words = [f"--{role} {shlex.quote(name)}" for role, names in told.items() for name in names[:8]]
    more = len(told.get("target", ())) - 8
    parts = [f"guessed: {' '.join(words)}{f' and {more} more' if more > 0 else ''}"] if words else []
    parts += [f"no column of {'times' if role == 'time' else role}" for role, names in told.items() if not names]
    line = "; ".join(parts)
    return [line, "other columns: say so with --time, --target, --series; --past, --future and --static add inputs"]


def _table(series: SeriesSet) -> str:
    of = ""
    if len(series) > 1:
        shown = ", ".join(series.names[:4]) + (", ..." if len(series) > 4 else "")
        of = f" in {len(series)} series ({shown}), {series.lengths.min()} to {series.lengths.max()} each"
    times = ""
    if series.time is not None and series.rows:
        first, last = (format_time(value, series.axis.form) for value in (series.time.min(), series.time.max()))
        times = f", from {first} to {last}"
    return f"rows: {series.rows}{of}{times}"


def _columns(series: SeriesSet) -> list[str]:
    first, second = series.targets, series.targets + series.past
    third = second + series.known
    groups = {
        "target": series.columns[:first],
        "past": series.columns[first:second],
        "future": series.columns[second:third],
        "static": series.columns[third : third + series.static],
        "made from times": series.columns[third + series.static :],
    }
    listed = [
        f"{role} {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" for role, names in groups.items() if names
    ]
    return [f"columns: {'; '.join(listed)}"]


def _step(series: SeriesSet, config: ForecasterConfig) -> list[str]:
    step = series.axis.step
    if step.kind == "none":
        return ["step: rows are numbered, for there is no column of times"] if series.time is None else []
    named = step.freq or f"{step.count} month{'s' if step.count > 1 else ''}, on the same day"
    zone = f", zone {series.axis.form.zone}" if series.axis.form.zone else ""
    seasons = (config.season,) if config.season else seasons_of(step, int(series.lengths.max()))
    words = " and ".join(str(season) for season in seasons)
    return [f"step: {named}{zone}; {f'season {words}' if seasons else 'no season'}"]


def _parts(series: SeriesSet, config: ForecasterConfig) -> list[str]:
    cuts = chronological_cuts(series, config.validation if config.single else 0, config.test)
    starts, stops = series.offsets[:-1], series.offsets[1:]
    rows = [
        int((cuts.train - starts).sum()),
        int((cuts.validation - cuts.train).sum()),
        int((stops - cuts.validation).sum()),
    ]
    edges = [starts, cuts.train, cuts.validation]
    words = []
    for name, count, edge in zip(("training", "validation", "test"), rows, edges, strict=True):
        begin = ""
        if count and series.time is not None:
            inside = np.flatnonzero(edge < stops)
            begin = f" from {format_time(series.time[edge[inside]].min(), series.axis.form)}"
        words.append(f"{name} {count} rows{begin}")
    lines = [f"parts: {', '.join(words)}"]
    if config.single and config.training == "windows":
        origins = cuts.train - starts - config.context - config.training_horizon + 1
        windows = int(np.maximum(-(-origins // config.stride), 0).sum())
        lines.append(
            f"windows: {windows} for training, each {config.context} rows and the {config.training_horizon} after them"
        )
    return lines
