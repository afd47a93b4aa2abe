"""Reading one version of an event log: a stretch of offsets, rows by id, a view for SQL; without what is hidden."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from clicktrail.contract import arrow_schema
from clicktrail.log_folder import STORED, LogFolder
from clicktrail.log_hashes import id_hashes
from clicktrail.log_manifest import Manifest, Segment


def stretch(
    folder: LogFolder,
    manifest: Manifest,
    columns: Sequence[str],
    *,
    start: int,
    stop: int,
    event_types: Sequence[str] | None = None,
    dictionaries: Sequence[str] = (),
) -> pa.Table:
    """Rows with start <= offset < stop, in the order of their offsets; the other arguments as of `EventLog.read`."""
    as_codes = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([field.with_type(as_codes) if field.name in dictionaries else field for field in STORED])
    segments = manifest.within(start, stop)
    if not segments or start >= stop:
        return schema.empty_table().select(columns)
    keep: list[ds.Expression] = []
    if any(segment.start < start or segment.stop > stop for segment in segments):
        keep.append((ds.field("offset") >= start) & (ds.field("offset") < stop))
    if event_types is not None:
        keep.append(ds.field("event_type").isin(list(event_types)))
    hidden = _hidden(folder, segments)
    if len(hidden):
        keep.append(~ds.field("offset").isin(pa.array(hidden)))
    source = ds.dataset(
        [str(folder.segments / segment.file) for segment in segments],
        schema=schema,
        format=ds.ParquetFileFormat(dictionary_columns=set(dictionaries)),
    )
    return source.to_table(columns=list(columns), filter=functools.reduce(operator.and_, keep) if keep else None)


def rows_of(
    folder: LogFolder,
    manifest: Manifest,
    ids: pa.Array | pa.ChunkedArray | None,
    columns: Sequence[str],
    *,
    key: str,
    stop: int,
) -> pa.Table:
    """Rows before `stop` whose `key` (event_id or label_of) is one of `ids`, in the order of their offsets.

    All labels where `ids` is None.
    """
    segments = manifest.within(0, stop)
    if ids is None:
        offsets = folder.labels(segments)
    else:
        offsets = folder.find(segments, id_hashes(ids), labels=key == "label_of").offsets
    rows = folder.take(manifest, np.unique(offsets[offsets < stop]), list(dict.fromkeys([key, *columns])))
    if ids is not None:  # equal hashes are not equal ids
        single = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        rows = rows.filter(pc.is_in(rows[key], value_set=single))
    return rows.select(list(columns))


def attach(folder: LogFolder, manifest: Manifest, con: duckdb.DuckDBPyConnection, *, stop: int, view: str) -> None:
    """Create the view `view` over the rows before `stop` in a DuckDB connection."""
    segments = manifest.within(0, stop)
    names = ", ".join(f'"{name}"' for name in [*arrow_schema().names, "offset"])
    where = f'"offset" < {stop}'
    hidden = _hidden(folder, segments)
    if len(hidden):
        con.register("hidden_offsets", pa.table({"offset": hidden}))
        con.execute(f"create or replace temp table {view}_hidden as from hidden_offsets")
        con.unregister("hidden_offsets")
        where += f' and "offset" not in (from {view}_hidden)'
    con.execute(
        f"create or replace temp view {view} as select {names}, greatest(event_timestamp, ingested_at) as known_at "
        f"from {_files_sql(folder, segments)} where {where}"
    )


def _hidden(folder: LogFolder, segments: Sequence[Segment]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(folder.hidden(segment) for segment in segments)])


def _files_sql(folder: LogFolder, segments: Sequence[Segment]) -> str:
    if not segments:
        columns = ", ".join(f'null::{_duckdb_type(field.type)} as "{field.name}"' for field in STORED)
        return f"(select {columns} where false)"
    files = ", ".join(_quote(str(folder.segments / segment.file)) for segment in segments)
    return f"read_parquet([{files}], union_by_name = true)"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _duckdb_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz"
    return {"string": "varchar", "int64": "bigint", "uint64": "ubigint"}[str(type_)]
