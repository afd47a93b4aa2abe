"""Splits: ranges in time with gaps, and no label that reaches across."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.split import OUTSIDE, time_split
from training.training_set import TEST, TRAIN, VALIDATION

DAY = 86_400_000_000


@given(days=st.integers(30, 400), wait=st.integers(0, 20), validation=st.floats(0.05, 0.2), test=st.floats(0.05, 0.2))
def test_labels_are_complete_before_the_next_range(days: int, wait: int, validation: float, test: float) -> None:
    """Each example's label is complete before the range after it begins, or before the log's end."""
    assume(days * (1 - validation - test) > 3.1 * wait)
    parts = time_split(0, days * DAY, wait=wait * DAY, validation=validation, test=test)
    t = np.linspace(0, days * DAY, 500).astype(np.int64)
    split = parts.assign(t)
    for part, cut in zip((TRAIN, VALIDATION, TEST), parts.cuts, strict=True):
        assert (t[split == part] + wait * DAY <= cut).all()
    assert (split[t + wait * DAY > days * DAY] == OUTSIDE).all()


def test_too_short_a_log_is_refused() -> None:
    """A log that is shorter than its labels take is an error that says so."""
    with pytest.raises(ValueError, match=r"9\.0 days, but each label takes 14\.0 days"):
        time_split(0, 9 * DAY, wait=14 * DAY, validation=0.1, test=0.1)
