"""The figures of the fraud benchmark from its scores, and the table that it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from benchmarks.fraud_handbook_protocol import METRICS, Fold, Ruler, measure, resample
from training.hybrids.payments import Floats, Ints

OURS = "hybrid"
PEER = "xgboost"
PARTS = ("boosting", "network")
"""The halves of ours alone."""
_TEST_WEEK_ALONE = ("logistic_regression", "random_forest", "xgboost_defaults")
_PUBLISHED = {  # test week (chapter 3), prequential over 4 weeks (chapter 7)
    "decision tree, depth 2": ((0.763, 0.496, 0.241), (0.797, 0.579, 0.284)),
    "logistic regression": ((0.871, 0.606, 0.291), (0.868, 0.623, 0.297)),
    "random forest": ((0.867, 0.658, 0.287), (0.870, 0.678, 0.299)),
    "XGBoost": ((0.862, 0.639, 0.273), (0.869, 0.687, 0.303)),
    "feed-forward net": (None, (0.876, 0.675, 0.303)),
    "LSTM": (None, (0.876, 0.665, 0.297)),
    "LSTM + attention": (None, (0.874, 0.667, 0.295)),
}
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of every method in every fold.

    Attributes:
        folds: the measured weeks.
        test: which of them is the handbook's test week.
        methods: by name (of ours with the seed behind it), one array a fold, [test rows], or None.
        fraud: labels of all payments, int64 [n].
        card: of all payments, from 0 on, int64 [n].
        day: of all payments, int64 [n].
        seeds: how many of ours.
    """

    folds: Sequence[Fold]
    test: int
    methods: dict[str, list[Floats | None]]
    fraud: Ints
    card: Ints
    day: Ints
    seeds: int

    def rulers(self, method: str) -> list[Ruler]:
        """One for each fold that the method has a score of."""
        return [
            Ruler(score, self.fraud[one.test], self.card[one.test], self.day[one.test])
            for one, score in zip(self.folds, self.methods[method], strict=True)
            if score is not None
        ]

    def cards(self) -> int:
        """How many there are."""
        return int(self.card.max()) + 1

    def of_seeds(self, name: str) -> list[str]:
        """The methods of one name, a seed each."""
        return [f"{name}_{seed}" for seed in range(self.seeds)]


def figures(scores: Scores, *, samples: int) -> dict[str, object]:
    """Everything that the last line holds but the seconds.

    `auc`, `ap`, `cp100` and `prequential_*` are means over seeds of ours, `*_spread` their standard deviation;
    `*_interval` resamples cards, the same for all seeds and weeks; `*_over_xgboost` are paired differences.
    """
    once = np.ones(scores.cards())
    found: dict[str, object] = {"folds": len(scores.folds), "seeds": scores.seeds}
    for method in _TEST_WEEK_ALONE:
        found |= _named(f"{method}_", measure(scores.rulers(method), once))
    seeds = [scores.rulers(method) for method in scores.of_seeds(OURS)]
    peer = scores.rulers(PEER)
    parts = {part: [scores.rulers(method) for method in scores.of_seeds(part)] for part in PARTS}
    week = slice(scores.test, scores.test + 1)
    for prefix, span in (("", week), ("prequential_", slice(None))):
        each = np.stack([measure(one[span], once) for one in seeds])
        theirs = measure(peer[span], once)
        drawn = resample([*(one[span] for one in seeds), peer[span]], scores.cards(), samples=samples)
        ours = drawn[:, :-1].mean(axis=1)
        found |= _named(prefix, each.mean(axis=0))
        found |= _named(prefix, each.std(axis=0), "_spread")
        found |= _intervals(prefix, ours, "_interval")
        found |= _named(f"{PEER}_{prefix}", theirs)
        found |= _named(prefix, each.mean(axis=0) - theirs, f"_over_{PEER}")
        found |= _intervals(prefix, ours - drawn[:, -1], f"_over_{PEER}_interval")
        for part, rulers in parts.items():
            found |= _named(f"{part}_{prefix}", np.mean([measure(one[span], once) for one in rulers], axis=0))
    return found


def _named(prefix: str, values: Floats, suffix: str = "") -> dict[str, object]:
    return {f"{prefix}{metric}{suffix}": round(float(one), 5) for metric, one in zip(METRICS, values, strict=True)}


def _intervals(prefix: str, drawn: Floats, suffix: str) -> dict[str, object]:
    """95 % intervals of drawn metrics [samples, 3]."""
    bounds = np.nanpercentile(drawn, _INTERVAL, axis=0)
    return {
        f"{prefix}{metric}{suffix}": [round(float(low), 5), round(float(high), 5)]
        for metric, low, high in zip(METRICS, *bounds, strict=True)
    }


def table(scores: Scores, first: date, found: dict[str, object]) -> str:
    """What is printed: published figures, ours beside the peers', and week by week."""
    week = _day(first, scores.folds[scores.test].start)
    folds = f"{len(scores.folds)} weeks from {_day(first, scores.folds[0].start)} on"
    lines = [f"{'AUC / average precision / card precision@100':<44} {'test week ' + week:<24} {folds}", "published:"]
    lines += [f"  {name:<42} {_row(a):<24} {_row(b)}" for name, (a, b) in _PUBLISHED.items()]
    lines.append("on this file:")
    for method in (*_TEST_WEEK_ALONE, PEER, *PARTS, OURS):
        key = "" if method == OURS else f"{method}_"
        test, every = (_row(_values(found, key + prefix)) for prefix in ("", "prequential_"))
        lines.append(f"  {_title(method):<42} {test:<24} {every}")
    for title, suffix in (("spread over seeds", "_spread"), (f"{OURS} over {PEER}", f"_over_{PEER}")):
        test, every = (_row(_values(found, prefix, suffix)) for prefix in ("", "prequential_"))
        lines.append(f"  {title:<42} {test:<24} {every}")
    for metric in METRICS:
        test, every = (_span(found[f"{prefix}{metric}_over_{PEER}_interval"]) for prefix in ("", "prequential_"))
        lines.append(f"    95 % interval, {metric:<25} {test:<24} {every}")
    return "\n".join([*lines, "", *_by_week(scores, first)])


def _by_week(scores: Scores, first: date) -> list[str]:
    """Average precision and card precision@100 of ours (mean over seeds) and of the peer, week by week."""
    once = np.ones(scores.cards())
    seeds = [scores.rulers(method) for method in scores.of_seeds(OURS)]
    lines = [f"{'week':<12} {'frauds':>6}  {OURS:<22} {PEER}"]
    for at, (one, peer) in enumerate(zip(scores.folds, scores.rulers(PEER), strict=True)):
        ours = np.mean([rulers[at].measure(once) for rulers in seeds], axis=0)
        frauds = scores.fraud[one.test].sum()
        lines.append(f"{_day(first, one.start):<12} {frauds:>6}  {_row(ours):<22} {_row(peer.measure(once))}")
    return lines


def _title(method: str) -> str:
    known = {
        PEER: "XGBoost, book's features, chosen settings",
        "xgboost_defaults": "XGBoost, book's features, its defaults",
        "boosting": "ours, trees alone",
        "network": "ours, network alone",
        OURS: "ours, blended",
    }
    return known.get(method, f"{method.replace('_', ' ')}, book's features")


def _values(found: dict[str, object], prefix: str, suffix: str = "") -> list[object] | None:
    values = [found.get(f"{prefix}{metric}{suffix}") for metric in METRICS]
    return None if None in values else values


def _row(values: Sequence[object] | Floats | None) -> str:
    return "" if values is None else " / ".join(f"{one:.4f}" for one in values)


def _span(bounds: object) -> str:
    low, high = bounds if isinstance(bounds, list) else (np.nan, np.nan)
    return f"{low:+.4f} .. {high:+.4f}"


def _day(first: date, day: int) -> str:
    return str(first + timedelta(days=day))
