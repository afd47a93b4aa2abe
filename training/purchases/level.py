"""How many purchases there will be in all: Pareto/NBD's sum, times what such sums missed before.

Looks are taken that stand early enough for the stretch from there to the end to be to their history as the days asked
for are to the whole: a forecast over half the history errs otherwise than one over all of it. Few customers tell
little, as Pareto/NBD fitted to them early is a matter of luck. What parts of the customers say differs by that luck,
and the more it does, the nearer the level stays to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.baselines import pareto_nbd
from training.purchases.history import WEEK, Ints, Summary
from training.purchases.snapshots import Calibration

_PARTS = 5  # of the customers
_USUAL = 0.1  # how far sums are usually off: standard deviation of the logarithm


def level(period: Calibration, until: int, days: int) -> float:
    """What the sum of the `days` after step `until` will be, over what Pareto/NBD expects."""
    ratio = days / (period.edges[until] + 1)
    early = [step for step in period.looks if step < until and _reaches(period, step, until, ratio)]
    early = early or [min(period.looks)]
    came = sum(period.came(step, until).sum() for step in early)
    expected = sum(period.looks[step].expected(period.days(step, until)).sum() for step in early)
    noise = _noise(period, early, until)
    return float((came / expected) ** (_USUAL**2 / (_USUAL**2 + noise**2))) if np.isfinite(noise) else 1.0


def _reaches(period: Calibration, step: int, until: int, ratio: float) -> bool:
    return bool(period.days(step, until) >= ratio * (period.edges[step] + 1) - 1)  # edges are whole days


def _noise(period: Calibration, early: Sequence[int], until: int) -> float:
    """Standard error of the level's logarithm, from parts of the customers; infinite where a part is too small."""
    part = np.random.default_rng(0).permutation(len(period.purchases)) % _PARTS
    found = [_missed(period, early, until, part == one) for one in range(_PARTS)]
    return float(np.std(np.log(found), ddof=1) / np.sqrt(_PARTS)) if min(found) > 0 else np.inf


def _missed(period: Calibration, early: Sequence[int], until: int, chosen: Ints) -> float:
    """What came over what was expected of some customers by a model of their own; 0 where there is none."""
    came = expected = 0.0
    for step in early:
        look = period.looks[step]
        rows = chosen[look.known]
        seen = Summary(x=look.seen.x[rows], t_x=look.seen.t_x[rows], T=look.seen.T[rows])
        if not (seen.x > 0).any():
            return 0.0
        came += period.came(step, until)[rows].sum()
        expected += pareto_nbd.fit(seen, near=look.model).expected(seen, period.days(step, until) / WEEK).sum()
    return float(came / expected)
