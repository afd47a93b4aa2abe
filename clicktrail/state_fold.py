"""Folding: records that no read can see any more leave a state.

A read is answered for t >= the entity's newest arrival, so what matters from then on is bounded: for a sequence the
last events and those that are not visible yet, for aggregates what the longest window reaches. Values are the same
with and without it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.declarations import Declaration
from clicktrail.history import AsOf, History
from clicktrail.kernels import records as kernels
from clicktrail.kernels.arrays import readonly
from clicktrail.state_records import Found, Records, label_kinds, read_records

KEPT_REPEATS = 256
"""So many settled events, or four times as many as the sequence has, are kept with their repeats."""

_NO_REPEATS = np.zeros(0, np.bool_)


def fold(declaration: Declaration, records: Records, catalogue: AsOf | None = None) -> Records:
    """The same states without what no read can see.

    Of a sequence without repeats this is exact as long as the events of an entity reach the log in the order of their
    arrival; one that comes out of order may part repeats that are gone, where there were hundreds of them.
    """
    found = read_records(declaration, records, catalogue)
    keep = _kept_of_sequence(declaration, found) if declaration.is_sequence else _kept_of_aggregates(declaration, found)
    steps = _kept_steps(declaration, records.words, found)
    words, bounds = kernels.copy_kept(
        readonly(records.words),
        readonly(found.history.starts),
        readonly(found.at),
        readonly(keep, np.bool_),
        readonly(found.time),
        readonly(found.step_at[steps]),
        readonly(found.step_entity[steps]),
    )
    return Records(words=words, bounds=bounds)


def _kept_of_sequence(declaration: Declaration, found: Found) -> np.ndarray:
    history = found.history
    repeats = _repeats(history, declaration.drop_repeats) if declaration.drop_repeats else _NO_REPEATS
    return kernels.keep_last(
        readonly(history.starts),
        readonly(history.known),
        readonly(found.time),
        readonly(repeats, np.bool_),
        declaration.last,
        max(4 * declaration.last, KEPT_REPEATS),
    )


def _kept_of_aggregates(declaration: Declaration, found: Found) -> np.ndarray:
    history = found.history
    reach, since = _reach(declaration)
    return kernels.keep_reached(
        readonly(history.starts),
        readonly(history.known),
        readonly(history.event),
        readonly(history.types, np.uint8),
        readonly(found.time),
        reach,
        since,
    )


def _kept_steps(declaration: Declaration, words: np.ndarray, found: Found) -> np.ndarray:
    if not len(found.step_at):
        return np.zeros(0, np.int64)
    far = np.array(
        [
            max((one.reach_us or 0) + one.hop_us for one in declaration.aggregates if (one.label, one.events) == kind)
            for kind in label_kinds(declaration)
        ]
    )
    event = words[found.step_at + 4]
    return np.flatnonzero(event >= found.time[found.step_entity] - far[found.step_kind])


@lru_cache(maxsize=256)
def _reach(declaration: Declaration) -> tuple[np.ndarray, np.ndarray]:
    """How far back each event type is looked at, microseconds (-1 not at all); the sets whose newest event stays."""
    reach = np.full(len(declaration.events), -1, np.int64)
    endless = set()
    for one in declaration.aggregates:
        member = np.array([name in one.events for name in declaration.events])
        if one.reach_us is None:
            endless.add(tuple(member.tolist()))
        else:
            reach[member] = np.maximum(reach[member], one.reach_us + one.hop_us)
    since = np.array(sorted(endless), np.bool_).reshape(len(endless), len(declaration.events))
    return readonly(reach), readonly(since, np.bool_)


def _repeats(history: History, fields: tuple[str, ...]) -> np.ndarray:
    """Which events have these fields in common with the one before, bool [events]."""
    repeats = np.ones(len(history.known), np.bool_)
    for field in fields:
        column = history.column(field)
        codes = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).indices
        values = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
        repeats[1:] &= values[1:] == values[:-1]
    repeats[history.starts[:-1][np.diff(history.starts) > 0]] = False
    return repeats
