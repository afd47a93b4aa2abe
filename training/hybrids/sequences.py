"""The two histories of a payment, cut for a network: its card's last payments, and its place's last known ones.

The card's ends with the payment itself. Amounts are compared with the median of the card that paid, as it was before,
so that a network learns "three times the usual" once for all cards. Ages count from the payment that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.hybrids.payments import DAY, Floats, Floats32, History, Ints, Payments
from training.hybrids.place_history import PLAIN

CARD_VALUES = 6
PLACE_VALUES = 6
_FADE = 14.0
"""Days; ages also enter as exp(-age / fade)."""
_CENTRE = 8.0
"""About the log of an everyday amount in minor units."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What the network reads of B payments, padded to the right.

    Attributes:
        card_BLC: float32; the last event is the payment itself.
        card_length_B: int64, at least 1.
        place_BLC: float32.
        place_length_B: int64, 0 where nothing is known of the place.
    """

    card_BLC: Floats32
    card_length_B: Ints
    place_BLC: Floats32
    place_length_B: Ints

    def __len__(self) -> int:
        """B."""
        return len(self.card_length_B)


def cut(payments: Payments, over_median: Floats, rows: Ints, *, card_last: int, place_last: int) -> Sequences:
    """The sequences of the payments in `rows`.

    Args:
        payments: [n].
        over_median: each amount over its card's median then, [n]; NaN where the card had none.
        rows: int64 [B].
        card_last: at most so many earlier payments of the card.
        place_last: at most so many payments at the place whose label is known.
    """
    log_amount = np.log1p(payments.amount)
    log_over = np.nan_to_num(np.log(np.maximum(over_median, 0.01)))
    log_median = log_amount - log_over  # of the card, before each payment; its own amount where there is none
    card_BLC, card_length_B = _card(payments, log_amount, log_median, rows, card_last)

    at_BL, real_BL = _last(payments.of_places, rows, place_last)
    age_BL = _ages(payments, rows, at_BL, real_BL)
    fraud_BL = payments.fraud[at_BL]
    plain_BL = ~(over_median[at_BL] >= PLAIN)
    values = (
        log_over[at_BL],
        np.log1p(age_BL),
        np.exp(-age_BL / _FADE),
        fraud_BL,
        fraud_BL * plain_BL,
        log_amount[at_BL] - _CENTRE,
    )
    place_BLC = _padded(values, real_BL)
    return Sequences(
        card_BLC=card_BLC, card_length_B=card_length_B, place_BLC=place_BLC, place_length_B=real_BL.sum(axis=1)
    )


def _card(payments: Payments, log_amount: Floats, log_median: Floats, rows: Ints, last: int) -> tuple[Floats32, Ints]:
    """card_BLC with L = last + 1, and its lengths."""
    at_BL, real_BL = _last(payments.of_cards, rows, last)
    age_BL = _ages(payments, rows, at_BL, real_BL)
    known_BL = age_BL > payments.delay / DAY
    fraud_BL = payments.fraud[at_BL]
    values = (
        log_amount[at_BL] - log_median[rows][:, None],
        np.log1p(age_BL),
        np.exp(-age_BL / _FADE),
        known_BL * fraud_BL,
        known_BL * (1 - fraud_BL),
        log_amount[at_BL] - _CENTRE,
    )
    length_B = real_BL.sum(axis=1)
    now = np.zeros((len(rows), CARD_VALUES))
    now[:, 0] = (log_amount - log_median)[rows]
    now[:, 2] = 1.0
    now[:, 5] = log_amount[rows] - _CENTRE
    card_BLC = np.zeros((len(rows), last + 1, CARD_VALUES), np.float32)
    card_BLC[:, :last] = _padded(values, real_BL)
    card_BLC[np.arange(len(rows)), length_B] = now
    return card_BLC, length_B + 1


def _last(history: History, rows: Ints, last: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The last payments behind each row, oldest first, int64 [B, last], and which of them are real."""
    end = history.end[rows][:, None]
    at = np.maximum(history.start[rows][:, None], end - last) + np.arange(last)
    real = at < end
    return history.order[np.where(real, at, 0)], real


def _ages(payments: Payments, rows: Ints, at_BL: Ints, real_BL: NDArray[np.bool_]) -> Floats:
    """Days from each event to the payment that is scored; 0 for padding, which would point anywhere."""
    return np.where(real_BL, payments.time[rows][:, None] - payments.time[at_BL], 0) / DAY


def _padded(values: Sequence[NDArray[Any]], real_BL: NDArray[np.bool_]) -> Floats32:
    """The values as BLC, zeros where nothing is real."""
    return (np.stack(values, axis=-1) * real_BL[..., None]).astype(np.float32)
