"""A next-item network in a blend with simple recommenders: co-visits, the user's own history, popularity.

On sparse shops neighbours know more than a network does, and on dense ones the network knows more: validation says how
much each has to say (training/blend.py). Its answer is a share of each item; those who say nothing of a user leave
their weight to the others.

Shapes: Q queries, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clicktrail.encoding import FIRST, Encoding
from training.baselines import RankingExamples, covisitation, own_history, popularity, subsample
from training.baselines.covisitation import Covisitation
from training.baselines.histories import strongest
from training.baselines.own_history import OwnHistory
from training.blend import Blend, Ints, Judged, Matrix, among_best, choose, distribution, flattened, ranks
from training.evaluation import ranking_metrics
from training.model import ITEM, SequenceModel
from training.parts import NETWORK, TOGETHER, Parts
from training.run_baselines import ranking_examples
from training.scoring import best_of, in_order, logits, rank_of
from training.training_set import TRAIN, VALIDATION, TrainingSet

COVISITS, OWN, POPULARITY = "covisitation", "own_history", "popularity"
SIMPLE = (COVISITS, OWN, POPULARITY)

_JUDGES, _FEWEST_JUDGES, _SCORES = 10_000, 1_000, 200_000_000
"""So many validation examples choose the weights, at most; fewer where they would ask for more scores than that."""

_SURE = 3.0
"""Who joins must give more than so many standard errors (`training.blend.choose`): over a hundred steps are tried."""

_PAIRS, _FEWEST_NEIGHBOURS = 20_000_000, 10
"""So many neighbours of all items together are kept, 8 bytes each in the bundle, but at least so many of an item."""

_LEAST = 1e-6
"""Popularity has at least this weight: it orders what nobody else speaks of, and changes nothing else."""


@dataclass(frozen=True, kw_only=True)
class Companions:
    """The simple recommenders; `popularity` float32 [I]: how often each item is chosen, none of them 0.

    `covisits` has no more neighbours than a bundle may hold; `whole` are all of them, which is the baseline.
    """

    whole: Covisitation
    covisits: Covisitation
    own: OwnHistory
    popularity: Matrix

    def shares(self, examples: RankingExamples, names: Sequence[str] = SIMPLE) -> dict[str, Matrix]:
        """Distributions over all items by recommender, float32 [Q, I]; [1, I] of popularity, which is everybody's."""
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
    """`blend` of network and `companions`; `validation`: the primary metric of each alone and of all together."""

    blend: Blend
    companions: Companions
    validation: dict[str, float]

    @property
    def network_alone(self) -> bool:
        """Whether validation wants nothing beside the network."""
        return self.blend.weights[NETWORK] == 1

    @property
    def parts(self) -> Parts:
        """What the model is made of."""
        return Parts(weights=self.blend.weights, validation=self.validation, roots=self.blend.roots)

    def shares(self, logits_QI: Matrix, examples: RankingExamples) -> Matrix:
        """What the blend answers where the network gave these logits: float32 [Q, I], rows sum to one, none is 0."""
        weights, roots = self.blend.weights, self.blend.roots
        mixed = np.float32(weights[NETWORK]) * softmax(logits_QI * np.float32(0.5 ** roots[NETWORK]))
        spoken = np.full((len(mixed), 1), weights[NETWORK], np.float32)
        others = [name for name, weight in weights.items() if weight and name != NETWORK]
        for name, shares in self.companions.shares(examples, others).items():
            mixed += np.float32(weights[name]) * flattened(shares, roots[name])
            spoken += np.float32(weights[name]) * shares.any(1, keepdims=True)
        return np.asarray(mixed / spoken, np.float32)

    def answers(self, logits_QI: Matrix, encoding: Encoding, inputs: dict[str, np.ndarray]) -> Matrix:
        """`shares` where histories stand in the padded inputs of the model (`Encoding.inputs`)."""
        return self.shares(logits_QI, asked_with(encoding, inputs))

    def predict(self, model: SequenceModel, data: TrainingSet, examples: Ints) -> dict[str, np.ndarray]:
        """The blend's answers, rows as in `examples`.

        Returns:
            `rank` int64 [n], `ranked` int64 [n, 20] positions, and by name the rank int64 [n] that each part gives.
        """
        asked = ranking_examples(data, np.arange(len(data.t)))
        parts = []
        for places, score_QI, target_Q in logits(model, data, examples):
            some, target = asked.take(places), target_Q.cpu().numpy()
            scores = score_QI.cpu().numpy()
            mixed = scores if self.network_alone else self.shares(scores, some)
            simple = self.companions.shares(some)
            simple[POPULARITY] = np.broadcast_to(simple[POPULARITY], mixed.shape)
            alone = [rank_of(score_QI, target_Q).cpu().numpy(), *(ranks(simple[name], target) for name in SIMPLE)]
            parts.append((places, ranks(mixed, target), best_of(torch.from_numpy(mixed)), *alone))
        return in_order(parts, examples, ("rank", "ranked", NETWORK, *SIMPLE))


def softmax(scores: Matrix) -> Matrix:
    """Rows of scores as shares."""
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True), np.float32)


def asked_with(encoding: Encoding, inputs: dict[str, np.ndarray]) -> RankingExamples:
    """The histories in the padded inputs of a model (`Encoding.inputs`), as companions take them; no targets."""
    spec = next(one for one in encoding.spec.sequences if ITEM in one.categories)
    ids, used = inputs[f"{spec.view}__ids"], inputs[f"{spec.view}__length"]
    rows, length = ids.shape[:2]
    starts = np.arange(rows) * length
    return RankingExamples(
        items=np.maximum(ids[:, :, spec.id_columns.index(ITEM)].ravel() - FIRST, -1),
        starts=starts,
        ends=starts + used,
        targets=np.full(rows, -1),
        times=np.zeros(rows, np.int64),
    )


def blend_on_validation(model: SequenceModel, data: TrainingSet, metric: str, *, progress: bool = False) -> Blended:
    """Fit the companions on the training range and choose the blend on validation.

    Args:
        model: fitted, on any device.
        data: its training set.
        metric: that the blend is to be best in.
        progress: show a bar.
    """
    companions = fit_companions(data)
    assert data.items is not None  # noqa: S101 - next-item sets have items
    places = data.of(VALIDATION)
    most = int(np.clip(_SCORES // data.items.num_rows, _FEWEST_JUDGES, _JUDGES))
    blocks = judged(model, data, companions, places[subsample(len(places), most, 0)])
    blend = choose(blocks, metric=metric, sure=_SURE, progress=progress)
    names = list(blend.weights)
    tried = {name: Blend(weights={one: float(one == name) for one in names}, roots=blend.roots) for name in names}
    validation = {
        name: ranking_metrics(np.concatenate([block.ranks(one) for block in blocks]))[metric]
        for name, one in {**tried, TOGETHER: blend}.items()
    }
    if blend.weights[NETWORK] < 1:
        weights = {**blend.weights, POPULARITY: max(blend.weights[POPULARITY], _LEAST)}
        blend = Blend(weights=weights, roots=blend.roots)
    return Blended(blend=blend, companions=companions, validation=validation)


def fit_companions(data: TrainingSet) -> Companions:
    """Fit them on the training range; validation chooses their few settings."""
    assert data.items is not None  # noqa: S101 - next-item sets have items
    items = data.items.num_rows
    train, validation = (ranking_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    whole = covisitation.fit(train, validation, items=items)
    near = whole.similarity
    if near.nnz > _PAIRS:
        near = strongest(near.copy(), max(_PAIRS // items, _FEWEST_NEIGHBOURS))
    popular = popularity.fit(train, validation, items=items).scores
    return Companions(
        whole=whole,
        covisits=replace(whole, similarity=near),
        own=own_history.fit(validation, items=items),
        # an item that training knows of histories alone was never a target: it comes last, and is not impossible
        popularity=(popular + 0.01 * popular.mean() + 1e-6).astype(np.float32),
    )


def judged(model: SequenceModel, data: TrainingSet, companions: Companions, examples: Ints) -> list[Judged]:
    """These examples with all distributions, the best items of each alone."""
    asked = ranking_examples(data, np.arange(len(data.t)))
    blocks = []
    for places, score_QI, target_Q in logits(model, data, examples):
        parts = {NETWORK: softmax(score_QI.cpu().numpy()), **companions.shares(asked.take(places))}
        blocks.append(among_best(parts, target_Q.cpu().numpy()))
    return blocks
