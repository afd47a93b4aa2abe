"""Aggregates over windows that slide: each event is in the window of a run of its entity's rows.

Rows are sorted by entity, then time, and numbered through. For one event the rows that see it in their
window are a range enter <= row < leave, because visibility only begins and a window's left edge only
moves on. From these ranges every aggregate follows in one pass over events and rows, whatever the
length of the window. Shapes: E events, R rows, G groups (entities that have rows): group g has the rows
bounds[g]..bounds[g + 1], and low[g]..high[g] are the positions of the events that any of them may see.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from clicktrail.kernels.slices import first_not_before

NOTHING = np.iinfo(np.int64).min
"""Stands for null where a value may be any other integer."""


@njit(cache=True)
def edge(t: int, reach: int, hop: int) -> int:
    """Left edge of the window at t: t - reach, rounded down to a multiple of `hop` where there is one."""
    return t - reach if hop == 0 else (t - reach) // hop * hop


@njit(cache=True)
def ranges(
    starts: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    entities: np.ndarray,
    bounds: np.ndarray,
    t: np.ndarray,
    window: int,
    delay: int,
    hop: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows that have each event in their window: known < t and left(t) <= event < t - delay.

    Args:
        starts: where each entity's events begin, int64.
        known: known_at, rising within an entity, int64 [E].
        event: event time, int64 [E].
        entities: int64 [G].
        bounds: int64 [G + 1].
        t: read times, rising within a group, int64 [R].
        window: its length; negative: no left edge.
        delay: it ends so long before t.
        hop: its left edge is a multiple of this; 0: exact.

    Returns:
        low, high: int64 [G], and enter, leave: int64 [E], defined at these positions alone; enter = leave for an
        event that no row sees. Where `delay` is 0, enter rises with the position.
    """
    enter, leave = np.empty(len(known), np.int64), np.empty(len(known), np.int64)
    lows, highs = np.empty(len(entities), np.int64), np.empty(len(entities), np.int64)
    for one in range(len(entities)):
        begin, end = bounds[one], bounds[one + 1]
        low, high = starts[entities[one]], starts[entities[one] + 1]
        high = first_not_before(known, low, high, t[end - 1])
        if window >= 0:  # what became known before the first left edge happened before it
            low = first_not_before(known, low, high, edge(t[begin], window + delay, hop))
        lows[one], highs[one] = low, high
        for at in range(low, high):
            seen = max(known[at], event[at] + delay)
            first, last = begin, end
            while first < last:
                middle = (first + last) >> 1
                if t[middle] > seen:
                    last = middle
                else:
                    first = middle + 1
            enter[at] = first
            last = end
            if window < 0:
                first = end
            while first < last:
                middle = (first + last) >> 1
                if edge(t[middle], window + delay, hop) > event[at]:
                    last = middle
                else:
                    first = middle + 1
            leave[at] = first
    return lows, highs, enter, leave


@njit(cache=True)
def sums(
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    weight: np.ndarray,
    rows: int,
) -> np.ndarray:
    """Sum of the weights (int64 [E]) in each row's window, int64 [R], modulo 2^64."""
    steps = np.zeros(rows + 1, np.int64)
    for one in range(len(lows)):
        for at in range(lows[one], highs[one]):
            if enter[at] < leave[at]:
                steps[enter[at]] += weight[at]
                steps[leave[at]] -= weight[at]
    return np.cumsum(steps[:rows])


@njit(cache=True)
def distinct(
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    codes: np.ndarray,
    values: int,
    rows: int,
) -> np.ndarray:
    """How many different codes (int64 [E], -1 none, below `values`) are in each row's window, int64 [R].

    Events come by rising `enter`, so the rows in which a value occurs are known up to `covered`.
    """
    steps = np.zeros(rows + 1, np.int64)
    covered = np.zeros(values, np.int64)
    for one in range(len(lows)):
        for at in range(lows[one], highs[one]):
            code = codes[at]
            if code < 0 or enter[at] >= leave[at]:
                continue
            begin = max(enter[at], covered[code])
            if begin < leave[at]:
                steps[begin] += 1
                steps[leave[at]] -= 1
                covered[code] = leave[at]
    return np.cumsum(steps[:rows])


@njit(cache=True)
def largest(
    bounds: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:
    """Largest value (int64 [E], where `present`) in each row's window, int64 [R]; NOTHING where there is none.

    A heap by value; what has left the window is dropped when it comes to the top. An entity that is read once, as
    online, needs none.
    """
    out = np.full(bounds[-1], NOTHING, np.int64)
    heap = np.empty(64, np.int64)
    for one in range(len(lows)):
        at, end = lows[one], highs[one]
        if bounds[one + 1] - bounds[one] == 1:
            row = bounds[one]
            for place in range(at, end):
                if present[place] and enter[place] <= row < leave[place] and values[place] > out[row]:
                    out[row] = values[place]
            continue
        if len(heap) < end - at:
            heap = np.empty(2 * (end - at), np.int64)
        size = 0
        for row in range(bounds[one], bounds[one + 1]):
            while at < end and enter[at] <= row:
                if present[at] and leave[at] > row:
                    place = size
                    size += 1
                    while place > 0 and values[heap[(place - 1) >> 1]] < values[at]:
                        heap[place] = heap[(place - 1) >> 1]
                        place = (place - 1) >> 1
                    heap[place] = at
                at += 1
            while size > 0 and leave[heap[0]] <= row:
                size -= 1
                moved = heap[size]
                place = 0
                while True:
                    child = 2 * place + 1
                    if child >= size:
                        break
                    if child + 1 < size and values[heap[child + 1]] > values[heap[child]]:
                        child += 1
                    if values[heap[child]] <= values[moved]:
                        break
                    heap[place] = heap[child]
                    place = child
                heap[place] = moved
            if size > 0:
                out[row] = values[heap[0]]
    return out


@njit(cache=True)
def first_or_last(
    bounds: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    present: np.ndarray,
    want_last: bool,
) -> np.ndarray:
    """Position of the first or last event with a value in each row's window, int64 [R], -1 where there is none.

    A queue of what entered; what has left the window is dropped when it comes to the end that is asked for.
    """
    out = np.full(bounds[-1], -1, np.int64)
    queue = np.empty(64, np.int64)
    for one in range(len(lows)):
        at, end = lows[one], highs[one]
        if len(queue) < end - at:
            queue = np.empty(2 * (end - at), np.int64)
        head, tail = 0, 0
        for row in range(bounds[one], bounds[one + 1]):
            while at < end and enter[at] <= row:
                if present[at] and leave[at] > row:
                    queue[tail] = at
                    tail += 1
                at += 1
            if want_last:
                while tail > head and leave[queue[tail - 1]] <= row:
                    tail -= 1
                if tail > head:
                    out[row] = queue[tail - 1]
            else:
                while tail > head and leave[queue[head]] <= row:
                    head += 1
                if tail > head:
                    out[row] = queue[head]
    return out


@njit(cache=True)
def newest_event(
    bounds: np.ndarray, lows: np.ndarray, highs: np.ndarray, enter: np.ndarray, event: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Largest event time of the members (bool [E]) that each row sees; int64 [R], NOTHING where there is none."""
    out = np.full(bounds[-1], NOTHING, np.int64)
    for one in range(len(lows)):
        at, end = lows[one], highs[one]
        newest = NOTHING
        for row in range(bounds[one], bounds[one + 1]):
            while at < end and enter[at] <= row:
                if member[at]:
                    newest = max(newest, event[at])
                at += 1
            out[row] = newest
    return out


@njit(cache=True)
def top(
    bounds: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    known: np.ndarray,
    event: np.ndarray,
    codes: np.ndarray,
    rank: np.ndarray,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The k most frequent codes of each row's window; of equals the one seen last, then the smaller rank.

    Args:
        bounds: [G + 1].
        lows: [G].
        highs: [G].
        enter: [E].
        leave: [E].
        known: known_at, [E].
        event: event time, [E].
        codes: int64 [E], -1 none.
        rank: order of the values, int64 by code.
        k: how many.

    Returns:
        Codes int64 [R, k], and how many of them are there, int64 [R].
    """
    rows, values = bounds[-1], len(rank)
    out, found = np.empty((rows, k), np.int64), np.zeros(rows, np.int64)
    count = np.zeros(values, np.int64)
    place = np.empty(values, np.int64)  # of a value among the active ones
    active = np.empty(values, np.int64)
    newest = np.full(values, -1, np.int64)  # newest event of a value; what has left is skipped by `before`
    before = np.empty(len(codes), np.int64)  # the event of the same value that entered before this one
    leaving = np.full(rows + 1, -1, np.int64)  # first event that leaves at a row; the others by `next_leaving`
    next_leaving = np.empty(len(codes), np.int64)
    for one in range(len(lows)):
        at, end, n_active = lows[one], highs[one], 0
        for row in range(bounds[one], bounds[one + 1]):
            while at < end and enter[at] <= row:
                code = codes[at]
                if code >= 0 and leave[at] > row:
                    if count[code] == 0:
                        place[code] = n_active
                        active[n_active] = code
                        n_active += 1
                        newest[code] = -1
                    count[code] += 1
                    before[at] = newest[code]
                    newest[code] = at
                    next_leaving[at] = leaving[leave[at]]
                    leaving[leave[at]] = at
                at += 1
            gone = leaving[row]
            while gone >= 0:
                code = codes[gone]
                count[code] -= 1
                if count[code] == 0:
                    n_active -= 1
                    moved = active[n_active]
                    active[place[code]] = moved
                    place[moved] = place[code]
                gone = next_leaving[gone]
            for one_active in range(n_active):
                code = active[one_active]
                while leave[newest[code]] <= row:
                    newest[code] = before[newest[code]]
                spot = found[row]
                while spot > 0 and _leads(code, out[row, spot - 1], count, newest, known, event, rank):
                    if spot < k:
                        out[row, spot] = out[row, spot - 1]
                    spot -= 1
                if spot < k:
                    out[row, spot] = code
                    found[row] = min(found[row] + 1, k)
        # rows of the next entity begin where this one's ended: nothing may leave there any more
        leaving[bounds[one + 1]] = -1
        for one_active in range(n_active):
            count[active[one_active]] = 0
    return out, found


@njit(cache=True)
def _leads(
    a: int, b: int, count: np.ndarray, newest: np.ndarray, known: np.ndarray, event: np.ndarray, rank: np.ndarray
) -> bool:
    if count[a] != count[b]:
        return count[a] > count[b]
    if known[newest[a]] != known[newest[b]]:
        return known[newest[a]] > known[newest[b]]
    if event[newest[a]] != event[newest[b]]:
        return event[newest[a]] > event[newest[b]]
    return rank[a] < rank[b]


@njit(cache=True)
def squared_gaps(
    starts: np.ndarray,
    entities: np.ndarray,
    bounds: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    enter: np.ndarray,
    leave: np.ndarray,
    member: np.ndarray,
    moment: np.ndarray,
    by_moment: np.ndarray,
) -> np.ndarray:
    """Sum of the squared gaps between neighbours by `moment` in each row's window, int64 [R].

    Args:
        starts: where each entity's events begin.
        entities: [G].
        bounds: [G + 1].
        lows: [G].
        highs: [G].
        enter: [E].
        leave: [E].
        member: whether an event counts, bool [E].
        moment: event time in whole seconds, int64 [E].
        by_moment: positions that sort each entity's events by event time, int64 [E].
    """
    rows = bounds[-1]
    out = np.zeros(rows, np.int64)
    spot = np.empty(len(moment), np.int64)  # place of an event in the order of event times
    inside = np.zeros(len(moment), np.bool_)  # by place
    for one in range(len(lows)):
        at, end = lows[one], highs[one]
        begin, stop = starts[entities[one]], starts[entities[one] + 1]
        for place in range(begin, stop):
            spot[by_moment[place]] = place
        oldest, beyond, total = begin, begin, np.int64(0)
        for row in range(bounds[one], bounds[one + 1]):
            while at < end and enter[at] <= row:
                if member[at] and leave[at] > row:
                    beyond = max(beyond, spot[at] + 1)
                    total += _gained(spot[at], oldest, beyond, inside, moment, by_moment)
                    inside[spot[at]] = True
                at += 1
            while oldest < beyond:
                gone = by_moment[oldest]
                if member[gone] and lows[one] <= gone < end and leave[gone] > row and leave[gone] > enter[gone]:
                    break
                if inside[oldest]:
                    inside[oldest] = False
                    total -= _gained(oldest, oldest, beyond, inside, moment, by_moment)
                oldest += 1
            out[row] = total
        inside[begin:stop] = False
    return out


@njit(cache=True)
def _gained(
    place: int, oldest: int, beyond: int, inside: np.ndarray, moment: np.ndarray, by_moment: np.ndarray
) -> np.int64:
    """What the squared gaps gain by the event at `place` between its neighbours in oldest..beyond."""
    low, high = place - 1, place + 1
    while low >= oldest and not inside[low]:
        low -= 1
    while high < beyond and not inside[high]:
        high += 1
    here = moment[by_moment[place]]
    gained = np.int64(0)
    if low >= oldest:
        gained += (here - moment[by_moment[low]]) ** 2
    if high < beyond:
        gained += (moment[by_moment[high]] - here) ** 2
    if low >= oldest and high < beyond:
        gained -= (moment[by_moment[high]] - moment[by_moment[low]]) ** 2
    return gained
