"""The tokens of a sequence view: what a model sees of the events in each row's window.

Shapes: E flat events, R rows, S string fields, N number fields, T tokens, C id columns, F number columns, K edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from clicktrail.kernels import encode_columns as columns


class Events(NamedTuple):
    """Events of one view, and the windows that rows see: row r's is [starts[r]:ends[r]), oldest first.

    `time` int64 [E], microseconds. `codes` int32 [S, E + R]: strings as codes below `values`, -1 null; behind the
    events stands the request of each row. `logs` float64 [N, E + R]: signed logarithms of numbers, nan null, requests
    likewise. `starts`, `ends`, `t` int64 [R]; `t` is when the row asks, microseconds.
    """

    time: np.ndarray
    codes: np.ndarray
    values: int
    logs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    t: np.ndarray


class TokenPlan(NamedTuple):
    """What a token holds: `clicktrail.input_spec.SequenceSpec` as numbers, in the order of its columns.

    `last`: events of a window at most. `categories`: how many of the first string fields are ids. `same`, `seen`: rows
    of `codes`, int64. `visits`: microseconds without an event that part two tokens; negative: each event is a token.
    `means`, `stds` float64 [N]; `edges` float64 [N, K], rising, inf behind the last. `ids`, `numbers`: C and F.
    """

    last: int
    request: bool
    categories: int
    same: np.ndarray
    seen: np.ndarray
    age: bool
    steps: bool
    rise: bool
    visits: int
    means: np.ndarray
    stds: np.ndarray
    edges: np.ndarray
    ids: int
    numbers: int


@njit(cache=True)
def tokens(
    events: Events, plan: TokenPlan, table: np.ndarray, offsets: np.ndarray, padded: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of all rows; what a row's first token says of the one before is 0.

    Args:
        events: the events and windows.
        plan: the columns.
        table: int32, codes of the vocabularies: of code c of category k at offsets[k] + c.
        offsets: int64 [categories].
        padded: whether each row has room for as many tokens as the longest (at least 1), zeros behind its own.

    Returns:
        ids int32 [T, C], numbers float32 [T, F], how many tokens each row has, int64 [R].
    """
    time, starts, ends, request = events.time, events.starts, events.ends, plan.request
    rows = len(starts)
    begins, used = np.maximum(starts, ends - plan.last), np.empty(rows, np.int64)
    room = 0
    for row in range(rows):
        used[row] = ends[row] - begins[row] + request
        room = max(room, used[row])
    at, moment = np.empty(room, np.int64), np.empty(room, np.int64)
    first, end = np.empty(room, np.int64), np.empty(room, np.int64)
    if plan.visits >= 0:
        for row in range(rows):
            _lay_out(time, begins[row], ends[row], request, events.t[row], row, at, moment)
            used[row] = _part(moment[: used[row]], plan.visits, first, end)
    longest = 1
    for row in range(rows):
        longest = max(longest, used[row])
    total = rows * longest if padded else used.sum()
    ids, numbers = np.zeros((total, plan.ids), np.int32), np.zeros((total, plan.numbers), np.float32)
    marks = np.full((len(plan.seen), events.values), -1, np.int64)
    begin = 0
    for row in range(rows):
        size = _lay_out(time, begins[row], ends[row], request, events.t[row], row, at, moment)
        count = _part(moment[:size], plan.visits, first, end)
        _row(
            events,
            plan,
            table,
            offsets,
            row,
            at[:size],
            moment[:size],
            first[:count],
            end[:count],
            marks,
            ids[begin : begin + count],
            numbers[begin : begin + count],
        )
        begin += longest if padded else count
    return ids, numbers, used


# ---- a window: where its events are, and which of them are a token


@njit(cache=True)
def _lay_out(
    time: np.ndarray, begin: int, end: int, request: bool, t: int, row: int, at: np.ndarray, moment: np.ndarray
) -> int:
    """Where each event's strings and numbers stand, and when it was; the request comes last. How many there are."""
    for place in range(end - begin):
        at[place], moment[place] = begin + place, time[begin + place]
    if request:
        at[end - begin], moment[end - begin] = len(time) + row, t
    return end - begin + request


@njit(cache=True)
def _part(moment: np.ndarray, visits: int, first: np.ndarray, end: np.ndarray) -> int:
    """First and last event of each token; how many tokens there are."""
    count = 0
    for place in range(len(moment)):
        if place == 0 or visits < 0 or moment[place] - moment[place - 1] > visits:
            first[count] = place
            count += 1
        end[count - 1] = place
    return count


@njit(cache=True)
def _row(
    events: Events,
    plan: TokenPlan,
    table: np.ndarray,
    offsets: np.ndarray,
    row: int,
    at: np.ndarray,
    moment: np.ndarray,
    first: np.ndarray,
    end: np.ndarray,
    marks: np.ndarray,
    ids: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """One row's tokens, column by column: each use of an array in a tuple costs as much as some events.

    Args:
        events: the events and windows.
        plan: the columns.
        table: see `tokens`.
        offsets: see `tokens`.
        row: which row.
        at: where the events of its window stand, int64 [events].
        moment: when they were, int64 [events].
        first: places of the first event of each token in the window, int64 [T].
        end: places of the last.
        marks: the row that saw a code last, int64 [seen, values].
        ids: int32 [T, C], all 0.
        numbers: float32 [T, F], all 0.
    """
    codes, logs, t = events.codes, events.logs, events.t[row]
    to, put = 0, 0
    for field in range(plan.categories):
        columns.strings(codes[field], at, end, table[offsets[field] :], ids[:, to])
        to += 1
    for field in range(len(plan.means)):
        mean, std, edges = plan.means[field], plan.stds[field], plan.edges[field]
        columns.values(logs[field], at, end, mean, std, edges, ids[:, to], numbers[:, put])
        to, put = to + 1, put + 1
    columns.clock(moment, end, ids[:, to], ids[:, to + 1])
    to += 2
    if plan.age:
        columns.ages(moment, end, t, ids[:, to], numbers[:, put])
        to, put = to + 1, put + 1
    for field in plan.same:
        columns.same(codes[field], at, end, codes[field, len(events.time) + row], numbers[:, put])
        put += 1
    for place, field in enumerate(plan.seen):
        columns.seen(codes[field], at, end, marks[place], row, numbers[:, put])
        put += 1
    if plan.steps:
        put = columns.changes(logs, at, end, numbers, put)
        columns.paces(moment, end, numbers[:, put])
        put += 1
    if plan.visits >= 0:
        if plan.categories:
            columns.strings_before(codes[0], at, first, end, table[offsets[0] :], ids[:, to])
            to += 1
        columns.sizes(first, end, numbers[:, put])
        put += 1
    if plan.rise:
        put = columns.changes(logs, at, end[1:], numbers[1:], put)
        for field in range(plan.categories):
            columns.again(codes[field], at, end, numbers[:, put])
            put += 1
    columns.gaps(moment, first, ids[:, to], numbers[:, put])
