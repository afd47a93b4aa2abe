"""Metrics of classes, counts and times: each held to a naive version or to arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from training.evaluation import paired_bootstrap
from training.head_metrics import (
    auc,
    class_metrics,
    concordance,
    kaplan_meier,
    log_likelihoods,
    metrics_of,
    restricted_mean,
)

DAY = 86_400.0
EDGES = [1 * DAY, 3 * DAY, 7 * DAY]
TIMES = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25)


def likelihood(head: str, label: Any, answer: list[float], **more: Any) -> float:  # noqa: ANN401 - of any head
    return float(log_likelihoods({"head": head, **more}, np.array([label]), np.array([answer]))[0])


def test_the_likelihood_of_a_class_is_its_logarithm() -> None:
    """Of probabilities 3/4 and 1/4; a class that training had not seen has none, one that was ruled out is finite."""
    assert likelihood("multiclass", 1, [0.75, 0.25]) == pytest.approx(math.log(0.25))
    assert math.isnan(likelihood("multiclass", -1, [0.75, 0.25]))
    assert likelihood("multiclass", 1, [1.0, 0.0]) == pytest.approx(math.log(1e-12))


def test_the_likelihood_of_a_count_is_negative_binomial() -> None:
    """With mean 2 and shape 1 (geometric, chance of one more 2/3), three events have probability (2/3)^3 / 3."""
    assert likelihood("count", 3, [2.0, 2 / 3, 1.0]) == pytest.approx(math.log((2 / 3) ** 3 / 3))
    poisson = math.exp(-2) * 2**3 / 6
    assert likelihood("count", 3, [2.0, 0.86, 1e9]) == pytest.approx(math.log(poisson), abs=1e-5)


@given(st.floats(0, 9 * DAY), st.booleans(), st.lists(st.floats(0.001, 2.0), min_size=len(EDGES), max_size=len(EDGES)))
def test_the_likelihood_of_a_time_is_that_of_constant_rates(seconds: float, seen: bool, events: list[float]) -> None:  # noqa: FBT001
    """Whatever happens after the last edge is the same as being cut off there."""
    by_edge = (1 - np.exp(-np.cumsum(events))).tolist()
    found = likelihood("time", [seconds, float(seen)], by_edge, edges=EDGES)
    expected = oracles.time_likelihood(EDGES, by_edge, seconds, seen)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_head_and_the_metric_have_one_likelihood() -> None:
    """What `Head.answers` gives is all that the metrics need: the loss comes out again."""
    import torch

    from training.heads import CountHead, Head, MulticlassHead, TimeHead

    torch.manual_seed(0)
    seconds = 7 * DAY * torch.rand(50, dtype=torch.float64)
    heads: list[tuple[str, Head, torch.Tensor]] = [
        ("multiclass", MulticlassHead(4), torch.randint(0, 4, (50,))),
        ("count", CountHead(), torch.randint(0, 6, (50,))),
        ("time", TimeHead(EDGES), torch.stack([seconds, torch.randint(0, 2, (50,)).double()], 1)),
    ]
    for name, head, target in heads:
        out = torch.randn(50, head.outputs, dtype=torch.float64)
        found = log_likelihoods({"head": name, "edges": EDGES}, target.numpy(), head.answers(out).numpy())
        assert found.mean() == pytest.approx(-float(head.loss(out, target)), rel=1e-5), name


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_class_metrics_are_those_of_the_naive_way(pairs: list[tuple[int, int]]) -> None:
    """Accuracy and the means of precision, recall and F1 over the classes that occur."""
    labels, chosen = [one for one, _ in pairs], [one for _, one in pairs]
    found = class_metrics(np.array(labels), np.eye(4)[chosen])
    for name, value in oracles.class_figures(labels, chosen).items():
        assert found[name] == pytest.approx(value), name


def test_the_first_three_count_ties_against_the_model() -> None:
    """Of four equal classes none is among the first three; the likeliest two are."""
    answers = np.array([[0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
    assert class_metrics(np.array([0, 2, 3]), answers)["top_3"] == pytest.approx(1 / 3)


def test_count_metrics_are_arithmetic() -> None:
    """Expected 1 and 3 where 0 and 4 came."""
    answers = np.array([[1.0, 0.5, 2.0], [3.0, 0.9, 2.0]])
    found = metrics_of({"head": "count"}, np.array([0, 4]), answers)
    assert found["bias"] == pytest.approx((1 + 3 - 4) / 2)
    assert found["mae"] == found["rmse"] == pytest.approx(1)
    assert found["deviance"] == pytest.approx((2 * 1 + 2 * (4 * math.log(4 / 3) - 1)) / 2)
    assert found["auc_of_any"] == 1


@given(TIMES)
@settings(max_examples=200, deadline=None)  # the first call compiles
def test_concordance_is_that_of_all_pairs(rows: list[tuple[int, bool, int]]) -> None:
    """With ties of times and of risks, and examples cut off at the moment when others happened."""
    labels, risk = [(float(time), seen) for time, seen, _ in rows], [float(one) for _, _, one in rows]
    found = concordance(np.array(labels, np.float64), np.array(risk))
    assert found == pytest.approx(oracles.concordance(labels, risk), nan_ok=True)


@given(TIMES, st.integers(0, 7))
def test_kaplan_meier_is_a_product(rows: list[tuple[int, bool, int]], at: int) -> None:
    """Share still waiting before a moment, among those who were watched as long."""
    labels = [(float(time), seen) for time, seen, _ in rows]
    found = kaplan_meier(np.array(labels, np.float64), np.array([float(at)]))[0]
    assert found == pytest.approx(oracles.kaplan_meier(labels, at))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
def test_auc_counts_ties_half(rows: list[tuple[bool, int]]) -> None:
    """A yes above a no is a win, beside it half of one."""
    yes, no = ([score for label, score in rows if label is one] for one in (True, False))
    if not yes or not no:
        return
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in yes for b in no)
    found = auc(np.array([label for label, _ in rows]), np.array([float(score) for _, score in rows]))
    assert found == pytest.approx(wins / len(yes) / len(no))


def test_an_edge_is_judged_by_all_who_were_watched_as_long() -> None:
    """Of examples that the log ended before, those who had happened by then do not count either."""
    rng = np.random.default_rng(0)
    happens, watched = rng.exponential(2 * DAY, 4_000), rng.uniform(0, 6 * DAY, 4_000)
    labels = np.stack([np.minimum(happens, watched), happens < watched], 1)
    by_edge = 1 - np.exp(-np.array(EDGES) / (2 * DAY))
    found = metrics_of({"head": "time", "edges": EDGES}, labels, np.tile(by_edge, (4_000, 1)), watched)
    assert "brier@7d" not in found  # nobody was watched for seven days
    for at, name in ((0, "brier@1d"), (1, "brier@3d")):
        assert found[name] == pytest.approx(by_edge[at] * (1 - by_edge[at]), abs=0.01), name
    assert found["auc@1d"] == 0.5
    assert found["concordance"] == 0.5


def test_the_mean_time_is_the_area_under_those_who_wait() -> None:
    """By 1, 3 and 7 days none, half and half: 1 + 2 * 3/4 + 4 / 2 days."""
    assert restricted_mean(np.array(EDGES), np.array([[0.0, 0.5, 0.5]]))[0] == pytest.approx(4.5 * DAY)


def test_likelihoods_are_compared_by_whole_groups() -> None:
    """The difference of means is exact, its interval that of means over drawn groups: one group, no spread."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=100), rng.normal(size=100)
    found = paired_bootstrap("log_likelihood", a, b, groups=np.arange(100) // 5, samples=200)
    assert found["difference"] == pytest.approx(a.mean() - b.mean())
    assert found["low"] < found["difference"] < found["high"]
    one = paired_bootstrap("log_likelihood", a, b, groups=np.zeros(100), samples=20)
    assert one["low"] == pytest.approx(one["high"])


def test_nothing_known_is_refused() -> None:
    """Where no test example has a class that training had seen there is nothing to measure."""
    with pytest.raises(ValueError, match="nothing to measure"):
        metrics_of({"head": "multiclass"}, np.array([-1]), np.array([[0.5, 0.5]]))
