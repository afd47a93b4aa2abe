"""The loops of a blend (serving/blend.py), compiled.

Shapes: B users, n columns (all items, or those that may be shown), I items, L events of the longest history, N
neighbours of all items together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_TINY = 1e-30
"""In place of sums of nothing: what is multiplied by their inverse must stay finite, and -inf stay -inf."""

_DENSE = 8
"""From one item in so many on that has a sum, all are gone through."""


class Voice(NamedTuple):
    """What one recommender may say: its weight (0: nothing) and by how many square roots its shares are flattened.

    Of a history it looks at the `last` events: the newest counts 1, the one before `decay`, and so on.
    """

    weight: float
    roots: int
    last: int
    decay: float


class Neighbours(NamedTuple):
    """Of item i the places and closeness from `starts[i]` to `starts[i + 1]`: int64 [I + 1], int32 [N], float32 [N]."""

    starts: np.ndarray
    places: np.ndarray
    closeness: np.ndarray


class Scratch(NamedTuple):
    """Memory that is written anew for each user: `sums` float32 [I], all 0 between two; `touched` int32 [I + 1]."""

    sums: np.ndarray
    touched: np.ndarray


class Met(NamedTuple):
    """Items of histories: places int64 [B, L], oldest first, -1 where unknown, of which the first `used` int64 [B]."""

    codes: np.ndarray
    used: np.ndarray

    def rows(self, which: slice | np.ndarray) -> Met:
        """Of some of the users."""
        return Met(self.codes[which], self.used[which])


class Base(NamedTuple):
    """Who speaks of every item: `popular` float32 [n], -inf where an item may be shown to nobody.

    `network`, `popularity`: their weights; what their shares add up to: `total` float32 [B], `left` float64 [B].
    """

    network: float
    total: np.ndarray
    popularity: float
    popular: np.ndarray
    left: np.ndarray


class Columns(NamedTuple):
    """`items`: int64 [n], the item of each column; empty where columns are items.

    `seen` int64: columns not to be shown to one user besides; `bounds` int64 [B + 1]: which of these are of whom.
    """

    items: np.ndarray
    seen: np.ndarray
    bounds: np.ndarray


@njit(cache=True)
def mix(
    shares: np.ndarray,
    base: Base,
    columns: Columns,
    met: Met,
    neighbours: Neighbours,
    covisits: Voice,
    own: Voice,
    scratch: Scratch,
    spoken: np.ndarray,
) -> None:
    """Network, popularity, co-visits and own history of B users, in place.

    Args:
        shares: float32 [B, n], of the network; becomes those of all, -inf where an item may not be shown.
        base: network and popularity.
        columns: where items stand, and what is not shown.
        met: the histories.
        neighbours: of the items.
        covisits: how neighbours speak.
        own: how the history itself speaks.
        scratch: memory.
        spoken: float32 [B]; the weights of these two are added where they said anything.
    """
    popular, sums, touched = base.popular, scratch.sums, scratch.touched
    for row in range(len(shares)):
        mine = shares[row]
        network = np.float32(base.network / max(float(base.total[row]), _TINY))
        popularity = np.float32(base.popularity / max(base.left[row], _TINY))
        for place in range(len(mine)):
            mine[place] = mine[place] * network + popular[place] * popularity
        for at in range(columns.bounds[row], columns.bounds[row + 1]):
            mine[columns.seen[at]] = -np.inf
        codes = met.codes[row, : met.used[row]]
        if covisits.weight > 0:
            count = _near(codes, neighbours, covisits, sums, touched)
            if _add(mine, columns.items, covisits, sums, touched[:count]):
                spoken[row] += covisits.weight
        if own.weight > 0:
            count = _met(codes, own, sums, touched)
            if _add(mine, columns.items, own, sums, touched[:count]):
                spoken[row] += own.weight


@njit(cache=True)
def _near(codes: np.ndarray, neighbours: Neighbours, voice: Voice, sums: np.ndarray, touched: np.ndarray) -> int:
    """Sums of closeness to the last events; how many items have one."""
    starts, places, closeness = neighbours.starts, neighbours.places, neighbours.closeness
    count = 0
    for age in range(min(len(codes), voice.last)):
        code = codes[len(codes) - 1 - age]
        if code < 0:
            continue
        weight = np.float32(voice.decay**age)
        for at in range(starts[code], starts[code + 1]):
            item = np.uint32(places[at])
            touched[count] = item
            count += sums[item] == 0  # in place of a branch, which nobody could foretell
            sums[item] += weight * closeness[at]
    return count


@njit(cache=True)
def _met(codes: np.ndarray, voice: Voice, sums: np.ndarray, touched: np.ndarray) -> int:
    """Sums of what the last events count, by their item; how many items have one."""
    count = 0
    for age in range(min(len(codes), voice.last)):
        code, value = codes[len(codes) - 1 - age], np.float32(voice.decay**age)
        if code >= 0 and value > 0:  # very old events count nothing
            touched[count] = code
            count += sums[code] == 0
            sums[code] += value
    return count


@njit(cache=True)
def _add(mine: np.ndarray, items: np.ndarray, voice: Voice, sums: np.ndarray, touched: np.ndarray) -> bool:
    """Add the flattened shares among what may be shown, and leave the sums empty; whether there are any."""
    if len(items):
        found = _add_at(mine, items, voice, sums)
    elif len(touched) * _DENSE > len(mine):
        found = _add_all(mine, voice, sums)
    else:
        found = _add_at_few(mine, touched, voice, sums)
    for at in range(len(touched)):
        sums[np.uint32(touched[at])] = 0
    return found


@njit(cache=True, fastmath={"reassoc"})
def _add_all(mine: np.ndarray, voice: Voice, sums: np.ndarray) -> bool:
    """Of all items, many of which have a sum: loops without branches."""
    none = np.float32(-np.inf)
    for _ in range(voice.roots):
        for place in range(len(mine)):
            sums[place] = np.sqrt(sums[place])
    total = np.float32(0)
    for place in range(len(mine)):
        total += sums[place] if mine[place] > none else np.float32(0)
    if total <= 0:
        return False
    scale = np.float32(voice.weight / total)
    for place in range(len(mine)):
        mine[place] += sums[place] * scale
    return True


@njit(cache=True)
def _add_at_few(mine: np.ndarray, touched: np.ndarray, voice: Voice, sums: np.ndarray) -> bool:
    """Of all items, few of which have a sum."""
    total = 0.0
    for at in range(len(touched)):
        item = np.uint32(touched[at])
        value = sums[item]
        for _ in range(voice.roots):
            value = np.sqrt(value)
        sums[item] = value
        if mine[item] > -np.inf:
            total += value
    if total <= 0:
        return False
    scale = np.float32(voice.weight / total)
    for at in range(len(touched)):
        item = np.uint32(touched[at])
        mine[item] += sums[item] * scale
    return True


@njit(cache=True)
def _add_at(mine: np.ndarray, items: np.ndarray, voice: Voice, sums: np.ndarray) -> bool:
    """Of some items."""
    total = 0.0
    for place in range(len(items)):
        if mine[place] > -np.inf:
            value = sums[items[place]]
            for _ in range(voice.roots):
                value = np.sqrt(value)
            total += value
    if total <= 0:
        return False
    scale = np.float32(voice.weight / total)
    for place in range(len(items)):
        value = sums[items[place]]
        for _ in range(voice.roots):
            value = np.sqrt(value)
        mine[place] += value * scale
    return True
