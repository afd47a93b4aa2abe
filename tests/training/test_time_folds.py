"""Folds of time: where they lie, and that a fold's training set knows nothing of what came later."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.build_set import pick
from training.presets import preset
from training.split import OUTSIDE, TimeSplit, time_split
from training.task import load_task
from training.time_folds import time_folds
from training.training_set import TRAIN, VALIDATION

DAY = 86_400_000_000


def test_folds_lie_one_behind_the_other_before_the_test_range() -> None:
    """100 days, labels of 5: validation of 10 days ends where the last fold does, each fold begins 10 days earlier."""
    whole = time_split(0, 100 * DAY + 5 * DAY - 1, wait=5 * DAY, validation=0.1, test=0.2)
    assert (whole.test_start, whole.validation_end) == (80 * DAY, 75 * DAY)
    folds = time_folds(whole, 0, folds=3, wait=5 * DAY)
    assert [(one.validation_start // DAY, one.validation_end // DAY) for one in folds] == [(45, 55), (55, 65), (65, 75)]
    assert [one.train_end // DAY for one in folds] == [45 - 5, 55 - 5, 65 - 5]
    assert folds[-1].cuts[VALIDATION] == whole.test_start
    assert all(one.there == (TRAIN, VALIDATION) for one in folds)


@given(st.integers(1, 6), st.integers(0, 9), st.integers(120, 400))
def test_no_fold_touches_the_test_range_or_a_label_from_its_future(folds: int, wait: int, days: int) -> None:
    """Whatever the sizes: what is learnt from was labelled before the judged span, all of it before the test range."""
    whole = time_split(0, days * DAY, wait=wait * DAY, validation=0.05, test=0.1)
    previous = 0
    for one in time_folds(whole, 0, folds=folds, wait=wait * DAY):
        assert 0 < one.train_end <= one.validation_start - wait * DAY
        assert previous <= one.validation_start < one.validation_end
        assert one.cuts[TRAIN] == one.validation_start
        assert one.cuts[VALIDATION] == one.validation_end + wait * DAY <= whole.test_start
        t = np.arange(0, days * DAY, DAY // 2)
        assert set(one.assign(t)[t >= whole.validation_end]) <= {OUTSIDE}
        previous = one.validation_end


def test_too_many_folds_are_refused_with_the_number_that_would_do() -> None:
    """Folds that leave less to learn from than to be judged on are none."""
    whole = time_split(0, 100 * DAY - 1, wait=0, validation=0.1, test=0.2)
    assert len(time_folds(whole, 0, folds=7, wait=0)) == 7
    with pytest.raises(ValueError, match=r"8 folds of 10\.0 days .* 7 are possible"):
        time_folds(whole, 0, folds=8, wait=0)
    with pytest.raises(ValueError, match="at least one"):
        time_folds(whole, 0, folds=0, wait=0)


def test_a_label_that_came_after_the_fold_is_not_known_in_it() -> None:
    """A chargeback counts in a fold's training range only if it was known when the judged span began."""
    t = np.arange(0, 100 * DAY, DAY // 40)
    late = np.arange(len(t)) % 3 == 0
    when = np.where(late, t + 60 * DAY, t + DAY)
    table = pa.table(
        {
            "example_id": [str(one) for one in range(len(t))],
            "t": pa.array(t, pa.timestamp("us", tz="UTC")),
            "label_known_at": pa.array(when, pa.timestamp("us", tz="UTC"), mask=np.arange(len(t)) % 2 == 1),
        }
    )
    parts = TimeSplit(
        train_end=60 * DAY,
        validation_start=67 * DAY,
        validation_end=77 * DAY,
        test_start=84 * DAY,
        test_end=84 * DAY,
        log_end=100 * DAY,
    )
    chosen = pick(load_task("fraud"), preset("small", "fraud"), table, parts)
    learnt = chosen.split == TRAIN
    example = np.array([int(one) for one in chosen.table["example_id"].to_pylist()])
    known = (example % 2 == 0) & (when[example] < np.where(learnt, 67 * DAY, 84 * DAY))
    assert chosen.label.tolist() == known.astype(float).tolist()
    assert (example % 2 == 0)[~known].any()
    assert t[example].max() < 77 * DAY
