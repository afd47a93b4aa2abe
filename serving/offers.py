"""What the shop's catalogue says of the items now: category, price, and what is sold out.

What it does not know of an item is as training saw it last; an item is sold out only where it says so. The catalogue
in memory follows the file: it is looked at every few seconds, and read by a thread while requests go on with what is
known.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.catalogue import Catalogue, version_of
from serving.items import Items

logger = logging.getLogger("clicktrail.serving")

LOOK_SECONDS = 2.0
"""How often the file is looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Offers:
    """Of each item, as of a time t with `after` < t <= `until` (microseconds UTC), between which nothing changes.

    `category`: dictionary [I]; `price`: int64 [I], minor units, -1 where nobody knows; `sold_out`: bool [I].
    """

    category: pa.DictionaryArray
    price: np.ndarray
    sold_out: np.ndarray
    after: int
    until: int

    def holds(self, t: int) -> bool:
        """Whether it is what is known at t."""
        return self.after < t <= self.until


def offers(catalogue: Catalogue, items: Items, t: int) -> Offers:
    """What is known of the items at `t`, microseconds UTC."""
    rows = catalogue.find(pa.array(items.ids, pa.string()), np.full(len(items), t, np.int64))
    category = catalogue.values(rows, "category_id").cast(pa.string())
    price = pc.coalesce(catalogue.values(rows, "price_minor"), items.price)
    after, until = catalogue.unchanged(t)
    return Offers(
        category=pc.coalesce(category, items.category).dictionary_encode(),
        price=price.fill_null(-1).to_numpy(),
        sold_out=pc.equal(catalogue.values(rows, "in_stock"), 0).fill_null(False).to_numpy(zero_copy_only=False),  # noqa: FBT003
        after=after,
        until=until,
    )


class LiveOffers:
    """The offers of one bundle's items; for one thread that asks."""

    def __init__(self, path: Path, items: Items, *, look_seconds: float = LOOK_SECONDS) -> None:
        """Read the catalogue (`items_history.parquet`); where there is none yet, nothing is known of any item.

        Raises:
            ValueError: it cannot be read.
        """
        self._path, self._items, self._look_seconds = path, items, look_seconds
        self._known: tuple[Catalogue, Offers | None] = (Catalogue.load(path), None)
        self._looked = time.monotonic()
        self._reading: threading.Thread | None = None

    def at(self, t: int) -> Offers:
        """What is known at `t` (microseconds UTC), by the newest file that was read."""
        now = time.monotonic()
        if now - self._looked >= self._look_seconds:
            self._looked = now
            self._look(t)
        catalogue, found = self._known
        if found is None or not found.holds(t):
            found = offers(catalogue, self._items, t)
            self._known = catalogue, found
        return found

    def _look(self, t: int) -> None:
        reading = self._reading is not None and self._reading.is_alive()
        if not reading and version_of(self._path) != self._known[0].version:
            self._reading = threading.Thread(target=self._read, args=(t,), name="catalogue", daemon=True)
            self._reading.start()

    def _read(self, t: int) -> None:
        try:
            catalogue = Catalogue.load(self._path)
            self._known = catalogue, offers(catalogue, self._items, t)
        except (OSError, ValueError):
            logger.exception("the catalogue cannot be read; what was known before stands")
