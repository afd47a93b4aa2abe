"""From histories to feature values at read times, offline, and online where the few rows of a read are not enough.

An event is visible at t when known_at < t. Shapes: `entity` int64 [rows] (index into the history, -1
nobody), `t` int64 [rows] microseconds UTC. Since known_at is the order of a history, what is visible at t
is a prefix of an entity's events. The loops are in `clicktrail.kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import MICROSECONDS
from clicktrail.declarations import Aggregate, Declaration
from clicktrail.history import History, label_key
from clicktrail.kernels import order as ordering
from clicktrail.kernels import slices as slicing
from clicktrail.kernels import windows as kernels
from clicktrail.kernels.arrays import readonly
from clicktrail.layout import chunks, lay_out

_HALF = 2**62
_NONE = readonly(np.zeros(0, np.int64))


def values(declaration: Declaration, history: History, entity: np.ndarray, t: np.ndarray) -> dict[str, pa.Array]:
    """The features of a view at each row, [rows] each: lists for a sequence, scalars and pairs for aggregates."""
    if declaration.is_sequence:
        return sequence_lists(declaration, sequences(declaration, history, entity, t))
    return aggregates(declaration.aggregates, history, entity, t)


# ---- sequences


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Sequences as ranges of positions of `history`: row r has start[r]..end[r], int64 [rows].

    Nothing is copied; `history` is the view's own (its event types only, without repeats) unless `within` had to
    leave out events in the middle, which late arrivals bring about: what is left of these rows stands behind it.
    """

    history: History
    start: np.ndarray
    end: np.ndarray

    def slice(self, begin: int, rows: int) -> Slices:
        """The rows begin..begin + rows."""
        return replace(self, start=self.start[begin : begin + rows], end=self.end[begin : begin + rows])


def sequences(declaration: Declaration, history: History, entity: np.ndarray, t: np.ndarray) -> Slices:
    """The sequence of a sequence view at each row."""
    seen = history.only(declaration.events)
    if declaration.drop_repeats:
        seen = seen.without_repeats(declaration.drop_repeats)
    starts, known, event = readonly(seen.starts), readonly(seen.known), readonly(seen.event)
    session = _NONE
    if declaration.session_us is not None:
        codes = readonly(_codes(seen.column("session_id"))[0]) if declaration.session_us == 0 else _NONE
        session = readonly(slicing.session_starts(starts, known, codes, declaration.session_us))
    within = -1 if declaration.within_us is None else declaration.within_us
    start, end, too_old = slicing.last_before(
        starts, known, event, session, readonly(entity), readonly(t), declaration.last, within
    )
    holed = np.flatnonzero(too_old)
    if not len(holed):
        return Slices(history=seen, start=start, end=end)
    rows, positions = lay_out(start[holed], end[holed])
    young = seen.event[positions] >= (t[holed] - within)[rows]
    lengths = np.bincount(rows[young], minlength=len(holed))
    behind = len(seen.event) + np.cumsum(lengths)
    start[holed], end[holed] = behind - lengths, behind
    every = np.concatenate([np.arange(len(seen.event)), positions[young]])
    return Slices(history=seen.take(every), start=start, end=end)


def sequence_lists(declaration: Declaration, slices: Slices) -> dict[str, pa.Array]:
    """Slices as list columns, oldest first; strings stay dictionary-encoded where they are in the history."""
    _, positions = lay_out(slices.start, slices.end)
    offsets = pa.array(np.concatenate([[0], np.cumsum(slices.end - slices.start)]))
    index = pa.array(positions)
    return {
        field: pa.LargeListArray.from_arrays(offsets, slices.history.column(field).take(index))
        for field in declaration.fields
    }


# ---- aggregates


def aggregates(
    features: Sequence[Aggregate], history: History, entity: np.ndarray, t: np.ndarray
) -> dict[str, pa.Array]:
    """Features of an aggregate view at each row; all null where there is no entity (-1)."""
    rows = _Rows(history, entity, t)
    return {one.name: _KINDS[one.kind](rows, one) for one in features}


class _Rows:
    """The rows by entity and time, and what several features of a view need of the events."""

    def __init__(self, history: History, entity: np.ndarray, t: np.ndarray) -> None:
        self.history = history
        self.given_entity, self.given_t = entity, t
        self.starts, self.known = readonly(history.starts), readonly(history.known)
        self.event, self.types = readonly(history.event), readonly(history.types, np.uint8)
        if len(t) > 1:
            codes = readonly(entity)
            starts, order = ordering.group(codes, len(history.starts) - 1)
            # equal times are equal rows: their order does not matter
            ordering.sort_within(readonly(starts), order, readonly(t), readonly(t))
        else:
            order = np.flatnonzero((entity >= 0) & (entity < len(history.starts) - 1)).astype(np.uint32)
        self.order = order
        self.t = readonly(t[order])
        sorted_entity = entity[order]
        self.bounds = readonly(ordering.group_bounds(readonly(sorted_entity)))
        self.entities = readonly(sorted_entity[self.bounds[:-1]])
        self._ranges: dict[tuple[object, ...], tuple[np.ndarray, ...]] = {}
        self._members: dict[tuple[str, ...], np.ndarray] = {}
        self._numbers: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._coded: dict[str, tuple[np.ndarray, pa.Array]] = {}

    @cached_property
    def as_given(self) -> bool:
        """Whether the rows are as they were given: each of somebody, sorted already."""
        return len(self.order) == len(self.given_t) and bool((self.order[1:] > self.order[:-1]).all())

    def ranges(self, feature: Aggregate, *, over: bool = False) -> tuple[np.ndarray, ...]:
        """Low, high, enter, leave of a window (see `kernels.ranges`); `over`: of the longer one of a ratio."""
        window = feature.over_us if over else feature.window_us
        key = (window, feature.delay_us, feature.hop_us)
        if key not in self._ranges:
            found = kernels.ranges(
                self.starts,
                self.known,
                self.event,
                self.entities,
                self.bounds,
                self.t,
                -1 if window is None else window,
                feature.delay_us,
                feature.hop_us,
            )
            self._ranges[key] = tuple(readonly(one) for one in found)
        return self._ranges[key]

    def member(self, feature: Aggregate) -> np.ndarray:
        """Whether each event is of the types that a feature looks at, bool [events]."""
        if feature.events not in self._members:
            wanted = np.array([name in feature.events for name in self.history.type_names] or [False])
            self._members[feature.events] = readonly(wanted[self.types], np.bool_)
        return self._members[feature.events]

    def numbers(self, feature: Aggregate) -> tuple[np.ndarray, np.ndarray]:
        """An integer field, int64 [events] (0 where it does not count), and where it counts, bool [events]."""
        key = (feature.field, feature.events)
        if key not in self._numbers:
            column, present = self.history.column(feature.field), self.member(feature)
            if column.null_count:
                present = present & column.is_valid().to_numpy(zero_copy_only=False)
                column = pc.fill_null(column, 0)
            numbers = np.where(present, column.to_numpy(zero_copy_only=False), 0)
            self._numbers[key] = readonly(numbers), readonly(present, np.bool_)
        return self._numbers[key]

    def codes(self, feature: Aggregate) -> tuple[np.ndarray, pa.Array]:
        """A field as codes, int64 [events] (-1 where it does not count), and the value of each code."""
        if feature.field not in self._coded:
            self._coded[feature.field] = _codes(self.history.column(feature.field))
        codes, dictionary = self._coded[feature.field]
        return readonly(np.where(self.member(feature), codes, -1)), dictionary

    def sum(self, feature: Aggregate, weight: np.ndarray, *, over: bool = False) -> np.ndarray:
        """Sum of weights in the window, in the order of the sorted rows."""
        return kernels.sums(*self.ranges(feature, over=over), readonly(weight), len(self.t))

    def largest(self, feature: Aggregate, numbers: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Largest number in the window, in the order of the sorted rows."""
        return kernels.largest(self.bounds, *self.ranges(feature), readonly(numbers), readonly(present, np.bool_))

    def contents(self, feature: Aggregate) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row as given, position) of the events in each window, in pieces of whole rows."""
        left = np.asarray(feature.left(self.given_t))
        member = self.member(feature)
        begin, end = (self._first_known(moment) for moment in (left, self.given_t))
        for row, position in chunks(np.minimum(begin, end), end):
            inside = member[position] & (self.event[position] >= left[row])
            yield row[inside], position[inside]

    def _first_known(self, moment: np.ndarray) -> np.ndarray:
        """Position of the first event that became known at `moment` or later; what is before it happened before it."""
        every = np.iinfo(np.int64).max
        entity = readonly(self.given_entity)
        return slicing.last_before(self.starts, self.known, self.event, _NONE, entity, readonly(moment), every, -1)[1]

    def scalars(self, found: np.ndarray, null: np.ndarray | None = None) -> pa.Array:
        """Values of the sorted rows as the column of the rows that were given; null for nobody."""
        if self.as_given:
            return pa.array(found, mask=null)
        out = np.zeros(len(self.given_t), found.dtype)
        out[self.order] = found
        missing = np.ones(len(self.given_t), np.bool_)
        missing[self.order] = False if null is None else null
        return pa.array(out, mask=missing)

    def pick(self, values_: pa.Array, found: np.ndarray) -> pa.Array:
        """`values_` at the positions `found` of the sorted rows, -1 for null, as the column of the rows given."""
        at = np.full(len(self.given_t), -1, np.int64)
        at[self.order] = found
        return values_.take(pa.array(at, mask=at < 0))


def _count(rows: _Rows, feature: Aggregate) -> pa.Array:
    return rows.scalars(rows.sum(feature, rows.member(feature)))


def _sum(rows: _Rows, feature: Aggregate) -> pa.Array:
    return rows.scalars(rows.sum(feature, rows.numbers(feature)[0]))


def _mean(rows: _Rows, feature: Aggregate) -> pa.Array:
    numbers, present = rows.numbers(feature)
    return rows.scalars(*quotient(rows.sum(feature, numbers), rows.sum(feature, present)))


def _std(rows: _Rows, feature: Aggregate) -> pa.Array:
    numbers, present = rows.numbers(feature)
    with np.errstate(over="ignore"):
        squares = numbers * numbers
    n, total, squared = (rows.sum(feature, weight) for weight in (present, numbers, squares))
    return rows.scalars(*deviation(n, total, squared))


def _ratio(rows: _Rows, feature: Aggregate) -> pa.Array:
    weight = rows.numbers(feature)[0] if feature.part == "sum" else rows.member(feature)
    return rows.scalars(*quotient(rows.sum(feature, weight), rows.sum(feature, weight, over=True)))


def _max(rows: _Rows, feature: Aggregate) -> pa.Array:
    found = rows.largest(feature, *rows.numbers(feature))
    return rows.scalars(found, found == kernels.NOTHING)


def _min(rows: _Rows, feature: Aggregate) -> pa.Array:
    numbers, present = rows.numbers(feature)
    found = rows.largest(feature, ~numbers, present)  # ~x falls as x rises, and needs no larger type
    return rows.scalars(~found, found == kernels.NOTHING)


def _distinct(rows: _Rows, feature: Aggregate) -> pa.Array:
    codes, dictionary = rows.codes(feature)
    return rows.scalars(kernels.distinct(*rows.ranges(feature), codes, len(dictionary), len(rows.t)))


def _first_or_last(rows: _Rows, feature: Aggregate) -> pa.Array:
    column = rows.history.column(feature.field)
    present = readonly(column.is_valid().to_numpy(zero_copy_only=False) & rows.member(feature), np.bool_)
    found = kernels.first_or_last(rows.bounds, *rows.ranges(feature), present, feature.kind == "last")
    picked = rows.pick(column, found)
    return picked.dictionary_decode() if pa.types.is_dictionary(picked.type) else picked


def _top(rows: _Rows, feature: Aggregate) -> pa.Array:
    dictionary, codes, found = _most_frequent_codes(rows, feature)
    lengths = np.zeros(len(rows.given_t), np.int64)
    lengths[rows.order] = found
    by_given = np.empty((len(rows.given_t), feature.k), np.int64)
    by_given[rows.order] = codes
    kept = np.arange(feature.k) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    nobody = np.ones(len(lengths) + 1, np.bool_)
    nobody[rows.order] = False
    nobody[-1] = False
    return pa.ListArray.from_arrays(pa.array(offsets, mask=nobody), dictionary.take(pa.array(by_given[kept])))


def _most_frequent(rows: _Rows, feature: Aggregate) -> pa.Array:
    dictionary, codes, found = _most_frequent_codes(rows, feature)
    return rows.pick(dictionary, np.where(found > 0, codes[:, 0], -1))


def _most_frequent_codes(rows: _Rows, feature: Aggregate) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    codes, dictionary = rows.codes(feature)
    rank = pc.rank(dictionary, tiebreaker="dense").to_numpy().astype(np.int64)
    found = kernels.top(
        rows.bounds,
        *rows.ranges(feature),
        rows.known,
        rows.event,
        codes,
        readonly(rank),
        feature.k,
    )
    return dictionary, *found


def _time_since(rows: _Rows, feature: Aggregate) -> pa.Array:
    low, high, enter, _ = rows.ranges(feature)
    newest = kernels.newest_event(rows.bounds, low, high, enter, rows.event, rows.member(feature))
    nothing = newest == kernels.NOTHING
    return rows.scalars(np.floor_divide(rows.t - np.where(nothing, 0, newest), MICROSECONDS), nothing)


def _mean_gap(rows: _Rows, feature: Aggregate) -> pa.Array:
    n = rows.sum(feature, rows.member(feature))
    span, _ = _span(rows, feature, rows.event)
    seconds, null = quotient(span, (n - 1) * MICROSECONDS)
    return rows.scalars(seconds, null | (n < 2))  # noqa: PLR2004 - a gap has two ends


def _std_gap(rows: _Rows, feature: Aggregate) -> pa.Array:
    moment = readonly(np.floor_divide(rows.event, MICROSECONDS))
    by_moment = np.arange(len(moment), dtype=np.uint32)
    ordering.sort_within(rows.starts, by_moment, rows.event, rows.event)
    squared = kernels.squared_gaps(
        rows.starts,
        rows.entities,
        rows.bounds,
        *rows.ranges(feature),
        rows.member(feature),
        moment,
        readonly(by_moment),
    )
    span, _ = _span(rows, feature, moment)
    gaps = np.maximum(rows.sum(feature, rows.member(feature)) - 1, 0)
    return rows.scalars(*deviation(gaps, span, squared))


def _span(rows: _Rows, feature: Aggregate, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newest minus oldest moment of the window, and where there is none."""
    every = rows.member(feature)
    newest, oldest = rows.largest(feature, moment, every), ~rows.largest(feature, ~moment, every)
    nothing = newest == kernels.NOTHING
    return np.where(nothing, 0, newest) - np.where(nothing, 0, oldest), nothing


def _label_rate(rows: _Rows, feature: Aggregate) -> pa.Array:
    every = rows.sum(feature, rows.member(feature))
    labels = rows.history.labels[label_key(feature.label, feature.events)]
    starts, known, event = readonly(labels.starts), readonly(labels.known), readonly(labels.event)
    assert feature.window_us is not None  # noqa: S101 - clicktrail.declaring saw to it
    steps = kernels.ranges(
        starts,
        known,
        event,
        rows.entities,
        rows.bounds,
        rows.t,
        feature.window_us,
        feature.delay_us,
        feature.hop_us,
    )
    ones = kernels.sums(*(readonly(one) for one in steps), readonly(labels.step), len(rows.t))
    pairs = np.zeros((len(rows.given_t), 2), np.int64)
    pairs[rows.order] = np.stack([ones, every], axis=1)
    nobody = np.ones(len(pairs), np.bool_)
    nobody[rows.order] = False
    return pairs_column(pairs, nobody)


def _sql(rows: _Rows, feature: Aggregate) -> pa.Array:
    from clicktrail.sql_expressions import evaluate  # DuckDB, which most views do without

    fields = {field: rows.history.column(field) for field in feature.uses}

    def table(row: np.ndarray, position: np.ndarray) -> pa.Table:
        at = pa.array(position)
        return pa.table({"row": row, **{name: _decoded(column.take(at)) for name, column in fields.items()}})

    pieces = [table(*piece) for piece in rows.contents(feature)] or [table(_NONE, _NONE)]
    found = evaluate(feature.sql, feature.sql_type, pa.concat_tables(pieces), len(rows.given_t))
    return pc.if_else(pa.array(rows.given_entity < 0), pa.scalar(None, feature.type), found)


_KINDS = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "std": _std,
    "min": _min,
    "max": _max,
    "distinct": _distinct,
    "first": _first_or_last,
    "last": _first_or_last,
    "most_frequent": _most_frequent,
    "top": _top,
    "time_since": _time_since,
    "mean_gap": _mean_gap,
    "std_gap": _std_gap,
    "label_rate": _label_rate,
    "ratio": _ratio,
    "sql": _sql,
}


# ---- arithmetic: division comes last, and here


def quotient(over: np.ndarray, under: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quotient over / under as float64, and where it is null because `under` is 0; shapes [rows], int64."""
    null = under == 0
    return over / np.where(null, 1, under), null


def deviation(n: np.ndarray, total: np.ndarray, squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample standard deviation from count, sum and sum of squares (modulo 2^64), and where it is null.

    With q = floor(total / n) and r the rest, the squared distances from q sum to squared - 2 q total + n q^2. That
    is small where squared is large, so it is exact although its parts may have wrapped around.
    """
    null = n < 2  # noqa: PLR2004 - a deviation needs two values
    n = np.where(null, 2, n)
    q, r = np.divmod(total, n)
    with np.errstate(over="ignore"):
        around_q = squared - 2 * q * total + n * q * q
        whole = n * around_q - r * r  # one rounding less, where it fits
    fits = around_q < _HALF // n
    variance = np.where(fits, whole / (n * (n - 1)), (around_q - r * r / n) / (n - 1))
    return np.sqrt(np.maximum(np.where(null, 0, variance), 0)), null


# ---- arrays


def pairs_column(pairs: np.ndarray, null: np.ndarray) -> pa.Array:
    """Label rates, int64 [rows, 2] (labelled, all), as a list column; null where bool [rows] says so."""
    if null.any():
        offsets = np.concatenate([[0], np.cumsum(np.where(null, 0, 2))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(null, False)), pa.array(pairs[~null].ravel()))
    offsets = np.arange(0, 2 * len(pairs) + 1, 2, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(pairs.ravel()))


def _codes(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """A column as int64 codes (-1 null) and the value of each code."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    indices = pc.fill_null(encoded.indices, -1) if encoded.indices.null_count else encoded.indices
    return indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
