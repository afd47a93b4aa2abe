"""The Fraud Detection Handbook's 14 features for all of its transactions, through Feast, held against a naive version.

    python -m benchmarks.handbook_features --data FILE

FILE is the handbook's transactions in one Parquet file (TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID, TERMINAL_ID,
TX_AMOUNT, TX_FRAUD). They enter a log by the mapping that ingestion ships, which is not timed but told. The timed
part is `get_historical_features(...).to_arrow()` with every transaction as an entity row at its own time. The naive
version looks at each sampled row's customer and terminal one transaction after the other. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.mapping import load_mapping
from ingestion.prepare import prepare

_DELAY = timedelta(days=7)
_WINDOWS = (1, 7, 30)
_COLUMNS = ["TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]


def fill(log: EventLog, data: Path) -> float:
    """Append the file's payments and their labels to the log; returns the seconds that it took."""
    began = time.perf_counter()
    prepared = prepare(data, file=data.name, digest="handbook", mapping=load_mapping("fraud_handbook"))
    log.append(prepared.events)
    return time.perf_counter() - began


def entity_rows(transactions: pa.Table) -> pd.DataFrame:
    """The transactions as entity rows: keys, time, and what a request to score one would carry."""
    return pd.DataFrame(
        {
            "user_id": transactions["CUSTOMER_ID"].to_numpy(),
            "terminal_id": transactions["TERMINAL_ID"].to_numpy(),
            "event_timestamp": pd.to_datetime(transactions["TX_DATETIME"].to_pandas(), utc=True),
            "price_minor": np.rint(transactions["TX_AMOUNT"].to_numpy() * 100).astype(np.int64),
        }
    )


def read(settings: Settings, rows: pd.DataFrame) -> tuple[pa.Table, float]:
    """The features of all rows, through Feast, and the seconds that it took."""
    from benchmarks import handbook
    from clicktrail.feast_repo import open_store

    store = open_store(settings)
    store.apply(
        [
            handbook.customer,
            handbook.terminal,
            handbook.customer_v1,
            handbook.terminal_v1,
            handbook.handbook_v1,
            handbook.handbook,
        ]
    )
    service = store.get_feature_service("handbook")
    began = time.perf_counter()
    table = store.get_historical_features(rows, service).to_arrow()
    return table, time.perf_counter() - began


def mismatches(table: pa.Table, transactions: pa.Table, sample: int) -> int:
    """Values of sampled rows that differ from the naive version."""
    raw = transactions.to_pylist()
    of_customer, of_terminal = defaultdict(list), defaultdict(list)
    for one in raw:
        of_customer[one["CUSTOMER_ID"]].append(one)
        of_terminal[one["TERMINAL_ID"]].append(one)
    chosen = np.random.default_rng(0).choice(len(raw), min(sample, len(raw)), replace=False)
    read_rows = table.take(pa.array(chosen)).to_pylist()
    differ = 0
    for row, found in zip(chosen, read_rows, strict=True):
        one = raw[row]
        expected = _naive(one, of_customer[one["CUSTOMER_ID"]], of_terminal[one["TERMINAL_ID"]])
        differ += sum(found[name] != value for name, value in expected.items())
    return differ


def _naive(one: dict[str, Any], of_customer: list[dict[str, Any]], of_terminal: list[dict[str, Any]]) -> dict[str, Any]:
    """The 14 features of one transaction by their definition."""
    t: datetime = one["TX_DATETIME"]
    out: dict[str, Any] = {"TX_DURING_WEEKEND": int(t.weekday() >= 5), "TX_DURING_NIGHT": int(t.hour <= 6)}  # noqa: PLR2004
    for days in _WINDOWS:
        window = timedelta(days=days)
        amounts = [_minor(other) for other in of_customer if t - window <= other["TX_DATETIME"] < t] + [_minor(one)]
        out[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"] = len(amounts)
        out[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"] = sum(amounts) / len(amounts)
        due = [other for other in of_terminal if t - _DELAY - window <= other["TX_DATETIME"] < t - _DELAY]
        out[f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW"] = len(due)
        frauds = sum(other["TX_FRAUD"] for other in due)
        out[f"TERMINAL_ID_RISK_{days}DAY_WINDOW"] = frauds / len(due) if due else 0.0
    return out


def _minor(one: dict[str, Any]) -> int:
    return round(one["TX_AMOUNT"] * 100)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the handbook's transactions.parquet")
    parser.add_argument("--sample", type=int, default=10_000, help="rows that are held against the naive version")
    arguments = parser.parse_args()
    transactions = pq.read_table(arguments.data, columns=_COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        log = EventLog(settings.log)
        ingest_seconds = fill(log, arguments.data)
        table, seconds = read(settings, entity_rows(transactions))
        version = log.version
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{table.num_rows:,} rows in {seconds:.1f} s from a log of {version:,} rows, taken in in {ingest_seconds:.0f} s"
    )
    figures = {
        "seconds": round(seconds, 3),
        "mismatches": mismatches(table, transactions, arguments.sample),
        "rows": table.num_rows,
        "sampled": min(arguments.sample, table.num_rows),
        "ingest_seconds": round(ingest_seconds, 1),
        "peak_gib": round(peak, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
