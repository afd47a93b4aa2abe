"""Purchases as histories: one row a customer and day, and what is known of it at the end of a day.

Days are whole numbers from the first day of the file (0). The end of day d has seen the purchases of days 0 .. d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WEEK = 7.0  # days: published parameters are in weeks


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the classic models see of a customer.

    Attributes:
        x: float64 [n], repeat purchases (days with a purchase after the first).
        t_x: float64 [n], weeks from the first purchase to the last.
        T: float64 [n], weeks from the first purchase to the end of the history.
    """

    x: Floats
    t_x: Floats
    T: Floats

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        wrong = ~((self.x >= 0) & (self.t_x >= 0) & (self.t_x <= self.T) & ((self.x > 0) == (self.t_x > 0)))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            message = (
                f"customer {at} has x={self.x[at]}, t_x={self.t_x[at]}, T={self.T[at]}: needed are 0 <= t_x <= T, "
                "and t_x > 0 just where there was a repeat purchase"
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Customers."""
        return len(self.x)

    def distinct(self) -> tuple[Summary, Floats]:
        """Each summary once, and how many customers have it [m]: likelihoods need no more."""
        rows, counts = np.unique(np.column_stack([self.x, self.t_x, self.T]), axis=0, return_counts=True)
        return Summary(x=rows[:, 0], t_x=rows[:, 1], T=rows[:, 2]), counts.astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Purchases:
    """Purchase days of many customers, side by side.

    Customer c's are day[starts[c]:starts[c + 1]], oldest first, each day once; every customer has one or more.

    Attributes:
        day: int64 [p].
        starts: int64 [n + 1].
        amounts: float64 [p] each, what was summed up over the day (money, pieces), by column; may be empty.
    """

    day: Ints
    starts: Ints
    amounts: Mapping[str, Floats]

    def __len__(self) -> int:
        """Customers."""
        return len(self.starts) - 1

    @property
    def owner(self) -> Ints:
        """Whose each purchase is: int64 [p]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def first(self) -> Ints:
        """Day of the first purchase: int64 [n]."""
        return self.day[self.starts[:-1]]

    def until(self, day: int) -> tuple[Purchases, Ints]:
        """What the end of `day` had seen, and which customers those were: int64 [m]."""
        seen = self.day <= day
        counts = np.bincount(self.owner[seen], minlength=len(self))
        known = np.flatnonzero(counts)
        return self._pick(seen, counts[known]), known

    def take(self, customers: Ints) -> Purchases:
        """Those of some customers, in rising order."""
        wanted = np.zeros(len(self), bool)
        wanted[customers] = True
        return self._pick(wanted[self.owner], np.diff(self.starts)[customers])

    def _pick(self, rows: NDArray[np.bool_], counts: Ints) -> Purchases:
        return Purchases(
            day=self.day[rows],
            starts=np.concatenate([[0], np.cumsum(counts)]),
            amounts={name: values[rows] for name, values in self.amounts.items()},
        )

    def count(self, after: int, until: int) -> Floats:
        """Days with a purchase among `after` + 1 .. `until`, by customer: float64 [n]."""
        inside = (self.day > after) & (self.day <= until)
        return np.bincount(self.owner[inside], minlength=len(self)).astype(np.float64)

    def summary(self, day: int) -> Summary:
        """Recency and frequency at the end of `day`, of customers who all bought by then, and not later."""
        last = self.day[self.starts[1:] - 1]
        return Summary(x=np.diff(self.starts) - 1.0, t_x=(last - self.first) / WEEK, T=(day - self.first) / WEEK)


def merge_days(customer: ArrayLike, day: ArrayLike, amounts: Mapping[str, ArrayLike]) -> tuple[Purchases, NDArray[Any]]:
    """Purchases from a log in any order: those of one customer and day become one, their amounts are summed.

    Args:
        customer: [p], ids.
        day: int [p].
        amounts: [p] each, by column.

    Returns:
        The purchases, and the customers' ids [n] in their order.
    """
    ids, codes = np.unique(np.asarray(customer), return_inverse=True)
    days = np.asarray(day, np.int64)
    low = int(days.min())
    width = int(days.max()) - low + 1
    keys, place = np.unique(codes * width + (days - low), return_inverse=True)
    owner, merged = np.divmod(keys, width)
    return (
        Purchases(
            day=merged + low,
            starts=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(ids)))]),
            amounts={
                name: np.bincount(place, weights=np.asarray(values, np.float64), minlength=len(keys)).astype(np.float64)
                for name, values in amounts.items()
            },
        ),
        ids,
    )
