"""All features of an aggregate view for a few rows, in one pass over what each row sees.

For a read of some entities this is faster than `clicktrail.kernels.windows`, which shares work between the many rows
of an entity: here every row looks at its entity's events anew, and every feature at every event.

Shapes: E events, R rows, F features, I integer fields, S string fields, K kinds of labels, T event types.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from clicktrail.kernels.windows import NOTHING, edge

COUNT, SUM, MEAN, STD, RATIO_OF_COUNTS, RATIO_OF_SUMS, MAX, MIN, DISTINCT, TIME_SINCE, LABEL_RATE = range(11)
_MICROSECONDS = 1_000_000
PARTS = 3
"""Whole numbers of which a value is made: see `parts`."""


@njit(cache=True)
def parts(  # noqa: PLR0915 - one pass over rows, features and events
    starts: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    types: np.ndarray,
    integers: np.ndarray,
    nulls: np.ndarray,
    codes: np.ndarray,
    values: int,
    label_starts: np.ndarray,
    labels: np.ndarray,
    entity: np.ndarray,
    t: np.ndarray,
    plan: np.ndarray,
    member: np.ndarray,
) -> np.ndarray:
    """The whole numbers that each value is made of.

    Args:
        starts: where each entity's events begin, int64.
        known: known_at, rising within an entity, int64 [E].
        event: event time, int64 [E].
        types: uint8 [E].
        integers: int64 [I, E].
        nulls: a bit for each integer field, int64 [E].
        codes: int32 [S, E], -1 null; equal strings of an entity have equal codes.
        values: codes are below this.
        label_starts: where each entity's label steps begin, int64 [K, entities + 1].
        labels: known_at, time of the event and step, int64 [3, steps].
        entity: int64 [R], -1 nobody.
        t: read times, int64 [R].
        plan: int64 [F, 6]: kind, field (row of integers, codes or label_starts), window (negative: none), the longer
            window of a ratio, delay, hop.
        member: whether an event type counts, bool [F, T].

    Returns:
        int64 [F, R, PARTS]; COUNT n; SUM total; MEAN total, n; STD n, total, sum of squares modulo 2^64; a ratio over,
        under; MAX the value; MIN ~value; DISTINCT n; TIME_SINCE newest event time; LABEL_RATE ones, n. NOTHING where
        there is no value to be had. Zeros for nobody.
    """
    out = np.zeros((len(plan), len(t), PARTS), np.int64)
    seen = np.full(values, -1, np.int64)
    for row in range(len(t)):
        one = entity[row]
        if one < 0 or one >= len(starts) - 1:
            continue
        now = t[row]
        end = starts[one]
        while end < starts[one + 1] and known[end] < now:
            end += 1
        for feature in range(len(plan)):
            kind, field, window, over, delay, hop = plan[feature]
            a, b, c = np.int64(0), np.int64(0), np.int64(0)
            if kind in (MAX, MIN, TIME_SINCE):
                a = np.int64(NOTHING)
            left = NOTHING if window < 0 else edge(now, window + delay, hop)
            far = left if over < 0 else edge(now, over + delay, hop)
            mark = row * len(plan) + feature
            for at in range(starts[one], end):
                if not member[feature, types[at]] or event[at] < min(left, far) or event[at] + delay >= now:
                    continue
                if kind == COUNT:
                    a += 1
                elif kind == TIME_SINCE:
                    a = max(a, event[at])
                elif kind == DISTINCT:
                    code = codes[field, at]
                    if code >= 0 and seen[code] != mark:
                        seen[code] = mark
                        a += 1
                elif kind == LABEL_RATE:
                    b += 1
                elif kind == RATIO_OF_COUNTS:
                    a += event[at] >= left
                    b += event[at] >= far
                elif not (nulls[at] >> field) & 1:
                    number = integers[field, at]
                    if kind == SUM:
                        a += number
                    elif kind == MEAN:
                        a += number
                        b += 1
                    elif kind == STD:
                        a += 1
                        b += number
                        c += number * number
                    elif kind == MAX:
                        a = max(a, number)
                    elif kind == MIN:
                        a = max(a, ~number)
                    else:
                        a += number if event[at] >= left else 0
                        b += number if event[at] >= far else 0
            if kind == LABEL_RATE:
                for at in range(label_starts[field, one], label_starts[field, one + 1]):
                    if labels[0, at] < now and labels[1, at] >= left and labels[1, at] + delay < now:
                        a += labels[2, at]
            out[feature, row, 0], out[feature, row, 1], out[feature, row, 2] = a, b, c
    return out


@njit(cache=True)
def floats(made: np.ndarray, plan: np.ndarray, entity: np.ndarray, t: np.ndarray) -> np.ndarray:
    """What `parts` made as numbers: float64 [F, R, 2], nan for null; the second is the n of a LABEL_RATE. No STD."""
    out = np.full((len(plan), len(t), 2), np.nan)
    for feature in range(len(plan)):
        kind = plan[feature, 0]
        for row in range(len(t)):
            if entity[row] < 0:
                continue
            a, b = made[feature, row, 0], made[feature, row, 1]
            if kind in (MEAN, RATIO_OF_COUNTS, RATIO_OF_SUMS):
                if b != 0:
                    out[feature, row, 0] = a / b
            elif kind == LABEL_RATE:
                out[feature, row, 0], out[feature, row, 1] = a, b
            elif kind in (MAX, MIN, TIME_SINCE) and a == NOTHING:
                continue
            elif kind == TIME_SINCE:
                out[feature, row, 0] = (t[row] - a) // _MICROSECONDS
            else:
                out[feature, row, 0] = ~a if kind == MIN else a
    return out
