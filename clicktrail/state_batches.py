"""A stretch of the log as what it adds to the states of views: read once, whatever the number of views."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.declarations import Declaration
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog, known_at
from clicktrail.history import AsOf, label_steps
from clicktrail.label_events import read_labels
from clicktrail.state_fold import fold
from clicktrail.state_records import label_kinds, layout_of, pack_events, pack_steps
from clicktrail.state_views import partition_of

FOLD_ROWS = 20_000
"""A stretch that brings a view so many events is folded before it is stored: most of it is past every window."""

Appends = list[tuple[str, bytes]]


class Stretch:
    """The rows start <= offset < stop of a log, for some views.

    `watermark`: the largest known_at among them, microseconds, 0 where there are none. `forgotten`: who was
    forgotten when they were read.
    """

    def __init__(self, log: EventLog, declarations: Iterable[Declaration], start: int, stop: int) -> None:
        """Read them."""
        self._log, self._stop = log, stop
        needed = {"event_type", "event_timestamp", "ingested_at", "offset"}
        for one in declarations:
            needed |= {*one.entity_keys, *layout_of(one).columns}
            if label_kinds(one):
                needed |= {"event_id", "label_of"}
        while True:
            self.forgotten = log.forgotten_digest
            self._table = log.read(sorted(needed), start=start, stop=stop).combine_chunks()
            if self.forgotten == log.forgotten_digest:
                break
        known = known_at(self._table)
        self.watermark = int(known.max()) if len(known) else 0
        self._labels: dict[tuple[str, tuple[str, ...]], pa.Table] = {}

    def appends(
        self, declaration: Declaration, partitions: int, wanted: Collection[int], catalogue: AsOf | None = None
    ) -> dict[int, Appends]:
        """What the stretch adds to a view's entities, by partition; only the `wanted` ones of all `partitions`."""
        out: dict[int, Appends] = {partition: [] for partition in wanted}
        steps = self._steps(declaration, set(wanted), partitions)
        for entity, partition, blob in self._events(declaration, partitions, wanted, catalogue):
            out[partition].append((entity, blob + b"".join(steps.pop(entity, ()))))
        for entity, rest in steps.items():
            out[partition_of(entity, partitions)].append((entity, b"".join(rest)))
        return out

    def _events(
        self, declaration: Declaration, partitions: int, wanted: Collection[int], catalogue: AsOf | None
    ) -> Sequence[tuple[str, int, bytes]]:
        names = [*declaration.entity_keys, "event_timestamp", "ingested_at", "offset", *layout_of(declaration).columns]
        types = pc.index_in(self._table["event_type"], value_set=pa.array(declaration.events, pa.string()))
        mine = pc.is_valid(types)
        for key in declaration.entity_keys:
            mine = pc.and_(mine, pc.is_valid(self._table[key]))
        table = self._table.select(list(dict.fromkeys(names))).filter(mine)
        if not table.num_rows:
            return []
        ids = entity_ids(table, declaration.entity_keys).combine_chunks()
        encoded = ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()
        entities = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy().astype(np.int64)
        parts = [partition_of(entity, partitions) for entity in entities] if partitions > 1 else [0] * len(entities)
        if len(wanted) < partitions:
            codes = np.where(np.isin(parts, list(wanted))[codes], codes, -1)
        records = pack_events(declaration, table, types.filter(mine).to_numpy(), codes, len(entities))
        if table.num_rows >= FOLD_ROWS:
            records = fold(declaration, records, catalogue)
        blobs = records.blobs()
        return [one for one in zip(entities, parts, blobs, strict=True) if one[1] in wanted]

    def _steps(self, declaration: Declaration, wanted: set[int], partitions: int) -> dict[str, list[bytes]]:
        """Label steps, by entity, of every event that the stretch labels or brings."""
        out: dict[str, list[bytes]] = {}
        for kind, (label, events) in enumerate(label_kinds(declaration)):
            found = self._spoken_of(label, events)
            if not found.num_rows:
                continue
            target = found["target"].to_numpy()
            known, step = label_steps(
                target, found["known"].to_numpy(), found["value"].to_numpy(), found["target_known"].to_numpy()
            )
            packed = pack_steps(kind, target, known, found["target_event"].to_numpy(), step, self._stop)
            for entity, row in zip(entity_ids(found, declaration.entity_keys).to_pylist(), packed, strict=True):
                if entity is not None and partition_of(entity, partitions) in wanted:
                    out.setdefault(entity, []).append(row.tobytes())
        return out

    def _spoken_of(self, label: str, events: tuple[str, ...]) -> pa.Table:
        """All labels of the events that the stretch labels or brings: they are told together or not at all."""
        if (label, events) not in self._labels:
            here = pc.is_in(self._table["event_type"], value_set=pa.array(events, pa.string()))
            touched = pa.concat_arrays(
                [
                    *self._table["event_id"].filter(here).chunks,
                    *self._table["label_of"].drop_null().chunks,
                    pa.array([], pa.string()),
                ]
            )
            self._labels[label, events] = read_labels(self._log, label, events, stop=self._stop, of=touched.unique())
        return self._labels[label, events]
