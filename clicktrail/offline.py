"""From the event log to histories: what the offline store computes from."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import BEHAVIOUR_TYPES, LABEL
from clicktrail.declarations import DERIVED_FIELDS, Declaration, field_type
from clicktrail.event_log import EventLog, known_at
from clicktrail.history import History, Labels, contract_order, label_key, label_steps, starts_of


def load_history(
    log: EventLog, entity_key: str, declarations: Sequence[Declaration], *, stop: int | None = None
) -> tuple[History, pa.Array]:
    """All that these views (of one entity) need of the log before `stop`.

    Returns:
        The history, and the entity ids by entity code (string [entities]); one entity without events follows
        the last, for ids that the log knows nothing of (see `entity_codes`).
    """
    columns = sorted({name for one in declarations for name in one.columns} - set(DERIVED_FIELDS))
    strings = [name for name in columns if pa.types.is_string(field_type(name))]
    wanted = {event for one in declarations for event in one.events}
    types = None if wanted >= set(BEHAVIOUR_TYPES) else sorted(wanted)
    events = log.read(
        list(
            dict.fromkeys(
                [entity_key, "event_type", "event_timestamp", "ingested_at", "source_seq", "offset", *columns]
            )
        ),
        event_types=types,
        stop=stop,
        dictionaries=[entity_key, "event_type", *strings],
    )
    keep = pc.is_valid(events[entity_key])
    if types is None:
        keep = pc.and_(keep, pc.not_equal(events["event_type"].cast(pa.string()), LABEL))
    if not pc.all(keep, min_count=0).as_py():
        events = events.filter(keep)
    codes, entities = codes_of(events[entity_key])
    event = events["event_timestamp"].cast(pa.int64()).to_numpy()
    known = known_at(events)
    order = contract_order(
        codes, known, event, events["source_seq"].to_numpy(), lambda: _event_ids(log, events["offset"], stop)
    )
    type_codes, type_names = codes_of(events["event_type"])
    taken = pa.array(order)
    history = History(
        starts=starts_of(codes[order], len(entities) + 1),
        known=known[order],
        event=event[order],
        types=type_codes[order].astype(np.int32),
        type_names=tuple(type_names.to_pylist()),
        columns={name: _single(events[name]).take(taken) for name in columns},
        labels=_labels(log, entity_key, entities, declarations, stop=stop),
    )
    return history, entities


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """A dictionary-encoded column without nulls as int64 codes, and the value of each code."""
    single = _single(column)
    return single.indices.to_numpy(zero_copy_only=False).astype(np.int64), single.dictionary


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


def _event_ids(log: EventLog, offsets: pa.ChunkedArray, stop: int | None) -> pa.ChunkedArray:
    every = log.read(["offset", "event_id"], stop=stop)
    return every["event_id"].take(pc.index_in(offsets, value_set=every["offset"].combine_chunks()))


def _labels(
    log: EventLog, entity_key: str, entities: pa.Array, declarations: Sequence[Declaration], *, stop: int | None
) -> dict[str, Labels]:
    wanted = {(feature.label, feature.events) for one in declarations for feature in one.aggregates if feature.label}
    out = {}
    for label, events in sorted(wanted):
        found = read_labels(log, label, events, stop=stop)
        codes = entity_codes(found[entity_key], entities)
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


def read_labels(
    log: EventLog, label: str, events: Sequence[str], *, stop: int | None = None, of: pa.Array | None = None
) -> pa.Table:
    """Labels with the events they speak of, those of one event together and oldest first.

    Args:
        log: the event log.
        label: name of the label.
        events: event types that it may speak of.
        stop: only what the log held before this offset.
        of: only labels of these event_ids.

    Returns:
        Columns `target` (offset of the event), `target_known`, `target_event`, `known` (int64, microseconds),
        `value`, `label_of` and the entity keys of the event.
    """
    types = ", ".join(f"'{name}'" for name in events)
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        log.attach(con, stop=stop)
        chosen = ""
        if of is not None:
            con.register("chosen", pa.table({"event_id": of}))
            chosen = "and label_of in (select event_id from chosen)"
        con.execute(
            f"create temp table said as select label_of, label_value, known_at, event_timestamp, source_seq, event_id "
            f"from events where event_type = '{LABEL}' and label = $1 {chosen}",
            [label],
        )
        return con.sql(
            f"""
            select e."offset" as target,
                   epoch_us(e.known_at) as target_known, epoch_us(e.event_timestamp) as target_event,
                   epoch_us(said.known_at) as known, said.label_value as value, said.label_of,
                   e.user_id, e.item_id, e.card_id, e.terminal_id
            from said join events e on said.label_of = e.event_id
            where e.event_type in ({types}) and e.event_id in (select label_of from said)
            order by target, said.known_at, said.event_timestamp, said.source_seq, said.event_id
            """
        ).to_arrow_table()
