"""The last K events of many entity rows at their times, from the event log, timed beside a bare DuckDB query.

    python -m benchmarks.point_in_time --data DIR --last 50 --result FILE

DIR holds `events.parquet` and `rows.parquet` (user_id, event_timestamp, and columns that come back). The
events are appended to a log first, which is not timed: the peer reads Parquet files too. The timed part
is everything from the log's segments to list columns in memory. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.contract import arrow_schema
from clicktrail.declaring import sequence
from clicktrail.engine import sequence_lists, sequences
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history

FIELDS = ("item_id", "event_type", "price_minor")
_APPEND = 2_000_000


def fill(log: EventLog, events: Path) -> None:
    """Append a Parquet file of events in pieces; ids become strings, columns that it lacks null."""
    file = pq.ParquetFile(events)
    for batch in file.iter_batches(_APPEND):
        columns = {
            field.name: batch[field.name].cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(batch.num_rows, field.type)
            for field in arrow_schema()
        }
        log.append(pa.table(columns, schema=arrow_schema()))


def solve(log: EventLog, rows: pa.Table, last: int) -> pa.Table:
    """`rows` without its keys, and one list column a field, oldest first."""
    types = log.query("select distinct event_type from events")["event_type"].to_pylist()
    declaration = sequence(name="recent_v1", entity_key="user_id", last=last, fields=FIELDS)
    # the made-up event types of the data are none of the contract's
    declaration = type(declaration)(**{**declaration.__dict__, "events": tuple(sorted(types))})
    history, entities = load_history(log, "user_id", [declaration])
    codes = entity_codes(rows["user_id"], entities)
    t = rows["event_timestamp"].cast(pa.int64()).to_numpy()
    lists = sequence_lists(declaration, sequences(declaration, history, codes, t))
    kept = [name for name in rows.column_names if name not in ("user_id", "event_timestamp")]
    return pa.table({**{name: rows[name] for name in kept}, **lists})


def peer(data: Path, last: int) -> float:
    """Seconds of the bare DuckDB query for the same lists: an ASOF join, lists by user, slices."""
    began = time.perf_counter()
    lists = ", ".join(f"list({field} order by n) as {field}" for field in FIELDS)
    slices = ", ".join(
        f"coalesce(list_slice({field}, greatest(n - {last - 1}, 1), n), []) as {field}" for field in FIELDS
    )
    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as con:
        con.sql(
            f"""
            with seen as (select user_id, {", ".join(FIELDS)}, greatest(event_timestamp, ingested_at) as known_at,
                row_number() over (partition by user_id order by greatest(event_timestamp, ingested_at),
                                   event_timestamp, source_seq, event_id) as n
                from '{data}/events.parquet'),
            whole as (select user_id, {lists} from seen group by user_id),
            placed as (select r.row, r.user_id, s.n from '{data}/rows.parquet' r
                       asof left join seen s on r.user_id = s.user_id and r.event_timestamp > s.known_at)
            select row, {slices} from placed left join whole using (user_id)
            """
        ).to_arrow_table()
    return time.perf_counter() - began


def timed(log_path: Path, data: Path, last: int, result: Path) -> dict[str, float]:
    """Solve in this process, which did nothing else, so that its peak memory is that of the work."""
    rows = pq.read_table(data / "rows.parquet")
    began = time.perf_counter()
    table = solve(EventLog(log_path), rows, last)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pq.write_table(table, result)
    values = int(np.sum(pc.list_value_length(table[FIELDS[0]]).to_numpy()))
    return {"seconds": round(seconds, 3), "peak_gib": round(peak, 2), "rows": table.num_rows, "values": values}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with events.parquet and rows.parquet")
    parser.add_argument("--last", type=int, default=50, help="events a row at most")
    parser.add_argument("--result", type=Path, required=True, help="Parquet file to write the lists to")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.log:
        print(json.dumps(timed(arguments.log, arguments.data, arguments.last, arguments.result)))
        return
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "log")
        fill(log, arguments.data / "events.parquet")
        command = [sys.executable, "-m", "benchmarks.point_in_time", "--data", arguments.data, "--log", log.path]
        command += ["--last", str(arguments.last), "--result", arguments.result]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    duckdb_seconds = peer(arguments.data, arguments.last)
    figures |= {"duckdb_seconds": round(duckdb_seconds, 3), "ratio": round(figures["seconds"] / duckdb_seconds, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
