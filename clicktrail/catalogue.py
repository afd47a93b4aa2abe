"""What the catalogue knew of an item, and when: the versions of every item, looked up as of a time.

The file that is read holds one row per version of an item: the columns of `ITEM_COLUMNS`, `known_at` (int64,
microseconds UTC) and `version` (int64, from 1), sorted by (item_id, known_at); rows are only ever added. Visible at t
is, as with events, what was known before t. Needs neither Feast nor DuckDB.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.contract import ITEM_COLUMNS, Column, arrow_schema

ALWAYS = -(2**62)
"""known_at of a version that was known before everything: before every event, those before 1970 included."""

_MANY = 10_000
"""From so many items on a hash table for one call costs less than a look into a dict for each."""

KNOWN_AT = Column(
    name="known_at",
    type=pa.timestamp("us", tz="UTC"),
    nullable=False,
    unit="UTC, microseconds",
    meaning="when the catalogue came to know of the item what the row says",
)
"""The column of a source that records when its rows were written; a shop need not have one."""

HISTORY_SCHEMA = pa.schema(
    [*arrow_schema(ITEM_COLUMNS), *(pa.field(name, pa.int64(), nullable=False) for name in ("known_at", "version"))]
)
"""Grain: one version of an item."""


class Catalogue:
    """All versions of all items, in memory."""

    def __init__(self, versions: pa.Table, *, path: Path | None = None, version: str = "") -> None:
        """`versions` follows `HISTORY_SCHEMA`, sorted by (item_id, known_at); `path` and `version` say whence it is.

        Raises:
            ValueError: the versions are not in order.
        """
        self.path, self.version = path, version
        self._values = {name: _coded(versions[name].combine_chunks()) for name in self.columns}
        items = versions["item_id"].combine_chunks().dictionary_encode()
        codes = items.indices.to_numpy()
        self._known = versions["known_at"].to_numpy()
        self._items = items.dictionary
        steps = np.diff(codes)
        if (steps < 0).any() or (np.diff(self._known)[steps == 0] <= 0).any():
            message = (
                f"{path}: the versions of the items are not in order of item and known_at: take the items in again"
            )
            raise ValueError(message)
        self._starts = np.searchsorted(codes, np.arange(len(self._items) + 1))

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """The catalogue in a Parquet file; empty where there is none yet.

        Raises:
            ValueError: the file is not of the schema or the order of `HISTORY_SCHEMA`.
        """
        version = version_of(path)  # asked first: a file that is put in its place meanwhile is noticed the next time
        table = as_history(pq.read_table(path)) if version else HISTORY_SCHEMA.empty_table()
        if table.schema.names != HISTORY_SCHEMA.names or table.schema.types != HISTORY_SCHEMA.types:
            message = f"{path} has columns {table.schema.names}, not {HISTORY_SCHEMA.names}: take the items in again"
            raise ValueError(message)
        return cls(table, path=path, version=version)

    def newest(self) -> Catalogue:
        """This catalogue, or the one that lies in its file's place by now; unchanged it costs a look at the folder."""
        return self if self.path is None or version_of(self.path) == self.version else Catalogue.load(self.path)

    @property
    def columns(self) -> tuple[str, ...]:
        """What can be asked of an item."""
        return tuple(column.name for column in ITEM_COLUMNS if column.name != "item_id")

    def as_of(self, item_ids: pa.Array, known: np.ndarray, field: str) -> pa.Array:
        """What was known of the item of each event when the event became known.

        Args:
            item_ids: strings, or a dictionary of them; [events]. Null: an event about no item.
            known: known_at of each event, microseconds; int64 [events].
            field: one of `columns`.

        Returns:
            The field of the newest version with known_at before the event's, null where there is none; [events]. Texts
            are codes of a dictionary.

        Raises:
            ValueError: the catalogue has no such field.
        """
        return self.values(self.find(item_ids, known), field)

    def find(self, item_ids: pa.Array, known: np.ndarray) -> np.ndarray:
        """Row of the version that was known at each event, -1 where there was none; int64 [events].

        Arguments as for `as_of`: who wants several fields of the same events looks for their versions once.
        """
        items = self._item_of(item_ids)
        low = np.where(items >= 0, self._starts[items], 0)
        first = low.copy()
        high = np.where(items >= 0, self._starts[items + 1], 0)
        # all events bisect at once: as many rounds as the longest history of an item takes
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = np.zeros(len(low), bool)
            before[open_] = self._known[middle[open_]] < known[open_]
            low = np.where(before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        return np.where(low > first, low - 1, -1)

    def values(self, rows: np.ndarray, field: str) -> pa.Array:
        """A field of the versions that `find` found; [events].

        Raises:
            ValueError: the catalogue has no such field.
        """
        if field not in self.columns:
            message = f"{field!r} is no field of the catalogue; choose one of: {', '.join(self.columns)}"
            raise ValueError(message)
        return self._values[field].take(pa.array(rows, mask=rows < 0))

    def unchanged(self, t: int) -> tuple[int, int]:
        """(after, until): for every time with after < time <= until the same versions are known as at `t`."""
        place, limits = int(np.searchsorted(self._times, t)), np.iinfo(np.int64)
        times = (int(limits.min), *self._times[max(place - 1, 0) : place + 1].tolist(), int(limits.max))
        return (times[1], times[2]) if place else (times[0], times[1])

    @cached_property
    def _times(self) -> np.ndarray:
        """When anything became known of any item, rising."""
        return np.unique(self._known)

    @cached_property
    def _places(self) -> dict[str, int]:
        # a dict, not pyarrow's index_in: that builds its hash table for every call, and an online read looks up few
        return {item: place for place, item in enumerate(self._items.to_pylist())}

    def _item_of(self, item_ids: pa.Array) -> np.ndarray:
        """Place of each event's item, -1 where the catalogue has none; int64 [events]."""
        if not pa.types.is_dictionary(item_ids.type):
            item_ids = item_ids.dictionary_encode()
        asked = item_ids.dictionary
        if len(asked) > _MANY:
            found = pc.index_in(asked, self._items).fill_null(-1).to_numpy().astype(np.int64)
        else:
            found = np.array([self._places.get(item, -1) for item in asked.to_pylist()], np.int64)
        places = np.append(found, -1)
        return places[item_ids.indices.fill_null(-1).to_numpy()]


def as_history(table: pa.Table) -> pa.Table:
    """A history in the order of `HISTORY_SCHEMA`; a column that the contract got after it was written is null."""
    for field in HISTORY_SCHEMA:
        if field.name not in table.column_names and field.nullable:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(HISTORY_SCHEMA.names) if set(table.column_names) == set(HISTORY_SCHEMA.names) else table


def _coded(column: pa.Array) -> pa.Array:
    return column.dictionary_encode() if pa.types.is_string(column.type) else column


def version_of(path: Path) -> str:
    """Names the file that lies at `path` now, by a look at its entry alone; empty where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
