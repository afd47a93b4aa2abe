"""Quarantine: rejected rows with their reasons, one Parquet file a batch, named by the batch's digest."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.publish import publish_file
from validation.routing import QUARANTINE_SCHEMA


def publish_quarantine(folder: Path, digest: str, rows: pa.Table) -> None:
    """Put a batch's rejected rows in place; with none, its file goes.

    The name is the digest of the batch, so a batch taken in again after a kill replaces its own file.
    """
    target = folder / f"{digest}.parquet"
    if rows.num_rows == 0:
        target.unlink(missing_ok=True)
        return
    publish_file(target, lambda aside: pq.write_table(rows, aside, compression="zstd"), "quarantine")


def read_quarantine(folder: Path) -> pa.Table:
    """Every rejected row of a shop (`QUARANTINE_SCHEMA`), by batch digest, then row."""
    tables = [pq.read_table(path, schema=QUARANTINE_SCHEMA) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else QUARANTINE_SCHEMA.empty_table()
