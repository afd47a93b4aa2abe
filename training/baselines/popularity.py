"""Popularity: the same list for everyone, the items that were chosen most, recent choices counting more.

A shop's best-sellers of the week are hard to beat for people without history. The half-life of a choice is picked
on validation, "never" among the candidates, in which case these are plain counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.baselines import Floats, Ints, RankingExamples
from training.evaluation import ranking_metrics

_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """Candidates; the one of best `metric` on validation is kept."""

    half_lives_days: tuple[float, ...] = (1.0, 3.0, 7.0, 14.0, float("inf"))
    metric: str = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """A fitted list. `scores` is float64 [items]: weighted choices of each item."""

    scores: Floats
    half_life_days: float
    validation: float

    def ranks(self, examples: RankingExamples) -> Ints:
        """Rank of every target [n], 1-based, ties against it; an unknown target comes after all items."""
        ordered = np.sort(self.scores)
        at_least = len(ordered) - np.searchsorted(ordered, self.scores, side="left")
        known = examples.targets >= 0
        return np.where(known, at_least[np.where(known, examples.targets, 0)], len(ordered) + 1)

    def top(self, k: int) -> Ints:
        """Codes of the k most popular items, best first; equal ones by code."""
        return np.argsort(-self.scores, kind="stable")[:k]


def fit(
    train: RankingExamples, validation: RankingExamples, *, items: int, config: PopularityConfig | None = None
) -> Popularity:
    """Count the targets of `train`; choose the half-life on `validation`.

    Args:
        train: examples whose targets are the choices that count.
        validation: later examples.
        items: size of the catalogue: codes are 0 .. items - 1.
        config: candidates.

    Raises:
        ValueError: there is no validation example.
    """
    config = config or PopularityConfig()
    fitted = []
    for half_life in config.half_lives_days:
        scores = _decayed_counts(train, items, half_life)
        candidate = Popularity(scores=scores, half_life_days=half_life, validation=0.0)
        value = ranking_metrics(candidate.ranks(validation))[config.metric]
        fitted.append(Popularity(scores=scores, half_life_days=half_life, validation=value))
    return max(fitted, key=lambda one: one.validation)


def _decayed_counts(examples: RankingExamples, items: int, half_life_days: float) -> Floats:
    """Choices of each item [items]: each counts 0.5^(age / half-life), its age at the last of them."""
    known = examples.targets >= 0
    targets, times = examples.targets[known], examples.times[known]
    age = (times.max() - times) / _DAY if len(times) else np.zeros(0)
    return np.bincount(targets, weights=np.exp2(-age / half_life_days), minlength=items).astype(np.float64)
