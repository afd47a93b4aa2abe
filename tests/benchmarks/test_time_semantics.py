"""Files of time cases with every kind of feature hold at both doors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.case_features import same
from benchmarks.time_semantics import STORES, run
from tests import oracles
from tests.worlds import world

DAY: dict[str, Any] = {"window_s": 86400}
FEATURES: list[dict[str, Any]] = [
    *(
        {"name": kind, "kind": kind, "field": "price_minor", "events": ["view", "purchase"], "k": 1, **DAY}
        for kind in ("sum", "mean", "std", "min", "max", "distinct", "first", "last", "most_frequent")
    ),
    {"name": "gap", "kind": "mean_gap", "hop_s": 420, **DAY},
    {"name": "gap_std", "kind": "std_gap", **DAY},
    {"name": "top_items", "kind": "top", "field": "item_id", "k": 2, **DAY},
    {"name": "share", "kind": "ratio", "part": "count", "window_s": 3600, "over_s": 86400},
    {"name": "spent", "kind": "ratio", "part": "sum", "field": "quantity", "window_s": 3600, "over_s": 86400},
    {"name": "pair", "kind": "count", "entity": "user_id+category_id", **DAY},
    {"name": "of_item", "kind": "last", "field": "terminal_id", "entity": "item_id", **DAY},
    {"name": "rate", "kind": "label_rate", "label": "fraud", "events": ["payment"], "entity": "terminal_id", **DAY},
    {"name": "session", "kind": "sequence", "field": "item_id", "last": 4, "session_s": 0},
    {"name": "pause", "kind": "sequence", "field": "event_timestamp", "last": 4, "session_s": 3600, "within_s": 9000},
    {"name": "changes", "kind": "sequence", "field": "quantity", "last": 3, "drop_repeats": ["item_id"]},
]


def entity_of(feature: dict[str, Any], read: dict[str, Any]) -> str | None:
    ids = [read[key] for key in (feature.get("entity") or "user_id").split("+")]
    return None if None in ids else "\x1f".join(ids)


def write_every_kind(path: Path, worlds: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    cases = [world(rng, f"world {number}") for number in range(worlds)]
    for case in cases:
        kept = oracles.accepted(case["events"])
        for read in case["reads"]:
            read |= {"category_id": rng.choice(["c", "d"]), "item_id": rng.choice(["a", "z"])}
            read["expect"] = {
                one["name"]: oracles.value(one, kept, case["labels"], entity_of(one, read), read["t"])
                for one in FEATURES
            }
    path.write_text(json.dumps({"features": FEATURES, "cases": cases}))


@pytest.mark.slow
@pytest.mark.xdist_group("feast")
@pytest.mark.parametrize("store", STORES)
def test_every_kind_of_feature_holds_at_both_doors(tmp_path: Path, store: str) -> None:
    """Random worlds, all aggregations, sessions, repeats and pairs: no mismatch with SQLite and with Redis."""
    seed = random.Random().randrange(2**32)  # noqa: S311 - new worlds each time
    write_every_kind(tmp_path / "cases.json", 60, seed)
    figures = run(tmp_path / "cases.json", store)
    assert figures["offline_mismatches"] == figures["online_mismatches"] == figures["accepted_mismatches"] == 0, seed
    assert figures["values"] == figures["reads"] * len(FEATURES)


def test_values_compare_as_a_file_of_cases_writes_them() -> None:
    """Null and nothing differ, a mean may be divided in another order, a list's null is what Feast's doors write."""
    assert same(None, None)
    assert same(0.1 + 0.2, 0.3)
    assert same(["a", None], ["a", ""])
    assert not same(0, None)
    assert not same(None, 0)
    assert not same([1, 2], [1])
    assert not same(0.3, 0.3001)
