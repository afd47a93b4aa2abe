"""The handbook's protocol: which rows train and test a week, and what a score is worth.

A week's model learns from the seven days that ended seven days before it, since labels come that late. On each test
day the cards are left out of which a fraud is known by then. Everything is counted in days from the file's first.

Card precision@100 is the handbook's: each day the 100 cards of highest score are looked at, the share that is
compromised is the day's precision, and cards that were found leave the days that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
METRICS = ("auc", "ap", "cp100")
WEEK = 7
TOP = 100
_BOOK_TRAIN_SHARE = 115 / 183
"""Where in the handbook's own file its training week begins."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A test week with its rows, int64 each; `start` is its first day."""

    start: int
    train: Ints
    test: Ints


@dataclass(frozen=True, kw_only=True)
class Plan:
    """First test days: of weeks that choose, of all weeks that are measured, and of the handbook's test week."""

    validation: tuple[int, ...]
    prequential: tuple[int, ...]
    test: int


def plan(days: int, *, train_start: int | None, folds: int, validation: int, delay: int) -> Plan:
    """Lay weeks over a file of `days` days.

    The test week is where the handbook has it, as a share of the file, unless `train_start` (a day) says otherwise.
    Measured are all weeks from there on and as many before as make `folds`; the labels of the validation weeks were
    known before the first of them.

    Raises:
        ValueError: the file is too short.
    """
    began = round(days * _BOOK_TRAIN_SHARE) if train_start is None else train_start
    test = began + WEEK + delay
    later = (days - test) // WEEK
    first = test - WEEK * max(folds - later, 0)
    gap = WEEK * -(-delay // WEEK)  # whole weeks, so that the grid stays one
    choose = tuple(first - gap - WEEK * back for back in range(validation, 0, -1))
    earliest = min(choose, default=first) - delay - WEEK
    if later < 1 or earliest < 1 or began < 1:
        message = (
            f"the file spans {days} days; with training from day {began}, {folds} measured and {validation} validation "
            f"weeks need days {earliest} to {test + WEEK}: take a longer file, or fewer --folds"
        )
        raise ValueError(message)
    return Plan(validation=choose, prequential=tuple(range(first, days - WEEK + 1, WEEK)), test=test)


def fold(day: Ints, card: Ints, fraud: Ints, *, start: int, delay: int) -> Fold:
    """The rows of the week from day `start`; `day`, `card` and `fraud` are int64 [n].

    Raises:
        ValueError: the training or the test rows hold one class alone.
    """
    began = start - delay - WEEK
    train = np.flatnonzero((day >= began) & (day < began + WEEK))
    kept = []
    for one in range(start, start + WEEK):
        known = np.unique(card[(day >= began) & (day < one - delay) & (fraud == 1)])
        rows = np.flatnonzero(day == one)
        kept.append(rows[~np.isin(card[rows], known)])
    found = Fold(start=start, train=train, test=np.concatenate(kept))
    for name, rows in (("training", found.train), ("test", found.test)):
        if not 0 < fraud[rows].sum() < len(rows):
            message = (
                f"{fraud[rows].sum()} of {len(rows)} {name} rows of the week from day {start} are fraud: need both"
            )
            raise ValueError(message)
    return found


class Ruler:
    """Measures one score over one fold, with or without drawing cards again.

    What depends on the score alone (orders, ties) is worked out once, so a resample is a few cumulative sums.
    """

    def __init__(self, score: Floats, fraud: Ints, card: Ints, day: Ints) -> None:
        """Of the fold's test rows, [n] each; `card` counts from 0 over all cards there are."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        self._card, self._fraud = card[order], fraud[order]
        self._positive = np.flatnonzero(self._fraud)
        # a threshold never splits equal scores: first and one past the last row of each positive's score
        self._tie_first = np.searchsorted(-ranked, -ranked[self._positive], side="left")
        self._tie_end = np.searchsorted(-ranked, -ranked[self._positive], side="right")
        self._days = [_cards_of_day(score[rows], fraud[rows], card[rows]) for rows in _by_day(day)]

    def measure(self, weight: Floats) -> Floats:
        """`METRICS`, [3]; each card counts `weight` times, float64 [cards]. NaN where a class is not drawn."""
        each = weight[self._card]
        positive = each * self._fraud
        flagged, caught = _from_zero(each), _from_zero(positive)
        weight_q = positive[self._positive]
        all_positive, all_negative = caught[-1], flagged[-1] - caught[-1]
        if not all_positive or not all_negative:
            return np.full(len(METRICS), np.nan)
        caught_q, flagged_q = caught[self._tie_end], flagged[self._tie_end]
        precision = np.divide(caught_q, flagged_q, out=np.zeros_like(caught_q), where=flagged_q > 0)
        above_q = flagged[self._tie_first] - caught[self._tie_first]
        below_q = all_negative - (flagged_q - caught_q)
        tied_q = all_negative - above_q - below_q
        auc = weight_q @ (below_q + 0.5 * tied_q) / (all_positive * all_negative)
        return np.array([auc, weight_q @ precision / all_positive, self._card_precision(weight)])

    def _card_precision(self, weight: Floats) -> float:
        left = weight.copy()
        found = []
        for card, compromised in self._days:
            each = left[card]
            looked_at = np.clip(TOP - (np.cumsum(each) - each), 0, each)
            found.append(float(looked_at @ compromised) / TOP)
            left[card[(looked_at > 0) & (compromised > 0)]] = 0
        return float(np.mean(found))


def _by_day(day: Ints) -> list[Ints]:
    return [np.flatnonzero(day == one) for one in np.unique(day)]


def _cards_of_day(score: Floats, fraud: Ints, card: Ints) -> tuple[Ints, Ints]:
    """The day's cards by their highest score, and whether each has a fraud."""
    cards, member = np.unique(card, return_inverse=True)
    highest, compromised = np.full(len(cards), -np.inf), np.zeros(len(cards), np.int64)
    np.maximum.at(highest, member, score)
    np.maximum.at(compromised, member, fraud)
    order = np.argsort(-highest, kind="stable")
    return cards[order], compromised[order]


def _from_zero(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def resample(rulers: Sequence[Sequence[Ruler]], cards: int, *, samples: int, seed: int = 0) -> Floats:
    """Means over folds of every method's metrics, [samples, methods, 3]; cards are drawn, the same for all.

    Args:
        rulers: one list of folds a method.
        cards: how many there are.
        samples: resamples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(cards, np.full(cards, 1 / cards), size=samples).astype(np.float64)
    return np.stack([[measure(folds, draw) for folds in rulers] for draw in draws])


def measure(folds: Sequence[Ruler], weight: Floats) -> Floats:
    """`METRICS`, means over the folds, [3]."""
    return np.mean([one.measure(weight) for one in folds], axis=0)
