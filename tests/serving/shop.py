"""A shop of a few events and runs whose models can be computed by hand: what the serving tests build bundles from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from clicktrail.catalogue import HISTORY_SCHEMA
from clicktrail.clock import microseconds
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration, to_json
from clicktrail.declaring import aggregates, count, days, label_rate, sequence, time_since, total
from clicktrail.encoding import Encoding, rows_of_lists
from clicktrail.event_log import EventLog
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings
from ingestion.live import LiveIntake

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = ("a", "b", "c", "d", "e")
VIEWS = (1, 2, 3, 4, 10)
CATEGORIES = ("hats", "hats", "socks", "socks", None)
PRICES = (1000, 2000, 3000, None, 2500)
BIAS = np.array([0.5, 0.4, 0.3, 0.2, 0.1], np.float32)
THRESHOLD = 0.5
BASE_RATE = 0.25
TOLERANCE = 1e-4
CURVE = {"score": [0.0, 1.0], "probability": [0.0, 0.5]}
COSTS = {
    "review": {"fixed_minor": 300, "finds": 0.9},
    "missed_fraud": {"share": 1.0, "fixed_minor": 1000},
    "false_decline": {"share": 0.2, "fixed_minor": 500},
}
VALUE = {
    "features": ["user_activity_v1__count_view_7d"],
    "edges": [[2.0]],
    "values": [100.0, 2000.0, 8000.0],  # nobody knows, fewer than two views, two or more
    "mean": 4000.0,
}

USER_RECENT = sequence(
    name="user_recent_v1",
    entity_key="user_id",
    last=20,
    within=days(30),
    events=["view", "cart", "purchase"],
    fields=["item_id", "event_type", "price_minor", "event_timestamp"],
)
USER_ACTIVITY = aggregates(
    name="user_activity_v1", entity_key="user_id", windows=[days(7)], aggregations=[count("view"), time_since()]
)
CARD_RECENT = sequence(
    name="card_recent_v1",
    entity_key="card_id",
    last=10,
    events=["payment"],
    fields=["price_minor", "terminal_id", "device", "event_timestamp"],
)
CARD_ACTIVITY = aggregates(
    name="card_activity_v1",
    entity_key="card_id",
    windows=[days(7)],
    aggregations=[count("payment"), total("price_minor", of="payment")],
)
TERMINAL_RISK = aggregates(
    name="terminal_risk_v1",
    entity_key="terminal_id",
    windows=[days(7)],
    aggregations=[count("payment"), label_rate("fraud", of="payment", delay=days(1))],
)
DECLARATIONS: dict[str, tuple[Declaration, ...]] = {
    "recommendation": (USER_RECENT, USER_ACTIVITY),
    "retention": (USER_RECENT, USER_ACTIVITY),
    "fraud": (CARD_RECENT, CARD_ACTIVITY, TERMINAL_RISK),
}
_USER_SPEC = InputSpec(
    sequences=(
        SequenceSpec(view="user_recent_v1", last=10, categories=("item_id", "event_type"), numbers=("price_minor",)),
    ),
    scalars=("user_activity_v1__count_view_7d", "user_activity_v1__seconds_since_any"),
)
SPECS: dict[str, InputSpec] = {
    "recommendation": _USER_SPEC,
    "retention": _USER_SPEC,
    "fraud": InputSpec(
        sequences=(
            SequenceSpec(
                view="card_recent_v1",
                last=5,
                categories=("device",),
                numbers=("price_minor",),
                same=("terminal_id",),
                age=True,
            ),
        ),
        scalars=("card_activity_v1__count_payment_7d", "terminal_risk_v1__count_payment_7d"),
        rates=("terminal_risk_v1__label_rate_fraud_payment_7d",),
        request_categories=("device",),
        request_numbers=("price_minor",),
    ),
}


def at(hours: float) -> datetime:
    """A time of the little shop."""
    return START + timedelta(hours=hours)


def events() -> pa.Table:
    """Two users who look at items, two cards that pay; the last thing is known at `at(30)`."""
    rows: list[dict[str, Any]] = []

    def add(kind: str, hours: float, **more: Any) -> None:  # noqa: ANN401 - columns of the contract
        number = len(rows)
        rows.append(
            {
                "event_id": f"e{number}",
                "user_id": "ann",
                "event_type": kind,
                "event_timestamp": at(hours),
                "ingested_at": at(hours),
                "source_seq": number,
                **more,
            }
        )

    for hours, item in ((1, "a"), (2, "b"), (3, "b")):
        add("view", hours, item_id=item, price_minor=1000)
    add("view", 4, user_id="bob", item_id="e", price_minor=2500)
    for hours, price in ((5, 1200), (6, 800), (30, 90_000)):
        pay = {"card_id": "card1", "terminal_id": "shop1", "price_minor": price, "device": "phone"}
        add("payment", hours, **pay)
    add("payment", 7, user_id="bob", card_id="card2", terminal_id="shop2", price_minor=500, device="desk")
    return pa.Table.from_pylist(rows, schema=arrow_schema())


def open_shop(settings: Settings, table: pa.Table | None = None) -> None:
    """Take the events into the log, past the row rules, and bring the online state up to it; c is sold out."""
    log, table = EventLog(settings.log), events() if table is None else table
    streams, positions = np.repeat("shop", table.num_rows), np.arange(table.num_rows)
    assert LiveIntake(settings).enter(table, streams=streams, positions=positions).version == table.num_rows
    state = OnlineState(settings.online)
    for declaration in {one.name: one for many in DECLARATIONS.values() for one in many}.values():
        state.catch_up(log, declaration)
    settings.catalogue.mkdir(parents=True, exist_ok=True)
    told = {"known_at": microseconds(at(20)), "version": 1}
    rows = [{"item_id": "c", "in_stock": 0, **told}, {"item_id": "d", "price_minor": 4000, "in_stock": 1, **told}]
    pq.write_table(pa.Table.from_pylist(rows, schema=HISTORY_SCHEMA), settings.item_history)


@cache
def log_digest() -> str:
    """Digest of a log that holds the events."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder))
        log.append(events())
        return log.digest()


# ---- a run, as training would leave it


def write_run(runs: Path, task: str, run_id: str = "20260401-120000") -> Path:
    """A run folder with an export whose model is arithmetic; `latest` points at it."""
    run = runs / task / run_id
    export = run / "export"
    export.mkdir(parents=True)
    encoding = fitted(task)
    onnx.save(model_of(task, encoding), export / "model.onnx")
    _json(export / "encoding.json", encoding.to_json())
    _json(
        export / "interface.json",
        {
            "task": task,
            "feature_service": task,
            "head": "next_item" if task == "recommendation" else "binary",
            "declarations": [to_json(one) for one in DECLARATIONS[task]],
            "inputs": encoding.inputs(),
            "request": dict.fromkeys(SPECS[task].request_fields, "string"),
            "items": "items.parquet" if task == "recommendation" else None,
            "item_vectors": "item_vectors.npy" if task == "recommendation" else None,
            "threshold": THRESHOLD,
            "calibration": {"points": CURVE if task == "fraud" else None},
            "value": VALUE if task == "retention" else None,
            "costs": COSTS if task == "fraud" else None,
        },
    )
    shares = {"items": ITEMS[::-1], "scores": [views / sum(VIEWS) for views in VIEWS[::-1]]}
    _json(export / "fallback.json", shares if task == "recommendation" else {"score": BASE_RATE})
    if task == "recommendation":
        write_items(export, encoding)
    cases = [_golden(task, encoding, row) for row in (0, 1)]
    _json(export / "golden.json", {"tolerance": TOLERANCE, "cases": cases})
    _json(
        run / "metrics.json",
        {
            "task": task,
            "primary_metric": "auc",
            "model": {"auc": 0.9},
            "baselines": {"popularity": {"auc": 0.7}},
            "intervals": {"auc": {"popularity": {"difference": 0.2, "low": 0.1, "high": 0.3}}},
            "gates": {"auc": {"least": 0.5, "passed": True}},
            "data": {"log_offset": 8, "log_content": log_digest(), "digest": "d" * 64, "events": 8, "examples": 4},
            "revision": "f" * 40,
            "dirty": False,
        },
    )
    (run / "model_card.md").write_text(f"# {task}\n\nA model that can be computed by hand.\n", encoding="utf-8")
    link = run.parent / "latest"
    link.unlink(missing_ok=True)
    link.symlink_to(run.name)
    return run


def write_items(export: Path, encoding: Encoding) -> None:
    """Table and vectors of the items, in the order of the vocabulary: item n of `ITEMS` is the n-th unit vector."""
    order = [ITEMS.index(item) for item in encoding.vocabularies["item_id"]]
    columns = {"item_id": ITEMS, "category_id": CATEGORIES, "price_minor": PRICES, "popularity": VIEWS, "bias": BIAS}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pq.write_table(table.take(order), export / "items.parquet")
    np.save(export / "item_vectors.npy", np.eye(len(ITEMS), dtype=np.float32)[order])


def features_of(task: str, row: int) -> tuple[dict[str, dict[str, Any]], dict[str, list[Any]], int]:
    """Made-up features of a made-up person: (view -> feature -> one value, request, t)."""
    t = int(at(40).timestamp() * 1_000_000)
    times = [t - 7_200_000_000, t - 60_000_000][: row + 1]
    if task == "fraud":
        views = {
            "card_recent_v1": {
                "price_minor": [[100, 2000][: row + 1]],
                "terminal_id": [["shop1", None][: row + 1]],
                "device": [["phone", "desk"][: row + 1]],
                "event_timestamp": [times],
            },
            "card_activity_v1": {"count_payment_7d": [1 + row], "total_price_minor_payment_7d": [100]},
            "terminal_risk_v1": {"count_payment_7d": [row], "label_rate_fraud_payment_7d": [[row, 3]]},
        }
        return views, {"price_minor": [1000 * (1 + row)], "device": ["phone"], "terminal_id": ["shop1"]}, t
    views = {
        "user_recent_v1": {
            "item_id": [["a", "c"][: row + 1]],
            "event_type": [["view", "cart"][: row + 1]],
            "price_minor": [[1000, None][: row + 1]],
            "event_timestamp": [times],
        },
        "user_activity_v1": {"count_view_7d": [row], "seconds_since_any": [None if row else 60]},
    }
    return views, {}, t


def fitted(task: str) -> Encoding:
    """The encoding of two made-up rows."""
    views: dict[str, dict[str, Any]] = {}
    request: dict[str, list[Any]] = {}
    for row in (0, 1):
        these, asked, t = features_of(task, row)
        for view, columns in these.items():
            for name, values in columns.items():
                views.setdefault(view, {}).setdefault(name, []).extend(values)
        for name, values in asked.items():
            request.setdefault(name, []).extend(values)
    rows = rows_of_lists(SPECS[task], views, request, np.array([t, t]))
    return Encoding.fit(SPECS[task], rows, more={"item_id": ITEMS} if task != "fraud" else None)


def expected_of(task: str, arrays: Mapping[str, np.ndarray], encoding: Encoding) -> np.ndarray:
    """The model in numpy, one row a request; of a recommendation the scores of `ITEMS`."""
    view = SPECS[task].sequences[0].view
    if task == "recommendation":
        codes = encoding.codes("item_id", ITEMS)
        seen = arrays[f"{view}__ids"][:, :, 0]
        return (seen[:, :, None] == codes).sum(1).astype(np.float32) + BIAS
    total_ = arrays["request_numbers"].sum(1) + arrays[f"{view}__numbers"].sum((1, 2))
    return 1 / (1 + np.exp(-0.1 * total_))


def model_of(task: str, encoding: Encoding) -> onnx.ModelProto:
    """The same model in ONNX, with all the inputs that the encoding gives; of a recommendation the query alone."""
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    inputs = [
        helper.make_tensor_value_info(name, types[dtype], shape) for name, (dtype, shape) in encoding.inputs().items()
    ]
    view = SPECS[task].sequences[0].view
    constants: dict[str, np.ndarray]
    if task == "recommendation":
        constants = {
            "first": np.array(0, np.int64),
            "codes": encoding.codes("item_id", ITEMS),
            "last_axis": np.array([2], np.int64),
            "length_axis": np.array([1], np.int64),
        }
        nodes = [
            helper.make_node("Gather", [f"{view}__ids", "first"], ["item_BL"], axis=2),
            helper.make_node("Unsqueeze", ["item_BL", "last_axis"], ["item_BL1"]),
            helper.make_node("Equal", ["item_BL1", "codes"], ["same_BLI"]),
            helper.make_node("Cast", ["same_BLI"], ["one_BLI"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["one_BLI", "length_axis"], ["score"], keepdims=0),
        ]
        shape: list[str | int] = ["batch", len(ITEMS)]
    else:
        constants = {
            "axis": np.array([1], np.int64),
            "axes": np.array([1, 2], np.int64),
            "tenth": np.array(0.1, np.float32),
        }
        nodes = [
            helper.make_node("ReduceSum", ["request_numbers", "axis"], ["request_B"], keepdims=0),
            helper.make_node("ReduceSum", [f"{view}__numbers", "axes"], ["events_B"], keepdims=0),
            helper.make_node("Add", ["request_B", "events_B"], ["sum_B"]),
            helper.make_node("Mul", ["sum_B", "tenth"], ["logit_B"]),
            helper.make_node("Sigmoid", ["logit_B"], ["score"]),
        ]
        shape = ["batch"]
    graph = helper.make_graph(
        nodes,
        task,
        inputs,
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _golden(task: str, encoding: Encoding, row: int) -> dict[str, Any]:
    views, request, t = features_of(task, row)
    arrays = encoding.encode_lists(views, request, np.array([t]))
    scores = expected_of(task, arrays, encoding)[0]
    answer: dict[str, Any]
    if task != "recommendation":
        answer = {"score": float(scores)}
    else:
        order = np.argsort(-scores, kind="stable")
        answer = {"items": [ITEMS[place] for place in order], "scores": scores[order].tolist()}
    one = {view: {name: values[0] for name, values in columns.items()} for view, columns in views.items()}
    return {"features": one, "request": {name: values[0] for name, values in request.items()}, "t": t, "answer": answer}


def _json(path: Path, content: Any) -> None:  # noqa: ANN401
    path.write_text(json.dumps(content), encoding="utf-8")
