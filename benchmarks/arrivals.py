"""Worked time cases as contract rows: every case is a world of its own, so ids get the case's number in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from clicktrail.contract import LABEL, arrow_schema

SECOND = 1_000_000
_OWN = ("event_id", "user_id", "card_id", "terminal_id")


def arrivals(cases: list[dict[str, Any]], keys: Sequence[str] = ()) -> pa.Table:
    """Events and labels of all cases as contract rows, and columns `case`, `arrives` (seconds).

    Args:
        cases: as in a file of time cases.
        keys: further columns to prefix, since features are asked for by them.
    """
    rows: list[dict[str, Any]] = []
    for index, case in enumerate(cases):
        rows.extend(_event_row(index, event, {*_OWN, *keys}) for event in case["events"])
        rows.extend(_label_row(index, number, label) for number, label in enumerate(case.get("labels", [])))
    schema = arrow_schema().append(pa.field("case", pa.int64())).append(pa.field("arrives", pa.int64()))
    return pa.Table.from_pylist(rows, schema=schema)


def _event_row(case: int, event: dict[str, Any], own: set[str]) -> dict[str, Any]:
    return {
        **{name: event.get(name) for name in arrow_schema().names},
        **{key: prefixed(case, event.get(key)) for key in own},
        "event_timestamp": event["event_timestamp"] * SECOND,
        "ingested_at": event["ingested_at"] * SECOND,
        "case": case,
        "arrives": event["ingested_at"],
    }


def _label_row(case: int, number: int, label: dict[str, Any]) -> dict[str, Any]:
    return {
        "event_id": prefixed(case, f"label {number}"),
        "event_type": LABEL,
        "event_timestamp": label["known_at"] * SECOND,
        "ingested_at": label["known_at"] * SECOND,
        "source_seq": number,
        "label_of": prefixed(case, label["event_id"]),
        "label": label["label"],
        "label_value": label["value"],
        "case": case,
        "arrives": label["known_at"],
    }


def prefixed(case: int, name: str | None) -> str | None:
    """An id of a case as it stands in the shared log."""
    return None if name is None else f"{case}|{name}"
