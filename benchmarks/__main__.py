"""All measurements: `make bench`, or `python -m benchmarks [NAME ...]`. Figures are kept under var/bench.

Each prints a table and, as its last line, one JSON object of figures. Data that a measurement needs and
this machine lacks (CLICKTRAIL_DATA) leaves it out, with a word.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.serving_shop import PATHS
from clicktrail.publish import publish_bytes
from clicktrail.settings import load
from tests.worlds import write_cases  # the checkout's own: a benchmark runs from a checkout

_ORDERED = ("--order", "position", "--seeds", "3")
_ON_DATA = {
    "handbook_features": ("fraud_handbook/transactions.parquet",),
    "sequential:beauty": ("amazon_beauty/beauty.parquet", *_ORDERED),
    "sequential:beauty_refit": ("amazon_beauty/beauty.parquet", *_ORDERED, "--refit"),
    "sequential:toys": ("amazon_toys/toys_and_games.parquet", *_ORDERED),
    "sequential:movielens_a": ("movielens_1m/interactions.parquet", *_ORDERED),
    "sequential:movielens_c": ("movielens_1m/interactions_time_then_id_order.parquet", *_ORDERED),
    "sequential:taobao": ("taobao/events.parquet", "--order", "timestamp", "--seeds", "3"),
    "fraud_handbook": ("fraud_handbook/transactions.parquet",),
    "repeat_purchase": ("cdnow/transactions_master.parquet",),
    "training_speed": ("amazon_beauty/beauty.parquet",),
    "encoders": ("amazon_beauty/beauty.parquet", "--order", "position"),
}
"""Measurement -> its file under CLICKTRAIL_DATA, and further arguments; what follows a colon tells several apart."""
_EVENTS, _ROWS, _WORLDS, _FEW_WORLDS = 1_000_000, 100_000, 500, 60


def make_point_in_time(folder: Path, events: int = _EVENTS, rows: int = _ROWS) -> None:
    """Events and entity rows as a shop has them: skewed users, ties, 2 s until an event is known, 1 % hours late."""
    rng = np.random.default_rng(0)
    users = max(events // 20, 1)
    weight = rng.pareto(1.5, users) + 1
    weight /= weight.sum()
    stamp = rng.integers(0, 90 * 86400, events)
    known = stamp + 2 + np.where(rng.random(events) < 0.01, rng.integers(0, 86400, events), 0)  # noqa: PLR2004 - 1 %
    ids = {
        "user_id": [f"u{one}" for one in rng.choice(users, events, p=weight)],
        "item_id": [f"i{one}" for one in rng.integers(0, 100_000, events)],
        "event_type": [f"t{one}" for one in rng.integers(0, 5, events)],
    }
    pq.write_table(
        pa.table(
            {
                "event_id": np.arange(events),
                "source_seq": np.arange(events),
                **ids,
                "price_minor": rng.integers(1, 10**6, events),
                "event_timestamp": _times(stamp),
                "ingested_at": _times(known),
            }
        ),
        folder / "events.parquet",
    )
    keys = [f"u{one}" for one in rng.choice(users, rows, p=weight)]
    times = _times(rng.integers(0, 90 * 86400, rows))
    pq.write_table(
        pa.table({"row": np.arange(rows), "user_id": keys, "event_timestamp": times}), folder / "rows.parquet"
    )


def _times(seconds: np.ndarray) -> pa.Array:
    return pa.array((1_700_006_400 + seconds) * 1_000_000, pa.timestamp("us", tz="UTC"))


def commands(folder: Path) -> dict[str, list[str]]:
    """Each measurement's module and arguments; what they read is made in `folder`."""
    write_cases(folder / "cases.json", _WORLDS, seed=0)
    write_cases(folder / "few_cases.json", _FEW_WORLDS, seed=0)
    make_point_in_time(folder)
    known = {
        "time_semantics": ["--cases", str(folder / "cases.json")],
        "conformance": ["--cases", str(folder / "few_cases.json")],
        "point_in_time": ["--data", str(folder), "--result", str(folder / "result.parquet")],
        "live_intake": ["--door", "http"],
        "online_store": ["--store", "sqlite"],
        "parity": ["--reads", "100000"],
        "serving_runtime": [],
        "retrieval": [],
    }
    known = {name: [name, *arguments] for name, arguments in known.items()}
    known |= {f"serving_{task}": ["serving", "--task", task] for task in PATHS}
    data = Path(os.environ.get("CLICKTRAIL_DATA", "."))
    for name, (file, *arguments) in _ON_DATA.items():
        if (data / file).is_file():
            known[name] = [name.partition(":")[0], "--data", str(data / file), *arguments]
        else:
            print(f"{name} is left out: no {data / file} (CLICKTRAIL_DATA)")
    return known


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="measurements to run; all by default")
    names = parser.parse_args().names
    results = load().home / "bench"
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder))
        for name in names or known:
            if name not in known:
                parser.error(f"there is no measurement {name!r}; there are: {', '.join(known)}")
            module, *arguments = known[name]
            command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(f"{name}\n{done.stdout}")
            figures = json.loads(done.stdout.splitlines()[-1])
            figures["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            publish_bytes(results / f"{name.replace(':', '_')}.json", json.dumps(figures, indent=1).encode(), "bench")


if __name__ == "__main__":
    main()
