"""Where a sequence begins and ends in its entity's events."""

from __future__ import annotations

import numpy as np
from numba import njit

ANY_AGE = np.iinfo(np.int64).min
"""`oldest` of a sequence without a longest age."""


@njit(cache=True)
def first_not_before(values: np.ndarray, low: int, high: int, needle: int) -> int:
    """First position in the rising values[low:high] whose value is >= needle, or high."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < needle:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def last_before(
    starts: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    session: np.ndarray,
    entity: np.ndarray,
    t: np.ndarray,
    last: int,
    within: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The range of each row's sequence, and how many in it are older than `within`.

    Args:
        starts: int64 [entities + 1].
        known: known_at, rising within an entity, int64 [events].
        event: event time, int64 [events].
        session: position at which the session of each event began, int64 [events]; empty: sessions do not matter.
        entity: int64 [rows], -1 nobody.
        t: read times, int64 [rows].
        last: events at most.
        within: longest age; negative: any.

    Returns:
        start, end, too_old, each int64 [rows]; what is too old at the head is cut off already.
    """
    rows = len(entity)
    start, end, too_old = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for row in range(rows):
        one = entity[row]
        if one < 0 or one >= len(starts) - 1:
            continue
        begin = starts[one]
        stop = first_not_before(known, begin, starts[one + 1], t[row])
        head = max(begin, stop - last)
        if len(session) and stop > begin:
            head = max(head, session[stop - 1])
        if within >= 0:
            oldest = t[row] - within
            while head < stop and event[head] < oldest:
                head += 1
            for at in range(head + 1, stop):
                if event[at] < oldest:
                    too_old[row] += 1
        start[row], end[row] = head, stop
    return start, end, too_old


@njit(cache=True)
def session_starts(starts: np.ndarray, known: np.ndarray, session: np.ndarray, pause: int) -> np.ndarray:
    """Position at which each event's session began, int64 [events].

    A session ends where its code changes (`pause` 0), or where nothing became known for longer than `pause`.
    """
    out = np.empty(len(known), np.int64)
    for one in range(len(starts) - 1):
        began = starts[one]
        for at in range(starts[one], starts[one + 1]):
            if at > starts[one]:
                ended = session[at] != session[at - 1] if pause == 0 else known[at] - known[at - 1] > pause
                if ended:
                    began = at
            out[at] = began
    return out
