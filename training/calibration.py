"""Scores become probabilities: a rising curve through points, fitted on validation and exported as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import binary_metrics

Floats = NDArray[np.float64]

_GRID = np.linspace(-12, 12, 241)
"""Log odds at which Platt's curve is sampled: close enough for straight lines between."""

_CLIP = 1e-4
"""Probabilities are held this far from 0 and 1 when curves are judged: a curve may not be sure for want of data."""

_SURE = 2.0
"""Standard errors by which a curve must be better."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Probability by score, both rising, [points]; straight between points, level beyond. No points: the score."""

    method: str
    score: Floats
    probability: Floats

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores, float64 [n]."""
        return np.interp(scores, self.score, self.probability) if len(self.score) else np.asarray(scores, np.float64)

    @property
    def points(self) -> dict[str, list[float]] | None:
        """As plain data; None where a score is the probability."""
        return {"score": self.score.tolist(), "probability": self.probability.tolist()} if len(self.score) else None


NONE = Curve(method="none", score=np.zeros(0), probability=np.zeros(0))


def choose_curve(labels: NDArray[np.int64], scores: Floats, t: NDArray[np.int64]) -> Curve:
    """The curve that is best by log loss on the later half of validation when fitted on the earlier one.

    Platt's has two parameters, the isotonic one as many as there are steps. Neither is taken unless it beats what is
    there by more than chance explains: by two standard errors of the mean difference, example by example. Where
    positives are few a curve is a guess, and the score is the better probability. The chosen one is fitted again on all
    of validation.

    Args:
        labels: [n], 0 or 1.
        scores: [n], probabilities as the model says them.
        t: [n], times of the examples.
    """
    order = np.argsort(t, kind="stable")
    early, late = order[: len(order) // 2], order[len(order) // 2 :]
    if any(labels[half].min(initial=1) == labels[half].max(initial=0) for half in (early, late)):
        return NONE
    best, losses = NONE, _log_losses(labels[late], scores[late])
    for fit in (_platt, _isotonic):
        mine = _log_losses(labels[late], fit(labels[early], scores[early])(scores[late]))
        gain = losses - mine
        if gain.mean() > _SURE * gain.std() / np.sqrt(len(gain)):
            best, losses = fit(labels, scores), mine
    return best


def worth(labels: NDArray[np.int64], scores: Floats, curve: Curve) -> dict[str, float | str]:
    """How far probabilities are from the truth before and after the curve; on examples that it was not fitted on."""
    before, after = (binary_metrics(labels, one, 0.5) for one in (scores, curve(scores)))
    return {
        "method": curve.method,
        **{f"{name}_before": before[name] for name in ("ece", "brier")},
        **{f"{name}_after": after[name] for name in ("ece", "brier")},
        "log_loss_before": float(_log_losses(labels, scores).mean()),
        "log_loss_after": float(_log_losses(labels, curve(scores)).mean()),
    }


def _platt(labels: NDArray[np.int64], scores: Floats) -> Curve:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(_log_odds(scores)[:, None], labels)
    slope, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:  # it would turn the order round
        return NONE
    sigmoid: Callable[[Floats], Floats] = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    return Curve(method="platt", score=sigmoid(_GRID), probability=sigmoid(slope * _GRID + bias))


def _isotonic(labels: NDArray[np.int64], scores: Floats) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    return Curve(
        method="isotonic",
        score=np.asarray(model.X_thresholds_, np.float64),
        probability=np.asarray(model.y_thresholds_, np.float64),
    )


def _log_odds(scores: Floats) -> Floats:
    kept = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(kept) - np.log1p(-kept)


def _log_losses(labels: NDArray[np.int64], probability: Floats) -> Floats:
    kept = np.clip(probability, _CLIP, 1 - _CLIP)
    return -np.where(labels == 1, np.log(kept), np.log1p(-kept))
