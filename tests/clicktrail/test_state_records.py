"""Records of a state: what is appended comes back, whatever was appended first, and folding takes nothing away."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import aggregates, count, days, distinct, hours, label_rate, last, sequence, time_since, total
from clicktrail.engine import values
from clicktrail.kernels.records import NEVER
from clicktrail.state_fold import fold
from clicktrail.state_records import Records, layout_of, pack_events, pack_steps, read_records, twins
from tests.clicktrail.test_event_log import SECOND

LAST = sequence(
    name="last_v1",
    entity_key="user_id",
    last=3,
    fields=["item_id", "price_minor", "event_type"],
    drop_repeats=["item_id"],
)
SPENT = aggregates(
    name="spent_v1",
    entity_key="user_id",
    windows=[hours(1), days(1)],
    aggregations=[
        count("view"),
        total("price_minor"),
        distinct("item_id"),
        last("category_id", windows=[days(1)], hop=hours(5)),
        time_since("cart"),
        label_rate("fraud", of="payment", delay=hours(2)),
    ],
)
TYPES = ("cart", "payment", "view")

event = st.fixed_dictionaries(
    {
        "entity": st.integers(0, 2),
        "event_timestamp": st.integers(-20, 100_000).map(lambda s: s * SECOND),
        "ingested_at": st.integers(-20, 100_000).map(lambda s: s * SECOND),
        "source_seq": st.integers(0, 2),
        "event_type": st.sampled_from(TYPES),
        "item_id": st.sampled_from([None, "", "a", "été", "an id of more than eight bytes"]),
        "category_id": st.sampled_from([None, "c", "dd"]),
        "price_minor": st.sampled_from([None, 0, -5, 2**62]),
    }
)


def pack(view: Declaration, events: list[dict[str, Any]]) -> list[bytes]:
    """The bytes of entities 0, 1 and 2."""
    full = [{**dict.fromkeys(arrow_schema().names), **one, "event_id": f"e{one['offset']:03}"} for one in events]
    table = pa.Table.from_pylist(full, schema=arrow_schema())
    table = table.append_column("offset", pa.array([one["offset"] for one in events], pa.int64()))
    types = np.array([view.events.index(one["event_type"]) for one in events], np.uint8)
    return pack_events(view, table, types, np.array([one["entity"] for one in events], np.int64), 3).blobs()


def joined(*many: list[bytes]) -> Records:
    """The records of the entities of several appends."""
    pieces = [piece for entity in zip(*many, strict=True) for piece in entity]
    return Records.of(pieces, [sum(map(len, entity)) for entity in zip(*many, strict=True)])


def numbered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a log has them: by arrival, with offsets."""
    order = sorted(events, key=lambda one: one["ingested_at"])
    return [{**one, "offset": place} for place, one in enumerate(order)]


@settings(deadline=None)
@given(events=st.lists(event, max_size=25), seed=st.integers(0, 99))
def test_what_is_appended_comes_back_in_the_order_of_the_contract(events: list[dict[str, Any]], seed: int) -> None:
    """In whatever pieces and order it was appended, and if something was appended twice."""
    events = numbered(events)
    view = sequence(
        name="all_v1", entity_key="user_id", last=9, events=TYPES, fields=["item_id", "price_minor", "category_id"]
    )
    shuffled = random.Random(seed).sample(events, len(events))  # noqa: S311 - reproducible test data
    half = len(shuffled) // 2
    found = read_records(view, joined(pack(view, shuffled[:half]), pack(view, shuffled[half // 2 :])))
    for entity in range(3):
        mine = [one for one in events if one["entity"] == entity]
        mine.sort(
            key=lambda one: (
                max(one["event_timestamp"], one["ingested_at"]),
                one["event_timestamp"],
                one["source_seq"],
                one["offset"],
            )
        )
        places = slice(found.history.starts[entity], found.history.starts[entity + 1])
        for name in ("item_id", "price_minor", "category_id"):
            assert found.history.columns[name].to_pylist()[places] == [one[name] for one in mine]
        assert found.history.event[places].tolist() == [one["event_timestamp"] for one in mine]
        assert [view.events[code] for code in found.history.types[places]] == [one["event_type"] for one in mine]
        assert found.time[entity] == max((one["ingested_at"] for one in mine), default=NEVER)


@settings(deadline=None)
@given(
    events=st.lists(event, max_size=30), cuts=st.lists(st.integers(0, 30), max_size=4), later=st.integers(0, 200_000)
)
@pytest.mark.parametrize("view", [LAST, SPENT], ids=lambda view: view.name)
def test_folding_changes_no_value(view: Declaration, events: list[dict[str, Any]], cuts: list[int], later: int) -> None:
    """Folded after every piece or never: at any time from the newest arrival on, the values are the same."""
    events = [one for one in numbered(events) if one["event_type"] in view.events]
    plain, folded = joined(pack(view, [])), joined(pack(view, []))
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(events)], strict=True):
        piece = pack(view, events[begin:end])
        plain, folded = joined(plain.blobs(), piece), fold(view, joined(folded.blobs(), piece))
    all_of_it, rest = read_records(view, plain), read_records(view, folded)
    t = np.maximum(all_of_it.time, later * SECOND)
    everybody = np.arange(3)
    assert rest.time.tolist() == all_of_it.time.tolist()
    one, two = (
        {name: column.to_pylist() for name, column in values(view, found.history, everybody, t).items()}
        for found in (all_of_it, rest)
    )
    assert one == two


def test_folding_leaves_what_can_be_seen() -> None:
    """Ten settled events of which three count, and one that is not visible yet: four stay, and the newest arrival."""
    view = sequence(name="three_v1", entity_key="user_id", last=3, events=TYPES, fields=["item_id"])
    base = {"entity": 0, "source_seq": 0, "event_type": "view", "item_id": "a"}
    settled = [{**base, "event_timestamp": place, "ingested_at": place, "offset": place} for place in range(10)]
    ahead = {**base, "event_timestamp": 99, "ingested_at": 10, "offset": 10}
    found = read_records(view, fold(view, joined(pack(view, [*settled, ahead]))))
    assert found.history.known[: found.history.starts[1]].tolist() == [7, 8, 9, 99]
    assert found.time.tolist() == [10, NEVER, NEVER]


def test_the_newest_of_its_kind_outlives_its_window() -> None:
    """Time since the last cart goes on after every window has passed it."""
    base = {"entity": 0, "source_seq": 0, "price_minor": 1}
    carts = [{**base, "event_type": "cart", "event_timestamp": at, "ingested_at": at} for at in (10, 20)]
    view_ = {**base, "event_type": "view", "event_timestamp": 10**12, "ingested_at": 10**12}
    events = [{**one, "offset": place} for place, one in enumerate([*carts, view_])]
    found = read_records(SPENT, fold(SPENT, joined(pack(SPENT, events))))
    assert found.history.event.tolist() == [20, 10**12]


def test_the_newest_computation_of_a_label_counts() -> None:
    """Steps that were computed again replace those about the same event, in whatever order they lie."""

    def steps(target: int, known: list[int], step: list[int], computed: int) -> bytes:
        n = len(known)
        packed = pack_steps(0, np.full(n, target), np.array(known), np.full(n, 5), np.array(step), computed)
        return packed.tobytes()

    blob = steps(7, [30, 40], [1, -1], 9) + steps(8, [50], [1], 4) + steps(7, [30], [1], 3)
    labels = next(iter(read_records(SPENT, Records.of([blob], [len(blob)])).history.labels.values()))
    assert labels.starts.tolist() == [0, 3]
    assert (labels.known.tolist(), labels.step.tolist()) == ([30, 40, 50], [1, -1, 1])
    folded = fold(SPENT, Records.of([blob], [len(blob)]))
    assert read_records(SPENT, folded).history.labels.popitem()[1].step.tolist() == [1, -1, 1]


@pytest.mark.parametrize("damage", ["cut", "kind", "length"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    """Bytes that are no records are named, with the way out, and never read as something else."""
    base = {"entity": 0, "source_seq": 0, "event_type": "view", "event_timestamp": 1, "ingested_at": 1, "offset": 0}
    blob = bytearray(pack(LAST, [{**base, "event_type": "cart"}])[0])
    if damage == "cut":
        blob = blob[:-3]
    elif damage == "kind":
        blob[0] = 9
    else:
        blob[5] = 0
    with pytest.raises(ValueError, match="rebuild"):
        read_records(LAST, Records.of([bytes(blob)], [len(blob)]))


def test_too_many_columns_are_refused() -> None:
    """A view that a record cannot hold is refused in words."""
    assert len(layout_of(SPENT).columns) < 24
    view = sequence(name="odd_v1", entity_key="user_id", last=1, fields=["item_id"], drop_repeats=["event_day"])
    assert layout_of(view).columns == ("source_seq", "item_id", "event_id")


@pytest.mark.parametrize("view", [LAST, SPENT], ids=lambda view: view.name)
def test_twins_are_two_events_of_one_moment(view: Declaration) -> None:
    """What warms the kernels is a state like any other."""
    assert read_records(view, twins(view)).history.known.tolist() == [0, 0]
