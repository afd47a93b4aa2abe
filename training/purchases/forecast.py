"""Our forecast of repeat purchases: Pareto/NBD, corrected by boosting, at the level that earlier forecasts missed.

1. Pareto/NBD says what to expect of each customer, over any horizon.
2. Boosted trees learn a factor on it from looks at the calibration period from inside: Poisson regression with what
   Pareto/NBD expected as exposure. They see spacing and amounts, which it does not, and no horizon, so that
   a factor learned over weeks holds for months.
3. The sum is Pareto/NBD's, times what it missed where it looked as far ahead for its history as is asked now. Trees
   cannot say this: no look within the period reaches as far as the hold-out (`level.py`).
4. P(buys again) is a curve of an expected number: that of a negative binomial, whose spread an inner split gives.

How many trees of what size, none among them, an inner split in time chooses: by squared error for the number, by log
loss for the chance, which fewer trees serve better: most of them see to the few who buy much. As these few decide what
a squared error is, the fewest trees are taken that are not clearly worse than the best. See docs/decisions/0030.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from tqdm import tqdm

from training.purchases.history import Floats
from training.purchases.level import level
from training.purchases.snapshots import Calibration

STEPS = 20  # the calibration period is looked at from the ends of its twentieths,
FIRST = 6  # from this one on: before it hardly anybody has a history
_INNER = 13  # of these, the inner split's calibration
_HORIZONS = (2, 4, 8, 14)  # twentieths ahead
_SPREADS = (-4.0, 5.0)  # log of the negative binomial's, at most


@dataclass(frozen=True, kw_only=True)
class ForecastConfig:
    """What the inner split chooses from, and how trees are grown."""

    depths: tuple[int, ...] = (2, 3, 4)
    most_trees: int = 160
    every: int = 20  # trees between two that are tried
    learning_rate: float = 0.05
    leaf_rows: int = 50
    penalty: float = 10.0
    share: float = 0.2  # of the customers of each look, for one ensemble: its rows are much alike
    bag: int = 4  # ensembles whose factors are averaged, each from other customers
    features: float = 0.3  # share of the features that a split may use


@dataclass(frozen=True)
class Trees:
    """An ensemble's size: `count` trees of a `depth`; without trees Pareto/NBD alone."""

    depth: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What an ensemble was worth on the inner split.

    Attributes:
        rmse: root mean square error of the number.
        log_loss: of the chance.
        spread: of the negative binomial: the smaller, the more customers buy nothing at the same expectation.
    """

    rmse: float
    log_loss: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the calibration period says.

    Attributes:
        number: the ensemble for the number of purchases.
        chance: that for the chance to buy again.
        spread: of the negative binomial.
        level: of the sum, beside Pareto/NBD's.
        tried: what was tried on the inner split.
    """

    number: Trees
    chance: Trees
    spread: float
    level: float
    tried: dict[Trees, Tried] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What to expect of customers: `expected` purchases and the probability `buys_again`, float64 [n] each."""

    expected: Floats
    buys_again: Floats


def choose(period: Calibration, days: int, config: ForecastConfig, *, seed: int = 0, progress: bool = False) -> Chosen:
    """Choose trees on the last steps of the period, having seen only those before, and the level of `days` after it."""
    now, came = period.looks[_INNER], period.came(_INNER, period.steps)
    ahead = period.days(_INNER, period.steps)
    base = now.expected(ahead)
    total = level(period, _INNER, ahead) * base.sum()
    tried: dict[Trees, Tried] = {}
    errors: dict[Trees, Floats] = {}
    for depth in tqdm(config.depths, desc="sizes of trees", disable=not progress):
        bag = _bag(period, _INNER, config, Trees(depth, config.most_trees), seed)
        for count, factor in _factors(bag, now.values, config.every):
            expected = _scaled(factor * base, total)
            log_loss, spread = _spread(_scaled(expected, came.sum()), came > 0)
            errors[Trees(depth, count)] = (came - expected) ** 2
            rmse = float(np.sqrt(np.mean(errors[Trees(depth, count)])))
            tried[Trees(depth, count)] = Tried(rmse=rmse, log_loss=log_loss, spread=spread)
    chance = min(tried, key=lambda trees: tried[trees].log_loss)
    return Chosen(
        number=_fewest(errors),
        chance=chance,
        spread=tried[chance].spread,
        level=level(period, period.steps, days),
        tried=tried,
    )


def _fewest(errors: dict[Trees, Floats]) -> Trees:
    """The fewest trees whose error, [n] by customer, is within one standard error of the least."""
    best = min(errors.values(), key=np.mean)

    def close(error: Floats) -> bool:
        worse = error - best
        return bool(worse.mean() <= worse.std() / np.sqrt(len(worse)))

    return min((one for one in errors if close(errors[one])), key=lambda one: (one.count, one.depth))


def forecast(period: Calibration, days: int, chosen: Chosen, config: ForecastConfig, *, seed: int = 0) -> Forecast:
    """Forecast the `days` after the period for every customer of its last look."""
    now = period.looks[period.steps]
    base = now.expected(days)
    total = chosen.level * base.sum()

    def expected(trees: Trees) -> Floats:
        bag = _bag(period, period.steps, config, trees, seed) if trees.count else []
        factors = [model.predict(now.values) for model in bag] or [np.ones(len(base))]
        return _scaled(base * np.mean(factors, axis=0), total)

    return Forecast(expected=expected(chosen.number), buys_again=_buys(expected(chosen.chance), chosen.spread))


def _bag(period: Calibration, until: int, config: ForecastConfig, trees: Trees, seed: int) -> list[Any]:
    seeds = np.random.SeedSequence(seed).generate_state(config.bag)
    return [_grow(period, until, config, trees, int(one)) for one in seeds]


def _grow(period: Calibration, until: int, config: ForecastConfig, trees: Trees, seed: int) -> Any:  # noqa: ANN401 - sklearn's
    """Trees for the factor on Pareto/NBD, from what steps up to `until` had seen."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(seed)
    values, came, expected = [], [], []
    for step, ahead in itertools.product(period.looks, _HORIZONS):
        if step + ahead <= until:
            at = period.looks[step]
            rows = np.flatnonzero(rng.random(len(at.known)) < config.share)
            values.append(at.values[rows])
            came.append(period.came(step, step + ahead)[rows])
            expected.append(at.expected(period.days(step, step + ahead))[rows])
    exposure = np.concatenate(expected)
    # Poisson loss of came / exposure, weighed by exposure, is that of came with the exposure as offset
    return HistGradientBoostingRegressor(
        loss="poisson",
        learning_rate=config.learning_rate,
        max_iter=trees.count,
        max_depth=trees.depth,
        min_samples_leaf=config.leaf_rows,
        l2_regularization=config.penalty,
        max_features=config.features,
        early_stopping=False,
        random_state=seed,
    ).fit(np.concatenate(values), np.concatenate(came) / exposure, sample_weight=exposure)


def _factors(bag: list[Any], values: NDArray[np.float32], every: int) -> Iterator[tuple[int, Floats]]:
    """Number of trees and the factor they give, [n]: none, and every so many."""
    yield 0, np.ones(len(values))
    stages = zip(*(model.staged_predict(values) for model in bag), strict=True)
    for trees, factors in enumerate(stages, start=1):
        if trees % every == 0:
            yield trees, np.mean(factors, axis=0)


def _scaled(values: Floats, total: float) -> Floats:
    return values * (total / values.sum())


def _buys(expected: Floats, spread: float) -> Floats:
    """P(one or more) of negative binomials: [n]."""
    return -np.expm1(-spread * np.log1p(expected / spread))


def _spread(expected: Floats, bought: NDArray[np.bool_]) -> tuple[float, float]:
    """The spread that makes `bought` most likely: log loss with it, and it."""

    def loss(log: float) -> float:
        p = np.clip(_buys(expected, np.exp(log)), 1e-9, 1 - 1e-9)
        return -float(np.where(bought, np.log(p), np.log1p(-p)).mean())

    found = minimize_scalar(loss, bounds=_SPREADS, method="bounded")
    return float(found.fun), float(np.exp(found.x))
