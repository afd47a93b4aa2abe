"""Global time split with gaps: what is learnt from lies before what is judged on, and no label reaches across."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.training_set import TEST, TRAIN, VALIDATION

OUTSIDE = -1


@dataclass(frozen=True, kw_only=True)
class TimeSplit:
    """Half-open ranges of example times, microseconds UTC.

    `cuts`: by split, the moment whose knowledge its labels may use: the start of the next split, or the log's end.
    """

    train_end: int
    validation_start: int
    validation_end: int
    test_start: int
    test_end: int
    log_end: int

    def assign(self, t: np.ndarray) -> np.ndarray:
        """Split of each example time, int8; OUTSIDE in a gap or past the end."""
        out = np.full(len(t), OUTSIDE, np.int8)
        out[t < self.train_end] = TRAIN
        out[(t >= self.validation_start) & (t < self.validation_end)] = VALIDATION
        out[(t >= self.test_start) & (t < self.test_end)] = TEST
        return out

    @property
    def there(self) -> tuple[int, ...]:
        """The splits that have a range: one that is made to choose by has none for the test."""
        return (TRAIN, VALIDATION, TEST) if self.test_end > self.test_start else (TRAIN, VALIDATION)

    @property
    def cuts(self) -> tuple[int, int, int]:
        """Labels of train, validation and test count if known before these times."""
        return self.validation_start, self.test_start, self.log_end + 1


def time_split(start: int, log_end: int, *, wait: int, validation: float, test: float) -> TimeSplit:
    """Cut the range of example times.

    Args:
        start: first example time.
        log_end: largest known_at of the log.
        wait: horizon plus label delay: how long after an example its label is complete; also the gap.
        validation: share of the usable range.
        test: share of the usable range.

    Raises:
        ValueError: the log is too short for three ranges with gaps.
    """
    end = log_end - wait + 1
    span = end - start
    test_start = end - int(span * test)
    validation_end = test_start - wait
    validation_start = validation_end - int(span * validation)
    train_end = validation_start - wait
    if train_end <= start:
        day = 86_400_000_000
        message = (
            f"the log spans {(log_end - start) / day:.1f} days, but each label takes {wait / day:.1f} days to be "
            "complete: nothing is left to learn from. Ingest a longer history, or choose another task"
        )
        raise ValueError(message)
    return TimeSplit(
        train_end=train_end,
        validation_start=validation_start,
        validation_end=validation_end,
        test_start=test_start,
        test_end=end,
        log_end=log_end,
    )
