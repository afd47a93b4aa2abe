"""The measurement of the live doors counts what it sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.live_intake import make_groups, measure

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("door", ["http", "redis", "kafka"])
def test_every_event_that_may_enter_is_in_the_log_when_it_ends(tmp_path: Path, door: str) -> None:
    """It ends when the log holds 98 of every 100 events, and says what that took."""
    if door == "redis" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    figures = measure(door, tmp_path, groups=10, rate=5_000)
    assert figures["events"] == 1_000
    assert figures["cpu_us_per_event"] > 0
    assert 0 < figures["durable_p50_ms"] <= figures["durable_p99_ms"]


def test_a_group_has_one_copy_and_one_event_that_breaks_a_rule() -> None:
    """98 distinct good events in a hundred."""
    (group,) = make_groups(1)
    assert len(group) == 100
    assert len({event["event_id"] for event in group if isinstance(event["price_minor"], int)}) == 98
