"""Pareto/NBD (Schmittlein, Morrison, Colombo 1987): customers buy at a steady rate of their own until they leave.

Rates are gamma distributed over customers (r, alpha), and so are the hazards of leaving (s, beta). As in `bgnbd`, sums
are of logarithms, and Euler's transformation takes the large powers out of the hypergeometric function. What is left of
it lies between 1 and 1 / (1 - z), and is a continued fraction: scipy's gives NaN for frequent customers when z nears 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.special import expit, gammaln

from training.baselines.likelihood import maximise
from training.purchases.history import Floats, Summary

_POLE = 1e-9  # the formula is 0 / 0 at s = 1; expm1 keeps it precise this close
_TERMS = 2_000  # of the continued fraction, at most: enough up to z = 1 - 1e-5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@dataclass(frozen=True, kw_only=True)
class ParetoNbd:
    """A fitted model; time is in weeks."""

    r: float
    alpha: float
    s: float
    beta: float

    def log_likelihood(self, seen: Summary) -> Floats:
        """By customer: float64 [n]."""
        r, alpha, s, beta = self.r, self.alpha, self.s, self.beta
        rate = gammaln(r + seen.x) - gammaln(r) + r * np.log(alpha) + s * np.log(beta)
        here = self._still_here(seen)
        return rate + np.logaddexp(here, here + self._odds_of_leaving(seen))

    def alive(self, seen: Summary) -> Floats:
        """P(has not left by the end of the history): float64 [n]."""
        return expit(-self._odds_of_leaving(seen))

    def expected(self, seen: Summary, weeks: float) -> Floats:
        """Purchases to expect in the `weeks` after the history: float64 [n]."""
        power = self.s - 1 if abs(self.s - 1) > _POLE else _POLE
        there = -np.expm1(-power * np.log1p(weeks / (self.beta + seen.T))) / power
        return self.alive(seen) * (self.r + seen.x) * (self.beta + seen.T) / (self.alpha + seen.T) * there

    def buys_again(self, seen: Summary, weeks: float) -> Floats:
        """P(one or more purchases in the `weeks` after the history): float64 [n].

        The chance to be there still, over the time of the next purchase: smooth along the quantiles of that time.
        """
        rate, beta = self.r + seen.x, self.beta + seen.T
        silent = np.exp(-rate * np.log1p(weeks / (self.alpha + seen.T)))  # nobody leaves, and yet nothing is bought
        quantiles = silent[:, None] + (1 - silent[:, None]) * (_NODES + 1) / 2
        time = (self.alpha + seen.T)[:, None] * np.expm1(-np.log(quantiles) / rate[:, None])
        there = np.exp(-self.s * np.log1p(time / beta[:, None]))
        return self.alive(seen) * (1 - silent) * (there @ _WEIGHTS) / 2

    def _still_here(self, seen: Summary) -> Floats:
        """Logarithm of what the likelihood has for those who have not left: float64 [n]."""
        return -(self.r + seen.x) * np.log(self.alpha + seen.T) - self.s * np.log(self.beta + seen.T)

    def _odds_of_leaving(self, seen: Summary) -> Floats:
        """Logarithm of P(left since the last purchase) / P(still there): float64 [n]."""
        early, late = self._left_after(seen, seen.t_x), self._left_after(seen, seen.T)
        with np.errstate(divide="ignore"):  # last purchase at the end of the history: no time to leave
            since = early + np.log(-np.expm1(np.minimum(late - early, 0)))
        return np.log(self.s) - np.log(self.r + self.s + seen.x) + since - self._still_here(seen)

    def _left_after(self, seen: Summary, t: Floats) -> Floats:
        """Logarithm of the published 2F1(...) / (max(alpha, beta) + t)^(r + s + x): float64 [n]."""
        low, high = sorted((self.alpha, self.beta))
        power = self.r + self.s + seen.x
        other = self.s + 1 if self.alpha >= self.beta else self.r + seen.x
        z = (high - low) / (high + t)
        return (
            np.log(_hypergeometric(power + 1 - other, power + 1, z))
            + (1 - other) * np.log1p(-z)
            - power * np.log(high + t)
        )


@njit(cache=True)
def _hypergeometric(b: Floats, c: Floats, z: Floats) -> Floats:
    """2F1(1, b; c; z) for 0 < b < c and 0 <= z < 1, by Gauss's continued fraction: [n]."""
    found = np.empty_like(z)
    for at in range(len(z)):
        gap = np.sqrt(1 - z[at])
        shrinks = 2 * np.log((1 + gap) / max(1 - gap, 1e-8))  # by e to this with every pair of terms
        terms = min(int(36 / shrinks) + 2, _TERMS)  # e^-36 is below the precision of a float
        rest = 0.0
        for k in range(terms - 1, -1, -1):
            low = c[at] + 2 * k
            even = (k + 1) * (c[at] - b[at] + k) / (low * (low + 1)) * z[at]
            odd = (b[at] + k) * (c[at] - 1 + k) / ((low - 1) * low) * z[at]
            rest = odd / (1 - even / (1 - rest))
        found[at] = 1 / (1 - rest)
    return found


def fit(seen: Summary, near: ParetoNbd | None = None) -> ParetoNbd:
    """By maximum likelihood, searched from parameters that are `near` where there are any.

    Raises:
        ValueError: nobody bought twice, or no maximum was found.
    """
    distinct, weights = seen.distinct()

    def total(values: Floats) -> float:
        return float(weights @ ParetoNbd(**_named(values)).log_likelihood(distinct))

    start = (1.0, 10.0, 0.7, 12.0) if near is None else (near.r, near.alpha, near.s, near.beta)
    return ParetoNbd(**_named(maximise(total, start=start, seen=seen, name="Pareto/NBD")))


def _named(values: Floats) -> dict[str, float]:
    return dict(zip(("r", "alpha", "s", "beta"), map(float, values), strict=True))
