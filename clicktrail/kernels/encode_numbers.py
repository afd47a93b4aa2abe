"""The numbers of an encoding, one at a time: logarithms, scales, buckets, lengths of time, rates.

Training and serving get them from here alone, so that a value that is a quantile's edge falls into the same bucket in
both: numpy's own logarithms differ in the last bit from one kind of processor to the next.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

TIME_BUCKETS = 50
CLIP = 6.0
RATE_STRENGTH = 5.0
"""The overall rate weighs as much as this many events in a smoothed label rate."""

MICROSECONDS = 1_000_000
_FRACTION, _BIAS = 52, 1023
"""Bits of a float64 behind its exponent, and what the exponent is raised by."""
_REST = (1 << _FRACTION) - 1
_HALF_OCTAVE = int(np.float64(math.sqrt(2)).view(np.int64)) & _REST
_HOUR, _DAY = 3_600 * MICROSECONDS, 86_400 * MICROSECONDS


@njit(cache=True)
def signed_log(value: float) -> float:
    """sign(x) log(1 + |x|); nan stays nan."""
    return math.copysign(math.log1p(abs(value)), value)


@njit(cache=True)
def signed_logs(values: np.ndarray) -> None:
    """Each of float64 [N] becomes its signed logarithm, in place."""
    for at in range(len(values)):
        values[at] = signed_log(values[at])


@njit(cache=True)
def scaled(log: float, mean: float, std: float) -> float:
    """A logarithm as a model sees it, within CLIP; nan stays nan."""
    value = (log - mean) / std
    return value if math.isnan(value) else min(max(value, -CLIP), CLIP)


@njit(cache=True)
def bucket(value: float, edges: np.ndarray) -> int:
    """1 + how many edges (float64, rising, inf behind the last) a scaled value reaches; 0 for nan."""
    if math.isnan(value):
        return 0
    reached = 1
    for edge in edges:  # some 30: faster than to search, as there is no branch
        reached += 1 if edge <= value else 0
    return reached


@njit(cache=True)
def time_bucket(seconds: float) -> int:
    """1 + floor(2 log2(1 + seconds)), at most TIME_BUCKETS - 1; negative counts as 0, nan is 0."""
    if math.isnan(seconds):
        return 0
    # the floor of a logarithm is in the bits of a number already: its power of two, and whether the rest is over sqrt 2
    bits = np.float64(1 + max(seconds, 0.0)).view(np.int64)
    power, rest = (bits >> _FRACTION) - _BIAS, bits & _REST
    return 1 + min(2 * int(power) + int(rest >= _HALF_OCTAVE), TIME_BUCKETS - 2)


@njit(cache=True)
def time_number(seconds: float) -> float:
    """Length of time between -1 (nothing) and about 1 (half a year)."""
    return time_log(seconds) / 8 - 1


@njit(cache=True)
def time_log(seconds: float) -> float:
    """log(1 + seconds); negative counts as 0. No time is so short as to need log1p, which takes three times as long."""
    return math.log(1 + max(seconds, 0.0))


@njit(cache=True)
def hour_and_weekday(t: int) -> tuple[int, int]:
    """Hour of the day (1..24) and day of the week (1 Monday .. 7 Sunday) of microseconds UTC."""
    return 1 + t % _DAY // _HOUR, 1 + (t // _DAY + 3) % 7  # 1970-01-01 was a Thursday


@njit(cache=True)
def smoothed_rate(labelled: float, total: float, prior: float) -> float:
    """Labelled / total, drawn towards `prior` where it rests on little: the one division of label rates."""
    return (labelled + RATE_STRENGTH * prior) / (total + RATE_STRENGTH)
