"""Payments as plain columns, and whose history each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

DAY = 86_400_000_000
"""Microseconds."""


@dataclass(frozen=True, kw_only=True)
class Payments:
    """One entry a payment, oldest first; what is behind a payment is strictly earlier than it.

    Attributes:
        time: microseconds, int64 [n], rising.
        card: who pays, int64 [n].
        place: where, int64 [n].
        amount: minor units, int64 [n].
        fraud: whether it turned out to be fraud, int64 [n] of 0 and 1.
        delay: microseconds until a label is known: that of a payment at u is known at t when u + delay < t.
    """

    time: Ints
    card: Ints
    place: Ints
    amount: Ints
    fraud: Ints
    delay: int

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: columns of different lengths, a time before the one above it, a label that is neither 0 nor 1.
        """
        lengths = {name: len(getattr(self, name)) for name in ("time", "card", "place", "amount", "fraud")}
        if len(set(lengths.values())) != 1:
            message = f"the columns have different lengths: {lengths}"
            raise ValueError(message)
        back = np.flatnonzero(np.diff(self.time) < 0)
        if len(back):
            message = f"the time in row {back[0] + 1} is before that of the row above: sort the payments by time"
            raise ValueError(message)
        odd = np.flatnonzero((self.fraud != 0) & (self.fraud != 1))
        if len(odd):
            message = f"fraud is {self.fraud[odd[0]]} in row {odd[0]}: it is 0 or 1"
            raise ValueError(message)

    @cached_property
    def of_cards(self) -> History:
        """Each card's payments; behind a payment lies whatever is earlier."""
        return history(self.card, self.time, 0)

    @cached_property
    def of_places(self) -> History:
        """Each place's payments; behind a payment lie those whose label is known."""
        return history(self.place, self.time, self.delay)


@dataclass(frozen=True, kw_only=True)
class History:
    """Payments put together by entity: those behind payment i are `order[start[i]:end[i]]`, oldest first.

    Attributes:
        order: the payments by entity and time, int64 [n].
        bounds: where each entity begins in `order`, and the end, int64 [entities + 1].
        start: where the entity of each payment begins, int64 [n].
        end: where what is behind each payment ends, int64 [n].
    """

    order: Ints
    bounds: Ints
    start: Ints
    end: Ints


def history(entity: Ints, time: Ints, delay: int) -> History:
    """The history by `entity` of payments at rising times; what is behind t is earlier than t - delay."""
    codes = np.unique(entity, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    # one number for (entity, time): entities lie further apart than any two times, and than any time and the delay
    origin = int(time[0]) if len(time) else 0
    span = int(time[-1]) - origin + delay + 1 if len(time) else 1
    place_of = codes * span + (time - origin)
    end = np.searchsorted(place_of[order], place_of - delay, side="left")
    start = bounds[codes]
    return History(order=order, bounds=bounds, start=start, end=np.maximum(start, end))
