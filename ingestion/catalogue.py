"""Side tables: items and users, held to their contract and published whole. The newest files are the catalogue.

Of items every version is kept as well (`ingestion.item_history`): a training example may see what was known then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.catalogue import KNOWN_AT, as_history
from clicktrail.clock import read_time
from clicktrail.contract import ITEM_COLUMNS, USER_COLUMNS, Column, arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.publish import publish_file
from clicktrail.settings import Settings
from ingestion.casting import cast_side
from ingestion.intake import one_at_a_time
from ingestion.item_history import grow
from ingestion.mapping import Mapping, SideTable
from ingestion.prepare import unreadable_rows
from ingestion.readers import digest_of, read_source
from validation.batch import BatchStoppedError, Stop
from validation.gate import Gate
from validation.quarantine import publish_quarantine
from validation.report import RuleCount, count_rules
from validation.routing import QUARANTINE_SCHEMA, route

_DIGEST = b"clicktrail.source"
_LEAST = 0.5  # a catalogue that lost half of its rows since last time is not whole


@dataclass(frozen=True, kw_only=True)
class SideOutcome:
    """What became of a side table. Unless it was stopped, `rows` = `published` + `older` + `copies` + quarantined rows.

    `older`: rows of items that the same files tell something newer of; `versions`: what it added to the items' history.
    """

    name: str
    rows: int = 0
    published: int = 0
    older: int = 0
    copies: int = 0
    versions: int = 0
    known: bool = False
    quarantined: tuple[RuleCount, ...] = ()
    stops: tuple[Stop, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A side table on its way in: `columns` is its contract, with `known_at` where the source records it."""

    name: str
    files: Sequence[Path]
    table: SideTable
    contract: tuple[Column, ...]
    history: Path | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        dated = any(one.target.name == KNOWN_AT.name for one in self.table.columns)
        return (*self.contract, KNOWN_AT) if dated else self.contract

    @property
    def key(self) -> tuple[str, ...]:
        """A row of these is one row; said twice, it is a copy or a conflict."""
        dated = [KNOWN_AT.name] if KNOWN_AT in self.columns else []
        return (self.contract[0].name, *dated)


def take_in_side_tables(
    path: Path, mapping: Mapping, settings: Settings, *, gate: Gate, allow: Sequence[str] = ()
) -> list[SideOutcome]:
    """Publish the side tables that the mapping names and that lie at `path` or beside it.

    What a file of items says is known from now on, by the shop's clock, where the source does not record it.
    """
    outcomes = []
    for name, table, contract in (("items", mapping.items, ITEM_COLUMNS), ("users", mapping.users, USER_COLUMNS)):
        files = _find(path, table) if table else []
        if table and files:
            history = settings.item_history if name == "items" else None
            side = _Side(name=name, files=files, table=table, contract=contract, history=history)
            with one_at_a_time(settings):
                outcomes.append(_take_in(side, mapping, settings, gate, allow))
    return outcomes


def _find(path: Path, table: SideTable) -> list[Path]:
    """In the folder given, else beside it: the events may lie in a folder of their own."""
    for folder in (path, path.parent):
        if folder.is_dir():
            found = sorted(file for glob in table.files for file in folder.glob(glob) if file.is_file())
            if found:
                return found
    return []


def _take_in(side: _Side, mapping: Mapping, settings: Settings, gate: Gate, allow: Sequence[str]) -> SideOutcome:
    target = settings.catalogue / f"{side.name}.parquet"
    # the mapping is part of what makes a catalogue: read otherwise, it is another
    digest = hashlib.sha256(
        "".join([*(digest_of(file) for file in side.files), repr(side.table.columns), mapping.timezone]).encode()
    ).hexdigest()
    before = pq.read_metadata(target) if target.exists() else None
    whole = side.history is None or side.history.exists()
    if before and whole and (before.metadata or {}).get(_DIGEST) == digest.encode():
        return SideOutcome(name=side.name, known=True, published=before.num_rows)
    try:
        given, bad, rows = _read(side, mapping)
    except BatchStoppedError as error:
        return SideOutcome(name=side.name, stops=error.stops)
    unique, copies, conflicts = _unique(given, side)
    contract = arrow_schema(side.contract)
    history, versions, refused = None, 0, QUARANTINE_SCHEMA.empty_table()
    good = unique.select(contract.names).cast(contract)
    if side.history is not None:
        so_far = as_history(pq.read_table(side.history)) if side.history.exists() else None
        grown = grow(so_far, unique, now=read_time(settings.clock, EventLog(settings.log).end_time()))
        good, history, versions, refused = grown.newest, grown.history, grown.added, grown.refused
    bad = pa.concat_tables([bad, conflicts, refused])
    older = unique.num_rows - refused.num_rows - good.num_rows
    assert rows == good.num_rows + older + copies + bad.num_rows, (rows, good.num_rows, older, copies, bad.num_rows)  # noqa: S101
    stops = [failed.stop() for failed in gate.check(side.name, good, side.contract)]
    usual = before.num_rows if before else 0
    if good.num_rows < usual * _LEAST and "volume" not in allow:
        stops.append(
            Stop(
                rule="volume",
                subject=side.name,
                reason=f"{good.num_rows} good rows, the published table has {usual}",
                remedy="send the whole table; if it has really shrunk, take it in with --allow volume",
            )
        )
    counts = tuple(count_rules(bad))
    if stops:
        return SideOutcome(name=side.name, rows=rows, quarantined=counts, stops=tuple(stops))
    publish_quarantine(settings.quarantine, digest, bad)
    if side.history is not None and (versions or not side.history.exists()):
        # first: killed after it, the table is taken in again, and adds nothing to a history that has it
        publish_file(side.history, lambda aside: pq.write_table(history, aside, compression="zstd"), "catalogue")
    marked = good.replace_schema_metadata({_DIGEST: digest.encode()})
    publish_file(target, lambda aside: pq.write_table(marked, aside, compression="zstd"), "catalogue")
    return SideOutcome(
        name=side.name,
        rows=rows,
        published=good.num_rows,
        older=older,
        copies=copies,
        versions=versions,
        quarantined=counts,
    )


def _read(side: _Side, mapping: Mapping) -> tuple[pa.Table, pa.Table, int]:
    """Rows that keep the row rules, with `__file` and `__row`; those that do not (`QUARANTINE_SCHEMA`); rows in.

    Raises:
        BatchStoppedError: a file cannot be read, or lacks a column.
    """
    goods, bads, rows = [], [], 0
    required = [one.source for one in side.table.columns if one.source and not one.optional]
    optional = [one.source for one in side.table.columns if one.optional]
    for file in side.files:
        source = read_source(file, required=required, optional=optional, options=mapping.options)
        cast = cast_side(source, side.table.columns, side.columns, mapping)
        routed = route(cast.table, file=file.name, rows=source.rows, failures=cast.failures, columns=side.columns)
        goods.append(
            routed.good.append_column(
                "__file", pa.array([file.name] * routed.good.num_rows, pa.string())
            ).append_column("__row", pa.array(source.rows[routed.kept]))
        )
        bads += [unreadable_rows(file.name, source.unreadable), routed.bad]
        rows += source.rows_in
    return pa.concat_tables(goods), pa.concat_tables(bads), rows


def _unique(table: pa.Table, side: _Side) -> tuple[pa.Table, int, pa.Table]:
    """The first row of each key stands; the same again is a copy, other content a conflict.

    Returns:
        The rows by key, number of copies, conflicts (`QUARANTINE_SCHEMA`).
    """
    names, key = table.column_names, ", ".join(side.key)
    content = ", ".join(f"coalesce(cast({column.name} as varchar), chr(0))" for column in side.columns)
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.register("given", table.append_column("__at", pa.array(range(table.num_rows), pa.int64())))
        con.execute(
            f"create temp table fate as select *, row_number() over same as nth, "
            f"concat_ws(chr(31), {content}) as content, "
            f"first(concat_ws(chr(31), {content})) over same as first_content from given "
            f"window same as (partition by {key} order by __at)"
        )
        good = con.sql(f"select {', '.join(names)} from fate where nth = 1 order by {key}").to_arrow_table()
        copies = con.sql("select count(*) from fate where nth > 1 and content = first_content").fetchall()[0][0]
        name = side.key[0]
        conflicts = con.sql(
            f"select __file as file, __row as row, {name} as event_id, 'conflict' as rule, '{name}' as \"column\", "
            f"{name} as value, 'a row with this {key} and other content came first' as reason, "
            f"'send one row for each {key}' as remedy, '' as also "
            "from fate where nth > 1 and content <> first_content order by __at"
        ).to_arrow_table()
    return good.cast(table.schema), int(copies), conflicts.cast(QUARANTINE_SCHEMA)
