"""Blends: distributions, ranks, and weights that validation chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.baselines import RankingExamples, content, own_history
from training.blend import Blend, Judged, choose, distribution, flattened, ranks


def test_a_distribution_leaves_out_what_is_banned() -> None:
    """Shares of what is left; a row that says nothing stays nothing."""
    scores = np.array([[1, 3, 4], [0, 0, 2]], np.float32)
    found = distribution(scores, (np.array([0, 1]), np.array([2, 2])))
    assert found.tolist() == [[0.25, 0.75, 0], [0, 0, 0]]
    assert scores[0, 2] == 4, "what was given is left alone"


def test_ties_count_against_the_target() -> None:
    """Rank is 1 + those as good or better; banned items are not there; an unknown target is past the last."""
    scores = np.array([[0.5, 0.5, 0.1], [0.2, 0.9, 0.2], [1, 0, 0]], np.float32)
    assert ranks(scores, np.array([0, 0, -1])).tolist() == [2, 3, 4]
    assert ranks(scores, np.array([0, 0, -1]), (np.array([0, 1]), np.array([1, 1]))).tolist() == [1, 2, 4]


def test_validation_gives_each_what_it_is_good_for() -> None:
    """Two recommenders that are each right about half the users are better together than either."""
    rng = np.random.default_rng(0)
    target = rng.integers(50, size=400)
    parts = {}
    for name, knows in (("one", np.arange(400) % 2 == 0), ("other", np.arange(400) % 2 == 1)):
        scores = rng.random((400, 50)).astype(np.float32)
        scores[knows, target[knows]] = 20
        parts[name] = distribution(scores)
    judged = Judged(distributions=parts, target=target)
    found = choose([judged])
    alone = [ranks(parts[name], target).mean() for name in parts]
    assert ranks(found.scores(parts), target).mean() < min(alone)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert min(found.weights.values()) > 0


def test_nothing_to_choose_on_is_refused() -> None:
    """Weights without validation would be made up."""
    with pytest.raises(ValueError, match="there are none"):
        choose([])


def test_a_weight_of_one_is_that_recommender() -> None:
    """The corner of the blend is the recommender itself."""
    parts = {"a": np.array([[0.2, 0.8]], np.float32), "b": np.array([[0.9, 0.1]], np.float32)}
    assert Blend(weights={"a": 0.0, "b": 1.0}, roots={"a": 0, "b": 0}).scores(parts).tolist() == parts["b"].tolist()


def test_a_root_flattens_and_keeps_the_order() -> None:
    """Odds of 9 to 1 become 3 to 1; nothing stays nothing."""
    assert flattened(np.array([[0.9, 0.1, 0.0]], np.float32), 1)[0] == pytest.approx([0.75, 0.25, 0])
    assert flattened(np.zeros((1, 3), np.float32), 2).tolist() == [[0, 0, 0]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.sampled_from([1.0, 0.9, 0.5]))
def test_own_history_is_a_sum_over_the_history(items: list[int], decay: float) -> None:
    """Each event counts decay ^ age, whatever repeats."""
    examples = RankingExamples(
        items=np.array(items),
        starts=np.array([0]),
        ends=np.array([len(items)]),
        targets=np.array([0]),
        times=np.array([0]),
    )
    found = own_history.OwnHistory(decay=decay, items=5).scores(examples).toarray()[0]
    expected = np.zeros(5)
    for age, item in enumerate(reversed(items)):
        expected[item] += decay**age
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_items_that_share_what_is_rare_are_alike() -> None:
    """Of two items that share an attribute with the one seen, the rarer attribute wins; nobody is its own neighbour."""
    # attributes: 0 is of all items, 1 of items 0 and 1, 2 of items 0, 2, 3 and 4
    lists = [[0, 1, 2], [0, 1], [0, 2], [0, 2], [0, 2], [0], [0]]
    offsets = np.cumsum([0, *map(len, lists)])
    examples = RankingExamples(
        items=np.array([0]), starts=np.array([0]), ends=np.array([1]), targets=np.array([1]), times=np.array([0])
    )
    fitted = content.fit(offsets, np.concatenate(lists), np.ones(7), examples)
    scores = fitted.scores(examples).toarray()[0]
    assert scores[1] > scores[2] > 0
    assert scores[0] == 0
    assert scores[5] == 0
