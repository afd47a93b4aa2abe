"""Request features: the same offline, online and by a naive version, on random worlds."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.arrivals import arrivals
from clicktrail import declaring
from clicktrail.clock import moment
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.engine import values
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.request_declarations import (
    RequestFeature,
    RequestView,
    count_with,
    day_of_week,
    difference,
    due,
    from_text,
    hour_of_day,
    is_night,
    is_weekend,
    largest_with,
    mean_with,
    quotient_of,
    request_declaration,
    share,
    times_mean,
    to_text,
    total_with,
)
from clicktrail.request_features import apply, request_fields, transform
from tests import oracles
from tests.worlds import world

SPENT = declaring.aggregates(
    name="spent_v1",
    entity_key="user_id",
    windows=[declaring.days(1)],
    aggregations=[
        declaring.count("purchase", name="purchases"),
        declaring.total("price_minor", of="purchase", name="spend"),
        declaring.largest("price_minor", of="purchase", name="dearest"),
    ],
)
RISK = declaring.aggregates(
    name="risk_v1",
    entity_key="terminal_id",
    windows=[declaring.days(1)],
    aggregations=[declaring.label_rate("fraud", of="payment", delay=declaring.hours(1), name="risk")],
)
FEATURES = [
    count_with("purchases"),
    total_with("spend", "price_minor"),
    mean_with(total="spend", count="purchases", field="price_minor", name="mean_with"),
    largest_with("dearest", "price_minor"),
    times_mean("price_minor", total="spend", count="purchases", name="times_mean"),
    share("risk"),
    share("risk", none=0.0, name="risk_or_0"),
    due("risk"),
    difference("price_minor", "dearest", name="above"),
    quotient_of("price_minor", "dearest", name="of_dearest"),
    hour_of_day(),
    day_of_week(),
    is_weekend(),
    is_night(before=7),
]


def declared(features: list[RequestFeature] = FEATURES, request: tuple[str, ...] = ("price_minor",)) -> RequestView:
    inputs = {one.name: one.outputs for one in (SPENT, RISK)}
    return request_declaration(name="context_v1", request=request, inputs=inputs, features=features)


VIEW = declared()


def naive(case: dict[str, Any], user: str | None, terminal: str | None, price: int | None, t: int) -> dict[str, Any]:
    """Each feature by its definition, in whole Python numbers."""
    window = {"window_s": 86400, "events": ["purchase"]}
    kept = oracles.accepted(case["events"])

    def stored(feature: dict[str, Any], entity: str | None) -> Any:  # noqa: ANN401 - a value of any feature
        return oracles.value(feature, kept, case["labels"], entity, t)

    count = stored({**window, "kind": "count"}, user)
    total = stored({**window, "kind": "sum", "field": "price_minor"}, user)
    largest = stored({**window, "kind": "max", "field": "price_minor"}, user)
    rate = {"kind": "label_rate", "entity": "terminal_id", "label": "fraud", "events": ["payment"]}
    pair = stored({**rate, "window_s": 86400, "delay_s": 3600}, terminal)
    at = datetime.fromtimestamp(t, UTC)
    present = price is not None
    known = present and count is not None
    return {
        "purchases_with_request": None if count is None else count + 1,
        "spend_with_request": total + price if known else None,
        "mean_with": (total + price) / (count + 1) if known else None,
        "dearest_with_request": max(price, largest or price) if present else None,
        "times_mean": price * count / total if known and total else None,
        "risk_share": pair[0] / pair[1] if pair and pair[1] else None,
        "risk_or_0": (pair[0] / pair[1] if pair[1] else 0.0) if pair else None,
        "risk_due": pair[1] if pair else None,
        "above": price - largest if present and largest is not None else None,
        "of_dearest": price / largest if present and largest else None,
        "hour_of_day": at.hour,
        "day_of_week": at.weekday(),
        "is_weekend": int(at.weekday() in (5, 6)),
        "is_night": int(at.hour < 7),
    }


def offline(log: EventLog, declaration: Declaration, ids: list[str | None], t: np.ndarray) -> dict[str, pa.Array]:
    history, entities = load_history(log, declaration.entity_key, [declaration])
    return values(declaration, history, entity_codes(pa.array(ids, pa.string()), entities), t)


def named(declaration: Declaration, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    return {f"{declaration.name}__{name}": column for name, column in columns.items()}


@pytest.mark.parametrize("seed", range(40))
def test_offline_online_feast_and_naive_agree(seed: int, tmp_path: Path) -> None:
    """On a random world every feature is the same through all doors, nulls of keys and fields included."""
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    case = world(rng, str(seed))
    reads = [
        (
            None if one["user_id"] == "v" and rng.random() < 0.3 else one["user_id"],
            one["terminal_id"],
            rng.choice([None, 0, 100, 999, 10**9]),
            one["t"],
        )
        for one in case["reads"]
    ]
    expected = [naive(case, *read) for read in reads]
    users, terminals = ([None if read[at] is None else f"0|{read[at]}" for read in reads] for at in (0, 1))
    prices, t = [read[2] for read in reads], np.array([read[3] * 1_000_000 for read in reads])
    events = arrivals([case])
    log = EventLog(tmp_path / "log")
    log.append(events.select(arrow_schema().names))
    fields = request_fields(VIEW, {"price_minor": prices})
    stored = {**named(SPENT, offline(log, SPENT, users, t)), **named(RISK, offline(log, RISK, terminals, t))}
    made = {name: column.to_pylist() for name, column in apply(VIEW.features, {**fields, **stored}, t).items()}
    assert [dict(zip(made, row, strict=True)) for row in zip(*made.values(), strict=True)] == expected

    lists = {name: column.to_pylist() for name, column in stored.items()}
    generic = transform(
        to_text(VIEW), {**lists, "price_minor": prices, "event_timestamp": [moment(int(one)) for one in t]}
    )
    assert generic == made

    for row, read in enumerate(reads):
        folder = tmp_path / str(row)
        arrived = events["ingested_at"].cast(pa.int64()).to_numpy() < t[row]
        known = EventLog(folder / "log")
        known.append(events.filter(pa.array(arrived)).select(arrow_schema().names))
        online = {}
        for declaration, ids in ((SPENT, users), (RISK, terminals)):
            OnlineState(folder / "online.db").catch_up(known, declaration)
            reader = OnlineReader(folder / "online.db", [declaration])
            online |= named(declaration, reader.read(declaration.name, [ids[row]], int(t[row])).columns)
        field = request_fields(VIEW, {"price_minor": [read[2]]})
        answer = apply(VIEW.features, {**field, **online}, t[row : row + 1])
        assert {name: column[0].as_py() for name, column in answer.items()} == expected[row]


def test_an_event_in_the_log_counts_once_at_its_own_time(tmp_path: Path) -> None:
    """Scored again at its own time, a purchase is not among what is stored: the answer is as it was then."""
    rows = [
        {
            **dict.fromkeys(arrow_schema().names),
            "event_id": f"e{n}",
            "event_type": "purchase",
            "user_id": "u",
            "event_timestamp": n * 1_000_000,
            "ingested_at": n * 1_000_000,
            "source_seq": n,
            "price_minor": 100 * n,
        }
        for n in (1, 2, 3)
    ]
    log = EventLog(tmp_path / "log")
    view = declared([count_with("purchases"), total_with("spend", "price_minor")])
    t, prices = np.array([1, 2, 3]) * 1_000_000, [100, 200, 300]

    def ask() -> dict[str, list[Any]]:
        stored = named(SPENT, offline(log, SPENT, ["u"] * 3, t))
        made = apply(view.features, {**stored, **request_fields(view, {"price_minor": prices})}, t)
        return {name: column.to_pylist() for name, column in made.items()}

    log.append(pa.Table.from_pylist(rows[:2], schema=arrow_schema()))
    before = ask()
    log.append(pa.Table.from_pylist(rows[2:], schema=arrow_schema()))
    assert ask() == before
    assert before["purchases_with_request"] == [0 + 1, 1 + 1, 2 + 1]
    assert before["spend_with_request"] == [100, 100 + 200, 100 + 200 + 300]


def test_a_view_goes_through_text() -> None:
    """What the registry holds is read back as it was declared."""
    assert from_text(to_text(VIEW)) == VIEW
    assert VIEW.inputs == (("spent_v1", ("purchases", "spend", "dearest")), ("risk_v1", ("risk",)))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([count_with("risk")], "needs a stored whole number, 'risk' is none; choose among"),
        ([count_with("price_minor")], "needs a stored whole number"),
        ([total_with("spend", "purchases")], r"needs a field of the request.*\['price_minor'\]"),
        ([share("spend")], "needs a stored label rate"),
        ([difference("price_minor", "nothing", name="x")], "a number, stored or in the request"),
        ([hour_of_day(), hour_of_day()], r"doubled: \['hour_of_day'\]; give name="),
        ([hour_of_day(name="price_minor")], r"doubled: \['price_minor'\]"),
        ([], "features must be there"),
    ],
)
def test_a_wrong_declaration_is_refused(features: list[RequestFeature], message: str) -> None:
    """The error names the view, the feature, and what there is instead."""
    with pytest.raises(ValueError, match=message):
        declared(features)


def test_an_ambiguous_name_is_refused() -> None:
    """Of two views that have a feature of one name, the declaration says which is meant."""
    inputs = {"a_v1": {"n": pa.int64()}, "b_v1": {"n": pa.int64()}}
    with pytest.raises(ValueError, match="could be a_v1__n or b_v1__n: say which"):
        request_declaration(name="x_v1", request=[], inputs=inputs, features=[count_with("n")])
    view = request_declaration(name="x_v1", request=[], inputs=inputs, features=[count_with("b_v1__n")])
    assert view.inputs == (("b_v1", ("n",)),)
    assert view.features[0].name == "n_with_request"
    with pytest.raises(ValueError, match="reads nothing"):
        request_declaration(name="x_v1", request=[], inputs=inputs, features=[hour_of_day()])


def test_a_field_of_the_request_is_a_whole_number() -> None:
    """Whole numbers that pandas made floats are taken; fractions, words and a missing field are named."""
    taken = request_fields(VIEW, {"price_minor": [5.0, None]})
    assert taken["price_minor"].to_pylist() == [5, None]
    for wrong in ([1.5], ["7 euros"], [b"7"]):
        with pytest.raises(ValueError, match="'price_minor' must hold whole numbers"):
            request_fields(VIEW, {"price_minor": wrong})
    with pytest.raises(ValueError, match="reads 'price_minor' of every row"):
        request_fields(VIEW, {"price": [1]})
