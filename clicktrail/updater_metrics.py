"""What an updater tells of itself, in Prometheus's text format."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends of the histogram of freshness, seconds."""


class Metrics:
    """Figures of one updater; safe to read while they change."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        self._recent: list[tuple[float, int]] = []
        self._updates = 0
        self._log_offset = 0
        self._offsets: dict[str, int] = {}

    def readable(self, seconds: float, events: int) -> None:
        """So many events can be read, so long after the log had accepted them."""
        with self._lock:
            self._counts[sum(seconds > end for end in BUCKETS)] += events
            self._sum += seconds * events
            self._updates += events
            self._recent.append((seconds, events))

    def stands(self, log_offset: int, offsets: Mapping[str, int]) -> None:
        """How far the log and each view have come."""
        with self._lock:
            self._log_offset, self._offsets = log_offset, dict(offsets)

    def recent(self) -> tuple[int, float]:
        """Events since this was asked last, and the freshness that 99 of 100 of them had, seconds."""
        with self._lock:
            recent, self._recent = sorted(self._recent), []
        events = sum(count for _, count in recent)
        passed = 0
        for seconds, count in recent:
            passed += count
            if passed >= 0.99 * events:
                return events, seconds
        return 0, 0.0

    def text(self) -> str:
        """The page that Prometheus reads."""
        with self._lock:
            counts, total, updates = list(self._counts), self._sum, self._updates
            log_offset, offsets = self._log_offset, dict(self._offsets)
        name = "clicktrail_freshness_seconds"
        lines = [
            f"# HELP {name} From when the log accepted an event to when it could be read.",
            f"# TYPE {name} histogram",
        ]
        passed = 0
        for end, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
            passed += count
            lines.append(f'{name}_bucket{{le="{end}"}} {passed}')
        lines += [f"{name}_sum {total:.6f}", f"{name}_count {passed}"]
        lines += ["# TYPE clicktrail_updates_total counter", f"clicktrail_updates_total {updates}"]
        lines += ["# TYPE clicktrail_log_offset gauge", f"clicktrail_log_offset {log_offset}"]
        lines += ["# TYPE clicktrail_state_offset gauge"]
        lines += [f'clicktrail_state_offset{{view="{view}"}} {offset}' for view, offset in sorted(offsets.items())]
        return "\n".join(lines) + "\n"


def serve(metrics: Metrics, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Answer `GET /metrics` from a thread, to this machine alone unless `host` says otherwise; `shutdown()` ends it.

    Raises:
        OSError: the port is taken.
    """

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = metrics.text().encode() if self.path == "/metrics" else None
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Say nothing of every scrape."""

    server = ThreadingHTTPServer((host, port), Page)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
