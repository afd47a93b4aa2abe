"""Finishes features from stored states at a read time: a few rows in a pass of their own, many by the engine.

Needs neither Feast nor DuckDB. One round trip to the store a read, however many views and entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clicktrail import few
from clicktrail.catalogue import Catalogue
from clicktrail.declarations import CATALOGUE_FIELDS, Declaration
from clicktrail.engine import aggregates, values
from clicktrail.history import AsOf
from clicktrail.jagged import JaggedSequence
from clicktrail.kernels.records import NEVER
from clicktrail.naming import changed
from clicktrail.recent_events import Asked, joined
from clicktrail.state_records import Found, Records, read_records, twins
from clicktrail.state_store import Held, StateMissingError, StateWentBackError
from clicktrail.state_target import open_store, shown
from clicktrail.state_views import CODEC, Head, View, partition_of

if TYPE_CHECKING:
    from clicktrail.read_log import Recorder

_ATTEMPTS = 20
_MANY = 50_000
"""Events times features from which on the engine, which shares work between rows and features, is the quicker one."""


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """Features of some entities of one view, [keys]; `known` says of whom there is a state.

    `found`, `entity`: the states, and which of them is each key's, int64 [keys], -1 nobody's. `at`: `times`, int64.
    `offsets`: the log offset up to which each entity's state was applied. `offset`, `watermark`: how far the view has
    come at least, as a log offset and as the largest known_at (microseconds) among it.
    """

    found: Found
    entity: np.ndarray
    at: np.ndarray
    known: list[bool]
    offsets: list[int]
    offset: int
    watermark: int

    @cached_property
    def times(self) -> list[int]:
        """As of when each was read, microseconds: the time asked for, or the entity's newest arrival if later."""
        times: list[int] = self.at.tolist()
        return times

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """Arrow arrays [keys] by feature."""
        declaration = self.found.declaration
        if declaration.is_sequence:
            return values(declaration, self.found.history, self.entity, self.at)
        plan = few.plan_of(declaration)
        if len(self.found.known) * len(plan.features) > _MANY:
            return aggregates(declaration.aggregates, self.found.history, self.entity, self.at)
        columns = few.columns(plan, self.parts, self.entity, self.at) | self.others
        return {one.name: columns[one.name] for one in declaration.aggregates}

    @cached_property
    def floats(self) -> dict[str, np.ndarray]:
        """Features of an aggregate view that are numbers, float64 [keys], or label rates, [keys, 2]; nan for null."""
        return few.floats(few.plan_of(self.found.declaration), self.parts, self.entity, self.at)

    @cached_property
    def parts(self) -> np.ndarray:
        """What these numbers are made of: see `clicktrail.few.parts`."""
        return few.parts(self.found, self.entity, self.at)

    @cached_property
    def others(self) -> dict[str, pa.Array]:
        """Features of an aggregate view that are not made of such parts, as Arrow arrays [keys]."""
        declaration = self.found.declaration
        rest = few.plan_of(declaration).rest
        return aggregates(rest, self.found.history, self.entity, self.at) if rest else {}

    @cached_property
    def sequence(self) -> JaggedSequence:
        """The sequences of a sequence view as plain arrays."""
        return few.sequence(self.found, self.entity, self.at)


def together(results: Sequence[ReadResult]) -> dict[str, pa.Array]:
    """The columns of several reads of one view, one behind the other, for much less than read by read."""
    declaration = results[0].found.declaration
    if declaration.is_sequence:
        return few.lists(declaration, [one.sequence for one in results])
    made = np.concatenate([one.parts for one in results], axis=1)
    entity = np.concatenate([one.entity for one in results])
    times = np.concatenate([one.at for one in results])
    columns = few.columns(few.plan_of(declaration), made, entity, times)
    for name in results[0].others:
        columns[name] = pa.concat_arrays([one.others[name] for one in results])
    return columns


class OnlineReader:
    """Reads views' features from a store; threads may share one."""

    def __init__(
        self,
        target: Path | str,
        declarations: Sequence[Declaration],
        *,
        catalogue: Path | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Read the states of these views.

        Args:
            target: Redis URL, or path of the SQLite file.
            declarations: the views.
            catalogue: history of the items (`items_history.parquet`), where a view has a field of the catalogue.
            recorder: keeps a sample of what is answered.

        Raises:
            ValueError: there is no such state (StateMissingError), or it is of another declaration.
        """
        self._store, self._shown = open_store(target), shown(target)
        self._declarations = {one.name: one for one in declarations}
        self._fingerprints = {one.name: one.fingerprint for one in declarations}  # too dear for every read
        self._recorder = recorder
        self._catalogue: Catalogue | None = None
        if any(set(one.inputs) & set(CATALOGUE_FIELDS) for one in declarations):
            self._catalogue = _catalogue(catalogue, list(self._declarations))
        self._views: dict[str, tuple[str, View, list[str]]] = {}
        self._seen: dict[tuple[str, int], Head] = {}
        texts, _ = self._store.read([f"view:{name}" for name in self._declarations], [])
        for name, text in zip(self._declarations, texts, strict=True):
            self._learn(name, text)

    def warm(self) -> None:
        """Read nobody, so that the kernels are compiled before somebody waits for it: seconds, on a new machine."""
        compile_kernels(self._declarations.values(), self._as_of())

    def meta(self) -> dict[str, object]:
        """`offset` and `watermark` (microseconds) of the view that is furthest behind, `epoch`, `fingerprints`.

        Raises:
            ValueError: as `read`.
        """
        heads = [head for _, found, _ in self._ask([(name, ()) for name in self._declarations]) for head in found]
        return {
            "offset": min((head.offset for head in heads), default=0),
            "watermark": min((head.watermark for head in heads), default=0),
            "epoch": next((head.epoch for head in heads), ""),
            "fingerprints": dict(self._fingerprints),
        }

    def read(self, view: str, keys: Sequence[str | None], t: int) -> ReadResult:
        """Features of entities as of `t` (microseconds UTC), or of an entity's newest arrival where that is later.

        An entity without a state gets the values of nothing; where the key is None there is no value at all.

        Raises:
            StateMissingError: there is no complete state of the view: the store was emptied, or is being built.
            StateWentBackError: the store is behind what was read from it before.
            ValueError: the view is there with another declaration, or a state is damaged.
        """
        return self.read_many([(view, keys)], t)[view]

    def read_many(
        self,
        asked: Sequence[tuple[str, Sequence[str | None]]],
        t: int | np.ndarray,
        recent: pa.Table | None = None,
    ) -> dict[str, ReadResult]:
        """As `read`, of several views (each once) at one moment of the store, in one round trip.

        Args:
            asked: views and their keys.
            t: read time, microseconds UTC; int64 [keys] where each key has its own.
            recent: events that the log may not have yet (clicktrail.recent_events.event_table).
        """
        answers = self._ask([(view, [key for key in keys if key is not None]) for view, keys in asked])
        held = [Records.of(one.pieces, one.sizes) for *_, one in answers]
        if recent is not None:
            held = self._with(recent, asked, answers, held)
        out = {}
        for (name, keys), (view, heads, _), records in zip(asked, answers, held, strict=True):
            declaration = self._declarations[name]
            found = read_records(declaration, records, self._as_of())
            out[name] = _result(keys, t, found, np.diff(records.bounds) > 0, view, heads)
            # what rests on more than the log cannot be held against it, and times of their own come from batches
            if self._recorder is not None and recent is None and isinstance(t, int):
                self._recorder.note(declaration, keys, t, out[name])
        return out

    # ---- inside

    def _with(
        self,
        recent: pa.Table,
        asked: Sequence[tuple[str, Sequence[str | None]]],
        answers: Sequence[tuple[View, list[Head], Held]],
        held: Sequence[Records],
    ) -> list[Records]:
        """What is held of each view, and what of these events it does not hold."""
        parts = []
        for (name, keys), (view, heads, _), records in zip(asked, answers, held, strict=True):
            entities = [key for key in keys if key is not None]
            applied = [heads[partition_of(one, view.partitions)].offset for one in entities]
            parts.append(
                Asked(declaration=self._declarations[name], entities=entities, records=records, applied=applied)
            )
        return joined(parts, recent)

    def _ask(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[View, list[Head], Held]]:
        """Of each view the generation that is live, its heads, and what is held of these entities."""
        for _ in range(_ATTEMPTS):
            known = [self._views[name] for name, _ in asked]
            names = [f"view:{name}" for name, _ in asked]
            heads = [name for *_, mine in known for name in mine]
            wanted = [(view.live, entities) for (_, view, _), (_, entities) in zip(known, asked, strict=True)]
            texts, held = self._store.read([*names, *heads], wanted)
            moved = False
            for (name, _), text, (expected, *_) in zip(asked, texts[: len(asked)], known, strict=True):
                if text != expected:  # readers move over to another generation, or the store is not what it was
                    self._learn(name, text)
                    moved = True
            if moved:
                continue
            out, at = [], len(asked)
            for (name, _), (_, view, _), one in zip(asked, known, held, strict=True):
                out.append((view, self._heads(name, texts[at : at + view.partitions]), one))
                at += view.partitions
            return out
        message = f"the views of {self._shown} change without end: are two versions of the library at work on them?"
        raise StateMissingError(message)

    def _heads(self, name: str, texts: Sequence[str | None]) -> list[Head]:
        heads = []
        for partition, text in enumerate(texts):
            before = self._seen.get((name, partition))
            head = Head.of(text) if text is not None else Head()
            if before is not None and head.offset < before.offset and head.epoch in ("", before.epoch):
                message = (
                    f"{self._shown} has view {name!r} at log offset {head.offset}, and had it at {before.offset} "
                    "before: it was emptied or an older copy took its place. It can be read again once it has "
                    "caught up: make materialize, or the updater (make update)"
                )
                raise StateWentBackError(message)
            self._seen[name, partition] = head
            heads.append(head)
        return heads

    def _learn(self, name: str, text: str | None) -> None:
        if text is None:
            message = (
                f"{self._shown} holds no state of view {name!r}: run `make features materialize` for this shop. If it "
                "had one, the store was emptied"
            )
            raise StateMissingError(message)
        view = View.of(text)
        if view.declaration.fingerprint != self._fingerprints[name]:
            raise ValueError(changed(name))
        if not view.live or view.codec != CODEC:
            message = (
                f"the state of view {name!r} in {self._shown} is not complete yet: run `make materialize`, or wait"
            )
            raise StateMissingError(message)
        self._views[name] = (text, view, view.heads(view.live))

    def _as_of(self) -> AsOf | None:
        if self._catalogue is not None:
            self._catalogue = self._catalogue.newest()
        return self._catalogue


def compile_kernels(declarations: Iterable[Declaration], catalogue: AsOf | None = None) -> None:
    """Have everything compiled, or taken from its cache, that reads of these views need; asks no store.

    Args:
        declarations: the views.
        catalogue: what the items were, where a view has a field of the catalogue; an empty one will do.
    """
    for declaration in declarations:
        found = read_records(declaration, twins(declaration), catalogue)
        two = ReadResult(
            found=found,
            entity=np.array([0, -1]),
            at=np.full(2, NEVER),
            known=[True, False],
            offsets=[0, 0],
            offset=0,
            watermark=0,
        )
        _ = two.columns, two.sequence if declaration.is_sequence else two.floats


def _result(
    keys: Sequence[str | None],
    t: int | np.ndarray,
    found: Found,
    some: np.ndarray,
    view: View,
    heads: Sequence[Head],
) -> ReadResult:
    entity = np.arange(len(keys))
    times = np.full(len(keys), t, np.int64)
    if None in keys:
        there = np.array([key is not None for key in keys], np.bool_)
        entity = np.where(there, np.cumsum(there) - 1, -1)
        times[there] = np.maximum(found.time, times[there])
        held = there.copy()
        held[there] = some
    else:
        times, held = np.maximum(found.time, times), some
    least = min(head.offset for head in heads)
    offsets = [least if key is None else heads[partition_of(key, view.partitions)].offset for key in keys]
    return ReadResult(
        found=found,
        entity=entity,
        at=times,
        known=held.tolist(),
        offsets=offsets,
        offset=least,
        watermark=min(head.watermark for head in heads),
    )


def _catalogue(path: Path | None, views: list[str]) -> Catalogue:
    if path is None:
        message = f"one of the views {views} has a field of the catalogue: say where it lies (catalogue=)"
        raise ValueError(message)
    return Catalogue.load(path)
