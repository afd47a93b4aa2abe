"""The loops of a blend (serving/blend.py), compiled.

Shapes: B users, n columns (all items, or those that may be shown), I items, L events of the longest history, N
neighbours of all items together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


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
    """Memory that is written anew for each user: `sums` float32 [I], all 0 between two users; `touched` int32 [I]."""

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

    `network`, `popularity`: what the shares of the network and these are multiplied by, float32 [B], above 0.
    """

    network: np.ndarray
    popular: np.ndarray
    popularity: np.ndarray


class Columns(NamedTuple):
    """`of`: int32 [I], the column of each item, -1 where it has none; empty where columns are items.

    `seen` int64: columns not to be shown to one user besides; `bounds` int64 [B + 1]: which of these are of whom.
    """

    of: np.ndarray
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
    popular = base.popular
    for row in range(len(shares)):
        mine, network, popularity = shares[row], base.network[row], base.popularity[row]
        for place in range(len(mine)):
            mine[place] = mine[place] * network + popular[place] * popularity
        for at in range(columns.bounds[row], columns.bounds[row + 1]):
            mine[columns.seen[at]] = -np.inf
        codes = met.codes[row, : met.used[row]]
        if covisits.weight > 0:
            count = _near(codes, neighbours, covisits, scratch)
            if _add(mine, columns.of, covisits, scratch, count):
                spoken[row] += covisits.weight
        if own.weight > 0:
            count = _met(codes, own, scratch)
            if _add(mine, columns.of, own, scratch, count):
                spoken[row] += own.weight


@njit(cache=True)
def _near(codes: np.ndarray, neighbours: Neighbours, voice: Voice, scratch: Scratch) -> int:
    """Sums of closeness to the last events; how many items have one."""
    count = 0
    for age in range(min(len(codes), voice.last)):
        code = codes[len(codes) - 1 - age]
        if code < 0:
            continue
        weight = np.float32(voice.decay**age)
        for at in range(neighbours.starts[code], neighbours.starts[code + 1]):
            count = _sum(scratch, neighbours.places[at], weight * neighbours.closeness[at], count)
    return count


@njit(cache=True)
def _met(codes: np.ndarray, voice: Voice, scratch: Scratch) -> int:
    """Sums of what the last events count, by their item; how many items have one."""
    count = 0
    for age in range(min(len(codes), voice.last)):
        code = codes[len(codes) - 1 - age]
        if code >= 0:
            count = _sum(scratch, code, np.float32(voice.decay**age), count)
    return count


@njit(cache=True)
def _sum(scratch: Scratch, item: int, value: np.float32, count: int) -> int:
    if value <= 0:  # so small that it is nothing
        return count
    if scratch.sums[item] == 0:
        scratch.touched[count] = item
        count += 1
    scratch.sums[item] += value
    return count


@njit(cache=True)
def _add(mine: np.ndarray, column: np.ndarray, voice: Voice, scratch: Scratch, count: int) -> bool:
    """Add the flattened shares among what may be shown, and leave the scratch empty; whether there are any."""
    total = 0.0
    for at in range(count):
        item = scratch.touched[at]
        value = scratch.sums[item]
        scratch.sums[item] = 0
        place = column[item] if len(column) else item
        if place < 0 or mine[place] == -np.inf:
            scratch.touched[at] = -1
            continue
        for _ in range(voice.roots):
            value = np.sqrt(value)
        scratch.sums[item] = value
        total += value
    for at in range(count):
        item = scratch.touched[at]
        if item >= 0:
            place = column[item] if len(column) else item
            mine[place] += np.float32(voice.weight * scratch.sums[item] / total)
            scratch.sums[item] = 0
    return total > 0
