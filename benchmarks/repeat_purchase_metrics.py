"""How good forecasts of repeat purchases are, and which differences between models are more than chance.

Everything is computed from counts of how often each customer was drawn, so that a bootstrap never copies customers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.purchases.history import Floats

METRICS = ("rmse", "bias", "correlation", "auc")
GAINS = {"rmse": -1, "bias": -1, "correlation": 1, "auc": 1}  # what is better: less (bias: of its size), or more


class Judged:
    """One model's forecast, ready to be measured on any draw of customers.

    Args:
        target: [n], purchases in the hold-out.
        expected: [n], forecast of them.
        ranking: [n], what ranks customers by their chance to buy again.
    """

    def __init__(self, target: Floats, expected: Floats, ranking: Floats) -> None:
        """Sort once."""
        self._target, self._expected = target, expected
        self._order = np.argsort(ranking, kind="stable")
        ranked = ranking[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))  # of ties
        self._bought = (target > 0)[self._order]

    def measure(self, drawn: Floats) -> dict[str, float]:
        """Root mean square error, total bias, Pearson's correlation and AUC, where customer c was `drawn[c]` times.

        NaN where a figure does not exist: no purchase at all, or the same forecast for everybody.
        """
        y, e, n = self._target, self._expected, drawn.sum()
        mean_y, mean_e = drawn @ y / n, drawn @ e / n
        spread = (drawn @ (y - mean_y) ** 2) * (drawn @ (e - mean_e) ** 2)
        together = drawn @ ((y - mean_y) * (e - mean_e))
        return {
            "rmse": float(np.sqrt(drawn @ (y - e) ** 2 / n)),
            "bias": float(mean_e / mean_y - 1) if mean_y else np.nan,
            "correlation": float(together / np.sqrt(spread)) if spread > 1e-18 * n * n else np.nan,
            "auc": self._auc(drawn),
        }

    def _auc(self, drawn: Floats) -> float:
        weight = drawn[self._order]
        positive = np.add.reduceat(weight * self._bought, self._starts)
        negative = np.add.reduceat(weight * ~self._bought, self._starts)
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / pairs) if pairs else np.nan


def differences(
    ours: Sequence[Judged], peers: Mapping[str, Judged], customers: int, *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """How much better ours (mean of its seeds) is than each peer, in each metric, with a 95 % interval.

    Customers are drawn with replacement, and all models are measured on the same draws. More is better everywhere:
    errors enter with their sign turned, bias by its size.

    Returns:
        By peer and metric: `gain` on all customers, `low` and `high`.
    """
    rng = np.random.default_rng(seed)
    chance = np.full(customers, 1 / customers)
    gains = [_gains(ours, peers, np.ones(customers))]
    gains += [_gains(ours, peers, rng.multinomial(customers, chance).astype(np.float64)) for _ in range(draws)]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in peers:
        found[name] = {}
        for metric in METRICS:
            values = np.array([one[name][metric] for one in gains])
            low, high = np.nanpercentile(values[1:], [2.5, 97.5]) if np.isfinite(values[1:]).any() else (np.nan, np.nan)
            found[name][metric] = {"gain": float(values[0]), "low": float(low), "high": float(high)}
    return found


def _gains(ours: Sequence[Judged], peers: Mapping[str, Judged], drawn: Floats) -> dict[str, dict[str, float]]:
    measured = [one.measure(drawn) for one in ours]

    def gain(metric: str, peer: dict[str, float]) -> float:
        values = np.array([one[metric] for one in measured])
        if metric == "bias":
            return float(abs(peer[metric]) - np.abs(values).mean())
        return float(GAINS[metric] * (values.mean() - peer[metric]))

    return {
        name: {metric: gain(metric, peer) for metric in METRICS}
        for name, peer in ((name, judged.measure(drawn)) for name, judged in peers.items())
    }
