"""What boosting sees of a customer beside recency and frequency: how purchases were spaced, and what they were worth.

Nothing is taken from the calendar or from how long a customer has been known: both go on to where nothing was observed.
"""

from __future__ import annotations

import numpy as np

from training.baselines.pareto_nbd import ParetoNbd
from training.purchases.history import WEEK, Floats, Ints, Purchases

_HALF_LIVES = (2, 4, 8, 16)  # weeks
_WINDOWS = (4, 8, 13)  # weeks


def features(past: Purchases, day: int, model: ParetoNbd) -> dict[str, Floats]:
    """By name, float64 [n] each; NaN where a customer has no such thing.

    Args:
        past: nothing after `day`, every customer with a purchase.
        day: at the end of which they are computed.
        model: fitted to the same; its view of each customer is a feature.
    """
    seen = past.summary(day)
    found = {
        "x": seen.x,
        "t_x": seen.t_x,
        "recency": seen.T - seen.t_x,
        "alive": model.alive(seen),
        "log_rate": np.log((model.r + seen.x) / (model.alpha + seen.T)),
    }
    age = (day - past.day) / WEEK
    owner = past.owner
    for weeks in _HALF_LIVES:
        found[f"decayed_{weeks}w"] = np.bincount(owner, 0.5 ** (age / weeks), len(past))
    for weeks in _WINDOWS:
        found[f"last_{weeks}w"] = np.bincount(owner, age < weeks, len(past))
    return found | _gaps(past, found["recency"], owner) | _amounts(past, owner)


def _gaps(past: Purchases, recency: Floats, owner: Ints) -> dict[str, Floats]:
    """Weeks between purchases: mean, variation, the last one, and how long the present silence is beside the mean."""
    same = owner[1:] == owner[:-1]
    gaps, whose = (np.diff(past.day) / WEEK)[same], owner[1:][same]
    count = np.diff(past.starts) - 1.0
    last = np.full(len(past), np.nan)
    last[whose] = gaps  # the latest gap of each customer is written last
    with np.errstate(divide="ignore", invalid="ignore"):  # no gap: NaN
        mean = np.bincount(whose, gaps, len(past)) / count
        square = np.bincount(whose, gaps**2, len(past)) / count
        variation = np.sqrt(np.maximum(square - mean**2, 0)) / mean
    return {
        "gap_mean": mean,
        "gap_variation": np.where(count > 1, variation, np.nan),
        "gap_last": last,
        "silence": recency / mean,
    }


def _amounts(past: Purchases, owner: Ints) -> dict[str, Floats]:
    """Mean, first, last and largest of every amount, as logarithms that keep the sign (returns are negative)."""
    first, last = past.starts[:-1], past.starts[1:] - 1
    found = {}
    for name, values in past.amounts.items():
        found[f"{name}_mean"] = _log(np.bincount(owner, values, len(past)) / np.diff(past.starts))
        found[f"{name}_first"] = _log(values[first])
        found[f"{name}_last"] = _log(values[last])
        found[f"{name}_most"] = _log(np.maximum.reduceat(values, first))
    return found


def _log(values: Floats) -> Floats:
    return np.sign(values) * np.log1p(np.abs(values))
