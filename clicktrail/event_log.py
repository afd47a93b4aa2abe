"""The event log: append-only Parquet segments under one manifest, the single source of everything derived.

An accepted row gets an offset, for good; a version of the log is an offset (the number of rows before
it). Event ids are unique: the first arrival stands, a copy is dropped and counted, a copy with other
content is handed back. A manifest is written aside, synced and renamed, so a reader sees the old
version or the new one. Digests are of content: compaction would not change them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clicktrail.contract import AHEAD_LIMIT_SECONDS, EVENT_COLUMNS, MICROSECONDS, arrow_schema
from clicktrail.publish import failpoint, publish_bytes, publish_file

_SCHEMA = arrow_schema()
_STORED = _SCHEMA.append(pa.field("offset", pa.int64(), nullable=False)).append(
    pa.field("content", pa.uint64(), nullable=False)
)
_STRINGS = tuple(column.name for column in EVENT_COLUMNS if pa.types.is_string(column.type))
_ARRIVAL = ("ingested_at", "source_seq")
_ROW_GROUP = 131_072
REJECTED_SCHEMA = pa.schema([("row", pa.int64()), ("rule", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What became of a batch: rows in = accepted + copies + rows of `rejected`.

    `rejected` has columns `row` (index into the table that was given), `rule` and `reason`; `copied` holds the
    indices of the copies, int64 [copies].
    """

    version: int
    accepted: int
    copied: np.ndarray
    rejected: pa.Table

    @property
    def copies(self) -> int:
        """How many rows were copies."""
        return len(self.copied)


class EventLog:
    """The event log in a folder; the folder need not exist yet."""

    def __init__(self, path: Path) -> None:
        """`path` is the folder of this log."""
        self.path = path

    # ---- what it holds

    @property
    def version(self) -> int:
        """Rows accepted so far, which is the next offset."""
        return int(self._manifest()["version"])

    @property
    def epoch(self) -> str:
        """Names this log: state that was derived from another log does not match it."""
        return str(self._manifest()["epoch"])

    @property
    def forgotten_digest(self) -> str:
        """Changes whenever users are forgotten; empty while there are none."""
        users = self._manifest()["forgotten"]
        return hashlib.sha256("\0".join(users).encode()).hexdigest() if users else ""

    def batches(self) -> list[dict[str, Any]]:
        """What was recorded of each batch, in order of arrival."""
        return list(self._manifest()["batches"])

    def batch(self, digest: str) -> dict[str, Any] | None:
        """What was recorded of the batch with this digest."""
        return next((entry for entry in self.batches() if entry["digest"] == digest), None)

    def has_batch(self, digest: str) -> bool:
        """Whether this batch was taken in already."""
        return self.batch(digest) is not None

    def end_time(self, stop: int | None = None) -> int:
        """The largest known_at among the rows before `stop`, microseconds UTC; 0 when there is none."""
        manifest = self._manifest()
        stop = manifest["version"] if stop is None else stop
        whole = [entry["max_known"] for entry in manifest["segments"] if entry["start"] + entry["rows"] <= stop]
        parts = [entry for entry in manifest["segments"] if entry["start"] < stop < entry["start"] + entry["rows"]]
        for entry in parts:
            known = known_at(self.read(_TIMES, start=entry["start"], stop=stop))
            if len(known):  # else these users are all forgotten
                whole.append(int(known.max()))
        return max(whole, default=0)

    def digest(self, stop: int | None = None) -> str:
        """Digest of the content before `stop` and of who was forgotten; how rows lie in segments does not matter."""
        manifest = self._manifest()
        stop = manifest["version"] if stop is None else stop
        total = np.zeros(2, np.uint64)
        for entry in manifest["segments"]:
            if entry["start"] + entry["rows"] <= stop:
                total += np.array([int(entry["digest"][:16], 16), int(entry["digest"][16:], 16)], np.uint64)
            elif entry["start"] < stop:
                with duckdb.connect() as con:
                    total += _content_sum(con, f'select * from {self._files_sql([entry])} where "offset" < {stop}')
        forgotten = ",".join(sorted(manifest["forgotten"]))
        return hashlib.sha256(f"{_hex(total)}|{stop}|{forgotten}".encode()).hexdigest()

    # ---- reading

    def read(
        self,
        columns: Sequence[str] | None = None,
        *,
        event_types: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        dictionaries: Sequence[str] = (),
    ) -> pa.Table:
        """Rows with start <= offset < stop, in the order of their offsets, forgotten users left out.

        Args:
            columns: contract columns and `offset`; all of them by default.
            event_types: only these.
            start: first offset.
            stop: first offset that is not read; the whole log by default.
            dictionaries: string columns to return dictionary-encoded.

        Raises:
            ValueError: `stop` lies past the end of the log.
        """
        manifest = self._manifest()
        stop = manifest["version"] if stop is None else stop
        if stop > manifest["version"]:
            message = f"offset {stop} was asked for, the log ends at {manifest['version']}: ingest first"
            raise ValueError(message)
        names = [*_SCHEMA.names, "offset"] if columns is None else list(columns)
        fields = [_STORED.field(name) for name in _STORED.names]
        schema = pa.schema(
            [
                field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in dictionaries else field
                for field in fields
            ]
        )
        segments = [
            entry for entry in manifest["segments"] if entry["start"] < stop and entry["start"] + entry["rows"] > start
        ]
        if not segments or start >= stop:
            return schema.empty_table().select(names)
        keep: ds.Expression | None = None
        if any(entry["start"] < start or entry["start"] + entry["rows"] > stop for entry in segments):
            keep = (ds.field("offset") >= start) & (ds.field("offset") < stop)
        if event_types is not None:
            keep = _and(keep, ds.field("event_type").isin(list(event_types)))
        if manifest["forgotten"]:
            keep = _and(keep, self._remembered(manifest))
        source = ds.dataset(
            [str(self.path / "segments" / entry["file"]) for entry in segments],
            schema=schema,
            format=ds.ParquetFileFormat(dictionary_columns=set(dictionaries)),
        )
        return source.to_table(columns=names, filter=keep)

    def query(self, sql: str, *, stop: int | None = None) -> pa.Table:
        """Run DuckDB SQL over the view `events` (contract columns, `offset`, `known_at`), forgotten users left out.

        Sums over doubles are not reproducible in DuckDB: keep money in integers.
        """
        with duckdb.connect() as con:
            con.execute("set timezone = 'UTC'")
            self.attach(con, stop=stop)
            return con.sql(sql).to_arrow_table()

    def attach(self, con: duckdb.DuckDBPyConnection, *, stop: int | None = None, view: str = "events") -> None:
        """Create the view `view` over the log in a DuckDB connection."""
        manifest = self._manifest()
        stop = manifest["version"] if stop is None else stop
        names = ", ".join(f'"{name}"' for name in [*_SCHEMA.names, "offset"])
        source = self._files_sql([entry for entry in manifest["segments"] if entry["start"] < stop])
        forgotten = ", ".join(_quote(user) for user in manifest["forgotten"])
        where = f'"offset" < {stop}'
        if forgotten:
            theirs = f"select event_id from {source} where user_id in ({forgotten})"
            where += f" and coalesce(user_id, '') not in ({forgotten}) and coalesce(label_of, '') not in ({theirs})"
        con.execute(
            f"create or replace temp view {view} as select {names}, greatest(event_timestamp, ingested_at) as known_at "
            f"from {source} where {where}"
        )

    # ---- writing

    def append(
        self,
        table: pa.Table,
        *,
        batch: str = "",
        counts: dict[str, Any] | None = None,
        before: Callable[[Appended], None] | None = None,
    ) -> Appended:
        """Take in a batch in one step: uniqueness, offsets, segment, manifest.

        Args:
            table: contract columns (`arrow_schema()`); row rules were checked before.
            batch: digest of the batch; recorded, so that `has_batch` knows it.
            counts: anything to record beside it.
            before: called with the outcome before any of it is published, under the writer's lock: whoever
                keeps rejected rows publishes them here, so that a kill in between loses none. An error stops it.

        Raises:
            ValueError: the table has not the contract's schema, or this batch was taken in before.
        """
        if table.column_names != _SCHEMA.names or table.schema.types != _SCHEMA.types:
            odd = [f for f in _SCHEMA if f.name not in table.column_names or table.schema.field(f.name).type != f.type]
            extra = sorted(set(table.column_names) - set(_SCHEMA.names))
            message = (
                f"the batch does not follow the event contract: wrong or missing {[str(f) for f in odd]}, unknown "
                f"{extra}; bring it into form with table.select(names).cast(clicktrail.contract.arrow_schema())"
            )
            raise ValueError(message)
        with self._writer_lock():
            manifest = self._manifest()
            if batch and any(entry["digest"] == batch for entry in manifest["batches"]):
                message = f"batch {batch} was taken in before: ask has_batch first"
                raise ValueError(message)
            with duckdb.connect() as con:
                rows, copied, rejected = self._sort_out(con, table, manifest)
                outcome = Appended(
                    version=manifest["version"] + rows.num_rows,
                    accepted=rows.num_rows,
                    copied=copied,
                    rejected=rejected,
                )
                if before is not None:
                    before(outcome)
                if rows.num_rows:
                    manifest["segments"].append(self._publish_segment(con, rows, manifest["version"]))
            manifest["version"] += rows.num_rows
            if batch or rows.num_rows:
                manifest["batches"].append(
                    {
                        "digest": batch,
                        "version": manifest["version"],
                        "accepted": rows.num_rows,
                        "copies": outcome.copies,
                        "rejected": rejected.num_rows,
                        "counts": counts or {},
                    }
                )
                self._publish_manifest(manifest)
        return outcome

    def forget(self, user_ids: Iterable[str]) -> None:
        """Put users on the tombstone list: from now on no reader sees their events, or labels of these."""
        with self._writer_lock():
            manifest = self._manifest()
            manifest["forgotten"] = sorted({*manifest["forgotten"], *user_ids})
            self._publish_manifest(manifest)

    # ---- inside

    def _manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        if not path.exists():
            return {"version": 0, "epoch": "", "segments": [], "batches": [], "forgotten": []}
        return dict(json.loads(path.read_bytes()))

    def _publish_manifest(self, manifest: dict[str, Any]) -> None:
        manifest["epoch"] = manifest["epoch"] or uuid.uuid4().hex
        publish_bytes(self.path / "manifest.json", json.dumps(manifest, indent=1).encode(), "log.manifest")

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _files_sql(self, segments: Sequence[dict[str, Any]]) -> str:
        if not segments:
            columns = ", ".join(f'null::{_duckdb_type(field.type)} as "{field.name}"' for field in _STORED)
            return f"(select {columns} where false)"
        files = ", ".join(_quote(str(self.path / "segments" / entry["file"])) for entry in segments)
        return f"read_parquet([{files}], union_by_name = true)"

    def _remembered(self, manifest: dict[str, Any]) -> ds.Expression:
        """Rows of users that were not forgotten; labels that speak of a forgotten user's events go with them."""
        forgotten = ", ".join(_quote(user) for user in manifest["forgotten"])
        with duckdb.connect() as con:
            theirs = con.sql(
                f"select event_id from {self._files_sql(manifest['segments'])} where user_id in ({forgotten})"
            ).to_arrow_table()["event_id"]
        not_theirs = ds.field("user_id").is_null() | ~ds.field("user_id").cast(pa.string()).isin(manifest["forgotten"])
        label_of = ds.field("label_of").cast(pa.string())
        return not_theirs & (ds.field("label_of").is_null() | ~label_of.isin(theirs.combine_chunks()))

    def _sort_out(
        self, con: duckdb.DuckDBPyConnection, table: pa.Table, manifest: dict[str, Any]
    ) -> tuple[pa.Table, np.ndarray, pa.Table]:
        """Split a batch into the rows to accept (in order of arrival), indices of copies, and rejected rows."""
        con.execute("set timezone = 'UTC'")
        con.register("given", table.append_column("row", pa.array(np.arange(table.num_rows))))
        limit = AHEAD_LIMIT_SECONDS * MICROSECONDS
        con.execute(
            f"""
            create temp table arrived as
            select row, event_id, ingested_at, {_CONTENT} as content,
                   epoch_us(event_timestamp) - epoch_us(ingested_at) > {limit} as ahead
            from given
            """
        )
        # windows are dear and ids mostly come once: only the ids that come again are put in order
        con.execute(
            """
            create temp table again as
            select row, row_number() over arrivals as arrival, first(content) over arrivals as first_content
            from arrived
            where not ahead and event_id in (select event_id from arrived group by event_id having count(*) > 1)
            window arrivals as (partition by event_id order by ingested_at, row)
            """
        )
        con.execute(
            f"""
            create temp table stands as
            select event_id, content from {self._files_sql(manifest["segments"])}
            where event_id in (select event_id from arrived)
            """
        )
        con.execute(
            """
            create temp table fate as
            select row, case when ahead then 'ahead'
                             when stands.event_id is not null
                                  then if(stands.content = arrived.content, 'copy', 'conflict')
                             when coalesce(arrival, 1) = 1 then 'accept'
                             when arrived.content = first_content then 'copy' else 'conflict' end as fate,
                   arrived.content as content
            from arrived left join stands using (event_id) left join again using (row)
            """
        )
        rows = con.sql(
            "select given.* exclude (row), fate.content from given join fate using (row) where fate = 'accept' "
            "order by ingested_at, row"
        ).to_arrow_table()
        offsets = pa.array(np.arange(manifest["version"], manifest["version"] + rows.num_rows))
        stored = rows.add_column(len(_SCHEMA), "offset", offsets).cast(_STORED)
        copied = con.sql("select row from fate where fate = 'copy' order by row").fetchnumpy()["row"]
        rejected = con.sql(
            f"""
            select row, if(fate = 'ahead', 'ahead_of_arrival', 'conflict') as rule,
                   if(fate = 'ahead', 'dated more than {AHEAD_LIMIT_SECONDS} s ahead of its own arrival',
                      'an event with this event_id and other content came first') as reason
            from fate where fate in ('ahead', 'conflict') order by row
            """
        ).to_arrow_table()
        return stored, np.asarray(copied, np.int64), rejected.cast(REJECTED_SCHEMA)

    def _publish_segment(self, con: duckdb.DuckDBPyConnection, rows: pa.Table, start: int) -> dict[str, Any]:
        name = f"{start:015d}.parquet"
        publish_file(
            self.path / "segments" / name,
            lambda aside: pq.write_table(
                rows, aside, compression="zstd", row_group_size=_ROW_GROUP, use_dictionary=list(_STRINGS)
            ),
            "log.segment",
        )
        failpoint("log.before_manifest")
        con.register("segment", rows)
        events = rows["event_timestamp"].cast(pa.int64()).to_numpy()
        known = known_at(rows)
        return {
            "file": name,
            "start": start,
            "rows": rows.num_rows,
            "min_event": int(events.min()),
            "max_event": int(events.max()),
            "min_known": int(known.min()),
            "max_known": int(known.max()),
            "digest": _hex(_content_sum(con, "select * from segment")),
        }


_TIMES = ("event_timestamp", "ingested_at")


def known_at(table: pa.Table) -> np.ndarray:
    """known_at = max(event_timestamp, ingested_at) of each row, int64 microseconds UTC."""
    event, arrived = (table[name].cast(pa.int64()).to_numpy() for name in _TIMES)
    return np.maximum(event, arrived)


def _field_sql(field: pa.Field) -> str:
    value = f"epoch_us({field.name})" if pa.types.is_timestamp(field.type) else field.name
    return f"'{field.name}=' || {value}"


_CONTENT_FIELDS = ", ".join(_field_sql(field) for field in _SCHEMA if field.name not in _ARRIVAL)
_CONTENT = f"md5_number_lower(concat_ws(chr(31), {_CONTENT_FIELDS}))"
"""What makes two arrivals of one event_id the same event: all but when and in which order they arrived.

Missing values are left out, so a column that the contract gains later changes no older hash. md5, because
DuckDB's own hash() may change between versions.
"""


def _content_sum(con: duckdb.DuckDBPyConnection, rows_sql: str) -> np.ndarray:
    """Sum of row hashes modulo 2^64, twice: does not depend on order or on segment borders. Shape [2], uint64."""
    row = 'concat_ws(chr(31), content, epoch_us(ingested_at), source_seq, "offset")'
    columns = con.sql(f"select md5_number_lower(h) a, md5_number_upper(h) b from (select {row} h from ({rows_sql}))")
    hashes = columns.fetchnumpy()
    return np.array([hashes["a"].sum(dtype=np.uint64), hashes["b"].sum(dtype=np.uint64)], np.uint64)


def _hex(total: np.ndarray) -> str:
    return f"{int(total[0]):016x}{int(total[1]):016x}"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _and(left: ds.Expression | None, right: ds.Expression) -> ds.Expression:
    return right if left is None else left & right


def _duckdb_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz"
    return {"string": "varchar", "int64": "bigint", "uint64": "ubigint"}[str(type_)]
