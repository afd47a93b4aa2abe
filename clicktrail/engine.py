"""From histories to feature values at read times: the one place where a value is computed, offline and online.

An event is visible at t when known_at < t. Shapes: `entity` int64 [rows] (index into the history, -1
nobody), `t` int64 [rows] microseconds UTC. Since event_timestamp <= known_at, what is visible at t is a
prefix of an entity's history; sums over a window are differences of prefix sums, corrected by the few
events that happened before an edge of the window and became known only after t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import MICROSECONDS
from clicktrail.declarations import Aggregate, Declaration
from clicktrail.history import History, label_key

_CHUNK = 8_000_000
"""Window contents that are laid out at once: bounds memory at some hundred MB."""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Sequences as ranges of positions of `history`: row r has start[r]..end[r], int64 [rows].

    Nothing is copied; `history` is the view's own (its event types only) unless `within` had to leave
    out events in the middle, which late arrivals bring about: what is left of these rows stands behind it.
    """

    history: History
    start: np.ndarray
    end: np.ndarray


def sequences(declaration: Declaration, history: History, entity: np.ndarray, t: np.ndarray) -> Slices:
    """The sequence of a sequence view at each row."""
    seen = history.only(declaration.events)
    begin, limit = _bounds(seen.starts, entity)
    end = bisect(seen.known, begin, limit, t)
    start = np.maximum(begin, end - declaration.last)
    if declaration.within_us is None:
        return Slices(history=seen, start=start, end=end)
    oldest = t - declaration.within_us
    # what was known too long ago happened too long ago; behind it only late events are left to look at
    start = np.clip(bisect(seen.known, begin, limit, oldest), start, end)
    start = start + _leading_before(seen.event, start, end, oldest)
    holed = _rows_before(seen.event, start, end, oldest)
    if not len(holed):
        return Slices(history=seen, start=start, end=end)
    rows, positions = _lay_out(start[holed], end[holed])
    young = seen.event[positions] >= oldest[holed][rows]
    lengths = np.bincount(rows[young], minlength=len(holed))
    behind = len(seen.event) + np.cumsum(lengths)
    start[holed], end[holed] = behind - lengths, behind
    every = np.concatenate([np.arange(len(seen.event)), positions[young]])
    return Slices(history=_take(seen, every), start=start, end=end)


def sequence_lists(declaration: Declaration, slices: Slices) -> dict[str, pa.Array]:
    """Slices as list columns, oldest first; strings stay dictionary-encoded."""
    rows, positions = _lay_out(slices.start, slices.end)
    del rows
    offsets = np.concatenate([[0], np.cumsum(slices.end - slices.start)])
    index = pa.array(positions)
    return {
        field: pa.LargeListArray.from_arrays(pa.array(offsets), slices.history.column(field).take(index))
        for field in declaration.fields
    }


def aggregates(declaration: Declaration, history: History, entity: np.ndarray, t: np.ndarray) -> dict[str, pa.Array]:
    """The features of an aggregate view at each row; all null where there is no entity (-1)."""
    parts: dict[tuple[str, ...], _Part] = {}
    nobody = pa.array(entity < 0)
    out = {}
    for feature in declaration.aggregates:
        if feature.events not in parts:
            parts[feature.events] = _Part(history.only(feature.events), entity, t)
        out[feature.name] = pc.if_else(
            nobody, pa.scalar(None, feature.type), _KINDS[feature.kind](parts[feature.events], feature)
        )
    return out


# ---- kinds of aggregate


class _Part:
    """The history of some event types, with the rows' positions in it; features of a view share it."""

    def __init__(self, history: History, entity: np.ndarray, t: np.ndarray) -> None:
        self.history = history
        self.t = t
        self.begin, self.limit = _bounds(history.starts, entity)
        self.end = bisect(history.known, self.begin, self.limit, t)
        self.points = _Points(history.starts, history.known, history.event, entity, t)
        self.entity = entity

    def left(self, feature: Aggregate) -> np.ndarray:
        """Left edge of the window, [rows]."""
        assert feature.window_us is not None  # noqa: S101 - declarations.aggregates saw to it
        left = self.t - feature.delay_us - feature.window_us
        return left if not feature.hop_us else np.floor_divide(left, feature.hop_us) * feature.hop_us


def _count(part: _Part, feature: Aggregate) -> pa.Array:
    return pa.array(_window_sum(part, feature, np.ones(len(part.history.known), np.int64)))


def _sum(part: _Part, feature: Aggregate) -> pa.Array:
    values = pc.fill_null(part.history.column(feature.field), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return pa.array(_window_sum(part, feature, values))


def _window_sum(part: _Part, feature: Aggregate, weight: np.ndarray) -> np.ndarray:
    prefix = _prefix(weight)
    visible = prefix[part.end] - prefix[part.begin]
    return visible - part.points.before(part.left(feature), weight)


def _label_rate(part: _Part, feature: Aggregate) -> pa.Array:
    left, right = part.left(feature), part.t - feature.delay_us
    one = np.ones(len(part.history.known), np.int64)
    every = part.points.before(right, one) - part.points.before(left, one)
    labels = part.history.labels[label_key(feature.label, feature.events)]
    steps = _Points(labels.starts, labels.known, labels.event, part.entity, part.t)
    ones = steps.before(right, labels.step) - steps.before(left, labels.step)
    offsets = pa.array(np.arange(0, 2 * len(every) + 1, 2, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.stack([ones, every], axis=1).ravel()))


def _time_since(part: _Part, feature: Aggregate) -> pa.Array:
    del feature
    history = part.history
    newest = _running_maximum(history.event, history.starts)
    some = part.end > part.begin
    last = np.zeros(len(part.t), np.int64)
    last[some] = newest[part.end[some] - 1]
    return pa.array(np.floor_divide(part.t - last, MICROSECONDS), mask=~some)


def _distinct(part: _Part, feature: Aggregate) -> pa.Array:
    """Count the first occurrence of each value in the window: the one before it, if any, lies left of the window."""
    history, left = part.history, part.left(feature)
    codes, _ = _codes(history.column(feature.field))
    size = codes.max(initial=0) + 1
    previous = _previous(history.starts, codes)
    first = np.minimum(bisect(history.known, part.begin, part.limit, left), part.end)
    found = np.zeros(len(part.t), np.int64)
    for rows, positions in _chunks(first, part.end):
        base, width = rows[0], rows[-1] - rows[0] + 1
        inside = history.event[positions] >= left[rows]
        count = np.bincount(rows[previous[positions] < first[rows]] - base, minlength=width)
        # an event that became known in the window but happened before it: such rows are counted value by value
        mixed = np.bincount(rows[~inside] - base, minlength=width) > 0
        again = inside & mixed[rows - base] & (codes[positions] >= 0)
        values = np.unique((rows[again] - base) * size + codes[positions[again]]) // size
        found[base : base + width] += np.where(mixed, np.bincount(values, minlength=width), count)
    return pa.array(found)


def _max(part: _Part, feature: Aggregate) -> pa.Array:
    column = part.history.column(feature.field)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    lowest = np.iinfo(np.int64).min
    best = np.full(len(part.t), lowest)
    some = np.zeros(len(part.t), bool)
    for rows, positions in _contents(part, feature):
        kept = present[positions]
        rows_kept, values_kept = rows[kept], values[positions[kept]]
        if len(rows_kept):
            heads = np.flatnonzero(np.concatenate([[True], rows_kept[1:] != rows_kept[:-1]]))
            best[rows_kept[heads]] = np.maximum.reduceat(values_kept, heads)
            some[rows_kept] = True
    return pa.array(best, mask=~some)


def _top(part: _Part, feature: Aggregate) -> pa.Array:
    codes, values = _codes(part.history.column(feature.field))
    size = codes.max(initial=0) + 1
    moment = _moments(part.history)
    rank = pc.rank(values, tiebreaker="dense").to_numpy().astype(np.int64)
    chosen_rows, chosen_codes = [], []
    for rows, positions in _contents(part, feature):
        kept = codes[positions] >= 0
        pairs = rows[kept] * size + codes[positions[kept]]
        # the last occurrence decides between equals: np.unique keeps the first, so it looks from behind
        distinct, first, number = np.unique(pairs[::-1], return_index=True, return_counts=True)
        latest = positions[kept][::-1][first] if len(first) else first
        row, code = np.divmod(distinct, size)
        order = np.lexsort((rank[code], -moment[latest], -number, row))
        row, code = row[order], code[order]
        head = np.searchsorted(row, row)
        best = np.arange(len(row)) - head < feature.k
        chosen_rows.append(row[best])
        chosen_codes.append(code[best])
    rows = np.concatenate(chosen_rows) if chosen_rows else np.zeros(0, np.int64)
    picked = np.concatenate(chosen_codes) if chosen_codes else np.zeros(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(part.t)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(picked)))


_KINDS: dict[str, Callable[[_Part, Aggregate], pa.Array]] = {
    "count": _count,
    "sum": _sum,
    "distinct": _distinct,
    "max": _max,
    "top": _top,
    "time_since": _time_since,
    "label_rate": _label_rate,
}


class _Points:
    """Weighted points in time, for sums over what happened before x and was known before each row's t."""

    def __init__(
        self, starts: np.ndarray, known: np.ndarray, event: np.ndarray, entity: np.ndarray, t: np.ndarray
    ) -> None:
        self.starts = starts
        self.entities = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self.order = _sorted_within(self.entities, event)
        self.known = known[self.order]
        self.event = event[self.order]
        self.entity = entity
        self.t = t

    def before(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Sum of weights with event < x and known < t, for x <= t; `weight` [points], int64 [rows] comes back."""
        begin, limit = _bounds(self.starts, self.entity)
        weight = weight[self.order]
        prefix = _prefix(weight)
        total = prefix[bisect(self.event, begin, limit, x)] - prefix[begin]
        for rows, positions in self._unknown(x):
            # integer weights: np.subtract.at keeps them exact where bincount would go through doubles
            np.subtract.at(total, rows, weight[positions])
        return total

    def _unknown(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row, position) of points with event < x and known >= t: these took longer than t - x to become known."""
        t = self.t
        if not len(self.event) or not len(t):
            return
        delay = self.known - self.event
        late = np.flatnonzero(delay > (t - x).min())
        if not len(late):
            return
        starts = np.searchsorted(late, self.starts)
        longest = np.zeros(len(starts) - 1, np.int64)
        np.maximum.at(longest, self.entities[late], delay[late])
        begin, limit = _bounds(starts, self.entity)
        reach = np.where(self.entity >= 0, longest[np.maximum(self.entity, 0)], 0)
        event, known = self.event[late], self.known[late]
        low = bisect(event, begin, limit, t - reach)
        high = np.maximum(bisect(event, begin, limit, x), low)
        for rows, positions in _chunks(low, high):
            unseen = known[positions] >= t[rows]
            yield rows[unseen], late[positions[unseen]]


# ---- arrays


def bisect(values: np.ndarray, low: np.ndarray, high: np.ndarray, needle: np.ndarray) -> np.ndarray:
    """First position in values[low:high] (ascending) whose value is >= needle, or high; all shapes [rows]."""
    low, high = low.copy(), high.copy()
    if not len(values):
        return low
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        open_ = low < high
        right = open_ & (values[np.minimum(middle, len(values) - 1)] < needle)
        low = np.where(right, middle + 1, low)
        high = np.where(open_ & ~right, middle, high)
    return low


def _bounds(starts: np.ndarray, entity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last position of each row's entity; an empty range for nobody."""
    if len(starts) < 2:  # noqa: PLR2004 - no entity at all
        return np.zeros(len(entity), np.int64), np.zeros(len(entity), np.int64)
    known = np.maximum(entity, 0)
    begin = starts[known]
    return begin, np.where(entity >= 0, starts[known + 1], begin)


def _prefix(weight: np.ndarray) -> np.ndarray:
    out = np.zeros(len(weight) + 1, np.int64)
    np.cumsum(weight, out=out[1:])
    return out


def _sorted_within(entities: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Positions that sort `values` within each entity; `entities` is sorted already."""
    if not len(values):
        return np.zeros(0, np.int64)
    falls = (values[1:] < values[:-1]) & (entities[1:] == entities[:-1])
    return np.lexsort((values, entities)) if falls.any() else np.arange(len(values))


def _running_maximum(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Largest value so far within each entity, [events]."""
    if not len(values):
        return values
    low = values.min()
    lengths = np.diff(starts)
    # lift each entity's values above all of the entity before it, so that one pass serves all of them
    span = int(values.max() - low) + 1
    if span * (len(lengths) + 1) < np.iinfo(np.int64).max:
        lift = np.repeat(np.arange(len(lengths), dtype=np.int64) * span, lengths)
        return np.maximum.accumulate(values - low + lift) - lift + low
    out = values.copy()
    for begin, limit in pairwise(starts):
        np.maximum.accumulate(values[begin:limit], out=out[begin:limit])
    return out


def _lay_out(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, position) of everything in the ranges start[r]..end[r]."""
    lengths = end - start
    rows = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) + np.repeat(start - before, lengths)


def _chunks(start: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`_lay_out` in pieces of whole rows, each of about _CHUNK positions."""
    total = np.cumsum(end - start)
    first = 0
    while first < len(total):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + _CHUNK, "right")), first + 1)
        rows, positions = _lay_out(start[first:last], end[first:last])
        if len(rows):
            yield rows + first, positions
        first = last


def _contents(part: _Part, feature: Aggregate) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(row, position) of the events in each row's window: what is inside became known after its left edge."""
    left = part.left(feature)
    history = part.history
    first = np.minimum(bisect(history.known, part.begin, part.limit, left), part.end)
    for rows, positions in _chunks(first, part.end):
        inside = history.event[positions] >= left[rows]
        yield rows[inside], positions[inside]


def _moments(history: History) -> np.ndarray:
    """Rises along an entity's events, and is equal for those that happened and became known at the same times."""
    later = (history.known[1:] != history.known[:-1]) | (history.event[1:] != history.event[:-1])
    return np.concatenate([[0], np.cumsum(later)]).astype(np.int64)


def _codes(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """A column as codes (-1 null) and the value of each code."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def _previous(starts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Position of the event before with the same value of the same entity, -1 where there is none; [events].

    A null is no value: its entry lies behind every position, so that it is never a first occurrence.
    """
    entities = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((codes, entities))  # stable: equals stay in their order
    same = (codes[order[1:]] == codes[order[:-1]]) & (entities[order[1:]] == entities[order[:-1]])
    previous = np.full(len(codes), -1, np.int64)
    previous[order[1:][same]] = order[:-1][same]
    previous[codes < 0] = len(codes)
    return previous


def _leading_before(event: np.ndarray, start: np.ndarray, end: np.ndarray, oldest: np.ndarray) -> np.ndarray:
    """How many events at the head of each range are older than allowed, [rows]."""
    skipped = np.zeros(len(start), np.int64)
    active = np.flatnonzero(end > start)
    while len(active):
        old = event[start[active] + skipped[active]] < oldest[active]
        active = active[old]
        skipped[active] += 1
        active = active[start[active] + skipped[active] < end[active]]
    return skipped


def _rows_before(event: np.ndarray, start: np.ndarray, end: np.ndarray, oldest: np.ndarray) -> np.ndarray:
    """Rows whose range holds an event older than allowed, ascending."""
    found = [np.unique(rows[event[positions] < oldest[rows]]) for rows, positions in _chunks(start, end)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _take(history: History, positions: np.ndarray) -> History:
    index = pa.array(positions)
    return History(
        starts=np.array([0, len(positions)]),
        known=history.known[positions],
        event=history.event[positions],
        types=history.types[positions],
        type_names=history.type_names,
        columns={name: column.take(index) for name, column in history.columns.items()},
        labels={},
    )
