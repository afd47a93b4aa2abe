"""Augmentation: what each change does to a window, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import augment
from training.config import AugmentConfig

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
