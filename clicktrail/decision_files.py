"""Where services keep their decisions: Parquet files of a day each task, and who may no longer be in them.

`decisions/<task>/date=2026-03-31/part-....parquet` of a shop, the day by the wall clock in UTC. A file is written aside
and renamed, by one process, and is never added to. Its metadata has the declarations of the features in it, and the
costs that a deployment had given its service. What writes the rows is serving/decision_log.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.entity_ids import in_the_dark
from clicktrail.publish import publish_bytes, publish_file

_DECLARATIONS = b"clicktrail.declarations"
_COSTS = b"clicktrail.costs"
_MARK = "forgotten.json"


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """Rows received up to `wall` (microseconds UTC) that a process still held, and rows of `users`, may not be written.

    `users` are the sha256 of their ids.
    """

    wall: int = 0
    users: tuple[str, ...] = ()


def folder_of(decisions: Path, task: str, day: date) -> Path:
    """The folder of a day of a task."""
    return decisions / task / f"date={day.isoformat()}"


def files(decisions: Path, task: str = "*") -> list[Path]:
    """The files of a task, or of all, oldest day first."""
    return sorted(decisions.glob(f"{task}/date=*/part-*.parquet"))


def described(schema: pa.Schema, declarations: Sequence[Declaration], costs: str) -> pa.Schema:
    """A schema whose files say what their features are, and the costs that a service was given (JSON text or empty)."""
    told = {_DECLARATIONS: json.dumps([to_json(one) for one in declarations]).encode(), _COSTS: costs.encode()}
    return schema.with_metadata(told)


def declarations_of(schema: pa.Schema) -> list[Declaration]:
    """The declarations of the features in a file."""
    return [from_json(one) for one in json.loads(schema.metadata[_DECLARATIONS])]


def costs_of(schema: pa.Schema) -> str:
    """The costs that the service was given, JSON text; empty where it had those of its bundle."""
    return str(schema.metadata[_COSTS].decode())


def publish(decisions: Path, path: Path, table: pa.Table) -> int:
    """Write rows, without those of forgotten users; returns how many there were left."""
    while True:
        mark = forgotten(decisions)
        rest = _without(table, mark)
        if rest.num_rows:
            publish_file(path, partial(_write, rest), "decisions")
        else:
            path.unlink(missing_ok=True)
        if forgotten(decisions) == mark:  # else whoever forgets may have missed this file
            return rest.num_rows


def remove_older(decisions: Path, task: str, days: int, today: date) -> int:
    """Remove the folders of days that are further back; returns how many there were."""
    oldest = f"date={(today - timedelta(days=days)).isoformat()}"
    old = [path for path in (decisions / task).glob("date=*") if path.name < oldest]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)  # another worker may be at it too
    return len(old)


def forget(decisions: Path, users: Collection[str], wall: int) -> None:
    """Have processes drop what they still hold of up to now, and what these users will be decided from now on."""
    before = forgotten(decisions)
    both = sorted({*before.users, *map(in_the_dark, users)})
    content = {"wall": max(wall, before.wall), "users": both}
    publish_bytes(decisions / _MARK, json.dumps(content).encode(), "decisions.mark")


def forgotten(decisions: Path) -> Forgotten:
    """Whom to leave out."""
    try:
        content = json.loads((decisions / _MARK).read_bytes())
    except FileNotFoundError:
        return Forgotten()
    return Forgotten(wall=content["wall"], users=tuple(content["users"]))


def _without(table: pa.Table, mark: Forgotten) -> pa.Table:
    if not mark.wall:
        return table
    gone = set(mark.users)
    theirs = [user is not None and in_the_dark(user) in gone for user in table["user_id"].to_pylist()]
    late = pc.greater(table["received"].cast(pa.int64()), mark.wall).to_numpy(zero_copy_only=False)
    return table.filter(pa.array(late & ~np.array(theirs, bool)))


def _write(table: pa.Table, path: Path) -> None:
    # dictionaries of texts alone: of numbers, which seldom repeat, they cost a third more and are no smaller
    texts = [name for field in table.schema for name in _texts(field)]
    pq.write_table(table, path, compression="zstd", use_dictionary=texts, write_statistics=["request_id", "received"])


def _texts(field: pa.Field) -> list[str]:
    """The Parquet column of a field, where it holds texts."""
    if pa.types.is_list(field.type):
        return [f"{field.name}.list.element"] if pa.types.is_string(field.type.value_type) else []
    return [field.name] if pa.types.is_string(field.type) else []
