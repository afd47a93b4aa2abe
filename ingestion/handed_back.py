"""Rows that the log itself refuses, as quarantine keeps them: the same for files and streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clicktrail.event_log import Appended
from validation.routing import QUARANTINE_SCHEMA

_COLUMNS = {"conflict": "event_id", "ahead_of_arrival": "event_timestamp", "forgotten": "user_id"}
_REMEDIES = {
    "conflict": "the first arrival stands: let the producer give a changed event an event_id of its own",
    "ahead_of_arrival": "mend the producer's clock, then send the rows again under the same event_id",
    "forgotten": "nothing to mend: this user asked to be forgotten; let the producer stop sending",
}


def handed_back(appended: Appended, ids: pa.ChunkedArray, *, files: Sequence[str], rows: np.ndarray) -> pa.Table:
    """What `EventLog.append` rejected, as `QUARANTINE_SCHEMA`, in its order.

    Args:
        appended: what became of the table that was given.
        ids: event_id of every row of that table.
        files: name of the file or stream of each *rejected* row.
        rows: number, within its file or stream, of every row of that table; int64.
    """
    at = appended.rejected["row"].to_numpy()
    rules = appended.rejected["rule"].to_pylist()
    named = ids.take(pa.array(at)).cast(pa.string())
    return pa.table(
        {
            "file": pa.array(files, pa.string()),
            "row": pa.array(rows[at], pa.int64()),
            "event_id": named,
            "rule": pa.array(rules, pa.string()),
            "column": pa.array([_COLUMNS[rule] for rule in rules], pa.string()),
            "value": named,
            "reason": appended.rejected["reason"],
            "remedy": pa.array([_REMEDIES[rule] for rule in rules], pa.string()),
            "also": pa.array([""] * len(rules), pa.string()),
        }
    ).cast(QUARANTINE_SCHEMA)
