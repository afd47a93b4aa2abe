"""Whether a canary is worse than its champion, over the same minute and the same kind of requests.

Every rule compares what the two did, and says so only where the difference is beyond its limit by more
than chance would give: two standard errors, so that few requests need a large difference and many a
small one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.rollout.answers import NOTHING, Reading
from serving.rollout.state import Limits

_ERRORS_OF_CHANCE = 2.0
_SLOW = 0.01
"""Share of requests that may be slower than a p99."""
_SMALLEST_DEVIATION = 0.01
"""Scores of a champion that hardly differ among each other do not make every difference a drift."""
_KEPT = 20_000


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One request: when it ended (seconds of any steady clock), whether it failed, seconds taken, what it said."""

    at: float
    failed: bool
    seconds: float
    said: Reading = NOTHING


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The rule that a canary broke, and the figures."""

    rule: str
    why: str


class Window:
    """The observations of the last seconds, of one bundle; at most 20,000 of them."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: deque[Observation] = deque(maxlen=_KEPT)

    def add(self, observation: Observation) -> None:
        """Take in a request that has ended."""
        self._seen.append(observation)

    def since(self, moment: float) -> list[Observation]:
        """What ended at `moment` or later; what is older is let go."""
        while self._seen and self._seen[0].at < moment:
            self._seen.popleft()
        return list(self._seen)


def judge(canary: Sequence[Observation], champion: Sequence[Observation], limits: Limits) -> Verdict | None:
    """The first rule that the canary breaks, or None.

    Errors of the canary count against none where the champion had no requests; everything else needs
    `min_requests` of both.
    """
    if len(canary) < limits.min_requests:
        return None
    worse = _errors(canary, champion, limits)
    if worse or len(champion) < limits.min_requests:
        return worse
    return _p99(canary, champion, limits) or _cold(canary, champion, limits) or _drift(canary, champion, limits)


def _errors(canary: Sequence[Observation], champion: Sequence[Observation], limits: Limits) -> Verdict | None:
    one, other = _Share.of([seen.failed for seen in canary]), _Share.of([seen.failed for seen in champion])
    if _beyond(one.value - other.value, math.hypot(one.error, other.error), limits.error_rate):
        return Verdict(rule="error_rate", why=f"errors {one} against {other}, allowed {limits.error_rate:.1%} more")
    return None


def _p99(canary: Sequence[Observation], champion: Sequence[Observation], limits: Limits) -> Verdict | None:
    base = float(np.quantile([seen.seconds for seen in champion], 1 - _SLOW))
    allowed = base * limits.p99_factor + limits.p99_slack_ms / 1000
    # a p99 of a hundred requests is their slowest: the share that is too slow says more
    slow = _Share.of([seen.seconds > allowed for seen in canary])
    if _beyond(slow.value, slow.error, _SLOW):
        return Verdict(
            rule="p99",
            why=f"{slow} took over {allowed * 1000:.0f} ms, where the champion's p99 is {base * 1000:.0f} ms",
        )
    return None


def _cold(canary: Sequence[Observation], champion: Sequence[Observation], limits: Limits) -> Verdict | None:
    known = [[seen.said.cold for seen in side if seen.said.cold is not None] for side in (canary, champion)]
    if min(map(len, known)) < limits.min_requests:
        return None
    one, other = (_Share.of(side) for side in known)
    if _beyond(one.value - other.value, math.hypot(one.error, other.error), limits.cold_start_share):
        allowed = f"{limits.cold_start_share:.1%}"
        return Verdict(rule="cold_starts", why=f"cold starts {one} against {other}, allowed {allowed} more")
    return None


def _drift(canary: Sequence[Observation], champion: Sequence[Observation], limits: Limits) -> Verdict | None:
    one, other = (
        np.array([seen.said.score for seen in side if seen.said.score is not None]) for side in (canary, champion)
    )
    if min(len(one), len(other)) < limits.min_requests:
        return None
    deviation = max(float(other.std()), _SMALLEST_DEVIATION)
    drift = abs(float(one.mean()) - float(other.mean())) / deviation
    error = math.sqrt(one.var() / len(one) + other.var() / len(other)) / deviation
    if _beyond(drift, error, limits.score_drift):
        return Verdict(
            rule="score_drift",
            why=f"mean score {one.mean():.4g} against {other.mean():.4g}: {drift:.2g} standard deviations, "
            f"allowed {limits.score_drift:g}",
        )
    return None


def _beyond(difference: float, error: float, limit: float) -> bool:
    return difference - _ERRORS_OF_CHANCE * error > limit


@dataclass(frozen=True, kw_only=True)
class _Share:
    """How many of how many."""

    hits: int
    of_: int

    @classmethod
    def of(cls, flags: Sequence[bool | None]) -> _Share:
        return cls(hits=sum(map(bool, flags)), of_=len(flags))

    @property
    def value(self) -> float:
        return self.hits / self.of_ if self.of_ else 0.0

    @property
    def error(self) -> float:
        """Standard error; one unseen success and failure keep it from being nothing."""
        smoothed = (self.hits + 1) / (self.of_ + 2)
        return math.sqrt(smoothed * (1 - smoothed) / self.of_) if self.of_ else 0.0

    def __str__(self) -> str:
        return f"{self.value:.1%} of {self.of_}"
