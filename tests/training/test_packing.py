"""Packing: everything once, nothing over another, next to no padding."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.packing import one_a_row, pack, places, row_length

LENGTHS = st.lists(st.integers(0, 20), max_size=60).map(lambda found: np.array(found, np.int64))


@settings(deadline=None)  # the first example compiles
@given(LENGTHS, st.integers(20, 45))
def test_every_event_has_one_place(lengths: np.ndarray, length: int) -> None:
    """Each event of each window stands exactly once, in order, under its window's number; all else is padding."""
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    for layout in (pack(lengths, length), one_a_row(lengths)):
        position_BL, segment_BL = places(starts, lengths, layout, nothing=-1)
        assert position_BL.shape == segment_BL.shape == (layout.rows, layout.length)
        np.testing.assert_array_equal(position_BL < 0, segment_BL == 0)
        expected = [start + step for start, size in zip(starts, lengths, strict=True) for step in range(size)]
        assert sorted(position_BL[position_BL >= 0].tolist()) == expected
        for start, size, row, offset, number in zip(
            starts, lengths, layout.row, layout.offset, layout.number, strict=True
        ):
            if size:
                np.testing.assert_array_equal(np.flatnonzero(segment_BL[row] == number), offset + np.arange(size))
                np.testing.assert_array_equal(position_BL[row, offset : offset + size], start + np.arange(size))


@settings(deadline=None)  # the first example compiles
@given(LENGTHS)
def test_numbers_rise_from_left_to_right(lengths: np.ndarray) -> None:
    """In a row the windows are 1, 2, ... from its start, and padding is at its end."""
    _, segment_BL = places(np.zeros_like(lengths), lengths, pack(lengths, 30), nothing=-1)
    for segment_L in segment_BL:
        real = segment_L[segment_L > 0]
        assert (segment_L[: len(real)] > 0).all()
        assert np.unique(real).tolist() == list(range(1, int(real.max(initial=0)) + 1))
        assert (np.diff(real) >= 0).all()


def histories(count: int) -> np.ndarray:
    """Lengths as of shops: from 3 to 50, most of them short."""
    return np.clip(np.random.default_rng(0).geometric(1 / 7, count) + 2, 3, 50)


def test_histories_of_a_shop_fill_their_rows() -> None:
    """In batches of 4,096 events over 95 % of all places are real, in rows no longer than need be."""
    lengths = histories(5_000)
    batches = np.array_split(lengths, lengths.sum() // 4_096)
    length = row_length(batches)
    rows = sum(pack(one, length).rows for one in batches)
    assert length == 50
    assert lengths.sum() / (rows * length) > 0.95


def test_rows_become_longer_where_that_fills_them() -> None:
    """Windows of 30 and 20 fill rows of 50, not of 30; windows of 30 alone fill rows of 30."""
    assert row_length([np.array([40] * 9 + [20] * 9)]) == 60
    assert row_length([np.array([30] * 9)]) == 30


def test_packing_is_fast() -> None:
    """25,000 windows are packed and placed in under a tenth of a second."""
    lengths = histories(25_000)
    places(np.zeros_like(lengths), lengths, pack(lengths, 50), nothing=-1)  # compiled now
    took = []
    for _ in range(5):
        began = time.process_time()
        places(np.zeros_like(lengths), lengths, pack(lengths, 50), nothing=-1)
        took.append(time.process_time() - began)
    assert min(took) < 0.1


def test_a_window_longer_than_a_row_is_refused() -> None:
    """The message says how long both are."""
    with pytest.raises(ValueError, match="a window of 31 events does not fit into a row of 30"):
        pack(np.array([4, 31]), 30)
