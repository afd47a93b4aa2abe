"""Augmentation: training windows are changed a little each time that they are read. An option that is off by default.

After CL4SRec (Xie et al. 2022), for supervised training: `crop` forgets the oldest events, `mask` makes events unknown
(and so trains the code of what is new when the model serves), `reorder` shuffles a stretch, `substitute` puts items in
place of others that users see beside them. Only the training range is changed, never what a model is judged on.

Functions here are pure: flat sequences and a generator in, places or values out. Shapes: N events of a batch, one
sequence behind the other; W sequences, each at [start, start + length).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from clicktrail.encoding import FIRST, UNKNOWN
from clicktrail.windows import window_positions
from training.batches import Plan
from training.config import AugmentConfig
from training.training_set import TrainingSet

_ITEM = "item_id"
_REACH, _NEIGHBOURS = 3, 10  # co-visits: so many events apart at most; so many kept an item
_BY_QUERY = {"example", "target", "window", "request_ids", "request_numbers"}
_NOTHING, _LEAST = -1, 2  # a shorter sequence is left as it is


# ---- flat sequences


def chosen(lengths: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Which sequences are changed, int64: each with the same probability, those of one event never."""
    return np.flatnonzero((rng.random(len(lengths)) < probability) & (lengths >= _LEAST))


def crop(lengths: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """How many of its oldest events each sequence forgets, int64 [W]: from one up to a share, at least one stays."""
    most = np.clip((lengths * share).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    return np.minimum(rng.integers(1, most + 1), np.maximum(lengths - 1, 0))


def hit(starts: np.ndarray, lengths: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Places of the events that are changed, int64: each event of these sequences with probability `share`."""
    places = window_positions(starts, starts + lengths)
    return places[rng.random(len(places)) < share]


def reorder(
    starts: np.ndarray, lengths: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shuffle a stretch of each sequence, of at least two events.

    Returns:
        `places` and `sources`, int64: what stood at `sources[i]` goes to `places[i]`, stretch by stretch; `last`
        bool: whether a place is the last of its stretch.
    """
    size = np.clip(np.ceil(lengths * share).astype(np.int64), _LEAST, lengths)
    begin = starts + rng.integers(0, lengths - size + 1)
    places = window_positions(begin, begin + size)
    sequence = np.repeat(np.arange(len(size)), size)
    last = np.zeros(len(places), bool)
    last[np.cumsum(size) - 1] = True
    return places, places[np.lexsort((rng.random(len(places)), sequence))], last


def neighbours(items: np.ndarray, starts: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """The items most often seen at most three events before or after each item, int64 [size, 10]; -1 where none is.

    Args:
        items: item of each event, int64 [N], from 0 on; negative: none.
        starts: int64 [W].
        lengths: int64 [W].
        size: number of items.
    """
    places = window_positions(starts, starts + lengths)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    here = items[places]
    pairs = []
    for apart in range(1, _REACH + 1):
        one, other = here[:-apart], here[apart:]
        together = (sequence[:-apart] == sequence[apart:]) & (one >= 0) & (other >= 0) & (one != other)
        pairs += [one[together] * size + other[together], other[together] * size + one[together]]
    code, count = np.unique(np.concatenate(pairs), return_counts=True)
    item, other = code // size, code % size
    order = np.lexsort((other, -count, item))
    item, other = item[order], other[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    out = np.full((size, _NEIGHBOURS), _NOTHING, np.int64)
    near = place < _NEIGHBOURS
    out[item[near], place[near]] = other[near]
    return out


def substitute(items: np.ndarray, near: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A neighbour of each item, drawn evenly among those it has; the item itself where it has none. int64 [n]."""
    known = np.maximum(items, 0)
    there = np.where(items >= 0, (near >= 0).sum(1)[known], 0)
    drawn = near[known, rng.integers(0, np.maximum(there, 1))]
    return np.where(there > 0, drawn, items)


# ---- training batches


def flat_windows(
    batch: Mapping[str, torch.Tensor], plan: Plan, chosen: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Where the windows of a batch stand among its places: by view, first place and length of each, int64.

    `chosen`: the windows of the plan that `Arrays.batch` was asked for.
    """
    out = {}
    for view in plan.starts:
        rows, length = batch[f"{view}__ids"].shape[:2]
        if f"{view}__segment" in batch:
            segment_BL = batch[f"{view}__segment"].cpu().numpy()
            window = (segment_BL + np.arange(rows)[:, None] * (length + 1)).ravel()
            first = np.flatnonzero(np.diff(window, prepend=-1))
            size = np.diff(np.append(first, rows * length))
            real = segment_BL.ravel()[first] > 0
            out[view] = first[real], size[real]
        else:
            these = np.sort(chosen)
            out[view] = np.arange(rows) * length, plan.ends[view][these] - plan.starts[view][these]
    return out


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes the windows of a training set.

    `categories`, `edges`, `request`: by view, as in `SequenceSpec`; `near`: neighbours of items, where they are asked
    for.
    """

    config: AugmentConfig
    categories: Mapping[str, tuple[str, ...]]
    edges: Mapping[str, int]
    near: np.ndarray | None
    request: Mapping[str, bool]

    @classmethod
    def of(cls, config: AugmentConfig, data: TrainingSet, plan: Plan) -> Augmentation | None:
        """What the configuration asks for; None where it asks for nothing.

        Raises:
            ValueError: items are to be substituted in a task whose sequences have none.
        """
        if config.kind == "none":
            return None
        categories = {one.view: one.categories for one in data.encoding.spec.sequences}
        near = None
        if config.kind == "substitute":
            view = next((view for view, names in categories.items() if _ITEM in names), None)
            if view is None:
                message = "augmentation 'substitute' needs a sequence with item_id: choose crop, mask or reorder"
                raise ValueError(message)
            items = data.tokens[view].ids[:, categories[view].index(_ITEM)].astype(np.int64) - FIRST
            starts = plan.starts[view]
            near = neighbours(items, starts, plan.ends[view] - starts, len(data.encoding.vocabularies[_ITEM]))
        return cls(
            config=config,
            categories=categories,
            edges={view: tokens.edge for view, tokens in data.tokens.items()},
            near=near,
            request={one.view: one.request for one in data.encoding.spec.sequences},
        )

    def plan(self, data: TrainingSet, plan: Plan, rng: np.random.Generator) -> Plan:
        """The windows of an epoch: cropped ones begin later, and what was asked before their beginning is not asked."""
        if self.config.kind != "crop":
            return plan
        starts, asked = {}, np.ones(len(plan.example), bool)
        for view, begin in plan.starts.items():
            lengths = plan.ends[view] - begin
            these = chosen(lengths, self.config.probability, rng)
            starts[view] = begin.copy()
            starts[view][these] += crop(lengths[these], self.config.share, rng)
            moved = starts[view] > begin
            asked &= ~moved[plan.window] | (data.tokens[view].ends[plan.example] > starts[view][plan.window])
        return replace(plan, starts=starts, example=plan.example[asked], window=plan.window[asked])

    def batch(
        self,
        batch: dict[str, torch.Tensor],
        windows: Mapping[str, tuple[np.ndarray, np.ndarray]],
        rng: np.random.Generator,
    ) -> dict[str, torch.Tensor]:
        """A batch with changed events.

        A query inside a shuffled stretch would see what it is asked for: it is not asked.

        Args:
            batch: see `Arrays.batch`.
            windows: by view, place of each window's first event among all places of the batch, and its length.
            rng: draws.
        """
        if self.config.kind == "crop":
            return batch
        out = dict(batch)
        for view, (starts, lengths) in windows.items():
            free = lengths - self.request[view]  # the last event may be the request itself: that stands
            these = chosen(free, self.config.probability, rng)
            self._change(out, view, starts[these], free[these], rng)
        return out

    def _change(
        self,
        batch: dict[str, torch.Tensor],
        view: str,
        starts: np.ndarray,
        lengths: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        ids_NC = batch[f"{view}__ids"].flatten(0, 1).clone()
        if self.config.kind == "reorder":
            places, sources, last = reorder(starts, lengths, self.config.share, rng)
            numbers_NF = batch[f"{view}__numbers"].flatten(0, 1).clone()
            own = numbers_NF.shape[1] - self.edges[view]  # what speaks of the event before stays in its place
            ids_NC[places, :-1], numbers_NF[places, :own] = ids_NC[sources, :-1], numbers_NF[sources, :own]
            batch[f"{view}__numbers"] = numbers_NF.view_as(batch[f"{view}__numbers"])
            self._ask_no_more(batch, view, places[~last])
        else:
            places = hit(starts, lengths, self.config.share, rng)
            names = self.categories[view]
            if self.near is None:
                ids_NC[places, : len(names)] = UNKNOWN
            elif _ITEM in names:
                column = names.index(_ITEM)
                items = ids_NC[places, column].cpu().numpy() - FIRST
                ids_NC[places, column] = torch.from_numpy(substitute(items, self.near, rng) + FIRST).to(ids_NC.device)
        batch[f"{view}__ids"] = ids_NC.view_as(batch[f"{view}__ids"])

    @staticmethod
    def _ask_no_more(batch: dict[str, torch.Tensor], view: str, places: np.ndarray) -> None:
        rows, length = batch[f"{view}__ids"].shape[:2]
        inside = np.zeros(rows * length, bool)
        inside[places] = True
        position_Q, row_Q = (batch[f"{view}__{name}"].cpu().numpy() for name in ("position", "row"))
        lost_Q = (position_Q >= 0) & inside[row_Q * length + np.maximum(position_Q, 0)]
        if not lost_Q.any():  # as where each query has a window of its own
            return
        kept = torch.from_numpy(np.flatnonzero(~lost_Q)).to(batch["target"].device)
        for name in [name for name in batch if name in _BY_QUERY or name.endswith(("__row", "__position"))]:
            batch[name] = batch[name].index_select(0, kept)
