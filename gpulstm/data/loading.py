"""From a file, frame or array to series: roles, order, duplicates, missing rows, categories, and what dates make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm.data import gaps
from gpulstm.data.columns import Columns, array_columns, read_columns
from gpulstm.data.covariates import made_names
from gpulstm.data.frames import Source
from gpulstm.data.labels import Labels
from gpulstm.data.options import TableOptions
from gpulstm.data.plain_arrays import is_array
from gpulstm.data.roles import Roles, decide, guess_series
from gpulstm.data.series import Ahead, Origin, SeriesSet, spans
from gpulstm.data.table_files import open_source
from gpulstm.data.time_axis import Axis, Step, given_step, infer_step, month_days
from gpulstm.data.times import TimeForm, format_time
from gpulstm.errors import ConfigError, DataError, option

MOST_LEVELS = 200  # values of a category that are one column each
_MOST_GAPS = 0.5  # share of rows that may be missing where no rule was chosen
_MOST_ROWS = 100  # rows put in for each row there is, at most, under any rule


def load_series(
    data: Any,
    options: TableOptions | None = None,
    *,
    like: SeriesSet | None = None,
    guess: bool = False,
    embedding: int | None = None,
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
        embedding: values from which on a category is one column of codes, for a network that learns a vector for each,
            and not one column a value; None for none.

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
    return Loader(data, options, like, guess, embedding).load()


def as_before(options: TableOptions, like: SeriesSet) -> TableOptions:
    """Options that read a table in the roles that `like` was read in."""
    roles = like.origin.roles
    return replace(
        options,
        target=roles.get("target", like.target_names),
        past=roles.get("past", ()),
        future=roles.get("future", ()),
        static=roles.get("static", ()),
        time=like.origin.time or ("none" if like.origin.roles else None),
        series=like.origin.series,
        calendar=like.calendar,
        holidays=like.holidays,
        missing=like.missing,
    )


@dataclass
class Loader:
    """One table on its way to a set.

    Attributes:
        ahead: whether the table holds future covariates alone.
        source: the table; None for an array.
        label: its name in messages.
        row_name: a row's name in messages, from its number.
        roles, table: its columns.
        names: of the series.
        notes: on what was done to it.
    """

    data: Any
    options: TableOptions
    like: SeriesSet | None
    guess: bool
    embedding: int | None = None
    ahead: bool = False

    source: Source | None = field(default=None, init=False)
    label: str = field(init=False)
    row_name: Callable[[int], str] = field(init=False)
    roles: Roles = field(init=False)
    table: Columns = field(init=False)
    names: tuple[str, ...] = field(init=False)
    notes: list[str] = field(init=False)

    def load(self) -> SeriesSet:
        """The set."""
        options, made = self.options, made_names(self.options.calendar, self.options.holidays)
        if is_array(self.data):
            self.label, self.row_name = "the array", lambda row: f"position {row}"
            self.roles, self.table = array_columns(self.data, options)
        else:
            self.source = source = open_source(self.data, options)
            self.label, self.row_name = source.label, source.row_names(0)
            levels = None if self.like is None else self.like.origin.levels
            self.roles = decide(source, options, made, not self.ahead, levels)
            if made and self.roles.time is None:
                raise ConfigError(f"{option('calendar')} needs a time column; give its name as {option('time', ...)}")
            self.table = read_columns(source, self.roles, options, levels)
            self.source = self.table.source
        return self._set()

    def _where(self, row: int) -> str:
        return f"{self.row_name(row)} of {self.label}"

    def _set(self) -> SeriesSet:
        options, roles, table = self.options, self.roles, self.table
        self.notes = [*roles.notes, *table.notes]
        if roles.ignored and options.target is None:
            self.notes.append(f"columns ignored, which hold no numbers: {some(roles.ignored)}")
        self._check_finite()
        self.names = joined(table.ids) or ("series",)
        rows = gaps.grouped(table.values, table.time, table.codes, len(self.names))
        if rows.backwards:
            first, count = rows.backwards
            self.notes.append(
                f"rows were not in the order of time and are sorted: {self.row_name(first)} is the first that is "
                f"earlier than the row before it ({count} such)"
            )
        axis, new = Axis(form=table.form), None
        if rows.time is not None:
            panel = self._without_duplicates(rows)
            if panel is not None:
                return panel
            axis = self._axis(rows)
            new = self._regular(rows, axis)
        return self._finished(rows, axis, new)

    def _check_finite(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # a sum may overflow where no cell is infinite
            total = np.add.reduce(self.table.values, axis=0)  # infinite or NaN where a cell is, without a larger array
        for column in np.flatnonzero(~np.isfinite(total)):
            infinite = np.isinf(self.table.values[:, column])
            if infinite.any():
                name = self.roles.names[self.roles.numbers[column]]
                raise DataError(
                    f"column {name!r}, {self._where(int(np.argmax(infinite)))} is infinite ({int(infinite.sum())} such)"
                )

    # -- times -------------------------------------------------------------------------------------------------------
    def _without_duplicates(self, rows: gaps.Rows) -> SeriesSet | None:
        """Refuse or merge rows with the same time; the set by another column where that tells series apart."""
        rule, equal = self.options.duplicates, gaps.equal_times(rows)
        if not equal.any():
            return None
        if rule != "refuse":
            coded = [at for at, column in enumerate(self.roles.numbers) if column in self.roles.categories]
            gaps.merge_duplicates(rows, equal, rule, coded)
            rows.notes.append(f"{int(equal.sum())} rows repeat a time: {rule} kept")
            return None
        apart: list[str] = []
        if not self.roles.series and self.source is not None:
            apart = [self.roles.names[at] for at in guess_series(self.source, self.roles)]
        if apart and self.guess:
            again = replace(self, options=replace(self.options, series=tuple(apart))).load()
            named = f"{' and '.join(apart)} tells the series apart: taken as {option('series', ...)}"
            return replace(again, notes=(f"times repeat, and {named}", *again.notes))
        assert rows.time is not None
        first = int(np.argmax(equal))
        before, row = sorted((rows.number(first), rows.number(first + 1)))
        series = self.names[int(np.searchsorted(rows.offsets, first, side="right") - 1)]
        of = f" of series {series!r}" if self.roles.series else ""
        time = format_time(rows.time[first], self.table.form)
        text = f"{self._where(row)}{of} has the time {time} of {self._where(before)}"
        if apart:
            raise DataError(
                f"{text}, and column {' with '.join(map(repr, apart))} tells the series apart; say "
                f"{option('series', apart[0] if len(apart) == 1 else apart)}"
            )
        hint = "" if of else f", or name the column of the series as {option('series', ...)}"
        raise DataError(
            f"{text} ({int(equal.sum())} such); keep one with {option('duplicates', 'first')} (or last, "
            f"mean, sum){hint}"
        )

    def _axis(self, rows: gaps.Rows) -> Axis:
        assert rows.time is not None
        freq, like, form = self.options.freq, self.like, self.table.form
        if like is not None and like.has_times:
            _same_clock(form, like.axis.form, rows.time, like.time)
            step, form = like.axis.step, replace(form, zone=like.axis.form.zone)
        else:
            step = Step() if freq in (None, "auto") else given_step(freq, rows.time, form)
        if step.kind == "none":
            step = infer_step(rows.time, rows.offsets, form)
        days = month_days(step, rows.time, rows.offsets, form) if step.kind == "months" else None
        return Axis(step, form, days)

    def _regular(self, rows: gaps.Rows, axis: Axis) -> np.ndarray | None:
        """Put in the rows that are missing; which rows those are."""
        assert rows.time is not None
        place = gaps.check_axis(
            rows, axis, self._where, self.like is not None or self.options.freq not in (None, "auto")
        )
        ends = place[rows.offsets[1:][np.diff(rows.offsets) > 0] - 1] + 1
        total, present = int(ends.sum()), len(place)
        rule = self.options.missing
        if (1 - present / total > _MOST_GAPS and rule == "auto") or total > _MOST_ROWS * present + 1000:
            raise DataError(
                f"{self.label} is mostly gaps: its {present} rows are {100 * present / total:.2g} % of those at the "
                f"step {axis.step.freq} that holds them all; aggregate the rows to a wider step, name their step as "
                f"{option('freq', ...)}, say {option('missing', 'zero')} where an absent row means that nothing "
                f"happened, or number the rows with {option('time', 'none')}"
            )
        if not axis.step.even:
            step = axis.step
            size = f"{step.amount / 1e9:.6g} s" if step.kind == "fixed" else f"{step.amount:.6g}"
            self.notes.append(f"rows are not evenly spaced; they are taken as rows about {size} apart")
        new = gaps.put_in(rows, axis, place)
        if new is not None:
            text = gaps.describe_gaps(new, rows.time, rows.offsets, self.names, axis)
            if rule == "refuse":
                raise DataError(f"{self.label}: {text}; {option('missing', 'auto')} would mask them")
            self.notes.append(text)
        return new

    # -- features ----------------------------------------------------------------------------------------------------
    def _finished(self, rows: gaps.Rows, axis: Axis, new: np.ndarray | None) -> SeriesSet:
        options, roles, table = self.options, self.roles, self.table
        if roles.static:
            _same_within(
                rows, len(roles.numbers) - len(roles.static), [roles.names[at] for at in roles.static], self.names
            )
        coded = self._coded()
        columns, values, counts, flags = self._features(rows.values, coded)
        origin = Origin(
            roles={role: tuple(roles.names[at] for at in group) for role, group in roles.groups().items()},
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
            values=values,
            offsets=rows.offsets,
            columns=columns,
            targets=counts["target"],
            past=counts["past"],
            future=counts["future"] + counts["static"],
            static=counts["static"],
            time=rows.time,
            names=self.names,
            missing=options.missing,
            axis=axis,
            labels=labels,
            origin=origin,
            flags=flags,
            coded=tuple((columns.index(roles.names[at]), len(table.levels[at])) for at in coded),
            notes=(*self.notes, *rows.notes),
        )
        if not self.ahead:
            series = self._checked(_cut_ahead(series), new, rows)
        made = made_names(options.calendar, options.holidays)
        if made:
            series = replace(series, calendar=options.calendar, holidays=options.holidays)
            together = np.concatenate([series.values, series.made_of(series.times)], axis=1)
            future = series.future + len(made)
            series = replace(series, values=together, columns=(*series.columns, *made), future=future)
        return series

    def _coded(self) -> list[int]:
        """Positions of the categories that stay one column of codes."""
        levels, names, like = self.table.levels, self.roles.names, self.like
        before = set() if like is None else {like.columns[column] for column, _ in like.coded}
        least = MOST_LEVELS + 1 if self.embedding is None or like is not None else self.embedding
        coded = [at for at in self.roles.numbers if at in levels and (names[at] in before or len(levels[at]) >= least)]
        if self.embedding is None and like is None and coded:
            texts = levels[coded[0]]
            raise DataError(
                f"column {names[coded[0]]!r} of {self.label} has {len(texts)} different texts, such as {texts[0]!r}, "
                f"more than {MOST_LEVELS}; leave the column out, join its rare values, or let a single network learn "
                f"a vector for each with {option('embedding', 50)}"
            )
        return coded

    def _features(
        self, values: np.ndarray, coded: Sequence[int]
    ) -> tuple[tuple[str, ...], np.ndarray, dict[str, int], tuple[int, ...]]:
        """Features of the columns, their numbers by role, and which are flags of categories, one column a value."""
        roles, levels = self.roles, self.table.levels
        counts = {role: len(group) for role, group in roles.groups().items()}
        if not levels:
            return tuple(roles.names[at] for at in roles.numbers), np.ascontiguousarray(values), counts, ()
        names: list[str] = []
        parts: list[np.ndarray] = []
        flags: list[int] = []
        role_of = [role for role, group in roles.groups().items() for _ in group]
        for role, at, cells in zip(role_of, roles.numbers, values.T, strict=True):
            name = roles.names[at]
            if at not in levels or at in coded:
                names.append(name)
                parts.append(np.where(np.isnan(cells), -1.0, cells)[:, None] if at in coded else cells[:, None])
                continue
            flags += range(len(names), len(names) + len(levels[at]))
            names += [f"{name}={level}" for level in levels[at]]
            parts.append((cells[:, None] == np.arange(len(levels[at]))).astype(np.float64))
            counts[role] += len(levels[at]) - 1
        return tuple(names), np.concatenate(parts, axis=1), counts, tuple(flags)

    def _checked(self, series: SeriesSet, new: np.ndarray | None, rows: gaps.Rows) -> SeriesSet:
        """Refuse missing values where the rule does, or say how many there are."""
        absent, rule = np.isnan(series.values), self.options.missing
        if not absent.any():
            return series
        if rule == "refuse":
            column = int(np.flatnonzero(absent.any(axis=0))[0])
            cells = absent[:, column]
            first, count = self.row_name(rows.number(int(np.argmax(cells)))), int(cells.sum())
            raise DataError(
                f"column {series.columns[column]!r} of {self.label} has {count} missing value{'s' if count > 1 else ''}"
                f", the first in {first}; fill the cells, or choose {option('missing', 'auto')}, forward, interpolate, "
                "mask, zero"
            )
        share = float(absent[:, : series.targets].mean())
        if rule == "auto" and share > _MOST_GAPS:
            raise DataError(
                f"the table is mostly gaps: {100 * share:.3g} % of the values of {', '.join(series.target_names[:5])} "
                f"are missing; say {option('missing', 'zero')} where no value means that nothing happened, or choose "
                f"{option('missing', 'forward')}, interpolate or mask"
            )
        if rule != "auto":
            return series
        put_in = 0 if new is None or len(new) != series.rows else int(new.sum())
        count = int(absent.any(axis=1).sum())
        what = f"{count} row{'s' if count > 1 else ''} with missing values" if count > put_in else "missing rows"
        return replace(series, notes=(*series.notes, f"{what}: carried forward in the input, masked in the loss"))


def joined(ids: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    """One name a series from its ids; several stand between slashes, escaped where one has a slash itself."""
    if not ids or len(ids[0]) == 1:
        return tuple([str(cell) for (cell,) in ids])
    return tuple("/".join(str(cell).replace("/", "//") for cell in row) for row in ids)


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


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


def _same_within(rows: gaps.Rows, first: int, columns: Sequence[str], names: Sequence[str]) -> None:
    """Put each series' value into all rows of its static columns, or refuse where it has several."""
    for column, name in enumerate(columns, start=first):
        cells = rows.values[:, column]
        low, high = (ufunc.reduceat(cells, rows.offsets[:-1]) for ufunc in (np.fmin, np.fmax))
        changing = np.flatnonzero(low < high)
        if changing.size:
            raise DataError(
                f"static column {name!r} changes within series {names[int(changing[0])]!r} "
                f"({changing.size} such); give it as {option('past', ...)} or {option('future')}"
            )
        mean = float(np.nanmean(low)) if not np.isnan(low).all() else 0.0
        cells[:] = np.repeat(np.where(np.isnan(low), mean, low), np.diff(rows.offsets))


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
