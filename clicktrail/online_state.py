"""The online state of a shop: a consumer of the event log, kept in SQLite or Redis.

`OnlineState` is its keeper's door: views come and go, their state is brought up to the log. `OnlineReader` is its
readers' door. Neither needs Feast, and reading needs no DuckDB either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clicktrail import state_views
from clicktrail.declarations import Declaration
from clicktrail.state_reader import OnlineReader, ReadResult
from clicktrail.state_store import StateMissingError, StateStore, StateWentBackError
from clicktrail.state_target import is_url, open_store

if TYPE_CHECKING:
    from clicktrail.event_log import EventLog

__all__ = [
    "OnlineReader",
    "OnlineState",
    "ReadResult",
    "StateMissingError",
    "StateWentBackError",
    "ViewMeta",
    "declarations_here",
]

_PARTITIONS = 4


@dataclass(frozen=True, kw_only=True)
class ViewMeta:
    """How far a view's state has come: log offset, largest known_at applied (microseconds), and of which log.

    `complete`: it can be read. `rebuilding`: another generation is being built beside it. `backfill_seconds`,
    `backfill_rows`: what the last catch-up took, and how many rows of the log it applied.
    """

    fingerprint: str
    offset: int
    watermark: int
    epoch: str
    complete: bool
    rebuilding: bool
    backfill_seconds: float
    backfill_rows: int


class OnlineState:
    """The state of a shop's views in one store; safe to open from several processes."""

    def __init__(self, target: Path | str, *, partitions: int | None = None) -> None:
        """Open a store; nothing is made until it is written to.

        Args:
            target: Redis URL (`clicktrail.state_target.open_store`), or path of the SQLite file.
            partitions: how many processes may share the work on a view that is new; 1 for SQLite, which has one
                writer at a time, else 4 by default.
        """
        self.store: StateStore = open_store(target)
        self._partitions = partitions or (_PARTITIONS if is_url(target) else 1)

    def prepare(self, declaration: Declaration) -> None:
        """Make room for a view; where it is new it can be read after the first catch-up.

        Raises:
            ValueError: a view of this name is there with another declaration.
        """
        state_views.prepare(self.store, declaration, self._partitions)

    def check(self, declaration: Declaration) -> None:
        """Nothing happens where the view is new or unchanged.

        Raises:
            ValueError: a view of this name is there with another declaration.
        """
        state_views.check(self.store, declaration)

    def drop(self, view: str) -> None:
        """Remove a view and its state."""
        state_views.drop(self.store, view)

    def views(self) -> dict[str, ViewMeta]:
        """The views that are here, and how far each has come."""
        here = state_views.views_of(self.store)
        heads = state_views.heads_of(self.store, here.values())
        out = {}
        for name, view in here.items():
            mine = heads.get(view.live or view.building) or [state_views.Head()]
            out[name] = ViewMeta(
                fingerprint=view.declaration.fingerprint,
                offset=min(head.offset for head in mine),
                watermark=min(head.watermark for head in mine),
                epoch=mine[0].epoch,
                complete=bool(view.live),
                rebuilding=bool(view.live and view.building),
                backfill_seconds=view.backfill_seconds,
                backfill_rows=view.backfill_rows,
            )
        return out

    def catch_up(
        self,
        log: EventLog,
        declaration: Declaration,
        *,
        stop: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Apply the log up to `stop` (its end by default) to a view's state; returns the view's offset.

        State of another log, or older than a user's wish to be forgotten, is built again beside the one that is read.
        `progress` is called with the number of log rows done.

        Raises:
            ValueError: the view is here with another declaration, or is removed meanwhile.
        """
        from clicktrail.advance import Advance  # who only reads states needs no DuckDB

        self.prepare(declaration)
        began, rows = time.monotonic(), 0
        stop = log.version if stop is None else stop
        advance = Advance(log, self.store)
        while not (done := advance.step([declaration.name], stop)).done:
            rows += done.stop - done.start
            if progress and done.stop > done.start:
                progress(done.stop - done.start)
        meta = self.views().get(declaration.name)
        if meta is None:
            message = f"view {declaration.name!r} was removed while its state was brought up to the log"
            raise ValueError(message)
        state_views.sweep(self.store)  # what somebody left behind who was killed
        if rows:
            seconds = time.monotonic() - began
            state_views.record_backfill(self.store, declaration.name, seconds=seconds, rows=rows)
        return meta.offset

    def rebuild(self, view: str) -> None:
        """Have a view built anew, beside the state that is read: the next catch-up, or the updater, does it.

        Raises:
            ValueError: there is no such view.
        """
        found = state_views.views_of(self.store).get(view)
        if found is None:
            message = f"there is no state of view {view!r}: run `make features materialize` for this shop"
            raise ValueError(message)
        state_views.rebuild(self.store, found, state_views.Head())

    def forget(self, log: EventLog) -> None:
        """After `EventLog.forget`: nobody can read the forgotten users' own states any more, from now on.

        Views of others (a terminal that they paid at) are built anew by the next catch-up, or the updater.
        """
        from clicktrail.advance import forget

        again = True
        while again:
            views = state_views.views_of(self.store).values()
            again = True in [forget(self.store, log, view) for view in views]


def declarations_here(target: Path | str) -> list[Declaration]:
    """The declarations of which a store has state, by name."""
    return [view.declaration for view in state_views.views_of(open_store(target)).values()]
