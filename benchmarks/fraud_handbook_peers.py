"""The handbook's features in numpy, and its three models.

The features are those that `benchmarks.handbook` declares and Feast computes; here they are computed from sorted
columns, in seconds for all of the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.hybrids.payments import DAY, Floats, Floats32, Ints, Payments, history

WINDOWS = (1, 7, 30)
FEATURES = (
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    *(f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW" for days in WINDOWS),
    *(f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW" for days in WINDOWS),
    *(f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW" for days in WINDOWS),
    *(f"TERMINAL_ID_RISK_{days}DAY_WINDOW" for days in WINDOWS),
)
_THURSDAY = 3  # 1970-01-01
_SATURDAY = 5
_NIGHT_ENDS = 7
_HOUR = DAY // 24


@dataclass(frozen=True, kw_only=True)
class XGBoostConfig:
    """The settings that the handbook searches; `rounds` are trees."""

    depth: int = 6
    rate: float = 0.3
    rounds: int = 100


GRID = tuple(XGBoostConfig(depth=depth, rate=rate) for depth, rate in itertools.product((3, 6, 9), (0.1, 0.3)))
ROUNDS = (25, 50, 100)
_BINS = 4096
"""Of a feature: XGBoost's own 256 cut the terminal's risk, nearly always 0, too coarsely to reach the published
figures; with these it is as good as with the exact method that the handbook used, at a fifth of its time."""


def book_features(payments: Payments) -> Floats:
    """`FEATURES`, float64 [n, 15]; amounts in minor units."""
    days_since_1970 = payments.time // DAY
    columns: list[NDArray[Any]] = [
        payments.amount,
        (days_since_1970 + _THURSDAY) % 7 >= _SATURDAY,
        payments.time % DAY // _HOUR < _NIGHT_ENDS,
    ]
    count, total = _windows(payments.card, payments.time, payments.amount, 0)
    columns += [number + 1 for number in count]
    columns += [(amount + payments.amount) / (number + 1) for number, amount in zip(count, total, strict=True)]
    count, total = _windows(payments.place, payments.time, payments.fraud, payments.delay)
    columns += count
    columns += [frauds / np.maximum(number, 1) for number, frauds in zip(count, total, strict=True)]
    return np.column_stack(columns).astype(np.float64)


def _windows(entity: Ints, time: Ints, value: Ints, delay: int) -> tuple[list[Ints], list[Ints]]:
    """Count and sum of `value` over t - delay - window <= time < t - delay, [n] for each of `WINDOWS`."""
    newest = history(entity, time, delay)
    sums = np.concatenate([[0], np.cumsum(value[newest.order])])
    begins = [history(entity, time, delay + days * DAY).end for days in WINDOWS]
    return [newest.end - begin for begin in begins], [sums[newest.end] - sums[begin] for begin in begins]


def xgboost_scores(
    train: Floats32, labels: Ints, test: Floats32, config: XGBoostConfig
) -> Iterator[tuple[XGBoostConfig, Floats]]:
    """Scores [rows of test] after each of `ROUNDS` up to the configuration's, with the settings that they stand for."""
    from xgboost import XGBClassifier

    model = XGBClassifier(
        max_depth=config.depth,
        learning_rate=config.rate,
        n_estimators=config.rounds,
        max_bin=_BINS,
        random_state=0,
        n_jobs=1,
    ).fit(train, labels)
    for rounds in ROUNDS:
        if rounds <= config.rounds:
            scores = model.predict_proba(test, iteration_range=(0, rounds))[:, 1].astype(np.float64)
            yield XGBoostConfig(depth=config.depth, rate=config.rate, rounds=rounds), scores


def forest_scores(train: Floats32, labels: Ints, test: Floats32) -> Floats:
    """A random forest as scikit-learn has it, which is how the handbook uses it."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(random_state=0).fit(train, labels).predict_proba(test)[:, 1]


def logistic_scores(train: Floats32, labels: Ints, test: Floats32) -> Floats:
    """Logistic regression on scaled features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(random_state=0))
    return model.fit(train, labels).predict_proba(test)[:, 1]
