"""Pictures of runs that predict classes, counts or times, from a run's own files; their names are the template's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import pictures, wording
from training.evaluation import LOG_LIKELIHOOD, calibration_curve, intervals
from training.head_metrics import confusion, kaplan_meier, log_likelihoods
from training.head_predictions import answers_in, labels_in
from training.run_record import MODEL, Run

Floats = NDArray[np.float64]

OBSERVED = "observed"
_DAY = 86_400.0
_MOST = 12  # classes of a picture; the rarer ones are left out of it
_COUNTS = 6  # bars: 0, 1, ... and so many or more
_POINTS = 120


def head_figures(run: Run, samples: int) -> dict[str, str]:
    """Pictures by name; `samples`: of the intervals' bootstrap."""
    labels, answers = labels_in(run.head, run.predictions), answers_in(run.predictions)
    answers = {name or MODEL: one for name, one in answers.items()}
    own = {name: log_likelihoods(run.metrics, labels, one) for name, one in answers.items()}
    known = ~np.isnan(own[MODEL])
    groups = None if run.groups is None else run.groups[known]
    spread = intervals(LOG_LIKELIHOOD, {name: one[known] for name, one in own.items()}, groups=groups, samples=samples)
    figures = {"bars": pictures.bars(spread, wording.title(LOG_LIKELIHOOD))}
    if run.head == "multiclass":
        return figures | _class_figures(run.metrics["classes"], labels[known], answers[MODEL][known])
    if run.head == "count":
        return figures | _count_figures(labels, answers)
    return figures | _time_figures(run, labels, answers)


def _class_figures(classes: list[str], labels: NDArray[Any], answers: Floats) -> dict[str, str]:
    counts = confusion(labels, answers.argmax(1), len(classes))[:_MOST, :_MOST]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    hot = (labels[:, None] == np.arange(len(classes))).astype(np.int64)
    return {
        "confusion": pictures.matrix(classes[:_MOST], shares, x="predicted", y="true"),
        "calibration": pictures.calibration(calibration_curve(hot.ravel(), answers.ravel()), rare=False),
    }


def _count_figures(labels: NDArray[Any], answers: dict[str, Floats]) -> dict[str, str]:
    names = [str(count) for count in range(_COUNTS)] + [f"{_COUNTS}+"]
    observed = np.bincount(np.minimum(labels, _COUNTS), minlength=_COUNTS + 1) / len(labels)
    shares = {OBSERVED: observed.tolist()} | {name: _shares(one) for name, one in answers.items()}
    figures = {"counts": pictures.grouped(names, shares, x="count", y="share of examples", falling=True)}
    some = (labels > 0).astype(np.int64)
    if 0 < some.sum() < len(some):
        figures["calibration"] = pictures.calibration(calibration_curve(some, answers[MODEL][:, 1]), rare=False)
    return figures


def _shares(answers: Floats) -> list[float]:
    """Share of each count that a method expects among all examples, and of all larger ones."""
    chance = [
        float(np.exp(log_likelihoods({"head": "count"}, np.full(len(answers), count), answers)).mean())
        for count in range(_COUNTS)
    ]
    return [*chance, max(0.0, 1 - sum(chance))]


def _time_figures(run: Run, labels: Floats, answers: dict[str, Floats]) -> dict[str, str]:
    edges = np.asarray(run.metrics["edges"], np.float64)
    watched = run.predictions["watched"].to_numpy()
    at = np.linspace(0, min(float(edges[-1]), float(watched.max())), _POINTS)
    curves = {OBSERVED: (at / _DAY, kaplan_meier(labels, at))}
    curves |= {name: (at / _DAY, _survival(edges, one, at)) for name, one in answers.items()}
    figures = {"survival": pictures.lines(curves, x="days", y="share still waiting", unit=False, legend="lower left")}
    fully = np.flatnonzero(edges <= watched.min())
    if not len(fully):
        return figures
    edge = fully[-1]
    came = ((labels[:, 1] == 1) & (labels[:, 0] < edges[edge])).astype(np.int64)
    if 0 < came.sum() < len(came):
        figures["calibration"] = pictures.calibration(calibration_curve(came, answers[MODEL][:, edge]), rare=False)
    return figures


def _survival(edges: Floats, answers: Floats, at: Floats) -> Floats:
    """Mean over the examples of the probability of not yet, with a constant rate between edges, [len(at)]."""
    expected = -np.log1p(-np.minimum(answers, 1 - 1e-12))
    grid = np.concatenate([[0.0], edges])
    place = np.clip(np.searchsorted(edges, at, side="right"), 0, len(edges) - 1)
    share = (at - grid[place]) / (grid[place + 1] - grid[place])
    padded = np.concatenate([np.zeros((len(answers), 1)), expected], 1)
    return np.array(
        [
            np.exp(-(padded[:, one] * (1 - part) + padded[:, one + 1] * part)).mean()
            for one, part in zip(place, share, strict=True)
        ]
    )
