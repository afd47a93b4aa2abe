"""Rows of finished values for Feast's stock stores, computed by our own offline store: they are right when written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureStore

from benchmarks.arrivals import SECOND
from benchmarks.case_features import entity_keys
from benchmarks.conformance.moments import Moment, at_edges, at_events
from clicktrail.event_log import EventLog

STAMP, CREATED, CASE = "event_timestamp", "created_timestamp", "case"
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True)
class Build:
    """One way to set up stock Feast.

    Attributes:
        name: in the tables.
        known: rows are stamped when they became known, and read a microsecond before t; else stamped with the event's
            time, as Feast's guides do, and read at t.
        ttl: each view's `ttl` is its features' window, after which nothing is left to count.
        changes: a row also where a window's edge passes an event.
    """

    name: str
    known: bool = True
    ttl: bool = False
    changes: bool = False


BUILDS = (
    Build(name="row per event, at event time", known=False),
    Build(name="row per event, when known"),
    Build(name="row per event, when known, with ttl", ttl=True),
    Build(name="row per change", changes=True),
)


def groups_of(features: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Features by the entity that they are about."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in features:
        groups.setdefault(entity_keys(one), []).append(one)
    return groups


def rows_of(log: EventLog) -> list[dict[str, Any]]:
    """Accepted events and labels, times in microseconds."""
    table = log.query("select * from events")
    for name in (STAMP, "ingested_at", "known_at"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def snapshots(
    store: FeatureStore,
    references: dict[str, str],
    features: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    build: Build,
) -> pa.Table:
    """The rows that a pipeline writes about one kind of entity.

    Args:
        store: ours, with all events in its log.
        references: of each feature in it.
        features: of one kind of entity.
        rows: as `rows_of` gives them.
        build: when a row is written, and how it is stamped.

    Returns:
        Key columns, `event_timestamp`, `created_timestamp`, `case`, and a column for each feature. In place of the
        seconds since the last event stands that event's time in seconds, for the reader to subtract.
    """
    moments = at_events(features, rows) + (at_edges(features, rows) if build.changes else [])
    chosen: dict[tuple[Any, ...], Moment] = {}
    for one in sorted(moments, key=lambda moment: moment.known_us):
        stamped = (one.known_us,) if build.known else (one.event_us, one.created_us)
        chosen[(one.ids, *stamped)] = one
    ordered = sorted(chosen.values(), key=lambda one: (one.ids, one.known_us, one.event_us))
    table = _values(store, references, features, ordered)
    stamps = [one.known_us if build.known else one.event_us for one in ordered]
    created = [one.known_us if build.known else one.created_us for one in ordered]
    table = table.append_column(STAMP, pa.array(stamps, _TIME)).append_column(CREATED, pa.array(created, _TIME))
    table = table.append_column(CASE, pa.array([int(one.ids[0].split("|")[0]) for one in ordered], pa.int64()))
    return _without_repeats(table, entity_keys(features[0]), features) if build.changes else table


def _values(
    store: FeatureStore, references: dict[str, str], features: list[dict[str, Any]], moments: list[Moment]
) -> pa.Table:
    keys = entity_keys(features[0])
    times = [one.known_us + 1 for one in moments] or [0]  # Feast takes no empty frame: of nobody, cut off below
    frame = pd.DataFrame([one.ids for one in moments] or [("",) * len(keys)], columns=list(keys), dtype=object)
    frame[STAMP] = pd.to_datetime(times, unit="us", utc=True)
    asked = {one["name"]: references[one["name"]] for one in features}
    table = store.get_historical_features(frame, features=list(asked.values()), full_feature_names=True).to_arrow()
    columns = {key: table[key].cast(pa.string()) for key in keys}
    for one in features:
        column = table[asked[one["name"]].replace(":", "__")]
        if one["kind"] == "seconds_since_last":
            ago = column.to_pylist()
            column = pa.array(
                [None if since is None else t // SECOND - since for t, since in zip(times, ago, strict=True)],
                pa.int64(),
            )
        columns[one["name"]] = column
    return pa.table(columns).slice(0, len(moments))


def _without_repeats(table: pa.Table, keys: tuple[str, ...], features: list[dict[str, Any]]) -> pa.Table:
    """Without rows that say what the entity's row before them says; the table is in the order of entity and time."""
    said = table.select([*keys, *(one["name"] for one in features)]).to_pylist()
    return table.filter(pa.array([not place or one != said[place - 1] for place, one in enumerate(said)], pa.bool_()))
