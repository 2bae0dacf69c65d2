"""From a file, frame or array to series: roles, order, duplicates, missing rows, categories, and what dates make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpulstm.data import gaps
from gpulstm.data.covariates import made_names
from gpulstm.data.labels import Labels
from gpulstm.data.options import TableOptions
from gpulstm.data.plain_arrays import from_array, is_array
from gpulstm.data.series import Ahead, Origin, SeriesSet, spans
from gpulstm.data.time_axis import Axis, Step, given_step, infer_step, month_days
from gpulstm.data.times import TimeForm, format_time
from gpulstm.errors import ConfigError, DataError, option

if TYPE_CHECKING:
    from gpulstm.data.columns import Columns
    from gpulstm.data.frames import Source
    from gpulstm.data.roles import Roles

_MOST_GAPS = 0.5  # share of rows that may be missing where no rule was chosen
_MOST_ROWS = 100  # rows put in for each row there is, at most, under any rule


def load_series(
    data: Any,
    options: TableOptions | None = None,
    *,
    like: SeriesSet | None = None,
    guess: bool = False,
    **named: Any,
) -> SeriesSet:
    """Read series from a file, a frame, a dict of columns or an array.

    Args:
        data: the table; several series stand below one another (long format) with a column of their names, or come as
            an array `(series, time, features)`; arrays `(time,)` and `(time, features)` are one series, and their
            columns are numbered from 0.  A path may be `"-"` for standard input.
        options: how the table is to be read; or its fields by name, as `target=` or `missing=`.
        like: series that were read before, in whose roles, categories and step this table is read.
        guess: take the column that plainly tells the series apart, and say so, where none was named.

    Raises:
        DataError: a file, column, cell or time that cannot be used; the message names it.
        ConfigError: roles or rules that no table can have.
    """
    if isinstance(data, SeriesSet):
        if options is not None or named:
            raise ConfigError("the series were read already; roles of columns are given when they are read")
        return data
    options = TableOptions(**named) if options is None else replace(options, **named)
    if like is not None:
        options = as_before(options, like)
    if is_array(data):
        return _finish_array(data, options, like)
    return Loader(data, options, like, guess).load()


def as_before(options: TableOptions, like: SeriesSet) -> TableOptions:
    """Options that read a table in the roles that `like` was read in."""
    roles = like.origin.roles
    return replace(
        options,
        target=roles.get("target", like.target_names),
        past=roles.get("past", ()),
        future=roles.get("future", ()),
        static=roles.get("static", ()),
        time=like.origin.time,
        series=like.origin.series,
        calendar=like.calendar,
        holidays=like.holidays,
        missing=like.missing,
    )


@dataclass
class Loader:
    """One table on its way to a set."""

    data: Any
    options: TableOptions
    like: SeriesSet | None
    guess: bool
    ahead: bool = False  # whether the table holds future covariates alone

    def load(self) -> SeriesSet:
        """The set."""
        from gpulstm.data.columns import read_columns
        from gpulstm.data.roles import decide
        from gpulstm.data.table_files import open_source

        options = self.options
        made = made_names(options.calendar, options.holidays)
        source = open_source(self.data, options)
        roles = decide(source, options, made, need_target=not self.ahead)
        if made and roles.time is None:
            raise ConfigError(f"{option('calendar')} needs a time column; give its name as {option('time', ...)}")
        levels = {} if self.like is None else self.like.origin.levels
        table = read_columns(source, roles, options, levels)
        return self._set(source, roles, table)

    def _set(self, source: Source, roles: Roles, table: Columns) -> SeriesSet:
        options, label = self.options, source.label

        def where(row: int) -> str:
            return f"{source.word} {source.first + row} of {label}"

        notes = [*roles.notes, *table.notes]
        if roles.ignored and options.target is None:
            notes.append(f"columns ignored, which hold no numbers: {some(roles.ignored)}")
        form = table.form
        names = joined(table.ids)
        _finite(table, roles, where)
        rows = gaps.grouped(table.values, table.time, table.codes, max(len(names), 1))
        notes += [_sorted_note(rows.backwards, source)] if rows.backwards else []
        names = names or ("series",)
        axis, new = Axis(form=form), None
        if rows.time is not None:
            panel = self._duplicates(source, roles, rows, form, where, names)
            if panel is not None:
                return panel
            axis = self._axis(rows, form)
            new = self._regular(rows, axis, where, label, names, notes)
        return self._finished(roles, table, rows, axis, new, names, notes, where)

    # -- times -------------------------------------------------------------------------------------------------------
    def _duplicates(
        self,
        source: Source,
        roles: Roles,
        rows: gaps.Rows,
        form: TimeForm,
        where: Callable[[int], str],
        names: Sequence[str],
    ) -> SeriesSet | None:
        """Refuse or merge rows with the same time; the set by another column where that tells series apart."""
        from gpulstm.data.roles import guess_series

        equal = gaps.equal_times(rows)
        if not equal.any():
            return None
        assert rows.time is not None
        first = int(np.argmax(equal))
        before, row = sorted((rows.number(first), rows.number(first + 1)))
        if not roles.series and self.options.duplicates == "refuse":
            found = [roles.names[at] for at in guess_series(source, roles)]
            if found and self.guess:
                again = replace(self, options=replace(self.options, series=tuple(found))).load()
                note = (
                    f"times repeat, and {' and '.join(found)} tells the series apart: taken as {option('series', ...)}"
                )
                return replace(again, notes=(note, *again.notes))
            if found:
                raise DataError(
                    f"{where(row)} has the time {format_time(rows.time[first], form)} of {where(before)}, and column "
                    f"{' with '.join(map(repr, found))} tells the series apart; say "
                    f"{option('series', found[0] if len(found) == 1 else found)}"
                )
        if self.options.duplicates != "refuse":
            count = int(equal.sum())
            gaps.merge_duplicates(rows, equal, self.options.duplicates)
            rows.notes.append(f"{count} rows repeat a time: {self.options.duplicates} kept")
            return None
        series = int(np.searchsorted(rows.offsets, first, side="right") - 1)
        of = f" of series {names[series]!r}" if roles.series else ""
        hint = "" if roles.series else f", or name the column of the series as {option('series', ...)}"
        raise DataError(
            f"{where(row)}{of} has the time {format_time(rows.time[first], form)} of {where(before)} "
            f"({int(equal.sum())} such); keep one with {option('duplicates', 'first')} (or last, mean, sum){hint}"
        )

    def _axis(self, rows: gaps.Rows, form: TimeForm) -> Axis:
        assert rows.time is not None
        freq = self.options.freq
        like = self.like
        if like is not None and like.has_times:
            _same_clock(form, like.axis.form, rows.time, like.time)
            step = like.axis.step
            if step.kind == "none":
                step = infer_step(rows.time, rows.offsets, form)
        elif freq is None or (isinstance(freq, str) and freq == "auto"):
            step = infer_step(rows.time, rows.offsets, form)
        else:
            step = given_step(freq, rows.time, form)
        return Axis(step, form, _days(step, rows, form))

    def _regular(
        self,
        rows: gaps.Rows,
        axis: Axis,
        where: Callable[[int], str],
        label: str,
        names: Sequence[str],
        notes: list[str],
    ) -> np.ndarray | None:
        """Put in the rows that are missing; which rows those are."""
        own = self.like is not None or self.options.freq not in (None, "auto")
        place = gaps.check_axis(rows, axis, where, own)
        lengths = np.diff(rows.offsets)
        ends = place[rows.offsets[1:][lengths > 0] - 1] + 1
        total, present = int(ends.sum()), len(place)
        share = 1 - present / total
        rule = self.options.missing
        if (share > _MOST_GAPS and rule == "auto") or total > _MOST_ROWS * present + 1000:
            assert rows.time is not None
            raise DataError(
                f"{label} is mostly gaps: its {present} rows are {100 * present / total:.2g} % of those at the step "
                f"{axis.step.freq} that holds them all; name a wider step as {option('freq', ...)}, say "
                f"{option('missing', 'zero')} where an absent row means that nothing happened, or leave the time "
                "column out to number the rows"
            )
        if not axis.step.even:
            notes.append(f"rows are not evenly spaced; they are taken as rows {_about(axis.step)} apart")
        new = gaps.put_in(rows, axis, place)
        if new is not None:
            assert rows.time is not None
            text = gaps.describe_gaps(new, rows.time, rows.offsets, names, axis)
            if rule == "refuse":
                raise DataError(f"{label}: {text}; {option('missing', 'auto')} would mask them")
            notes.append(text)
        return new

    # -- features ----------------------------------------------------------------------------------------------------
    def _finished(
        self,
        roles: Roles,
        table: Columns,
        rows: gaps.Rows,
        axis: Axis,
        new: np.ndarray | None,
        names: tuple[str, ...],
        notes: list[str],
        where: Callable[[int], str],
    ) -> SeriesSet:
        options = self.options
        values = rows.values
        targets = len(roles.targets)
        first_static = len(roles.numbers) - len(roles.static)
        if roles.static:
            _same_within(values, rows.offsets, first_static, [roles.names[at] for at in roles.static], names)
        columns, parts, counts, flags = _features(values, roles, table)
        made = made_names(options.calendar, options.holidays)
        origin = Origin(
            roles={
                "target": tuple(roles.names[at] for at in roles.targets),
                "past": tuple(roles.names[at] for at in roles.past),
                "future": tuple(roles.names[at] for at in roles.future),
                "static": tuple(roles.names[at] for at in roles.static),
            },
            levels={roles.names[at]: table.levels[at] for at in table.levels},
            time=None if roles.time is None else roles.names[roles.time],
            series=tuple(roles.names[at] for at in roles.series),
        )
        named = not isinstance(self.data, Mapping)  # the columns of a dict are arrays that came without names
        labels = Labels(
            origin.series if origin.series and (named or len(origin.series) > 1) else ("series",),
            tuple(table.ids),
            origin.time if named and origin.time is not None else "time",
            axis.form,
        )
        series = SeriesSet(
            values=parts,
            offsets=rows.offsets,
            columns=tuple(columns),
            targets=targets,
            past=counts["past"],
            future=counts["future"] + counts["static"],
            static=counts["static"],
            time=rows.time,
            names=names,
            missing=options.missing,
            axis=axis,
            labels=labels,
            origin=origin,
            flags=flags,
            notes=(*notes, *rows.notes),
        )
        if not self.ahead:
            series = _cut_ahead(series)
            series = _check_missing(series, new, rows, where, options.missing)
        if made:
            series = replace(series, calendar=options.calendar, holidays=options.holidays)
            together = np.concatenate([series.values, series.made_of(series.times)], axis=1)
            future = series.future + len(made)
            series = replace(series, values=together, columns=(*series.columns, *made), future=future)
        return series


def _finish_array(data: Any, options: TableOptions, like: SeriesSet | None) -> SeriesSet:
    for name in ("time", "series", "holidays"):
        if getattr(options, name) and like is None:
            raise ConfigError(f"{option(name)} names a column, and the table is an array, whose columns have no names")
    if options.calendar:
        raise ConfigError(f"{option('calendar')} needs a time column; an array has none")
    series = from_array(data, options)
    if np.isinf(series.values).any():
        row, column = np.argwhere(np.isinf(series.values))[0]
        raise DataError(f"column {series.columns[column]!r}, position {row} of the array is infinite")
    return _check_missing(series, None, None, lambda row: f"position {row} of the array", options.missing)


def joined(ids: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    """One name a series from its ids; several stand between slashes, escaped where one has a slash itself."""
    alone = not ids or len(ids[0]) == 1
    return tuple(str(row[0]) if alone else "/".join(str(cell).replace("/", "//") for cell in row) for row in ids)


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _about(step: Step) -> str:
    return f"about {step.amount / 1e9:.6g} s" if step.kind == "fixed" else f"about {step.amount:.6g}"


def _sorted_note(backwards: tuple[int, int], source: Source) -> str:
    first, count = backwards
    return (
        f"rows were not in the order of time and are sorted: {source.word} {source.first + first} is the first that "
        f"is earlier than the row before it ({count} such)"
    )


def _days(step: Step, rows: gaps.Rows, form: TimeForm) -> np.ndarray | None:
    if step.kind != "months":
        return None
    assert rows.time is not None
    return month_days(step, rows.time, rows.offsets, form)


def _same_clock(one: TimeForm, other: TimeForm, time: np.ndarray, before: np.ndarray | None) -> None:
    """Refuse times without a zone where the series have one, and the reverse, and numbers for dates."""
    kinds = [one.clock(time) is not None, before is not None and other.clock(before) is not None]
    if kinds[0] != kinds[1]:
        words = ["dates" if kind else "numbers" for kind in kinds]
        raise DataError(f"the table's times are {words[0]}, those of the fitted series are {words[1]}")
    if (one.zone is None) != (other.zone is None):
        zones = [zone or "no zone" for zone in (one.zone, other.zone)]
        raise DataError(
            f"the table's times have {zones[0]}, those of the fitted series have {zones[1]}; make them alike"
        )


def _finite(table: Columns, roles: Roles, where: Callable[[int], str]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # a sum may overflow where no cell is infinite
        total = np.add.reduce(table.values, axis=0)  # infinite or NaN where a cell is, without an array as large
    for column in np.flatnonzero(~np.isfinite(total)):
        infinite = np.isinf(table.values[:, column])
        if infinite.any():
            name = roles.names[roles.numbers[column]]
            raise DataError(
                f"column {name!r}, {where(int(np.argmax(infinite)))} is infinite ({int(infinite.sum())} such)"
            )


def _same_within(
    values: np.ndarray, offsets: np.ndarray, first: int, columns: Sequence[str], names: Sequence[str]
) -> None:
    """Put each series' value into all rows of its static columns, or refuse where it has several."""
    starts, lengths = offsets[:-1], np.diff(offsets)
    for column, name in enumerate(columns, start=first):
        low, high = (ufunc.reduceat(values[:, column], starts) for ufunc in (np.fmin, np.fmax))
        changing = np.flatnonzero(low < high)
        if changing.size:
            raise DataError(
                f"static column {name!r} changes within series {names[int(changing[0])]!r} "
                f"({changing.size} such); give it as {option('past', ...)} or {option('future')}"
            )
        mean = float(np.nanmean(low)) if not np.isnan(low).all() else 0.0
        values[:, column] = np.repeat(np.where(np.isnan(low), mean, low), lengths)


def _features(
    values: np.ndarray, roles: Roles, table: Columns
) -> tuple[list[str], np.ndarray, dict[str, int], tuple[int, ...]]:
    """Features of the columns: categories become one column a value."""
    names: list[str]
    if not table.levels:
        names = [roles.names[at] for at in roles.numbers]
        counts = {"past": len(roles.past), "future": len(roles.future), "static": len(roles.static)}
        return names, np.ascontiguousarray(values), counts, ()
    parts: list[np.ndarray] = []
    flags: list[int] = []
    names = []
    counts = {"target": 0, "past": 0, "future": 0, "static": 0}
    groups = (("target", roles.targets), ("past", roles.past), ("future", roles.future), ("static", roles.static))
    column = 0
    for role, positions_of in groups:
        for at in positions_of:
            cells, name = values[:, column], roles.names[at]
            column += 1
            levels = table.levels.get(at)
            if levels is None:
                names.append(name)
                parts.append(cells[:, None])
            else:
                flags += range(len(names), len(names) + len(levels))
                names += [f"{name}={level}" for level in levels]
                parts.append((cells[:, None] == np.arange(len(levels))).astype(np.float64))
            counts[role] = counts[role] + parts[-1].shape[1]
    return names, np.concatenate(parts, axis=1), counts, tuple(flags)


def _cut_ahead(series: SeriesSet) -> SeriesSet:
    """Take the last rows off whose target is empty and whose known covariates are not: they are the future table."""
    if not series.known:
        return series
    first = series.targets + series.past
    known = series.values[:, first : first + series.known]
    empty = np.isnan(series.values[:, : series.targets]).all(axis=1) & np.isfinite(known).all(axis=1)
    rows = np.arange(series.rows)
    lengths = series.lengths
    last = np.maximum.reduceat(np.where(empty, -1, rows), series.offsets[:-1])
    last = np.where((lengths > 0) & (last >= series.offsets[:-1]), last, series.offsets[1:] - 1)
    if np.array_equal(last, series.offsets[1:] - 1):
        return series
    keep, offsets = spans(series.offsets[:-1], last + 1)
    later, ahead_offsets = spans(last + 1, series.offsets[1:])
    assert series.time is not None or len(later)
    note = (
        f"the last rows with known covariates and an empty target ({len(later)} in all) are the future table of the "
        "forecast"
    )
    return replace(
        series,
        values=series.values[keep],
        offsets=offsets,
        time=None if series.time is None else series.time[keep],
        ahead=Ahead(known[later], ahead_offsets),
        notes=(*series.notes, note),
    )


def _check_missing(
    series: SeriesSet, new: np.ndarray | None, rows: gaps.Rows | None, where: Callable[[int], str], rule: str
) -> SeriesSet:
    """Refuse missing values where the rule does, or say how many there are."""
    absent = np.isnan(series.values)
    if not absent.any():
        return series
    if rule == "refuse":
        column = int(np.flatnonzero(absent.any(axis=0))[0])
        row = int(np.argmax(absent[:, column]))
        count = int(absent[:, column].sum())
        at = row if rows is None else rows.number(row)
        first, _, label = where(at).partition(" of ")
        raise DataError(
            f"column {series.columns[column]!r} of {label} has {count} missing value{'s' if count > 1 else ''}, the "
            f"first in {first}; fill the cells, or choose {option('missing', 'auto')}, forward, interpolate, mask, zero"
        )
    cells = absent[:, : series.targets]
    share = float(cells.mean()) if cells.size else 0.0
    if rule == "auto" and share > _MOST_GAPS:
        raise DataError(
            f"the table is mostly gaps: {100 * share:.3g} % of the values of {', '.join(series.target_names[:5])} are "
            f"missing; say {option('missing', 'zero')} where no value means that nothing happened, or choose "
            f"{option('missing', 'forward')}, interpolate or mask"
        )
    if rule == "auto":
        before = 0 if new is None or len(new) != series.rows else int(new.sum())
        count = int(absent.any(axis=1).sum())
        extra = count - before
        text = f"{count} rows with missing values: carried forward in the input, masked in the loss"
        if count == 1:
            text = "1 row with missing values: carried forward in the input, masked in the loss"
        if extra or not before:
            return replace(series, notes=(*series.notes, text))
        return replace(series, notes=(*series.notes, "missing rows: carried forward in the input, masked in the loss"))
    return series
