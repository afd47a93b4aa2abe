"""What is known of a request besides its sequences: values that windows give, label rates, scales, ids.

Shapes: E flat events, R rows, V values, K edges, Q label rates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from clicktrail.kernels.encode import Events
from clicktrail.kernels.encode_numbers import (
    MICROSECONDS,
    bucket,
    hour_and_weekday,
    scaled,
    signed_log,
    smoothed_rate,
    time_bucket,
)


class WindowPlan(NamedTuple):
    """Which values a window gives, and where they go: row by row of `out`.

    `ratios` int64 [., 2]: row of `logs`, first of two rows of `out`. `matches` int64 [., 2]: row of `codes`, first of
    two rows. `since`: first of two rows. `pause`: microseconds that part two visits; negative: no rhythm. `rhythm`:
    first of five rows.
    """

    last: int
    ratios: np.ndarray
    matches: np.ndarray
    since: int
    pause: int
    rhythm: int


class RequestPlan(NamedTuple):
    """How values become a model's: `means`, `stds` float64 [V]; `since`, `bucketed`: rows of values that are ids too.

    `edges` float64 [bucketed, K], rising, inf behind the last.
    """

    means: np.ndarray
    stds: np.ndarray
    since: np.ndarray
    bucketed: np.ndarray
    edges: np.ndarray


@njit(cache=True)
def rate_values(pairs: np.ndarray, priors: np.ndarray, out: np.ndarray) -> None:
    """Label rates float64 [Q, R, 2] (labelled, all; nan null) and their `priors` [Q] as values float64 [3 Q, R].

    log1p of a small rate is the rate: a thousandth is the unit that leaves shape to it.
    """
    for place in range(len(priors)):
        for row in range(out.shape[1]):
            labelled, total = pairs[place, row]
            out[3 * place, row] = 1000 * smoothed_rate(labelled, total, priors[place])
            out[3 * place + 1, row], out[3 * place + 2, row] = total, labelled


@njit(cache=True)
def window_values(events: Events, plan: WindowPlan, out: np.ndarray) -> None:
    """What each row's window gives, into the rows of `out` (float64 [V, R]) that the plan names; nan for null."""
    for row in range(len(events.t)):
        start, end = max(events.starts[row], events.ends[row] - plan.last), events.ends[row]
        own = len(events.time) + row
        for field, to in plan.ratios:
            log = events.logs[field, own]
            out[to, row] = 100 * (log - _mean(events.logs[field, start:end]))
            out[to + 1, row] = 100 * (log - events.logs[field, end - 1]) if end > start else math.nan
        for field, to in plan.matches:
            wanted, found = events.codes[field, own], 0
            for at in range(start, end):
                found += wanted >= 0 and events.codes[field, at] == wanted
            out[to, row] = found if end > start else math.nan
            out[to + 1, row] = 100 * found / (end - start) if end > start else math.nan
        known = end > start
        out[plan.since, row] = max(events.t[row] - events.time[end - 1], 0) / MICROSECONDS if known else math.nan
        out[plan.since + 1, row] = end - start
        if plan.pause >= 0:
            _rhythm(events.time[start:end], events.t[row], plan.pause, out[plan.rhythm : plan.rhythm + 5, row])


@njit(cache=True)
def _mean(values: np.ndarray) -> float:
    """Mean of what is not nan, nan where there is nothing."""
    total, count = 0.0, 0
    for value in values:
        if not math.isnan(value):
            total += value
            count += 1
    return total / count if count else math.nan


@njit(cache=True)
def _rhythm(time: np.ndarray, t: int, parting: int, out: np.ndarray) -> None:
    """What the pauses between visits say, float64 [5], nan where there are too few visits.

    Number of visits; mean pause; spread of pauses; last pause less mean; time since the last visit less mean. Pauses
    are from visit to visit; a visit begins with the first event, and with each that comes more than `parting` after
    the one before.
    """
    out[1:] = math.nan
    pauses = np.empty(len(time))
    visits, began = 0, np.int64(0)
    for at in range(len(time)):
        if at == 0 or time[at] - time[at - 1] > parting:
            if at > 0:
                pauses[visits - 1] = _pause(time[at] - began)
            visits, began = visits + 1, time[at]
    out[0] = visits
    if visits < 2:  # noqa: PLR2004 - one visit has no pause
        return
    count = visits - 1
    mean = pauses[:count].sum() / count
    out[1] = mean
    if count > 1:
        squares = 0.0
        for pause in pauses[:count]:
            squares += (pause - mean) ** 2
        out[2] = math.sqrt(squares / count)
    out[3] = pauses[count - 1] - mean
    out[4] = _pause(t - began) - mean


@njit(cache=True)
def _pause(microseconds: int) -> float:
    """A pause in hundredths of a natural logarithm of seconds."""
    return 100 * math.log(max(microseconds / MICROSECONDS, 1.0))


@njit(cache=True)
def request(raw: np.ndarray, t: np.ndarray, categories: np.ndarray, plan: RequestPlan) -> tuple[np.ndarray, np.ndarray]:
    """What a model sees of each request.

    Args:
        raw: float64 [V, R], nan for null.
        t: int64 [R].
        categories: codes of vocabularies, int64 [categories, R].
        plan: scales.

    Returns:
        ids int64 [R, 2 + since + categories + bucketed]; numbers float32 [R, 2 V]: scaled values, then null flags.
    """
    values, rows = raw.shape
    first = 2 + len(plan.since)
    ids = np.empty((rows, first + len(categories) + len(plan.bucketed)), np.int64)
    numbers = np.zeros((rows, 2 * values), np.float32)
    for row in range(rows):
        ids[row, 0], ids[row, 1] = hour_and_weekday(t[row])
        for place, value in enumerate(plan.since):
            ids[row, 2 + place] = time_bucket(raw[value, row])
        for place in range(len(categories)):
            ids[row, first + place] = categories[place, row]
        for place, value in enumerate(plan.bucketed):
            one = scaled(signed_log(raw[value, row]), plan.means[value], plan.stds[value])
            ids[row, first + len(categories) + place] = bucket(one, plan.edges[place])
        for value in range(values):
            one = scaled(signed_log(raw[value, row]), plan.means[value], plan.stds[value])
            if math.isnan(one):
                numbers[row, values + value] = 1
            else:
                numbers[row, value] = one
    return ids, numbers
