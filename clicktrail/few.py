"""Features of a few entities, straight from their states as plain arrays: what an online read of some rows takes.

The same values as the engine's (clicktrail/engine.py), which shares work between the many rows of an entity; this one
shares nothing, and pays nothing for it. What it does not have is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from clicktrail.contract import MICROSECONDS
from clicktrail.declarations import Aggregate, Declaration
from clicktrail.engine import deviation, pairs_column, quotient, sequences
from clicktrail.history import MICROSECONDS_PER_DAY, Labels, label_key
from clicktrail.jagged import JaggedSequence, jagged_sequence
from clicktrail.kernels import few as kernels
from clicktrail.kernels.arrays import readonly
from clicktrail.kernels.slices import last_before
from clicktrail.kernels.windows import NOTHING
from clicktrail.layout import lay_out
from clicktrail.state_records import Found, layout_of

_KINDS = {
    "count": kernels.COUNT,
    "sum": kernels.SUM,
    "mean": kernels.MEAN,
    "std": kernels.STD,
    "max": kernels.MAX,
    "min": kernels.MIN,
    "distinct": kernels.DISTINCT,
    "time_since": kernels.TIME_SINCE,
    "label_rate": kernels.LABEL_RATE,
}
_RATIOS = {"count": kernels.RATIO_OF_COUNTS, "sum": kernels.RATIO_OF_SUMS}
_OF_NUMBERS = ("sum", "mean", "std", "max", "min")
_NO_SESSIONS = readonly(np.zeros(0, np.int64))
_NO_LABELS = (readonly(np.zeros((1, 1), np.int64)), readonly(np.zeros((3, 0), np.int64)))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Features of a view as the kernel takes them: `rows` int64 [F, 6], `member` bool [F, types].

    `coded`: the fields that are needed as codes; `labels`: the kinds of labels.
    """

    features: tuple[Aggregate, ...]
    rows: np.ndarray
    member: np.ndarray
    coded: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Value:
    """A feature of R rows: `found` int64 or float64 [R], int64 [R, 2] for a label rate; `null` bool [R]."""

    feature: Aggregate
    found: np.ndarray
    null: np.ndarray

    def column(self) -> pa.Array:
        """As the engine's column."""
        if self.feature.kind == "label_rate":
            return pairs_column(self.found, self.null)
        return pa.array(self.found, mask=self.null)

    def floats(self) -> np.ndarray:
        """As float64, nan for null."""
        out = self.found.astype(np.float64)
        out[self.null] = np.nan
        return out


@lru_cache(maxsize=256)
def plan_of(declaration: Declaration) -> Plan:
    """Those features of a view that can be had this way."""
    layout = layout_of(declaration)
    coded, labels = [], []
    features, rows = [], []
    for one in declaration.aggregates:
        field = 0
        if one.kind in _OF_NUMBERS or one.part == "sum":
            if one.field not in layout.integers:
                continue
            field = layout.integers.index(one.field)
        elif one.kind == "distinct":
            if one.field not in (*layout.strings, "event_type", "event_day"):
                continue
            if one.field not in coded:
                coded.append(one.field)
            field = coded.index(one.field)
        elif one.kind == "label_rate":
            key = label_key(one.label, one.events)
            if key not in labels:
                labels.append(key)
            field = labels.index(key)
        elif one.kind not in ("count", "time_since", "ratio"):
            continue
        kind = _RATIOS[one.part] if one.kind == "ratio" else _KINDS[one.kind]
        window, over = (-1 if size is None else size for size in (one.window_us, one.over_us))
        features.append(one)
        rows.append((kind, field, window, over, one.delay_us, one.hop_us))
    member = [[name in one.events for name in declaration.events] for one in features]
    return Plan(
        features=tuple(features),
        rows=readonly(np.array(rows, np.int64).reshape(-1, 6)),
        member=readonly(np.array(member, np.bool_).reshape(-1, len(declaration.events)), np.bool_),
        coded=tuple(coded),
        labels=tuple(labels),
    )


def aggregates(found: Found, entity: np.ndarray, t: np.ndarray) -> dict[str, Value]:
    """Features at each row, as far as they can be had this way; null where there is no entity (-1).

    Args:
        found: the states of the entities.
        entity: int64 [R], index into them.
        t: read times, int64 [R], microseconds UTC.
    """
    plan = plan_of(found.declaration)
    if not plan.features:
        return {}
    codes = [_codes(found, field) for field in plan.coded]
    parts = kernels.parts(
        readonly(found.starts),
        readonly(found.known),
        readonly(found.event),
        readonly(found.types, np.uint8),
        readonly(found.integers),
        readonly(found.nulls),
        readonly(np.stack(codes) if codes else np.zeros((0, 0), np.int32), np.int32),
        len(found.known) + len(found.declaration.events),
        *(_labels([found.labels[one] for one in plan.labels]) if plan.labels else _NO_LABELS),
        readonly(entity),
        readonly(t),
        plan.rows,
        plan.member,
    )
    nobody = entity < 0
    return {one.name: _value(one, parts[place], t, nobody) for place, one in enumerate(plan.features)}


def sequence(found: Found, entity: np.ndarray, t: np.ndarray) -> JaggedSequence:
    """The sequence of a sequence view at each row, side by side.

    Args:
        found: the states of the entities.
        entity: int64 [R], index into them, -1 nobody.
        t: read times, int64 [R], microseconds UTC.
    """
    declaration, layout = found.declaration, layout_of(found.declaration)
    known = {*layout.integers, *layout.strings, "event_type", "event_timestamp"}
    if declaration.drop_repeats or declaration.session_us is not None or not known >= set(declaration.fields):
        return jagged_sequence(declaration, list(declaration.fields), sequences(declaration, found.history, entity, t))
    within = -1 if declaration.within_us is None else declaration.within_us
    start, end, too_old = last_before(
        readonly(found.starts),
        readonly(found.known),
        readonly(found.event),
        _NO_SESSIONS,
        readonly(entity),
        readonly(t),
        declaration.last,
        within,
    )
    lengths = end - start
    rows, positions = lay_out(start, end)
    if too_old.any():
        young = found.event[positions] >= t[rows] - within
        positions, lengths = positions[young], np.bincount(rows[young], minlength=len(t))
    values: dict[str, np.ndarray] = {}
    dictionaries: dict[str, list[str]] = {}
    nulls: dict[str, np.ndarray] = {}
    for field in declaration.fields:
        if field == "event_timestamp":
            values[field] = found.event[positions]
        elif field == "event_type":
            values[field], dictionaries[field] = found.types[positions].astype(np.int32), list(declaration.events)
        elif field in layout.strings:
            values[field], dictionaries[field] = found.strings(field, positions)
        else:
            values[field] = found.integers[layout.integers.index(field)][positions]
            null = found.null(field)[positions]
            if null.any():
                nulls[field] = null
                values[field] = np.where(null, 0, values[field])
    ends = np.cumsum(lengths)
    return JaggedSequence(values=values, dictionaries=dictionaries, nulls=nulls, starts=ends - lengths, ends=ends)


def _value(feature: Aggregate, parts: np.ndarray, t: np.ndarray, nobody: np.ndarray) -> Value:
    """A value from its parts, int64 [R, PARTS]: see `clicktrail.kernels.few.parts`."""
    a, b, c = parts.T
    found, null = a, nobody
    if feature.kind in ("mean", "ratio"):
        found, null = quotient(a, b)
    elif feature.kind == "std":
        found, null = deviation(a, b, c)
    elif feature.kind in ("max", "min"):
        found, null = (a if feature.kind == "max" else ~a), a == NOTHING
    elif feature.kind == "time_since":
        null = a == NOTHING
        found = np.floor_divide(t - np.where(null, 0, a), MICROSECONDS)
    elif feature.kind == "label_rate":
        found = np.stack([a, b], axis=1)
    return Value(feature=feature, found=found, null=null | nobody)


def _codes(found: Found, field: str) -> np.ndarray:
    if field == "event_type":
        return found.types.astype(np.int32)
    if field == "event_day":
        return np.unique(np.floor_divide(found.event, MICROSECONDS_PER_DAY), return_inverse=True)[1].astype(np.int32)
    return found.codes(field)


def _labels(kinds: list[Labels]) -> tuple[np.ndarray, np.ndarray]:
    """Label steps of several kinds side by side."""
    before = np.cumsum([0, *(len(one.known) for one in kinds)])[:-1]
    starts = np.stack([one.starts + offset for one, offset in zip(kinds, before, strict=True)])
    columns = ([one.known for one in kinds], [one.event for one in kinds], [one.step for one in kinds])
    return readonly(starts), readonly(np.stack([np.concatenate(column) for column in columns]))
