"""A Feast repo with Feast's own stores alone, over rows of finished values, and what it answers to the reads."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import FeastType, String

from benchmarks.arrivals import SECOND
from benchmarks.case_features import all_keys, entity_keys
from benchmarks.conformance.snapshots import CASE, CREATED, STAMP, Build, groups_of
from benchmarks.time_semantics import Read

DROPPED = "(row dropped)"
"""Stands for every value of an entity row that went in and did not come out."""

_NOTHING: dict[str, Any] = {"count": 0, "sum": 0, "distinct": 0, "sequence": [], "top": [], "label_rate": [0, 0]}
_AT_ONCE = 1000
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A stock Feast repo for one build: its store, the files behind it, and where each feature is."""

    store: FeatureStore
    build: Build
    features: list[dict[str, Any]]
    tables: dict[tuple[str, ...], pa.Table]
    folder: Path
    references: dict[str, str]

    def write(self, tables: dict[tuple[str, ...], pa.Table]) -> None:
        """Replace what the sources hold."""
        for keys, table in tables.items():
            pq.write_table(table.drop_columns([CASE]), _path(self.folder, keys))


def make_stock(
    folder: Path,
    features: list[dict[str, Any]],
    tables: dict[tuple[str, ...], pa.Table],
    types: dict[str, FeastType],
    build: Build,
    stores: dict[str, dict[str, str]],
) -> Stock:
    """Apply a repo: a file source for each kind of entity, a view for all of its features, or one for each ttl.

    Args:
        folder: an empty one.
        features: as in a file of time cases.
        tables: rows of finished values for each kind of entity, see `snapshots`.
        types: Feast's type of each feature.
        build: how it is set up.
        stores: `offline_store` and `online_store` of the configuration.
    """
    folder.mkdir(parents=True)
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in all_keys(features)
    }
    views: list[FeatureView] = []
    for keys, group in groups_of(features).items():
        path = str(_path(folder, keys))
        source = FileSource(path=path, timestamp_field=STAMP, created_timestamp_column=CREATED)
        views += _views(source, [entities[key] for key in keys], group, types, build)
    config = RepoConfig(
        project="stock",
        provider="local",
        registry=str(folder / "registry.db"),
        entity_key_serialization_version=3,
        repo_path=folder,
        **stores,
    )
    stock = Stock(
        store=FeatureStore(config=config),
        build=build,
        features=features,
        tables=tables,
        folder=folder,
        references={one.name: f"{view.name}:{one.name}" for view in views for one in view.features},
    )
    stock.write(tables)
    with _quiet():
        stock.store.apply([*entities.values(), *views])
    return stock


def _views(
    source: FileSource, entities: list[Entity], group: list[dict[str, Any]], types: dict[str, FeastType], build: Build
) -> list[FeatureView]:
    """Views of the features of one kind of entity."""
    keys = [one.join_key for one in entities]
    by_ttl: dict[int, list[str]] = defaultdict(list)
    for one in group:
        by_ttl[_ttl(one) if build.ttl else 0].append(one["name"])
    return [
        FeatureView(
            name=f"{'_'.join(keys)}_{ttl}s_v1",
            entities=entities,
            ttl=timedelta(seconds=ttl),
            schema=[Field(name=key, dtype=String) for key in keys]
            + [Field(name=one, dtype=types[one]) for one in names],
            source=source,
        )
        for ttl, names in by_ttl.items()
    ]


def _path(folder: Path, keys: tuple[str, ...]) -> Path:
    return folder / f"{'_'.join(keys)}.parquet"


def _ttl(feature: dict[str, Any]) -> int:
    """Seconds after which an entity's newest row says nothing any more about this feature; 0: never.

    Over a day they are whole days, rounded up: Feast's DuckDB store takes no ttl of a day and an hour.
    """
    length = next((feature[name] for name in ("over_s", "window_s", "within_s") if feature.get(name)), 0)
    seconds = int(length + feature.get("delay_s", 0)) if length else 0
    return seconds if seconds < _DAY else -(-seconds // _DAY) * _DAY


def offline(stock: Stock, reads: Sequence[Read]) -> list[dict[str, Any]]:
    """What get_historical_features gives for each read, rows created after the read time left out.

    Equal entity rows are asked for once, since the dask store merges them.
    """
    earlier = 1 if stock.build.known else 0
    asked = {(*read.keys.values(), read.t): place for place, read in enumerate(reads)}
    chosen = [reads[place] for place in asked.values()]
    frame = pd.DataFrame([read.keys for read in chosen])
    frame[STAMP] = pd.to_datetime([read.t * SECOND - earlier for read in chosen], unit="us", utc=True)
    frame["read"] = range(len(chosen))
    with _quiet():
        table = stock.store.get_historical_features(
            frame, features=list(stock.references.values()), filter_by_created_timestamp=True
        ).to_arrow()
    found = {row["read"]: row for row in table.select(["read", *stock.references]).to_pylist()}
    places = {key: number for number, key in enumerate(asked)}
    answers = []
    for read in reads:
        row = found.get(places[(*read.keys.values(), read.t)])
        answers.append(dict.fromkeys(stock.references, DROPPED) if row is None else _finish(stock, read, row))
    return answers


def online(stock: Stock, reads: Sequence[Read]) -> list[dict[str, Any]]:
    """What get_online_features gives for each read, all rows that are there by then materialised just before it.

    Cases do not touch each other: the first read of every case is done in one round, then the second, and so on.
    """
    order: dict[int, list[int]] = defaultdict(list)
    for place in sorted(range(len(reads)), key=lambda one: reads[one].t):
        order[int(reads[place].case)].append(place)
    answers: list[dict[str, Any]] = [{} for _ in reads]
    until: dict[int, int] = {}
    for turn in range(max((len(one) for one in order.values()), default=0)):
        due = [places[turn] for places in order.values() if len(places) > turn]
        until |= {int(reads[place].case): reads[place].t * SECOND for place in due}
        _materialise(stock, until)
        for present, places in _by_presence(reads, due).items():
            for some in (places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)):
                for place, row in zip(some, _get(stock, [reads[one] for one in some], present), strict=True):
                    answers[place] = _finish(stock, reads[place], row)
    return answers


def _materialise(stock: Stock, until: dict[int, int]) -> None:
    """Write all that each case's pipeline has by its own now, microseconds; a row of that very moment if read at t."""
    there = {}
    for keys, table in stock.tables.items():
        now = pa.array([until.get(case, 0) for case in table[CASE].to_pylist()], pa.int64())
        inside = pc.less if stock.build.known else pc.less_equal
        arrived = [inside(table[name].cast(pa.int64()), now) for name in (STAMP, CREATED)]
        there[keys] = table.filter(pc.and_(*arrived))
    stock.write(there)
    stamps = [stamp for table in there.values() for stamp in table[STAMP].to_pylist()]
    if stamps:
        with _quiet():
            stock.store.materialize(min(stamps) - timedelta(seconds=1), max(stamps) + timedelta(seconds=1))


def _by_presence(reads: Sequence[Read], places: list[int]) -> dict[tuple[str, ...], list[int]]:
    """Reads that name the same keys can be asked for together."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place in places:
        groups[tuple(key for key, value in reads[place].keys.items() if value is not None)].append(place)
    return groups


def _get(stock: Stock, reads: list[Read], present: tuple[str, ...]) -> list[dict[str, Any]]:
    asked = [stock.references[one["name"]] for one in stock.features if set(entity_keys(one)) <= set(present)]
    if not asked:
        return [{} for _ in reads]
    needed = {key for one in stock.features for key in entity_keys(one)} & set(present)
    rows = [{key: read.keys[key] for key in sorted(needed)} for read in reads]
    columns = stock.store.get_online_features(asked, rows).to_dict(include_event_timestamps=True)
    found: list[dict[str, Any]] = [{} for _ in reads]
    for one in stock.features:
        ttl, name = (_ttl(one) if stock.build.ttl else 0), one["name"]
        if name in columns:
            for row, read, value, stamp in zip(found, reads, columns[name], columns[f"{name}__ts"], strict=True):
                row[name] = None if ttl and stamp + ttl < read.t else value  # Feast keeps no ttl online
    return found


def _finish(stock: Stock, read: Read, row: dict[str, Any]) -> dict[str, Any]:
    """What the reader makes of a row: nothing found is the value of nothing, and time passes since the last event."""
    values = {}
    for one in stock.features:
        value = row.get(one["name"])
        if None in [read.keys[key] for key in entity_keys(one)]:
            value = None
        elif value is None:
            value = _NOTHING.get(one["kind"])
        elif one["kind"] == "seconds_since_last":
            value = read.t - int(value)
        values[one["name"]] = value
    return values


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints a bar and a line for each view."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
