"""Side tables: items and users, held to their contract and published whole. The newest files are the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.contract import ITEM_COLUMNS, USER_COLUMNS, Column, arrow_schema
from clicktrail.publish import publish_file
from clicktrail.settings import Settings
from ingestion.casting import cast_side
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
    """What became of a side table. `rows` = `published` + `copies` + quarantined rows, unless it was stopped."""

    name: str
    rows: int = 0
    published: int = 0
    copies: int = 0
    known: bool = False
    quarantined: tuple[RuleCount, ...] = ()
    stops: tuple[Stop, ...] = ()


def take_in_side_tables(
    path: Path, mapping: Mapping, settings: Settings, *, gate: Gate, allow: Sequence[str] = ()
) -> list[SideOutcome]:
    """Publish the side tables that the mapping names and that lie at `path` or beside it."""
    outcomes = []
    for name, table, contract in (("items", mapping.items, ITEM_COLUMNS), ("users", mapping.users, USER_COLUMNS)):
        files = _find(path, table) if table else []
        if table and files:
            outcomes.append(_take_in(name, files, table, contract, mapping, settings, gate, allow))
    return outcomes


def _find(path: Path, table: SideTable) -> list[Path]:
    """In the folder given, else beside it: the events may lie in a folder of their own."""
    for folder in (path, path.parent):
        if folder.is_dir():
            found = sorted(file for glob in table.files for file in folder.glob(glob) if file.is_file())
            if found:
                return found
    return []


def _take_in(
    name: str,
    files: Sequence[Path],
    table: SideTable,
    contract: tuple[Column, ...],
    mapping: Mapping,
    settings: Settings,
    gate: Gate,
    allow: Sequence[str],
) -> SideOutcome:
    target = settings.catalogue / f"{name}.parquet"
    # the mapping is part of what makes a catalogue: read otherwise, it is another
    digest = hashlib.sha256(
        "".join([*(digest_of(file) for file in files), repr(table.columns), mapping.timezone]).encode()
    ).hexdigest()
    before = pq.read_metadata(target) if target.exists() else None
    if before and (before.metadata or {}).get(_DIGEST) == digest.encode():
        return SideOutcome(name=name, known=True, published=before.num_rows)
    goods, bads, rows = [], [], 0
    try:
        for file in files:
            required = [one.source for one in table.columns if one.source and not one.optional]
            optional = [one.source for one in table.columns if one.optional]
            source = read_source(file, required=required, optional=optional, options=mapping.options)
            cast = cast_side(source, table.columns, contract, mapping)
            routed = route(cast.table, file=file.name, rows=source.rows, failures=cast.failures, columns=contract)
            goods.append(
                routed.good.append_column(
                    "__file", pa.array([file.name] * routed.good.num_rows, pa.string())
                ).append_column("__row", pa.array(source.rows[routed.kept]))
            )
            bads += [unreadable_rows(file.name, source.unreadable), routed.bad]
            rows += source.rows_in
    except BatchStoppedError as error:
        return SideOutcome(name=name, stops=error.stops)
    good, copies, conflicts = _unique(pa.concat_tables(goods), contract)
    bad = pa.concat_tables([*bads, conflicts])
    assert rows == good.num_rows + copies + bad.num_rows, (rows, good.num_rows, copies, bad.num_rows)  # noqa: S101
    stops = [failed.stop() for failed in gate.check(name, good, contract)]
    usual = before.num_rows if before else 0
    if good.num_rows < usual * _LEAST and "volume" not in allow:
        stops.append(
            Stop(
                rule="volume",
                subject=name,
                reason=f"{good.num_rows} good rows, the published table has {usual}",
                remedy="send the whole table; if it has really shrunk, take it in with --allow volume",
            )
        )
    counts = tuple(count_rules(bad))
    if stops:
        return SideOutcome(name=name, rows=rows, quarantined=counts, stops=tuple(stops))
    publish_quarantine(settings.quarantine, digest, bad)
    marked = good.replace_schema_metadata({_DIGEST: digest.encode()})
    publish_file(target, lambda aside: pq.write_table(marked, aside, compression="zstd"), "catalogue")
    return SideOutcome(name=name, rows=rows, published=good.num_rows, copies=copies, quarantined=counts)


def _unique(table: pa.Table, contract: tuple[Column, ...]) -> tuple[pa.Table, int, pa.Table]:
    """The first row of each key stands; the same again is a copy, other content a conflict.

    Returns:
        Contract table by key, number of copies, conflicts (`QUARANTINE_SCHEMA`).
    """
    key, names = contract[0].name, [column.name for column in contract]
    content = ", ".join(f"coalesce(cast({name} as varchar), chr(0))" for name in names)
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
        conflicts = con.sql(
            f"select __file as file, __row as row, {key} as event_id, 'conflict' as rule, '{key}' as \"column\", "
            f"{key} as value, 'a row with this {key} and other content came first' as reason, "
            f"'send one row for each {key}' as remedy, '' as also "
            "from fate where nth > 1 and content <> first_content order by __at"
        ).to_arrow_table()
    return good.cast(arrow_schema(contract)), int(copies), conflicts.cast(QUARANTINE_SCHEMA)
