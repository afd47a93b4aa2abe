"""How good predictions of classes, counts and times are. Numpy in, plain floats out, as in training/evaluation.py.

A method's answers are float64 [n, P] (`Head.answers`): of classes the probability of each; of counts the expected one,
the probability of at least one, and the shape of a negative binomial; of times the probability by each edge, between
two of which the rate is constant. Labels are those of training/labels.py.

All three heads have one primary metric, the mean log-likelihood: nats by example, more is better. A class that training
had not seen has none (NaN) and counts in no metric. Times are watched up to the last edge and no longer: beyond it the
answers say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.evaluation import LOG_LIKELIHOOD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAY = 86_400.0
_LEAST = 1e-12
"""Probabilities and means are taken to be at least this: one certain mistake must not decide a mean."""
_TOP = 3
_TOLD = 20
"""Examples of each answer at an edge that a metric needs."""


def metrics_of(
    manifest: Mapping[str, Any], labels: NDArray[Any], answers: Floats, watched: Floats | None = None
) -> dict[str, float]:
    """All metrics of a head.

    Args:
        manifest: `head`; of times `edges`, seconds.
        labels: [n], of times [n, 2].
        answers: [n, P].
        watched: of times, [n] seconds: how long each example was watched, whatever happened.

    Raises:
        ValueError: no example has a known label.
    """
    own = log_likelihoods(manifest, labels, answers)
    known = ~np.isnan(own)
    if not known.any():
        message = "no example has a label that training had seen: there is nothing to measure"
        raise ValueError(message)
    out = {LOG_LIKELIHOOD: float(own[known].mean())}
    if manifest["head"] == "multiclass":
        return out | class_metrics(labels[known], answers[known])
    if manifest["head"] == "count":
        return out | count_metrics(labels, answers)
    assert watched is not None  # noqa: S101 - whoever has times knows
    return out | time_metrics(manifest["edges"], labels, answers, watched)


def log_likelihoods(manifest: Mapping[str, Any], labels: NDArray[Any], answers: Floats) -> Floats:
    """Log-likelihood of each example's label, [n], NaN where it has none; what the bootstrap takes the mean of."""
    if manifest["head"] == "multiclass":
        chance = answers[np.arange(len(labels)), np.maximum(labels, 0)]
        return np.where(labels < 0, np.nan, np.log(np.maximum(chance, _LEAST)))
    if manifest["head"] == "count":
        return _count_likelihoods(labels, answers)
    return _time_likelihoods(np.asarray(manifest["edges"], np.float64), labels, answers)


# ---- classes


def class_metrics(labels: Ints, answers: Floats) -> dict[str, float]:
    """Of the most likely class: accuracy; precision, recall and F1, each the mean over the classes that occur.

    `top_3`: share of examples whose class is among the three most likely, ties against it; where there are over three.
    """
    chosen = answers.argmax(1)
    counts = confusion(labels, chosen, answers.shape[1])
    there = counts.sum(1) > 0
    right = np.diag(counts).astype(np.float64)[there]
    said, true = counts.sum(0)[there], counts.sum(1)[there]
    out = {
        "accuracy": float((chosen == labels).mean()),
        "macro_precision": float((right / np.maximum(said, 1)).mean()),
        "macro_recall": float((right / true).mean()),
        "macro_f1": float((2 * right / (said + true)).mean()),
    }
    if answers.shape[1] > _TOP:
        own = answers[np.arange(len(labels)), labels]
        out["top_3"] = float(((answers >= own[:, None]).sum(1) <= _TOP).mean())
    return out


def confusion(labels: Ints, chosen: Ints, classes: int) -> Ints:
    """Examples by true class (rows) and by the one that was chosen, [C, C]."""
    return np.bincount(labels * classes + chosen, minlength=classes**2).reshape(classes, classes)


# ---- counts


def count_metrics(labels: Ints, answers: Floats) -> dict[str, float]:
    """Of the expected count: `deviance` (Poisson), `rmse`, `mae`, `bias` (expected minus observed, in the mean).

    `auc_of_any`: of the probability of at least one, as a ranking of who has any; where both kinds occur.
    """
    mean, count = np.maximum(answers[:, 0], _LEAST), labels.astype(np.float64)
    ratio = np.where(count > 0, count / mean, 1.0)
    out = {
        "deviance": float(2 * (count * np.log(ratio) - count + mean).mean()),
        "rmse": float(np.sqrt(((mean - count) ** 2).mean())),
        "mae": float(np.abs(mean - count).mean()),
        "bias": float((mean - count).mean()),
    }
    some = labels > 0
    return out | ({"auc_of_any": auc(some, answers[:, 1])} if some.any() and not some.all() else {})


def _count_likelihoods(labels: Ints, answers: Floats) -> Floats:
    """Of a negative binomial with mean m and shape r."""
    import torch

    def gammaln(values: Floats) -> Floats:
        found: Floats = torch.lgamma(torch.tensor(values)).numpy()  # a GPU machine that fits may lack scipy
        return found

    count, mean, shape = labels.astype(np.float64), np.maximum(answers[:, 0], _LEAST), answers[:, 2]
    ways = gammaln(count + shape) - gammaln(shape) - gammaln(count + 1)
    # log r / (r + m) and log m / (r + m), also where r is large
    none, one = -np.log1p(mean / shape), np.log(mean) - np.log(shape + mean)
    return ways + shape * none + count * one


# ---- times


def time_metrics(edges: list[float], labels: Floats, answers: Floats, watched: Floats) -> dict[str, float]:
    """`concordance`: of two examples, how often the one that it happened to first was thought the quicker one.

    By edge: `auc@..` and `brier@..` of the probability by then, among the examples that were watched as long, whether
    or not it had happened before (to leave out only those who were waiting still would make it look frequent).
    """
    limits = np.asarray(edges, np.float64)
    out = {"concordance": concordance(labels, -restricted_mean(limits, answers))}
    for at, edge in enumerate(edges):
        there = watched >= edge
        came = (labels[there, 1] == 1) & (labels[there, 0] < edge)
        if min(came.sum(), (~came).sum()) < _TOLD:
            continue
        chance = answers[there, at]
        out[f"auc@{span(edge)}"] = auc(came, chance)
        out[f"brier@{span(edge)}"] = float(((chance - came) ** 2).mean())
    return out


def span(seconds: float) -> str:
    """`7d`, `6h`: an edge as part of a metric's name."""
    return f"{seconds / _DAY:g}d" if seconds >= _DAY else f"{seconds / 3_600:g}h"


def restricted_mean(edges: Floats, answers: Floats) -> Floats:
    """Seconds until it happens, in the mean, counted up to the last edge, [n]; straight lines between edges."""
    yet = 1 - np.concatenate([np.zeros((len(answers), 1)), answers], 1)
    return ((yet[:, 1:] + yet[:, :-1]) / 2) @ np.diff(edges, prepend=0.0)


def concordance(labels: Floats, risk: Floats) -> float:
    """Harrell's C: of pairs of which one was seen to happen before the other, where it had the higher risk.

    Equal risks are half a hit. Cut off at the moment when the other happened, an example outlived it. NaN: no pairs.
    """
    level = np.unique(risk, return_inverse=True)[1]
    order = np.lexsort((labels[:, 1], -labels[:, 0]))  # the longest first; of equal times the cut off first
    hits, pairs = _hits(labels[order, 0], labels[order, 1] == 1, level[order].astype(np.int64))
    return hits / pairs if pairs else float("nan")


def kaplan_meier(labels: Floats, at: Floats) -> Floats:
    """Share to whom it had not happened by each moment of `at` (rising seconds), by what was seen of all, [len(at)]."""
    times, place = np.unique(labels[:, 0], return_inverse=True)
    events = np.bincount(place, weights=labels[:, 1])
    waiting = np.bincount(place)[::-1].cumsum()[::-1]
    yet = np.concatenate([[1.0], np.cumprod(1 - events / waiting)])
    found: Floats = yet[np.searchsorted(times, at, side="left")]  # by: strictly before
    return found


def _time_likelihoods(edges: Floats, labels: Floats, answers: Floats) -> Floats:
    """Log density (by the day) where it was seen to happen, log probability of not yet where it was not."""
    expected = -np.log1p(-np.minimum(answers, 1 - _LEAST))  # events by each edge
    width = np.diff(edges, prepend=0.0)
    events = np.maximum(np.diff(expected, axis=1, prepend=0.0), _LEAST)
    seconds = np.minimum(labels[:, 0], edges[-1])
    piece = np.minimum(np.searchsorted(edges, seconds, side="right"), len(edges) - 1)
    line = np.arange(len(labels))
    rate = events[line, piece] / width[piece]
    before = np.concatenate([np.zeros((len(labels), 1)), np.cumsum(events, 1)], 1)[line, piece]
    start = np.concatenate([[0.0], edges])[piece]
    seen = (labels[:, 1] == 1) & (labels[:, 0] < edges[-1])
    found: Floats = np.where(seen, np.log(rate * _DAY), 0.0) - before - rate * (seconds - start)
    return found


def auc(yes: NDArray[np.bool_], score: Floats) -> float:
    """How often a yes scores above a no, ties half."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    total = int(yes.sum())
    return float((rank[place][yes].sum() - total * (total + 1) / 2) / (total * (len(yes) - total)))


@njit(cache=True)
def _hits(time: np.ndarray, seen: np.ndarray, level: np.ndarray) -> tuple[float, float]:
    """Hits and pairs of `concordance`: a Fenwick tree counts those that lived longer by their level of risk."""
    size = level.max() + 1
    tree = np.zeros(size + 1, np.int64)
    same = np.zeros(size, np.int64)
    hits, pairs, inside, begin = 0.0, 0.0, 0, 0
    while begin < len(time):
        end = begin
        while end < len(time) and time[end] == time[begin]:
            end += 1
        for asked in range(
            2
        ):  # those cut off at this moment outlive those it happened to, who do not outlive each other
            for place in range(begin, end):
                if seen[place] and asked == 1:
                    lower, at = 0, level[place]
                    while at > 0:
                        lower += tree[at]
                        at -= at & -at
                    hits += lower + 0.5 * same[level[place]]
                    pairs += inside
            for place in range(begin, end):
                if seen[place] == (asked == 1):
                    same[level[place]] += 1
                    inside += 1
                    at = level[place] + 1
                    while at <= size:
                        tree[at] += 1
                        at += at & -at
        begin = end
    return hits, pairs
