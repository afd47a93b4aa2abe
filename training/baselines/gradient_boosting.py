"""Gradient boosting on the same aggregates as the model: what usually wins on tables, so the one to beat.

Null goes down its own branch, so nothing is filled in. Trees are added until validation stops improving. Classes are
not reweighted: log-loss on the true rate keeps the scores probabilities, and ranking metrics do not ask for more.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from training.baselines import Floats, ScalarExamples, subsample
from training.baselines.recency_frequency import log_loss


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Size of one ensemble."""

    learning_rate: float
    leaves: int
    leaf_rows: int
    penalty: float = 0.0


@dataclass(frozen=True, kw_only=True)
class GradientBoostingConfig:
    """Candidates of the ensemble's size, and when to stop."""

    candidates: tuple[Trees, ...] = (
        Trees(learning_rate=0.1, leaves=31, leaf_rows=20),
        Trees(learning_rate=0.05, leaves=15, leaf_rows=100, penalty=1.0),
        Trees(learning_rate=0.1, leaves=63, leaf_rows=200, penalty=10.0),
    )
    most_rounds: int = 400
    patience: int = 15  # rounds without a better validation loss
    choose_rows: int = 50_000  # training rows that choose among the candidates
    most_rows: int = 200_000  # training rows that the winner is fitted on
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GradientBoosting:
    """A fitted ensemble of `rounds` trees."""

    names: tuple[str, ...]
    columns: Any = field(repr=False)  # int [c]: those with any value in training; sklearn cannot bin a column of nulls
    model: Any = field(repr=False)
    trees: Trees
    rounds: int
    validation: float  # log-loss

    def score(self, values: Floats) -> Floats:
        """Probability of label 1, [n], from features [n, f] in the order of `names`, NaN for null."""
        # sklearn keeps the trees that patience waited for: stop at the best round, as validation saw it
        stages = self.model.staged_predict_proba(values[:, self.columns])
        found: Floats = next(itertools.islice(stages, self.rounds - 1, None))[:, 1]
        return found


def fit(
    train: ScalarExamples,
    validation: ScalarExamples,
    *,
    config: GradientBoostingConfig | None = None,
    progress: bool = False,
) -> GradientBoosting:
    """Fit on `train`; candidates and the number of trees are chosen by log-loss on `validation`.

    Raises:
        ValueError: one class is absent from the training rows, or `train` and `validation` differ in names.
    """
    config = config or GradientBoostingConfig()
    few, few_weights = _thin(train, config.choose_rows, config.seed)
    best, bar = None, tqdm(config.candidates, desc="gradient boosting settings", disable=not progress)
    for trees in bar:
        tried = _fit_one(few, few_weights, validation, trees, config)
        best = tried if best is None or tried.validation < best.validation else best
    if best is None:
        message = "GradientBoostingConfig.candidates is empty: name at least one"
        raise ValueError(message)
    if len(few) == len(train):
        return best
    many, many_weights = _thin(train, config.most_rows, config.seed)
    return _fit_one(many, many_weights, validation, best.trees, config)


def _thin(examples: ScalarExamples, most: int, seed: int) -> tuple[ScalarExamples, Floats]:
    """At most about `most` rows and their weights [n]: the rare class whole if it fits in half, the other thinned.

    A row of a thinned class weighs as many rows as it stands for, so scores stay probabilities at the true rate.
    """
    classes = [np.flatnonzero(examples.labels == label) for label in (0, 1)]
    if not all(len(rows) for rows in classes):
        message = f"all {len(examples)} training labels are the same: take a longer training range"
        raise ValueError(message)
    rare = min(len(rows) for rows in classes)
    half = max(most // 2, most - rare)
    kept = [rows[subsample(len(rows), half, seed)] for rows in classes]
    weights = np.concatenate([np.full(len(k), len(rows) / len(k)) for k, rows in zip(kept, classes, strict=True)])
    rows = np.concatenate(kept)
    order = np.argsort(rows)
    return examples.take(rows[order]), weights[order]


def _fit_one(
    train: ScalarExamples,
    weights: Floats,
    validation: ScalarExamples,
    trees: Trees,
    config: GradientBoostingConfig,
) -> GradientBoosting:
    from sklearn.ensemble import HistGradientBoostingClassifier

    names = _names(train.names, validation.names)
    columns = np.flatnonzero(~np.isnan(train.values).all(axis=0))
    model = HistGradientBoostingClassifier(
        learning_rate=trees.learning_rate,
        max_leaf_nodes=trees.leaves,
        min_samples_leaf=trees.leaf_rows,
        l2_regularization=trees.penalty,
        max_iter=config.most_rounds,
        early_stopping=True,
        n_iter_no_change=config.patience,
        random_state=config.seed,
    ).fit(
        train.values[:, columns],
        train.labels,
        sample_weight=weights,
        X_val=validation.values[:, columns],
        y_val=validation.labels,
    )
    fitted = GradientBoosting(
        names=names,
        columns=columns,
        model=model,
        trees=trees,
        rounds=max(1, int(np.argmax(model.validation_score_))),  # entry 0 is the loss before the first tree
        validation=0.0,
    )
    return replace(fitted, validation=log_loss(validation.labels, fitted.score(validation.values)))


def _names(train: Sequence[str], validation: Sequence[str]) -> tuple[str, ...]:
    if tuple(train) != tuple(validation):
        message = f"training has the features {list(train)}, validation {list(validation)}: pass the same in one order"
        raise ValueError(message)
    return tuple(train)
