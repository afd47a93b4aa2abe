"""Curves that make probabilities of scores."""

from __future__ import annotations

import numpy as np
import pytest

from training.calibration import NONE, choose_curve, worth


def sample(seed: int, rows: int = 8_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn with known probabilities; what is true, their log odds, times."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.5, rows)
    true = 1 / (1 + np.exp(-odds))
    return (rng.random(rows) < true).astype(np.int64), true, odds, np.arange(rows)


def test_a_model_that_is_too_sure_is_mended() -> None:
    """Log odds three times too large: the curve gives the true probabilities back, and the errors fall."""
    labels, true, odds, t = sample(0)
    scores = 1 / (1 + np.exp(-(3 * odds + 1)))
    curve = choose_curve(labels, scores, t)
    assert curve.method in ("platt", "isotonic")
    assert np.abs(curve(scores) - true).mean() < 0.03
    fresh, _, odds, _ = sample(1)
    found = worth(fresh, 1 / (1 + np.exp(-(3 * odds + 1))), curve)
    assert found["ece_after"] < 0.3 * found["ece_before"]  # type: ignore[operator]
    assert found["log_loss_after"] < found["log_loss_before"]  # type: ignore[operator]


def test_curves_rise() -> None:
    """A higher score never has a lower probability, whatever the curve, and its points rise."""
    labels, _, odds, t = sample(2, 600)
    for scores in (1 / (1 + np.exp(-0.3 * odds)), np.clip(odds / 12 + 0.5, 0, 1) ** 3):
        curve = choose_curve(labels, scores, t)
        assert (np.diff(curve(np.sort(scores))) >= 0).all()
        assert curve.points is None or all(np.diff(one).min() >= 0 for one in curve.points.values())


def test_a_curve_that_chance_explains_is_not_taken() -> None:
    """Scores that are true probabilities are left as they are, many times over: also where hardly any label is 1."""
    taken = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        true = 1 / (1 + np.exp(-rng.normal(-5, 1, 3_000)))  # a hundredth of them is 1
        labels = (rng.random(3_000) < true).astype(np.int64)
        taken += choose_curve(labels, true, np.arange(3_000)) != NONE
    assert taken <= 2


@pytest.mark.parametrize("turned", [False, True])
def test_nothing_is_mended_where_nothing_can_be(turned: bool) -> None:  # noqa: FBT001
    """With one class in half of validation there is no curve; scores that rank the wrong way round are not turned."""
    labels, true, _, t = sample(3)
    if turned:
        curve = choose_curve(labels, 1 - true, t)
        assert (np.diff(curve(np.linspace(0, 1, 50))) >= 0).all()
    else:
        curve = choose_curve(np.where(t < 4_000, 0, labels), true, t)
        assert curve == NONE
        assert curve.points is None
        assert curve(true) is not None
