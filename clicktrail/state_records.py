"""The online state of entities: records that are only ever appended to, and the history that they make.

A state is the concatenation of records (`clicktrail.kernels.records`): an event that arrived, a step that a label
brought about, a base that stands for what was folded away. New events are appended without a look at what is
there; order, and what the newest label says, are found when a state is read. States of many entities are read as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS
from clicktrail.declarations import CATALOGUE_FIELDS, Declaration
from clicktrail.history import AsOf, History, Labels, label_key, starts_of
from clicktrail.kernels import order as ordering
from clicktrail.kernels import records as kernels
from clicktrail.kernels.arrays import readonly

WORD = 8
_TYPES = {column.name: column.type for column in EVENT_COLUMNS}
_NO_STEPS = np.zeros((0, kernels.STEP_WORDS), np.int64)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the records of a view hold beside times and offset: integer and string columns, in this order.

    `ordered`: source_seq and event_id too, without which the order of events is not known to the last.
    """

    integers: tuple[str, ...]
    strings: tuple[str, ...]
    ordered: bool

    @property
    def numbers(self) -> int:
        """Words of numbers in a record."""
        return 3 + self.ordered + len(self.integers)

    @property
    def stored_strings(self) -> tuple[str, ...]:
        """String columns of a record, the event_id last."""
        return (*self.strings, "event_id") if self.ordered else self.strings

    @property
    def columns(self) -> tuple[str, ...]:
        """Every contract column of a record, times and type aside."""
        return (*(("source_seq",) if self.ordered else ()), *self.integers, *self.stored_strings)


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of entities side by side: int64 words, and where each entity begins in them, int64 [entities + 1]."""

    words: np.ndarray
    bounds: np.ndarray

    def blobs(self) -> list[bytes]:
        """The bytes of each entity."""
        raw, cuts = self.words.tobytes(), (self.bounds * WORD).tolist()
        return [raw[begin:end] for begin, end in pairwise(cuts)]

    @staticmethod
    def of(pieces: Sequence[bytes], sizes: Sequence[int]) -> Records:
        """What a store holds: `pieces` of bytes, one entity after the other, each of `sizes` bytes in all.

        Raises:
            ValueError: these are not whole words.
        """
        raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(raw) % WORD:
            message = f"a stored state of {len(raw)} bytes is cut off: rebuild it (make update ARGS='--rebuild VIEW')"
            raise ValueError(message)
        bounds = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(np.array(sizes, np.int64) // WORD, out=bounds[1:])
        return Records(words=np.frombuffer(raw, np.int64), bounds=bounds)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What records say, as plain arrays, and as a history for the engine.

    `starts` int64 [entities + 1]; `known`, `event` int64 [events]; `types` uint8 [events]; `nulls` int64 [events], a
    bit for each integer column of the layout, then each string column; `integers` int64 [integer columns, events].
    `time` int64 [entities]: newest arrival, NEVER where there is none; reads are answered for t >= time. `at` int64
    [events], `step_at` int64 [steps] with `step_entity` and `step_kind`: where the records of what counts begin in
    `words`.
    """

    declaration: Declaration
    words: np.ndarray
    starts: np.ndarray
    known: np.ndarray
    event: np.ndarray
    types: np.ndarray
    nulls: np.ndarray
    integers: np.ndarray
    labels: dict[str, Labels]
    catalogue: AsOf | None
    time: np.ndarray
    at: np.ndarray
    step_at: np.ndarray
    step_entity: np.ndarray
    step_kind: np.ndarray

    @cached_property
    def history(self) -> History:
        """The same with Arrow columns."""
        return History(
            starts=self.starts,
            known=self.known,
            event=self.event,
            types=self.types,
            type_names=self.declaration.events,
            columns=self._columns(),
            labels=self.labels,
            catalogue=self.catalogue,
        )

    def codes(self, column: str) -> np.ndarray:
        """A stored string column as codes, equal within an entity where the strings are; int32 [events], -1 null."""
        layout = layout_of(self.declaration)
        place, strings = layout.strings.index(column), len(layout.stored_strings)
        found, _ = kernels.codes(self.words, readonly(self.starts), self.at, layout.numbers, strings, place)
        null = self.null(column)
        if null is not None:
            found[null] = -1
        return found

    def strings(self, positions: np.ndarray) -> dict[str, tuple[np.ndarray, list[str]]]:
        """The stored string columns at some events: codes, int32 [positions], -1 null, and the string of each code."""
        layout = layout_of(self.declaration)
        strings, at = len(layout.stored_strings), readonly(self.at[positions])
        every = readonly(np.array([0, len(at)]))
        out = {}
        for place, column in enumerate(layout.strings):
            found, first = kernels.codes(self.words, every, at, layout.numbers, strings, place)
            ends, text = kernels.texts(self.words, readonly(at[first]), layout.numbers, strings, place)
            null = self.null(column)
            if null is not None:
                found[null[positions]] = -1
            raw = text.tobytes()
            out[column] = found, [raw[begin:end].decode() for begin, end in pairwise(ends.tolist())]
        return out

    def null(self, column: str) -> np.ndarray | None:
        """Where a stored column is null, bool [events]; None where it is nowhere."""
        layout = layout_of(self.declaration)
        place = (*layout.integers, *layout.strings).index(column)
        return (self.nulls >> place & 1).astype(np.bool_) if self._some_null >> place & 1 else None

    @cached_property
    def _some_null(self) -> int:
        return int(np.bitwise_or.reduce(self.nulls))

    def _columns(self) -> dict[str, pa.Array]:
        layout = layout_of(self.declaration)
        columns: dict[str, pa.Array] = {}
        for place, name in enumerate((*layout.integers, *layout.strings)):
            if place < len(layout.integers):
                column = pa.array(self.integers[place], _TYPES[name])
            else:
                column = _strings(self.declaration, self.words, self.starts, self.at, place - len(layout.integers))
            if self._some_null >> place & 1:
                valid = pa.py_buffer(np.packbits((self.nulls >> place & 1) == 0, bitorder="little"))
                if pa.types.is_dictionary(column.type):
                    indices = pa.Array.from_buffers(pa.int32(), len(self.nulls), [valid, column.indices.buffers()[1]])
                    column = pa.DictionaryArray.from_arrays(indices, column.dictionary)
                else:
                    column = pa.Array.from_buffers(column.type, len(self.nulls), [valid, *column.buffers()[1:]])
            columns[name] = column
        return columns


@lru_cache(maxsize=256)
def layout_of(declaration: Declaration) -> Layout:
    """The layout of a view's records.

    Raises:
        ValueError: a column is neither an integer nor a string, or there are too many.
    """
    integers = tuple(name for name in declaration.columns if pa.types.is_integer(_TYPES[name]))
    strings = tuple(name for name in declaration.columns if pa.types.is_string(_TYPES[name]))
    odd = sorted(set(declaration.columns) - set(integers) - set(strings))
    found = Layout(integers=integers, strings=strings, ordered=declaration.is_ordered)
    if odd or len(found.integers) + len(found.stored_strings) > kernels.MOST_COLUMNS:
        message = (
            f"view {declaration.name!r}: a state holds integer and string columns, {kernels.MOST_COLUMNS} at most; "
            f"not {odd or list(found.columns)}"
        )
        raise ValueError(message)
    return found


@lru_cache(maxsize=256)
def label_kinds(declaration: Declaration) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The (label, event types) that the declaration depends on; a step's kind is an index into it."""
    return tuple(sorted({(one.label, one.events) for one in declaration.aggregates if one.label}))


# ---- events become records


def pack_events(
    declaration: Declaration, table: pa.Table, types: np.ndarray, codes: np.ndarray, entities: int
) -> Records:
    """Events of entities as records, those of one entity together, in the order of the table.

    Args:
        declaration: the view.
        table: event_timestamp, ingested_at, offset and the columns of the layout.
        types: index of each row's event type in the declaration's events, [rows].
        codes: whose event each row is, int64 [rows]; rows of others than 0..entities-1 are left out.
        entities: how many there are.
    """
    layout = layout_of(declaration)
    starts, order = ordering.group(readonly(codes), entities)
    names = ("ingested_at", "event_timestamp", "offset", *(("source_seq",) if layout.ordered else ()), *layout.integers)
    rows = table.num_rows
    numbers = np.empty((len(names), rows), np.int64)
    present = np.ones((len(layout.integers) + len(layout.stored_strings), rows), np.uint8)
    for place, name in enumerate(names):
        column = _whole(table, name)
        if column.null_count:
            present[place - (len(names) - len(layout.integers))] = column.is_valid().to_numpy(zero_copy_only=False)
            column = column.fill_null(0)
        numbers[place] = column.view(pa.int64()).to_numpy()
    ends = np.empty((len(layout.stored_strings), rows + 1), np.int32)
    texts: list[np.ndarray] = []
    bases = np.zeros(len(layout.stored_strings), np.int64)
    for place, name in enumerate(layout.stored_strings):
        column = _whole(table, name)
        if column.null_count:
            present[len(layout.integers) + place] = column.is_valid().to_numpy(zero_copy_only=False)
        _, offsets, text = column.buffers()
        ends[place] = np.frombuffer(offsets, np.int32, rows + 1, 4 * column.offset) if rows else 0
        bases[place] = sum(len(one) for one in texts)
        texts.append(np.frombuffer(text, np.uint8) if text is not None else np.zeros(0, np.uint8))
    text = np.concatenate(texts) if texts else np.zeros(0, np.uint8)
    words, at = kernels.pack(
        order,
        readonly(types, np.uint8),
        readonly(numbers),
        readonly(present, np.uint8),
        readonly(ends, np.int32),
        readonly(text, np.uint8),
        readonly(bases),
    )
    return Records(words=words, bounds=at[starts])


def pack_steps(
    kind: int, target: np.ndarray, known: np.ndarray, event: np.ndarray, step: np.ndarray, computed: int
) -> np.ndarray:
    """Label steps as records, int64 [steps, 6]; all arguments but `kind` and `computed` int64 [steps]."""
    out = np.empty((len(target), kernels.STEP_WORDS), np.int64)
    out[:, 0] = kernels.head_word(kernels.STEP, kernels.STEP_WORDS)
    out[:, 1] = kind | (step + 1) << 32  # -1, 0 or 1
    out[:, 2], out[:, 3], out[:, 4], out[:, 5] = target, known, event, computed
    return out


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


# ---- records become a history


def read_records(declaration: Declaration, records: Records, catalogue: AsOf | None = None) -> Found:
    """The histories of entities from their records; entity i is the i-th of `records`.

    Raises:
        ValueError: the records are damaged.
    """
    layout = layout_of(declaration)
    words, strings = readonly(records.words), len(layout.stored_strings)
    damaged, rising, time, starts, at, known, event, last, step_at, step_entity = kernels.scan(
        words, readonly(records.bounds), int(layout.ordered), layout.numbers, strings
    )
    if damaged >= 0:
        message = (
            f"view {declaration.name!r}: a stored state is damaged at word {damaged}: rebuild it "
            "(make update ARGS='--rebuild VIEW')"
        )
        raise ValueError(message)
    if not rising:
        order = np.arange(len(at), dtype=np.uint32)
        if ordering.sort_within(readonly(starts), order, readonly(known), readonly(event)):
            ids = strings if layout.ordered else 0
            again = kernels.settle_ties(
                words, starts, order, at, readonly(known), readonly(event), readonly(last), layout.numbers, ids
            )
            order = order[~again]
            starts = starts - np.concatenate([[0], np.cumsum(again)])[starts]
        at, known, event = at[order], known[order], event[order]
    at = readonly(at)
    types, nulls, integers = kernels.fill(words, at, layout.numbers, layout.numbers - len(layout.integers))
    steps = _NO_STEPS
    if len(step_at):
        steps = words[step_at[:, None] + np.arange(kernels.STEP_WORDS)]
        counts = _that_count(steps)
        step_at, step_entity, steps = step_at[counts], step_entity[counts], steps[counts]
    kind = steps[:, 1] & 0xFFFFFFFF
    return Found(
        declaration=declaration,
        words=words,
        starts=starts,
        known=known,
        event=event,
        types=types,
        nulls=nulls,
        integers=integers,
        labels={
            label_key(label, events): _labels(steps[kind == one], step_entity[kind == one], len(time))
            for one, (label, events) in enumerate(label_kinds(declaration))
        },
        catalogue=catalogue,
        time=time,
        at=at,
        step_at=step_at,
        step_entity=step_entity,
        step_kind=kind,
    )


def _strings(declaration: Declaration, words: np.ndarray, starts: np.ndarray, at: np.ndarray, column: int) -> pa.Array:
    """A string column of events: as they are for a sequence, which hands them on, else as codes to be counted by."""
    layout = layout_of(declaration)
    strings = len(layout.stored_strings)
    if declaration.is_sequence:
        return _texts(*kernels.texts(words, at, layout.numbers, strings, column))
    codes, first = kernels.codes(words, readonly(starts), at, layout.numbers, strings, column)
    if layout.strings[column] in _only_counted(declaration):
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.nulls(len(first), pa.string()))
    dictionary = _texts(*kernels.texts(words, readonly(at[first]), layout.numbers, strings, column))
    return pa.DictionaryArray.from_arrays(pa.array(codes), dictionary)


@lru_cache(maxsize=256)
def _only_counted(declaration: Declaration) -> frozenset[str]:
    """Fields of which it matters whether two are equal, and nothing else."""
    told = {field for one in declaration.aggregates if one.kind != "distinct" for field in (one.field, *one.uses)}
    if set(declaration.inputs) & set(CATALOGUE_FIELDS):
        told.add("item_id")
    return frozenset(declaration.columns) - told


def _texts(ends: np.ndarray, text: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(text)])


def _that_count(steps: np.ndarray) -> np.ndarray:
    """Positions of the steps of the newest computation about each event, in their old order; `steps` [steps, 6]."""
    kind, target, computed = steps[:, 1] & 0xFFFFFFFF, steps[:, 2], steps[:, 5]
    order = np.lexsort((computed, target, kind))
    first = np.append(True, (np.diff(kind[order]) != 0) | (np.diff(target[order]) != 0))
    newest = computed[order][np.append(np.flatnonzero(first)[1:], len(order)) - 1]
    return np.sort(order[computed[order] == newest[np.cumsum(first) - 1]])


def _labels(steps: np.ndarray, entity: np.ndarray, entities: int) -> Labels:
    order = np.lexsort((steps[:, 3], entity))
    steps, entity = steps[order], entity[order]
    return Labels(
        starts=starts_of(entity, entities), known=steps[:, 3], event=steps[:, 4], step=(steps[:, 1] >> 32) - 1
    )


def twins(declaration: Declaration) -> Records:
    """An entity with two events of one moment and without any text: what it takes to go through every kernel."""
    layout = layout_of(declaration)
    length = 1 + layout.numbers + (len(layout.stored_strings) + 1) // 2
    words = np.zeros(2 * length, np.int64)
    words[[0, length]] = kernels.head_word(kernels.EVENT, length)
    words[length + 3] = 1
    return Records(words=words, bounds=np.array([0, 2 * length]))
