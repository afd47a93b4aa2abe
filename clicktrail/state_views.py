"""Which views a store has state of, and how far each has come: the texts of a store.

    view:<view>                     `View`: its declaration, and the generation that is read
    head:<generation>:<partition>   `Head`: how far the entities of a partition have come
    garbage:<generation>            nobody reads it any more; its records are still to be removed
    store                           names this store: another name, or none, means that it was emptied

A generation is one building of a view's state from the log. A rebuild makes a new one beside the one that is read, and
readers move over in the step that finds it as far as the old one.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.naming import changed
from clicktrail.publish import failpoint
from clicktrail.state_store import StateStore, Step

CODEC = 2
"""Version of the records' binary form; state of another is built anew."""

_STORE = "store"


@dataclass(frozen=True, kw_only=True)
class Head:
    """How far a partition has come: everything before `offset` in the log is applied.

    `watermark`: largest known_at among it, microseconds. `epoch` names the log, `forgotten` who was forgotten by
    then (`EventLog.forgotten_digest`); both are empty until something is applied.
    """

    offset: int = 0
    watermark: int = 0
    epoch: str = ""
    forgotten: str = ""

    @property
    def text(self) -> str:
        """As the store has it."""
        return f"{self.offset} {self.watermark} {self.epoch} {self.forgotten}"

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(text: str) -> Head:
        """What `text` wrote."""
        offset, watermark, epoch, forgotten = text.split(" ")
        return Head(offset=int(offset), watermark=int(watermark), epoch=epoch, forgotten=forgotten)


@dataclass(frozen=True, kw_only=True)
class View:
    """A view that has state: `live` is the generation that is read, `building` one that is not complete yet.

    `backfill_seconds` and `backfill_rows`: what the last catch-up took, and how many rows of the log it read.
    """

    declaration: Declaration
    partitions: int
    live: str = ""
    building: str = ""
    codec: int = CODEC
    backfill_seconds: float = 0.0
    backfill_rows: int = 0
    found: str = field(default="", compare=False, repr=False)
    """The very text that it was read from: who changes it must meet this."""

    @property
    def name(self) -> str:
        """Name of the text."""
        return f"view:{self.declaration.name}"

    @property
    def text(self) -> str:
        """As the store has it."""
        content = {name: value for name, value in vars(self).items() if name != "found"}
        return json.dumps({**content, "declaration": to_json(self.declaration)}, sort_keys=True)

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(text: str) -> View:
        """What `text` wrote.

        Raises:
            ValueError: it was declared under other rules than this library's.
        """
        content = json.loads(text)
        return View(**{**content, "declaration": from_json(content["declaration"]), "found": text})

    def heads(self, generation: str) -> list[str]:
        """Names of the heads of one of its generations."""
        return [f"head:{generation}:{partition}" for partition in range(self.partitions)]


def partition_of(entity: str, partitions: int) -> int:
    """The partition that an entity is in."""
    return zlib.crc32(entity.encode()) % partitions if partitions > 1 else 0


def store_id(store: StateStore) -> str:
    """What the store is called; empty where nothing was ever put into it."""
    return store.read([_STORE], [])[0][0] or ""


def views_of(store: StateStore) -> dict[str, View]:
    """The views of a store, by name."""
    return {name: View.of(text) for name, text in sorted(store.texts("view:").items())}


def heads_of(store: StateStore, views: Iterable[View]) -> dict[str, list[Head]]:
    """The heads of every generation of these views, by generation; one that is gone meanwhile is left out."""
    pairs = [(view, generation) for view in views for generation in (view.live, view.building) if generation]
    names = [name for view, generation in pairs for name in view.heads(generation)]
    texts, _ = store.read(names, [])
    found = dict(zip(names, texts, strict=True))
    out = {}
    for view, generation in pairs:
        heads = [found[name] for name in view.heads(generation)]
        if None not in heads:
            out[generation] = [Head.of(text) for text in heads if text is not None]
    return out


# ---- changes


def check(store: StateStore, declaration: Declaration) -> None:
    """Nothing happens where the view is new or unchanged.

    Raises:
        ValueError: a view of this name is there with another declaration.
    """
    text = store.read([f"view:{declaration.name}"], [])[0][0]
    if text is not None and json.loads(text)["declaration"]["fingerprint"] != declaration.fingerprint:
        raise ValueError(changed(declaration.name))


def prepare(store: StateStore, declaration: Declaration, partitions: int) -> View:
    """Make room for a view, where it is new; it can be read once it has come up to the log.

    Raises:
        ValueError: a view of this name is there with another declaration.
    """
    while True:
        check(store, declaration)
        text = store.read([f"view:{declaration.name}"], [])[0][0]
        if text is not None:
            return View.of(text)
        view = View(declaration=declaration, partitions=partitions, building=_generation(declaration))
        put = {view.name: view.text, **dict.fromkeys(view.heads(view.building), Head().text)}
        named = Step(expect={_STORE: None}, put={_STORE: uuid.uuid4().hex})
        store.apply([named, Step(expect={view.name: None}, put=put)])


def drop(store: StateStore, name: str) -> None:
    """Remove a view and its state."""
    while (text := store.read([f"view:{name}"], [])[0][0]) is not None:
        content = json.loads(text)
        gone = [generation for generation in (content["live"], content["building"]) if generation]
        put = {f"view:{name}": None} | _discard(content["partitions"], gone)
        store.apply([Step(expect={f"view:{name}": text}, put=put)])
    sweep(store)


def rebuild(store: StateStore, view: View, head: Head) -> bool:
    """Begin a new generation of a view at `head`; one that is being built already is given up."""
    new = replace(view, building=_generation(view.declaration), codec=CODEC)
    gone = [view.building] if view.building else []
    if view.codec != CODEC and view.live:  # nobody can read it
        new, gone = replace(new, live=""), [*gone, view.live]
    put = {**dict.fromkeys(new.heads(new.building), head.text), **_discard(view.partitions, gone), view.name: new.text}
    return store.apply([Step(expect={view.name: view.found}, put=put)])[0]


def switch(store: StateStore, view: View, heads: dict[str, list[Head]], *, seconds: float, rows: int) -> bool:
    """Let readers move over to the generation that was built, if nothing has moved since `heads` were read."""
    expect: dict[str, str | None] = {view.name: view.found}
    for generation in (view.live, view.building):
        if generation:
            texts = [head.text for head in heads[generation]]
            expect |= dict(zip(view.heads(generation), texts, strict=True))
    new = replace(view, live=view.building, building="", backfill_seconds=round(seconds, 3), backfill_rows=rows)
    put = {view.name: new.text, **_discard(view.partitions, [view.live] if view.live else [])}
    failpoint("state.before_switch")
    done = store.apply([Step(expect=expect, put=put)])[0]
    if done:
        failpoint("state.after_switch")
    return done


def record_backfill(store: StateStore, name: str, *, seconds: float, rows: int) -> None:
    """Note what a catch-up took; somebody else's note at the same moment wins."""
    text = store.read([f"view:{name}"], [])[0][0]
    if text is not None:
        view = replace(View.of(text), backfill_seconds=round(seconds, 3), backfill_rows=rows)
        store.apply([Step(expect={view.name: text}, put={view.name: view.text})])


def sweep(store: StateStore) -> None:
    """Remove the records that nobody reads any more."""
    for generation in store.texts("garbage:"):
        store.clear(generation)
        store.apply([Step(expect={}, put={f"garbage:{generation}": None})])


def _generation(declaration: Declaration) -> str:
    return f"{declaration.name}@{declaration.fingerprint[:16]}:{uuid.uuid4().hex[:8]}"


def _discard(partitions: int, generations: Sequence[str]) -> dict[str, str | None]:
    put: dict[str, str | None] = {}
    for generation in generations:
        put |= {f"head:{generation}:{partition}": None for partition in range(partitions)}
        put[f"garbage:{generation}"] = ""
    return put
