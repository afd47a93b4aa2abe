"""Retrieval: the best items for some users out of all that may be shown.

Exact, as one product of matrices, but for a catalogue that has an index (serving/item_index.py): then what the index
finds is scored exactly, and where too little of it may be shown, all is. Where others join the network
(serving/blend.py), scores are logarithms of shares; beside what the index finds stands then what the others know of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from serving.blend import Blend, Mixer
from serving.blend_kernels import Met
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

    def __init__(self, items: Items, index: ItemIndex | None = None, blend: Blend | None = None) -> None:
        """`index`, where the catalogue is too large to be looked at whole; `blend`, where others join the network."""
        self._items, self._index = items, index
        self._mixer = None if blend is None else Mixer(blend)
        self._scores = np.empty(max(len(items), min(_SCORES, 256 * len(items))), np.float32)

    def best(
        self, queries: np.ndarray, k: int, eligible: Eligible, seen: Sequence[np.ndarray], met: Met | None = None
    ) -> list[Ranked]:
        """The k best items for each query.

        Args:
            queries: float32 [B, D].
            k: how many, fewer where fewer may be shown.
            eligible: what may be shown.
            seen: places that are left out for each user besides, int64, rising; [B].
            met: the histories of these users, which a blend needs; [B].
        """
        if self._index is None or eligible.places is not None:
            return self._exact(queries, k, eligible, seen, met)
        found = []
        for row, mine in enumerate(seen):
            one = slice(row, row + 1)
            his = None if met is None else met.rows(one)
            ranked = self._near(self._index, queries[row], k, eligible, mine, his)
            found.append(ranked or self._exact(queries[one], k, eligible, [mine], his)[0])
        return found

    def scores_of(
        self, places: np.ndarray, eligible: Eligible, seen: np.ndarray, queries: np.ndarray, met: Met | None
    ) -> np.ndarray:
        """What each query gives these items, float32 [B, k], as `best` would; `seen` is left out for all of them."""
        if self._mixer is None or met is None:
            return np.asarray(queries @ self._items.vectors[places].T + self._items.bias[places])
        found = []
        for row, query in enumerate(queries):
            one = met.rows(slice(row, row + 1))
            if self._index is None or eligible.places is not None:
                ((mixed, spoken),) = self._mixed(query[None], eligible, [seen], one)
                columns = places if eligible.places is None else np.searchsorted(eligible.places, places)
                found.append(mixed[0, columns] / spoken[0])
            else:
                near = np.union1d(places, self._index.near(query, self._index.looks_at))
                there, shares, all_ = self._mixed_some(self._mixer, near, query, eligible, seen, one)
                found.append(shares[np.searchsorted(there, places)] / all_)
        return np.log(np.stack(found))

    def popular(self, k: int, eligible: Eligible, seen: Sequence[np.ndarray]) -> list[Ranked]:
        """The k most viewed items for users of whom nothing is known; their scores are shares of all views."""
        share = self._items.share if eligible.places is None else self._items.share[eligible.places]
        if eligible.offset is not None:
            share = np.where(np.isfinite(eligible.offset), share, -np.inf)
        # one look for all of them, deep enough that what each has seen can be taken out
        (most,) = _top(share[None], k + max(map(len, seen), default=0), eligible)
        kept = [~np.isin(most.places, mine) for mine in seen]
        return [Ranked(most.places[one][:k], most.scores[one][:k]) for one in kept]

    def _exact(
        self, queries: np.ndarray, k: int, eligible: Eligible, seen: Sequence[np.ndarray], met: Met | None
    ) -> list[Ranked]:
        found: list[Ranked] = []
        if self._mixer is None or met is None:
            for scores, _ in self._scored(queries, eligible, seen):
                found += _top(scores, k, eligible)
            return found
        for scores, spoken in self._mixed(queries, eligible, seen, met):
            ranked = _top(scores, k, eligible)
            found += [Ranked(one.places, np.log(one.scores / all_)) for one, all_ in zip(ranked, spoken, strict=True)]
        return found

    def _scored(
        self, queries: np.ndarray, eligible: Eligible, seen: Sequence[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, slice]]:
        """The network's scores [B, n] of what may be shown, -inf for what may not, and of which of the users."""
        if eligible.places is not None:
            vectors, offset = self._items.vectors[eligible.places], self._items.bias[eligible.places]
        else:
            vectors, offset = self._items.vectors, eligible.offset
        n = len(vectors)
        group = max(1, len(self._scores) // max(n, 1))
        for start in range(0, len(queries), group):
            users = slice(start, start + group)
            some = queries[users]
            scores = self._scores[: len(some) * n].reshape(len(some), n)
            if len(some) == 1:
                np.dot(vectors, some[0], out=scores[0])
            else:
                np.dot(some, vectors.T, out=scores)
            scores += offset
            for row, mine in enumerate(seen[users]):
                scores[row, _columns(mine, eligible)] = -np.inf
            yield scores, users

    def _mixed(
        self, queries: np.ndarray, eligible: Eligible, seen: Sequence[np.ndarray], met: Met
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What the blend says of what may be shown [B, n], and what that adds up to [B], group by group."""
        assert self._mixer is not None  # noqa: S101 - who asks has looked
        for scores, users in self._scored(queries, eligible, seen):
            columns = [_columns(mine, eligible) for mine in seen[users]]
            yield scores, self._mixer.mix(scores, met.rows(users), eligible, columns)

    def _near(
        self, index: ItemIndex, query: np.ndarray, k: int, eligible: Eligible, seen: np.ndarray, met: Met | None
    ) -> Ranked | None:
        """What the index finds, and a blend besides, scored exactly; None where that is too little."""
        share = max(eligible.count - len(seen), 1) / len(self._items)
        count = max(index.looks_at, int(_MARGIN * k / share) + len(seen))
        if count * _SHARE > len(self._items):
            return None
        places = index.near(query, count)
        if self._mixer is None or met is None:
            places = _shown(places, eligible, seen)
            scores = self._items.vectors[places] @ query + self._items.bias[places]
        else:
            places, scores, spoken = self._mixed_some(self._mixer, places, query, eligible, seen, met)
            scores = np.log(scores / spoken)
        if len(places) < min(k, eligible.count):
            return None
        order = best(scores[None], k)[0]
        return Ranked(places[order], scores[order])

    def _mixed_some(
        self, mixer: Mixer, places: np.ndarray, query: np.ndarray, eligible: Eligible, seen: np.ndarray, met: Met
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Of these and what simple recommenders add: places, what the blend says of them, and what all adds up to."""
        places = _shown(np.union1d(places, mixer.candidates(met, len(places))), eligible, seen)
        rest, each = mixer.rest(places, eligible, seen)
        vectors, bias = self._items.vectors, self._items.bias
        scores = vectors[places] @ query + bias[places]
        others = vectors[rest] @ query + bias[rest]
        return places, scores, mixer.mix_some(scores, places, others, each, met, eligible, seen)


def _shown(places: np.ndarray, eligible: Eligible, seen: np.ndarray) -> np.ndarray:
    """Those of these places that may be shown to a user."""
    places = places[eligible.among(places)]
    return places[~np.isin(places, seen)]


def _columns(seen: np.ndarray, eligible: Eligible) -> np.ndarray:
    """The columns of what a user has seen, as far as they are among the eligible items."""
    if eligible.places is not None and len(seen):
        return np.flatnonzero(np.isin(eligible.places, seen))
    return seen


def _top(scores: np.ndarray, k: int, eligible: Eligible) -> list[Ranked]:
    """The best of each row, by their places among all items."""
    return [
        Ranked(columns if eligible.places is None else eligible.places[columns], scores[row, columns])
        for row, columns in enumerate(best(scores, k))
    ]
