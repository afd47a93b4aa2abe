"""Our forecast of repeat purchases: level, choice and what it may see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.purchases.forecast import FIRST, STEPS, Chosen, ForecastConfig, Trees, _fewest, choose, forecast
from training.purchases.history import Purchases, merge_days
from training.purchases.level import level
from training.purchases.snapshots import Calibration, look, snapshot

DAYS = 200
SMALL = ForecastConfig(depths=(2,), most_trees=20, every=10, leaf_rows=50, share=0.5, bag=1)


def shop(customers: int, days: int, seed: int, *, grows: float = 0.0) -> Purchases:
    """Customers of different rates who come early and leave some day; they buy more by `grows` for each day."""
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, 40, customers)
    rate = rng.gamma(0.7, 0.05, customers)
    bought = rng.random((customers, days)) < rate[:, None] * (1 + grows * np.arange(days))
    leaves = begins + rng.exponential(1 / rng.gamma(0.6, 1 / 60, customers))
    bought &= (np.arange(days) > begins[:, None]) & (np.arange(days) < leaves[:, None])
    bought[np.arange(customers), begins] = True
    who, day = np.nonzero(bought)
    return merge_days(who, day, {})[0]


def chosen(trees: Trees) -> Chosen:
    return Chosen(number=trees, chance=trees, spread=1.5, level=1.2, tried={})


@pytest.fixture(scope="module")
def period() -> Calibration:
    """The first half of a shop in which everybody buys more and more."""
    return look(shop(600, DAYS, 0, grows=0.02).until(DAYS // 2 - 1)[0], DAYS // 2 - 1, steps=STEPS, first=FIRST)


@pytest.mark.slow
def test_level(period: Calibration) -> None:
    """The level lies between 1 and what came over what was expected, where as far was looked ahead as back."""
    early = range(FIRST, STEPS // 2 + 1)
    came = sum(period.came(step, STEPS).sum() for step in early)
    expected = sum(period.looks[step].expected(period.days(step, STEPS)).sum() for step in early)
    assert 1.05 < level(period, STEPS, DAYS // 2) < came / expected  # Pareto/NBD knows no growth


@pytest.mark.slow
def test_level_of_few() -> None:
    """Too few customers to tell leave the sum as Pareto/NBD has it."""
    few = shop(12, 100, 5).until(99)[0]
    assert level(look(few, 99, steps=STEPS, first=9), STEPS, 100) == 1


@pytest.mark.slow
def test_forecast_level(period: Calibration) -> None:
    """A forecast sums up to Pareto/NBD's times the level, trees or not, and chances rise with what is expected."""
    now = period.looks[STEPS]
    total = now.expected(DAYS // 2).sum() * 1.2
    for trees in (Trees(2, 0), Trees(2, 10)):
        found = forecast(period, DAYS // 2, chosen(trees), SMALL)
        assert found.expected.sum() == pytest.approx(total)
        order = np.argsort(found.expected)
        assert (np.diff(found.buys_again[order]) >= 0).all()
        assert found.buys_again[order[-1]] == pytest.approx(1 - (1 + found.expected[order[-1]] / 1.5) ** -1.5)


@pytest.mark.slow
def test_choose(period: Calibration) -> None:
    """Number and chance are each taken from what erred least on the inner split, Pareto/NBD alone being tried too."""
    found = choose(period, DAYS // 2, SMALL)
    assert set(found.tried) == {Trees(2, 0), Trees(2, 10), Trees(2, 20)}
    assert found.number in found.tried
    assert found.tried[found.chance].log_loss == min(one.log_loss for one in found.tried.values())
    assert found.level == level(period, STEPS, DAYS // 2)
    assert found.spread == found.tried[found.chance].spread


def test_nothing_later() -> None:
    """What happens after a day changes nothing that is known at its end."""
    whole = shop(200, 120, 1)
    later, earlier = snapshot(whole, 59), snapshot(whole.until(59)[0], 59)
    assert later.model == earlier.model
    assert np.array_equal(later.values, earlier.values, equal_nan=True)
    assert np.array_equal(later.expected(30), earlier.expected(30))


def test_fewest() -> None:
    """Trees must earn their place: by more than one standard error of the difference."""
    none, some = Trees(2, 0), Trees(2, 20)
    alone = np.array([1.0, 1, 1, 9])
    assert _fewest({none: alone, some: np.array([1.0, 1, 3, 5])}) == none  # better by (4 - 2) / 4, give or take 1.09
    assert _fewest({none: alone, some: alone - 0.5}) == some  # better for everybody


@pytest.mark.slow
def test_seeds(period: Calibration) -> None:
    """The same seed gives the same forecast, another seed another."""
    first, again, other = (forecast(period, 50, chosen(Trees(2, 10)), SMALL, seed=seed).expected for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_look_refuses() -> None:
    """Too short a period, and days by which nobody had bought twice, are named."""
    few = shop(50, 50, 2)
    with pytest.raises(ValueError, match="the calibration period has 10 days, 20 or more are needed"):
        look(few, 9, steps=STEPS, first=FIRST)
    once = dataclasses.replace(few, day=few.first, starts=np.arange(len(few) + 1))
    with pytest.raises(ValueError, match="by day 14 of the calibration period: Pareto/NBD cannot be fitted"):
        look(once, 49, steps=STEPS, first=FIRST)
