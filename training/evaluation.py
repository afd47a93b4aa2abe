"""How good predictions are: metrics, the threshold, intervals by bootstrap, and the share of the gap to an oracle.

Numpy in, plain floats out, so that a run's `predictions.parquet` is enough to compute every figure again.
Two kinds of prediction: *ranking* (the 1-based rank of the item that came next, ties counted against the model)
and *binary* (a probability in [0, 1] beside a label 0 or 1). Classes, counts and times have metrics of their own
(training/head_metrics.py). In every metric of the bootstrap more is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Statistic = Callable[[Ints], Floats]  # draws of units [m] -> one value per method [methods]

LOG_LIKELIHOOD = "log_likelihood"
CALIBRATION_BINS = 15  # of `ece`: torchmetrics' default, bins of equal width
INTERVAL = (2.5, 97.5)  # percentiles: a 95 % interval
_WILSON_Z = 1.96


def ranking_metrics(ranks: ArrayLike, ks: Sequence[int] = (10, 20)) -> dict[str, float]:
    """NDCG@k, hit rate@k and MRR where each example has one relevant item.

    With one relevant item the ideal DCG is 1, so NDCG@k is 1 / log2(1 + rank) inside the first k and 0 beyond;
    MRR is the mean of 1 / rank over the whole ranking.

    Args:
        ranks: int [n], 1-based rank of the target; an item that a method cannot name has a rank past the last one.
        ks: cut-offs.

    Raises:
        ValueError: no ranks, or a rank below 1.
    """
    ranks = _checked_ranks(ranks)
    found: dict[str, float] = {}
    for k in ks:
        found[f"ndcg@{k}"] = float(per_example(f"ndcg@{k}", ranks).mean())
        found[f"hit_rate@{k}"] = float(per_example(f"hit_rate@{k}", ranks).mean())
    found["mrr"] = float(per_example("mrr", ranks).mean())
    return found


def binary_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, float]:
    """What a probability is worth, as a ranking, as a decision at `threshold`, and as a probability.

    `auc` and `average_precision` count ties in full (a tie is half a win; a threshold never splits equal scores).
    `accuracy`, `precision`, `recall` and `f1` are of the decision score >= threshold. `brier` is the mean squared
    error of the probability; `ece` the expected calibration error over 15 bins of equal width.

    Args:
        labels: [n], 0 or 1.
        scores: [n], probabilities in [0, 1].
        threshold: as `choose_threshold` found it on validation.

    Raises:
        ValueError: lengths differ, a label is neither 0 nor 1, a score is no probability, or a class is absent.
    """
    import torch
    from torchmetrics.functional import classification

    labels, scores = _checked_binary(labels, scores)
    target = torch.from_numpy(labels)
    probability = torch.tensor(scores)
    # decided here: torchmetrics says "over the threshold", a service says "at or over it"
    decision = torch.from_numpy((scores >= threshold).astype(np.int64))
    found = {
        "auc": classification.binary_auroc(probability, target),
        "average_precision": classification.binary_average_precision(probability, target),
        "accuracy": classification.binary_accuracy(decision, target),
        "precision": classification.binary_precision(decision, target),
        "recall": classification.binary_recall(decision, target),
        "f1": classification.binary_f1_score(decision, target),
        "brier": np.mean((scores - labels) ** 2),
        "ece": classification.binary_calibration_error(probability, target, n_bins=CALIBRATION_BINS),
        "threshold": threshold,
    }
    return {name: float(value) for name, value in found.items()}


def choose_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold of best F1 for the decision score >= threshold; use validation examples, never test ones.

    It lies halfway between two scores that occur, so that the last bit of a score (another machine, an exported
    model) does not turn a decision. Of equally good thresholds the highest is taken: fewer alarms.

    Args:
        labels: [n], 0 or 1.
        scores: [n], probabilities in [0, 1].

    Raises:
        ValueError: as `binary_metrics`.
    """
    labels, scores = _checked_binary(labels, scores)
    distinct, index = np.unique(scores, return_inverse=True)
    positives = np.bincount(index, weights=labels, minlength=len(distinct))
    flagged = np.bincount(index, minlength=len(distinct))[::-1].cumsum()[::-1]
    caught = positives[::-1].cumsum()[::-1]
    f1 = 2 * caught / (flagged + labels.sum())
    best = len(distinct) - 1 - int(np.argmax(f1[::-1]))
    below = float(distinct[best - 1]) if best else 0.0
    return (float(distinct[best]) + below) / 2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predicted beside observed rates, one entry a bin, lowest predictions first; all arrays are [bins]."""

    predicted: Floats  # mean probability
    observed: Floats  # share of label 1
    low: Floats  # of the observed share: 95 % Wilson interval
    high: Floats
    count: Ints


def calibration_curve(labels: ArrayLike, scores: ArrayLike, bins: int = 10) -> Calibration:
    """Group examples by score into bins of about equal *size*, equal scores together.

    Bins of equal width would put nearly all payments of a fraud model into the first one.

    Raises:
        ValueError: as `binary_metrics`, or no bins.
    """
    labels, scores = _checked_binary(labels, scores)
    if bins < 1:
        message = f"bins is {bins}: at least 1"
        raise ValueError(message)
    inner = np.quantile(scores, np.arange(1, bins) / bins)
    index = np.searchsorted(np.unique(inner), scores, side="right")
    _, index = np.unique(index, return_inverse=True)  # drops empty bins
    count = np.bincount(index)
    predicted = np.bincount(index, weights=scores) / count
    observed = np.bincount(index, weights=labels) / count
    z2 = _WILSON_Z**2
    centre = (observed + z2 / (2 * count)) / (1 + z2 / count)
    half = _WILSON_Z * np.sqrt(observed * (1 - observed) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    return Calibration(predicted=predicted, observed=observed, low=low, high=high, count=count)


def share_of_gap(model: float, best_baseline: float, oracle: float) -> float:
    """How much of the way from the best baseline to the oracle the model goes: 0 at the baseline, 1 at the oracle.

    NaN where the oracle is not above the baseline: there is no gap to close.
    """
    gap = oracle - best_baseline
    return (model - best_baseline) / gap if gap > 0 else math.nan


def paired_bootstrap(
    metric: str,
    a: ArrayLike,
    b: ArrayLike,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """How much better `a` is than `b` on the same examples, with a 95 % interval (percentiles of the bootstrap).

    Both methods are measured on the same resamples, so what is hard for both cancels out.

    Args:
        metric: ndcg@k, hit_rate@k or mrr (a and b are ranks), auc or average_precision (a and b are scores),
            log_likelihood (a and b are what each example brings to the mean: training/head_metrics.py).
        a: [n], the method that should win.
        b: [n], what it is compared with.
        labels: [n], 0 or 1; for auc and average_precision.
        groups: [n], any ids: whole groups (users, cards) are resampled, since their examples depend on each other.
        samples: resamples.
        seed: of the draws.

    Returns:
        `difference` (a minus b, on all examples), `low`, `high`.

    Raises:
        ValueError: lengths differ, the metric is unknown, labels lack where it needs them, or a class is absent.
    """
    point, resampled = _resample(metric, [a, b], labels=labels, groups=groups, samples=samples, seed=seed)
    low, high = _interval(resampled[:, 0] - resampled[:, 1])
    return {"difference": float(point[0] - point[1]), "low": low, "high": high}


def intervals(
    metric: str,
    methods: Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Each method's own `value` with `low` and `high` (95 %), all on the same resamples; see `paired_bootstrap`."""
    point, resampled = _resample(
        metric, list(methods.values()), labels=labels, groups=groups, samples=samples, seed=seed
    )
    found = {}
    for at, name in enumerate(methods):
        low, high = _interval(resampled[:, at])
        found[name] = {"value": float(point[at]), "low": low, "high": high}
    return found


def is_ranking(metric: str) -> bool:
    """Whether a metric is computed from ranks (otherwise: from scores and labels)."""
    return metric == "mrr" or metric.startswith(("ndcg@", "hit_rate@"))


def _interval(values: Floats) -> tuple[float, float]:
    """Percentiles of resamples; those that hold one class alone have no AUC (NaN) and are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)


def _resample(
    metric: str,
    methods: Sequence[ArrayLike],
    *,
    labels: ArrayLike | None,
    groups: ArrayLike | None,
    samples: int,
    seed: int,
) -> tuple[Floats, Floats]:
    """The metric of every method on all examples [methods], and on every resample [samples, methods]."""
    if len({len(np.asarray(method)) for method in methods}) != 1:
        message = f"the methods hold {[len(np.asarray(method)) for method in methods]} examples: they must be the same"
        raise ValueError(message)
    n = len(np.asarray(methods[0]))
    member: Ints | None = None
    units = n
    if groups is not None:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        units = len(names)
        if len(member) != n:
            message = f"groups holds {len(member)} entries for {n} examples"
            raise ValueError(message)
    if is_ranking(metric):
        statistic = _mean_statistic([per_example(metric, _checked_ranks(method)) for method in methods], member)
    elif metric == LOG_LIKELIHOOD:
        statistic = _mean_statistic([np.asarray(method, np.float64) for method in methods], member)
    elif metric in {"auc", "average_precision"}:
        if labels is None:
            message = f"{metric} needs labels"
            raise ValueError(message)
        statistic = _binary_statistic(metric, labels, methods, member)
    else:
        message = f"metric {metric!r} is unknown: use ndcg@k, hit_rate@k, mrr, auc, average_precision or log_likelihood"
        raise ValueError(message)
    rng = np.random.default_rng(seed)
    resampled = np.stack([statistic(rng.integers(0, units, size=units)) for _ in range(samples)])
    return statistic(np.arange(units)), resampled


def _mean_statistic(values: Sequence[Floats], member: Ints | None) -> Statistic:
    """Mean of per-example values over drawn units: sums by group over counts by group."""
    table = np.stack(values)  # [methods, n]
    if member is None:
        return lambda draws: table[:, draws].mean(axis=1)
    count = np.bincount(member)
    total = np.stack([np.bincount(member, weights=row) for row in table])
    return lambda draws: total[:, draws].sum(axis=1) / count[draws].sum()


def _binary_statistic(metric: str, labels: ArrayLike, methods: Sequence[ArrayLike], member: Ints | None) -> Statistic:
    """AUC or average precision over drawn units, without sorting again.

    Both depend only on how many positives have each score p_1 < ... < p_q that a positive has, and on how many
    negatives lie between and on them. So an example is one number (its cell), and a resample is a histogram.
    """
    checked = [_checked_binary(labels, scores) for scores in methods]
    cells = [_cells(truth, scores) for truth, scores in checked]
    measure = _auc_of_cells if metric == "auc" else _average_precision_of_cells

    def statistic(draws: Ints) -> Floats:
        if member is None:
            counts = [np.bincount(cell[draws], minlength=size) for cell, size in cells]
        else:
            weights = np.bincount(draws, minlength=len(draws))[member]
            counts = [np.bincount(cell, weights=weights, minlength=size) for cell, size in cells]
        return np.array([measure(count) for count in counts])

    return statistic


def _cells(labels: Ints, scores: Floats) -> tuple[Ints, int]:
    """Cell of every example [n] and the number of cells 3 q + 1.

    Cell j < q: a positive of score p_j. Cell q + 2 j: a negative between p_(j-1) and p_j. Cell q + 2 j + 1: on p_j.
    """
    points = np.unique(scores[labels == 1])
    q = len(points)
    below = np.searchsorted(points, scores, side="left")
    on = np.searchsorted(points, scores, side="right") > below
    return np.where(labels == 1, below, q + 2 * below + on), 3 * q + 1


def _unpack(counts: NDArray[Any]) -> tuple[Floats, Floats, Floats, float, float]:
    """Of cell counts [3 q + 1]: positives [q], negatives below [q] and on [q] each point, all positives, negatives."""
    q = len(counts) // 3
    positives = counts[:q].astype(np.float64)
    negatives = counts[q:].astype(np.float64)
    below = negatives.cumsum()[0::2][:q]
    return positives, below, negatives[1::2], float(positives.sum()), float(negatives.sum())


def _auc_of_cells(counts: NDArray[Any]) -> float:
    positives, below, on, all_positives, all_negatives = _unpack(counts)
    if not all_positives or not all_negatives:
        return math.nan
    return float(positives @ (below + 0.5 * on)) / (all_positives * all_negatives)


def _average_precision_of_cells(counts: NDArray[Any]) -> float:
    positives, below, _, all_positives, all_negatives = _unpack(counts)
    if not all_positives:
        return math.nan
    caught = positives[::-1].cumsum()[::-1]
    flagged = caught + all_negatives - below
    precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
    return float(positives @ precision) / all_positives


def per_example(metric: str, ranks: Ints) -> Floats:
    """A ranking metric before the mean, [n]."""
    if metric == "mrr":
        return 1.0 / ranks
    name, _, cut = metric.partition("@")
    if not cut.isdigit() or int(cut) < 1:
        message = f"metric {metric!r}: write the cut-off as in {name}@10"
        raise ValueError(message)
    gain = 1.0 / np.log2(1.0 + ranks) if name == "ndcg" else np.ones(len(ranks))
    return np.where(ranks <= int(cut), gain, 0.0)


def _checked_ranks(ranks: ArrayLike) -> Ints:
    ranks = np.asarray(ranks, dtype=np.int64)
    if not len(ranks):
        message = "there are no ranks: the test range holds no example"
        raise ValueError(message)
    if ranks.min() < 1:
        row = int(ranks.argmin())
        message = f"rank {ranks[row]} in row {row}: ranks begin at 1"
        raise ValueError(message)
    return ranks


def _checked_binary(labels: ArrayLike, scores: ArrayLike) -> tuple[Ints, Floats]:
    raw = np.asarray(labels)
    scores = np.ascontiguousarray(scores, dtype=np.float64)
    if raw.shape != scores.shape or raw.ndim != 1:
        message = f"labels have shape {raw.shape}, scores {scores.shape}: both are one entry per example"
        raise ValueError(message)
    good = (scores >= 0) & (scores <= 1)  # false for NaN as well
    if not good.all():
        row = int(np.argmin(good))
        message = f"score {scores[row]} in row {row} is no probability: pass values in [0, 1]"
        raise ValueError(message)
    good = (raw == 0) | (raw == 1)
    if not good.all():
        row = int(np.argmin(good))
        message = f"label {raw[row]} in row {row}: labels are 0 or 1"
        raise ValueError(message)
    binary = raw.astype(np.int64)
    positives = int(binary.sum())
    if positives in {0, len(binary)}:
        message = f"{positives} of {len(binary)} labels are 1: metrics need both classes; take a longer range"
        raise ValueError(message)
    return binary, scores
