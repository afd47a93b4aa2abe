"""Encoding: what training and serving share between features and a model's arrays."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.encoding import FIRST, PAD, UNKNOWN, Encoding
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.kernels.encode_numbers import RATE_STRENGTH, hour_and_weekday, smoothed_rate, time_bucket
from clicktrail.rows import rows_of_lists
from clicktrail.scales import Scale
from clicktrail.windows import jagged_of_lists, window_positions

SECOND = 1_000_000
T = 1_700_000_000 * SECOND

SPEC = InputSpec(
    sequences=(
        SequenceSpec(
            view="card",
            last=3,
            categories=("kind",),
            numbers=("price_minor",),
            same=("shop",),
            seen=("shop",),
            age=True,
        ),
    ),
    scalars=("stats__count",),
    rates=("stats__rate",),
    request_categories=("kind",),
    request_numbers=("price_minor",),
)


def features(
    rows: list[dict[str, list[Any]]], counts: list[int | None], rates: list[list[int] | None]
) -> dict[str, Any]:
    fields = ("kind", "price_minor", "shop", "event_timestamp")
    card = {field: [row[field] for row in rows] for field in fields}
    return {"card": card, "stats": {"count": counts, "rate": rates}}


ROW = {
    "kind": ["a", "b", None, "a"],
    "price_minor": [100, None, 300, 400],
    "shop": ["s1", "s2", "s2", "s1"],
    "event_timestamp": [T - 40 * SECOND, T - 30 * SECOND, T - 20 * SECOND, T - 10 * SECOND],
}
EMPTY: dict[str, list[Any]] = {field: [] for field in ROW}
REQUEST = {"kind": ["a", "zzz"], "price_minor": [400, None], "shop": ["s1", "s9"]}


def fitted() -> Encoding:
    given_features = features([ROW, EMPTY], [3, None], [[1, 10], None])
    return Encoding.fit(SPEC, rows_of_lists(SPEC, given_features, REQUEST, np.array([T, T])))


def encoded() -> dict[str, np.ndarray]:
    given_features = features([ROW, EMPTY], [3, None], [[1, 10], None])
    return fitted().encode_lists(given_features, REQUEST, np.array([T, T]))


def test_last_events_alone() -> None:
    """A sequence is cut to its last events, padded to the right, and its length says how many there are."""
    out = encoded()
    assert out["card__ids"].shape == (2, 3, len(SPEC.sequences[0].id_columns))
    assert out["card__length"].tolist() == [3, 0]
    assert not out["card__ids"][1].any()


def test_vocabulary_codes() -> None:
    """Null is PAD, a value that training had not seen is UNKNOWN, the most frequent known value comes first."""
    encoding = fitted()
    assert encoding.codes("kind", [None, "never", "a"]).tolist() == [PAD, UNKNOWN, FIRST]
    assert encoded()["card__ids"][0, :, 0].tolist() == [encoding.codes("kind", ["b"])[0], PAD, FIRST]


def test_same_and_seen_flags() -> None:
    """`same` compares with the request, `seen` looks back in the window; neither needs a vocabulary of ids."""
    columns = SPEC.sequences[0].number_columns
    numbers = encoded()["card__numbers"][0]
    assert numbers[:, columns.index("same_shop")].tolist() == [0, 0, 1]  # s2, s2, s1 against s1
    assert numbers[:, columns.index("seen_shop")].tolist() == [0, 1, 0]  # s1 lies before the window


def test_first_gap_is_null() -> None:
    """The gap of a window's first event is null wherever the window was cut."""
    ids = encoded()["card__ids"][0]
    assert ids[:, -1].tolist() == [PAD, time_bucket(10.0), time_bucket(10.0)]


def test_nulls_are_flagged() -> None:
    """A null value of the request is 0 with its flag set; a known one has no flag."""
    place, count = SPEC.value_columns.index("stats__count"), len(SPEC.value_columns)
    numbers = encoded()["request_numbers"]
    assert numbers[:, count + place].tolist() == [0, 1]
    assert numbers[1, place] == 0


def test_inputs_describe_arrays() -> None:
    """`inputs` names every array that `encode` gives, with its type and the sizes that are not free."""
    out = encoded()
    described = fitted().inputs()
    assert list(described) == list(out)
    for name, (dtype, shape) in described.items():
        assert out[name].dtype == dtype
        assert all(have == want for have, want in zip(out[name].shape, shape, strict=True) if isinstance(want, int))


def test_state_survives_json() -> None:
    """An encoding read back from JSON gives the same arrays to the bit."""
    encoding = fitted()
    again = Encoding.from_json(json.loads(json.dumps(encoding.to_json())))
    given_features = features([ROW, EMPTY], [3, None], [[1, 10], None])
    for name, array in again.encode_lists(given_features, REQUEST, np.array([T, T])).items():
        np.testing.assert_array_equal(array, encoded()[name])


def test_arrow_and_lists_agree() -> None:
    """Arrow columns, as the online reader gives them, are encoded like Python lists."""
    stamps = pa.array([ROW["event_timestamp"], []], pa.list_(pa.timestamp("us", tz="UTC")))
    card = {field: pa.array([ROW[field], []]) for field in ("kind", "price_minor", "shop")}
    stats = {"count": pa.array([3, None]), "rate": pa.array([[1, 10], None], pa.list_(pa.int64()))}
    out = fitted().encode_lists({"card": card | {"event_timestamp": stamps}, "stats": stats}, REQUEST, np.array([T, T]))
    for name, array in encoded().items():
        np.testing.assert_array_equal(out[name], array)


def test_missing_feature_is_named() -> None:
    """A feature that a caller left out is an error that names it, not a silent null."""
    with pytest.raises(ValueError, match="card:price_minor"):
        fitted().encode_lists({"card": {"kind": [[]]}, "stats": {}}, REQUEST, np.array([T]))
    whole = features([ROW, EMPTY], [3, None], [[1, 10], None])
    with pytest.raises(ValueError, match="shop"):
        fitted().encode_lists(whole, {"kind": ["a", "a"], "price_minor": [1, 1]}, np.array([T, T]))


def test_fit_sees_visible_events_alone() -> None:
    """Events that no training row sees add nothing to the vocabulary."""
    sequence = jagged_of_lists({field: [ROW[field]] for field in ROW})
    rows = rows_of_lists(
        SPEC, features([ROW], [1], [[0, 1]]), {name: one[:1] for name, one in REQUEST.items()}, np.array([T])
    )
    early = type(sequence)(
        values=sequence.values,
        dictionaries=sequence.dictionaries,
        nulls=sequence.nulls,
        starts=sequence.starts,
        ends=sequence.ends - 3,
    )
    cut = type(rows)(sequences={"card": early}, scalars=rows.scalars, request=rows.request | {"kind": [None]}, t=rows.t)
    assert Encoding.fit(SPEC, cut).vocabularies["kind"] == ("a",)


def test_smoothed_rate() -> None:
    """A label rate that rests on nothing is the overall rate; on much, its own."""
    assert smoothed_rate(0.0, 0.0, 0.1) == pytest.approx(0.1)
    assert smoothed_rate(3.0, 80.0, 0.1) == pytest.approx((3 + RATE_STRENGTH * 0.1) / (80 + RATE_STRENGTH))


def test_hour_and_weekday() -> None:
    """Hour and weekday agree with the calendar: 1 is midnight, 1 is Monday."""
    moments = [
        datetime(2026, 11, 23, 20, 46, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, tzinfo=UTC),
    ]
    for moment in moments:
        found = hour_and_weekday(int(moment.timestamp()) * SECOND)
        assert found == (1 + moment.hour, moment.isoweekday())


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8))
def test_window_positions_against_slices(bounds: list[tuple[int, int]]) -> None:
    """Flat positions of windows are the slices one after the other."""
    starts = np.array([min(pair) for pair in bounds], np.int64)
    ends = np.array([max(pair) for pair in bounds], np.int64)
    naive = [place for start, end in zip(starts, ends, strict=True) for place in range(start, end)]
    assert window_positions(starts, ends).tolist() == naive


def test_events_of_a_visit_become_one() -> None:
    """With `visits` a window has one token a visit: its last event, how many there were, the time between visits."""
    one = SequenceSpec(view="card", last=9, categories=("kind",), visits=30)
    spec = InputSpec(sequences=(one,))
    minutes = [0, 10, 20, 120, 125]
    view = {"kind": [["a", "b", "c", "a", "b"]], "event_timestamp": [[T + minute * 60 * SECOND for minute in minutes]]}
    rows = rows_of_lists(spec, {"card": view}, {}, np.array([T + 200 * 60 * SECOND]))
    encoding = Encoding.fit(spec, rows)
    tokens = encoding.tokens("card", rows)
    assert tokens.ids[:, 0].tolist() == encoding.codes("kind", ["c", "b"]).tolist()
    assert tokens.ids[:, one.id_columns.index("kind_before")].tolist() == encoding.codes("kind", ["b", "a"]).tolist()
    assert tokens.numbers[:, one.number_columns.index("events")].tolist() == pytest.approx(
        [math.log(3) / 2, math.log(2) / 2]
    )
    assert tokens.ids[1, -1] == time_bucket(120 * 60.0)


def test_the_request_can_be_the_last_event() -> None:
    """With `request` the payment being scored follows the card's payments, with its own gap, step and novelty."""
    one = SequenceSpec(view="card", last=9, numbers=("price_minor",), seen=("shop",), steps=True, request=True)
    spec = InputSpec(sequences=(one,))
    view = {"price_minor": [[99]], "shop": [["s1"]], "event_timestamp": [[T]]}
    request = {"price_minor": [199], "shop": ["s2"]}
    rows = rows_of_lists(spec, {"card": view}, request, np.array([T + 60 * SECOND]))
    tokens = Encoding.fit(spec, rows).tokens("card", rows)
    assert (tokens.ends - tokens.starts).tolist() == [2]
    assert tokens.numbers[1, one.number_columns.index("price_minor_step")] == pytest.approx(math.log(200 / 100))
    assert tokens.numbers[1, one.number_columns.index("seen_shop")] == 0
    assert tokens.ids[1, -1] == time_bucket(60.0)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.floats(-1e12, 1e12))
def test_scale_is_bounded_and_buckets_rise(values: list[float], other: float) -> None:
    """A scaled value stays within bounds whatever comes, and a larger value never has a smaller bucket."""
    scale = Scale.fit(np.array(values))
    assert abs(scale(np.array([other]))[0]) <= 6
    low, high = scale.bucket(np.array([min(values[0], other), max(values[0], other)]))
    assert 1 <= low <= high <= len(scale.edges) + 1
