"""Item co-visitation: item-kNN on sequences, the strongest simple recommender on sparse shops.

Items that follow one another within a window are neighbours; the nearer, the stronger; frequent items are damped.
The query is a user's last items, the newest strongest. Where no neighbour speaks, popularity decides.
Form after what beat published sequence models on Amazon Beauty: window 10, 0.8 per step, reverse at half weight,
frequency^0.4 on both sides, the last 20 items at 0.8 per step. Decays and damping are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from training.baselines import Floats, Ints, RankingExamples, subsample
from training.baselines.histories import history, query, strongest
from training.evaluation import ranking_metrics

_DENSE_CELLS = 1 << 23  # scores held at once, examples x items: 32 MiB of float32


@dataclass(frozen=True, kw_only=True)
class CovisitationConfig:
    """How far co-visits reach, and the candidates that validation chooses from, one setting after the other."""

    window: int = 10  # how many items before it a target meets
    last: int = 20  # items of the query
    reverse: float = 0.5  # weight of "came before" beside "came after"
    neighbours: int = 500  # strongest kept for each item: bounds the cost where few items meet many users
    pair_decays: tuple[float, ...] = (0.8, 0.5)
    powers: tuple[float, ...] = (0.4, 0.2, 0.0, 0.6)
    query_decays: tuple[float, ...] = (0.8, 0.95, 0.6, 0.4)
    exclude_seen: bool = False  # the other items of the history leave the ranking (protocol of the Amazon papers)
    metric: str = "ndcg@10"
    most_validation: int = 4000  # examples that choose the settings
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The settings that validation chose."""

    pair_decay: float
    power: float
    query_decay: float


@dataclass(frozen=True, kw_only=True)
class Covisitation:
    """Fitted neighbours. `similarity` is CSR float32 [items, items], row = item of the query; `popularity` [items]."""

    similarity: Any = field(repr=False)
    popularity: Floats = field(repr=False)
    chosen: Chosen
    last: int
    exclude_seen: bool
    validation: float = 0.0

    def ranks(self, examples: RankingExamples, *, progress: bool = False) -> Ints:
        """Rank of every target [n], 1-based.

        Items are ordered by similarity to the query; those without any come after, by popularity. Ties count
        against the target, and an unknown target comes after all items.
        """
        found = np.empty(len(examples), dtype=np.int64)
        for rows in _chunks(len(examples), len(self.popularity), progress=progress):
            found[rows] = self._ranks(examples.take(rows))
        return found

    def scores(self, examples: RankingExamples) -> Any:  # noqa: ANN401 - scipy's matrices are untyped
        """CSR float32 [n, items], 0 where no neighbour speaks."""
        return query(examples, len(self.popularity), self.last, self.chosen.query_decay) @ self.similarity

    def _ranks(self, examples: RankingExamples) -> Ints:
        items, line = len(self.popularity), np.arange(len(examples))
        known = examples.targets >= 0
        target = np.where(known, examples.targets, 0)
        scores = self.scores(examples).toarray()
        own = scores[line, target].copy()
        if self.exclude_seen:
            scores[history(examples, items, None)[:2]] = -1
            scores[line, target] = own
        rank = (scores >= own[:, None]).sum(axis=1)
        silent = np.flatnonzero(own == 0)
        as_popular = self.popularity[None, :] >= self.popularity[target[silent]][:, None]
        rank[silent] = ((scores[silent] > 0) | ((scores[silent] == 0) & as_popular)).sum(axis=1)
        return np.where(known, rank, items + 1)


def fit(
    train: RankingExamples,
    validation: RankingExamples,
    *,
    items: int,
    config: CovisitationConfig | None = None,
    progress: bool = False,
) -> Covisitation:
    """Count co-visits of histories and targets in `train`; choose the settings on `validation`.

    Each example adds the pairs of its target with the items just before it. So with an example at every position,
    every pair of a sequence counts once, however far histories overlap.

    Args:
        train: examples of the training range.
        validation: later examples; at most `config.most_validation` of them are used.
        items: size of the catalogue: codes are 0 .. items - 1.
        config: window and candidates.
        progress: show bars.

    Raises:
        ValueError: there is no validation example.
    """
    config = config or CovisitationConfig()
    validation = validation.take(subsample(len(validation), config.most_validation, config.seed))
    popularity = np.bincount(train.targets[train.targets >= 0], minlength=items).astype(np.float64)
    counts: dict[float, Any] = {}

    def candidate(chosen: Chosen) -> Covisitation:
        if chosen.pair_decay not in counts:
            counts[chosen.pair_decay] = _count_pairs(train, items, config, chosen.pair_decay)
        similarity = strongest(_damp(counts[chosen.pair_decay], popularity, chosen.power), config.neighbours)
        fitted = Covisitation(
            similarity=similarity,
            popularity=popularity,
            chosen=chosen,
            last=config.last,
            exclude_seen=config.exclude_seen,
        )
        return replace(fitted, validation=ranking_metrics(fitted.ranks(validation))[config.metric])

    start = Chosen(pair_decay=config.pair_decays[0], power=config.powers[0], query_decay=config.query_decays[0])
    best = candidate(start)
    alternatives = [
        *(("pair_decay", value) for value in config.pair_decays[1:]),
        *(("power", value) for value in config.powers[1:]),
        *(("query_decay", value) for value in config.query_decays[1:]),
    ]
    for name, value in tqdm(alternatives, desc="co-visitation settings", disable=not progress):
        tried = candidate(replace(best.chosen, **{name: value}))
        best = max(best, tried, key=lambda one: one.validation)
    return best


def _count_pairs(examples: RankingExamples, items: int, config: CovisitationConfig, decay: float) -> Any:  # noqa: ANN401
    """CSR float32 [items, items]: decay^(distance - 1) for each item before a target, and its reverse."""
    total = sparse.csr_matrix((items, items), dtype=np.float32)
    for distance in range(1, config.window + 1):
        at = examples.ends - distance
        rows = np.flatnonzero((at >= examples.starts) & (examples.targets >= 0))
        before = examples.items[at[rows]].astype(np.int64)
        after = examples.targets[rows]
        before, after = before[before >= 0], after[before >= 0]
        weights = np.full(len(before), decay ** (distance - 1), dtype=np.float32)
        total = total + sparse.coo_matrix((weights, (before, after)), shape=(items, items)).tocsr()
    return (total + config.reverse * total.T).tocsr().astype(np.float32)


def _damp(counts: Any, popularity: Floats, power: float) -> Any:  # noqa: ANN401 - scipy's matrices are untyped
    """Divide by frequency^power on both sides."""
    factor = sparse.diags(np.maximum(popularity, 1) ** -power).astype(np.float32)
    return (factor @ counts @ factor).tocsr()


def _chunks(n: int, items: int, *, progress: bool) -> Iterator[NDArray[np.int64]]:
    """Row numbers in pieces that keep the dense scores small."""
    step = max(1, _DENSE_CELLS // max(1, items))
    for begin in tqdm(range(0, n, step), desc="co-visitation ranks", disable=not progress):
        yield np.arange(begin, min(begin + step, n))
