"""Events as a producer sends them, for the tests of the live intake."""

from __future__ import annotations

import datetime as dt
from typing import Any

START = dt.datetime(2026, 3, 31, 12, tzinfo=dt.UTC)
ARRIVED = int(START.timestamp()) * 1_000_000
"""`START` in microseconds."""


def view(name: str, **more: object) -> dict[str, Any]:
    """A view of an item, which keeps the contract."""
    return {
        "event_id": name,
        "user_id": f"u{sum(name.encode()) % 7}",
        "item_id": "i1",
        "event_type": "view",
        "event_timestamp": "2026-03-31T12:00:00Z",
        "price_minor": 1_999,
        **more,
    }
