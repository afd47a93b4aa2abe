"""When the pipeline of a user of stock Feast writes a row of an entity's features: at events, or at every change.

Stock Feast computes neither sequences nor sliding windows: it keeps rows of finished values and finds the newest
row before a time. So somebody else computes the values and decides when to write a row of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.arrivals import SECOND
from benchmarks.case_features import entity_keys
from clicktrail.contract import LABEL


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment at which a row is written about an entity; microseconds UTC.

    `event_us` is when it happened, `created_us` when the row could be made, `known_us` the later of the two. The
    row's values are those of just after `known_us`.
    """

    ids: tuple[str, ...]
    event_us: int
    created_us: int
    known_us: int


def at_events(features: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[Moment]:
    """One moment for each event of an entity, and one for each label of one of its events.

    Args:
        features: of one kind of entity, as in a file of time cases.
        rows: accepted events and labels, contract columns and `known_at`, times in microseconds.
    """
    keys = entity_keys(features[0])
    labels = {one["label"] for one in features if one["kind"] == "label_rate"}
    ids = {row["event_id"]: _ids(row, keys) for row in rows if row["event_type"] != LABEL}
    moments = []
    for row in rows:
        about = ids.get(row["label_of"]) if row["event_type"] == LABEL else ids[row["event_id"]]
        if about is not None and (row["event_type"] != LABEL or row["label"] in labels):
            moments.append(
                Moment(
                    ids=about,
                    event_us=row["event_timestamp"],
                    created_us=row["ingested_at"],
                    known_us=row["known_at"],
                )
            )
    return moments


def at_edges(features: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[Moment]:
    """One moment for each edge of a window that passes one of the entity's events, though nothing happens then."""
    keys = entity_keys(features[0])
    found = {
        (about, edge)
        for row in rows
        if row["event_type"] != LABEL and (about := _ids(row, keys)) is not None
        for feature in features
        if not feature.get("events") or row["event_type"] in feature["events"]
        for edge in _edges(feature, row["event_timestamp"])
    }
    return [Moment(ids=about, event_us=edge, created_us=edge, known_us=edge) for about, edge in sorted(found)]


def _edges(feature: dict[str, Any], stamp: int) -> Iterator[int]:
    """The last microseconds at which an event has not yet entered a window, or is still in it."""
    delay, hop = (feature.get(name, 0) * SECOND for name in ("delay_s", "hop_s"))
    if delay:
        yield stamp + delay
    for name in ("window_s", "over_s", "within_s"):
        if feature.get(name):
            last = stamp if not hop else (stamp // hop + 1) * hop - 1
            yield last + feature[name] * SECOND + delay


def _ids(row: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, ...] | None:
    ids = tuple(row[key] for key in keys)
    return None if None in ids else ids
