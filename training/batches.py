"""Batches: which windows are read, which queries read them, and how little padding that takes.

A window is a range of events that the encoder runs over once; a query reads the state at its own position in it.
Where events are encoded alike for all queries (one shared sequence), a user's queries share windows: one pass over
the user's history trains every position. Elsewhere each query has a window of its own, as in serving.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clicktrail.windows import Tokens, pad
from training.training_set import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Windows by view (`starts`, `ends`: int64 [W]) and queries: `example`, `window` int64 [Q], by rising window."""

    starts: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]
    example: np.ndarray
    window: np.ndarray


def own_windows(data: TrainingSet, examples: np.ndarray) -> Plan:
    """A window for each example: what serving would see."""
    return Plan(
        starts={view: tokens.starts[examples] for view, tokens in data.tokens.items()},
        ends={view: tokens.ends[examples] for view, tokens in data.tokens.items()},
        example=examples,
        window=np.arange(len(examples)),
    )


def shared_windows(data: TrainingSet, examples: np.ndarray, length: int) -> Plan:
    """Windows of at most `length` events over the histories of the one sequence, each read by all queries in it.

    A window starts where the first query in it would start alone, so that this query sees what it would see in
    serving; later ones see more, up to `length`.
    """
    (view,) = data.tokens
    tokens = data.tokens[view]
    order = examples[np.lexsort((tokens.ends[examples], data.entity[examples]))]
    starts, ends, entity = tokens.starts[order], tokens.ends[order], data.entity[order]
    window = np.empty(len(order), np.int64)
    opened: list[int] = []
    now, limit, who = -1, -1, -1
    for place, (start, end, one) in enumerate(zip(starts.tolist(), ends.tolist(), entity.tolist(), strict=True)):
        if one != who or end > limit or end == start:
            now, limit, who = now + 1, start + length, one
            opened.append(place)
            if end == start:  # nothing known yet: the next query must not continue here
                who = -1
        window[place] = now
    first = np.array(opened, np.int64)
    last = np.append(first[1:], len(order)) - 1 if len(first) else first
    return Plan(starts={view: starts[first]}, ends={view: ends[last]}, example=order, window=window)


def plan(data: TrainingSet, examples: np.ndarray, *, share: bool) -> Plan:
    """The plan for these examples; windows are shared where `share` and the data allow it."""
    specs = data.encoding.spec.sequences
    if share and len(specs) == 1 and specs[0].shared:
        return shared_windows(data, examples, 2 * specs[0].last)
    return own_windows(data, examples)


def batches(
    data: TrainingSet, plan: Plan, *, tokens: int, rows: int, rng: np.random.Generator | None
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of about equal work: windows of like length together, at most `tokens` padded events and `rows` queries.

    With `rng` the order is shuffled anew (lengths jittered, so that the same windows do not always meet).

    Yields:
        Model inputs (see `SequenceModel.forward`), `example` [Q], `target` int64 [Q].
    """
    for chosen in batch_windows(plan, tokens=tokens, rows=rows, rng=rng):
        yield gather(data, plan, chosen)


def batch_windows(plan: Plan, *, tokens: int, rows: int, rng: np.random.Generator | None) -> list[np.ndarray]:
    """Which windows stand in which batch."""
    lengths = np.stack([plan.ends[view] - plan.starts[view] for view in plan.starts])
    work = lengths.sum(0)
    queries = np.bincount(plan.window, minlength=len(work))
    jitter = 1.0 if rng is None else rng.uniform(0.9, 1.1, len(work))
    order = np.argsort(work * jitter, kind="stable")
    groups: list[np.ndarray] = []
    begin, longest, asked = 0, np.zeros(len(lengths), np.int64), 0
    for place, one in enumerate(order.tolist()):
        grown = np.maximum(longest, lengths[:, one])
        size = place - begin + 1
        if place > begin and (size * max(1, int(grown.sum())) > tokens or asked + queries[one] > rows):
            groups.append(order[begin:place])
            begin, grown, asked = place, lengths[:, one], 0
        longest, asked = grown, asked + int(queries[one])
    if len(order):
        groups.append(order[begin:])
    if rng is not None:
        groups = [groups[place] for place in rng.permutation(len(groups))]
    return groups


def gather(data: TrainingSet, plan: Plan, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of these windows and their queries."""
    chosen = np.sort(chosen)
    low, high = np.searchsorted(plan.window, chosen), np.searchsorted(plan.window, chosen, side="right")
    count = high - low
    query = np.arange(int(count.sum())) + np.repeat(low - (np.cumsum(count) - count), count)
    row = np.repeat(np.arange(len(chosen)), count)
    example = plan.example[query]
    out: dict[str, np.ndarray] = {"window": row, "example": example}
    for view, tokens in data.tokens.items():
        starts, ends = plan.starts[view][chosen], plan.ends[view][chosen]
        longest = max(1, int((ends - starts).max(initial=0)))
        out[f"{view}__ids"], out[f"{view}__numbers"] = pad(tokens, starts, ends, longest)
        out[f"{view}__position"] = position(tokens, example, starts[row])
    out["request_ids"], out["request_numbers"] = (
        data.request_ids[example].astype(np.int64),
        data.request_numbers[example],
    )
    out["target"] = data.target[example]
    return out


def position(tokens: Tokens, example: np.ndarray, window_start: np.ndarray) -> np.ndarray:
    """Position of each query's last event in its window, -1 where nothing is known, int64 [Q]."""
    ends = tokens.ends[example]
    return np.where(ends > tokens.starts[example], ends - window_start - 1, -1)
