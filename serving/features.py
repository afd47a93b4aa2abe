"""What is known of a request's entities at its read time, taken from the online state.

The state is read by the library's own reader; nothing of a feature is computed here.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from clicktrail.clock import read_time
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import entity_id
from clicktrail.input_spec import InputSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.read_log import recorder
from clicktrail.rows import Rows, as_floats
from clicktrail.settings import Settings
from clicktrail.state_reader import OnlineReader
from clicktrail.state_store import StateMissingError
from clicktrail.state_target import shown
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


class ViewRead(Protocol):
    """What was read of one view for R rows: see `clicktrail.state_reader.ReadResult`."""

    @property
    def known(self) -> list[bool]:
        """Of whom there was a state."""

    @property
    def times(self) -> list[int]:
        """As of when each was read, microseconds UTC."""

    @property
    def offsets(self) -> list[int]:
        """Of which log offset each was read."""

    @property
    def columns(self) -> Mapping[str, pa.Array]:
        """Arrow arrays by feature."""

    @property
    def sequence(self) -> JaggedSequence:
        """A sequence view as plain arrays."""

    @property
    def floats(self) -> Mapping[str, np.ndarray]:
        """Those features that are to be had as float64 without Arrow."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of R rows by view: as the store was read, as a model takes them (`rows`), and as columns (`views`).

    `as_of`: of each row the latest time at which a view was read, microseconds UTC: a state cannot go back behind its
    entity's newest arrival.
    """

    results: Mapping[str, ViewRead]
    as_of: list[int]

    @cached_property
    def views(self) -> dict[str, dict[str, pa.Array]]:
        """View -> feature -> Arrow array [R]."""
        return {
            view: {name: plain_lists(column) for name, column in result.columns.items()}
            for view, result in self.results.items()
        }

    def rows(self, spec: InputSpec, request: Mapping[str, Sequence[Any]], t: np.ndarray) -> Rows:
        """What a model of this input sees; `request`: field -> [R], `t`: int64 [R], microseconds UTC."""
        return Rows(
            sequences={one.view: self.results[one.view].sequence for one in spec.sequences},
            scalars={name: self._scalar(name) for name in (*spec.scalars, *spec.rates)},
            request=request,
            t=t,
        )

    def _scalar(self, name: str) -> np.ndarray:
        view, _, feature = name.partition("__")
        result = self.results[view]
        found = result.floats.get(feature)
        return as_floats(result.columns[feature]) if found is None else found

    def anything_known(self, row: int) -> bool:
        """Whether there was a state of any view."""
        return any(result.known[row] for result in self.results.values())


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

    @property
    def item_history(self) -> Path:
        """The file of the shop's catalogue; there need not be one."""
        return self._settings.item_history

    def read(
        self, keys: Mapping[str, Sequence[str | None]], t: int | np.ndarray, recent: pa.Table | None = None
    ) -> Features:
        """Features as of `t` of the entities that `keys` names by row (entity key -> ids [R], None for nobody).

        `t` is int64 [R] where rows have times of their own; `recent` are events that the state may not have yet.

        Raises:
            RefusedError: the state is not there any more, or not what it was.
        """
        asked = [(one.name, _ids(one, keys)) for one in self._declarations]
        try:
            results = self._reader.read_many(asked, t, recent)
        except ValueError as error:
            raise RefusedError(str(error)) from error
        return Features(
            results=results,
            # a row without a key is read at its own time, so the latest of all is never before that
            as_of=[max(times) for times in zip(*(result.times for result in results.values()), strict=True)],
        )

    def warm(self) -> None:
        """Have everything compiled that a read needs, before there is a request."""
        self._reader.warm()

    def ready(self) -> bool:
        """Whether the state is still there and still of the declarations that the bundle was built with."""
        try:
            self._checked = 0.0
            self._refresh()
        except (RefusedError, OSError, sqlite3.Error):
            logger.exception("the online state is not what it was")
            return False
        return True

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < META_SECONDS:
            return
        try:
            meta: dict[str, Any] = self._reader.meta()
        except ValueError as error:
            raise RefusedError(str(error)) from error
        self._offset, self._watermark, self._checked = int(meta["offset"]), int(meta["watermark"]), now

    def _open(self) -> None:
        place = shown(self._settings.online_state)
        try:
            self._reader = OnlineReader(
                self._settings.online_state,
                self._declarations,
                catalogue=self._settings.catalogue / "items_history.parquet",
                recorder=recorder(self._settings),
            )
        except StateMissingError as error:
            message = (
                f"no online state at {place} ({error}): set CLICKTRAIL_HOME (now {self._settings.home}), "
                f"CLICKTRAIL_SHOP (now {self._settings.shop}) and CLICKTRAIL_ONLINE_URL to where it lies, "
                "or bring it there: make materialize"
            )
            raise RefusedError(message) from error
        except (ValueError, OSError, sqlite3.Error) as error:
            message = (
                f"the online state at {place} does not fit this bundle: {error}. If it is another shop's state, set "
                "CLICKTRAIL_HOME and CLICKTRAIL_SHOP; if the features moved on, train and build anew"
            )
            raise RefusedError(message) from error
        self._checked = 0.0
        self._refresh()


def _ids(declaration: Declaration, keys: Mapping[str, Sequence[str | None]]) -> Sequence[str | None]:
    """The entity of each row, by the key of the view: a view of `card_id` reads the request's `card_id`."""
    names = declaration.entity_keys
    if len(names) == 1:
        return keys[names[0]]
    return [
        entity_id(dict(zip(names, row, strict=True)), names) for row in zip(*(keys[one] for one in names), strict=True)
    ]


def plain_lists(column: pa.Array) -> pa.Array:
    """A sequence as the encoding takes it: 32-bit offsets, strings as strings; any other column goes unchanged."""
    if not pa.types.is_large_list(column.type):
        return column
    values = column.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pa.ListArray.from_arrays(column.offsets.cast(pa.int32()), values)
