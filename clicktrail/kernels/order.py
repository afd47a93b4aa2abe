"""Putting rows in order: by group in linear time, then within each group by rising keys."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def group(codes: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of rows by group, in their old order within it; codes outside 0..groups-1 are left out.

    Args:
        codes: int32 or int64 [rows].
        groups: how many.

    Returns:
        Where each group begins, int64 [groups + 1], and positions, uint32 [rows kept].
    """
    starts = np.zeros(groups + 1, np.int64)
    for code in codes:
        if 0 <= code < groups:
            starts[code + 1] += 1
    for one in range(groups):
        starts[one + 1] += starts[one]
    free = starts[:-1].copy()
    order = np.empty(starts[groups], np.uint32)
    for position in range(len(codes)):
        code = codes[position]
        if 0 <= code < groups:
            order[free[code]] = position
            free[code] += 1
    return starts, order


@njit(cache=True)
def _before(a: int, b: int, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether row a comes strictly before row b."""
    return first[a] < first[b] or (first[a] == first[b] and second[a] < second[b])


@njit(cache=True)
def sort_within(starts: np.ndarray, order: np.ndarray, first: np.ndarray, second: np.ndarray) -> int:
    """Sort each group's positions by two keys, in place; rows that are in order already cost one pass.

    A merge sort that starts from the rising runs that are there: events arrive nearly in order. It is stable.

    Args:
        starts: int64 [groups + 1], as `group` gives it.
        order: uint32 [rows], positions by group; sorted in place.
        first: leading key, int64 by position.
        second: key of rows equal in the first.

    Returns:
        How many neighbours are equal in both keys.
    """
    longest = 0
    for one in range(len(starts) - 1):
        longest = max(longest, starts[one + 1] - starts[one])
    aside = np.empty(longest, order.dtype)
    runs = np.empty(longest + 1, np.int64)
    equal = 0
    for one in range(len(starts) - 1):
        begin, end = starts[one], starts[one + 1]
        n_runs = 0
        for at in range(begin, end):
            if at == begin or _before(order[at], order[at - 1], first, second):
                runs[n_runs] = at
                n_runs += 1
        while n_runs > 1:
            runs[n_runs] = end
            kept = 0
            for pair in range(0, n_runs, 2):
                low = runs[pair]
                if pair + 1 < n_runs:
                    _merge(order, low, runs[pair + 1], runs[pair + 2], aside, first, second)
                runs[kept] = low
                kept += 1
            n_runs = kept
        for at in range(begin + 1, end):
            if first[order[at]] == first[order[at - 1]] and second[order[at]] == second[order[at - 1]]:
                equal += 1
    return equal


@njit(cache=True)
def _merge(
    order: np.ndarray, low: int, middle: int, high: int, aside: np.ndarray, first: np.ndarray, second: np.ndarray
) -> None:
    """Merge the sorted order[low:middle] and order[middle:high]; `aside` is scratch."""
    for at in range(low, middle):
        aside[at - low] = order[at]
    left, right = 0, middle
    for at in range(low, high):
        if left == middle - low:
            break  # the rest of the right run is in its place
        if right < high and _before(order[right], aside[left], first, second):
            order[at] = order[right]
            right += 1
        else:
            order[at] = aside[left]
            left += 1


@njit(cache=True)
def ties(starts: np.ndarray, order: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in a sorted `order` whose neighbour in the group is equal in both keys, and a number for each such set.

    Returns:
        Places, rising, and the number of each place's set, rising too; both int64 [places].
    """
    places, numbers = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    found, sets = 0, 0
    for one in range(len(starts) - 1):
        at = starts[one]
        while at < starts[one + 1]:
            end = at + 1
            while (
                end < starts[one + 1]
                and first[order[end]] == first[order[at]]
                and second[order[end]] == second[order[at]]
            ):
                end += 1
            if end - at > 1:
                for place in range(at, end):
                    places[found] = place
                    numbers[found] = sets
                    found += 1
                sets += 1
            at = end
    return places[:found].copy(), numbers[:found].copy()


@njit(cache=True)
def group_bounds(sorted_codes: np.ndarray) -> np.ndarray:
    """Where runs of equal codes begin, and the end: int64 [runs + 1]."""
    bounds = np.empty(len(sorted_codes) + 1, np.int64)
    runs = 0
    for at in range(len(sorted_codes)):
        if at == 0 or sorted_codes[at] != sorted_codes[at - 1]:
            bounds[runs] = at
            runs += 1
    bounds[runs] = len(sorted_codes)
    return bounds[: runs + 1].copy()
