"""Metrics, threshold, bootstrap and gap: against sklearn, torchmetrics, arithmetic and naive loops."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from training import evaluation

BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


def _binary(rows: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores with many ties."""
    table = np.array(rows)
    return table[:, 0], table[:, 1] / 6


def test_ranking_metrics_by_hand() -> None:
    """A target at rank r adds 1 / log2(1 + r) to NDCG and 1 to the hit rate within the cut, 1 / r to MRR anywhere."""
    found = evaluation.ranking_metrics([1, 3, 11, 100])
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert found["hit_rate@10"] == 2 / 4
    assert found["ndcg@20"] == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(12)) / 4)
    assert found["hit_rate@20"] == 3 / 4
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 11 + 1 / 100) / 4)


@pytest.mark.slow
def test_ranking_metrics_are_those_of_torchmetrics() -> None:
    """NDCG, hit rate and MRR from ranks equal torchmetrics' on the full lists of scores."""
    import torch
    from torchmetrics.functional import retrieval

    rng = np.random.default_rng(0)
    scores = rng.random((30, 40))
    targets = rng.integers(0, 40, 30)
    ranks = 1 + (scores > scores[np.arange(30), targets][:, None]).sum(axis=1)
    found = evaluation.ranking_metrics(ranks)
    for name, metric in (
        ("ndcg@10", lambda p, t: retrieval.retrieval_normalized_dcg(p, t, top_k=10)),
        ("hit_rate@20", lambda p, t: retrieval.retrieval_hit_rate(p, t, top_k=20)),
        ("mrr", retrieval.retrieval_reciprocal_rank),
    ):
        expected = [
            float(metric(torch.from_numpy(row), torch.arange(40) == int(target)))
            for row, target in zip(scores, targets, strict=True)
        ]
        assert found[name] == pytest.approx(np.mean(expected), abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("ties", [False, True])
def test_binary_metrics_are_those_of_sklearn(ties: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Every binary metric equals sklearn's, with and without ties in the scores."""
    rng = np.random.default_rng(1)
    labels = (rng.random(5000) < 0.1).astype(int)
    scores = 1 / (1 + np.exp(2 - labels - rng.normal(size=5000)))
    scores = np.round(scores, 2) if ties else scores
    threshold = 0.25
    found = evaluation.binary_metrics(labels, scores, threshold)
    decision = scores >= threshold
    expected = {
        "auc": metrics.roc_auc_score(labels, scores),
        "average_precision": metrics.average_precision_score(labels, scores),
        "accuracy": metrics.accuracy_score(labels, decision),
        "precision": metrics.precision_score(labels, decision),
        "recall": metrics.recall_score(labels, decision),
        "f1": metrics.f1_score(labels, decision),
        "brier": metrics.brier_score_loss(labels, scores),
        "threshold": threshold,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < found["ece"] < 1


@pytest.mark.slow
def test_expected_calibration_error_by_hand() -> None:
    """ECE is the size-weighted distance of mean score and observed rate over 15 equal bins."""
    labels = [0, 0, 0, 1, 1, 0]
    scores = [0.01, 0.02, 0.03, 0.05, 0.98, 0.99]
    first, last = abs(0.11 / 4 - 1 / 4), abs(1.97 / 2 - 1 / 2)
    assert evaluation.binary_metrics(labels, scores, 0.5)["ece"] == pytest.approx((4 * first + 2 * last) / 6, abs=1e-6)


@given(BINARY)
def test_no_threshold_has_better_f1(rows: list[tuple[int, int]]) -> None:
    """No threshold beats the chosen one, and no higher one equals it, by trying them all."""
    labels, scores = _binary(rows)

    def f1(threshold: float) -> float:
        decision = scores >= threshold
        return 2 * float((decision & (labels == 1)).sum()) / float(decision.sum() + labels.sum())

    chosen = evaluation.choose_threshold(labels, scores)
    assert f1(chosen) == max(f1(score) for score in scores)
    assert all(f1(score) < f1(chosen) for score in scores if score > scores[scores >= chosen].min())


def test_threshold_is_halfway_and_the_highest() -> None:
    """Between 0.4 and 0.8 lies 0.6; of two thresholds with the same F1 the higher is taken."""
    assert evaluation.choose_threshold([0, 1], [0.4, 0.8]) == pytest.approx((0.4 + 0.8) / 2)
    # flagging one: F1 = 2 * 1 / (1 + 2); flagging four: F1 = 2 * 2 / (4 + 2)
    assert evaluation.choose_threshold([1, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5]) == pytest.approx((0.9 + 0.8) / 2)


@given(BINARY, st.sampled_from(["auc", "average_precision"]))
def test_histogram_metrics_equal_sklearn(rows: list[tuple[int, int]], metric: str) -> None:
    """The bootstrap's AUC and average precision on all examples are sklearn's, ties included."""
    labels, scores = _binary(rows)
    truth = metrics.roc_auc_score if metric == "auc" else metrics.average_precision_score
    found = evaluation.intervals(metric, {"a": scores}, labels=labels, samples=2)["a"]["value"]
    assert found == pytest.approx(truth(labels, scores), abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", ["auc", "average_precision", "ndcg@10", "hit_rate@10", "mrr"])
def test_bootstrap_is_the_naive_loop(metric: str, grouped: bool) -> None:  # noqa: FBT001
    """The interval equals that of a loop which draws examples (or whole groups) and measures them with sklearn."""
    rng = np.random.default_rng(2)
    n, samples = 60, 50
    labels = (rng.random(n) < 0.4).astype(int)
    groups = rng.integers(0, 15, n)
    if evaluation.is_ranking(metric):
        a, b = rng.integers(1, 30, n), rng.integers(1, 30, n)
    else:
        a, b = rng.integers(0, 9, n) / 10, rng.integers(0, 9, n) / 10

    def measure(scores: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        if metric == "auc":
            return float(metrics.roc_auc_score(labels[rows], scores[rows]))
        if metric == "average_precision":
            return float(metrics.average_precision_score(labels[rows], scores[rows]))
        return evaluation.ranking_metrics(scores[rows])[metric]

    units = len(np.unique(groups)) if grouped else n
    draws = np.random.default_rng(5)
    differences = []
    for _ in range(samples):
        drawn = draws.integers(0, units, size=units)
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn]) if grouped else drawn
        differences.append(measure(a, rows) - measure(b, rows))
    found = evaluation.paired_bootstrap(metric, a, b, labels, groups if grouped else None, samples, seed=5)
    everything = np.arange(n)
    assert found["difference"] == pytest.approx(measure(a, everything) - measure(b, everything))
    assert [found["low"], found["high"]] == pytest.approx(list(np.percentile(differences, (2.5, 97.5))))


def test_bootstrap_of_equals_is_zero() -> None:
    """A method compared with itself differs by exactly 0, with an interval of no width."""
    ranks = np.arange(1, 50)
    assert evaluation.paired_bootstrap("mrr", ranks, ranks) == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_interval_covers_the_truth() -> None:
    """About 95 of 100 intervals hold the true difference: between 88 and 100 of 100 repetitions do."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(1, 21, 400), rng.integers(1, 41, 400)  # hit rate 10: 10 / 20 and 10 / 40
        found = evaluation.paired_bootstrap("hit_rate@10", a, b, samples=200, seed=seed)
        covered += found["low"] <= 10 / 20 - 10 / 40 <= found["high"]
    assert 88 <= covered <= 100


def test_groups_that_depend_widen_the_interval() -> None:
    """Where a user's examples are copies of one another, resampling users gives the wider, honest interval."""
    rng = np.random.default_rng(3)
    a, b, users = (
        np.repeat(column, 20) for column in (rng.integers(1, 30, 50), rng.integers(1, 30, 50), np.arange(50))
    )
    single = evaluation.paired_bootstrap("ndcg@10", a, b)
    grouped = evaluation.paired_bootstrap("ndcg@10", a, b, groups=users)
    assert grouped["high"] - grouped["low"] > 2 * (single["high"] - single["low"])


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_bootstrap_is_fast(metric: str) -> None:
    """A thousand resamples of 20,000 examples take less than ten seconds."""
    rng = np.random.default_rng(4)
    labels = (rng.random(20_000) < 0.3).astype(int)
    start = time.monotonic()
    evaluation.paired_bootstrap(metric, rng.random(20_000), rng.random(20_000), labels, samples=1000)
    assert time.monotonic() - start < 10


def test_share_of_gap() -> None:
    """0.40 between a baseline of 0.30 and an oracle of 0.50 closes half the gap; without a gap the share is NaN."""
    assert evaluation.share_of_gap(0.40, 0.30, 0.50) == pytest.approx((0.40 - 0.30) / (0.50 - 0.30))
    assert math.isnan(evaluation.share_of_gap(0.4, 0.5, 0.5))


@given(BINARY, st.integers(1, 8))
def test_calibration_bins_hold_every_example_once(rows: list[tuple[int, int]], bins: int) -> None:
    """Bins add up to all examples and labels, rise in score, and their intervals hold the observed rates."""
    labels, scores = _binary(rows)
    curve = evaluation.calibration_curve(labels, scores, bins)
    assert curve.count.sum() == len(labels)
    assert (curve.observed * curve.count).sum() == pytest.approx(labels.sum())
    assert (curve.predicted * curve.count).sum() == pytest.approx(scores.sum())
    assert (np.diff(curve.predicted) > 0).all()
    assert (curve.low <= curve.observed + 1e-12).all()
    assert (curve.observed <= curve.high + 1e-12).all()


def test_calibration_bins_are_of_equal_size() -> None:
    """Four bins of 1,000 different scores hold 250 each, however skewed the scores."""
    scores = np.linspace(0, 1, 1000) ** 6
    assert evaluation.calibration_curve(np.arange(1000) % 2, scores, 4).count.tolist() == [250] * 4


def test_wrong_input_is_named() -> None:
    """What cannot be measured is refused with the row or the way out."""
    with pytest.raises(ValueError, match="rank 0 in row 1"):
        evaluation.ranking_metrics([1, 0])
    with pytest.raises(ValueError, match="no ranks"):
        evaluation.ranking_metrics([])
    with pytest.raises(ValueError, match=r"score 1\.5 in row 1"):
        evaluation.choose_threshold([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match="score nan in row 0"):
        evaluation.choose_threshold([0, 1], [math.nan, 0.5])
    with pytest.raises(ValueError, match="label 2 in row 1"):
        evaluation.choose_threshold([0, 2], [0.5, 0.5])
    with pytest.raises(ValueError, match="0 of 2 labels are 1"):
        evaluation.choose_threshold([0, 0], [0.5, 0.5])
    with pytest.raises(ValueError, match="'accuracy' is unknown"):
        evaluation.paired_bootstrap("accuracy", [0.5], [0.5], [1])
    with pytest.raises(ValueError, match="must be the same"):
        evaluation.paired_bootstrap("mrr", [1, 2], [1])
    with pytest.raises(ValueError, match="needs labels"):
        evaluation.paired_bootstrap("auc", [0.5], [0.5])
