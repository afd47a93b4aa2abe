"""Features of a few entities, straight from their states as plain arrays: what an online read of some rows takes.

The same values as the engine's (clicktrail/engine.py), which shares work between the many rows of an entity; this one
shares nothing, and pays nothing for it. What it does not have is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_MOST_DAYS = 100_000
_NO_SESSIONS = readonly(np.zeros(0, np.int64))
_NO_LABELS = (np.zeros((1, 1), np.int64), np.zeros((3, 0), np.int64))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Features of a view as the kernel takes them: `rows` int64 [F, 6], `member` bool [F, types].

    `coded`: the fields that are needed as codes; `labels`: the kinds of labels; `rest`: features
    that the engine alone has.
    """

    features: tuple[Aggregate, ...]
    rows: np.ndarray
    member: np.ndarray
    coded: tuple[str, ...]
    labels: tuple[str, ...]
    rest: tuple[Aggregate, ...]


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
        rest=tuple(one for one in declaration.aggregates if one not in features),
    )


def parts(found: Found, entity: np.ndarray, t: np.ndarray) -> np.ndarray:
    """What the values of the plan's features are made of, int64 [F, R, PARTS]: see `clicktrail.kernels.few.parts`.

    Args:
        found: the states of the entities.
        entity: int64 [R], index into them, -1 nobody.
        t: read times, int64 [R], microseconds UTC.
    """
    plan = plan_of(found.declaration)
    coded = [_codes(found, field) for field in plan.coded]
    codes = np.stack(coded) if coded else np.zeros((0, 0), np.int32)
    return kernels.parts(  # arrays that are made anew for each read go as they are, which is quicker than marking them
        found.starts,
        found.known,
        found.event,
        found.types,
        found.integers,
        found.nulls,
        codes,
        1 + int(codes.max(initial=-1)),
        *(_labels([found.labels[one] for one in plan.labels]) if plan.labels else _NO_LABELS),
        entity,
        t,
        plan.rows,
        plan.member,
    )


def columns(plan: Plan, made: np.ndarray, entity: np.ndarray, t: np.ndarray) -> dict[str, pa.Array]:
    """The features of the plan as the engine's columns, null where there is no entity; `made` is from `parts`."""
    out = {}
    for place, one in enumerate(plan.features):
        found, null = _value(one, made[place], t)
        null = null | (entity < 0)
        out[one.name] = pairs_column(found, null) if one.kind == "label_rate" else pa.array(found, mask=null)
    return out


def floats(plan: Plan, made: np.ndarray, entity: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    """The features of the plan as float64 [R], label rates [R, 2] (labelled, all); nan for null."""
    numbers = kernels.floats(made, plan.rows, entity, t)
    out = {}
    for place, one in enumerate(plan.features):
        out[one.name] = numbers[place] if one.kind == "label_rate" else numbers[place, :, 0]
        if one.kind == "std":
            found, null = _value(one, made[place], t)
            out[one.name] = np.where(null | (entity < 0), np.nan, found)
    return out


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
        return _side_by_side(
            jagged_sequence(declaration, list(declaration.fields), sequences(declaration, found.history, entity, t))
        )
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
    strings = found.strings(positions)
    values: dict[str, np.ndarray] = {}
    dictionaries: dict[str, list[str]] = {}
    nulls: dict[str, np.ndarray] = {}
    for field in declaration.fields:
        if field == "event_timestamp":
            values[field] = found.event[positions]
        elif field == "event_type":
            values[field], dictionaries[field] = found.types[positions].astype(np.int32), list(declaration.events)
        elif field in layout.strings:
            values[field], dictionaries[field] = strings[field]
        else:
            values[field] = found.integers[layout.integers.index(field)][positions]
            null = found.null(field)
            if null is not None:
                nulls[field] = null[positions]
                values[field] = np.where(nulls[field], 0, values[field])
    ends = np.cumsum(lengths)
    return JaggedSequence(values=values, dictionaries=dictionaries, nulls=nulls, starts=ends - lengths, ends=ends)


def lists(declaration: Declaration, read: Sequence[JaggedSequence]) -> dict[str, pa.Array]:
    """Sequences from `sequence`, read after read, as list columns."""
    lengths = np.concatenate([one.ends - one.starts for one in read])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    columns = {}
    for field in declaration.fields:
        flat = np.concatenate([one.values[field] for one in read])
        if field in read[0].dictionaries:
            sizes = [len(one.dictionaries[field]) for one in read]
            before = np.repeat(np.cumsum(sizes) - sizes, [len(one.values[field]) for one in read])
            texts = pa.array([text for one in read for text in one.dictionaries[field]], pa.string())
            values = texts.take(pa.array(np.where(flat < 0, 0, flat + before), mask=flat < 0))
        else:
            null = np.concatenate([one.nulls.get(field, np.zeros(len(one.values[field]), bool)) for one in read])
            values = pa.array(flat, mask=null if null.any() else None)
        if field == "event_timestamp":
            values = values.cast(pa.timestamp("us", tz="UTC"))
        columns[field] = pa.ListArray.from_arrays(offsets, values)
    return columns


def _side_by_side(sequence: JaggedSequence) -> JaggedSequence:
    """The same with each row's events copied, one row behind the other."""
    _, positions = lay_out(sequence.starts, sequence.ends)
    ends = np.cumsum(sequence.ends - sequence.starts)
    return JaggedSequence(
        values={field: flat[positions] for field, flat in sequence.values.items()},
        dictionaries=sequence.dictionaries,
        nulls={field: null[positions] for field, null in sequence.nulls.items()},
        starts=np.append(0, ends[:-1]) if len(ends) else ends,
        ends=ends,
    )


def _value(feature: Aggregate, made: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A value of somebody's from its parts, int64 [R, PARTS]: int64 or float64 [R], and where it is null."""
    a, b, c = made.T
    if feature.kind in ("mean", "ratio"):
        return quotient(a, b)
    if feature.kind == "std":
        return deviation(a, b, c)
    nothing = a == NOTHING
    if feature.kind == "min":
        return ~a, nothing
    if feature.kind == "time_since":
        return np.floor_divide(t - np.where(nothing, 0, a), MICROSECONDS), nothing
    if feature.kind == "label_rate":
        return made[:, :2], np.zeros(len(t), np.bool_)
    return a, nothing if feature.kind == "max" else np.zeros(len(t), np.bool_)


def _codes(found: Found, field: str) -> np.ndarray:
    if field == "event_type":
        return found.types.astype(np.int32)
    if field == "event_day":
        days = np.floor_divide(found.event, MICROSECONDS_PER_DAY)
        if len(days):
            days -= days.min()
            if days.max() > _MOST_DAYS:  # each code takes room in the kernel
                days = np.unique(days, return_inverse=True)[1]
        return days.astype(np.int32)
    return found.codes(field)


def _labels(kinds: list[Labels]) -> tuple[np.ndarray, np.ndarray]:
    """Label steps of several kinds side by side."""
    before = np.cumsum([0, *(len(one.known) for one in kinds)])[:-1]
    starts = np.stack([one.starts + offset for one, offset in zip(kinds, before, strict=True)])
    columns = ([one.known for one in kinds], [one.event for one in kinds], [one.step for one in kinds])
    return starts, np.stack([np.concatenate(column) for column in columns])
