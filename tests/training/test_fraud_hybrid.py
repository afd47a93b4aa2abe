"""Features and sequences of payments against their definitions, and the hybrid that learns from them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import EncoderConfig
from training.hybrids.card_history import CARD_FEATURES, EXCESS, ODD, card_features
from training.hybrids.hybrid import HybridConfig, PaymentBook, fit
from training.hybrids.network import NetworkConfig
from training.hybrids.payments import DAY, Payments
from training.hybrids.place_history import PLACE_FEATURES, PLAIN, place_features
from training.hybrids.sequences import cut

HOUR = DAY // 24
DELAY = 7 * DAY


def payments_at(seed: int, rows: int, days: int, cards: int, places: int) -> Payments:
    """Payments at whole hours, so that ties and edges of windows are hit; no label says anything."""
    rng = np.random.default_rng(seed)
    return Payments(
        time=np.sort(rng.integers(0, 24 * days, rows)) * HOUR,
        card=rng.integers(0, cards, rows),
        place=rng.integers(0, places, rows),
        amount=rng.integers(0, 30_000, rows),
        fraud=(rng.random(rows) < 0.3).astype(np.int64),
        delay=DELAY,
    )


worlds = st.builds(
    payments_at,
    seed=st.integers(0, 1_000),
    rows=st.integers(1, 60),
    days=st.integers(1, 40),
    cards=st.integers(1, 4),
    places=st.integers(1, 4),
)


def naive_card(p: Payments, i: int) -> dict[str, float]:
    """The card features of payment i, one payment of the past after the other."""
    t, x = p.time[i], p.amount[i]
    past = [j for j in range(len(p.time)) if p.card[j] == p.card[i] and p.time[j] < t]
    known = [j for j in past if p.time[j] < t - p.delay]
    frauds = [j for j in known if p.fraud[j]]
    found = dict.fromkeys(CARD_FEATURES, math.nan)
    found |= {"card_payments": len(past), "card_frauds": len(frauds)}
    found["card_frauds_14d"] = sum(p.time[j] >= t - 14 * DAY for j in frauds)
    found["card_rank"] = (sum(p.amount[j] >= x for j in past) + 1) / (len(past) + 1)
    found |= {"card_odd": 0, "card_excess": 0, "card_odd_share": 0}
    if frauds:
        found["card_since_fraud"] = (t - p.time[frauds[-1]]) / DAY
    clean = [p.amount[j] for j in past if j not in frauds]
    if clean:
        mean = float(np.mean(clean))
        found["card_mean"], found["card_over_mean"] = mean, x / max(mean, 1)
        found["card_z"] = (x - mean) / (float(np.std(clean)) + 100)
    if past:
        rising = sorted(p.amount[j] for j in past)
        median = max(rising[len(past) // 2], 1)
        found["card_gap"] = (t - p.time[past[-1]]) / DAY
        found["card_over_median"] = x / median
        found["card_over_q90"] = x / max(rising[9 * len(past) // 10], 1)
        fresh = [j for j in past if j not in known]
        odd = [j for j in fresh if p.amount[j] / median > ODD]
        found |= {"card_odd": len(odd), "card_odd_share": len(odd) / max(len(fresh), 1)}
        found["card_excess"] = sum(max(p.amount[j] / median - EXCESS, 0) for j in fresh)
        if odd:
            found["card_since_odd"] = (t - p.time[odd[-1]]) / DAY
    return found


def naive_place(p: Payments, over_median: np.ndarray, i: int) -> dict[str, float]:
    """The place features of payment i, one known payment after the other."""
    t = p.time[i]
    known = [j for j in range(len(p.time)) if p.place[j] == p.place[i] and p.time[j] < t - p.delay]
    frauds = [j for j in known if p.fraud[j]]
    plain = [j for j in frauds if not over_median[j] >= PLAIN]
    genuine = [j for j in known if not p.fraud[j]]
    run = [j for j in frauds if not genuine or j > genuine[-1]]
    before = [j for j in genuine if run and j < run[0]]

    def since(rows: list[int]) -> float:
        return (t - p.time[rows[0]]) / DAY if rows else math.nan

    def faded(rows: list[int], days: int) -> float:
        return sum(math.exp(-(t - p.time[j]) / DAY / days) for j in rows)

    return {
        "place_since_fraud": since(frauds[-1:]),
        "place_since_genuine": since(genuine[-1:]),
        "place_run": len(run),
        "place_since_run": since(run),
        "place_since_before_run": since(before[-1:]),
        "place_frauds_3d": faded(frauds, 3),
        "place_frauds_14d": faded(frauds, 14),
        "place_share_14d": faded(frauds, 14) / faded(known, 14) if known else 0.0,
        "place_since_plain": since(plain[-1:]),
        "place_plain_14d": faded(plain, 14),
        "place_frauds": len(frauds),
    }


@settings(max_examples=40, deadline=None)
@given(world=worlds)
def test_features_are_those_of_the_naive_version(world: Payments) -> None:
    """Every feature of every payment equals its definition, ties and zero amounts included."""
    card = card_features(world)
    over_median = card[:, CARD_FEATURES.index("card_over_median")]
    place = place_features(world, over_median)
    for i in range(len(world.time)):
        expected = naive_card(world, i)
        assert dict(zip(CARD_FEATURES, card[i], strict=True)) == pytest.approx(expected, rel=1e-9, nan_ok=True)
        expected = naive_place(world, over_median, i)
        assert dict(zip(PLACE_FEATURES, place[i], strict=True)) == pytest.approx(expected, rel=1e-9, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(world=worlds)
def test_what_is_not_known_yet_changes_nothing(world: Payments) -> None:
    """An example is the same with other labels inside the delay, and without the payments that come later."""
    i = len(world.time) // 2
    row = np.array([i])
    t = world.time[i]
    until = int(np.searchsorted(world.time, t, side="right"))
    hidden = world.time >= t - world.delay
    blind = replace(
        world,
        **{name: getattr(world, name)[:until] for name in ("time", "card", "place", "amount")},
        fraud=np.where(hidden, 1 - world.fraud, world.fraud)[:until],
    )
    a, b = PaymentBook(world).examples(row), PaymentBook(blind).examples(row)
    np.testing.assert_array_equal(a.features, b.features)
    for name in ("card_BLC", "card_length_B", "place_BLC", "place_length_B"):
        np.testing.assert_array_equal(getattr(a.sequences, name), getattr(b.sequences, name))


def test_sequences_hold_the_last_events_oldest_first() -> None:
    """The card's last two payments and this one; the place's last one whose label is known."""
    world = Payments(
        time=np.array([0, 1, 2, 12]) * DAY,
        card=np.array([5, 5, 5, 5]),
        place=np.array([7, 7, 8, 7]),
        amount=np.array([1_000, 2_000, 4_000, 3_000]),
        fraud=np.array([0, 1, 0, 0]),
        delay=DELAY,
    )
    over_median = card_features(world)[:, CARD_FEATURES.index("card_over_median")]
    found = cut(world, over_median, np.array([3, 0]), card_last=2, place_last=1)
    assert found.card_length_B.tolist() == [3, 1]
    assert found.place_length_B.tolist() == [1, 0]
    # the median of 1,000, 2,000 and 4,000 is 2,000
    over = np.log1p(2_000) - np.log1p(3_000) + np.log(3_000 / 2_000)
    now = np.log(3_000 / 2_000)
    expected = [
        [over, np.log1p(11), np.exp(-11 / 14), 1, 0, np.log1p(2_000) - 8],
        [over + np.log1p(4_000) - np.log1p(2_000), np.log1p(10), np.exp(-10 / 14), 0, 1, np.log1p(4_000) - 8],
        [now, 0, 1, 0, 0, np.log1p(3_000) - 8],
    ]
    np.testing.assert_allclose(found.card_BLC[0], expected, rtol=1e-6)
    usual = np.log(2_000 / 1_000)  # under PLAIN times the card's median then
    np.testing.assert_allclose(
        found.place_BLC[0], [[usual, np.log1p(11), np.exp(-11 / 14), 1, 1, np.log1p(2_000) - 8]], rtol=1e-6
    )
    assert not found.place_BLC[1].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": np.array([2, 1])}, "time in row 1 is before"),
        ({"fraud": np.array([0, 2])}, "fraud is 2 in row 1"),
        ({"card": np.array([0])}, "different lengths"),
    ],
)
def test_bad_payments_are_refused(change: dict[str, np.ndarray], said: str) -> None:
    """What the passes rely on is checked, and the row is named."""
    two = np.array([0, 1])
    with pytest.raises(ValueError, match=said):
        Payments(**{"time": two, "card": two, "place": two, "amount": two, "fraud": two, "delay": 1, **change})


def planted(seed: int) -> Payments:
    """Cards with a usual amount each; fraud is five times as much, for some cards and a while."""
    rng = np.random.default_rng(seed)
    rows, cards = 6_000, 100
    card = rng.integers(0, cards, rows)
    usual = rng.integers(500, 5_000, cards)[card]
    fraud = rng.random(rows) < 0.03
    return Payments(
        time=np.sort(rng.integers(0, 60 * 24 * 60, rows)) * (HOUR // 60),
        card=card,
        place=rng.integers(0, 300, rows),
        amount=np.rint(usual * rng.uniform(0.5, 1.5, rows) * np.where(fraud, 5, 1)).astype(np.int64),
        fraud=fraud.astype(np.int64),
        delay=DELAY,
    )


@pytest.mark.parametrize("family", ["gru", "transformer"])
def test_both_halves_find_what_is_planted(family: str) -> None:
    """Trees, network and blend rank planted frauds first, with any encoder; a second fit gives the same scores."""
    from sklearn.metrics import roc_auc_score

    world = planted(0)
    book, rows = PaymentBook(world), np.arange(len(world.time))
    train, test = book.examples(rows[1_000:4_000]), book.examples(rows[4_000:])
    encoder = EncoderConfig(family=family, width=8, dropout=0.0)
    config = HybridConfig(network=NetworkConfig(encoder=encoder, epochs=4))
    labels = world.fraud[1_000:4_000]
    model = fit(train, labels, config=config, seed=3)
    for scores in (*model.halves(test), model.score(test)):
        assert roc_auc_score(world.fraud[4_000:], scores) > 0.95
    again = fit(train, labels, config=config, seed=3).score(test)
    np.testing.assert_array_equal(model.score(test), again)


def test_one_class_alone_is_refused() -> None:
    """A training range without fraud is named as such."""
    book = PaymentBook(planted(0))
    with pytest.raises(ValueError, match="0 of 50 training payments are fraud"):
        fit(book.examples(np.arange(50)), np.zeros(50, np.int64), config=HybridConfig(), seed=0)
