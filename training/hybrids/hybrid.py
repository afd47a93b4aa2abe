"""Gradient boosting on aggregates and a network on sequences, fitted apart on the same rows and blended.

The blend is of log-odds, by a weight that validation chooses. Fitted apart, neither half needs scores of the other on
the rows that it learns from, which would be better than those that it meets later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.hybrids import network
from training.hybrids.card_history import CARD_FEATURES, card_features
from training.hybrids.network import FittedNetwork, NetworkConfig
from training.hybrids.payments import Floats, Floats32, Ints, Payments
from training.hybrids.place_history import PLACE_FEATURES, place_features
from training.hybrids.sequences import Sequences, cut

FEATURES = ("amount", *CARD_FEATURES, *PLACE_FEATURES)


@dataclass(frozen=True, kw_only=True)
class BoostingConfig:
    """The trees; `rows` and `columns`: the share that each is grown on; `bins`: cuts of a feature.

    The values that speak for fraud are the rarest, and cuts are quantiles: few bins would put them all in one.
    """

    rounds: int = 200
    rate: float = 0.05
    depth: int = 4
    leaf_weight: float = 3.0
    penalty: float = 2.0
    rows: float = 0.7
    columns: float = 0.5
    bins: int = 1024


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Both halves, and the network's share of the blended log-odds."""

    boosting: BoostingConfig = BoostingConfig()
    network: NetworkConfig = field(default_factory=NetworkConfig)
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What both halves read of B payments: `FEATURES`, float32 [B, f] with NaN for nothing known, and sequences."""

    features: Floats32
    sequences: Sequences


class PaymentBook:
    """All payments with their features, from which examples are taken row by row.

    Nothing is fitted here, so a row's example is the same whatever else it is used with.
    """

    def __init__(self, payments: Payments, *, card_last: int = 16, place_last: int = 24) -> None:
        """Compute the features of all payments; sequences hold at most so many events of card and place."""
        card = card_features(payments)
        self._over_median = card[:, CARD_FEATURES.index("card_over_median")].copy()
        place = place_features(payments, self._over_median)
        self._features = np.column_stack([payments.amount, card, place]).astype(np.float32)
        self._payments, self._card_last, self._place_last = payments, card_last, place_last

    def features(self, rows: Ints) -> Floats32:
        """`FEATURES` of the payments in `rows`, int64 [B]."""
        return self._features[rows]

    def sequences(self, rows: Ints) -> Sequences:
        """What the network reads of the payments in `rows`, int64 [B]."""
        return cut(self._payments, self._over_median, rows, card_last=self._card_last, place_last=self._place_last)

    def examples(self, rows: Ints) -> Examples:
        """Both, of the payments in `rows`, int64 [B]."""
        return Examples(features=self.features(rows), sequences=self.sequences(rows))


@dataclass(frozen=True, kw_only=True)
class FittedBoosting:
    """Fitted trees."""

    model: Any = field(repr=False)

    def logit(self, features: Floats32) -> Floats:
        """Of each payment, float64 [B]."""
        return self.model.predict(features, output_margin=True).astype(np.float64)


def fit_boosting(features: Floats32, labels: Ints, *, config: BoostingConfig, seed: int) -> FittedBoosting:
    """Fit the trees, on one thread: a machine's other cores fit other models."""
    from xgboost import XGBClassifier

    model = XGBClassifier(
        n_estimators=config.rounds,
        learning_rate=config.rate,
        max_depth=config.depth,
        min_child_weight=config.leaf_weight,
        reg_lambda=config.penalty,
        subsample=config.rows,
        colsample_bytree=config.columns,
        max_bin=config.bins,
        random_state=seed,
        n_jobs=1,
    )
    return FittedBoosting(model=model.fit(features, labels))


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """Both halves, fitted."""

    boosting: FittedBoosting = field(repr=False)
    network: FittedNetwork = field(repr=False)
    share: float

    def halves(self, examples: Examples) -> tuple[Floats, Floats]:
        """Log-odds by the trees and by the network, [B] each."""
        return self.boosting.logit(examples.features), self.network.logit(examples.sequences)

    def score(self, examples: Examples) -> Floats:
        """Probability of fraud, [B]."""
        return blend(*self.halves(examples), share=self.share)


def blend(boosting: Floats, network_logit: Floats, *, share: float) -> Floats:
    """Probability from the log-odds of both halves; `share` is the network's."""
    return 1 / (1 + np.exp(-((1 - share) * boosting + share * network_logit)))


def fit(examples: Examples, labels: Ints, *, config: HybridConfig, seed: int) -> Hybrid:
    """Fit both halves on B payments and their labels, int64 [B].

    Raises:
        ValueError: a class is absent.
    """
    return Hybrid(
        network=network.fit(examples.sequences, labels, config=config.network, seed=seed),
        boosting=fit_boosting(examples.features, labels, config=config.boosting, seed=seed),
        share=config.share,
    )
