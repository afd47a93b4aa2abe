"""Blends: distributions, ranks, and weights that validation chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.baselines import RankingExamples, content, own_history
from training.blend import Blend, Judged, among_best, choose, distribution, flattened, ranks


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


def test_the_best_of_each_rank_as_all_do() -> None:
    """Of the best items of each and the target alone, every blend gives the target its rank among all, near the top."""
    rng = np.random.default_rng(0)
    n, items = 40, 300
    parts = {
        "one": distribution(rng.exponential(size=(n, items)).astype(np.float32) ** 4),
        "other": distribution((rng.random((n, items)) * (rng.random((n, items)) < 0.05)).astype(np.float32)),
        "everybody's": distribution(rng.exponential(size=(1, items)).astype(np.float32)),
    }
    whole = parts | {"everybody's": np.repeat(parts["everybody's"], n, 0)}
    target = rng.integers(-1, items, n)
    few = among_best(parts, target, deep=40)
    for weights, roots in (((1.0, 0.0, 0.0), (1, 0, 0)), ((0.4, 0.5, 0.1), (2, 0, 1)), ((0.1, 0.2, 0.7), (0, 1, 2))):
        names = list(parts)
        blend = Blend(weights=dict(zip(names, weights, strict=True)), roots=dict(zip(names, roots, strict=True)))
        expected, found = ranks(blend.scores(whole), target), few.ranks(blend)
        near = expected <= 20
        assert (found[near] == expected[near]).all()
        assert (found[~near] > 20).all()


def test_what_gives_nothing_sure_has_no_say() -> None:
    """A step that helps a few by chance is taken where any gain counts, and not where it has to be sure."""
    rng = np.random.default_rng(1)
    target = rng.integers(50, size=300)
    good = rng.random((300, 50)).astype(np.float32)
    good[np.arange(300), target] += np.float32(0.5)
    good[0, target[0]] = 0.01
    lucky = np.zeros((300, 50), np.float32)
    lucky[0, target[0]] = 1
    parts = {"good": distribution(good), "lucky": lucky}
    assert choose([Judged(distributions=parts, target=target)]).weights["lucky"] > 0
    assert choose([Judged(distributions=parts, target=target)], sure=2).weights == {"good": 1.0, "lucky": 0.0}
    # half the users are known to one more alone: that is sure
    parts["knows"] = distribution(rng.random((300, 50)).astype(np.float32))
    parts["knows"][::2] = np.eye(50, dtype=np.float32)[target[::2]]
    assert choose([Judged(distributions=parts, target=target)], sure=2).weights["knows"] > 0
