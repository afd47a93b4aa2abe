"""Which items may be recommended: the filters of a request as one float32 or a few places, made once and kept."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serving.items import Items
from serving.offers import Offers

_KEPT_BYTES = 64 * 2**20
"""What the filters of earlier requests may take up."""

FEW = 16
"""Where less than one item in so many may be shown, those alone are scored: that is faster than to score all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Eligible:
    """The items that may be shown: `count` of them.

    `places`: rising, int64 [count], where they are few, else None. `offset`: what is added to the scores of all items,
    the item's bias, -inf where it may not be shown; float32 [I], where they are many, else None.
    """

    count: int
    places: np.ndarray | None
    offset: np.ndarray | None

    def among(self, places: np.ndarray) -> np.ndarray:
        """Which of these places may be shown, bool."""
        if self.offset is not None:
            return np.isfinite(self.offset[places])
        assert self.places is not None  # noqa: S101 - one of them is there
        return np.isin(places, self.places)


class Filters:
    """Turns the filters of requests into eligible items; for one thread."""

    def __init__(self, items: Items) -> None:
        """For these items; `all` of them may be shown where nothing is filtered."""
        self._items = items
        self.all = Eligible(count=len(items), places=None, offset=items.bias)
        self._kept: OrderedDict[str, Eligible] = OrderedDict()
        self._offers: Offers | None = None

    def eligible(self, wanted: Mapping[str, Any], offers: Offers) -> Eligible:
        """The items that pass.

        Args:
            wanted: `filters` of a request (serving/endpoints.py).
            offers: what is known of the items now.
        """
        if offers is not self._offers:
            self._kept.clear()
            self._offers = offers
        key = json.dumps(wanted)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = _eligible(passing(wanted, self._items, offers), self._items)
            if len(self._kept) > max(4, _KEPT_BYTES // max(1, 4 * len(self._items))):
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found


def passing(wanted: Mapping[str, Any], items: Items, offers: Offers) -> np.ndarray:
    """Whether each item passes all filters, bool [I]; ids and categories that nobody knows say nothing of any item."""
    passes = np.ones(len(items), bool)
    if wanted["allow"] is not None:
        passes[:] = False
        passes[items.places(wanted["allow"])] = True
    if wanted["deny"]:
        passes[items.places(wanted["deny"])] = False
    if wanted["categories"] is not None:
        codes = pc.index_in(pa.array(wanted["categories"], pa.string()), offers.category.dictionary).drop_null()
        passes &= np.isin(offers.category.indices.fill_null(-1).to_numpy(), codes.to_numpy())
    if wanted["price_minor"] is not None:
        least, most = wanted["price_minor"]["minimum"], wanted["price_minor"]["maximum"]
        passes &= offers.price >= (least or 0)  # so what nobody knows the price of does not pass
        if most is not None:
            passes &= offers.price <= most
    if wanted["in_stock"]:
        passes &= ~offers.sold_out
    return passes


def _eligible(passes: np.ndarray, items: Items) -> Eligible:
    count = int(np.count_nonzero(passes))
    if count * FEW < len(items):
        return Eligible(count=count, places=np.flatnonzero(passes), offset=None)
    return Eligible(count=count, places=None, offset=np.where(passes, items.bias, np.float32(-np.inf)))
