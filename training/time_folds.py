"""Rolling-origin folds: what came later is predicted from what came before, several times, the test range apart."""

from __future__ import annotations

from training.split import TimeSplit


def time_folds(whole: TimeSplit, start: int, *, folds: int, wait: int) -> list[TimeSplit]:
    """Folds inside the training and validation ranges of a split, the earliest first.

    Every fold is judged on a span as long as the split's own validation range; the last fold's is that range, each
    other one ends where the next begins. It learns from all that lies at least `wait` before, so that what it learns
    from was labelled by then; labels of the span itself count if they were known `wait` after its end.

    Args:
        whole: the split of the run that is tuned for; nothing at or after its `test_start` is touched.
        start: first example time, microseconds UTC.
        folds: how many.
        wait: horizon plus label delay, microseconds.

    Raises:
        ValueError: fewer than one fold, or the first one would have less to learn from than to be judged on.
    """
    if folds < 1:
        message = f"{folds} folds: at least one is needed"
        raise ValueError(message)
    span = whole.validation_end - whole.validation_start
    out = []
    for back in range(folds - 1, -1, -1):
        end = whole.validation_end - back * span
        known = end + wait
        one = TimeSplit(
            train_end=end - span - wait,
            validation_start=end - span,
            validation_end=end,
            test_start=known,
            test_end=known,
            log_end=whole.log_end,
        )
        out.append(one)
    if out[0].train_end - start < span:
        day = 86_400_000_000
        left = max(0, (whole.train_end - start - span) // span + 1) if span else 0
        message = (
            f"{folds} folds of {span / day:.1f} days reach back to where only {(out[0].train_end - start) / day:.1f} "
            f"days are left to learn from: {left} are possible with this log (FOLDS or --folds)"
        )
        raise ValueError(message)
    return out
