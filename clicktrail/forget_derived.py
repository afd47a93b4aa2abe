"""Take a user out of what was derived from the log: each function removes from one place and counts what it removed.

All of it can be removed twice, or by half before a kill: what is gone is not found again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail import decision_files, read_log
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import SEPARATOR
from clicktrail.event_log import EventLog
from clicktrail.publish import publish_file
from clicktrail.settings import Settings
from clicktrail.traces import Traces, naming

_PAGES = (".html", ".json", ".txt", ".md")


_OF_ONE_EVENT = ("first", "last", "most_frequent", "top", "min", "max")
"""Kinds of aggregates whose value is that of a single event; others count and divide."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run or bundle whose training may have seen a user: `kind` run or bundle, its `name`, its folder."""

    kind: str
    name: str
    path: Path


def from_read_log(settings: Settings, found: Traces) -> int:
    """Reads of the users, and of everybody whose values their events may have made: they can't be replayed either.

    What processes still hold in memory of reads up to now they drop.
    """
    removed = 0
    read_log.forget_before(settings.read_log, time.time_ns() // 1_000)
    for path in read_log.files(settings.read_log):
        try:
            declaration, table = read_log.read(path)
        except FileNotFoundError:  # made room for newer ones
            continue
        ids = {key: set(found.entities.get(key, ())) for key in declaration.entity_keys} | {"user_id": set(found.users)}
        touched = np.array(
            [
                key is not None
                and all(
                    part in ids[name] for name, part in zip(declaration.entity_keys, key.split(SEPARATOR), strict=True)
                )
                for key in table["entity"].to_pylist()
            ],
            bool,
        )
        removed += _rewrite(path, table, touched, "read_log")
    return removed


def from_decisions(settings: Settings, found: Traces) -> int:
    """Decisions about the users, and those for which events of theirs were read, through a card they shared, say.

    What processes still hold in memory of up to now they drop.
    """
    removed = 0
    decision_files.forget(settings.decisions, found.users, time.time_ns() // 1_000)
    ids = {**{key: set(some) for key, some in found.entities.items()}, "user_id": set(found.users)}
    for path in decision_files.files(settings.decisions):
        try:
            table = pq.read_table(path, partitioning=None)
        except FileNotFoundError:  # too old meanwhile
            continue
        touched = _among(table["user_id"], found.users)
        for declaration in decision_files.declarations_of(table.schema):
            if _shows_events(declaration):
                its = [_among(table[key], ids.get(key, ())) for key in declaration.entity_keys]
                touched |= np.logical_and.reduce(its)
        removed += _rewrite(path, table, touched, "decisions")
    return removed


def _shows_events(declaration: Declaration) -> bool:
    return declaration.is_sequence or any(one.kind in _OF_ONE_EVENT for one in declaration.aggregates)


def from_training_sets(settings: Settings, log: EventLog, found: Traces) -> list[str]:
    """Training sets that may hold the users: removed whole, since they are made again from the log. Their digests."""
    digests = []
    for path in sorted(settings.training_sets.glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text())
        if _may_hold(log, found, int(manifest["log_offset"]), str(manifest.get("log_digest", ""))):
            digests.append(str(manifest["digest"]))
            shutil.rmtree(path.parent)
    return digests


def from_catalogue(settings: Settings, found: Traces) -> int:
    """Rows of the user table."""
    path = settings.catalogue / "users.parquet"
    if not path.is_file():
        return 0
    table = pq.read_table(path)
    return _rewrite(path, table, _among(table["user_id"], found.users), "catalogue", keep_empty=True)


def from_quarantine(settings: Settings, found: Traces) -> int:
    """Rejected rows of the users: under their own id (the user table's), an id of their events, or with it as value."""
    removed = 0
    ids = (*found.users, *found.event_ids)
    for path in sorted(settings.quarantine.glob("*.parquet")):
        table = pq.read_table(path)
        touched = np.zeros(table.num_rows, bool)
        for column in ("event_id", "value"):
            touched |= _among(table[column], ids)
        removed += _rewrite(path, table, touched, "quarantine")
    return removed


def from_pages(settings: Settings, found: Traces) -> int:
    """Pages and samples that name the users or their events: removed whole, since they are made again."""
    named = naming((*found.users, *found.event_ids))
    removed = 0
    for folder in ("plans", "catalogue_page", settings.parity.name, settings.data_docs.name):
        for path in sorted((settings.shop_home / folder).rglob("*")):
            if path.is_file() and path.suffix in _PAGES and named.search(path.read_text(errors="replace")):
                path.unlink()
                removed += 1
    return removed


def trained_on(settings: Settings, log: EventLog, found: Traces, sets: Collection[str]) -> list[Trained]:
    """Runs and bundles whose training may have seen the users; they stay as they are.

    May: their training set is among `sets`, or was made of this shop's log, past the users' first event, when it
    still showed them. A run of before the digest of the log was recorded is named too, since it cannot be told.
    """
    out = []
    for folder in sorted(path.parent for path in settings.runs.glob("*/*/config.json")):
        if folder.is_symlink():
            continue
        config, data = _json(folder / "config.json"), _json(folder / "metrics.json").get("data", {})
        if config.get("training_set") in sets or _saw(settings, log, found, data):
            out.append(Trained(kind="run", name=f"{folder.parent.name}/{folder.name}", path=folder))
    runs = {one.path.name for one in out}
    for path in sorted(settings.bentoml_home.glob("bentos/clicktrail-*/*/src/bundle/manifest.json")):
        run = _json(path).get("run", {})
        data = {"shop": run.get("shop"), "log_offset": run.get("log_offset"), "log_content": run.get("log_content")}
        if run.get("id") in runs or _saw(settings, log, found, data):
            root = path.parents[2]
            out.append(Trained(kind="bundle", name=f"{root.parent.name}:{root.name}", path=root))
    return out


def _saw(settings: Settings, log: EventLog, found: Traces, data: dict[str, Any]) -> bool:
    if data.get("shop") != settings.shop or data.get("log_offset") is None:
        return False
    return _may_hold(log, found, int(data["log_offset"]), str(data.get("log_content") or ""))


def _may_hold(log: EventLog, found: Traces, offset: int, digest: str) -> bool:
    """Whether data made of the log before `offset`, when its content had this digest, may be of these users too."""
    if found.first_offset is None or offset <= found.first_offset:
        return False
    return offset > log.version or digest != log.digest(offset)


def _among(column: pa.ChunkedArray, ids: Iterable[str]) -> np.ndarray:
    return pc.is_in(column, value_set=pa.array(sorted(ids), pa.string())).to_numpy()


def _rewrite(path: Path, table: pa.Table, touched: np.ndarray, name: str, *, keep_empty: bool = False) -> int:
    """Publish the table without the touched rows; a file without rows goes unless it has to be there."""
    if not touched.any():
        return 0
    rest = table.filter(pa.array(~touched))
    if rest.num_rows or keep_empty:
        publish_file(path, lambda aside: pq.write_table(rest, aside, compression="zstd"), name)
    else:
        path.unlink(missing_ok=True)
    return int(touched.sum())


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
