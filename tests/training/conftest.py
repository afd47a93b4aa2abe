"""Training sets made of random events, without log or Feast, for tests of what comes after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clicktrail.declarations import to_json
from clicktrail.declaring import days, sequence
from clicktrail.jagged import JaggedFeatures
from clicktrail.windows import jagged_of_lists
from training.build_set import Examples, assemble
from training.labels import described
from training.split import time_split
from training.task import load_task
from training.training_set import TrainingSet

DAY = 86_400_000_000
ITEMS = [f"item-{place}" for place in range(30)]
_ACTIVITY = (
    "user_activity_v1__count_view_7d",
    "user_activity_v1__count_purchase_30d",
    "user_activity_v1__seconds_since_any",
)
CLASSES = ("view", "cart", "nothing", "search")
SCALARS = {
    "recommendation": (),
    "retention": _ACTIVITY,
    "next_action": _ACTIVITY,
    "purchase_count": _ACTIVITY,
    "time_to_purchase": _ACTIVITY,
    "fraud": ("card_activity_v1__count_payment_1d", "card_activity_v1__max_price_minor_payment_30d"),
}


def random_sequence(rng: np.random.Generator, lengths: np.ndarray, ends_at: np.ndarray) -> dict[str, list[Any]]:
    """Fields of a sequence view, one list a row; each item is followed by the next one, mostly."""
    out: dict[str, list[Any]] = {name: [] for name in ("item_id", "event_type", "category_id", "price_minor")}
    out |= {name: [] for name in ("terminal_id", "device", "user_id", "event_timestamp")}
    for length, end in zip(lengths.tolist(), ends_at.tolist(), strict=True):
        steps = rng.choice([1, 1, 1, 2, 7], length)
        items = (int(rng.integers(0, 30)) + np.cumsum(steps)) % 30
        out["item_id"].append([ITEMS[one] for one in items])
        out["event_type"].append(["view" if one else "cart" for one in rng.random(length) < 0.8])
        out["category_id"].append([f"c{one % 5}" for one in items])
        out["price_minor"].append([None if one % 11 == 0 else 100 + 10 * int(one) for one in items])
        out["terminal_id"].append([f"t{one}" for one in rng.integers(0, 4, length)])
        out["device"].append([f"d{one}" for one in rng.integers(0, 3, length)])
        out["user_id"].append([f"u{one}" for one in rng.integers(0, 2, length)])
        out["event_timestamp"].append(sorted((end - rng.integers(1, 20 * DAY, length)).tolist()))
    return out


def made_labels(head: str, views: np.ndarray, viewed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels of the form of each head (training/labels.py), from how many views there were and whether one was last."""
    if head == "multiclass":
        return np.where(rng.random(len(views)) < 0.2, rng.integers(0, 4, len(views)), 2 * viewed)
    if head == "count":
        return rng.poisson(views / 15)
    if head == "time":
        happens, watched = rng.exponential(30 * DAY / 1e6 / (1 + views)), rng.uniform(7, 20, len(views)) * DAY / 1e6
        return np.stack([np.minimum(happens, watched), happens < watched], 1)
    return (views > np.median(views)).astype(np.float64)


def make_set(name: str, rows: int = 600, seed: int = 0) -> TrainingSet:
    """A training set of a task from random events; labels follow from the last event, so something can be learnt."""
    rng = np.random.default_rng(seed)
    task = load_task(name)
    t = np.sort(rng.integers(100 * DAY, 200 * DAY, rows))
    sequences, last_item = {}, None
    for spec in task.sequences:
        lists = random_sequence(rng, rng.integers(0, 60, rows), t)
        sequences[spec.view] = jagged_of_lists({field: lists[field] for field in spec.fields})
        if last_item is None:
            last = [row[-1] if row else ITEMS[0] for row in lists.get("item_id", [])]
            last_item = np.array([ITEMS.index(one) for one in last])
            views = np.array([sum(kind == "view" for kind in row) for row in lists["event_type"]])
            viewed = np.array([row[-1:] == ["view"] for row in lists["event_type"]])
    scalars = {one: pa.array(rng.integers(0, 50, rows), mask=rng.random(rows) < 0.1) for one in SCALARS[name]}
    if name == "fraud":
        pairs = [None if one == 0 else [int(one), 10 + int(one)] for one in rng.integers(0, 5, rows)]
        scalars["terminal_risk_v1__label_rate_fraud_payment_7d"] = pa.array(pairs, pa.list_(pa.int64()))
    assert last_item is not None
    # a history of its own for each row, so an entity of its own
    keys = {key: pa.array([f"{key}{place}" for place in range(rows)]) for key in task.entity_keys}
    columns: dict[str, Any] = {
        "example_id": [f"e{place}" for place in range(rows)],
        "t": pa.array(t, pa.timestamp("us", tz="UTC")),
        **keys,
    }
    columns["target"] = [ITEMS[one] for one in (last_item + 1) % 30]
    columns["price_minor"] = rng.integers(100, 10_000, rows)
    columns["device"] = [f"d{one}" for one in rng.integers(0, 3, rows)]
    columns["terminal_id"] = [f"t{one}" for one in rng.integers(0, 4, rows)]
    if name == "retention":  # who bought more before buys for more
        bought = scalars["user_activity_v1__count_purchase_30d"].fill_null(0).to_numpy()
        columns["value_minor"] = np.where(views > np.median(views), 100 * bought, 0).astype(np.int64)
    columns["user_id"] = columns["user_id"] if name != "fraud" else [f"u{one}" for one in rng.integers(0, 2, rows)]
    wait = 0
    parts = time_split(int(t.min()), int(t.max()), wait=wait, validation=0.2, test=0.2)
    chosen = Examples(
        table=pa.table(columns),
        split=parts.assign(t),
        label=made_labels(task.head, views, viewed, rng),
        negative_rate=1.0,
        time_split=parts,
        classes=CLASSES if task.head == "multiclass" else (),
    )
    features = JaggedFeatures(rows=pa.table({"t": columns["t"]}), sequences=sequences, scalars=scalars)
    declared = to_json(
        sequence(
            name="user_recent_v1", entity_key="user_id", last=100, fields=["item_id", "event_timestamp"], within=days(9)
        )
    )
    manifest = {
        "task": name,
        "feature_service": task.feature_service,
        "head": task.head,
        "log_offset": 7,
        "log_digest": "0" * 64,
        "events": 7,
        "examples": {"train": int((chosen.split == 0).sum())},
        **described(task, chosen.classes, {"train": chosen.label[chosen.split == 0]}),
        "negative_rate": 1.0,
        "time_split": vars(parts),
        "declarations": [declared],
        "digest": f"synthetic-{name}-{seed}",
    }
    return assemble(task, chosen, features, manifest)


@pytest.fixture(scope="session")
def synthetic() -> Callable[[str], TrainingSet]:
    """Training sets by task name, each made once."""
    made: dict[str, TrainingSet] = {}

    def get(name: str) -> TrainingSet:
        if name not in made:
            made[name] = make_set(name)
        return made[name]

    return get
