"""The recommenders that `benchmarks.sequential` compares and blends, each a distribution over all items.

Neural: the engine's own model, fitted as `make train` fits it. Beside it co-visits, content neighbours where the data
has attributes, the user's own past choices where these may come again, and popularity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sequential_data import OUTSIDE, Interactions
from benchmarks.sequential_set import VIEW
from clicktrail.encoding import FIRST
from training.baselines import RankingExamples, content, covisitation, own_history, popularity, subsample
from training.batches import Arrays, batches, own_windows
from training.blend import Judged, Matrix, distribution
from training.config import RunConfig
from training.fit import Fitted, fit
from training.model import SequenceModel
from training.run_baselines import ranking_examples
from training.training_set import TRAIN, VALIDATION, TrainingSet

_TOKENS, _ROWS = 16_384, 1_024
_WATCHED = 4_000
"""Validation examples that every epoch is held against: all of them would take as long as the epoch."""
_CELLS = 6_000_000
"""Scores of a block, examples x items; a block has some such matrices."""

Scores = Callable[[np.ndarray], Matrix]
"""Places of examples, int64 [n] -> float32 [n, items], none below 0."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How examples are ranked: with `unseen`, what the user chose before is left out."""

    data: Interactions
    training: TrainingSet
    unseen: bool

    def banned(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(row, item) of all that each example's user chose before it; None where it may come again."""
        if not self.unseen:
            return None
        # an example's own place in the file bounds its history, however few events the model reads
        place = self.training.example_id.to_numpy(zero_copy_only=False).astype(np.int64)[examples]
        lengths = place - self.data.first[self.data.user[place]]
        row = np.repeat(np.arange(len(examples)), lengths)
        back = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return row, self.item_at(place[row] - 1 - back)

    def item_at(self, place: np.ndarray) -> np.ndarray:
        """Output position of the items of these events."""
        tokens = self.training.tokens[VIEW]
        return tokens.ids[place, 0].astype(np.int64) - FIRST

    def blocks(self, recommenders: dict[str, Scores], examples: np.ndarray) -> Iterator[tuple[np.ndarray, Judged]]:
        """Examples piece by piece, those with histories of like length together, with all distributions."""
        assert self.training.items is not None  # noqa: S101 - sets of next items have them
        tokens = self.training.tokens[VIEW]
        order = examples[np.argsort(tokens.ends[examples] - tokens.starts[examples], kind="stable")]
        step = max(1, _CELLS // self.training.items.num_rows)
        for begin in range(0, len(order), step):
            piece = order[begin : begin + step]
            banned = self.banned(piece)
            parts = {name: distribution(scores(piece), banned) for name, scores in recommenders.items()}
            yield piece, Judged(distributions=parts, target=self.training.target[piece], banned=banned)


def neural(training: TrainingSet, config: RunConfig, folder: Path, *, progress: bool) -> tuple[Fitted, Scores]:
    """Fit the engine's model; some of the validation examples choose its epoch."""
    split, judges = training.split.copy(), training.of(VALIDATION)
    split[np.setdiff1d(judges, judges[subsample(len(judges), _WATCHED, 0)])] = OUTSIDE
    fitted = fit(replace(training, split=split), config, "ndcg@10", folder, progress=progress)
    return fitted, _neural_scores(fitted.model, training)


@dataclass(frozen=True, kw_only=True)
class Simple:
    """Recommenders without a network: their scores, and the models whose settings validation chose."""

    scores: dict[str, Scores]
    chosen: dict[str, Any]


def simple(protocol: Protocol, *, progress: bool, chosen: Simple | None = None) -> Simple:
    """Fit them on the training examples; settings are chosen on validation, or are those of `chosen`."""
    training = protocol.training
    assert training.items is not None  # noqa: S101 - sets of next items have them
    items = training.items.num_rows
    train = ranking_examples(training, training.of(TRAIN))
    validation = ranking_examples(training, training.of(VALIDATION))  # judges nothing where settings are given
    before = {} if chosen is None else chosen.chosen
    models: dict[str, Any] = {}
    models["covisitation"] = covisitation.fit(
        train, validation, items=items, config=_covisitation(protocol, before), progress=progress
    )
    if "attributes" in training.items.column_names:
        lists = training.items["attributes"].combine_chunks()
        offsets, codes = lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy()
        counts = np.bincount(train.targets, minlength=items).astype(np.float64)
        models["content"] = content.fit(offsets, codes, counts, validation, config=_content(before))
    scores = {name: _dense(model.scores, training) for name, model in models.items()}
    if not protocol.unseen:
        models["own_history"] = before.get("own_history") or own_history.fit(validation, items=items)
        scores["own_history"] = _dense(models["own_history"].scores, training)
    models["popularity"] = popularity.fit(train, validation, items=items, config=_popularity(before))
    popular = models["popularity"].scores.astype(np.float32)
    scores["popularity"] = lambda examples: np.tile(popular, (len(examples), 1))
    return Simple(scores=scores, chosen=models)


def _covisitation(protocol: Protocol, before: Mapping[str, Any]) -> covisitation.CovisitationConfig:
    config = covisitation.CovisitationConfig(exclude_seen=protocol.unseen)
    if "covisitation" not in before:
        return config
    was = before["covisitation"].chosen
    return replace(config, pair_decays=(was.pair_decay,), powers=(was.power,), query_decays=(was.query_decay,))


def _content(before: Mapping[str, Any]) -> content.ContentConfig:
    if "content" not in before:
        return content.ContentConfig()
    was = before["content"]
    return content.ContentConfig(powers=(was.power,), popularity=(was.popularity,), query_decays=(was.query_decay,))


def _popularity(before: Mapping[str, Any]) -> popularity.PopularityConfig:
    if "popularity" not in before:
        return popularity.PopularityConfig()
    return popularity.PopularityConfig(half_lives_days=(before["popularity"].half_life_days,))


def _dense(scores: Callable[[RankingExamples], Any], training: TrainingSet) -> Scores:
    """Sparse scores of examples as `Scores`; scipy's matrices are untyped."""

    def dense(examples: np.ndarray) -> Matrix:
        return np.asarray(scores(ranking_examples(training, examples)).toarray(), np.float32)

    return dense


def _neural_scores(model: SequenceModel, training: TrainingSet) -> Scores:
    arrays = Arrays(training, torch.device("cpu"))
    with torch.no_grad():
        e_ID, bias_I = model.eval().item_vectors()  # noqa: N806 - shape suffixes

    @torch.no_grad()
    def scores(examples: np.ndarray) -> Matrix:
        row = np.empty(int(examples.max()) + 1, np.int64)
        row[examples] = np.arange(len(examples))
        found = np.empty((len(examples), len(bias_I)), np.float32)
        for batch in batches(arrays, own_windows(training, examples), tokens=_TOKENS, rows=_ROWS):
            shares = torch.softmax(model(batch) @ e_ID.T + bias_I, 1)
            found[row[batch["example"].numpy()]] = shares.numpy()
        return found

    return scores
