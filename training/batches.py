"""Batches: which windows are read, which queries read them, and how little padding that takes.

A window is a range of events that the encoder runs over once; a query reads the state at its own position in it.
Where events are encoded alike for all queries (one shared sequence), a user's queries share windows: one pass over
the user's history trains every position. Elsewhere each query has a window of its own, as in serving.

Shapes: W windows, Q queries, V views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numba import njit

from clicktrail.windows import window_positions
from training.packing import Layout, one_a_row, pack, places, row_length
from training.training_set import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Windows by view (`starts`, `ends`: int64 [W]) and queries: `example`, `window` int64 [Q], by rising window."""

    starts: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]
    example: np.ndarray
    window: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """Events of each window, int64 [V, W]."""
        return np.stack([self.ends[view] - self.starts[view] for view in self.starts])

    @cached_property
    def first(self) -> np.ndarray:
        """The first query of each window, and after the last window their number, int64 [W + 1]."""
        return np.searchsorted(self.window, np.arange(self.lengths.shape[1] + 1))

    @property
    def queries(self) -> np.ndarray:
        """Queries of each window, int64 [W]."""
        return np.diff(self.first)


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
    starts, ends = tokens.starts[order], tokens.ends[order]
    window = _window_of(starts, ends, data.entity[order], length)
    first = np.flatnonzero(np.diff(window, prepend=-1))
    last = np.append(first[1:], len(order)) - 1 if len(first) else first
    return Plan(starts={view: starts[first]}, ends={view: ends[last]}, example=order, window=window)


def plan(data: TrainingSet, examples: np.ndarray, *, share: bool) -> Plan:
    """The plan for these examples; windows are shared where `share` and the data allow it."""
    specs = data.encoding.spec.sequences
    if share and len(specs) == 1 and specs[0].shared:
        return shared_windows(data, examples, 2 * specs[0].last)
    return own_windows(data, examples)


# ---- which windows stand in which batch


def like_windows(plan: Plan, *, tokens: int, rows: int, rng: np.random.Generator | None) -> list[np.ndarray]:
    """Batches of windows of like length: at most `tokens` events, padding included, and `rows` queries.

    With `rng` the order is shuffled anew (lengths jittered, so that the same windows do not always meet).
    """
    work = plan.lengths.sum(0)
    jitter = 1.0 if rng is None else rng.uniform(0.9, 1.1, len(work))
    order = np.argsort(work * jitter, kind="stable")
    batch = _cut(plan.lengths[:, order], plan.queries[order], tokens, rows)
    groups = _grouped(order, batch)
    return groups if rng is None else [groups[place] for place in rng.permutation(len(groups))]


def mixed_windows(plan: Plan, *, tokens: int, rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of windows in random company, to be packed: all of about `tokens` events and `rows` queries at most."""
    order = rng.permutation(plan.lengths.shape[1])
    work = np.maximum(plan.lengths.sum(0)[order], 1)
    done = np.cumsum(work)
    if not len(order):
        return []
    count = max(1, round(done[-1] / tokens), -(-int(plan.queries.sum()) // rows))
    return _grouped(order, (2 * done - work) * count // (2 * done[-1]))


def row_lengths(plan: Plan, groups: list[np.ndarray]) -> dict[str, int]:
    """By view, how long the rows should be that such batches of windows are packed into."""
    lengths = dict(zip(plan.starts, plan.lengths, strict=True))
    return {
        view: row_length([of_view[group] for group in groups[:20]], int(of_view.max(initial=1)))
        for view, of_view in lengths.items()
    }


# ---- what stands in a batch


class Arrays:
    """The arrays of a training set as tensors on one device, from which batches are gathered by index."""

    def __init__(self, data: TrainingSet, device: torch.device | str = "cpu") -> None:
        """Copies them once; one more event, of zeros, is what stands at padding."""
        self.device = torch.device(device)
        self.tokens = data.tokens
        self.ids = {view: self._and_nothing(tokens.ids) for view, tokens in data.tokens.items()}
        self.numbers = {view: self._and_nothing(tokens.numbers) for view, tokens in data.tokens.items()}
        self.request_ids = torch.tensor(data.request_ids, device=self.device)
        self.request_numbers = torch.tensor(data.request_numbers, device=self.device)
        self.target = torch.tensor(data.target, device=self.device)

    def batch(self, plan: Plan, chosen: np.ndarray, rows: Mapping[str, int] | None = None) -> dict[str, torch.Tensor]:
        """These windows and their queries.

        Args:
            plan: has the windows.
            chosen: which of them, int64.
            rows: by view, the length of the rows that they are packed into; None for one window a row, padded.

        Returns:
            Model inputs (see `SequenceModel.forward`), `example`, `target` and `window`, int64 [Q]: queries of a
            window have its number and follow one another.
        """
        chosen = np.sort(chosen)
        low, high = plan.first[chosen], plan.first[chosen + 1]
        example = plan.example[window_positions(low, high)]
        window = np.repeat(np.arange(len(chosen)), high - low)
        out: dict[str, torch.Tensor] = {}
        for view, tokens in self.tokens.items():
            starts = plan.starts[view][chosen]
            lengths = plan.ends[view][chosen] - starts
            layout = one_a_row(lengths) if rows is None else pack(lengths, rows[view])
            out |= self._events(view, starts, lengths, layout, packed=rows is not None)
            out[f"{view}__row"] = self._there(layout.row[window])
            place = layout.offset[window] + tokens.ends[example] - starts[window] - 1
            out[f"{view}__position"] = self._there(np.where(tokens.ends[example] > tokens.starts[example], place, -1))
        asked = self._there(example)
        out["request_ids"] = self.request_ids[asked].long()
        out["request_numbers"] = self.request_numbers[asked]
        return out | {"example": asked, "window": self._there(window), "target": self.target[asked]}

    def _events(
        self, view: str, starts: np.ndarray, lengths: np.ndarray, layout: Layout, *, packed: bool
    ) -> dict[str, torch.Tensor]:
        """Encoded events in their places; what a window's first says of the one before is null: that is not here."""
        nothing = len(self.ids[view]) - 1
        position_BL, segment_BL = places(starts, lengths, layout, nothing)
        shape = position_BL.shape
        wanted = self._there(position_BL.ravel())
        ids, numbers = self.ids[view].index_select(0, wanted).long(), self.numbers[view].index_select(0, wanted)
        first = self._there((layout.row * layout.length + layout.offset)[lengths > 0])
        ids[:, -1].index_fill_(0, first, 0)
        numbers[:, -self.tokens[view].edge :].index_fill_(0, first, 0)
        out = {f"{view}__ids": ids.view(*shape, -1), f"{view}__numbers": numbers.view(*shape, -1)}
        return out | ({f"{view}__segment": self._there(segment_BL)} if packed else {})

    def _there(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _and_nothing(self, array: np.ndarray) -> torch.Tensor:
        there = torch.zeros((len(array) + 1, *array.shape[1:]), dtype=torch.from_numpy(array[:0].copy()).dtype)
        there[:-1] = torch.from_numpy(array)
        return there.to(self.device)


def batches(arrays: Arrays, plan: Plan, *, tokens: int, rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """All windows of a plan, padded, those of like length together: at most `tokens` events and `rows` queries each.

    Yields:
        See `Arrays.batch`.
    """
    for chosen in like_windows(plan, tokens=tokens, rows=rows, rng=None):
        yield arrays.batch(plan, chosen)


def _grouped(order: np.ndarray, batch: np.ndarray) -> list[np.ndarray]:
    """`order` cut where the rising number of the batch, int64 [W], changes."""
    return np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(order) else []


@njit(cache=True)
def _window_of(starts: np.ndarray, ends: np.ndarray, entity: np.ndarray, length: int) -> np.ndarray:
    window = np.empty(len(starts), np.int64)
    now, limit, who = -1, -1, -1
    for place in range(len(starts)):
        if entity[place] != who or ends[place] > limit or ends[place] == starts[place]:
            now, limit = now + 1, starts[place] + length
            # nothing known yet: the next query must not continue here
            who = entity[place] if ends[place] > starts[place] else -1
        window[place] = now
    return window


@njit(cache=True)
def _cut(lengths: np.ndarray, queries: np.ndarray, tokens: int, rows: int) -> np.ndarray:
    batch = np.empty(lengths.shape[1], np.int64)
    longest = np.zeros(len(lengths), np.int64)
    now, begin, asked = 0, 0, 0
    for place in range(lengths.shape[1]):
        grown = np.maximum(longest, lengths[:, place])
        work = (place - begin + 1) * max(1, grown.sum())
        if place > begin and (work > tokens or asked + queries[place] > rows):
            now, begin, asked, grown = now + 1, place, 0, lengths[:, place].copy()
        longest, asked = grown, asked + queries[place]
        batch[place] = now
    return batch
