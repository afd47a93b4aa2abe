"""Reading the decision log: one decision by its request, or all of a task in SQL beside the event log.

con = duckdb.connect()
EventLog(settings.log).attach(con)          # view `events`
decisions.attach(con, settings, "fraud")    # view `decisions`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail import decision_files
from clicktrail.declarations import Declaration
from clicktrail.settings import Settings

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """All rows of one decided request, in their order, and the declarations of its features.

    `costs`: those that the service was given, JSON text; empty where it had those of its bundle.
    """

    rows: pa.Table
    declarations: tuple[Declaration, ...]
    costs: str = ""

    @property
    def task(self) -> str:
        """Of the bundle that answered."""
        return str(self.rows["task"][0])

    @property
    def model(self) -> str:
        """Tag of the bundle that answered."""
        return str(self.rows["model"][0])


def attach(con: duckdb.DuckDBPyConnection, settings: Settings, task: str, view: str = "decisions") -> None:
    """Make the decisions of a task a view: a row for each row of a request, columns as serving.decision_rows has them.

    Raises:
        ValueError: there are none.
    """
    if not decision_files.files(settings.decisions, task):
        message = (
            f"there are no decisions of {task} in {settings.decisions}: check CLICKTRAIL_HOME and CLICKTRAIL_SHOP, and "
            "that the service runs with CLICKTRAIL_DECISION_LOG on"
        )
        raise ValueError(message)
    pattern = str(settings.decisions / task / "date=*" / "part-*.parquet").replace("'", "''")
    con.execute(
        f"create or replace view {view} as select * from read_parquet('{pattern}', union_by_name = true, "
        "hive_partitioning = true)"
    )


def find(settings: Settings, request_id: str) -> list[Kept]:
    """The decisions of a request, oldest first: more than one where it was sent again, or to a shadow too.

    Raises:
        ValueError: there is none.
    """
    for paths in _by_day(settings.decisions, request_id):
        found = [one for path in _holding(paths, request_id) for one in _kept(path, request_id)]
        if found:
            return sorted(found, key=lambda one: one.rows["received"][0].value)
    message = (
        f"no decision of request {request_id!r} in {settings.decisions}: services write every 10 s; it may be older "
        "than CLICKTRAIL_DECISION_DAYS, not of the share that CLICKTRAIL_DECISION_LOG keeps, or of a forgotten user"
    )
    raise ValueError(message)


def _by_day(decisions: Path, request_id: str) -> list[list[Path]]:
    """Files day by day, newest first; an id that tells its time narrows it down to the days around it."""
    days: dict[str, list[Path]] = {}
    for path in decision_files.files(decisions):
        days.setdefault(path.parent.name, []).append(path)
    if _UUID7.fullmatch(request_id):
        made = datetime.fromtimestamp(int(request_id[:8] + request_id[9:13], 16) / 1000, UTC).date()
        near = [f"date={(made + timedelta(days=days)).isoformat()}" for days in (0, 1, -1)]
        return [days[day] for day in near if day in days]
    return [days[day] for day in sorted(days, reverse=True)]


def _holding(paths: Sequence[Path], request_id: str) -> list[Path]:
    """Of these files the ones with rows of the request."""
    with duckdb.connect() as con:
        found = con.execute(
            "select distinct filename from read_parquet($files, union_by_name = true, filename = true, "
            "hive_partitioning = false) where request_id = $id order by filename",
            {"files": [str(path) for path in paths], "id": request_id},
        ).fetchall()
    return [Path(name) for (name,) in found]


def _kept(path: Path, request_id: str) -> list[Kept]:
    """The decisions of a request in one file."""
    table = pq.read_table(path, partitioning=None, filters=pc.field("request_id") == request_id)
    declarations = tuple(decision_files.declarations_of(table.schema))
    costs = decision_files.costs_of(table.schema)
    requests = [table.filter(pc.equal(table["received"], moment)) for moment in pc.unique(table["received"])]
    return [Kept(rows=rows.sort_by("row"), declarations=declarations, costs=costs) for rows in requests]
