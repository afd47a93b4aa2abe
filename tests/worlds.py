"""Random small worlds of the time contract: ties, copies, conflicts, late and future events, late labels."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests import oracles

START = 1_700_006_400
FEATURES: list[dict[str, Any]] = [
    {"name": "last3_items", "kind": "sequence", "field": "item_id", "last": 3},
    {"name": "last4_prices_2h", "kind": "sequence", "field": "price_minor", "last": 4, "within_s": 7200},
    {
        "name": "last5_views_1d",
        "kind": "sequence",
        "field": "item_id",
        "last": 5,
        "events": ["view"],
        "within_s": 86400,
    },
    {"name": "views_1h", "kind": "count", "events": ["view"], "window_s": 3600, "hop_s": 0},
    {"name": "views_1d_hop_1h", "kind": "count", "events": ["view"], "window_s": 86400, "hop_s": 3600},
    {"name": "all_90s", "kind": "count", "window_s": 90, "hop_s": 0},
    {"name": "spend_1d", "kind": "sum", "field": "price_minor", "events": ["purchase"], "window_s": 86400, "hop_s": 0},
    {
        "name": "items_1d",
        "kind": "distinct",
        "field": "item_id",
        "events": ["view", "cart", "purchase"],
        "window_s": 86400,
        "hop_s": 0,
    },
    {
        "name": "items_6h_hop_7min",
        "kind": "distinct",
        "field": "item_id",
        "events": ["cart", "view"],
        "window_s": 21600,
        "hop_s": 420,
    },
    {"name": "max_1d", "kind": "max", "field": "price_minor", "events": ["purchase"], "window_s": 86400, "hop_s": 0},
    {"name": "since_any", "kind": "seconds_since_last"},
    {"name": "since_cart", "kind": "seconds_since_last", "events": ["cart"]},
    {
        "name": "risk_7d",
        "kind": "label_rate",
        "label": "fraud",
        "events": ["payment"],
        "entity": "terminal_id",
        "window_s": 604800,
        "delay_s": 604800,
    },
    {
        "name": "risk_1d",
        "kind": "label_rate",
        "label": "fraud",
        "events": ["payment"],
        "entity": "terminal_id",
        "window_s": 86400,
        "delay_s": 3600,
    },
]
_LATENESS = [0, 0, 0, 1, 5, 60, 3000, 4000, 40_000, 100_000, -200, -301, -250]
_GAPS = [0, 0, 1, 3, 60, 600, 3599, 3600, 7000, 50_000, 90_000]


def world(rng: random.Random, name: str) -> dict[str, Any]:
    """One case with its expected values by the oracle."""
    clock = START + rng.choice([0, 17, 3599])
    events: list[dict[str, Any]] = []
    for number in range(rng.randint(0, 14)):
        clock += rng.choice(_GAPS)
        event: dict[str, Any] = {
            "event_id": f"e{number}",
            "user_id": rng.choice(["u", "u", "v"]),
            "item_id": rng.choice(["a", "b", "c"]),
            "event_type": rng.choice(["view", "view", "cart", "purchase", "payment", "search"]),
            "event_timestamp": clock,
            "ingested_at": clock + rng.choice(_LATENESS),
            "source_seq": rng.choice([0, 1, number]),
            "price_minor": rng.choice([0, 100, 250]),
            "quantity": rng.choice([None, 1, 3]),
            "terminal_id": rng.choice(["T", "S", None]),
            "session_id": rng.choice([None, "m", "n", "n"]),
            "category_id": rng.choice([None, "c", "d"]),
        }
        events.append(event)
        if rng.random() < 0.15:
            copy = {**event, "ingested_at": event["ingested_at"] + rng.choice([1, 60, 5000])}
            events.append(copy | ({"price_minor": 999} if rng.random() < 0.5 else {}))
    labels, moments = [], set()
    for event in events:
        while rng.random() < 0.35:
            known = event["event_timestamp"] + rng.choice([-5, 0, 100, 4000, 500_000, 604_800, 700_000])
            if (event["event_id"], known) in moments:
                continue
            moments.add((event["event_id"], known))
            labels.append(
                {"event_id": event["event_id"], "label": "fraud", "value": rng.choice([1, 1, 0]), "known_at": known}
            )
    rng.shuffle(events)
    # arrivals at the same moment keep the order of the file, so copies must not tie
    edges = [event["event_timestamp"] for event in events] + [event["ingested_at"] for event in events]
    edges += [label["known_at"] for label in labels] or [START]
    kept = oracles.accepted(events)
    reads = []
    for _ in range(rng.randint(1, 6)):
        t = rng.choice(edges) + rng.choice([0, 1, 90, 3600, 86_400, 604_800, 691_200, rng.randint(0, 700_000)])
        user, terminal = rng.choice(["u", "v", "nobody"]), rng.choice(["T", "S", None])
        expect = {
            one["name"]: oracles.value(one, kept, labels, terminal if one.get("entity") else user, t)
            for one in FEATURES
        }
        reads.append({"user_id": user, "terminal_id": terminal, "t": t, "expect": expect})
    return {
        "name": name,
        "events": events,
        "labels": labels,
        "reads": reads,
        "accepted": sorted(event["event_id"] for event in kept),
    }


def write_cases(path: Path, worlds: int, seed: int) -> None:
    """A file of the form of time_cases.json."""
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    cases = [world(rng, f"world {number}") for number in range(worlds)]
    path.write_text(json.dumps({"features": FEATURES, "cases": cases}))
