"""Price, category and stock follow the shop's catalogue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA
from serving.offers import LiveOffers
from tests.serving.made_items import items_of

SOLD_OUT, BACK = 1_000, 2_000


def write(path: Path, *more: dict[str, object]) -> None:
    versions = [
        {"item_id": "i1", "price_minor": 70, "in_stock": 1, "known_at": ALWAYS, "version": 1},
        {"item_id": "i1", "price_minor": 80, "in_stock": 0, "known_at": SOLD_OUT, "version": 2},
        *more,
        {"item_id": "i2", "category_id": "boats", "known_at": ALWAYS, "version": 1},
    ]
    aside = path.with_suffix(".aside")
    pq.write_table(pa.Table.from_pylist(versions, schema=HISTORY_SCHEMA), aside)
    aside.rename(path)


def test_offers_are_those_of_their_time(tmp_path: Path) -> None:
    """Strictly after a version became known it holds; what the catalogue does not say is as in training."""
    write(tmp_path / "items_history.parquet")
    live = LiveOffers(tmp_path / "items_history.parquet", items_of(np.ones((5, 2))))
    before, after = live.at(SOLD_OUT), live.at(SOLD_OUT + 1)
    assert (before.price.tolist(), before.sold_out.tolist()) == ([0, 70, 200, 300, -1], [False] * 5)
    assert (after.price.tolist(), after.sold_out.tolist()) == ([0, 80, 200, 300, -1], [False, True, *[False] * 3])
    assert after.category.to_pylist() == ["hats", "socks", "boats", "hats", "socks"]
    assert live.at(SOLD_OUT + 2) is after


def test_a_catalogue_that_comes_later_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No file, then one, then one that cannot be read, then a new one: requests go on with what is known."""
    path = tmp_path / "items_history.parquet"
    live = LiveOffers(path, items_of(np.ones((5, 2))), look_seconds=0)
    now = BACK + 10
    assert not live.at(now).sold_out.any()
    write(path)
    wait_for(lambda: live.at(now).sold_out[1])
    path.write_bytes(b"torn")
    with caplog.at_level(logging.ERROR):
        wait_for(lambda: live.at(now).sold_out[1] and caplog.records)
    assert "what was known before stands" in caplog.records[0].message
    write(path, {"item_id": "i1", "in_stock": 1, "known_at": BACK, "version": 3})
    wait_for(lambda: not live.at(now).sold_out[1])


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)
