"""For tests of features: state a few events and the value you expect.

    shop = World(
        event("view", "2026-03-01 10:00", user_id="u", item_id="a"),
        event("purchase", "2026-03-01 10:05", user_id="u", item_id="a", price_minor=500),
    )
    assert shop.value(user_activity_v1, "count_purchase_1d", "u", at="2026-03-01 11:00") == 1

A value is read offline and online, and both must agree.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.clock import microseconds
from clicktrail.contract import EVENT_TYPES, LABEL, arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.engine import values
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.online_state import OnlineReader, OnlineState


def event(event_type: str, at: str | datetime, *, arrives: timedelta = timedelta(0), **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - contract columns
    """An event at a time (ISO 8601, UTC) that became known `arrives` later; `fields` are contract columns.

    Raises:
        ValueError: the contract has no such event type or column, so no feature could see it.
    """
    unknown = sorted(set(fields) - set(arrow_schema().names))
    if event_type not in EVENT_TYPES or unknown:
        message = (
            f"event({event_type!r}, ...) with unknown columns {unknown}: the contract has the event types "
            f"{', '.join(EVENT_TYPES)} and the columns {', '.join(arrow_schema().names)}"
        )
        raise ValueError(message)
    time = _time(at)
    return {"event_type": event_type, "event_timestamp": time, "ingested_at": time + arrives // _MICROSECOND, **fields}


def label(name: str, of: str, at: str | datetime, value: int = 1) -> dict[str, Any]:
    """A label on the event with event_id `of`, known from `at` on."""
    return {**event(LABEL, at), "label_of": of, "label": name, "label_value": value}


class World:
    """A few events in a log of their own."""

    def __init__(self, *events: dict[str, Any]) -> None:
        """`events` as `event` and `label` make them; ids and order within the source are given where they lack.

        Raises:
            ValueError: an event that a log would refuse: too far ahead of its arrival, or of a doubled id.
        """
        rows = [
            {**dict.fromkeys(arrow_schema().names), "event_id": f"event {place}", "source_seq": place, **one}
            for place, one in enumerate(events)
        ]
        self._table = pa.Table.from_pylist(rows, schema=arrow_schema())
        with tempfile.TemporaryDirectory() as folder:
            refused = EventLog(Path(folder)).append(self._table).rejected.to_pylist()
        if refused:
            raise ValueError("; ".join(f"event {one['row']}: {one['reason']}" for one in refused))

    def value(self, view: Any, feature: str, entity: str, at: str | datetime) -> Any:  # noqa: ANN401 - any feature's value
        """The value of a feature for an entity at a time, read offline and online.

        Args:
            view: what `sequence_view` or `aggregate_view` gave, or a Declaration.
            feature: its name; strings and numbers come back as they are, sequences as lists.
            entity: its key.
            at: when it is read; the online state holds what had arrived before.

        Raises:
            AssertionError: offline and online differ.
            KeyError: the view has no such feature.
        """
        declaration = view if isinstance(view, Declaration) else view.batch_source.declaration
        if feature not in declaration.outputs:
            message = f"view {declaration.name!r} has no feature {feature!r}; it has {list(declaration.outputs)}"
            raise KeyError(message)
        t = _time(at)
        with tempfile.TemporaryDirectory() as folder:
            log = EventLog(Path(folder) / "log")
            log.append(self._table)
            offline = _offline(log, declaration, entity, t)[feature][0].as_py()
        with tempfile.TemporaryDirectory() as folder:
            arrived = self._table["ingested_at"].cast(pa.int64()).to_numpy() < t
            log = EventLog(Path(folder) / "log")
            log.append(self._table.filter(pa.array(arrived)))
            OnlineState(Path(folder) / "online.db").catch_up(log, declaration)
            reader = OnlineReader(Path(folder) / "online.db", [declaration])
            online = reader.read(declaration.name, [entity], t).columns[feature][0].as_py()
        if offline != online:
            message = f"{declaration.name}.{feature} of {entity!r} at {at}: offline {offline!r}, online {online!r}"
            raise AssertionError(message)
        return offline


def _offline(log: EventLog, declaration: Declaration, entity: str, t: int) -> dict[str, pa.Array]:
    history, entities = load_history(log, declaration.entity_key, [declaration])
    codes, times = entity_codes(pa.array([entity]), entities), np.array([t])
    return values(declaration, history, codes, times)


_MICROSECOND = timedelta(microseconds=1)


def _time(at: str | datetime) -> int:
    return microseconds(datetime.fromisoformat(at) if isinstance(at, str) else at)
