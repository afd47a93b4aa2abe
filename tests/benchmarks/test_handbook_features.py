"""The handbook's features on made-up transactions: ties, empty windows and delays included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow


def test_every_value_is_that_of_the_naive_version(tmp_path: Path) -> None:
    """On 3,000 transactions over 60 days, all rows and all 14 features are equal."""
    rng = np.random.default_rng(0)
    rows = 3_000
    seconds = np.sort(rng.integers(0, 60 * 24, rows) * 3_600)  # whole hours: ties, and edges of windows that are hit
    pq.write_table(
        pa.table(
            {
                "TRANSACTION_ID": pa.array(range(rows), pa.int32()),
                "TX_DATETIME": pa.array((1_522_540_800 + seconds) * 1_000_000, pa.timestamp("us")),
                "CUSTOMER_ID": pa.array(rng.integers(0, 20, rows), pa.int32()),
                "TERMINAL_ID": pa.array(rng.integers(0, 30, rows), pa.int32()),
                "TX_AMOUNT": np.round(rng.uniform(0, 300, rows), 2),
                "TX_FRAUD": pa.array(rng.random(rows) < 0.1).cast(pa.int8()),
            }
        ),
        tmp_path / "transactions.parquet",
    )
    command = [sys.executable, "-m", "benchmarks.handbook_features", "--data", str(tmp_path / "transactions.parquet")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["mismatches"] == 0
    assert figures["rows"] == figures["sampled"] == rows
