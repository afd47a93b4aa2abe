"""A blend of the network with simple recommenders: co-visits, the user's own history, popularity.

Each gives shares of the items that may be shown, flattened by square roots; their weighted mean ranks, and the weight
of one who says nothing of a user goes to the others. What training means by it is training/blended.py, and a test holds
both to the same shares. A score is the logarithm of a share.

Shapes: B users, n columns (all items, or the few that may be shown), I items, L events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from serving.blend_kernels import Base, Columns, Met, Neighbours, Scratch, Voice, mix
from serving.filters import Eligible
from serving.manifest import RefusedError

_ALL = 2**31 - 1
_NONE = Neighbours(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
_SILENT = Voice(0.0, 0, 0, 0.0)
_SAME = np.zeros(0, np.int64)

SAMPLE = 2_048
"""So many items stand for all that an index did not find, when shares are taken."""


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Who speaks; `popular` float32 [I], flattened already, above 0."""

    network: Voice
    covisits: Voice
    own: Voice
    popularity: float
    neighbours: Neighbours
    popular: np.ndarray

    @classmethod
    def load(cls, folder: Path, described: Mapping[str, Any], items: int) -> Blend:
        """Of a bundle's folder, by `blend` in its interface.json (training/export_blend.py).

        Raises:
            RefusedError: the files are not of these items.
        """
        weights, roots = described["weights"], described["roots"]

        def voice(name: str) -> Voice:
            how = described.get(name) or {}
            last = how.get("last")
            return Voice(float(weights[name]), int(roots[name]), last or _ALL, float(how.get("decay", 1.0)))

        popular = _array(folder, described["popularity"]["chosen"])
        neighbours = _NONE
        if (near := described["covisitation"]) is not None:
            neighbours = Neighbours(*(_array(folder, near[name]) for name in ("starts", "neighbours", "closeness")))
            if len(neighbours.starts) != items + 1 or neighbours.starts[-1] != len(neighbours.places):
                popular = popular[:0]
        if len(popular) != items:
            message = f"the blend in {folder} is not of the bundle's {items} items: export the run again"
            raise RefusedError(message)
        for _ in range(roots["popularity"]):
            popular = np.sqrt(popular)
        return cls(
            network=voice("network"),
            covisits=_SILENT if near is None else voice("covisitation"),
            own=voice("own_history"),
            popularity=float(weights["popularity"]),
            neighbours=neighbours,
            popular=np.ascontiguousarray(popular / popular.sum(dtype=np.float64), np.float32),
        )


class _Shown(NamedTuple):
    """Of the items that may be shown: popularity [n], -inf where it may not, its sum, and what columns are (`mix`)."""

    popular: np.ndarray
    total: float
    items: np.ndarray


class Mixer:
    """Mixes for one thread, since it writes to the same memory each time."""

    def __init__(self, blend: Blend) -> None:
        """Of one bundle."""
        self._blend, items = blend, len(blend.popular)
        self._scratch = Scratch(np.zeros(items, np.float32), np.zeros(items + 1, np.int32))
        self._shown: WeakKeyDictionary[Eligible, _Shown] = WeakKeyDictionary()
        self._sample = np.sort(np.random.default_rng(0).choice(items, min(SAMPLE, items), replace=False))
        self._most_popular = np.argsort(-blend.popular, kind="stable")[:SAMPLE]

    def mix(self, logits: np.ndarray, met: Met, eligible: Eligible, seen: Sequence[np.ndarray]) -> np.ndarray:
        """Turn the network's logits into what the blend says of each item, in place.

        Args:
            logits: float32 [B, n], -inf for what is not to be shown; becomes shares, -inf there as before.
            met: the histories.
            eligible: what may be shown, whose columns these are.
            seen: columns that are -inf for each user besides, [B].

        Returns:
            What the shares of a user add up to, float32 [B].
        """
        shown = self._of(eligible)
        total = self._powers(logits, logits.max(1, initial=-np.inf)).sum(1)
        left = np.full(len(logits), shown.total)
        for row, mine in enumerate(seen):
            if len(mine):
                left[row] -= _sum(shown.popular[mine])
        return self._mixed(logits, total, shown.popular, left, shown.items, met, seen)

    def candidates(self, met: Met, count: int) -> np.ndarray:
        """Places that the others have for one user: his history, its neighbours, the `count` most popular; rising."""
        blend, codes = self._blend, met.codes[0, : met.used[0]]
        starts, near = blend.neighbours.starts, [codes[codes >= 0], self._most_popular[:count]]
        if blend.covisits.weight:
            asked = np.unique(codes[-blend.covisits.last :])
            near += [blend.neighbours.places[starts[code] : starts[code + 1]] for code in asked[asked >= 0].tolist()]
        return np.unique(np.concatenate(near))

    def rest(self, places: np.ndarray, eligible: Eligible, seen: np.ndarray) -> tuple[np.ndarray, float]:
        """A sample of what may be shown beside `places` (rising), and for how many items each of it stands."""
        sample = self._sample[eligible.among(self._sample)]
        sample = np.setdiff1d(np.setdiff1d(sample, seen, assume_unique=True), places, assume_unique=True)
        left = eligible.count - int(np.count_nonzero(eligible.among(seen))) - len(places)
        return sample, left / max(len(sample), 1)

    def mix_some(
        self,
        logits: np.ndarray,
        places: np.ndarray,
        rest: np.ndarray,
        each: float,
        met: Met,
        eligible: Eligible,
        seen: np.ndarray,
    ) -> float:
        """As `mix`, of some items for one user: shares among all, those of the network as a sample of the rest tells.

        Args:
            logits: float32 [n], of `places`; becomes shares.
            places: int64 [n], all `candidates` that may be shown to the user among them.
            rest: float32, logits of a sample of what else may be shown.
            each: for so many items each of the sample stands.
            met: the history.
            eligible: what may be shown.
            seen: places that are left out besides.
        """
        shown = self._of(eligible)
        peak = np.maximum(logits.max(initial=-np.inf), rest.max(initial=-np.inf))[None]
        total = self._powers(logits[None], peak).sum(1) + each * self._powers(rest[None], peak).sum(1)
        left = np.array([shown.total - _sum(shown.popular[seen])])
        spoken = self._mixed(logits[None], total, self._blend.popular[places], left, places, met, [seen[:0]])
        return float(spoken[0])

    def _powers(self, logits: np.ndarray, peak: np.ndarray) -> np.ndarray:
        """What shares of the network are in proportion to, in place: flattened, 1 at the peak."""
        logits -= np.maximum(peak, np.finfo(np.float32).min)[:, None]  # where nothing may be shown: still -inf
        if self._blend.network.roots:
            logits *= np.float32(0.5**self._blend.network.roots)
        return np.exp(logits, out=logits)

    def _mixed(
        self,
        powers: np.ndarray,
        total: np.ndarray,
        popular: np.ndarray,
        left: np.ndarray,
        items: np.ndarray,
        met: Met,
        seen: Sequence[np.ndarray],
    ) -> np.ndarray:
        blend = self._blend
        spoken = np.full(len(powers), blend.network.weight + blend.popularity, np.float32)
        base = Base(blend.network.weight, total, blend.popularity, popular, left)
        columns = Columns(items, *_flat(seen))
        mix(powers, base, columns, met, blend.neighbours, blend.covisits, blend.own, self._scratch, spoken)
        return spoken

    def _of(self, eligible: Eligible) -> _Shown:
        found = self._shown.get(eligible)
        if found is None:
            popular, items = self._blend.popular, _SAME
            if eligible.places is not None:
                popular, items = popular[eligible.places], eligible.places
            elif eligible.offset is not None:
                popular = np.where(np.isfinite(eligible.offset), popular, np.float32(-np.inf))
            found = self._shown[eligible] = _Shown(popular, _sum(popular), items)
        return found


def _sum(popular: np.ndarray) -> float:
    """Of what may be shown."""
    return float(popular.sum(dtype=np.float64, where=popular > 0))


def _flat(seen: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One after the other, and where each begins and ends."""
    if not any(map(len, seen)):  # as nearly always
        return _SAME, np.zeros(len(seen) + 1, np.int64)
    return np.concatenate(seen), np.cumsum([0, *map(len, seen)])


def _array(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False))
