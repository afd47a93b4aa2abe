"""The last K events of many entity rows at their times, from the event log, beside peers in the same run.

    python -m benchmarks.point_in_time --data DIR --last 50 --result FILE

DIR holds `events.parquet` and `rows.parquet` (user_id, event_timestamp, and columns that come back). The
events are appended to a log first, which is not timed: the peers read Parquet files too. Each part runs in
a process of its own, so that its peak memory is that of the work:

    jagged   from the log's segments to flat arrays and ranges, which is what training reads
    lists    to list columns in memory; for more than two million rows streamed to the result file
    numpy    lexsort, searchsorted and a gather, from one Parquet file
    duckdb   an ASOF join, lists by user and slices
    feast    Feast's own DuckDB store over prebuilt snapshots (one row an event; their building is not timed) and
             ours, both through get_historical_features

Peers that would not fit are left out: numpy and DuckDB above 30 M events, Feast above 2 M. The last line is one
JSON object: `seconds`, `peak_gib` of the lists, the same of each part, and ratios to the peers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import point_in_time_peers as peers
from clicktrail.contract import BEHAVIOUR_TYPES, arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import sequence
from clicktrail.event_log import EventLog

FIELDS = peers.FIELDS
_APPEND = 5_000_000
_STREAM_ROWS, _PEER_EVENTS, _FEAST_EVENTS = 2_000_000, 30_000_000, 2_000_000


def fill(log: EventLog, events: Path) -> dict[str, str]:
    """Append a Parquet file of events in pieces; ids become strings, columns that it lacks null.

    Returns:
        The event type of the file by the contract's that stands for it: made-up data has names of its own.
    """
    file = pq.ParquetFile(events)
    names: dict[str, str] = {}
    for batch in file.iter_batches(_APPEND):
        types = batch["event_type"].cast(pa.string()).dictionary_encode()
        for name in types.dictionary.to_pylist():
            names.setdefault(name, BEHAVIOUR_TYPES[len(names)])
        known = pa.array([names[name] for name in types.dictionary.to_pylist()])
        columns = {
            field.name: batch[field.name].cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(batch.num_rows, field.type)
            for field in arrow_schema()
        }
        columns["event_type"] = known.take(types.indices)
        log.append(pa.table(columns, schema=arrow_schema()))
    return {ours: theirs for theirs, ours in names.items()}


def view(last: int) -> Declaration:
    """The feature that is read."""
    return sequence(name="recent_v1", entity_key="user_id", last=last, fields=FIELDS)


def read(log: EventLog, rows: pa.Table, last: int) -> Any:  # noqa: ANN401 - importing the job's class imports Feast
    """The job that Feast's get_historical_features gives for these rows."""
    from feast.infra.offline_stores.offline_store import RetrievalMetadata

    from clicktrail.retrieval import EventLogRetrievalJob, Wanted

    wanted = Wanted(declaration=view(last), name="recent_v1", features=FIELDS, entity_columns=("user_id",))
    return EventLogRetrievalJob(
        log=log,
        stop=log.version,
        rows=rows,
        timestamp_column="event_timestamp",
        wanted=[wanted],
        others=None,
        full_feature_names=False,
        of_request=[],
        on_demand=[],
        metadata=RetrievalMetadata(features=[], keys=[]),
    )


def part(name: str, log: EventLog, data: Path, last: int, result: Path) -> dict[str, float]:
    """Do one part in this process, which did nothing else; compiled loops are warmed on a few rows first."""
    if name in ("numpy", "duckdb"):
        seconds = _timed(lambda: getattr(peers, f"{name}_lists")(data, last))
    elif name == "feast":
        return peers.feast(log, data, last, view(last))
    else:
        rows = pq.read_table(data / "rows.parquet")
        with tempfile.TemporaryDirectory() as folder:  # numba compiles once a machine: not what is measured
            small = EventLog(Path(folder))
            small.append(log.read(stop=min(log.version, 1000)).select(arrow_schema().names))
            read(small, rows.slice(0, 100), last).to_jagged()
        job = read(log, rows, last)
        if name == "jagged":
            seconds = _timed(job.to_jagged)
        elif rows.num_rows > _STREAM_ROWS:
            seconds = _timed(lambda: job.write_parquet(result))
        else:
            began = time.perf_counter()
            table = job.to_arrow()
            seconds = time.perf_counter() - began
            pq.write_table(table, result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {f"{name}_seconds": round(seconds, 3), f"{name}_peak_gib": round(peak, 2)}


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def restore_names(result: Path, names: dict[str, str]) -> int:
    """Write the result again with the file's own event types and without keys; returns the number of values."""
    file = pq.ParquetFile(result)
    total, writer = 0, None
    aside = result.with_suffix(".named")
    for group in range(file.num_row_groups):
        table = file.read_row_group(group).drop_columns(["user_id", "event_timestamp"])
        column = table["event_type"].combine_chunks()
        encoded = column.values.cast(pa.string()).dictionary_encode()
        theirs = pa.array([names[one] for one in encoded.dictionary.to_pylist()], pa.string())
        lists = type(column).from_arrays(column.offsets, theirs.take(encoded.indices))
        table = table.set_column(table.column_names.index("event_type"), "event_type", lists)
        writer = writer or pq.ParquetWriter(aside, table.schema)
        writer.write_table(table)
        total += int(pc.sum(pc.list_value_length(table[FIELDS[0]])).as_py() or 0)
    if writer:
        writer.close()
        aside.replace(result)
    return total


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with events.parquet and rows.parquet")
    parser.add_argument("--last", type=int, default=50, help="events a row at most")
    parser.add_argument("--result", type=Path, required=True, help="Parquet file to write the lists to")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(
            json.dumps(part(arguments.part, EventLog(arguments.log), arguments.data, arguments.last, arguments.result))
        )
        return
    events = pq.read_metadata(arguments.data / "events.parquet").num_rows
    wanted = ["jagged", "lists"]
    wanted += ["numpy", "duckdb"] if events <= _PEER_EVENTS else []
    wanted += ["feast"] if events <= _FEAST_EVENTS else []
    figures: dict[str, Any] = {"events": events, "rows": pq.read_metadata(arguments.data / "rows.parquet").num_rows}
    with tempfile.TemporaryDirectory(dir=arguments.result.absolute().parent) as folder:
        began = time.perf_counter()
        log = EventLog(Path(folder) / "log")
        names = fill(log, arguments.data / "events.parquet")
        figures["append_seconds"] = round(time.perf_counter() - began, 1)
        for name in wanted:
            command = [sys.executable, "-m", "benchmarks.point_in_time", "--part", name, "--log", str(log.path)]
            command += ["--data", str(arguments.data), "--last", str(arguments.last), "--result", str(arguments.result)]
            figures |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    figures["values"] = restore_names(arguments.result, names)
    figures |= {"seconds": figures["lists_seconds"], "peak_gib": figures["lists_peak_gib"]}
    figures["microseconds_per_event"] = round(figures["jagged_seconds"] / events * 1e6, 3)
    for peer in ("numpy", "duckdb"):
        if peer in wanted:
            for ours in ("jagged", "lists"):
                figures[f"{ours}_of_{peer}"] = round(figures[f"{ours}_seconds"] / figures[f"{peer}_seconds"], 2)
    print(peers.table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
