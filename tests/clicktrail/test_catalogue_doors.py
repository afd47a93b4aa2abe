"""Fields of the catalogue through Feast's doors: what was known of an item when the event became known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA
from clicktrail.clock import microseconds, read_at
from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

START = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    """So many days after the 1st of March 2026."""
    return START + timedelta(days=number)


def test_both_doors_say_what_the_catalogue_knew_then(tmp_path: Path) -> None:
    """Two versions of an item, a late event, an item that nobody knew: offline = online = looked up by hand."""
    from clicktrail.feast_repo import open_store
    from clicktrail.views import sequence_view
    from feature_repo.entities import user

    settings = Settings(home=tmp_path)
    known = [
        ("a", ALWAYS, "hat", 500),
        ("a", microseconds(day(5)), "red hat", 700),
        ("b", microseconds(day(3)), "cap", 9),
    ]
    versions = [
        {"item_id": item, "known_at": at, "version": 1, "title": title, "price_minor": price}
        for item, at, title, price in known
    ]
    settings.catalogue.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(versions, schema=HISTORY_SCHEMA), settings.item_history)
    events = [("a", 1, 1), ("b", 2, 2), ("a", 3, 6), ("a", 5, 5), ("b", 4, 4), ("x", 6, 6)]  # item, happened, arrived
    rows = [
        {
            **dict.fromkeys(arrow_schema().names),
            "event_id": str(place),
            "user_id": "u",
            "item_id": item,
            "event_type": "view",
            "event_timestamp": day(happened),
            "ingested_at": day(arrived),
            "source_seq": place,
        }
        for place, (item, happened, arrived) in enumerate(events)
    ]
    EventLog(settings.log).append(pa.Table.from_pylist(rows, schema=arrow_schema()))
    view = sequence_view(
        name="shelf_v1",
        entity=user,
        last=9,
        fields=["item_id", "item_title", "item_price_minor"],
        owner="shop@example.com",
        description="what the user looked at, as it was called then",
    )
    store = open_store(settings)
    store.apply([user, view])
    store.materialize_incremental(end_date=datetime.now(UTC))

    features = [f"shelf_v1:{name}" for name in ("item_id", "item_title", "item_price_minor")]
    asked = pd.DataFrame({"user_id": ["u", "nobody"], "event_timestamp": [day(7), day(7)]})
    offline = store.get_historical_features(asked, features).to_arrow().to_pylist()
    with read_at(day(7)):
        online = store.get_online_features(features, [{"user_id": "u"}, {"user_id": "nobody"}]).to_dict()

    # known at 1, 2, 4, 5, then both of 6 by when they happened; what became known at 5 is not known to the event of 5.
    # In Feast's lists "" and 0 stand for what is missing
    expected = {
        "item_id": ["a", "b", "b", "a", "a", "x"],
        "item_title": ["hat", "", "cap", "hat", "red hat", ""],
        "item_price_minor": [500, 0, 9, 500, 700, 0],
    }
    for name, values in expected.items():
        assert [list(row[name]) for row in offline] == [values, []]
        assert online[name] == [values, []]
