"""A blend of recommenders: each gives a distribution over items, their weighted mean ranks.

Neighbours know which items go together from a handful of pairs, a network knows the order of things, attributes speak
for items that nobody has chosen yet: their errors differ, and their mean beats each. The weights are chosen on
validation alone, by coordinates on a grid, so no choice is finer than the validation range can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.evaluation import ranking_metrics

Matrix = NDArray[np.float32]
Ints = NDArray[np.int64]

_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
"""What a recommender may have of the whole, tried one after the other while the rest keep their proportions."""
_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Weights by recommender; they sum to one."""

    weights: dict[str, float]

    def scores(self, distributions: Mapping[str, Matrix]) -> Matrix:
        """Weighted mean of `distribution`s, float32 [n, items]."""
        parts = [np.float32(weight) * distributions[name] for name, weight in self.weights.items() if weight]
        return np.asarray(sum(parts[1:], start=parts[0]), np.float32)


def distribution(scores: Matrix, banned: tuple[Ints, Ints] | None = None) -> Matrix:
    """Rows of scores as shares of their sum (all 0 where nothing is said), `banned` (rows, items) left out."""
    scores = np.array(scores, np.float32)
    if banned is not None:
        scores[banned] = 0
    total = scores.sum(1, keepdims=True)
    return np.asarray(scores / np.where(total > 0, total, 1), np.float32)


def ranks(scores: Matrix, target: Ints, banned: tuple[Ints, Ints] | None = None) -> Ints:
    """1-based rank of each row's target, ties against it; past the last where the target is -1. int64 [n]."""
    line, known = np.arange(len(scores)), target >= 0
    own = scores[line, np.where(known, target, 0)]
    ahead = scores >= own[:, None]
    if banned is not None:
        ahead[banned] = False
    ahead[line, np.where(known, target, 0)] = True
    return np.where(known, ahead.sum(1), scores.shape[1] + 1)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Validation examples: `distributions` by recommender, `target` int64 [n], `banned` (rows, items) never ranked."""

    distributions: dict[str, Matrix]
    target: Ints
    banned: tuple[Ints, Ints] | None = None


def choose(blocks: Sequence[Judged], *, metric: str = "ndcg@10", progress: bool = False) -> Blend:
    """The weights whose blend has the best metric on validation.

    Args:
        blocks: the validation range in pieces, all with the same recommenders; the search starts from the first.
        metric: of `ranking_metrics`.
        progress: show a bar.

    Raises:
        ValueError: there is no validation example.
    """
    names = list(blocks[0].distributions) if blocks else []
    if not sum(len(one.target) for one in blocks):
        message = "a blend is chosen on validation examples, and there are none: give a longer history"
        raise ValueError(message)
    best, worth = {name: float(name == names[0]) for name in names}, -1.0
    steps = [name for _ in range(_ROUNDS) for name in names]
    for name in tqdm(steps, desc="blend", disable=not progress):
        candidates = [best, *(_with_share(best, name, share) for share in _SHARES)]
        found = _worth(candidates, blocks, metric)
        place = int(np.argmax(found))
        if found[place] > worth:
            best, worth = candidates[place], found[place]
    return Blend(weights=best)


def _with_share(weights: Mapping[str, float], name: str, share: float) -> dict[str, float]:
    """Another share for one, the others as they stand to each other."""
    rest = sum(value for other, value in weights.items() if other != name)
    if rest == 0:
        return dict(weights)
    return {other: share if other == name else value * (1 - share) / rest for other, value in weights.items()}


def _worth(candidates: Sequence[Mapping[str, float]], blocks: Sequence[Judged], metric: str) -> list[float]:
    found: list[list[Ints]] = [[] for _ in candidates]
    for block in blocks:
        for place, weights in enumerate(candidates):
            scores = Blend(weights=dict(weights)).scores(block.distributions)
            found[place].append(ranks(scores, block.target, block.banned))
    return [ranking_metrics(np.concatenate(one))[metric] for one in found]
