"""What is known of the place where a payment is made: frauds there, how lately, and whether the place did them.

A fraud of an amount that is usual for its card (under `PLAIN` times the card's median) speaks against the place; one
of an unusual amount speaks against the card. A *run* is the frauds known since the last genuine payment: the place
went bad somewhere between that payment and the first fraud of the run.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from training.hybrids.payments import DAY, Floats, Payments

PLAIN = 2.2
PLACE_FEATURES = (
    "place_since_fraud",  # days since the last known fraud
    "place_since_genuine",  # and since the last payment known to be genuine
    "place_run",  # frauds in the run
    "place_since_run",  # days since its first fraud
    "place_since_before_run",  # and since the genuine payment before it
    "place_frauds_3d",  # known frauds, each worth exp(-age / 3 days)
    "place_frauds_14d",  # the same with 14 days
    "place_share_14d",  # of all known payments so weighted, the share that is fraud; 0 where none is known
    "place_since_plain",  # days since the last known fraud of a usual amount
    "place_plain_14d",  # such frauds, each worth exp(-age / 14 days)
    "place_frauds",  # all known frauds
)


def place_features(payments: Payments, over_median: Floats) -> Floats:
    """`PLACE_FEATURES` of every payment, float64 [n, features]; NaN where there is nothing to compute it from.

    Args:
        payments: [n].
        over_median: each amount over its card's median then, [n]; NaN where the card had none.
    """
    order = payments.of_places.order
    found = np.empty((len(order), len(PLACE_FEATURES)))
    found[order] = _pass(
        payments.of_places.bounds,
        payments.time[order],
        payments.fraud[order],
        ~(over_median[order] >= PLAIN),  # NaN is plain
        payments.delay,
        len(PLACE_FEATURES),
    )
    return found


@njit(cache=True)
def _pass(
    bounds: np.ndarray, time: np.ndarray, fraud: np.ndarray, plain: np.ndarray, delay: int, features: int
) -> np.ndarray:
    """The features of payments that lie together by place, oldest first. Weighted sums are kept as of `at`."""
    out = np.full((len(time), features), np.nan)
    for place in range(len(bounds) - 1):
        known = bounds[place]
        newest_fraud = newest_genuine = newest_plain = run_start = before_run = -1
        run = frauds = 0
        fast = slow = slow_all = slow_plain = 0.0
        at = time[known]
        for i in range(bounds[place], bounds[place + 1]):
            t = time[i]
            while time[known] < t - delay:
                age = (time[known] - at) / DAY
                fast *= np.exp(-age / 3)
                faded = np.exp(-age / 14)
                slow, slow_all, slow_plain = slow * faded, slow_all * faded + 1, slow_plain * faded
                at = time[known]
                if fraud[known]:
                    if run == 0:
                        run_start, before_run = known, newest_genuine
                    run, frauds, newest_fraud = run + 1, frauds + 1, known
                    fast, slow = fast + 1, slow + 1
                    if plain[known]:
                        newest_plain, slow_plain = known, slow_plain + 1
                else:
                    run, run_start, before_run, newest_genuine = 0, -1, -1, known
                known += 1
            faded = np.exp(-(t - at) / DAY / 14)
            marks = (newest_fraud, newest_genuine, -1, run_start, before_run, -1, -1, -1, newest_plain)
            for column, mark in enumerate(marks):
                if mark >= 0:
                    out[i, column] = (t - time[mark]) / DAY
            out[i, 2], out[i, 10] = run, frauds
            out[i, 5], out[i, 6], out[i, 9] = fast * np.exp(-(t - at) / DAY / 3), slow * faded, slow_plain * faded
            out[i, 7] = slow / slow_all if slow_all > 0 else 0.0
    return out
