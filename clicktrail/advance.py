"""Brings the states of views up to the log, a stretch at a time, for all of them together.

A stretch is applied to a partition in one step that also moves its head, and only if the head is where it was read: so
once, however often somebody is killed, and however many are at it. What a state need not hold any more is folded
away when it has grown.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from clicktrail.catalogue import Catalogue
from clicktrail.declarations import CATALOGUE_FIELDS, Declaration
from clicktrail.entity_ids import SEPARATOR
from clicktrail.event_log import EventLog
from clicktrail.history import AsOf
from clicktrail.publish import failpoint
from clicktrail.state_batches import Appends, Stretch
from clicktrail.state_fold import fold
from clicktrail.state_records import Records
from clicktrail.state_store import StateStore, Step
from clicktrail.state_views import CODEC, Head, View, heads_of, partition_of, rebuild, sweep, switch, views_of

STRETCH = 500_000
"""Log rows that one step applies at most."""

_USER = "user_id"


_FOLDS = 2_000
"""States that are folded at once."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One partition of one generation of a view, how far it has come and how far it is to come."""

    view: View
    generation: str
    partition: int
    head: Head
    goal: int

    @property
    def name(self) -> str:
        """Name of its head."""
        return self.view.heads(self.generation)[self.partition]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a step did: log rows start..stop were applied to something; `done`: nothing is left to do.

    `live`: to what is live, so they can be read.
    """

    start: int = 0
    stop: int = 0
    live: bool = False
    done: bool = False


class Advance:
    """Applies a log to the views of a store; one for each process and thread."""

    def __init__(self, log: EventLog, store: StateStore, *, stretch: int | None = None) -> None:
        """`stretch`: rows that one step applies at most."""
        self._log, self._store, self._stretch = log, store, stretch
        self._rooms = Rooms()
        self._goals: dict[str, int] = {}
        self._spent: dict[str, tuple[float, int]] = {}
        self._catalogue: Catalogue | None = None
        self.offsets: dict[str, int] = {}
        """How far each view had come when it was looked at last."""

    def step(self, names: Collection[str] | None, stop: int, partitions: Collection[int] | None = None) -> Progress:
        """Go on by at most one stretch with what is live, and by one with what is being built.

        Args:
            names: views; all by default.
            stop: offset up to which the log is applied.
            partitions: those that are this process's to advance; all by default.

        Returns:
            What was done with what is live, or else with what is being built; `done` once every view is live and as
            far as `stop`.
        """
        views = [view for name, view in views_of(self._store).items() if names is None or name in names]
        heads = heads_of(self._store, views)
        for view in views:
            offsets = [head.offset for head in heads.get(view.live or view.building, ())]
            self.offsets[view.declaration.name] = min(offsets, default=0)
        mended = [self._mend(view, heads) for view in views]
        if any(mended):
            return Progress()
        progress = []
        for building in (False, True):
            targets = [one for view in views for one in self._targets(view, heads, stop, partitions, building=building)]
            if targets:
                progress.append(self._advance(targets))
        for view in views:
            if view.building:
                self._switch(view, stop)
        done = not progress and not any(view.building for view in views)
        return progress[0] if progress else Progress(done=done)

    # ---- what is to be done

    def _mend(self, view: View, heads: dict[str, list[Head]]) -> bool:
        """Begin to build a view anew where its state is not of this log, or older than a wish to be forgotten."""
        epoch, forgotten, version = self._log.epoch, self._log.forgotten_digest, self._log.version
        if view.codec != CODEC:
            rebuild(self._store, view, Head())
            return True
        wrong = []
        for generation in (view.live, view.building):
            mine = heads.get(generation, [])
            other_log = any(head.epoch and (head.epoch != epoch or head.offset > version) for head in mine)
            stale = any(head.epoch and head.forgotten != forgotten for head in mine)
            if stale and not other_log and _USER in view.declaration.entity_keys:
                forget(self._store, self._log, view)
                return True
            wrong.append(other_log or stale)
        live_is_wrong, building_is_wrong = wrong
        if building_is_wrong or (live_is_wrong and not view.building):
            rebuild(self._store, view, Head(epoch=epoch, forgotten=forgotten))
            return True
        return False

    def _targets(
        self,
        view: View,
        heads: dict[str, list[Head]],
        stop: int,
        partitions: Collection[int] | None,
        *,
        building: bool,
    ) -> Iterator[Target]:
        """The partitions that are behind, of the generation that is live or of that which is being built."""
        generation = view.building if building else view.live
        live = heads.get(view.live, []) if building else []
        for partition, head in enumerate(heads.get(generation, ())):
            goal = max([stop, *(one.offset for one in live if one.epoch == head.epoch)])
            mine = partitions is None or partition in partitions
            if mine and head.offset < goal and head.epoch in ("", self._log.epoch):
                yield Target(view=view, generation=generation, partition=partition, head=head, goal=goal)

    # ---- doing it

    def _advance(self, targets: Sequence[Target]) -> Progress:
        """One stretch for the targets that are furthest behind, at most up to where the next ones stand."""
        began = time.monotonic()
        start = min(target.head.offset for target in targets)
        mine = [target for target in targets if target.head.offset == start]
        beyond = [target.head.offset for target in targets if target.head.offset > start]
        until = min([start + (self._stretch or STRETCH), *(target.goal for target in mine), *beyond])
        stretch = Stretch(self._log, {target.view.declaration for target in mine}, start, until)
        appends: list[Appends] = []
        for view in {target.view.name: target.view for target in mine}.values():
            wanted = [target.partition for target in mine if target.view.name == view.name]
            found = stretch.appends(view.declaration, view.partitions, wanted, self._as_of(view.declaration))
            appends += [found[partition] for partition in wanted]
        steps = [self._step(target, stretch, until, theirs) for target, theirs in zip(mine, appends, strict=True)]
        failpoint("state.before_commit")
        done = self._store.apply(steps)
        failpoint("state.after_commit")
        due = [
            (target, entity)
            for target, theirs, happened in zip(mine, appends, done, strict=True)
            if happened
            for entity in self._rooms.due(self._store, target.generation, theirs, first=target.head.offset == 0)
        ]
        for at in range(0, len(due), _FOLDS):
            self._fold(due[at : at + _FOLDS])
        built = {target.generation for target in mine if target.generation == target.view.building}
        for generation in built:
            seconds, rows = self._spent.get(generation, (0.0, 0))
            self._spent[generation] = (seconds + (time.monotonic() - began) / len(built), rows + until - start)
        return Progress(start=start, stop=until, live=not built)

    def _step(self, target: Target, stretch: Stretch, until: int, appends: Appends) -> Step:
        before = target.head
        after = Head(
            offset=until,
            watermark=max(before.watermark, stretch.watermark),
            epoch=self._log.epoch,
            forgotten=before.forgotten if before.epoch else stretch.forgotten,
        )
        return Step(
            expect={target.name: before.text},
            put={target.name: after.text},
            generation=target.generation,
            moment=until,
            append=appends,
        )

    def _fold(self, due: Sequence[tuple[Target, str]]) -> None:
        """Fold states that have grown; nothing happens to those of a partition where somebody has gone on meanwhile."""
        theirs: dict[str, tuple[Target, list[str]]] = {}
        for target, entity in due:
            theirs.setdefault(target.name, (target, []))[1].append(entity)
        wanted = [(target.generation, entities) for target, entities in theirs.values()]
        texts, held = self._store.read(list(theirs), wanted)
        steps, blobs = [], []
        for (name, (target, entities)), text, one in zip(theirs.items(), texts, held, strict=True):
            declaration = target.view.declaration
            folded = fold(declaration, Records.of(one.pieces, one.sizes), self._as_of(declaration)).blobs()
            blobs.append(folded)
            steps.append(
                Step(
                    expect={name: text},
                    generation=target.generation,
                    moment=Head.of(text).offset if text else 0,
                    replace=list(zip(entities, folded, strict=True)) if text else [],
                )
            )
        done = self._store.apply(steps)
        for (target, entities), folded, happened in zip(theirs.values(), blobs, done, strict=True):
            if happened:
                self._rooms.folded(target.generation, entities, folded, grows=not target.view.declaration.is_sequence)

    def _switch(self, view: View, stop: int) -> None:
        """Let readers move over to what was built, once it is as far as what they read."""
        goal = self._goals.setdefault(view.building, stop)
        heads = heads_of(self._store, [view])
        built = heads.get(view.building)
        if built is None or (view.live and view.live not in heads):
            return  # somebody else was quicker
        before = heads.get(view.live, [Head()] * view.partitions)
        for old, new in zip(before, built, strict=True):
            if new.offset < (old.offset if view.live and old.epoch == new.epoch else goal):
                return
        seconds, rows = self._spent.pop(view.building, (0.0, 0))
        if switch(self._store, view, heads, seconds=seconds, rows=rows):
            sweep(self._store)
        del self._goals[view.building]

    def _as_of(self, declaration: Declaration) -> AsOf | None:
        """The catalogue, where folding looks at what it says."""
        if not set(declaration.drop_repeats) & set(CATALOGUE_FIELDS):
            return None
        path = self._log.path.parent / "catalogue" / "items_history.parquet"
        self._catalogue = Catalogue.load(path) if self._catalogue is None else self._catalogue.newest()
        return self._catalogue


def forget(store: StateStore, log: EventLog, view: View) -> bool:
    """Remove the states of users that are to be forgotten, of a view whose entities are users or pairs with one.

    Returns:
        Whether it is to be asked again: somebody has gone on meanwhile.
    """
    if _USER not in view.declaration.entity_keys:
        return False
    digest, users = log.forgotten_digest, set(log.forgotten)
    place = view.declaration.entity_keys.index(_USER)
    again = False
    for generation, heads in heads_of(store, [view]).items():
        old = [head.epoch == log.epoch != "" and head.forgotten != digest for head in heads]
        if not any(old):
            continue
        if len(view.declaration.entity_keys) == 1:
            theirs = sorted(users)
        else:
            theirs = [one for one in store.entities(generation) if one.split(SEPARATOR)[place] in users]
        steps = [
            Step(
                expect={name: head.text},
                put={name: replace(head, forgotten=digest).text},
                generation=generation,
                moment=head.offset,
                replace=[(entity, b"") for entity in theirs if partition_of(entity, view.partitions) == partition],
            )
            for partition, (name, head) in enumerate(zip(view.heads(generation), heads, strict=True))
            if old[partition]
        ]
        again |= not all(store.apply(steps))
    return again


class Rooms:
    """How much the state of each entity may still grow before it is folded: then folding costs little an event."""

    def __init__(self) -> None:
        """Nothing is known of any entity: the store is asked once."""
        self._left: dict[str, dict[str, int]] = {}

    def due(self, store: StateStore, generation: str, appended: Appends, *, first: bool) -> list[str]:
        """The entities that outgrew their room by what was appended; `first`: there was nothing before."""
        left = self._left.setdefault(generation, {})
        if len(left) > _REMEMBERED:
            left.clear()
        new = [(entity, blob) for entity, blob in appended if entity not in left]
        for entity, blob in appended:
            if entity in left:
                left[entity] -= len(blob) + store.piece
        if new:
            names = [entity for entity, _ in new]
            sizes = [len(blob) for _, blob in new] if first else store.sizes(generation, names)
            left.update((entity, _LEAST - size) for entity, size in zip(names, sizes, strict=True))
        return [entity for entity, _ in appended if left[entity] < 0]

    def folded(self, generation: str, entities: Sequence[str], blobs: Sequence[bytes], *, grows: bool) -> None:
        """These states were folded to these bytes; `grows`: they may hold much that folding cannot take away."""
        left = self._left.setdefault(generation, {})
        for entity, blob in zip(entities, blobs, strict=True):
            size = len(blob)
            left[entity] = max(_LEAST, min(size // 2, _MOST), size // 8) if grows else max(_LEAST, size // 4)


_LEAST, _MOST = 4_096, 524_288

_REMEMBERED = 300_000
"""Entities of a generation whose room is remembered; then the store is asked again."""
