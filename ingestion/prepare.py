"""One file on its way to the gate: read, cast, routed, and the facts of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import EVENT_COLUMNS, LABEL, arrow_schema
from ingestion.casting import Cast, cast_events
from ingestion.mapping import LabelMapping, Mapping
from ingestion.readers import read_source
from ingestion.source import Source, Unreadable
from validation.batch import BatchFacts
from validation.routing import QUARANTINE_SCHEMA, Routed, route

UNMAPPED = "(unmapped)"
"""Event type of rows whose own the mapping does not name, in the facts of a batch."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A file that could be read.

    `events`: contract table, good rows and then the labels made from them; `rows`: file row of each (int64, labels
    carry the row that they were made from); `bad`: `QUARANTINE_SCHEMA`; `facts`: what is recorded.
    """

    events: pa.Table
    rows: np.ndarray
    bad: pa.Table
    facts: BatchFacts


def prepare(path: Path, *, file: str, digest: str, mapping: Mapping) -> Prepared:
    """Read a file and send every row of it one of two ways.

    Raises:
        BatchStoppedError: no batch can be made of it (column missing, type changed, file broken).
    """
    source = read_source(path, required=mapping.required, optional=mapping.optional, options=mapping.options)
    cast = cast_events(source, mapping)
    routed = route(cast.table, file=file, rows=source.rows, failures=cast.failures)
    bad = pa.concat_tables([unreadable_rows(file, source.unreadable), routed.bad])
    labels, of_rows = _labels(routed, cast, mapping, source)
    return Prepared(
        events=pa.concat_tables([routed.good, *labels]),
        rows=np.concatenate([source.rows[routed.kept], *of_rows]),
        bad=bad,
        facts=BatchFacts(
            file=file,
            digest=digest,
            reader=mapping.name,
            rows=source.rows_in,
            made=sum(table.num_rows for table in labels),
            quarantined=counted(bad["rule"]),
            types=counted(pc.fill_null(cast.table["event_type"], UNMAPPED)),
            kinds=source.kinds,
            unreadable={name: counts for name, counts in cast.readable.items() if counts[0]},
            newest_event=_newest(routed.good["event_timestamp"]),
            newest_arrival=_newest(routed.good["ingested_at"]),
        ),
    )


def unreadable_rows(file: str, rows: tuple[Unreadable, ...]) -> pa.Table:
    """Rows that could not be split into values, as `QUARANTINE_SCHEMA`."""
    entries = [
        {
            "file": file,
            "row": one.row,
            "rule": "row_readable",
            "value": one.text,
            "reason": one.reason,
            "remedy": "mend the producer's quoting and line ends",
            "also": "",
        }
        for one in rows
    ]
    return pa.Table.from_pylist(entries, schema=QUARANTINE_SCHEMA)


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, by value."""
    pairs = pc.value_counts(column).to_pylist()
    return {one["values"]: one["counts"] for one in sorted(pairs, key=lambda one: one["values"])}


def _labels(routed: Routed, cast: Cast, mapping: Mapping, source: Source) -> tuple[list[pa.Table], list[np.ndarray]]:
    """Label events made from good rows: a label of a rejected row would speak of an event that nobody has."""
    tables, rows = [], []
    kept = pa.array(routed.kept)
    for values, label in zip(cast.labels, mapping.labels, strict=True):
        said = values.take(kept)
        speaks = pc.fill_null(pc.greater_equal(said, 0), fill_value=False)
        tables.append(_label_events(routed.good.filter(speaks), said.filter(speaks), label))
        rows.append(source.rows[routed.kept][np.asarray(speaks)])
    return tables, rows


def _label_events(about: pa.Table, values: pa.ChunkedArray, label: LabelMapping) -> pa.Table:
    schema = arrow_schema(EVENT_COLUMNS)
    known = pc.add(about["event_timestamp"], pa.scalar(label.known_after, pa.duration("us")))
    # the user is left out: whoever is forgotten takes the labels of his events with him
    made = {
        "event_id": pc.binary_join_element_wise(about["event_id"], pa.scalar(label.label), ":"),
        "event_type": pa.array([LABEL] * about.num_rows, pa.string()),
        "event_timestamp": known,
        "ingested_at": known,
        "source_seq": about["source_seq"],
        "label_of": about["event_id"],
        "label": pa.array([label.label] * about.num_rows, pa.string()),
        "label_value": values,
    }
    columns = [made.get(field.name, pa.nulls(about.num_rows, field.type)) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _newest(times: pa.ChunkedArray) -> int:
    """99th percentile, microseconds UTC: one wrong clock does not move it; 0 of nothing."""
    if len(times) == 0:
        return 0
    values = times.cast(pa.int64()).to_numpy()
    return int(np.quantile(values, 0.99, method="higher"))
