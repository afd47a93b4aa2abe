"""What a service tells Prometheus of its decisions, beside BentoML's figures of its requests.

Labels are of small fixed sets: the bundle, the stage, what answered, the action. Nobody's id is ever one.
prometheus_client is imported late: BentoML says in the worker's environment where workers share their figures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clicktrail.contract import MICROSECONDS
from clicktrail.publish import alive
from serving.decision import Decision, Mark

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_ANSWERED_BY = ("model", "popularity", "base_rate")
_NOTHING = ""
_ACTIONS = (_NOTHING, "approve", "review", "decline")
_OTHER = "other"
_AGES = (0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86_400.0, 7 * 86_400.0)
_SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Metrics:
    """Figures of one bundle's decisions in one process."""

    def __init__(self, bundle: str, registry: CollectorRegistry | None = None) -> None:
        """`bundle` is its tag; the registry is the one of the process by default."""
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        registry = registry or REGISTRY
        more: Any = {"registry": registry}

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"clicktrail_{name}", meaning, ["bundle", *labels], **more)

        self._decisions = counter(
            "decisions", "Rows that were decided, by what answered and the action", "answered_by", "action"
        )
        self._met: dict[tuple[str, str], Counter] = {}
        self._cold = counter("cold_starts", "Rows of which something was unknown").labels(bundle)
        stages = counter("stage_seconds", "Time of requests by stage; the stages of a request add up", "stage")
        self._stages = {name: stages.labels(bundle, name) for name in ("parse", "state.read", "model.run", "respond")}
        refused = counter("refused", "Requests that were not answered, by status", "status")
        self._refused = {status: refused.labels(bundle, str(status)) for status in (400, 413, 500, 503)}
        self._age = Histogram(
            "clicktrail_feature_age_seconds",
            "From the newest event that the state knew to the time that features were read at",
            ["bundle"],
            buckets=_AGES,
            **more,
        ).labels(bundle)
        self._score = Histogram(
            "clicktrail_score", "Probabilities that were answered", ["bundle"], buckets=_SCORES, **more
        ).labels(bundle)
        log = counter("decision_log_rows", "Rows of the decision log by what became of them", "fate")
        self._log = {fate: log.labels(bundle, fate) for fate in ("written", "dropped")}
        self._log_bytes = counter("decision_log_bytes", "Bytes of the decision log's files").labels(bundle)
        # of all workers the newest value: they read the same state
        newest: Any = {**more, "multiprocess_mode": "mostrecent"}
        self._offset = Gauge(
            "clicktrail_state_offset", "Rows of the event log that the state has applied", ["bundle"], **newest
        ).labels(bundle)
        self._lag = Gauge(
            "clicktrail_state_lag_rows",
            "Rows of the event log that it has not applied yet; only where the log is at hand",
            ["bundle"],
            **newest,
        )
        self._bundle = bundle

    def decided(self, decision: Decision, marks: Iterable[Mark]) -> None:
        """A request was answered."""
        answer = decision.answer
        for row, outcome in enumerate(decision.outcomes):
            said = answer if "answers" not in answer else {**answer, **answer["answers"][row]}
            self._row(said, outcome)
        moment = decision.read.moment
        self._age.observe(max(decision.read.features.as_of[0] - moment.watermark, 0) / MICROSECONDS)
        for mark in marks:
            self._stages[mark.stage].inc((mark.ended - mark.began) / 1e9)

    def refused(self, status: int) -> None:
        """A request was not."""
        self._refused[status].inc()

    def stands(self, offset: int, log_version: int | None) -> None:
        """How far the state has come, and the log where it is at hand."""
        self._offset.set(offset)
        if log_version is not None:
            self._lag.labels(self._bundle).set(max(log_version - offset, 0))

    def kept(self, rows: int, size: int) -> None:
        """Rows of the decision log were written, to so many bytes."""
        self._log["written"].inc(rows)
        self._log_bytes.inc(size)

    def dropped(self, rows: int) -> None:
        """Rows of the decision log were lost: there was no room, or they could not be written."""
        self._log["dropped"].inc(rows)

    def _row(self, said: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        by, action = said["answered_by"], outcome.get("action", _NOTHING)
        kind = by if by in _ANSWERED_BY else _OTHER, action if action in _ACTIONS else _OTHER
        counter = self._met.get(kind)
        if counter is None:  # finding a child by its labels costs as much as counting
            counter = self._met[kind] = self._decisions.labels(self._bundle, *kind)
        counter.inc()
        if said.get("cold_start"):
            self._cold.inc()
        score = outcome.get("score")
        if score is not None:
            self._score.observe(score)


def apart(app: Any) -> Any:  # noqa: ANN401 - an ASGI application
    """Give the figures of this server's workers a folder of their own, before the first is counted.

    BentoML has one folder for all servers of a BENTOML_HOME and empties it whenever one starts: figures of two bundles
    would be mixed, and those of the first would be lost. The folder is named by the command, whose workers share it.
    """
    shared = os.environ.get(_FOLDER)
    if shared and not shared.endswith(f".{os.getppid()}"):
        for old in Path(shared).parent.glob(f"{Path(shared).name}.*"):
            if old.suffix[1:].isdigit() and not alive(int(old.suffix[1:])):
                shutil.rmtree(old, ignore_errors=True)
        own = Path(f"{shared}.{os.getppid()}")
        own.mkdir(parents=True, exist_ok=True)
        os.environ[_FOLDER] = str(own)
    return app
