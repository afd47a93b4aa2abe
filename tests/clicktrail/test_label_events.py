"""Labels with the events they speak of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from clicktrail.contract import ENTITY_KEYS
from clicktrail.event_log import EventLog
from clicktrail.label_events import read_labels
from tests.clicktrail.test_event_log import SECOND, rows

START = 1_700_000_000


def label(name: str, of: str, at: int, **more: object) -> dict[str, object]:
    times = {"event_timestamp": (START + at) * SECOND, "ingested_at": (START + at) * SECOND}
    said = {"event_type": "label", "user_id": None, "label": "fraud", "label_value": 1}
    return {"event_id": name, "label_of": of, **said, **times, **more}


def filled(path: Path) -> EventLog:
    log = EventLog(path)
    log.append(rows(label("early", "b", 90)))  # a label may come before its event
    log.append(
        rows(
            {"event_id": "a", "event_type": "payment", "session_id": "s", "category_id": "c", "campaign_id": "k"},
            {"event_id": "b", "event_type": "payment", "card_id": "card", "terminal_id": "terminal"},
            {"event_id": "v", "event_type": "view"},
            label("second", "a", 80, label_value=0),
            label("first", "a", 70),
            label("of a view", "v", 70),
            label("other", "a", 70, label="returned"),
            label("of nothing", "unknown", 70),
        )
    )
    return log


def test_labels_of_one_event_lie_together_the_oldest_first(tmp_path: Path) -> None:
    """By the event's offset, then by when the label was known; those of other events, kinds and names are left out."""
    found = read_labels(filled(tmp_path), "fraud", ["payment"])
    assert found["label_of"].to_pylist() == ["a", "a", "b"]
    assert found["value"].to_pylist() == [1, 0, 1]
    known = [(START + second) * SECOND for second in (70, 80, 90)]
    assert found["known"].to_pylist() == known
    assert found["target"].to_pylist() == [1, 1, 2]
    assert found["offset"].to_pylist() == [4, 8, 0]  # a batch enters in the order of arrival
    event = [START * SECOND, START * SECOND, (START + 1) * SECOND]
    assert found["target_known"].to_pylist() == found["target_event"].to_pylist() == event


def test_the_keys_of_the_event_come_along(tmp_path: Path) -> None:
    """Every entity key by default, or those that are asked for."""
    log = filled(tmp_path)
    found = read_labels(log, "fraud", ["payment"])
    assert [found[key][0].as_py() for key in ENTITY_KEYS] == ["u", "a", None, None, "c", "k", "s"]
    assert [found[key][2].as_py() for key in ENTITY_KEYS] == ["u", "a", "card", "terminal", None, None, None]
    few = read_labels(log, "fraud", ["payment"], keys=["card_id"])
    assert few.column_names == [
        "offset",
        "target",
        "target_known",
        "target_event",
        "known",
        "value",
        "label_of",
        "card_id",
    ]


def test_only_labels_of_some_events_and_of_a_version(tmp_path: Path) -> None:
    """`of` chooses events by id, ids that nobody knows and nulls included; `stop` is a version of the log."""
    log = filled(tmp_path)
    assert read_labels(log, "fraud", ["payment"], of=pa.array(["b", "unknown", None]))["offset"].to_pylist() == [0]
    assert read_labels(log, "fraud", ["payment"], of=pa.array([], pa.string())).num_rows == 0
    assert read_labels(log, "fraud", ["payment"], stop=2).num_rows == 0
    assert read_labels(log, "fraud", ["payment"], stop=5)["offset"].to_pylist() == [4, 0]
    assert read_labels(EventLog(tmp_path / "none"), "fraud", ["payment"]).num_rows == 0
