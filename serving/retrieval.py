"""Retrieval: the best items for some users out of all that may be shown.

Exact, as one product of matrices, but for a catalogue that has an index (serving/item_index.py): then what the index
finds is scored exactly, and where too little of it may be shown, all is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from serving.filters import Eligible
from serving.items import Items
from serving.top_k import best

if TYPE_CHECKING:
    from serving.item_index import ItemIndex

_SCORES = 16 * 2**20
"""So many scores (4 bytes each) are held at a time: users are taken in groups, at least one."""

_MARGIN = 2
"""The index is asked for so many times as many items as are wanted."""

_SHARE = 20
"""From one item in so many on, an index is no faster than looking at all."""


class Ranked(NamedTuple):
    """Items for one user, best first: places int64 [k] and scores float [k]."""

    places: np.ndarray
    scores: np.ndarray


class Retrieval:
    """Of one bundle's items; for one thread, since scores are written to the same memory each time."""

    def __init__(self, items: Items, index: ItemIndex | None = None) -> None:
        """`index`, where the catalogue is too large to be looked at whole."""
        self._items, self._index = items, index
        self._scores = np.empty(max(len(items), min(_SCORES, 256 * len(items))), np.float32)

    def best(self, queries: np.ndarray, k: int, eligible: Eligible, seen: Sequence[np.ndarray]) -> list[Ranked]:
        """The k best items for each query.

        Args:
            queries: float32 [B, D].
            k: how many, fewer where fewer may be shown.
            eligible: what may be shown.
            seen: places that are left out for each user besides, int64, rising; [B].
        """
        if self._index is None or eligible.places is not None:
            return self._exact(queries, k, eligible, seen)
        return [
            self._near(self._index, query, k, eligible, mine) or self._exact(query[None], k, eligible, [mine])[0]
            for query, mine in zip(queries, seen, strict=True)
        ]

    def popular(self, k: int, eligible: Eligible, seen: Sequence[np.ndarray]) -> list[Ranked]:
        """The k most viewed items for users of whom nothing is known; their scores are shares of all views."""
        share = self._items.share if eligible.places is None else self._items.share[eligible.places]
        if eligible.offset is not None:
            share = np.where(np.isfinite(eligible.offset), share, -np.inf)
        # one look for all of them, deep enough that what each has seen can be taken out
        (most,) = _top(share[None], k + max(map(len, seen), default=0), eligible)
        kept = [~np.isin(most.places, mine) for mine in seen]
        return [Ranked(most.places[one][:k], most.scores[one][:k]) for one in kept]

    def _exact(self, queries: np.ndarray, k: int, eligible: Eligible, seen: Sequence[np.ndarray]) -> list[Ranked]:
        if eligible.places is not None:
            vectors, offset = self._items.vectors[eligible.places], self._items.bias[eligible.places]
        else:
            vectors, offset = self._items.vectors, eligible.offset
        n = len(vectors)
        group = max(1, len(self._scores) // max(n, 1))
        found: list[Ranked] = []
        for start in range(0, len(queries), group):
            some = queries[start : start + group]
            scores = self._scores[: len(some) * n].reshape(len(some), n)
            if len(some) == 1:
                np.dot(vectors, some[0], out=scores[0])
            else:
                np.dot(some, vectors.T, out=scores)
            scores += offset
            found += _top(_without(scores, seen[start : start + group], eligible), k, eligible)
        return found

    def _near(self, index: ItemIndex, query: np.ndarray, k: int, eligible: Eligible, seen: np.ndarray) -> Ranked | None:
        """What the index finds, scored exactly; None where that is too little."""
        share = max(eligible.count - len(seen), 1) / len(self._items)
        count = max(index.looks_at, int(_MARGIN * k / share) + len(seen))
        if count * _SHARE > len(self._items):
            return None
        places = index.near(query, count)
        places = places[eligible.among(places)]
        places = places[~np.isin(places, seen)]
        if len(places) < min(k, eligible.count):
            return None
        scores = self._items.vectors[places] @ query + self._items.bias[places]
        order = best(scores[None], k)[0]
        return Ranked(places[order], scores[order])


def _without(scores: np.ndarray, seen: Sequence[np.ndarray], eligible: Eligible) -> np.ndarray:
    """The scores [B, n] of the eligible items, in place, with -inf for what each user has seen."""
    for row, mine in enumerate(seen):
        columns = mine
        if eligible.places is not None and len(mine):
            columns = np.flatnonzero(np.isin(eligible.places, mine))
        scores[row, columns] = -np.inf
    return scores


def _top(scores: np.ndarray, k: int, eligible: Eligible) -> list[Ranked]:
    """The best of each row, by their places among all items."""
    return [
        Ranked(columns if eligible.places is None else eligible.places[columns], scores[row, columns])
        for row, columns in enumerate(best(scores, k))
    ]
