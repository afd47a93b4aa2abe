"""A decision: what a request was answered, and all that the answer rests on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from clicktrail.clock import moment as as_datetime
from clicktrail.contract import ENTITY_KEYS, MICROSECONDS
from serving.blend_kernels import Met
from serving.features import Features, LiveState, Moment
from serving.model import Model


class Mark(NamedTuple):
    """A stage of a request and when it began and ended: nanoseconds of time.perf_counter_ns."""

    stage: str
    began: int
    ended: int


@dataclass(frozen=True, kw_only=True)
class Read:
    """What was read for R rows of one request: their ids and fields by name [R], when, and the features found.

    `own_times`: int64 [R], microseconds UTC, where rows have times of their own. `marks`: the stages so far; those that
    follow are added.
    """

    fields: Mapping[str, Sequence[Any]]
    moment: Moment
    features: Features
    own_times: np.ndarray | None = None
    marks: list[Mark] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.features.as_of)

    @property
    def times(self) -> np.ndarray:
        """When each row was asked for: int64 [R], microseconds UTC."""
        return np.full(self.rows, self.moment.t, np.int64) if self.own_times is None else self.own_times


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An answer as it is sent, the request as it was taken, what was read for it, and of each row what was decided.

    `outcomes` is one mapping a row [R], with names by task: what the decision log keeps beside the features.
    """

    answer: dict[str, Any]
    request: Mapping[str, Any]
    read: Read
    outcomes: Sequence[Mapping[str, Any]]


def read(
    state: LiveState,
    fields: Mapping[str, Sequence[Any]],
    at: int | np.ndarray | None = None,
    recent: pa.Table | None = None,
) -> Read:
    """Read the features of R rows, now or at the request's own time (microseconds UTC).

    Args:
        state: the live state.
        fields: field -> [R]; the entity keys among them say whose features are read, one left out is nobody.
        at: read time, where it is not now; int64 [R] where each row has its own.
        recent: events that the state may not have yet (clicktrail.recent_events.event_table).
    """
    began = time.perf_counter_ns()
    moment = state.moment(int(at.max()) if isinstance(at, np.ndarray) else at)
    own = at if isinstance(at, np.ndarray) else None
    rows = len(next(iter(fields.values())))
    nobody = [None] * rows
    keys = {key: fields.get(key, nobody) for key in ENTITY_KEYS}
    features = state.read(keys, moment.t if own is None else own, recent)
    marks = [Mark("state.read", began, time.perf_counter_ns())]
    return Read(fields=fields, moment=moment, features=features, own_times=own, marks=marks)


def run(model: Model, read: Read) -> np.ndarray:
    """What the model says of all rows: probabilities float32 [R], or query vectors float32 [R, D]."""
    return run_met(model, read)[0]


def run_met(model: Model, read: Read) -> tuple[np.ndarray, Met | None]:
    """The same, and the items of the rows' histories where a blend needs them."""
    began = time.perf_counter_ns()
    found = model.run_met(read.features.rows(model.encoding.spec, read.fields, read.times))
    read.marks.append(Mark("model.run", began, time.perf_counter_ns()))
    return found


def told(model: Model, read: Read, row: int, reason: str | None, answered_by: str) -> dict[str, Any]:
    """What every answer says about itself."""
    as_of = read.features.as_of[row]
    return {
        "cold_start": reason is not None,
        "cold_start_reason": reason,
        "answered_by": answered_by,
        "features_as_of": as_datetime(as_of).isoformat().replace("+00:00", "Z"),
        # a payment may lie before the newest that is known of others
        "feature_age_seconds": max(as_of - read.moment.watermark, 0) / MICROSECONDS,
        "feature_offset": read.moment.offset,
        "model": model.manifest.tag,
    }
