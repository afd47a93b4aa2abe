"""Augmentation: what each change does to a window, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training import augment
from training.batches import Arrays
from training.config import AugmentConfig, FitConfig
from training.config_file import changed
from training.epochs import Share, TrainingEpochs
from training.fit import fit
from training.gpu_check import synthetic_set
from training.presets import preset
from training.training_set import TrainingSet

Sets = Callable[[str], TrainingSet]
SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def flat(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences with a gap of two places between them."""
    array = np.array(lengths, np.int64)
    return np.cumsum(array + 2) - array, array


@given(SHAPES, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_a_crop_leaves_at_least_one_event_and_takes_no_more_than_its_share(
    lengths: list[int], share: float, seed: int
) -> None:
    """From one event (where there are two) up to the share."""
    _, size = flat(lengths)
    gone = augment.crop(size, share, np.random.default_rng(seed))
    assert (gone <= np.maximum(1, share * size)).all()
    assert (gone[size > 1] >= 1).all()
    assert (size - gone >= 1).all()


@given(SHAPES, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_a_shuffle_moves_events_within_one_stretch_of_their_own_sequence(
    lengths: list[int], share: float, seed: int
) -> None:
    """Each stretch is a permutation of itself, of two events or the share, and its last place is marked."""
    starts, size = flat([one + 1 for one in lengths])
    places, sources, last = augment.reorder(starts, size, share, np.random.default_rng(seed))
    sequence = np.searchsorted(starts, places, side="right") - 1
    assert (sequence == np.searchsorted(starts, sources, side="right") - 1).all()
    for one in range(len(starts)):
        own = sequence == one
        assert sorted(sources[own]) == list(range(places[own][0], places[own][-1] + 1)) == places[own].tolist()
        assert own.sum() == max(2, np.ceil(share * size[one]))
        assert last[own].tolist() == [False] * (own.sum() - 1) + [True]


def test_hits_and_choices_are_as_frequent_as_asked() -> None:
    """A quarter of the events of half of the sequences; sequences of one event are never chosen."""
    rng = np.random.default_rng(0)
    starts, size = flat([20] * 4_000 + [1] * 1_000)
    these = augment.chosen(size, 0.5, rng)
    assert these.max() < 4_000
    assert len(these) / 4_000 == pytest.approx(0.5, abs=0.04)
    places = augment.hit(starts[these], size[these], 0.25, rng)
    assert len(places) / size[these].sum() == pytest.approx(0.25, abs=0.01)
    inside = np.searchsorted(starts, places, side="right") - 1
    assert (places < starts[inside] + size[inside]).all()


def test_neighbours_are_what_users_see_within_three_events() -> None:
    """In 0 1 0 1 2, 0 and 1 meet most often, then each meets 2; what another user sees is no neighbour."""
    items = np.array([0, 1, 0, 1, 2, 5, 3])
    near = augment.neighbours(items, np.array([0, 5]), np.array([5, 2]), 6)
    # 0 and 1: at distance 1 three times, at 3 once; 0 and 2: at distance 2; 1 and 2: at 1 and at 3
    assert near[0, :2].tolist() == [1, 2]
    assert near[1, :2].tolist() == [0, 2]
    assert near[3, 0] == 5
    assert near[4].tolist() == [-1] * 10
    out = augment.substitute(np.array([4, -1, 3, 0]), near, np.random.default_rng(0))
    assert out[:3].tolist() == [4, -1, 5]
    assert out[3] in {1, 2}


def test_a_choice_that_makes_no_sense_is_refused() -> None:
    """The error names the choices, or the range."""
    with pytest.raises(ValueError, match="choose one of: none, crop, mask"):
        AugmentConfig(kind="flip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="share between 0 and 1"):
        AugmentConfig(kind="crop", share=1.0)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["mask", "reorder", "substitute"])
def test_training_batches_change_and_nothing_else_does(kind: str, *, packed: bool, synthetic: Sets) -> None:
    """Lengths, positions, gaps and queries stay; some events are changed; the same seed gives the same batch."""
    data = synthetic("recommendation")
    plain, again, changed = (
        next(iter(TrainingEpochs(data, config_of(one, packed=packed), 0).epoch(1, Arrays(data), Share())))
        for one in ("none", kind, kind)
    )
    (view,) = data.tokens
    ids, numbers = f"{view}__ids", f"{view}__numbers"
    assert torch.equal(again[ids], changed[ids])
    moved = (changed[ids] != plain[ids]).any(-1)
    assert 0 < moved.sum() < 0.5 * moved.numel()
    assert torch.equal(changed[ids][..., -1], plain[ids][..., -1]), "the gap to the event before"
    for name in set(plain) - {ids, numbers}:
        assert torch.equal(plain[name], changed[name]), name
    if kind == "reorder":
        assert sorted(plain[ids][moved][:, 0].tolist()) == sorted(changed[ids][moved][:, 0].tolist())
    else:
        assert torch.equal(plain[numbers], changed[numbers])


@pytest.mark.parametrize("packed", [True, False])
def test_no_query_sees_a_later_event_through_a_shuffle(*, packed: bool) -> None:
    """Windows shared by many queries: whoever still asks has seen the same items as before, in whatever order."""
    data = synthetic_set(users=40, events=30, items=50)
    plain, changed = (
        next(iter(TrainingEpochs(data, config_of(one, packed=packed), 0).epoch(0, Arrays(data), Share())))
        for one in ("none", "reorder")
    )
    place_of = {example: place for place, example in enumerate(changed["example"].tolist())}
    assert 0.5 < len(place_of) / len(plain["example"]) < 0.95
    for query, example in enumerate(plain["example"].tolist()):
        if example not in place_of:
            continue
        row, place = plain["history__row"][query], plain["history__position"][query]
        same = place_of[example]
        assert (changed["history__row"][same], changed["history__position"][same]) == (row, place)
        assert changed["target"][same] == data.target[example]
        segment = plain["history__segment"][row] if packed else torch.ones_like(plain["history__ids"][row, :, 0])
        seen = (segment == segment[place]) & (torch.arange(len(segment)) <= place)
        before, now = (batch["history__ids"][row, seen, 0].sort().values for batch in (plain, changed))
        assert torch.equal(before, now)


def test_a_cropped_window_asks_only_what_lies_behind_its_beginning(synthetic: Sets) -> None:
    """Each query that stays reads an event at or behind the new beginning; a window keeps its last query."""
    data = synthetic("recommendation")
    source = TrainingEpochs(data, config_of("crop", packed=True), 0)
    (view,) = data.tokens
    cropped = source.plan_of(3)
    begin = cropped.starts[view][cropped.window]
    moved = cropped.starts[view] > source.plan.starts[view]
    assert 0.3 < moved[source.plan.lengths[0] > 1].mean() < 0.7
    assert (data.tokens[view].ends[cropped.example] > begin)[moved[cropped.window]].all()
    assert set(cropped.window) == set(source.plan.window)
    assert len(list(source.epoch(3, Arrays(data), Share()))) >= 1


def test_the_request_that_comes_last_in_its_window_is_never_touched(synthetic: Sets) -> None:
    """A payment that is judged stands as it is, and so does what is asked."""
    data = synthetic("fraud")
    for kind in ("mask", "reorder"):
        plain, changed = (
            next(iter(TrainingEpochs(data, config_of(one, packed=True), 0).epoch(0, Arrays(data), Share())))
            for one in ("none", kind)
        )
        row, position = plain["card_recent_v1__row"], plain["card_recent_v1__position"]
        assert torch.equal(plain["card_recent_v1__ids"][row, position], changed["card_recent_v1__ids"][row, position])
        assert not torch.equal(plain["card_recent_v1__ids"], changed["card_recent_v1__ids"])
        assert torch.equal(plain["target"], changed["target"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["crop", "reorder"])
def test_a_fit_learns_from_changed_windows(kind: str, tmp_path: Path) -> None:
    """Shared windows, fewer queries than the plan has: the loss falls all the same."""
    data = synthetic_set(users=60, events=20, items=30)
    config = changed(preset("small", "recommendation"), {"fit": config_of(kind, packed=True), "encoder.width": 16})
    config = changed(config, {"fit.epochs": 3, "fit.rate": 1e-2})
    curves = fit(data, config, "ndcg@10", tmp_path, progress=False).curves
    assert curves["train_loss"].iloc[-1] < curves["train_loss"].iloc[0]


def test_substitutes_need_items(synthetic: Sets) -> None:
    """Sequences of payments have none, and the error says what to choose."""
    with pytest.raises(ValueError, match="needs a sequence with item_id"):
        TrainingEpochs(synthetic("fraud"), config_of("substitute", packed=True), 0)


def config_of(kind: str, *, packed: bool) -> FitConfig:
    """A fit that changes half of the windows, a third of their events."""
    return FitConfig(tokens=2_000, rows=1_000, packed=packed, augment=AugmentConfig(kind=kind, share=0.33))  # type: ignore[arg-type]
