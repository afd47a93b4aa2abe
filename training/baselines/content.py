"""Content neighbours: items that share what is rare among their attributes (TF-IDF, cosine), popular ones first.

It speaks for items that nobody has chosen together yet, so it adds most to co-visits where a shop is sparse. How
sharply similarity counts and how much popularity are chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from training.baselines import Floats, Ints, RankingExamples, subsample
from training.baselines.histories import query, strongest, worth

_ALIKE = 0.1
"""Cosine below which items have nothing to do with each other."""
_BLOCK = 1_024


@dataclass(frozen=True, kw_only=True)
class ContentConfig:
    """The candidates that validation chooses from, one setting after the other."""

    last: int = 20
    neighbours: int = 300
    powers: tuple[float, ...] = (3.0, 1.0)
    popularity: tuple[float, ...] = (0.3, 0.5, 0.0)
    query_decays: tuple[float, ...] = (0.8, 0.95, 0.6)
    most_validation: int = 2_000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Content:
    """Fitted neighbours: `similarity` is CSR float32 [items, items], row = item of the query."""

    similarity: Any = field(repr=False)
    last: int
    power: float
    popularity: float
    query_decay: float

    def scores(self, examples: RankingExamples) -> Any:  # noqa: ANN401 - scipy is untyped
        """CSR float32 [n, items], 0 where nothing is shared."""
        return query(examples, self.similarity.shape[0], self.last, self.query_decay) @ self.similarity


def fit(
    offsets: Ints,
    attributes: Ints,
    popularity: Floats,
    validation: RankingExamples,
    *,
    config: ContentConfig | None = None,
) -> Content:
    """Compare the items' attributes; choose the settings on validation.

    Args:
        offsets: int64 [items + 1]; item i has attributes[offsets[i]:offsets[i + 1]].
        attributes: int64, attribute codes.
        popularity: float64 [items], choices of each item in the training range.
        validation: examples that choose.
        config: candidates.

    Raises:
        ValueError: there is no validation example.
    """
    config = config or ContentConfig()
    validation = validation.take(subsample(len(validation), config.most_validation, config.seed))
    cosine = _cosine(offsets, attributes, config.neighbours)

    def candidate(power: float, popular: float, decay: float) -> Content:
        weight = sparse.diags(np.maximum(popularity, 0.5) ** popular).astype(np.float32)
        similarity = (cosine.power(power) @ weight).tocsr()
        return Content(similarity=similarity, last=config.last, power=power, popularity=popular, query_decay=decay)

    best = candidate(config.powers[0], config.popularity[0], config.query_decays[0])
    best_worth = _worth(best, validation)
    tried: list[tuple[float | None, float | None, float | None]] = [(one, None, None) for one in config.powers[1:]]
    tried += [(None, one, None) for one in config.popularity[1:]]
    tried += [(None, None, one) for one in config.query_decays[1:]]
    for power, popular, decay in tried:
        other = candidate(
            best.power if power is None else power,
            best.popularity if popular is None else popular,
            best.query_decay if decay is None else decay,
        )
        if (found := _worth(other, validation)) > best_worth:
            best, best_worth = other, found
    return best


def _worth(fitted: Content, examples: RankingExamples) -> float:
    """NDCG@10 with the history's own items left out."""
    scores = fitted.scores(examples).tocsr()
    met = query(examples, scores.shape[1], None, 1.0)
    return worth(scores - scores.multiply(met > 0), examples)


def _cosine(offsets: Ints, attributes: Ints, neighbours: int) -> Any:  # noqa: ANN401 - scipy is untyped
    """CSR float32 [items, items]: cosine of TF-IDF vectors, the strongest of each row, no item its own neighbour."""
    items, size = len(offsets) - 1, int(attributes.max(initial=-1)) + 1
    owned = sparse.csr_matrix((np.ones(len(attributes), np.float32), attributes, offsets), shape=(items, size))
    owned.sum_duplicates()
    rarity = np.log(items / np.maximum(np.asarray((owned > 0).sum(0)).ravel(), 1)).astype(np.float32)
    weighted = (owned @ sparse.diags(rarity)).tocsr()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    weighted = (sparse.diags(1 / np.maximum(length, 1e-6)) @ weighted).tocsr().astype(np.float32)
    blocks = []
    for begin in range(0, items, _BLOCK):  # a popular brand makes rows of thousands: a block at a time is cut
        block = (weighted[begin : begin + _BLOCK] @ weighted.T).tocsr()
        block.data[block.data < _ALIKE] = 0
        row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)) + begin
        block.data[block.indices == row] = 0
        block.eliminate_zeros()
        blocks.append(strongest(block, neighbours))
    return sparse.vstack(blocks, format="csr")
