"""The online state of one entity in one view, and its binary form.

A state keeps the events that can still matter at its own time or later: for a sequence the last K and
those not visible yet, for aggregates what the longest window reaches. Values are finished from it at
read time by the engine that the offline store uses, so that the two cannot drift apart.

Binary form, little-endian: header (magic, log offset, time, number of events and of label steps), then
known_at, event_timestamp, offset, event type, the order columns of a sequence, the columns of the
declaration, the label steps. The declaration says which columns there are; its fingerprint is part of
the key under which a state is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from clicktrail.declarations import DERIVED_FIELDS, Declaration, field_type
from clicktrail.history import History, Labels, label_key

_HEADER = struct.Struct("<4sqqII")
_MAGIC = b"CTS1"
_STEP_COLUMNS = ("kind", "target", "known", "event", "step")
_NEVER = -(2**62)
"""Time of a state to which nothing has arrived: before every event, those before 1970 included."""


@dataclass(frozen=True, kw_only=True)
class State:
    """State of one entity in one view.

    `offset`: everything before it in the log is applied. `time`: newest arrival applied, microseconds;
    reads are answered for t >= time. Shapes: int64 [events], `types` uint8 [events] (index into the
    declaration's events), `columns` by name: int64 Arrow or string Arrow [events]; sequences carry
    `source_seq` and `event_id` among them, for their order. `steps`: int64 [label steps, 5] (label kind,
    offset of the event spoken of, known_at, time of that event, step).
    """

    offset: int
    time: int
    known: np.ndarray
    event: np.ndarray
    offsets: np.ndarray
    types: np.ndarray
    columns: dict[str, pa.Array]
    steps: np.ndarray


def stored_columns(declaration: Declaration) -> tuple[str, ...]:
    """Columns of a state, in the order of the binary form."""
    plain = tuple(name for name in declaration.columns if name not in DERIVED_FIELDS)
    return (*plain, "source_seq", "event_id") if declaration.is_sequence else plain


def label_kinds(declaration: Declaration) -> list[tuple[str, tuple[str, ...]]]:
    """The (label, event types) that the declaration depends on; a step's kind is an index into it."""
    return sorted({(one.label, one.events) for one in declaration.aggregates if one.label})


def empty(declaration: Declaration) -> State:
    """The state of an entity of which nothing is known."""
    none = np.zeros(0, np.int64)
    columns = {name: pa.array([], _column_type(name)) for name in stored_columns(declaration)}
    return State(
        offset=0,
        time=_NEVER,
        known=none,
        event=none,
        offsets=none,
        types=np.zeros(0, np.uint8),
        columns=columns,
        steps=np.zeros((0, len(_STEP_COLUMNS)), np.int64),
    )


def merge(declaration: Declaration, old: State, new: State) -> State:
    """Both states' events, once each, in order; label steps of `new` replace those of the same events.

    `new` holds what arrived since; rows that `old` has applied already (by offset) change nothing.
    """
    fresh = take(new, np.flatnonzero(new.offsets >= old.offset)) if len(new.offsets) else new
    if not len(old.known):
        events = fresh
    elif not len(fresh.known):
        events = old
    else:
        events = _sorted(declaration, _concatenate([old, fresh]))
    spoken_of = np.unique(new.steps[:, :2], axis=0) if len(new.steps) else new.steps[:, :2]
    if len(spoken_of) and len(old.steps):
        pairs = {(int(kind), int(target)) for kind, target in spoken_of}
        kept = np.array([(int(row[0]), int(row[1])) not in pairs for row in old.steps])
        steps = np.concatenate([old.steps[kept], new.steps])
    else:
        steps = np.concatenate([old.steps, new.steps])
    return replace(events, offset=max(old.offset, new.offset), time=max(old.time, new.time), steps=steps)


def prune(declaration: Declaration, state: State) -> State:
    """Drop what no read at t >= state.time can see any more."""
    settled = state.known < state.time
    if declaration.is_sequence:
        drop = max(int(settled.sum()) - declaration.last, 0)  # sorted by known_at: the settled ones come first
        return take(state, np.arange(drop, len(state.known))) if drop else state
    edge = min(_left_edges(declaration, state.time), default=state.time)
    keep = ~settled | (state.event >= edge)
    for events in {one.events for one in declaration.aggregates if one.kind == "time_since"}:
        names = np.array([name in events for name in declaration.events])
        mine = np.flatnonzero(names[state.types] & settled)
        if len(mine):
            keep[mine[np.argmax(state.event[mine])]] = True  # outlives its window: time since it goes on
    pruned = state if keep.all() else take(state, np.flatnonzero(keep))
    return replace(pruned, steps=state.steps[state.steps[:, 3] >= edge])


def pack(declaration: Declaration, state: State) -> bytes:
    """Binary form of a state."""
    parts = [
        _HEADER.pack(_MAGIC, state.offset, state.time, len(state.known), len(state.steps)),
        state.known.astype("<i8").tobytes(),
        state.event.astype("<i8").tobytes(),
        state.offsets.astype("<i8").tobytes(),
        state.types.astype(np.uint8).tobytes(),
    ]
    for name in stored_columns(declaration):
        parts.extend(_pack_column(state.columns[name]))
    parts.append(np.ascontiguousarray(state.steps, "<i8").tobytes())
    return b"".join(parts)


def unpack(declaration: Declaration, blob: bytes) -> State:
    """The state that `pack` wrote.

    Raises:
        ValueError: these bytes are no state of this library's version.
    """
    if blob[:4] != _MAGIC:
        message = f"view {declaration.name!r}: stored bytes start with {blob[:4]!r}, not {_MAGIC!r}: rebuild the state"
        raise ValueError(message)
    _, offset, time, n, n_steps = _HEADER.unpack_from(blob)
    at = _HEADER.size
    known, event, offsets = (np.frombuffer(blob, "<i8", n, at + 8 * n * k) for k in range(3))
    at += 24 * n
    types = np.frombuffer(blob, np.uint8, n, at)
    at += n
    buffer = pa.py_buffer(blob)
    columns = {}
    for name in stored_columns(declaration):
        columns[name], at = _unpack_column(buffer, blob, at, n, _column_type(name))
    steps = np.frombuffer(blob, "<i8", n_steps * len(_STEP_COLUMNS), at).reshape(n_steps, len(_STEP_COLUMNS))
    return State(
        offset=offset, time=time, known=known, event=event, offsets=offsets, types=types, columns=columns, steps=steps
    )


def history_of(declaration: Declaration, states: Sequence[State]) -> History:
    """States side by side, as the engine wants them; entity i is states[i]."""
    both = _concatenate(states)
    kinds = label_kinds(declaration)
    labels = {}
    for kind, (label, events) in enumerate(kinds):
        rows = [state.steps[state.steps[:, 0] == kind] for state in states]
        rows = [one[np.argsort(one[:, 2], kind="stable")] for one in rows]
        every = np.concatenate(rows)
        labels[label_key(label, events)] = Labels(
            starts=_starts([len(one) for one in rows]), known=every[:, 2], event=every[:, 3], step=every[:, 4]
        )
    return History(
        starts=_starts([len(state.known) for state in states]),
        known=both.known,
        event=both.event,
        types=both.types,
        type_names=declaration.events,
        columns=both.columns,
        labels=labels,
    )


def take(state: State, positions: np.ndarray) -> State:
    """The same state with these events alone."""
    index = pa.array(positions)
    return replace(
        state,
        known=state.known[positions],
        event=state.event[positions],
        offsets=state.offsets[positions],
        types=state.types[positions],
        columns={name: column.take(index) for name, column in state.columns.items()},
    )


def _left_edges(declaration: Declaration, t: int) -> list[int]:
    edges = []
    for one in declaration.aggregates:
        if one.window_us is not None:
            left = t - one.delay_us - one.window_us
            edges.append(left // one.hop_us * one.hop_us if one.hop_us else left)
    return edges


def _sorted(declaration: Declaration, state: State) -> State:
    """In the order of the contract; aggregates do not depend on the order of equals."""
    if not declaration.is_sequence:
        order = np.lexsort((state.event, state.known))
    else:
        ids = state.columns["event_id"].to_numpy(zero_copy_only=False).astype(object)
        source_seq = state.columns["source_seq"].to_numpy(zero_copy_only=False)
        keys = list(zip(state.known.tolist(), state.event.tolist(), source_seq.tolist(), ids, strict=True))
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    return state if (order[1:] > order[:-1]).all() else take(state, order)


def _concatenate(states: Sequence[State]) -> State:
    if len(states) == 1:
        return states[0]
    first = states[0]
    return replace(
        first,
        known=np.concatenate([state.known for state in states]),
        event=np.concatenate([state.event for state in states]),
        offsets=np.concatenate([state.offsets for state in states]),
        types=np.concatenate([state.types for state in states]),
        columns={name: pa.concat_arrays([state.columns[name] for state in states]) for name in first.columns},
    )


def _starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _column_type(name: str) -> pa.DataType:
    return {"source_seq": pa.int64(), "event_id": pa.string()}.get(name) or field_type(name)


def _pack_column(column: pa.Array) -> list[bytes]:
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    flags = [b"\1", valid.astype(np.uint8).tobytes()] if column.null_count else [b"\0"]
    if pa.types.is_string(column.type):
        texts = [(text or "").encode() for text in column.to_pylist()]
        ends = np.cumsum([0, *map(len, texts)]).astype("<i4")
        return [*flags, ends.tobytes(), *texts]
    return [*flags, column.fill_null(0).to_numpy(zero_copy_only=False).astype("<i8").tobytes()]


def _unpack_column(buffer: pa.Buffer, blob: bytes, at: int, n: int, type_: pa.DataType) -> tuple[pa.Array, int]:
    mask = None
    has_nulls = blob[at] == 1
    at += 1
    if has_nulls:
        valid = np.frombuffer(blob, np.uint8, n, at).astype(bool)
        mask = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
        at += n
    if pa.types.is_string(type_):
        ends = buffer.slice(at, 4 * (n + 1))
        size = int(np.frombuffer(blob, "<i4", 1, at + 4 * n)[0])
        at += 4 * (n + 1)
        return pa.Array.from_buffers(type_, n, [mask, ends, buffer.slice(at, size)]), at + size
    return pa.Array.from_buffers(type_, n, [mask, buffer.slice(at, 8 * n)]), at + 8 * n
