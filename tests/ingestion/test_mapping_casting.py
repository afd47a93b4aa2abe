"""Values become the contract's types exactly, or are named as unreadable."""

from __future__ import annotations

import datetime as dt
import tomllib
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.casting import Cast, cast_events
from ingestion.mapping import parse_mapping
from ingestion.prepare import prepare
from ingestion.source import Source, kind_of
from validation.batch import BatchStoppedError

UTC = dt.UTC


def cast(columns: dict[str, Any], mapped: str, *, source: str = "", ingested: str = '{ assume = "0s" }') -> Cast:
    """Cast typed source columns by the lines of a mapping's [columns]; what is not said is constant."""
    lines = {
        "event_id": "event_id = { hash = [" + ", ".join(f'"{name}"' for name in columns) + "] }",
        "event_type": 'event_type = { constant = "view" }',
        "event_timestamp": 'event_timestamp = { column = "at", epoch = "s" }',
        "ingested_at": f"ingested_at = {ingested}",
    }
    table = pa.table(columns)
    if "event_timestamp" not in mapped and "at" not in columns:
        table = table.append_column("at", pa.array([1] * table.num_rows))
    said = "\n".join(line for name, line in lines.items() if f"{name} =" not in mapped)
    mapping = parse_mapping(
        tomllib.loads(f"[source]\n{source}\n[columns]\n{said}\n{mapped}"), name="shop", path=Path("shop.toml")
    )
    kinds = {name: kind_of(table[name]) for name in table.column_names}
    return cast_events(Source(table=table, rows=np.arange(1, table.num_rows + 1), kinds=kinds), mapping)


def failed(done: Cast) -> list[tuple[str, int, str]]:
    return [
        (one.rule, row, value)
        for one in done.failures
        for row, value in enumerate(one.values.to_pylist(), 1)
        if value is not None
    ]


MONEY = 'price_minor = { column = "price", minor_per_unit = 100 }'


@settings(max_examples=15, deadline=None)
@given(st.lists(st.decimals(-(10**9), 10**9, allow_nan=False, places=4), min_size=1, max_size=50))
def test_money_is_rounded_half_even_on_its_decimals(prices: list[Decimal]) -> None:
    """A decimal amount times 100, half to even, whether it is written as text, a decimal or a double."""
    expected = [int((price * 100).quantize(Decimal(1), ROUND_HALF_EVEN)) for price in prices]
    for column in (
        pa.array([str(price) for price in prices]),
        pa.array(prices, pa.decimal128(20, 4)),
        pa.array([float(price) for price in prices]),  # 13 digits: the shortest text of the double is the decimal
    ):
        assert cast({"price": column}, MONEY).table["price_minor"].to_pylist() == expected


def test_money_knows_no_float_dust() -> None:
    """57.16 x 100 is 5716, not 5715.999; 0.125 and 0.135 go to the even cent."""
    done = cast({"price": [57.16, 0.29, 1.1e2, 0.125, 0.135, 1e15]}, MONEY)
    assert done.table["price_minor"].to_pylist() == [5716, 29, 11000, 12, 14, 10**17]


@pytest.mark.parametrize("nonsense", ["abc", "1,50", "€5", "1_000", "0x10", "NaN", "inf", "1e99", "--5"])
def test_an_unreadable_price_is_a_failure_with_its_value(nonsense: str) -> None:
    """What is no amount is neither a crash nor a silent null; empty text is no value."""
    done = cast({"price": ["1.50", nonsense, "", None]}, MONEY)
    assert done.table["price_minor"].to_pylist() == [150, None, None, None]
    assert failed(done) == [("price_minor_readable", 2, nonsense)]
    assert done.readable["price_minor"] == [1, 2]


def test_words_for_missing_are_the_mappings_to_name() -> None:
    """`missing` texts become null, in every column."""
    done = cast({"price": ["NULL", "n/a"]}, MONEY, source='missing = ["NULL"]')
    assert failed(done) == [("price_minor_readable", 2, "n/a")]


def test_whole_numbers() -> None:
    """3.0 is the integer 3 (pandas makes it of 3 beside a null); 2.5 and what exceeds 64 bits are unreadable."""
    done = cast({"n": [3.0, 2.5, float("nan"), None]}, 'quantity = "n"')
    assert done.table["quantity"].to_pylist() == [3, None, None, None]
    assert failed(done) == [("quantity_readable", 2, "2.5"), ("quantity_readable", 3, "nan")]
    done = cast({"n": ["+3", "4.0", "2.5", "9223372036854775808", "1e2"]}, 'quantity = "n"')
    assert done.table["quantity"].to_pylist() == [3, 4, None, None, None]


def test_ids_are_strings_without_the_traces_of_floats() -> None:
    """An integer id is its digits, also where a null made floats of the column; a prefix goes before it."""
    assert cast({"u": [7, 8]}, 'user_id = "u"').table["user_id"].to_pylist() == ["7", "8"]
    done = cast({"u": [7.0, None, 2.5]}, 'user_id = { column = "u", prefix = "c" }')
    assert done.table["user_id"].to_pylist() == ["c7", None, "c2.5"]


def test_event_types_go_by_the_mappings_names() -> None:
    """A name that the mapping does not list is a failure with the original, even if the contract knows it."""
    done = cast(
        {"k": ["pv", "buy", "cart", None]}, 'event_type = { column = "k", values = { pv = "view", buy = "purchase" } }'
    )
    assert done.table["event_type"].to_pylist() == ["view", "purchase", None, None]
    assert failed(done) == [("event_type_mapped", 3, "cart")]


MOMENT = dt.datetime(2017, 11, 24, 17, 21, 10, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("epoch", "value"),
    [
        ("s", "1511544070.25"),
        ("s", 1511544070.25),
        ("ms", 1511544070250),
        ("us", 1511544070250000),
        ("ns", 1511544070250000999),
    ],
)
def test_epoch_times(epoch: str, value: str | float) -> None:
    """Seconds, milli-, micro- and nanoseconds since 1970, as numbers or text; beyond microseconds they are cut."""
    done = cast({"t": [value]}, f'event_timestamp = {{ column = "t", epoch = "{epoch}" }}')
    assert done.table["event_timestamp"].to_pylist() == [MOMENT]


def test_a_wrong_epoch_unit_is_unreadable_not_the_year_50000() -> None:
    """Milliseconds read as seconds, and negative times, are failures."""
    done = cast({"t": [1511544070250, -5]}, 'event_timestamp = { column = "t", epoch = "s" }')
    assert [row for _, row, _ in failed(done)] == [1, 2]


def test_times_without_an_offset_are_in_the_mappings_zone() -> None:
    """Beijing is eight hours ahead of UTC; an offset in the text wins; typed times are read alike."""
    naive = dt.datetime(2017, 11, 25, 1, 21, 10, 250_000)  # noqa: DTZ001 - that is the case
    text = [
        "2017-11-25 01:21:10.25",
        "2017-11-24T17:21:10.250Z",
        "2017-11-24 18:21:10.25+01:00",
        "yesterday",
        "infinity",
    ]
    zone = 'timezone = "Asia/Shanghai"'
    done = cast({"t": text}, 'event_timestamp = "t"', source=zone)
    assert done.table["event_timestamp"].to_pylist() == [MOMENT, MOMENT, MOMENT, None, None]
    assert [value for _, _, value in failed(done)] == ["yesterday", "infinity"]
    assert cast({"t": [naive, MOMENT.replace(tzinfo=None)]}, 'event_timestamp = "t"', source=zone).table[
        "event_timestamp"
    ].to_pylist() == [MOMENT, MOMENT - dt.timedelta(hours=8)]
    assert (
        cast({"t": pa.array([MOMENT])}, 'event_timestamp = "t"', source=zone).table["event_timestamp"][0].as_py()
        == MOMENT
    )


def test_times_of_another_format() -> None:
    """A strptime format reads what ISO 8601 does not."""
    done = cast(
        {"t": ["25.11.2017 01:21", "11/25/2017"]}, 'event_timestamp = { column = "t", format = "%d.%m.%Y %H:%M" }'
    )
    assert done.table["event_timestamp"].to_pylist() == [dt.datetime(2017, 11, 25, 1, 21, tzinfo=UTC), None]


@pytest.mark.parametrize(
    ("ingested", "arrived"),
    [
        ('{ assume = "0s" }', MOMENT),
        ('{ assume = "2m" }', MOMENT + dt.timedelta(minutes=2)),
        # 01:21 on the 25th in Beijing: known at the end of that day there, two hours later
        ('{ feed = "2h" }', dt.datetime(2017, 11, 25, 18, tzinfo=UTC)),
        ('{ feed = "5m", every = "1h" }', dt.datetime(2017, 11, 24, 18, 5, tzinfo=UTC)),
        ('{ stream = "got", epoch = "s" }', dt.datetime(2017, 11, 24, 17, 22, 10, tzinfo=UTC)),
    ],
)
def test_arrival_is_what_the_mapping_declares(ingested: str, arrived: dt.datetime) -> None:
    """Recorded, at the end of a feed's period plus its lag, or assumed: event time plus a lag."""
    done = cast(
        {"t": [MOMENT], "got": [1511544130]},
        'event_timestamp = "t"',
        source='timezone = "Asia/Shanghai"',
        ingested=ingested,
    )
    assert done.table["ingested_at"].to_pylist() == [arrived]


def test_ids_of_nameless_events_depend_on_content_alone() -> None:
    """The same content has the same id in any order, file or format; a second one in a file is another event."""
    columns = {"u": [1, 2, 1], "at": [5, 6, 5]}
    first = cast(columns, 'user_id = "u"').table["event_id"].to_pylist()
    turned = cast({name: [str(value) for value in values[::-1]] for name, values in columns.items()}, 'user_id = "u"')
    assert first[2] == f"{first[0]}-2"
    assert sorted(turned.table["event_id"].to_pylist()) == sorted(first)


def test_order_within_the_source_is_the_order_of_the_file() -> None:
    """Without a column for it, source_seq is the row number."""
    assert cast({"u": ["b", "a"]}, 'user_id = "u"').table["source_seq"].to_pylist() == [1, 2]


def test_constants_and_columns_that_nobody_sends() -> None:
    """A constant stands in every row; unmapped columns are null."""
    table = cast({"u": ["a", "b"]}, 'currency = { constant = "EUR" }\nquantity = { constant = 1 }').table
    assert table["currency"].to_pylist() == ["EUR", "EUR"]
    assert table["quantity"].to_pylist() == [1, 1]
    assert table["device"].null_count == 2


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([True], 'event_timestamp = "x"'),
        ([5], 'event_timestamp = "x"'),
        ([MOMENT], 'quantity = "x"'),
        ([["a"]], 'user_id = "x"'),
    ],
)
def test_a_column_of_another_kind_stops_the_batch(values: list[Any], line: str) -> None:
    """A column whose type cannot become the contract's is a bad batch, not a column of nulls."""
    with pytest.raises(BatchStoppedError) as error:
        cast({"x": values}, line)
    assert error.value.stops[0].rule == "type_changed"


def test_labels_become_events_that_are_known_later(tmp_path: Path) -> None:
    """A 1 becomes a label event known 7 days after; a 0 becomes nothing; a 2, or a bad row's 1, enters nowhere."""
    path = tmp_path / "tx.csv"
    path.write_text(
        "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n"
        "0,2018-04-01 00:00:31,596,3156,57.16,0\n"
        "1,2018-04-01 00:02:10,4961,3412,81.51,1\n"
        "2,2018-04-01 00:07:56,2,1365,146.00,2\n"
        "3,2018-04-01 00:09:29,4128,8737,abc,1\n"
    )
    from ingestion.mapping import load_mapping

    done = prepare(path, file="tx.csv", digest="d", mapping=load_mapping("fraud_handbook"))
    assert done.events["event_id"].to_pylist() == ["tx-0", "tx-1", "tx-1:fraud"]
    label = done.events.slice(2, 1).to_pylist()[0]
    known = dt.datetime(2018, 4, 8, 0, 2, 10, tzinfo=UTC)
    assert (label["event_timestamp"], label["ingested_at"]) == (known, known)
    assert (label["label_of"], label["label"], label["label_value"], label["user_id"]) == ("tx-1", "fraud", 1, None)
    assert done.rows.tolist() == [1, 2, 2]
    assert [(row["row"], row["rule"], row["value"]) for row in done.bad.to_pylist()] == [
        (3, "fraud_readable", "2"),
        (4, "price_minor_readable", "abc"),
    ]
    assert (done.facts.rows, done.facts.made, done.facts.bad_rows) == (4, 1, 2)


@pytest.mark.slow
def test_real_sets_are_read_to_the_last_row(data: Path) -> None:
    """Taobao and the Handbook enter without a rejected row; money and labels are all there."""
    from ingestion.mapping import load_mapping

    done = prepare(data / "taobao/events.parquet", file="e", digest="d", mapping=load_mapping("taobao"))
    assert done.facts.types == {"cart": 4_497, "favorite": 2_356, "purchase": 1_750, "view": 75_872}
    assert (done.facts.rows, done.bad.num_rows, len(set(done.events["event_id"].to_pylist()))) == (84_475, 0, 84_475)
    done = prepare(
        data / "fraud_handbook/transactions.parquet", file="t", digest="d", mapping=load_mapping("fraud_handbook")
    )
    assert (done.facts.rows, done.facts.made, done.bad.num_rows) == (1_754_155, 14_681, 0)
    assert done.events.num_rows == 1_754_155 + 14_681
