"""Events of many entities side by side, each entity's in the order in which they became known.

One form for both doors: offline it is built from the log, online from the states of the entities that
are asked for. Everything that computes a value (clicktrail/engine.py) works on it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.declarations import CATALOGUE_FIELDS

MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What labels say of an entity's events, as steps: at `known` the event of time `event` gains `step`.

    Shapes: `starts` int64 [entities + 1]; the rest int64 [labels], per entity in the order of `known`.
    """

    starts: np.ndarray
    known: np.ndarray
    event: np.ndarray
    step: np.ndarray


class AsOf(Protocol):
    """What a catalogue knew: `clicktrail.catalogue.Catalogue`."""

    def as_of(self, item_ids: pa.Array, known: np.ndarray, field: str) -> pa.Array:
        """A column of each item as it was known before each time, [events]."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Events of entities 0..n-1.

    Shapes: `starts` int64 [n + 1]; `known`, `event` int64 [events], microseconds UTC (known_at and
    event_timestamp); `types` uint8 [events], index into `type_names`; `columns` Arrow arrays [events],
    strings dictionary-encoded. Order within an entity: (known_at, event_timestamp, source_seq, event_id).
    """

    starts: np.ndarray
    known: np.ndarray
    event: np.ndarray
    types: np.ndarray
    type_names: tuple[str, ...]
    columns: dict[str, pa.Array]
    labels: dict[str, Labels]
    catalogue: AsOf | None = None

    def only(self, event_types: Sequence[str]) -> History:
        """The part of it that has these event types; labels go unchanged."""
        if set(self.type_names) <= set(event_types):
            return self
        wanted = np.array([name in event_types for name in self.type_names] or [False])
        return self._keep(wanted[self.types] if len(self.types) else np.zeros(0, bool))

    def without_repeats(self, fields: Sequence[str]) -> History:
        """The part of it without events that have these fields in common with the one before; a null equals a null."""
        repeats = np.ones(max(len(self.known) - 1, 0), bool)
        for field in fields:
            column = self.column(field)
            codes = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).indices
            values = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
            repeats &= values[1:] == values[:-1]
        keep = np.concatenate([[True], ~repeats])[: len(self.known)]
        keep[self.starts[:-1][np.diff(self.starts) > 0]] = True
        return self._keep(keep)

    def _keep(self, keep: np.ndarray) -> History:
        before = np.zeros(len(keep) + 1, np.int64)
        np.cumsum(keep, out=before[1:])
        return replace(self.take(np.flatnonzero(keep)), starts=before[self.starts], labels=self.labels)

    def take(self, positions: np.ndarray) -> History:
        """The events at these positions, all of one entity and without labels."""
        index = pa.array(positions)
        return replace(
            self,
            starts=np.array([0, len(positions)]),
            known=self.known[positions],
            event=self.event[positions],
            types=self.types[positions],
            columns={name: column.take(index) for name, column in self.columns.items()},
            labels={},
        )

    def column(self, field: str) -> pa.Array:
        """A field of the events, [events]."""
        if field == "event_timestamp":
            return pa.array(self.event, pa.timestamp("us", tz="UTC"))
        if field == "event_type":
            codes = self.types.view(np.int8)  # signed, as every other code: -1 is null
            return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(self.type_names, pa.string()))
        if field == "event_day":
            return pa.array(np.floor_divide(self.event, MICROSECONDS_PER_DAY))
        if field in CATALOGUE_FIELDS:
            if self.catalogue is None:
                message = f"field {field!r} comes from the catalogue, and this history was loaded without one"
                raise ValueError(message)
            return self.catalogue.as_of(self.columns["item_id"], self.known, CATALOGUE_FIELDS[field])
        return self.columns[field]


def label_key(label: str, events: Sequence[str]) -> str:
    """Names the labels of one kind on events of some types, within a history."""
    return f"{label}:{','.join(events)}"


def starts_of(sorted_codes: np.ndarray, entities: int) -> np.ndarray:
    """Where each entity's rows begin in an array sorted by entity code; int64 [entities + 1]."""
    return np.searchsorted(sorted_codes, np.arange(entities + 1)).astype(np.int64)


def label_steps(
    target: np.ndarray, known: np.ndarray, value: np.ndarray, target_known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels into steps: +1 when an event becomes labelled 1, -1 when a later label takes it back.

    Args:
        target: which event each label speaks of, [labels]; labels of one event lie together, oldest first.
        known: known_at of each label, microseconds, [labels].
        value: what the label says, [labels].
        target_known: known_at of the event it speaks of, [labels]: before that the label can't count.

    Returns:
        (known, step), each int64 [labels].
    """
    says = (value == 1).astype(np.int64)
    first = np.ones(len(target), bool)
    first[1:] = target[1:] != target[:-1]
    previous = np.concatenate([[0], says[:-1]]) if len(says) else says
    return np.maximum(known, target_known), says - np.where(first, 0, previous)
