"""A blend of recommenders: each gives a distribution over items, their weighted mean ranks.

Neighbours know which items go together from a handful of pairs, a network knows the order of things, attributes speak
for items that nobody has chosen yet: their errors differ, and their mean beats each. A network is surer of its first
few items than its neighbours in the blend are, so each distribution may be flattened. Weights and flatness are chosen
on validation alone, by coordinates on a grid, so no choice is finer than the validation range can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.evaluation import per_example

Matrix = NDArray[np.float32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
"""What a recommender may have of the whole, tried one after the other while the rest keep their proportions."""
_ROOTS = (0, 1, 2)
_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Weights by recommender, which sum to one, and how many square roots each distribution is flattened by."""

    weights: dict[str, float]
    roots: dict[str, int]

    def scores(self, distributions: Mapping[str, Matrix]) -> Matrix:
        """Weighted mean of `distribution`s, float32 [n, items]."""
        parts = [
            np.float32(weight) * flattened(distributions[name], self.roots[name])
            for name, weight in self.weights.items()
            if weight
        ]
        return np.asarray(sum(parts[1:], start=parts[0]), np.float32)

    def without(self, name: str) -> Blend | None:
        """The others as they stand to each other; None where there are none."""
        rest = sum(weight for other, weight in self.weights.items() if other != name)
        if not rest:
            return None
        weights = {other: 0.0 if other == name else weight / rest for other, weight in self.weights.items()}
        return replace(self, weights=weights)

    def with_share(self, name: str, share: float, roots: int) -> Blend:
        """Another share and flatness for one; there have to be others."""
        weights = {other: share if other == name else weight * (1 - share) for other, weight in self.weights.items()}
        return Blend(weights=weights, roots={**self.roots, name: roots})


def distribution(scores: Matrix, banned: tuple[Ints, Ints] | None = None) -> Matrix:
    """Rows of scores as shares of their sum (all 0 where nothing is said), `banned` (rows, items) left out."""
    scores = np.array(scores, np.float32)
    if banned is not None:
        scores[banned] = 0
    total = scores.sum(1, keepdims=True)
    return np.asarray(scores / np.where(total > 0, total, 1), np.float32)


def flattened(shares: Matrix, roots: int) -> Matrix:
    """Distributions whose odds are brought nearer to one by so many square roots; the order of items stays."""
    return distribution(rooted(shares, roots)) if roots else shares


def rooted(shares: Matrix, roots: int) -> Matrix:
    """So many square roots of each."""
    for _ in range(roots):
        shares = np.sqrt(shares)
    return shares


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
    """Validation examples: `distributions` by recommender, `target` int64 [n], `banned` (rows, items) never ranked.

    Where the columns are some of the items alone, `totals` says by recommender what the roots of the shares of all
    items add up to: float32 [n, 3], no root, one, two. `target` and `banned` are columns then.
    """

    distributions: dict[str, Matrix]
    target: Ints
    banned: tuple[Ints, Ints] | None = None
    totals: dict[str, Matrix] | None = None

    def flat(self, name: str, roots: int) -> Matrix:
        """One recommender's distributions, flattened."""
        if self.totals is None:
            return flattened(self.distributions[name], roots)
        total = self.totals[name][:, roots, None]
        return np.asarray(rooted(self.distributions[name], roots) / np.where(total > 0, total, 1), np.float32)

    def mixed(self, blend: Blend) -> Matrix:
        """What a blend says, float32 [n, columns]."""
        parts = [
            np.float32(weight) * self.flat(name, blend.roots[name]) for name, weight in blend.weights.items() if weight
        ]
        return np.asarray(sum(parts[1:], start=parts[0]), np.float32)

    def ranks(self, blend: Blend) -> Ints:
        """Rank of each target by a blend, int64 [n]."""
        return ranks(self.mixed(blend), self.target, self.banned)


def among_best(distributions: dict[str, Matrix], target: Ints, deep: int = 100) -> Judged:
    """The same examples by the `deep` best items of each recommender and the target alone.

    A hundredth of the memory, and the ranks of a blend are the same as far as anybody looks: what no recommender has
    among its best is not among the blend's.

    Args:
        distributions: by recommender, float32 [n, items], or [1, items] where all examples have the same.
        target: int64 [n], -1 where the item is unknown.
        deep: how many of each.
    """
    n, items = len(target), next(iter(distributions.values())).shape[1]
    deep = min(deep, items)
    # torch picks a few of many faster than numpy parts them
    found = [torch.from_numpy(one).topk(deep, 1, sorted=False).indices.numpy() for one in distributions.values()]
    best = [np.broadcast_to(one, (n, deep)) for one in found]
    places = np.sort(np.column_stack([*best, np.maximum(target, 0)]), axis=1)
    again = np.nonzero(places[:, 1:] == places[:, :-1])
    return Judged(
        distributions={
            name: one[0][places] if len(one) < n else np.take_along_axis(one, places, 1)
            for name, one in distributions.items()
        },
        target=np.where(target >= 0, (places < target[:, None]).sum(1), -1),
        banned=(again[0], again[1] + 1),
        totals={name: np.broadcast_to(_totals(one), (n, len(_ROOTS))) for name, one in distributions.items()},
    )


def _totals(shares: Matrix) -> Matrix:
    """What each row of shares adds up to after no root, one, two: float32 [n, 3]."""
    sums = []
    for roots in _ROOTS:
        shares = np.sqrt(shares) if roots else shares
        sums.append(shares.sum(1))
    return np.stack(sums, 1)


def choose(blocks: Sequence[Judged], *, metric: str = "ndcg@10", sure: float = 0.0, progress: bool = False) -> Blend:
    """The weights whose blend has the best metric on validation.

    Args:
        blocks: the validation range in pieces, all with the same recommenders; the search starts from the first.
        metric: of `ranking_metrics`.
        sure: a step is taken if what it gives is above so many of its standard errors: what only reorders what nobody
            looks at here would count elsewhere, as where a user wants nothing that he has seen.
        progress: show a bar.

    Raises:
        ValueError: there is no validation example.
    """
    names = list(blocks[0].distributions) if blocks else []
    if not sum(len(one.target) for one in blocks):
        message = "a blend is chosen on validation examples, and there are none: give a longer history"
        raise ValueError(message)
    best = Blend(weights={name: float(name == names[0]) for name in names}, roots=dict.fromkeys(names, 0))
    worth = per_example(metric, np.concatenate([one.ranks(best) for one in blocks]))
    steps = [name for _ in range(_ROUNDS) for name in names]
    for name in tqdm(steps, desc="blend", disable=not progress):
        others = best.without(name)
        if others is None:
            continue
        tried = [(share, roots) for roots in _ROOTS for share in _SHARES if share or not roots]
        found = _worth(name, others, tried, blocks, metric)
        place = int(np.argmax([one.mean() for one in found]))
        gain = found[place] - worth
        if gain.mean() > sure * gain.std() / len(gain) ** 0.5:
            best, worth = others.with_share(name, *tried[place]), found[place]
    return best


def _worth(
    name: str, others: Blend, tried: Sequence[tuple[float, int]], blocks: Sequence[Judged], metric: str
) -> list[Floats]:
    """The metric of `others` with each tried share and flatness of one more, of each example."""
    found: list[list[Ints]] = [[] for _ in tried]
    for block in blocks:
        rest = block.mixed(others)
        flat = {roots: block.flat(name, roots) for roots in {roots for _, roots in tried}}
        for place, (share, roots) in enumerate(tried):
            mixed = np.float32(1 - share) * rest
            mixed += np.float32(share) * flat[roots]
            found[place].append(ranks(mixed, block.target, block.banned))
    return [per_example(metric, np.concatenate(one)) for one in found]
