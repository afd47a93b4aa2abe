"""What a front tells Prometheus; labels are the task, the role and a few fixed words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_DIFFERENCES = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class RolloutMetrics:
    """Figures of one front, in a registry of their own."""

    def __init__(self, task: str, in_flight: Callable[[], int]) -> None:
        """`in_flight` says how many requests the front has now."""
        self._registry = registry = CollectorRegistry()
        self._task = task
        self._requests = Counter(
            "clicktrail_rollout_requests",
            "Requests that went to a bundle, by the class of its answer; failed where none came",
            ["task", "role", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "clicktrail_rollout_seconds",
            "From a request going out to a bundle to its answer",
            ["task", "role"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._retried = Counter(
            "clicktrail_rollout_retried", "Requests asked again of the champion", ["task", "role"], registry=registry
        )
        self._refused = Counter(
            "clicktrail_rollout_refused", "Requests that went to no bundle", ["task", "status"], registry=registry
        )
        self._shadow = Counter(
            "clicktrail_rollout_shadow",
            "Copies for the shadow: compared, incomparable, failed, or dropped since its queue was full",
            ["task", "fate"],
            registry=registry,
        )
        self._difference = Histogram(
            "clicktrail_rollout_shadow_difference",
            "Scores: difference between shadow and champion; recommendations: share of items that the shadow has not",
            ["task"],
            buckets=_DIFFERENCES,
            registry=registry,
        )
        self._taken_out = Counter(
            "clicktrail_rollout_taken_out",
            "Bundles that lost their role without being told to, by the rule that they broke",
            ["task", "role", "rule"],
            registry=registry,
        )
        self._bundle = Gauge(
            "clicktrail_rollout_bundle", "1: this bundle has this role", ["task", "role", "tag"], registry=registry
        )
        self._share = Gauge(
            "clicktrail_rollout_canary_share", "Per cent of users of the canary", ["task"], registry=registry
        )
        flying = Gauge("clicktrail_rollout_in_flight", "Requests in the front now", ["task"], registry=registry)
        flying.labels(task).set_function(in_flight)

    def answered(self, role: str, status: int, seconds: float) -> None:
        """A bundle answered."""
        self._requests.labels(self._task, role, f"{status // 100}xx").inc()
        self._seconds.labels(self._task, role).observe(seconds)

    def failed(self, role: str) -> None:
        """A bundle gave no answer."""
        self._requests.labels(self._task, role, "failed").inc()

    def retried(self, role: str) -> None:
        """A request that `role` didn't answer well is asked of the champion."""
        self._retried.labels(self._task, role).inc()

    def refused(self, status: int) -> None:
        """The front answered itself, with an error."""
        self._refused.labels(self._task, str(status)).inc()

    def shadowed(self, fate: str, difference: float | None = None) -> None:
        """What became of a copy."""
        self._shadow.labels(self._task, fate).inc()
        if difference is not None:
            self._difference.labels(self._task).observe(difference)

    def taken_out(self, role: str, rule: str) -> None:
        """A bundle lost its role."""
        self._taken_out.labels(self._task, role, rule).inc()

    def roles(self, tags: Mapping[str, str], share: float) -> None:
        """Which bundle answers in which role now."""
        self._bundle.clear()  # tags come and go: only those of now are kept
        for role, tag in tags.items():
            self._bundle.labels(self._task, role, tag).set(1)
        self._share.labels(self._task).set(share)

    def page(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
