"""Spans of a request's stages, below the one that BentoML opens for it.

They are made when the request is answered, out of the times that are taken anyhow, and only where a trace is recorded:
otherwise the price is to ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from opentelemetry import trace

from serving.decision import Mark


class Tracing:
    """Spans by one tracer provider: BentoML's, which is none that OpenTelemetry knows of globally."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        """`provider` says where spans go."""
        self._tracer = provider.get_tracer("clicktrail.serving")

    def stages(self, marks: Iterable[Mark], about: Mapping[str, str | int | bool]) -> None:
        """Tell the span of this request `about` it, and put its stages below it."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.set_attributes(about)
        ahead = time.time_ns() - time.perf_counter_ns()
        for mark in marks:
            stage = self._tracer.start_span(mark.stage, start_time=mark.began + ahead)
            stage.end(mark.ended + ahead)
