"""Purchases side by side: merging, cutting, summaries, features."""

from __future__ import annotations

import numpy as np
import pytest

from training.baselines.pareto_nbd import ParetoNbd
from training.purchases.features import features
from training.purchases.history import Purchases, merge_days

MODEL = ParetoNbd(r=0.5, alpha=10.0, s=0.6, beta=12.0)


@pytest.fixture
def purchases() -> Purchases:
    """Anna buys on days 0, 7 (twice) and 28, Ben on day 10."""
    found, ids = merge_days(["anna", "ben", "anna", "anna", "anna"], [28, 10, 7, 0, 7], {"amount": [8.0, 5, 1, 2, 3]})
    assert list(ids) == ["anna", "ben"]
    return found


def test_merge_days(purchases: Purchases) -> None:
    """Purchases of one day are one, and what they were worth is summed."""
    assert list(purchases.day) == [0, 7, 28, 10]
    assert list(purchases.starts) == [0, 3, 4]
    assert list(purchases.amounts["amount"]) == [2, 1 + 3, 8, 5]


def test_until_and_count(purchases: Purchases) -> None:
    """The end of a day has seen that day; what comes after is counted from the next one on."""
    past, known = purchases.until(7)
    assert list(known) == [0]
    assert list(past.day) == [0, 7]
    assert list(purchases.count(7, 28)) == [1, 1]
    assert list(purchases.count(10, 27)) == [0, 0]


def test_summary(purchases: Purchases) -> None:
    """Frequency counts repeat purchases, recency and age are weeks since the first."""
    seen = purchases.summary(35)
    assert list(seen.x) == [2, 0]
    assert list(seen.t_x) == [28 / 7, 0]
    assert list(seen.T) == [35 / 7, 25 / 7]


def test_features(purchases: Purchases) -> None:
    """Spacing, fading counts and amounts are of the customer alone, and NaN where there is nothing."""
    found = features(purchases, 35, MODEL)
    assert found["gap_mean"][0] == (1 + 3) / 2
    assert found["gap_variation"][0] == pytest.approx(1 / 2)  # gaps of 1 and 3 weeks
    assert found["gap_last"][0] == 3
    assert found["silence"][0] == (35 - 28) / 7 / 2
    assert found["recency"].tolist() == [1, 25 / 7]
    assert found["decayed_2w"][0] == pytest.approx(0.5 ** (5 / 2) + 0.5 ** (4 / 2) + 0.5 ** (1 / 2))
    assert found["last_4w"].tolist() == [1, 1]
    assert found["amount_mean"] == pytest.approx(np.log1p([(2 + 4 + 8) / 3, 5]))
    assert found["amount_last"] == pytest.approx(np.log1p([8, 5]))
    assert found["amount_most"] == pytest.approx(np.log1p([8, 5]))
    assert all(np.isnan(found[name][1]) for name in ("gap_mean", "gap_variation", "gap_last", "silence"))
