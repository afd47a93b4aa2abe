"""What a view's value was at a log offset and a time: the offline side of parity.

A state at offset p knows the log rows before p. Loading the log up to each read's own offset would be exact, and cost a
log read each; so the log is loaded once, with offsets. Most reads need nothing more: where no row at or after p was
known before t, the log at p and the log of today look the same from t. The others are read from a history of their own
that leaves out those rows: many at once, since a history is events of entities side by side, and (entity, p) may be an
entity as well as any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numba import njit

from clicktrail.declarations import Declaration
from clicktrail.engine import values
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog
from clicktrail.history import History, Labels, label_key, label_steps, starts_of
from clicktrail.kernels.arrays import readonly
from clicktrail.kernels.slices import first_not_before
from clicktrail.label_events import read_labels
from clicktrail.layout import lay_out
from clicktrail.offline import entity_codes, load_history
from clicktrail.read_log import plain

_LAID_OUT = 4_000_000
"""Events that histories of their own may hold together; beyond it the reads are split by offset first."""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """Labels before they are steps, int64 [labels] by entity (`starts`): their own offset and known_at, the event's."""

    starts: np.ndarray
    offset: np.ndarray
    known: np.ndarray
    value: np.ndarray
    target: np.ndarray
    target_known: np.ndarray
    target_event: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """From which offset on the label and its event are both there."""
        return np.maximum(self.offset, self.target) + 1

    def take(self, positions: np.ndarray, starts: np.ndarray) -> _Said:
        """Labels at these positions."""
        columns = {name: values[positions] for name, values in vars(self).items() if name != "starts"}
        return _Said(starts=starts, **columns)

    def steps(self) -> Labels:
        """As the engine takes them."""
        entity = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        # the same event may be there for two entities, one of each offset: neighbours, but not the same
        target = self.target * len(self.starts) + entity
        known, step = label_steps(target, self.known, self.value, self.target_known)
        order = np.lexsort((known, entity))
        return Labels(starts=self.starts, known=known[order], event=self.target_event[order], step=step[order])


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One view over the log, with the offset of everything in it.

    `stop`: the log was read up to here. `entities`: string [entities], the id of each entity code.
    """

    declaration: Declaration
    stop: int
    history: History
    said: dict[str, _Said]
    entities: pa.Array

    def values(
        self, keys: pa.Array | pa.ChunkedArray, offset: np.ndarray, t: np.ndarray
    ) -> tuple[dict[str, pa.Array], np.ndarray]:
        """The features of entities, each at a log offset and a time.

        Args:
            keys: entity ids, string [reads]; null: nobody.
            offset: only log rows before it are known, int64 [reads].
            t: microseconds UTC, int64 [reads].

        Returns:
            Features by name, [reads]; and whether something known before t was not in the log yet at that offset, so
            that the state lagged behind the clock: bool [reads].
        """
        entity = entity_codes(keys, self.entities)
        parts: list[tuple[np.ndarray, dict[str, pa.Array]]] = []
        lagging = _solve(self, np.arange(len(t)), entity, offset, t, parts)
        rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in parts)])
        back = np.empty(len(t), np.int64)
        back[rows] = np.arange(len(t))
        behind = np.zeros(len(t), bool)
        behind[lagging] = True
        types = self.declaration.outputs
        return {
            name: pa.concat_arrays([plain(columns[name]) for _, columns in parts]).take(pa.array(back))
            if parts
            else pa.array([], types[name])
            for name in types
        }, behind

    def unseen(self, entity: np.ndarray, offset: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Whether something of the entity is known before t, but not in the log before the offset; bool [rows]."""
        arrays = readonly(entity), readonly(offset), readonly(t)
        history = self.history
        complete = history.columns["offset"].to_numpy() + 1
        late = _behind(readonly(history.starts), readonly(history.known), readonly(complete), *arrays)
        for said in self.said.values():
            known = np.maximum(said.known, said.target_known)
            entities = np.repeat(np.arange(len(said.starts) - 1), np.diff(said.starts))
            order = np.lexsort((known, entities))
            late |= _behind(readonly(said.starts), readonly(known[order]), readonly(said.complete[order]), *arrays)
        return late

    def apart(self, entity: np.ndarray, offset: np.ndarray) -> Replay:
        """The history in which entity i is `entity[i]` as the log knew it at `offset[i]`."""
        history = self.history
        positions, starts = _before(history.starts, history.columns["offset"].to_numpy() + 1, entity, offset)
        said = {key: one.take(*_before(one.starts, one.complete, entity, offset)) for key, one in self.said.items()}
        labels = {key: one.steps() for key, one in said.items()}
        return replace(self, history=replace(history.take(positions), starts=starts, labels=labels), said=said)


def _solve(
    loaded: Replay,
    rows: np.ndarray,
    entity: np.ndarray,
    offset: np.ndarray,
    t: np.ndarray,
    parts: list[tuple[np.ndarray, dict[str, pa.Array]]],
) -> np.ndarray:
    """Append (rows, their features) to `parts`; the rows that could not be read from this history itloaded."""
    late = loaded.unseen(entity[rows], offset[rows], t[rows])
    plain, rows = rows[~late], rows[late]
    if len(plain):
        parts.append((plain, values(loaded.declaration, loaded.history, entity[plain], t[plain])))
    if not len(rows):
        return rows
    pairs, own = np.unique(np.stack([entity[rows], offset[rows]]), axis=1, return_inverse=True)
    events = np.diff(loaded.history.starts)[pairs[0]].sum()
    if events <= max(_LAID_OUT, len(loaded.history.known)):
        apart = loaded.apart(pairs[0], pairs[1])
        parts.append((rows, values(loaded.declaration, apart.history, own.reshape(-1), t[rows])))
        return rows
    rows = rows[np.argsort(offset[rows], kind="stable")]
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        if len(half):
            everybody = np.arange(len(loaded.history.starts) - 1)
            before = loaded.apart(everybody, np.full(len(everybody), offset[half].max()))
            _solve(before, half, entity, offset, t, parts)
    return rows


def load(log: EventLog, declaration: Declaration, *, stop: int | None = None) -> Replay:
    """A view over the log up to `stop`, its end by default."""
    stop = log.version if stop is None else stop
    history, entities = load_history(log, declaration.entity_key, [declaration], stop=stop, offsets=True)
    said = {
        label_key(one.label, one.events): _said(log, declaration, one.label, one.events, entities, stop)
        for one in declaration.aggregates
        if one.label
    }
    return Replay(declaration=declaration, stop=stop, history=history, said=said, entities=entities)


def _said(
    log: EventLog, declaration: Declaration, label: str, events: tuple[str, ...], entities: pa.Array, stop: int
) -> _Said:
    found = read_labels(log, label, events, stop=stop)
    codes = entity_codes(entity_ids(found, declaration.entity_keys), entities)
    kept = np.flatnonzero((codes >= 0) & (codes < len(entities)))
    order = kept[np.argsort(codes[kept], kind="stable")]  # labels of one event stay together, oldest first
    columns = {
        name: found[name].to_numpy()[order]
        for name in ("offset", "known", "value", "target", "target_known", "target_event")
    }
    return _Said(starts=starts_of(codes[order], len(entities) + 1), **columns)


def _before(
    starts: np.ndarray, complete: np.ndarray, entity: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of what each (entity, offset) knew, one after the other, and where each begins."""
    rows, positions = lay_out(starts[entity], starts[entity + 1])
    kept = complete[positions] <= offset[rows]
    return positions[kept], np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(entity)))])


@njit(cache=True)
def _behind(
    starts: np.ndarray, known: np.ndarray, complete: np.ndarray, entity: np.ndarray, offset: np.ndarray, t: np.ndarray
) -> np.ndarray:
    """Whether an entity has something with known < t that is complete at a later offset only; bool [rows]."""
    newest = complete.copy()
    for one in range(len(starts) - 1):
        for at in range(starts[one] + 1, starts[one + 1]):
            newest[at] = max(newest[at], newest[at - 1])
    late = np.zeros(len(entity), np.bool_)
    for row in range(len(entity)):
        one = entity[row]
        if 0 <= one < len(starts) - 1:
            seen = first_not_before(known, starts[one], starts[one + 1], t[row])
            late[row] = seen > starts[one] and newest[seen - 1] > offset[row]
    return late
