"""The features of decisions computed anew from the event log, at the offset and the time that they were read at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clicktrail.declarations import Declaration
from clicktrail.engine import values
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.read_log import plain
from serving.decision_rows import KNOWN, OFFSET, READ_AT, TIME


def rebuilt(log: EventLog, rows: pa.Table, declarations: Sequence[Declaration]) -> pa.Table:
    """The columns of these views as the log gives them, [rows] as `rows`.

    A view that was not read then is taken at the offset and the time of the decision; `known__<view>` says whether the
    log has an event of its entity.

    Args:
        log: the event log.
        rows: rows of the decision log.
        declarations: the views; rows without a column of an entity key are of nobody.

    Raises:
        ValueError: the log ends before an offset that was read.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for one in declarations:
        read = f"{READ_AT}{one.name}" in rows.column_names
        offsets = rows[f"{OFFSET}{one.name}" if read else "offset"].to_numpy()
        times = rows[f"{READ_AT}{one.name}" if read else "t"].cast(pa.int64()).to_numpy()
        if offsets.max() > log.version:
            message = f"the event log in {log.path} ends at offset {log.version}, and {one.name} was of {offsets.max()}"
            raise ValueError(message)
        features, known = _at_offsets(log, one, _entities(rows, one), offsets, times)
        columns |= {f"{one.name}__{name}": column for name, column in features.items()}
        columns |= {
            f"{KNOWN}{one.name}": pa.array(known),
            f"{READ_AT}{one.name}": pa.array(times, TIME),
            f"{OFFSET}{one.name}": pa.array(offsets),
        }
    return pa.table(columns)


def _at_offsets(
    log: EventLog, declaration: Declaration, ids: pa.ChunkedArray, offsets: np.ndarray, times: np.ndarray
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Features [rows] of a view, and whether there was an event of the entity; the log is read once an offset."""
    parts, order = [], []
    known = np.zeros(len(offsets), bool)
    for offset in np.unique(offsets):
        mine = np.flatnonzero(offsets == offset)
        history, entities = load_history(log, declaration.entity_key, [declaration], stop=int(offset))
        codes = entity_codes(ids.take(pa.array(mine)), entities)
        parts.append(values(declaration, history, codes, times[mine]))
        order.append(mine)
        there = codes >= 0
        known[mine[there]] = np.diff(history.starts)[codes[there]] > 0
    back = pa.array(np.argsort(np.concatenate(order)))
    names = declaration.outputs.items()
    return {
        name: _typed(pa.concat_arrays([plain(one[name]) for one in parts]).take(back), to) for name, to in names
    }, known


def _typed(column: pa.Array, to: pa.DataType) -> pa.Array:
    return column if column.type == to else column.cast(to)


def _entities(rows: pa.Table, declaration: Declaration) -> pa.ChunkedArray:
    nobody = pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
    keys = {key: rows[key] if key in rows.column_names else nobody for key in declaration.entity_keys}
    return entity_ids(pa.table(keys), declaration.entity_keys)
