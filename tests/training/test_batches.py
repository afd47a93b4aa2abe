"""Batches: every example exactly once, within the budget, and the same order for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clicktrail.windows import pad
from training.batches import (
    Arrays,
    batches,
    like_windows,
    mixed_windows,
    own_windows,
    plan,
    row_lengths,
    shared_windows,
)
from training.config import FitConfig
from training.epochs import Share, TrainingEpochs
from training.training_set import TRAIN, TrainingSet

Sets = Callable[[str], TrainingSet]
TASKS = ["recommendation", "retention", "fraud"]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_every_example_once(task: str, *, packed: bool, synthetic: Sets) -> None:
    """An epoch asks every training example exactly once, however windows are shared, packed and dealt out."""
    data = synthetic(task)
    source = TrainingEpochs(data, FitConfig(tokens=2_000, rows=100, packed=packed), seed=3)
    arrays = Arrays(data)
    for world in (1, 2):
        seen = [
            batch["example"]
            for rank in range(world)
            for batch in source.epoch(1, arrays, Share(rank=rank, world=world))
        ]
        assert torch.cat(seen).sort().values.tolist() == data.of(TRAIN).tolist()


def test_padded_batches_keep_their_budget(synthetic: Sets) -> None:
    """A batch has at most the given number of padded events, unless one window alone has more."""
    data = synthetic("fraud")
    for batch in batches(Arrays(data), own_windows(data, data.of(TRAIN)), tokens=500, rows=10_000):
        size = sum(array.shape[0] * array.shape[1] for name, array in batch.items() if name.endswith("__ids"))
        assert size <= 500 or len(batch["example"]) == 1


@pytest.mark.parametrize("task", TASKS)
def test_packed_batches_are_alike_and_full(task: str, synthetic: Sets) -> None:
    """Packed batches have about the tokens that were asked for, and over 90 % of their places are real even here."""
    data = synthetic(task)
    windows = own_windows(data, data.of(TRAIN))
    groups = mixed_windows(windows, tokens=3_000, rows=10_000, rng=np.random.default_rng(0))
    events = [int(windows.lengths[:, group].sum()) for group in groups]
    assert 2_000 < sum(events) / len(events) < 4_000
    assert max(events) - min(events) < 200  # twice the longest window
    rows, arrays = row_lengths(windows, groups), Arrays(data)
    segments = [
        array.flatten()
        for group in groups
        for name, array in arrays.batch(windows, group, rows).items()
        if name.endswith("__segment")
    ]
    assert float((torch.cat(segments) > 0).double().mean()) > 0.9


def test_what_a_query_reads_is_its_own_last_event(synthetic: Sets) -> None:
    """In a packed row a query's position holds the last event of its window, at its start the event before is null."""
    data = synthetic("recommendation")
    (view,) = data.tokens
    tokens = data.tokens[view]
    windows = plan(data, data.of(TRAIN), share=True)
    chosen = np.arange(40)
    batch = Arrays(data).batch(windows, chosen, row_lengths(windows, [chosen]))
    known = batch[f"{view}__position"] >= 0
    row, place = batch[f"{view}__row"][known], batch[f"{view}__position"][known]
    last = tokens.ends[batch["example"][known].numpy()] - 1
    own = windows.starts[view][batch["window"][known].numpy()]
    expected_ids, expected_numbers = tokens.ids[last].copy(), tokens.numbers[last].copy()
    expected_ids[last == own, -1] = 0
    expected_numbers[last == own, -tokens.edge :] = 0
    np.testing.assert_array_equal(batch[f"{view}__ids"][row, place], expected_ids)
    np.testing.assert_array_equal(batch[f"{view}__numbers"][row, place], expected_numbers)
    assert (batch[f"{view}__segment"][row, place] > 0).all()


def test_padded_rows_are_those_of_serving(synthetic: Sets) -> None:
    """Without packing the arrays are what `clicktrail.windows.pad` makes for a service."""
    data = synthetic("fraud")
    windows = own_windows(data, data.of(TRAIN))
    chosen = np.arange(30)
    batch = Arrays(data).batch(windows, chosen)
    for view, tokens in data.tokens.items():
        starts, ends = windows.starts[view][chosen], windows.ends[view][chosen]
        ids, numbers = pad(tokens, starts, ends, int((ends - starts).max()))
        np.testing.assert_array_equal(batch[f"{view}__ids"], ids)
        np.testing.assert_array_equal(batch[f"{view}__numbers"], numbers)


def test_order_depends_on_the_seed_alone(synthetic: Sets) -> None:
    """The same seed gives the same batches, another seed others, and so does another epoch."""
    data = synthetic("fraud")

    def groups(seed: int, epoch: int, *, packed: bool) -> list[list[int]]:
        config = FitConfig(tokens=900, rows=100, packed=packed)
        return [one.tolist() for one in TrainingEpochs(data, config, seed).groups(epoch)]

    for packed in (True, False):
        assert groups(1, 0, packed=packed) == groups(1, 0, packed=packed)
        assert groups(1, 0, packed=packed) != groups(2, 0, packed=packed)
        assert groups(1, 0, packed=packed) != groups(1, 1, packed=packed)


def test_an_epoch_that_is_gone_on_with_has_the_rest(synthetic: Sets) -> None:
    """From batch 2 on, the batches are those that would have come, and the length counts all."""
    data = synthetic("recommendation")
    source, arrays = TrainingEpochs(data, FitConfig(tokens=900), seed=1), Arrays(data)
    whole, rest = source.epoch(4, arrays, Share()), source.epoch(4, arrays, Share(), begin=2)
    assert len(whole) == len(rest) > 3
    left = [batch["example"].tolist() for batch in whole][2:]
    assert [batch["example"].tolist() for batch in rest] == left


def test_shares_weigh_by_their_queries(synthetic: Sets) -> None:
    """The weights of two processes average to 1, each as many times 1 as its share of the queries is of a half."""
    data = synthetic("recommendation")
    source, arrays = TrainingEpochs(data, FitConfig(tokens=900), seed=1), Arrays(data)
    halves = [list(source.epoch(0, arrays, Share(rank=rank, world=2))) for rank in (0, 1)]
    for first, second in zip(*halves, strict=True):
        counts = len(first["example"]), len(second["example"])
        assert float(first["weight"]) == pytest.approx(counts[0] / (sum(counts) / 2))
        assert float(first["weight"] + second["weight"]) == pytest.approx(2)


def test_shared_windows_hold_what_a_query_would_see(synthetic: Sets) -> None:
    """A query's own window lies inside the shared one, unless it starts before the first query's."""
    data = synthetic("recommendation")
    (view,) = data.tokens
    tokens = data.tokens[view]
    chosen = shared_windows(data, data.of(TRAIN), 100)
    start, end = chosen.starts[view][chosen.window], chosen.ends[view][chosen.window]
    assert (start <= tokens.starts[chosen.example]).all()
    assert (tokens.ends[chosen.example] <= end).all()
    assert (chosen.ends[view] - chosen.starts[view] <= 100).all()


def test_windows_of_like_length_stand_together(synthetic: Sets) -> None:
    """Padded batches waste less than a fifth here, where those of random windows waste half."""
    data = synthetic("retention")
    windows = own_windows(data, data.of(TRAIN))
    groups = like_windows(windows, tokens=1_000, rows=10_000, rng=np.random.default_rng(0))
    padded = sum(int(windows.lengths[:, group].max(1).sum()) * len(group) for group in groups)
    assert windows.lengths.sum() / padded > 0.8
