"""BG/NBD (Fader, Hardie, Lee 2005): customers buy at a steady rate of their own, and may leave after any purchase.

Rates are gamma distributed over customers (r, alpha), the chance to leave after a purchase beta distributed (a, b).
The published formulas overflow for customers with hundreds of purchases. Here sums are of logarithms, and Euler's
transformation of the hypergeometric function takes the large powers out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, gammaln, hyp2f1

from training.baselines.likelihood import maximise
from training.purchases.history import Floats, Summary

_POLE = 1e-6  # the formula is 0 / 0 at a = 1, and precise enough this far from it


@dataclass(frozen=True, kw_only=True)
class BgNbd:
    """A fitted model; time is in weeks."""

    r: float
    alpha: float
    a: float
    b: float

    def log_likelihood(self, seen: Summary) -> Floats:
        """By customer: float64 [n]."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        rate = gammaln(r + seen.x) - gammaln(r) + r * np.log(alpha)
        stay = gammaln(a + b) - gammaln(b) + gammaln(b + seen.x) - gammaln(a + b + seen.x)
        here = -(r + seen.x) * np.log(alpha + seen.T)
        return rate + stay + np.logaddexp(here, here + self._odds_of_leaving(seen))

    def alive(self, seen: Summary) -> Floats:
        """P(has not left by the end of the history): float64 [n]."""
        return expit(-self._odds_of_leaving(seen))

    def expected(self, seen: Summary, weeks: float) -> Floats:
        """Purchases to expect in the `weeks` after the history: float64 [n]."""
        a = self.a if abs(self.a - 1) > _POLE else 1 + _POLE
        total = a + self.b + seen.x - 1
        z = weeks / (self.alpha + seen.T + weeks)
        # (1 - z)^(r + x) 2F1(r + x, b + x; total; z) by Euler's transformation
        missed = (1 - z) ** (a - 1) * hyp2f1(a + self.b - 1 - self.r, a - 1, total, z)
        return self.alive(seen) * total / (a - 1) * (1 - missed)

    def buys_again(self, seen: Summary, weeks: float) -> Floats:
        """P(one or more purchases in the `weeks` after the history): float64 [n]."""
        silent = -(self.r + seen.x) * np.log1p(weeks / (self.alpha + seen.T))
        return -self.alive(seen) * np.expm1(silent)

    def _odds_of_leaving(self, seen: Summary) -> Floats:
        """Logarithm of P(left at the last purchase) / P(still there): float64 [n], -inf without a repeat purchase."""
        odds = (self.r + seen.x) * np.log((self.alpha + seen.T) / (self.alpha + seen.t_x))
        odds += np.log(self.a) - np.log(self.b + np.maximum(seen.x, 1) - 1)
        return np.where(seen.x > 0, odds, -np.inf)


def fit(seen: Summary) -> BgNbd:
    """By maximum likelihood.

    Raises:
        ValueError: nobody bought twice, or no maximum was found.
    """
    distinct, weights = seen.distinct()

    def total(values: Floats) -> float:
        return float(weights @ BgNbd(**_named(values)).log_likelihood(distinct))

    return BgNbd(**_named(maximise(total, start=(1.0, 10.0, 1.0, 3.0), seen=seen, name="BG/NBD")))


def _named(values: Floats) -> dict[str, float]:
    return dict(zip(("r", "alpha", "a", "b"), map(float, values), strict=True))
