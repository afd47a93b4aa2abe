"""Reads under load are equal to the offline store's, whatever happens to updaters and store."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from benchmarks.parity import run
from benchmarks.parity_world import VIEWS, Shop, keys
from clicktrail.contract import LABEL


@pytest.mark.slow
@pytest.mark.parametrize(("store", "kills"), [("sqlite", 2), ("redis", 3)])
def test_parity_under_load(store: str, kills: int) -> None:
    """Two updaters of which one after the other is killed, on Redis an emptied store: 0 mismatches, all made good."""
    found = run(10_000, store, kills)
    assert found["mismatches"] == 0
    assert found["reads"] >= 10_000
    assert found["lagging"] > 0  # else nothing of the hard part was asked
    assert (found["kills"], found["recoveries"]) == (kills, kills)
    assert found["emptied"] == (store == "redis")


def test_the_shop_is_in_no_good_order() -> None:
    """Ties, copies, late and future events, labels before what they speak of, null prices: all are there."""
    table = Shop(0).batch(6000)
    event, arrived = (table[name].cast("int64").to_numpy() for name in ("event_timestamp", "ingested_at"))
    known = np.maximum(event, arrived)
    assert len(np.unique(known)) < 0.9 * len(known)
    assert pc.count_distinct(table["event_id"]).as_py() < table.num_rows
    assert (arrived - event > 3_600_000_000).sum() > 5
    assert (arrived < event).sum() > 20
    assert (np.diff(arrived) < 0).sum() > 20
    assert table["price_minor"].null_count > 20
    labels = table.filter(pc.equal(table["event_type"], LABEL))
    place = pc.index_in(labels["label_of"], value_set=table["event_id"].combine_chunks())
    at = pc.index_in(labels["event_id"], value_set=table["event_id"].combine_chunks())
    assert pc.any(pc.less(at, place)).as_py()
    assert set(labels["label_value"].to_pylist()) == {0, 1}
    assert Shop(0).batch(100).equals(Shop(0).batch(100))


def test_keys_are_of_every_kind() -> None:
    """Known ones, one that nobody knows, and now and then none."""
    rng = np.random.default_rng(0)
    for view in VIEWS:
        found = [one for _ in range(40) for one in keys(view, rng, 10)]
        assert "nobody" in found
        assert None in found
