"""From the event log to histories: what the offline store computes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.declarations import CATALOGUE_FIELDS, Declaration, field_type
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog
from clicktrail.history import History, Labels, label_key, label_steps, starts_of
from clicktrail.kernels import order as ordering
from clicktrail.kernels.arrays import readonly
from clicktrail.label_events import read_labels


def load_history(
    log: EventLog,
    entity_key: str,
    declarations: Sequence[Declaration],
    *,
    stop: int | None = None,
    offsets: bool = False,
) -> tuple[History, pa.Array]:
    """All that these views (of one entity) need of the log before `stop`.

    Args:
        log: the event log.
        entity_key: of the views, as `Declaration.entity_key` has it.
        declarations: the views.
        stop: offset at which to stop; by default the end of the log.
        offsets: keep the offset of each event too, as the column `offset`.

    Returns:
        The history, and the entity ids by entity code (string [entities]); one entity without events follows
        the last, for ids that the log knows nothing of (see `entity_codes`).
    """
    stop = log.version if stop is None else stop
    while True:
        forgotten = log.forgotten_digest
        loaded = _load(log, entity_key.split("+"), declarations, stop, offsets=offsets)
        if forgotten == log.forgotten_digest:  # else rows may have gone between two columns
            return loaded


def _load(
    log: EventLog, keys: Sequence[str], declarations: Sequence[Declaration], stop: int, *, offsets: bool
) -> tuple[History, pa.Array]:
    """See `load_history`. Columns are read one after the other, so that at most one is in memory twice."""
    wanted = {event for one in declarations for event in one.events}
    codes, entities = codes_of(entity_ids(log.read(keys, stop=stop, dictionaries=keys), keys))
    types, type_names = codes_of(log.read(["event_type"], stop=stop, dictionaries=["event_type"])["event_type"])
    types = types.astype(np.uint8)
    kept = np.array([name in wanted for name in type_names.to_pylist()] or [False])
    if not kept.all():
        codes = np.where(kept[types], codes, np.int32(-1))  # a row that no view wants is nobody's
    starts, order = ordering.group(codes, len(entities) + 1)
    del codes
    event, known = _times(log, stop)
    if ordering.sort_within(readonly(starts), order, readonly(known), readonly(event)):
        _break_ties(log, order, starts, known, event, stop)
    types = types[order]
    event = event[order]
    known = known[order]
    index = pa.array(order)
    columns = {}
    for name in sorted({name for one in declarations for name in one.columns}):
        strings = [name] if pa.types.is_string(field_type(name)) else []
        columns[name] = _single(log.read([name], stop=stop, dictionaries=strings)[name]).take(index)
    if offsets:
        columns["offset"] = _single(log.read(["offset"], stop=stop)["offset"]).take(index)
    catalogue = None
    if any(set(one.inputs) & set(CATALOGUE_FIELDS) for one in declarations):
        from clicktrail.catalogue import Catalogue  # few views ask for it

        catalogue = Catalogue.load(log.path.parent / "catalogue" / "items_history.parquet")
    history = History(
        starts=starts,
        known=known,
        event=event,
        types=types,
        type_names=tuple(type_names.to_pylist()),
        columns=columns,
        labels=_labels(log, keys, entities, declarations, stop=stop),
        catalogue=catalogue,
    )
    return history, entities


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """A dictionary-encoded column as int32 codes (-1 null), and the value of each code."""
    single = _single(column)
    indices = pc.fill_null(single.indices, -1) if single.null_count else single.indices
    return indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), single.dictionary


def entity_codes(ids: pa.Array | pa.ChunkedArray, entities: pa.Array) -> np.ndarray:
    """Entity code of each id: -1 where it is null, len(entities) where nothing is known of it; int64 [rows].

    Raises:
        ValueError: an id is a number with a fraction.
    """
    if pa.types.is_floating(ids.type):  # whole numbers with a null among them, as pandas has them: 7.0 means "7"
        ids = ids.cast(pa.int64())
    found = pc.index_in(ids.cast(pa.string()), value_set=entities)
    codes = pc.if_else(pc.is_null(ids), -1, pc.fill_null(found, len(entities)))
    return codes.to_numpy(zero_copy_only=False).astype(np.int64)


def _single(column: pa.ChunkedArray) -> pa.Array:
    """A chunked column as one array; dictionaries of the chunks are made one."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return (
            pa.array([], pa.string()).dictionary_encode()
            if pa.types.is_dictionary(column.type)
            else pa.array([], column.type)
        )
    return column.combine_chunks()


def _times(log: EventLog, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Event time and known_at of the rows before `stop`, int64 microseconds; one column at a time."""
    event = _filled(log.read(["event_timestamp"], stop=stop)["event_timestamp"])
    known = _filled(log.read(["ingested_at"], stop=stop)["ingested_at"])
    return event, np.maximum(event, known, out=known)


def _filled(column: pa.ChunkedArray) -> np.ndarray:
    """A column of integers or times without nulls as a new int64 array; chunks are let go one by one."""
    out = np.empty(len(column), np.int64)
    at = 0
    for chunk in column.chunks:
        out[at : at + len(chunk)] = chunk.view(pa.int64()).to_numpy()
        at += len(chunk)
    return out


def _break_ties(
    log: EventLog, order: np.ndarray, starts: np.ndarray, known: np.ndarray, event: np.ndarray, stop: int
) -> None:
    """Put rows of an entity that share both times in the order of source_seq and event_id, in place.

    These columns are read for the rows concerned alone.

    Args:
        log: the event log.
        order: positions of rows by entity and times, uint32 [rows].
        starts: where each entity begins in it, int64 [entities + 1].
        known: int64 by position.
        event: int64 by position.
        stop: where the log was read up to.
    """
    tied, group = ordering.ties(readonly(starts), order, readonly(known), readonly(event))
    rows = pa.array(order[tied])
    source_seq = log.read(["source_seq"], stop=stop)["source_seq"].take(rows).to_numpy()
    rank = np.zeros(len(tied), np.int64)
    same = np.lexsort((source_seq, group))
    again = (np.diff(source_seq[same]) == 0) & (np.diff(group[same]) == 0)
    if again.any():
        ids = log.read(["event_id"], stop=stop)["event_id"].take(rows)
        rank = pc.rank(ids, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
    order[tied] = order[tied][np.lexsort((rank, source_seq, group))]


def _labels(
    log: EventLog, keys: Sequence[str], entities: pa.Array, declarations: Sequence[Declaration], *, stop: int
) -> dict[str, Labels]:
    wanted = {(feature.label, feature.events) for one in declarations for feature in one.aggregates if feature.label}
    out = {}
    for label, events in sorted(wanted):
        found = read_labels(log, label, events, stop=stop, keys=keys)
        codes = entity_codes(entity_ids(found, keys), entities)
        known, step = label_steps(
            found["target"].to_numpy(),
            found["known"].to_numpy(),
            found["value"].to_numpy(),
            found["target_known"].to_numpy(),
        )
        event = found["target_event"].to_numpy()
        kept = np.flatnonzero((codes >= 0) & (codes < len(entities)))
        order = kept[np.lexsort((known[kept], codes[kept]))]
        out[label_key(label, events)] = Labels(
            starts=starts_of(codes[order], len(entities) + 1), known=known[order], event=event[order], step=step[order]
        )
    return out
