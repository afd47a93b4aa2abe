"""Events that no store holds yet, joined to stored states for one read: nothing is stored.

They become records by the code that applies the log, behind those that are held, and the engine orders and finishes
all of them together. So a value is the one that the log would give had these events entered it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import EVENT_COLUMNS
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import entity_ids
from clicktrail.kernels import records as kernels
from clicktrail.kernels.arrays import readonly
from clicktrail.state_records import Records, layout_of, pack_events

_NOT_YET = 2**62
"""Log offsets of events that are in no log: behind those of all that are."""

_ONE_WORD = kernels.head_word(kernels.EVENT, 1)

_SCHEMA = pa.schema([*(pa.field(one.name, one.type) for one in EVENT_COLUMNS), ("offset", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is read of one view: entities [keys] and their records, and up to which log offset each was applied."""

    declaration: Declaration
    entities: Sequence[str]
    records: Records
    applied: Sequence[int]


def event_table(events: Sequence[Mapping[str, Any]], known: int) -> pa.Table:
    """Events as the log would hold them, had they become known at one moment, in this order.

    Args:
        events: contract columns by name, one that is left out is null; times are microseconds UTC.
        known: when they became known, microseconds UTC; not before any of them happened.
    """
    rows = [
        {**event, "ingested_at": known, "source_seq": place, "offset": _NOT_YET + place}
        for place, event in enumerate(events)
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def joined(asked: Sequence[Asked], events: pa.Table) -> list[Records]:
    """The records of each view, with those of `events` (from `event_table`) that it does not hold yet.

    An event that a state holds is known by its id where the view keeps ids, or another one that is read beside it
    does; elsewhere by its type, its time and all that the view keeps of it.
    """
    known = {
        event_id: offset
        for one in asked
        if one.declaration.is_ordered
        for place in range(len(one.entities))
        for event_id, offset in _held_ids(one, place)
    }
    return [_join(one, events, known) for one in asked]


def _join(asked: Asked, events: pa.Table, known: Mapping[str, int]) -> Records:
    mine = events.filter(pc.is_in(events["event_type"], value_set=pa.array(asked.declaration.events, pa.string())))
    whose = entity_ids(mine, asked.declaration.entity_keys).cast(pa.string())
    words, bounds = [], [0]
    for place, entity in enumerate(asked.entities):
        words.append(_words(asked, place))
        words += _new_records(asked, place, mine.filter(pc.fill_null(pc.equal(whose, entity), fill_value=False)), known)
        bounds.append(sum(map(len, words)))
    return Records(words=np.concatenate(words) if words else asked.records.words, bounds=np.array(bounds, np.int64))


def _new_records(asked: Asked, place: int, events: pa.Table, known: Mapping[str, int]) -> Iterator[np.ndarray]:
    """Records of those events of one entity that its state does not hold."""
    declaration = asked.declaration
    if declaration.is_sequence and not declaration.drop_repeats:
        # an older one cannot be among the last, and its record may be gone from the state since
        order = [("event_timestamp", "ascending"), ("source_seq", "ascending")]
        events = events.sort_by(order).slice(max(0, events.num_rows - declaration.last))
    if not events.num_rows:
        return
    types = pc.index_in(events["event_type"], value_set=pa.array(declaration.events, pa.string()))
    codes = np.zeros(events.num_rows, np.int64)
    words = pack_events(declaration, events.combine_chunks(), types.to_numpy(), codes, 1).words
    seen = _contents(asked, place, set(known.values()), events["event_timestamp"].cast(pa.int64()).to_pylist())
    for event_id, record in zip(events["event_id"].to_pylist(), _split(declaration, words), strict=True):
        if event_id in known:
            if known[event_id] < asked.applied[place]:
                continue
        elif (content := _content(record)) in seen and seen[content]:
            seen[content] -= 1
            continue
        yield record


def _contents(asked: Asked, place: int, known: set[int], times: Sequence[int]) -> Counter[bytes]:
    """How often a content of one of these times is held without an id; ordered views have ids for all."""
    if asked.declaration.is_ordered:
        return Counter()
    held = _split(asked.declaration, _words(asked, place))
    return Counter(_content(one) for one in held if one[2] in times and one[3] not in known)


def _content(record: np.ndarray) -> bytes:
    """All of a record but when it arrived and its log offset."""
    return record[[0, 2]].tobytes() + record[4:].tobytes()


def _held_ids(asked: Asked, place: int) -> Iterator[tuple[str, int]]:
    """Id and log offset of each event that the state of an entity in an ordered view holds."""
    words = readonly(_words(asked, place))
    layout = layout_of(asked.declaration)
    at, strings = _at(asked.declaration, words), len(layout.stored_strings)
    ends, text = kernels.texts(words, readonly(at), layout.numbers, strings, strings - 1)
    raw = text.tobytes()
    for record, begin, end in zip(at, ends[:-1], ends[1:], strict=True):
        yield raw[begin:end].decode(), int(words[record + 3])


def _split(declaration: Declaration, words: np.ndarray) -> list[np.ndarray]:
    """The records of events among the words of one entity."""
    return [words[place : place + words[place] // _ONE_WORD] for place in _at(declaration, words)]


def _at(declaration: Declaration, words: np.ndarray) -> np.ndarray:
    """Where the events among the words of one entity begin, int64 [events]."""
    layout = layout_of(declaration)
    bounds = readonly(np.array([0, len(words)]))
    strings = len(layout.stored_strings)
    return kernels.scan(readonly(words), bounds, int(layout.ordered), layout.numbers, strings)[4]


def _words(asked: Asked, place: int) -> np.ndarray:
    begin, end = asked.records.bounds[place : place + 2]
    return asked.records.words[begin:end]
