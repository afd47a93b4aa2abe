"""What a service tells of each request: figures, spans, a line of its log, and the decision itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import TracerProvider

from clicktrail.log_manifest import ManifestFile
from clicktrail.settings import Settings
from serving.decision import Decision, Mark
from serving.decision_log import DecisionLog
from serving.decision_rows import DecisionTable, Noted
from serving.endpoints import ENDPOINTS
from serving.logs import AccessLog
from serving.metrics import Metrics
from serving.model import Model
from serving.tracing import Tracing

logger = logging.getLogger("clicktrail.serving")

_STANDS_NS = 1_000_000_000


@dataclass(kw_only=True)
class Asked:
    """A request that is whole: its id, and when that was, by both clocks (nanoseconds)."""

    request_id: str
    began: int = field(default_factory=time.perf_counter_ns)
    received: int = field(default_factory=time.time_ns)


class Teller:
    """Tells of the requests of one bundle in one process."""

    def __init__(self, model: Model, settings: Settings, provider: TracerProvider) -> None:
        """Of the bundle's model, as the settings say; `provider` says where spans go."""
        self._tag, task = model.manifest.tag, model.manifest.task
        self._metrics = Metrics(self._tag)
        self._tracing = Tracing(provider)
        self._access = AccessLog(self._tag) if settings.log_level == "info" else None
        self._log = ManifestFile(settings.log / "manifest.json")
        self._stood = 0
        self._decisions: DecisionLog | None = None
        if settings.decision_share:
            costs = settings.fraud_costs.read_text(encoding="utf-8") if settings.fraud_costs else ""
            self._decisions = DecisionLog(
                settings.decisions,
                task,
                DecisionTable(task, self._tag, ENDPOINTS[task].fields, model.declarations, costs),
                self._metrics,
                share=settings.decision_share,
                days=settings.decision_days,
            )
            self._decisions.start()

    def answered(self, asked: Asked, decision: Decision, marks: Sequence[Mark]) -> None:
        """A request was decided; `marks` are its stages beside those of the read. No answer fails by its telling."""
        try:
            self._tell(asked, decision, marks)
        except Exception:
            logger.exception("a decision could not be told", extra={"about": {"request_id": asked.request_id}})

    def refused(self, asked: Asked, status: int) -> None:
        """A request was not decided."""
        self._metrics.refused(status)
        self._line(asked, status, time.perf_counter_ns(), 0)

    def failed(self, asked: Asked, status: int, event: str, error: Exception) -> None:
        """A request was not decided because of an error."""
        logger.error(event, exc_info=error, extra={"about": {"request_id": asked.request_id, "model": self._tag}})
        self.refused(asked, status)

    def stands(self, offset: int) -> None:
        """How far the state has come, and the log where it is at hand."""
        self._stood = time.perf_counter_ns()
        try:
            version = self._log.load().version
        except (OSError, ValueError):  # of another version of the library, say: nothing that a request depends on
            version = 0
        self._metrics.stands(offset, version or None)

    def close(self) -> None:
        """Write what is held."""
        if self._access is not None:
            self._access.flush()
        if self._decisions is not None:
            self._decisions.close()

    def _tell(self, asked: Asked, decision: Decision, marks: Sequence[Mark]) -> None:
        stages = [*marks, *decision.read.marks]
        now = time.perf_counter_ns()
        self._metrics.decided(decision, stages)
        self._tracing.stages(stages, {"clicktrail.model": self._tag, "clicktrail.request_id": asked.request_id})
        if self._decisions is not None:
            received, took = asked.received // 1_000, (now - asked.began) // 1_000
            self._decisions.note(
                Noted(request_id=asked.request_id, received=received, latency_us=took, decision=decision)
            )
        self._line(asked, 200, now, decision.read.rows)
        if now - self._stood > _STANDS_NS:
            self.stands(decision.read.moment.offset)

    def _line(self, asked: Asked, status: int, now: int, rows: int) -> None:
        if self._access is not None:
            took = now - asked.began
            self._access.line(asked.request_id, status, took / 1e6, rows, (asked.received + took) / 1e9)
