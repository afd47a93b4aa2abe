"""The calibration period seen from days inside it: what was known then, and what came of it.

A customer is looked at many times, with several horizons. Pareto/NBD is fitted anew to what each day had seen, so
that it errs there as it will at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.baselines import pareto_nbd
from training.baselines.pareto_nbd import ParetoNbd
from training.purchases.features import features
from training.purchases.history import WEEK, Floats, Ints, Purchases, Summary

_LEAST = 1e-4  # purchases: nobody is expected to buy less, or one surprise would outweigh all


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Customers at the end of a day.

    Attributes:
        day: the day.
        known: int64 [n], their places among the customers of the whole file.
        seen: recency and frequency.
        model: Pareto/NBD fitted to `seen`.
        names: [f], of the features.
        values: float32 [n, f], NaN for none.
    """

    day: int
    known: Ints
    seen: Summary
    model: ParetoNbd
    names: tuple[str, ...]
    values: NDArray[np.float32] = field(repr=False)

    def expected(self, days: int) -> Floats:
        """What Pareto/NBD expects of the next `days`: float64 [n]."""
        return np.maximum(self.model.expected(self.seen, days / WEEK), _LEAST)


def snapshot(purchases: Purchases, day: int) -> Snapshot:
    """Look at the customers from the end of `day`; later purchases are not looked at.

    Raises:
        ValueError: nobody had bought twice by then.
    """
    past, known = purchases.until(day)
    seen = past.summary(day)
    try:
        model = pareto_nbd.fit(seen)
    except ValueError as wrong:
        message = f"by day {day} of the calibration period: {wrong}"
        raise ValueError(message) from wrong
    found = features(past, day, model)
    values = np.column_stack(list(found.values())).astype(np.float32)
    return Snapshot(day=day, known=known, seen=seen, model=model, names=tuple(found), values=values)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A calibration period, cut into `steps` equal ones.

    Attributes:
        purchases: of the file; days after the last edge are never read.
        edges: int64 [steps + 1], the day at the end of each step; the last is that of the period.
        looks: snapshots by step, those of early steps missing.
    """

    purchases: Purchases
    edges: Ints
    looks: dict[int, Snapshot] = field(repr=False)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.edges) - 1

    def days(self, step: int, until: int) -> int:
        """Days between the ends of two steps."""
        return int(self.edges[until] - self.edges[step])

    def came(self, step: int, until: int) -> Floats:
        """What customers of the look at `step` bought by the end of `until`: float64 [n]."""
        return self.purchases.count(int(self.edges[step]), int(self.edges[until]))[self.looks[step].known]


def look(purchases: Purchases, until: int, *, steps: int, first: int, progress: bool = False) -> Calibration:
    """Look at the days 0 .. `until` from the ends of the steps `first` .. `steps`.

    Raises:
        ValueError: fewer days than steps, or nobody had bought twice by the first look.
    """
    from tqdm import tqdm

    if until + 1 < steps:
        message = f"the calibration period has {until + 1} days, {steps} or more are needed: give a longer history"
        raise ValueError(message)
    edges = np.round(np.linspace(-1, until, steps + 1)).astype(np.int64)
    bar = tqdm(range(first, steps + 1), desc="looks at the calibration period", disable=not progress)
    return Calibration(
        purchases=purchases, edges=edges, looks={step: snapshot(purchases, int(edges[step])) for step in bar}
    )
