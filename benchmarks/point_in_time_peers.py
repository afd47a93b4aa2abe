"""What else would give the last K events of an entity row: numpy, DuckDB, and Feast's DuckDB store over snapshots."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog

FIELDS = ("item_id", "event_type", "price_minor")


def numpy_lists(data: Path, last: int) -> pa.Table:
    """Sort all events by user and the contract's order, find each row's place in one sorted key, gather."""
    events, rows = pq.read_table(data / "events.parquet"), pq.read_table(data / "rows.parquet")
    users = _single(events["user_id"])
    user = users.indices.to_numpy().astype(np.int64)
    happened, known = _micros(events["event_timestamp"]), _micros(events["ingested_at"])
    known = np.maximum(happened, known)
    seq, ids = events["source_seq"].to_numpy(), events["event_id"].to_numpy()
    order = np.lexsort((ids, seq, happened, known, user))
    t = _micros(rows["event_timestamp"])
    unit = int(np.gcd.reduce(np.concatenate([known, t])))  # whole seconds, so that user and time fit one key
    low = int(known.min()) // unit
    span = int(known.max()) // unit - low + 2
    key = (user * span + (known // unit - low))[order]
    places = pc.index_in(_single(rows["user_id"]).dictionary, value_set=users.dictionary)
    place = pc.fill_null(places, -1).to_numpy().astype(np.int64)[_single(rows["user_id"]).indices.to_numpy()]
    end = np.searchsorted(key, place * span + np.clip(t // unit - low, 0, span - 1))
    begin = np.maximum(np.searchsorted(key, place * span), end - last)
    begin = np.where(place < 0, end, begin)
    offsets = np.concatenate([[0], np.cumsum(end - begin)])
    positions = np.repeat(begin - offsets[:-1], end - begin) + np.arange(offsets[-1])
    index = pa.array(order[positions])
    return pa.table(
        {
            field: pa.LargeListArray.from_arrays(pa.array(offsets), _single(events[field]).take(index))
            for field in FIELDS
        }
    )


def duckdb_lists(data: Path, last: int) -> pa.Table:
    """An ASOF join to the event before each row, lists by user, slices."""
    import duckdb

    lists = ", ".join(f"list({field} order by n) as {field}" for field in FIELDS)
    slices = ", ".join(
        f"coalesce(list_slice({field}, greatest(n - {last - 1}, 1), n), []) as {field}" for field in FIELDS
    )
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as con:
        return con.sql(
            f"""
            with seen as (select user_id, {", ".join(FIELDS)}, greatest(event_timestamp, ingested_at) as known_at,
                row_number() over (partition by user_id order by greatest(event_timestamp, ingested_at),
                                   event_timestamp, source_seq, event_id) as n
                from '{data}/events.parquet'),
            whole as (select user_id, {lists} from seen group by user_id),
            placed as (select r.row, r.user_id, s.n from '{data}/rows.parquet' r
                       asof left join seen s on r.user_id = s.user_id and r.event_timestamp > s.known_at)
            select row, {slices} from placed left join whole using (user_id)
            """
        ).to_arrow_table()


def feast(log: EventLog, data: Path, last: int, declaration: Declaration) -> dict[str, float]:
    """Seconds of get_historical_features on the same frame: Feast's DuckDB store over snapshots, and ours.

    A snapshot is what the lists are after one event; Feast joins each row to the newest one. They are the work that
    our store does at read time, so their building is stated and not counted.
    """
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Array, Int64, String

    from benchmarks.point_in_time import read
    from clicktrail.views import sequence_view

    rows = pq.read_table(data / "rows.parquet").to_pandas()
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    about: dict[str, Any] = {"owner": "benchmarks@example.com", "description": "the last events of a user"}
    with tempfile.TemporaryDirectory() as folder:
        base = {"project": "peer", "provider": "local", "entity_key_serialization_version": 3}
        base["registry"] = {"registry_type": "sql", "path": f"sqlite:///{folder}/theirs.db"}
        began = time.perf_counter()
        snapshots = Path(folder) / "snapshots.parquet"
        _write_snapshots(log, last, snapshots, read)
        built = time.perf_counter() - began
        beside = {"type": "sqlite", "path": f"{folder}/theirs_online.db"}
        theirs = FeatureStore(config=RepoConfig(**base, offline_store={"type": "duckdb"}, online_store=beside))
        source = FileSource(name="snapshots", path=str(snapshots), timestamp_field="event_timestamp")
        schema = [Field(name=field, dtype=Array(Int64 if field == "price_minor" else String)) for field in FIELDS]
        peer_view = FeatureView(name=declaration.name, entities=[user], ttl=timedelta(0), schema=schema, source=source)
        theirs.apply([user, peer_view])
        base["registry"] = {"registry_type": "sql", "path": f"sqlite:///{folder}/ours.db"}
        offline = {"type": "clicktrail.offline_store.EventLogOfflineStore", "log_path": str(log.path)}
        online = {"type": "clicktrail.online_store.EventLogOnlineStore", "path": f"{folder}/online.db"}
        ours = FeatureStore(config=RepoConfig(**base, offline_store=offline, online_store=online))
        ours.apply([user, sequence_view(name=declaration.name, entity=user, last=last, fields=FIELDS, **about)])
        seconds = {}
        for name, store in {"feast": theirs, "ours": ours}.items():
            references = [f"{declaration.name}:{field}" for field in FIELDS]
            store.get_historical_features(rows.head(100), references).to_arrow()  # registry, compiled loops
            began = time.perf_counter()
            found = store.get_historical_features(rows, references).to_arrow()
            seconds[name] = time.perf_counter() - began
            assert found.num_rows == len(rows), (name, found.num_rows)  # noqa: S101 - a row that is lost is a fault
    return {
        "feast_seconds": round(seconds["feast"], 3),
        "ours_through_feast_seconds": round(seconds["ours"], 3),
        "feast_snapshots_seconds": round(built, 1),
        "faster_than_feast": round(seconds["feast"] / seconds["ours"], 2),
    }


def _write_snapshots(log: EventLog, last: int, path: Path, read: Any) -> None:  # noqa: ANN401 - a function
    """One row for each moment at which a user's lists changed: what they are just after it."""
    moments = log.query(
        "select distinct user_id, known_at + interval 1 microsecond as event_timestamp from events order by all"
    )
    read(log, moments, last).write_parquet(path)


def table(figures: dict[str, Any]) -> str:
    """The parts with their seconds and memory, as text."""
    lines = [f"{figures['events']:,} events x {figures['rows']:,} rows", f"{'part':24}{'seconds':>10}{'GiB':>8}"]
    lines += [
        f"{name:24}{figures[f'{name}_seconds']:>10}{figures.get(f'{name}_peak_gib', ''):>8}"
        for name in ("jagged", "lists", "numpy", "duckdb", "ours_through_feast", "feast")
        if f"{name}_seconds" in figures
    ]
    return "\n".join(lines)


def _single(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    return (column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column).combine_chunks()


def _micros(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()
