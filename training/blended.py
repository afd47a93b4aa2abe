"""A next-item network in a blend with simple recommenders: co-visits, the user's own history, popularity.

On sparse shops neighbours know more than a network does, and on dense ones the network knows more: validation says how
much each has to say (training/blend.py). What the blend answers is the logarithm of its mixed shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.baselines import RankingExamples, covisitation, own_history, popularity, subsample
from training.baselines.covisitation import Covisitation, CovisitationConfig
from training.baselines.own_history import OwnHistory
from training.blend import Blend, Ints, Judged, Matrix, among_best, choose, distribution, flattened
from training.evaluation import ranking_metrics
from training.model import SequenceModel
from training.run_baselines import ranking_examples
from training.scoring import logits
from training.training_set import TRAIN, VALIDATION, TrainingSet

NETWORK, COVISITS, OWN, POPULARITY = "network", "covisitation", "own_history", "popularity"

_JUDGES = 10_000
"""So many validation examples choose the weights, at most."""

_PAIRS = 20_000_000
"""So many neighbours of all items together are kept, at most: 8 bytes each in the bundle."""

_LEAST = 1e-6
"""Popularity has at least this weight: it orders what nobody else speaks of, and changes nothing else."""


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The simple recommenders; `popularity` float32 [I]: how often each item is chosen, none of them 0."""

    covisits: Covisitation
    own: OwnHistory
    popularity: Matrix

    def shares(self, examples: RankingExamples, names: Sequence[str] = (COVISITS, OWN, POPULARITY)) -> dict[str, Any]:
        """Distributions over all items by recommender, float32 [n, I]; [1, I] of popularity, which is everybody's."""
        found = {}
        if COVISITS in names:
            found[COVISITS] = distribution(self.covisits.scores(examples).toarray())
        if OWN in names:
            found[OWN] = distribution(self.own.scores(examples).toarray())
        if POPULARITY in names:
            found[POPULARITY] = distribution(self.popularity[None])
        return found


@dataclass(frozen=True, kw_only=True)
class Blended:
    """`blend` of network and `companions`; `validation`: the primary metric of each alone and of the blend."""

    blend: Blend
    companions: Companions
    metric: str
    validation: dict[str, float]

    def log_shares(self, logits_QI: np.ndarray, examples: RankingExamples) -> Matrix:  # noqa: N803 - shape suffixes
        """The blend's answers to Q examples whose logits the network gave: float32 [Q, I], finite."""
        weights, roots = self.blend.weights, self.blend.roots
        mixed = np.float32(weights[NETWORK]) * softmax(logits_QI * np.float32(0.5 ** roots[NETWORK]))
        others = [name for name, weight in weights.items() if weight and name != NETWORK]
        for name, shares in self.companions.shares(examples, others).items():
            mixed += np.float32(weights[name]) * flattened(shares, roots[name])
        return np.asarray(np.log(np.maximum(mixed, np.finfo(np.float32).tiny)), np.float32)

    def told(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "weights": self.blend.weights,
            "roots": self.blend.roots,
            "metric": self.metric,
            "validation": self.validation,
        }


def softmax(scores: Matrix) -> Matrix:
    """Rows of scores as shares."""
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True), np.float32)


def blend_on_validation(model: SequenceModel, data: TrainingSet, metric: str) -> Blended | None:
    """Fit the companions on the training range and choose the blend on validation; None: the network is best alone.

    Args:
        model: fitted, on any device.
        data: its training set.
        metric: that the blend is to be best in.
    """
    companions = fit_companions(data)
    places = data.of(VALIDATION)
    places = places[subsample(len(places), _JUDGES, 0)]
    blocks = judged(model, data, companions, places)
    blend = choose(blocks, metric=metric)
    if blend.weights[NETWORK] == 1:
        return None
    names = list(blend.weights)
    tried = {name: Blend(weights={one: float(one == name) for one in names}, roots=blend.roots) for name in names}
    worth = {
        name: ranking_metrics(np.concatenate([block.ranks(one) for block in blocks]))[metric]
        for name, one in {**tried, "blend": blend}.items()
    }
    weights = {**blend.weights, POPULARITY: max(blend.weights[POPULARITY], _LEAST)}
    return Blended(
        blend=Blend(weights=weights, roots=blend.roots), companions=companions, metric=metric, validation=worth
    )


def fit_companions(data: TrainingSet) -> Companions:
    """Fit them on the training range; validation chooses their few settings."""
    assert data.items is not None  # noqa: S101 - next-item sets have items
    items = data.items.num_rows
    train, validation = (ranking_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    config = CovisitationConfig(neighbours=int(np.clip(_PAIRS // items, 20, CovisitationConfig().neighbours)))
    popular = popularity.fit(train, validation, items=items).scores
    return Companions(
        covisits=covisitation.fit(train, validation, items=items, config=config),
        own=own_history.fit(validation, items=items),
        # an item that training knows of histories alone was never a target: it comes last, and is not impossible
        popularity=(popular + 0.01 * popular.mean() + 1e-6).astype(np.float32),
    )


def judged(model: SequenceModel, data: TrainingSet, companions: Companions, examples: Ints) -> list[Judged]:
    """These examples with all distributions, the best items of each alone."""
    asked = ranking_examples(data, np.arange(len(data.t)))
    blocks = []
    for places, score_QI, target_Q in logits(model, data, examples):  # noqa: N806 - shape suffixes
        parts = {NETWORK: softmax(score_QI.cpu().numpy()), **companions.shares(asked.take(places))}
        parts[POPULARITY] = np.broadcast_to(parts[POPULARITY], parts[NETWORK].shape)
        blocks.append(among_best(parts, target_Q.cpu().numpy()))
    return blocks
