"""The measurements hold on the shared cases and on worlds of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.__main__ import make_point_in_time
from benchmarks.time_semantics import STORES, run
from tests import oracles
from tests.worlds import FEATURES, write_cases

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]


@pytest.mark.parametrize("store", STORES)
def test_the_worked_cases_hold_at_both_doors(time_cases: Path, store: str) -> None:
    """Every read of the worked cases gives the stated values, offline and online, and the stated events stand."""
    figures = run(time_cases, store)
    assert figures["reads"] > 0
    assert {name: figures[name] for name in figures if name.endswith("mismatches")} == {
        "accepted_mismatches": 0,
        "offline_mismatches": 0,
        "online_mismatches": 0,
    }


@pytest.mark.parametrize("store", STORES)
def test_random_worlds_hold_at_both_doors(tmp_path: Path, store: str) -> None:
    """A hundred random worlds with expected values by the oracle: no mismatch through Feast's doors."""
    write_cases(tmp_path / "cases.json", 100, seed=random.Random().randrange(2**32))  # noqa: S311 - new worlds each time
    figures = run(tmp_path / "cases.json", store)
    assert figures["offline_mismatches"] == figures["online_mismatches"] == figures["accepted_mismatches"] == 0
    assert figures["values"] == figures["reads"] * len(FEATURES)


def test_the_oracle_agrees_with_the_worked_cases(time_cases: Path) -> None:
    """The naive oracle itself gives what the worked cases state."""
    content = json.loads(time_cases.read_text())
    for case in content["cases"]:
        kept = oracles.accepted(case["events"])
        assert sorted(event["event_id"] for event in kept) == sorted(case["accepted"])
        for read in case["reads"]:
            for feature in content["features"]:
                entity = read[feature.get("entity") or "user_id"]
                got = oracles.value(feature, kept, case["labels"], entity, read["t"])
                assert got == read["expect"][feature["name"]], (case["name"], feature["name"])


def test_point_in_time_lists_are_the_naive_ones(tmp_path: Path) -> None:
    """The benchmark's result holds, for each row, the last events that were known before its time."""
    make_point_in_time(tmp_path, events=3000, rows=400)
    command = [sys.executable, "-m", "benchmarks.point_in_time", "--data", tmp_path, "--last", "5"]
    done = subprocess.run([*command, "--result", tmp_path / "out.parquet"], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == 400
    events, rows = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("events", "rows"))
    by_user: dict[str, list[tuple[int, int, int, str, str, int]]] = {}
    stamp, arrived = (events[name].cast(pa.int64()).to_pylist() for name in ("event_timestamp", "ingested_at"))
    plain = {
        name: events[name].to_pylist() for name in ("user_id", "source_seq", "item_id", "event_type", "price_minor")
    }
    for place, user in enumerate(plain["user_id"]):
        known = max(stamp[place], arrived[place])
        row = (known, stamp[place], plain["source_seq"][place], plain["item_id"][place])
        by_user.setdefault(user, []).append((*row, plain["event_type"][place], plain["price_minor"][place]))
    result = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for want, got in zip(rows.to_pylist(), result, strict=True):
        t = int(want["event_timestamp"].timestamp()) * 1_000_000
        seen = sorted(event for event in by_user.get(want["user_id"], []) if event[0] < t)[-5:]
        assert got["row"] == want["row"]
        assert got["item_id"] == [event[3] for event in seen]
        assert got["event_type"] == [event[4] for event in seen]
        assert got["price_minor"] == [event[5] for event in seen]
