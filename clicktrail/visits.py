"""Visits: events of an entity that follow each other closely, and the rhythm of the pauses between them.

Shapes: N flat events of contiguous windows, R windows, V visits.
"""

from __future__ import annotations

import numpy as np

_MINUTE = 60_000_000


def visit_starts(time: np.ndarray, starts: np.ndarray, ends: np.ndarray, minutes: int) -> np.ndarray:
    """Which events begin a visit: the first of a window, and each that comes more than `minutes` after the one before.

    Args:
        time: event times, int64 [N], microseconds.
        starts: int64 [R]; windows are contiguous and in order.
        ends: int64 [R].
        minutes: the pause that parts two visits.
    """
    begins = np.diff(time, prepend=time[:1]) > minutes * _MINUTE
    begins[starts[ends > starts]] = True
    return begins


def visit_of_window(begins: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and end of each window's visits among all visits, int64 [R] each."""
    before = np.append(0, np.cumsum(begins))
    return before[starts], before[ends]


def rhythm(
    time: np.ndarray, starts: np.ndarray, ends: np.ndarray, t: np.ndarray, minutes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the pauses between visits say, by window, float64 [R] each, nan where there are too few visits.

    Pauses are logarithms of seconds from visit to visit, times 100.

    Returns:
        Number of visits; mean pause; spread of pauses; last pause less mean; time since the last visit less mean.
    """
    begins = visit_starts(time, starts, ends, minutes)
    at = time[begins]
    first, last = visit_of_window(begins, starts, ends)
    pauses = 100 * np.log(np.maximum(np.diff(at, prepend=at[:1]) / 1e6, 1.0))
    total, squares = np.append(0, np.cumsum(pauses)), np.append(0, np.cumsum(pauses**2))
    low, count = np.minimum(first + 1, last), last - first
    n = last - low  # the pause of a window's first visit is not in the window
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[last] - total[low]) / n
        spread = np.sqrt(np.maximum((squares[last] - squares[low]) / n - mean**2, 0))
        latest = np.append(pauses, 0)[last - 1] - mean
        now = 100 * np.log(np.maximum((t - np.append(at, 0)[last - 1]) / 1e6, 1.0)) - mean
    spread = np.where(n >= 2, spread, np.nan)  # noqa: PLR2004 - one pause has no spread
    return count.astype(np.float64), mean, spread, latest, now
