"""What a card's earlier payments say about this one: is the amount usual, and did something odd happen lately?

A label that is known counts as known; a payment whose label is not known yet is *odd* when it is over `ODD` times the
card's median. Nothing here is learnt: a feature is the same whatever the training rows are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from training.hybrids.payments import DAY, Floats, Payments

ODD = 2.5
EXCESS = 2.0
"""From so many times the median on, an amount adds to `card_excess`."""
CARD_FEATURES = (
    "card_payments",  # earlier payments
    "card_gap",  # days since the last one
    "card_mean",  # of their amounts without known frauds
    "card_over_mean",  # this amount over the mean
    "card_z",  # this amount less the mean, in deviations (and a unit of money, since a deviation may be 0)
    "card_over_median",  # this amount over the upper median of all earlier ones
    "card_over_q90",  # and over the amount that nine in ten do not reach
    "card_rank",  # share of amounts, this one included, that are at least this one
    "card_frauds",  # known frauds
    "card_since_fraud",  # days since the last known fraud
    "card_frauds_14d",  # known frauds of the last 14 days
    "card_odd",  # odd payments
    "card_excess",  # by how many medians payments of unknown label were over EXCESS medians, summed
    "card_since_odd",  # days since the last odd payment
    "card_odd_share",  # odd ones among those of unknown label
)


def card_features(payments: Payments) -> Floats:
    """`CARD_FEATURES` of every payment, float64 [n, features]; NaN where there is nothing to compute it from."""
    order = payments.of_cards.order
    found = np.empty((len(order), len(CARD_FEATURES)))
    found[order] = _pass(
        payments.of_cards.bounds,
        payments.time[order],
        payments.amount[order],
        payments.fraud[order],
        payments.delay,
        len(CARD_FEATURES),
    )
    return found


@njit(cache=True)
def _pass(  # noqa: C901 - one pass with a running state a card
    bounds: np.ndarray, time: np.ndarray, amount: np.ndarray, fraud: np.ndarray, delay: int, features: int
) -> np.ndarray:
    """The features of payments that lie together by card, oldest first.

    `seen` is the first payment that is not earlier than this one, `known` the first whose label is not known.
    """
    out = np.full((len(time), features), np.nan)
    for card in range(len(bounds) - 1):
        first, last = bounds[card], bounds[card + 1]
        rising = np.empty(last - first)  # the earlier amounts, sorted
        seen = known = recent = first
        count = total = squares = frauds = frauds_14d = 0
        newest_fraud = -1
        for i in range(first, last):
            t, x = time[i], float(amount[i])
            while time[seen] < t:
                size = seen - first
                at = np.searchsorted(rising[:size], amount[seen])
                rising[at + 1 : size + 1] = rising[at:size].copy()
                rising[at] = amount[seen]
                count, total, squares = count + 1, total + amount[seen], squares + amount[seen] ** 2
                seen += 1
            while time[known] < t - delay:
                if fraud[known]:
                    count, total, squares = count - 1, total - amount[known], squares - amount[known] ** 2
                    frauds, frauds_14d, newest_fraud = frauds + 1, frauds_14d + 1, known
                known += 1
            while recent < known and time[recent] < t - 14 * DAY:
                frauds_14d -= fraud[recent]
                recent += 1
            size = seen - first
            out[i, 0] = size
            out[i, 8], out[i, 10] = frauds, frauds_14d
            if newest_fraud >= 0:
                out[i, 9] = (t - time[newest_fraud]) / DAY
            if count > 0:
                mean = total / count
                deviation = np.sqrt(max(squares / count - mean * mean, 0.0))
                out[i, 2], out[i, 3], out[i, 4] = mean, x / max(mean, 1.0), (x - mean) / (deviation + 100.0)
            out[i, 7] = (size - np.searchsorted(rising[:size], x) + 1) / (size + 1)
            if not size:
                out[i, 11], out[i, 12], out[i, 14] = 0.0, 0.0, 0.0
                continue
            out[i, 1] = (t - time[seen - 1]) / DAY
            median = max(rising[size // 2], 1.0)
            out[i, 5], out[i, 6] = x / median, x / max(rising[9 * size // 10], 1.0)
            odd, excess = 0, 0.0
            for j in range(known, seen):
                ratio = amount[j] / median
                excess += max(ratio - EXCESS, 0.0)
                if ratio > ODD:
                    odd += 1
                    out[i, 13] = (t - time[j]) / DAY
            out[i, 11], out[i, 12], out[i, 14] = odd, excess, odd / max(seen - known, 1)
    return out
