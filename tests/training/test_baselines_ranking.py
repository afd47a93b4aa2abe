"""Popularity and co-visitation: against arithmetic, a naive double loop, and published figures."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.baselines import RankingExamples, covisitation, popularity, subsample
from training.evaluation import ranking_metrics

DAY = 86_400_000_000
ONE_CHOICE = covisitation.CovisitationConfig(pair_decays=(0.8,), powers=(0.4,), query_decays=(0.7,))


def examples_of(sequences: list[list[int]], keep: slice = slice(1, None)) -> RankingExamples:
    """An example at every position (or at `keep` of them) of each sequence, a day apart."""
    starts, ends, days, at = [], [], [], 0
    for sequence in sequences:
        for position in range(len(sequence))[keep]:
            starts.append(at)
            ends.append(at + position)
            days.append(position)
        at += len(sequence)
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    return RankingExamples(
        items=items,
        starts=np.array(starts, dtype=np.int64),
        ends=np.array(ends, dtype=np.int64),
        targets=items[ends],
        times=np.array(days, dtype=np.int64) * DAY,
    )


def naive_similarity(train: list[list[int]], items: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The documented rule as loops over pairs; beside it how often each item was chosen."""
    count = np.zeros((items, items))
    frequency = np.zeros(items)
    for sequence in train:
        for at, after in enumerate(sequence[1:], 1):
            if after < 0:
                continue
            frequency[after] += 1
            for distance in range(1, min(ONE_CHOICE.window, at) + 1):
                before = sequence[at - distance]
                if before >= 0:
                    count[before, after] += 0.8 ** (distance - 1)
    factor = np.maximum(frequency, 1) ** -0.4
    return (count + ONE_CHOICE.reverse * count.T) * factor[:, None] * factor[None, :], frequency


def naive_ranks(train: list[list[int]], test: RankingExamples, items: int, *, exclude_seen: bool) -> list[int]:
    """Similarity first, then popularity, ties against the target, item by item."""
    similarity, frequency = naive_similarity(train, items)
    found = []
    for start, end, target in zip(test.starts, test.ends, test.targets, strict=True):
        history = test.items[start:end]
        score = np.zeros(items)
        for age, item in enumerate(history[::-1][: ONE_CHOICE.last]):
            score += 0.7**age * similarity[item] if item >= 0 else 0
        keys = [(round(float(score[item]), 5), frequency[item] if score[item] == 0 else 0.0) for item in range(items)]
        rivals = [item for item in range(items) if item != target and not (exclude_seen and item in history)]
        found.append(1 + sum(keys[item] >= keys[target] for item in rivals) if target >= 0 else items + 1)
    return found


@given(
    st.lists(st.lists(st.integers(-1, 7), min_size=2, max_size=14), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(-1, 7), min_size=2, max_size=14), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_covisitation_is_the_naive_rule(train: list[list[int]], test: list[list[int]], exclude_seen: bool) -> None:  # noqa: FBT001
    """Ranks equal those of the documented rule in plain loops, unknown items and silent neighbours included."""
    asked = examples_of(test)
    fitted = covisitation.fit(
        examples_of(train), asked, items=8, config=dataclasses.replace(ONE_CHOICE, exclude_seen=exclude_seen)
    )
    assert fitted.ranks(asked).tolist() == naive_ranks(train, asked, 8, exclude_seen=exclude_seen)


def test_covisitation_by_hand() -> None:
    """After 0, what followed 0 comes first; what only preceded it counts half; the rest comes by popularity."""
    train = examples_of([[0, 1], [0, 1], [2, 0], [3, 4], [3, 4], [3, 4]])
    asked = RankingExamples(
        items=np.array([0]),
        starts=np.zeros(6, dtype=np.int64),
        ends=np.ones(6, dtype=np.int64),
        targets=np.array([1, 2, 4, 0, 3, -1]),
        times=np.zeros(6, dtype=np.int64),
    )
    fitted = covisitation.fit(train, asked, items=5, config=dataclasses.replace(ONE_CHOICE, powers=(0.0,)))
    # 1: 2 follow; 2: 1 at half weight; then targets chosen 3 times (4), once (0), never (3); unknown: past all five
    assert fitted.ranks(asked).tolist() == [1, 2, 3, 4, 5, 5 + 1]


def test_only_the_strongest_neighbours_stay() -> None:
    """With one neighbour kept, the second strongest follower falls back on popularity."""
    train = examples_of([[0, 1], [0, 1], [0, 2], [3, 4], [3, 4]])
    asked = examples_of([[0, 2]])
    config = dataclasses.replace(ONE_CHOICE, powers=(0.0,))
    assert covisitation.fit(train, asked, items=5, config=config).ranks(asked).tolist() == [2]
    one = dataclasses.replace(config, neighbours=1)
    # 1 by similarity, 4 (chosen twice) by popularity, then 2
    assert covisitation.fit(train, asked, items=5, config=one).ranks(asked).tolist() == [3]


def test_covisitation_chooses_on_validation() -> None:
    """Where only the newest item tells, a query that forgets fast is chosen."""
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(200):
        sequence = [int(rng.integers(0, 40))]
        for _ in range(12):
            sequence.append((sequence[-1] * 7 + 3) % 40 if rng.random() < 0.9 else int(rng.integers(0, 40)))
        sequences.append(sequence)
    config = covisitation.CovisitationConfig(query_decays=(0.95, 0.3), most_validation=200)
    fitted = covisitation.fit(
        examples_of(sequences, slice(1, 11)), examples_of(sequences, slice(11, 12)), items=40, config=config
    )
    assert fitted.chosen.query_decay == 0.3
    assert ranking_metrics(fitted.ranks(examples_of(sequences, slice(12, 13))))["hit_rate@10"] > 0.9


def test_chunks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks computed three examples at a time are those computed at once."""
    rng = np.random.default_rng(1)
    sequences = [[int(item) for item in rng.integers(0, 30, 12)] for _ in range(20)]
    fitted = covisitation.fit(examples_of(sequences), examples_of(sequences), items=30, config=ONE_CHOICE)
    at_once = fitted.ranks(examples_of(sequences))
    monkeypatch.setattr(covisitation, "_DENSE_CELLS", 90)
    assert fitted.ranks(examples_of(sequences)).tolist() == at_once.tolist()


def test_popularity_by_hand() -> None:
    """Chosen 2, 1, 1 and 0 times: ranks 1, 3, 3 (a tie counts against), 4; unknown comes after all."""
    train = examples_of([[3, 0], [3, 0], [3, 1], [3, 2]])
    asked = RankingExamples(
        items=np.zeros(0, dtype=np.int64),
        starts=np.zeros(5, dtype=np.int64),
        ends=np.zeros(5, dtype=np.int64),
        targets=np.array([0, 1, 2, 3, -1]),
        times=np.zeros(5, dtype=np.int64),
    )
    fitted = popularity.fit(train, asked, items=4)
    assert fitted.ranks(asked).tolist() == [1, 3, 3, 4, 4 + 1]
    assert fitted.top(2).tolist() == [0, 1]


def test_popularity_forgets_when_fashion_changes() -> None:
    """Where the last days tell, a short half-life is chosen; each choice counts 0.5^(age / half-life)."""
    # item 0 ten times, long ago; item 1 three times on the last day
    targets = np.array([0] * 10 + [1] * 3 + [2])
    days = np.array([0] * 10 + [20] * 3 + [18])
    nothing = np.zeros(len(targets), dtype=np.int64)
    train = RankingExamples(
        items=np.zeros(0, dtype=np.int64), starts=nothing, ends=nothing, targets=targets, times=days * DAY
    )
    config = popularity.PopularityConfig(half_lives_days=(float("inf"), 2.0), metric="mrr")
    fitted = popularity.fit(train, train.take(np.array([10, 11, 12])), items=3, config=config)
    assert fitted.half_life_days == 2.0
    assert fitted.scores.tolist() == pytest.approx([10 * 0.5 ** (20 / 2), 3 * 1, 0.5 ** (2 / 2)])


def test_examples_must_fit_together() -> None:
    """Arrays of different lengths and ends beyond the history are refused."""
    zeros: NDArray[np.int64] = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="one entry per example"):
        RankingExamples(items=zeros, starts=zeros, ends=zeros, targets=zeros[:1], times=zeros)
    with pytest.raises(ValueError, match="items hold 2"):
        RankingExamples(items=zeros, starts=zeros, ends=zeros + 3, targets=zeros, times=zeros)


def test_subsample_keeps_order_and_seed() -> None:
    """At most the rows asked for, ascending, without doubles, the same for the same seed."""
    assert subsample(3, 5, 0).tolist() == [0, 1, 2]
    rows = subsample(1000, 10, 7)
    assert len(set(rows.tolist())) == 10
    assert rows.tolist() == sorted(rows.tolist()) == subsample(1000, 10, 7).tolist()


@pytest.mark.slow
def test_covisitation_on_amazon_beauty() -> None:
    """On Amazon Beauty (leave one out, seen items masked) it beats the published transformers: NDCG@10 above 0.05."""
    folder = Path(os.environ.get("CLICKTRAIL_DATA", "../shared/data")) / "amazon_beauty"
    if not folder.is_dir():
        pytest.skip("Amazon Beauty is not on this machine: set CLICKTRAIL_DATA to the folder that holds it")
    file = next(path for path in sorted(folder.glob("*.parquet")) if "attributes" not in path.name)
    table = pq.read_table(file).sort_by([("user_id", "ascending"), ("position", "ascending")])
    item_ids, items = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    _, first, length = np.unique(table["user_id"].to_numpy(), return_index=True, return_counts=True)
    start, position = np.repeat(first, length), table["position"].to_numpy()
    left = np.repeat(length, length) - 1 - position  # interactions after this one

    def at(rows: NDArray[np.int64]) -> RankingExamples:
        return RankingExamples(
            items=items, starts=start[rows], ends=rows, targets=items[rows], times=np.zeros(len(rows), dtype=np.int64)
        )

    train, validation, test = (
        at(np.flatnonzero(rows)) for rows in ((position >= 1) & (left >= 2), left == 1, left == 0)
    )
    config = covisitation.CovisitationConfig(exclude_seen=True)
    fitted = covisitation.fit(train, validation, items=len(item_ids), config=config)
    assert ranking_metrics(fitted.ranks(test))["ndcg@10"] > 0.05
