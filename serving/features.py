"""What is known of a request's entities at its read time, taken from the online state.

The state is read by the library's own reader; nothing of a feature is computed here. A view is read for
the entity that its key names: a view of `card_id` for the request's `card_id`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clicktrail.clock import read_time
from clicktrail.declarations import Declaration
from clicktrail.online_state import OnlineReader
from clicktrail.settings import Settings
from serving.manifest import RefusedError

logger = logging.getLogger("clicktrail.serving")

META_SECONDS = 0.2
"""For so long the state's offset and watermark are taken as read: asking costs a good part of a request."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When features are read (`t`, microseconds UTC) and how far the state had come by then."""

    t: int
    watermark: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Features:
    """One request's features, view -> feature -> Arrow array [1], and of which views there was a state.

    `as_of`: the latest time at which one of them was read: a state cannot go back behind its entity's newest arrival.
    """

    views: dict[str, dict[str, pa.Array]]
    known: dict[str, bool]
    as_of: int


class LiveState:
    """The online state of one shop, read for one bundle's views."""

    def __init__(self, settings: Settings, declarations: Sequence[Declaration]) -> None:
        """Open the state.

        Raises:
            RefusedError: it is missing, or a view's state is of another declaration.
        """
        self._settings = settings
        self._declarations = list(declarations)
        self._open()
        self.moment()  # a clock that cannot be read is found now, not at the first request

    def moment(self, at: int | None = None) -> Moment:
        """Now, by the clock of the settings, or at a request's own time (microseconds UTC)."""
        self._refresh()
        t = read_time(self._settings.clock, self._watermark) if at is None else at
        return Moment(t=t, watermark=self._watermark, offset=self._offset)

    @property
    def on_the_wall(self) -> bool:
        """Whether the clock is the wall's, so that a time in the future is a mistake."""
        return self._settings.clock == "wall"

    def read(self, keys: Mapping[str, str | None], t: int) -> Features:
        """Features as of `t` of the entities that `keys` names (entity key -> id, None for nobody)."""
        views, known, as_of = {}, {}, t
        for declaration in self._declarations:
            result = self._reader.read(declaration.name, [keys[declaration.entity_key]], t)
            views[declaration.name] = {name: plain_lists(column) for name, column in result.columns.items()}
            known[declaration.name] = result.known[0]
            as_of = max(as_of, result.times[0])
        return Features(views=views, known=known, as_of=as_of)

    def ready(self) -> bool:
        """Whether the state is still there and still of the declarations that the bundle was built with."""
        try:
            self._checked = 0.0
            self._refresh()
        except (RefusedError, OSError):
            logger.exception("the online state is not what it was")
            return False
        return True

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < META_SECONDS:
            return
        if self._identity != self._file():  # put in its place anew: the connection still reads the old file
            self._open()
            return
        meta: dict[str, Any] = self._reader.meta()
        if meta["fingerprints"] != {one.name: one.fingerprint for one in self._declarations}:
            self._open()
            return
        self._offset, self._watermark, self._checked = int(meta["offset"]), int(meta["watermark"]), now

    def _open(self) -> None:
        path = self._settings.online
        if not path.is_file():
            message = (
                f"no online state at {path}: set CLICKTRAIL_HOME (now {self._settings.home}) and CLICKTRAIL_SHOP "
                f"(now {self._settings.shop}) to where the shop's state lies, or bring it there: make materialize"
            )
            raise RefusedError(message)
        try:
            self._reader = OnlineReader(path, self._declarations)
        except (ValueError, sqlite3.Error) as error:
            message = (
                f"the online state at {path} does not fit this bundle: {error}. If it is another shop's state, set "
                "CLICKTRAIL_HOME and CLICKTRAIL_SHOP; if the features moved on, train and build anew"
            )
            raise RefusedError(message) from error
        self._identity = self._file()
        meta: dict[str, Any] = self._reader.meta()
        self._offset, self._watermark, self._checked = int(meta["offset"]), int(meta["watermark"]), time.monotonic()

    def _file(self) -> tuple[int, int]:
        found = self._settings.online.stat()
        return found.st_dev, found.st_ino


def plain_lists(column: pa.Array) -> pa.Array:
    """A sequence as the encoding takes it: 32-bit offsets, strings as strings; any other column goes unchanged."""
    if not pa.types.is_large_list(column.type):
        return column
    values = column.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pa.ListArray.from_arrays(column.offsets.cast(pa.int32()), values)
