"""Recency and frequency: logistic regression on the classic summary of a customer or a card.

When was something last done, how often, for how much: the RFM table of marketing, and what a risk team starts from.
Counts, sums and seconds span orders of magnitude, so they enter as logarithms, standardised; null ("never") is a
flag of its own beside a value of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.baselines import Floats, ScalarExamples, subsample


@dataclass(frozen=True, kw_only=True)
class RecencyFrequencyConfig:
    """Which features count, and the candidates of regularisation that validation chooses from."""

    columns: tuple[str, ...] = ()  # names, or the ends of names; none: all
    inverse_penalties: tuple[float, ...] = (1.0, 0.1, 0.01)  # sklearn's C
    most_rows: int = 300_000  # of training: the coefficients of a few dozen columns need no more
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RecencyFrequency:
    """A fitted regression over standardised columns.

    Attributes:
        names: all feature names, in the order that `score` expects.
        columns: int [c], the features used.
        mean, scale: float64 [c], of the logarithms on training rows.
        coefficients: float64 [2 c]: of the standardised values, then of the null flags.
        intercept: log-odds where everything is average.
        inverse_penalty: as chosen.
        validation: log-loss there.
    """

    names: tuple[str, ...]
    columns: Any = field(repr=False)
    mean: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    coefficients: Floats = field(repr=False)
    intercept: float
    inverse_penalty: float
    validation: float

    def score(self, values: Floats) -> Floats:
        """Probability of label 1, [n], from features [n, f] in the order of `names`, NaN for null."""
        inputs = _standardise(values[:, self.columns], self.mean, self.scale)
        return 1 / (1 + np.exp(-(inputs @ self.coefficients + self.intercept)))


def fit(
    train: ScalarExamples, validation: ScalarExamples, *, config: RecencyFrequencyConfig | None = None
) -> RecencyFrequency:
    """Fit on `train`, choose the regularisation by log-loss on `validation`.

    Raises:
        ValueError: a configured column is missing, or one class is absent from the training rows.
    """
    from sklearn.linear_model import LogisticRegression

    config = config or RecencyFrequencyConfig()
    columns = _select(train.names, config.columns)
    if len(np.unique(train.labels)) < 2:  # noqa: PLR2004 - two classes
        message = f"all {len(train)} training labels are the same: take a longer training range"
        raise ValueError(message)
    train = train.take(subsample(len(train), config.most_rows, config.seed))
    logs = _logarithm(train.values[:, columns])
    null = np.isnan(logs)
    count = np.maximum((~null).sum(axis=0), 1)
    mean = np.where(null, 0, logs).sum(axis=0) / count
    scale = np.sqrt((np.where(null, mean, logs) - mean).__pow__(2).sum(axis=0) / count)
    scale = np.where(scale > 0, scale, 1.0)
    inputs = _standardise(train.values[:, columns], mean, scale)
    fitted = []
    for inverse_penalty in config.inverse_penalties:
        regression = LogisticRegression(C=inverse_penalty, max_iter=500).fit(inputs, train.labels)
        settings = {
            "names": tuple(train.names),
            "columns": columns,
            "mean": mean,
            "scale": scale,
            "coefficients": regression.coef_[0],
            "intercept": float(regression.intercept_[0]),
            "inverse_penalty": inverse_penalty,
        }
        score = RecencyFrequency(**settings, validation=0.0).score(validation.values)
        fitted.append(RecencyFrequency(**settings, validation=log_loss(validation.labels, score)))
    return min(fitted, key=lambda one: one.validation)


def log_loss(labels: Any, scores: Floats) -> float:  # noqa: ANN401 - any array of 0 and 1
    """Mean negative log-likelihood of the labels, scores clipped away from 0 and 1."""
    safe = np.clip(scores, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(np.asarray(labels) == 1, np.log(safe), np.log1p(-safe))))


def _select(names: Sequence[str], wanted: Sequence[str]) -> Any:  # noqa: ANN401
    """Positions of the wanted columns."""
    if not wanted:
        return np.arange(len(names))
    found = [at for at, name in enumerate(names) if any(name == want or name.endswith(want) for want in wanted)]
    missing = [want for want in wanted if not any(name == want or name.endswith(want) for name in names)]
    if missing:
        message = f"no feature is called {missing}: there are {list(names)}"
        raise ValueError(message)
    return np.array(found)


def _logarithm(values: Floats) -> Floats:
    """log(1 + |x|) with the sign of x: counts, money and seconds on one footing; NaN stays."""
    return np.sign(values) * np.log1p(np.abs(values))


def _standardise(values: Floats, mean: Floats, scale: Floats) -> Floats:
    """[n, c] -> [n, 2 c]: standardised logarithms with null at the mean, then null flags."""
    standard = (_logarithm(values) - mean) / scale
    null = np.isnan(standard)
    return np.concatenate([np.where(null, 0.0, standard), null.astype(np.float64)], axis=1)
