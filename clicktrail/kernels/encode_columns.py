"""The columns of one row's tokens, each a loop over them.

Shapes: `at` int64 [events] says where the events of the row's window stand in `codes` and `logs`, `moment` int64
[events] when they were; `first` and `end` int64 [T] are places in the window of each token's first and last event.
Ids are int32 [T], numbers float32 [T], all 0 before.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from clicktrail.kernels.encode_numbers import (
    MICROSECONDS,
    bucket,
    hour_and_weekday,
    scaled,
    time_bucket,
    time_log,
    time_number,
)


@njit(cache=True)
def strings(codes: np.ndarray, at: np.ndarray, end: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Codes of the vocabulary; `table` has them by code of the dictionary."""
    for token in range(len(end)):
        code = codes[at[end[token]]]
        out[token] = 0 if code < 0 else table[code]


@njit(cache=True)
def strings_before(
    codes: np.ndarray, at: np.ndarray, first: np.ndarray, end: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """The string of the event before the last, where both are of the same token."""
    for token in range(len(end)):
        if end[token] > first[token]:
            code = codes[at[end[token] - 1]]
            out[token] = 0 if code < 0 else table[code]


@njit(cache=True)
def values(
    logs: np.ndarray,
    at: np.ndarray,
    end: np.ndarray,
    mean: float,
    std: float,
    edges: np.ndarray,
    ids: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """A number as bucket and as scaled value; null is 0 in both."""
    for token in range(len(end)):
        value = scaled(logs[at[end[token]]], mean, std)
        ids[token], numbers[token] = bucket(value, edges), _or_zero(value)


@njit(cache=True)
def clock(moment: np.ndarray, end: np.ndarray, hours: np.ndarray, weekdays: np.ndarray) -> None:
    """Hour and weekday."""
    for token in range(len(end)):
        hours[token], weekdays[token] = hour_and_weekday(moment[end[token]])


@njit(cache=True)
def ages(moment: np.ndarray, end: np.ndarray, t: int, ids: np.ndarray, numbers: np.ndarray) -> None:
    """From the event to the query at `t`."""
    for token in range(len(end)):
        seconds = (t - moment[end[token]]) / MICROSECONDS
        ids[token], numbers[token] = time_bucket(seconds), time_number(seconds)


@njit(cache=True)
def gaps(moment: np.ndarray, first: np.ndarray, ids: np.ndarray, numbers: np.ndarray) -> None:
    """From where the token before began to where this one does."""
    for token in range(1, len(first)):
        seconds = (moment[first[token]] - moment[first[token - 1]]) / MICROSECONDS
        ids[token], numbers[token] = time_bucket(seconds), time_number(seconds)


@njit(cache=True)
def same(codes: np.ndarray, at: np.ndarray, end: np.ndarray, wanted: int, out: np.ndarray) -> None:
    """Whether the string is the wanted one; null is like nothing."""
    for token in range(len(end)):
        out[token] = wanted >= 0 and codes[at[end[token]]] == wanted


@njit(cache=True)
def seen(codes: np.ndarray, at: np.ndarray, end: np.ndarray, marks: np.ndarray, row: int, out: np.ndarray) -> None:
    """Whether the string stood earlier in the window; `marks`: the row that saw each code last."""
    token = 0
    for place in range(len(at)):
        code = codes[at[place]]
        if place == end[token]:
            out[token] = code >= 0 and marks[code] == row
            token += 1
        if code >= 0:
            marks[code] = row


@njit(cache=True)
def _changes(logs: np.ndarray, at: np.ndarray, end: np.ndarray, out: np.ndarray) -> None:
    """Change since the event before."""
    for token in range(len(end)):
        if end[token] > 0:
            out[token] = _or_zero(logs[at[end[token]]] - logs[at[end[token] - 1]])


@njit(cache=True)
def changes(logs: np.ndarray, at: np.ndarray, end: np.ndarray, out: np.ndarray, put: int) -> int:
    """The changes of all numbers, from column `put` on; the column behind them."""
    for field in range(len(logs)):
        _changes(logs[field], at, end, out[:, put + field])
    return put + len(logs)


@njit(cache=True)
def paces(moment: np.ndarray, end: np.ndarray, out: np.ndarray) -> None:
    """Change of the pause before an event since the pause before that."""
    for token in range(len(end)):
        place = end[token]
        if place > 1:
            now, before = moment[place] - moment[place - 1], moment[place - 1] - moment[place - 2]
            out[token] = time_log(now / MICROSECONDS) - time_log(before / MICROSECONDS)


@njit(cache=True)
def sizes(first: np.ndarray, end: np.ndarray, out: np.ndarray) -> None:
    """How many events a token stands for."""
    for token in range(len(end)):
        out[token] = math.log(end[token] - first[token] + 1) / 2


@njit(cache=True)
def again(codes: np.ndarray, at: np.ndarray, end: np.ndarray, out: np.ndarray) -> None:
    """Whether the string is that of the event before; two nulls are alike."""
    for token in range(1, len(end)):
        out[token] = codes[at[end[token]]] == codes[at[end[token] - 1]]


@njit(cache=True)
def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
