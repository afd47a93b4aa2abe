"""Requests: taken strictly, refused by field and rule."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.endpoints import ENDPOINTS, MAX_K, RECOMMEND, SCORE_PAYMENT
from serving.openapi import openapi
from serving.schema import LARGEST_INTEGER, Field, InvalidRequestError, parse

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD: dict[str, Any] = {
    "event_id": "e",
    "user_id": "u",
    "card_id": None,
    "terminal_id": "t",
    "price_minor": 100,
}


def problems(body: bytes, fields: tuple[Field, ...]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body, fields)
    return [(one.field, one.rule) for one in caught.value.problems]


def allowed(field: Field, value: Any) -> bool:  # noqa: ANN401
    """The naive rule of a field, times aside."""
    if value is None:
        return field.nullable
    if field.kind == "text":
        encodable = isinstance(value, str) and not any(0xD800 <= ord(one) <= 0xDFFF for one in value)
        return encodable and 1 <= len(value) <= 256 and "\0" not in value
    if field.kind == "boolean":
        return value is True or value is False
    return type(value) is int and field.minimum <= value <= field.maximum


@given(
    name=st.sampled_from([one.name for one in SCORE_PAYMENT if one.kind in ("text", "integer", "boolean")]),
    value=JSON_VALUES,
)
def test_each_field_takes_its_own_type_alone(name: str, value: Any) -> None:  # noqa: ANN401
    """Whatever JSON stands in a field, it is taken as it is or refused by the name of that field."""
    field = next(one for one in SCORE_PAYMENT if one.name == name)
    body = json.dumps({**GOOD, name: value}).encode()
    if allowed(field, value):
        assert parse(body, SCORE_PAYMENT)[name] == value
    else:
        assert {found for found, _ in problems(body, SCORE_PAYMENT)} == {name}


def test_what_stands_in_a_list_is_named_by_its_place() -> None:
    """An entry that breaks a rule is found by its place, and its field behind that."""
    event = {"event_id": "e2", "event_type": "payment", "event_timestamp": "2026-03-31T12:00:00Z"}
    body = json.dumps({**GOOD, "recent_events": [event, None, {**event, "price_minor": "12"}]}).encode()
    assert problems(body, SCORE_PAYMENT) == [
        ("recent_events[1]", "object"),
        ("recent_events[2].price_minor", "integer"),
    ]


@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(body: bytes) -> None:
    """No body raises anything but a refusal."""
    with contextlib.suppress(InvalidRequestError):
        assert parse(body, RECOMMEND).keys() == {field.name for field in RECOMMEND}


@given(k=st.integers())
def test_k_has_a_range(k: int) -> None:
    """The range of k is 1 to MAX_K."""
    body = json.dumps({"user_id": "u", "k": k}).encode()
    if 1 <= k <= MAX_K:
        assert parse(body, RECOMMEND)["k"] == k
    else:
        assert [field for field, _ in problems(body, RECOMMEND)] == ["k"]


def test_all_problems_are_told_at_once() -> None:
    """A request with several mistakes gets all of them named."""
    body = json.dumps({"k": "ten", "exclude_seen": 1, "limit": 3}).encode()
    assert set(problems(body, RECOMMEND)) == {
        ("k", "integer"),
        ("exclude_seen", "boolean"),
        ("limit", "unknown"),
    }


def test_a_key_given_twice_is_refused() -> None:
    """Of two values under one key neither is guessed to be the right one."""
    assert problems(b'{"user_id": "u", "user_id": "v"}', RECOMMEND) == [("user_id", "once")]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e3", "1e999", "9" * 5000, "100.0"])
def test_what_is_no_integer_is_refused_by_field(number: str) -> None:
    """NaN, Infinity, exponents and integers of thousands of digits are refused, and the field is named."""
    body = json.dumps(GOOD).replace("100", number).encode()
    assert [field for field, _ in problems(body, SCORE_PAYMENT)] == ["price_minor"]


def test_times_become_microseconds() -> None:
    """A payment's time needs its offset and becomes microseconds UTC, exactly."""
    body = json.dumps({**GOOD, "event_timestamp": "1970-01-02T02:00:00.000007+01:00"}).encode()
    assert parse(body, SCORE_PAYMENT)["event_timestamp"] == (86_400 + 3_600) * 1_000_000 + 7
    for wrong in ("1970-01-02", "1970-01-02T00:00:00", "1960-01-01T00:00:00Z", 5, "0001-01-01T00:00:00+14:00"):
        body = json.dumps({**GOOD, "event_timestamp": wrong}).encode()
        assert problems(body, SCORE_PAYMENT) == [("event_timestamp", "time")]


def test_nesting_without_end_is_refused() -> None:
    """A body nested deeper than Python can follow is a bad request, no crash."""
    assert problems(b"[" * 100_000, RECOMMEND) == [("", "json")]


@pytest.mark.parametrize("task", ENDPOINTS)
def test_the_description_follows_the_table(task: str) -> None:
    """OpenAPI lists the same fields, required ones and limits by which requests are validated."""
    fields = ENDPOINTS[task].fields
    post = openapi(task)["paths"][ENDPOINTS[task].path]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]) == [field.name for field in fields]
    assert schema["required"] == [field.name for field in fields if field.required]
    assert schema["additionalProperties"] is False
    if task == "fraud":
        assert schema["properties"]["price_minor"]["maximum"] == LARGEST_INTEGER
        assert schema["properties"]["card_id"]["type"] == ["string", "null"]
