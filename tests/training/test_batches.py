"""Batches: every example exactly once, within the budget, and the same order for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training.batches import batch_windows, batches, own_windows, plan, shared_windows
from training.training_set import TRAIN, TrainingSet

Sets = Callable[[str], TrainingSet]


@pytest.mark.parametrize("task", ["recommendation", "retention", "fraud"])
def test_every_example_once(task: str, synthetic: Sets) -> None:
    """An epoch asks every training example exactly once, however windows are shared."""
    data = synthetic(task)
    examples = data.of(TRAIN)
    seen = [
        batch["example"]
        for batch in batches(
            data, plan(data, examples, share=True), tokens=2_000, rows=100, rng=np.random.default_rng(3)
        )
    ]
    assert np.sort(np.concatenate(seen)).tolist() == examples.tolist()


def test_budget_is_kept(synthetic: Sets) -> None:
    """A batch has at most the given number of padded events, unless one window alone has more."""
    data = synthetic("fraud")
    chosen = own_windows(data, data.of(TRAIN))
    for batch in batches(data, chosen, tokens=500, rows=10_000, rng=None):
        size = sum(array.shape[0] * array.shape[1] for name, array in batch.items() if name.endswith("__ids"))
        assert size <= 500 or len(batch["example"]) == 1


def test_order_depends_on_the_seed_alone(synthetic: Sets) -> None:
    """The same seed gives the same batches, another seed others."""
    data = synthetic("fraud")
    chosen = own_windows(data, data.of(TRAIN))

    def groups(seed: int) -> list[list[int]]:
        found = batch_windows(chosen, tokens=900, rows=100, rng=np.random.default_rng(seed))
        return [one.tolist() for one in found]

    assert groups(1) == groups(1)
    assert groups(1) != groups(2)


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
