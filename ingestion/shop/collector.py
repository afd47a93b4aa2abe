"""What a production collector leaves of clean events: names, arrivals, and dirt at known rates.

Dirt is extra rows only: copies of clean rows, and rows of their own that break one rule of the contract. No clean row
is lost or changed by it; what had not arrived by the end of the last day is in no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import EVENT_TYPES, arrow_schema
from ingestion.shop.assembly import CODE, PROMPT_DELAY, Events
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters

IN_NEXT_FILE = 0.2
"""Share of the exact copies that stand in the next day's file."""
IS_NULL = 0.5
"""Share of the missing ids that are null; the others are empty."""
HOURS_LATE = 0.75
"""Share of what is late by hours; the rest by days."""
HOUR_US = 3600 * MICROSECONDS


@dataclass(frozen=True, kw_only=True)
class Names:
    """Public ids: `[number]` gives the id. Shuffled, so that no id tells what it stands for."""

    user: pa.Array
    card: pa.Array
    terminal: pa.Array
    session: pa.Array
    item: pa.Array
    category: pa.Array
    device: pa.Array
    channel: pa.Array


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Rows as collected, ordered by the file they are in and arrival there.

    `table` has the contract's columns (nulls where the contract has none), `file_day` [rows] the day of the file,
    `clean` [rows] the number of the clean event, -1 for dirt, `planted` how many rows of each kind of dirt.
    """

    table: pa.Table
    file_day: np.ndarray
    clean: np.ndarray
    planted: dict[str, int]


def make_names(parameters: ShopParameters, events: Events, users: int) -> Names:
    """Draw public ids."""
    rng = parameters.rng("names")
    sessions = int(events.session.max()) + 1
    first_seen = np.full(sessions, np.iinfo(np.int64).max)
    known = events.session >= 0
    np.minimum.at(first_seen, events.session[known], events.time[known])
    by_time = np.argsort(np.argsort(first_seen, kind="stable"), kind="stable")
    return Names(
        user=_ids("u", rng.permutation(users), 6),
        card=_ids("c", rng.permutation(int(events.card.max()) + 1), 6),
        terminal=_ids("t", rng.permutation(int(events.terminal.max()) + 1), 6),
        session=_ids("s", by_time, 7),
        item=_ids("i", np.arange(parameters.items), 5),
        category=_ids("k", np.arange(parameters.categories), 3),
        device=_ids("d", np.arange(int(events.device.max()) + 1), 2),
        channel=pa.array(["web", "app"]),
    )


def arrivals(parameters: ShopParameters, events: Events) -> tuple[np.ndarray, np.ndarray]:
    """When each clean event arrived (microseconds), and whether late, [events].

    Whole visits can be late (an app without a network), and single views. Payments never are, nor what leads to them.
    """
    rng = parameters.rng("arrivals")
    count = len(events)
    prompt = rng.uniform(*PROMPT_DELAY, count) * MICROSECONDS
    sessions = int(events.session.max()) + 1
    paid = np.zeros(sessions, dtype=bool)
    paid[events.session[(events.type == CODE["payment"])]] = True
    late_visit = (rng.random(sessions) < parameters.late_visits) & ~paid
    visit_delay = _delay(rng, sessions)
    in_late_visit = late_visit[events.session] & (events.session >= 0)
    may_be_late = np.isin(events.type, (CODE["view"], CODE["favorite"]))
    alone = (rng.random(count) < parameters.late_events) & may_be_late
    delay = np.where(in_late_visit, visit_delay[events.session] + prompt, np.where(alone, _delay(rng, count), prompt))
    return events.time + delay.astype(np.int64), in_late_visit | alone


def event_table(events: Events, names: Names, ingested: np.ndarray) -> pa.Table:
    """Clean events under the contract's columns, in the order given; event ids follow that order."""
    count = len(events)
    event_id = _ids("e", np.arange(count), 8)
    source_seq = np.argsort(np.argsort(ingested, kind="stable"), kind="stable")
    is_label = events.type == CODE["label"]
    label_of = pc.take(event_id, pa.array(events.label_of, mask=events.label_of < 0))
    priced = events.price >= 0
    columns = {
        "event_id": event_id,
        "user_id": _named(names.user, events.user),
        "item_id": _named(names.item, events.item),
        "event_type": _named(pa.array(EVENT_TYPES), events.type),
        "event_timestamp": _time(events.time),
        "ingested_at": _time(ingested),
        "source_seq": pa.array(source_seq),
        "session_id": _named(names.session, events.session),
        "category_id": _named(names.category, events.category),
        "price_minor": pa.array(events.price, mask=~priced),
        "currency": _named(pa.array(["EUR"]), np.where(priced, 0, -1)),
        "quantity": pa.array(np.ones(count, dtype=np.int64), mask=events.type != CODE["purchase"]),
        "campaign_id": pa.nulls(count, pa.string()),
        "device": _named(names.device, events.device),
        "channel": _named(names.channel, events.channel),
        "card_id": _named(names.card, events.card),
        "terminal_id": _named(names.terminal, events.terminal),
        "label_of": label_of,
        "label": _named(pa.array(["fraud"]), np.where(is_label, 0, -1)),
        "label_value": pa.array(np.ones(count, dtype=np.int64), mask=~is_label),
    }
    return pa.table([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)


def collect(parameters: ShopParameters, table: pa.Table, ingested: np.ndarray) -> Collected:
    """Add the dirt, cut at the end of the last day, order by file and arrival."""
    rng = parameters.rng("dirt")
    file_day = (ingested - parameters.start_us) // (DAY * MICROSECONDS)
    there = np.flatnonzero(file_day < parameters.days)
    tables, days, clean, kinds = [table.take(there)], [file_day[there]], [there], [""]
    kind_codes = [np.zeros(len(there), dtype=np.int64)]
    for name, rows, extra, moved in _dirt(parameters, table, ingested, there, rng):
        tables.append(extra)
        days.append(np.maximum(moved - parameters.start_us, 0) // (DAY * MICROSECONDS))
        clean.append(np.full(len(rows), -1))
        kind_codes.append(np.full(len(rows), len(kinds)))
        kinds.append(name)
    day, code, number = np.concatenate(days), np.concatenate(kind_codes), np.concatenate(clean)
    everything = pa.concat_tables(tables)
    arrived = everything["ingested_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((code, arrived, day))
    order = order[day[order] < parameters.days]
    planted = np.bincount(code[order], minlength=len(kinds))
    return Collected(
        table=everything.take(order),
        file_day=day[order],
        clean=number[order],
        planted={name: int(count) for name, count in zip(kinds[1:], planted[1:], strict=True)},
    )


def _dirt(
    parameters: ShopParameters, table: pa.Table, ingested: np.ndarray, there: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, np.ndarray, pa.Table, np.ndarray]]:
    """(kind, clean rows it was made from, its rows, microseconds that decide the file) of every kind of dirt."""
    event_type = table["event_type"].combine_chunks().dictionary_encode()
    names = event_type.dictionary.to_pylist()
    type_code = event_type.indices.to_numpy()[there]
    number = 0

    def draw(rate: float, *types: str) -> np.ndarray:
        pool = there if not types else there[np.isin(type_code, [names.index(name) for name in types if name in names])]
        if not len(pool):
            return pool
        return rng.choice(pool, min(rng.binomial(len(there), rate), len(pool)), replace=False)

    def own_ids(rows: np.ndarray) -> pa.Table:
        nonlocal number
        ids = _ids("x", number + np.arange(len(rows)), 8)
        number += len(rows)
        return _with(table.take(rows), event_id=ids)

    made = []
    rows = draw(parameters.duplicates)
    next_file = np.where(rng.random(len(rows)) < IN_NEXT_FILE, DAY * MICROSECONDS, 0)
    made.append(("exact_copy", rows, table.take(rows), ingested[rows] + next_file))
    rows = draw(parameters.redelivered)
    later = ingested[rows] + (rng.uniform(0.01, 36.0, len(rows)) * HOUR_US).astype(np.int64)
    made.append(("redelivered_copy", rows, _with(table.take(rows), ingested_at=_time(later)), later))
    rows = draw(parameters.conflicting, "view", "cart", "purchase", "payment")
    later = ingested[rows] + (rng.uniform(0.02, 12.0, len(rows)) * HOUR_US).astype(np.int64)
    extra = table.take(rows)
    extra = _with(extra, ingested_at=_time(later), price_minor=pc.add(extra["price_minor"], 100))
    made.append(("conflicting_copy", rows, extra, later))

    rows = draw(parameters.clock_errors)
    ahead = ingested[rows] + (np.exp(rng.uniform(np.log(310), np.log(30 * DAY), len(rows))) * MICROSECONDS).astype(
        np.int64
    )
    made.append(("ahead_of_arrival", rows, _with(own_ids(rows), event_timestamp=_time(ahead)), ingested[rows]))
    rows = draw(parameters.missing_ids)
    blank = pa.array([None if flip else "" for flip in rng.random(len(rows)) < IS_NULL], pa.string())
    made.append(("event_id_present", rows, _with(table.take(rows), event_id=blank), ingested[rows]))
    share = parameters.missing_fields / 4
    for rule, column, types in (
        ("user_id_present", "user_id", ("view", "search", "cart")),
        ("item_id_present", "item_id", ("view", "cart", "purchase")),
        ("event_type_present", "event_type", ()),
        ("payment_amount_present", "price_minor", ("payment",)),
    ):
        rows = draw(share, *types)
        nulls = pa.nulls(len(rows), table.schema.field(column).type)
        made.append((rule, rows, _with(own_ids(rows), **{column: nulls}), ingested[rows]))
    rows = draw(parameters.unknown_types)
    odd = pa.array(rng.choice(["wiew", "page_view", "ADD", "heartbeat", "test"], len(rows)), pa.string())
    made.append(("event_type_known", rows, _with(own_ids(rows), event_type=odd), ingested[rows]))
    rows = draw(parameters.negative_prices, "view", "cart", "purchase", "payment")
    extra = own_ids(rows)
    extra = _with(extra, price_minor=pc.negate(pc.add(extra["price_minor"], 1)))
    made.append(("price_minor_minimum", rows, extra, ingested[rows]))
    return made


def _delay(rng: np.random.Generator, count: int) -> np.ndarray:
    """How late what is late arrives, microseconds: mostly hours, some days, [count]."""
    hours = np.exp(rng.normal(np.log(3.0), 0.8, count))
    return np.where(rng.random(count) < HOURS_LATE, hours, rng.uniform(24.0, 96.0, count)) * HOUR_US


def _ids(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width=width, padding="0")
    return pc.binary_join_element_wise(pa.scalar(prefix), digits, "")


def _named(names: pa.Array, numbers: np.ndarray) -> pa.Array:
    return pc.take(names, pa.array(np.maximum(numbers, 0), mask=numbers < 0))


def _time(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _with(table: pa.Table, **columns: pa.Array) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


_SCHEMA = pa.schema([pa.field(field.name, field.type) for field in arrow_schema()])
