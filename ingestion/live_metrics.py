"""What a live intake tells Prometheus, in one registry of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingestion.live import ACCEPTED, COPY, REJECTED, Arrivals, Taken

_FATES = {"accepted": ACCEPTED, "copy": COPY, "rejected": REJECTED}
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class IntakeMetrics:
    """Counters of one intake process; `registry` is what is scraped."""

    def __init__(self) -> None:
        """Everything starts at nothing."""
        self.registry = CollectorRegistry()
        self._events = Counter(
            "clicktrail_intake_events", "Events by what became of them", ["stream", "fate"], registry=self.registry
        )
        self._rules = Counter(
            "clicktrail_intake_rejected",
            "Rejected events by the rule that they break",
            ["rule"],
            registry=self.registry,
        )
        self._flush = Histogram(
            "clicktrail_intake_flush_seconds",
            "One flush: row rules, quarantine, log",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._durable = Histogram(
            "clicktrail_intake_durable_seconds",
            "From the arrival of an event to its flush being durable",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._version = Gauge(
            "clicktrail_intake_log_offset", "End of the log after the last flush", registry=self.registry
        )
        self.waiting = Gauge(
            "clicktrail_intake_waiting_events", "Events that wait for their flush", registry=self.registry
        )
        self.lag = Gauge(
            "clicktrail_intake_lag_events",
            "Events in the stream that were not read yet",
            ["stream"],
            registry=self.registry,
        )
        self.lost = Counter(
            "clicktrail_intake_lost_events",
            "Entries that the stream had dropped before they were read",
            ["stream"],
            registry=self.registry,
        )
        self.failures = Counter(
            "clicktrail_intake_failures",
            "Flushes and acknowledgements that failed; they are tried again",
            ["what"],
            registry=self.registry,
        )

    def record(self, arrivals: Sequence[Arrivals], taken: Taken, seconds: float) -> None:
        """Count a flush that is durable now and took so many seconds."""
        start = 0
        now = time.time()
        for one in arrivals:
            part = taken.fates[start : start + len(one.events)]
            start += len(one.events)
            for name, fate in _FATES.items():
                self._events.labels(one.stream, name).inc(int((part == fate).sum()))
            # one observation a group, not an event: groups arrive together
            self._durable.observe(max(0.0, now - one.arrived_at / 1_000_000))
        for rule in taken.rejected["rule"].to_pylist():
            self._rules.labels(rule).inc()
        self._flush.observe(seconds)
        self._version.set(taken.version)
