"""Mapping files: what they say, and how a mistake in one is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ingestion.mapping import Mapping, load_mapping, parse_duration, parse_mapping, shipped

PATH = Path("shop.toml")
GOOD = """
[columns]
event_id = "id"
user_id = "user"
event_type = { column = "kind", values = { pv = "view" } }
event_timestamp = { column = "at", epoch = "s" }
ingested_at = { assume = "1s" }
"""


def parse(text: str) -> Mapping:
    return parse_mapping(tomllib.loads(text), name="shop", path=PATH)


@pytest.mark.parametrize("name", ["demo_shop", "fraud_handbook", "taobao"])
def test_shipped_mappings_are_known_by_name(name: str) -> None:
    """A shipped mapping is loaded by its bare name."""
    assert name in shipped()
    assert load_mapping(name).name == name


def test_required_columns_are_those_that_the_mapping_names() -> None:
    """A file must have every mapped column that is not optional, those of the id's hash and of labels too."""
    mapping = parse(GOOD.replace('event_id = "id"', 'event_id = { hash = ["user", "at"] }'))
    assert set(mapping.required) == {"user", "kind", "at"}
    assert parse(GOOD + 'device = { column = "agent", optional = true }').optional == ("agent",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[columns]", "[colums]", ["shop.toml: colums", "did you mean columns?"]),
        ('user_id = "user"', 'usr_id = "user"', ["columns.usr_id", "did you mean user_id?"]),
        ('epoch = "s"', 'epoch = "min"', ["columns.event_timestamp.epoch", "use s, ms, us or ns"]),
        ('pv = "view"', 'pv = "pageview"', ["columns.event_type.values", "'pageview'", "view, click"]),
        ('{ assume = "1s" }', '{ assume = "1 week" }', ["columns.ingested_at.assume", "for example 7d"]),
        ('{ assume = "1s" }', '"arrived"', ["columns.ingested_at", "say what it means"]),
        ('event_id = "id"', "", ["columns.event_id", "hash ="]),
        ('user_id = "user"', 'user_id = { column = "u", constant = "x" }', ["columns.user_id", "either"]),
        ('user_id = "user"', 'quantity = { constant = "many" }', ["columns.quantity.constant", "'many'"]),
        ('user_id = "user"', 'price_minor = { column = "p", minor_per_unit = 0 }', ["minor_per_unit", "100"]),
        ("[columns]", '[source]\ntimezone = "Bejing"\n[columns]', ["source.timezone", "'Bejing'"]),
        ("[columns]", '[source]\nnever_read = ["user"]\n[columns]', ["source.never_read", "user"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(old: str, new: str, words: list[str]) -> None:
    """Whoever writes a mapping is told the file, the key, and what would be right."""
    with pytest.raises(ValueError, match=r"shop\.toml") as error:
        parse(GOOD.replace(old, new))
    assert all(word in str(error.value) for word in words), error.value


def test_an_unknown_reader_is_answered_with_the_known_ones() -> None:
    """A misspelt reader names the shipped ones and the nearest."""
    with pytest.raises(ValueError, match="did you mean taobao"):
        load_mapping("taobo")


def test_a_mapping_of_ones_own_is_a_path(tmp_path: Path) -> None:
    """Any TOML file is a reader; two of the same name are told apart in the history."""
    paths = [tmp_path / folder / "shop.toml" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(GOOD)
    first, second = (load_mapping(str(path)).name for path in paths)
    assert first != second


def test_durations_are_microseconds() -> None:
    """`7d` is seven days of microseconds, `0s` is nothing."""
    assert parse_duration("7d") == 7 * 24 * 60 * 60 * 1_000_000
    assert parse_duration("90 ms") == 90 * 1_000
    assert parse_duration("0s") == 0
