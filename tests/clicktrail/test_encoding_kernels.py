"""The encoding's kernels against the same written for reading, over random specs and rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.encoding import Encoding
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows
from clicktrail.windows import pad
from tests.clicktrail import encoding_oracle as oracle

T = 1_700_000_000_000_000
MINUTE = 60_000_000
STRINGS, NUMBERS = ("kind", "shop", "device"), ("price", "size")
WORDS = [None, "a", "b", "c", "d"]
AMOUNTS = st.none() | st.integers(-3, 3) | st.integers(-(10**12), 10**12)


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


def sequence_specs(view: str) -> st.SearchStrategy[SequenceSpec]:
    flag = st.booleans()
    return st.builds(
        SequenceSpec,
        view=st.just(view),
        last=st.integers(1, 6),
        categories=some(STRINGS),
        numbers=some(NUMBERS),
        same=some(STRINGS),
        seen=some(STRINGS),
        age=flag,
        steps=flag,
        request=flag,
        visits=st.sampled_from([0, 0, 30]),
        rhythm=st.sampled_from([0, 0, 30]),
        rise=flag,
    ) | st.builds(  # encoded alike for all queries
        SequenceSpec,
        view=st.just(view),
        last=st.integers(1, 6),
        categories=some(STRINGS),
        numbers=some(NUMBERS),
        rhythm=st.sampled_from([0, 30]),
        rise=flag,
    )


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    return InputSpec(
        sequences=tuple(draw(sequence_specs(view)) for view in draw(st.sampled_from([(), ("one",), ("one", "two")]))),
        scalars=draw(some(("stats__count", "stats__total"))),
        rates=draw(some(("stats__rate", "stats__other"))),
        request_categories=draw(some(STRINGS)),
        request_numbers=draw(some(NUMBERS)),
    )


@st.composite
def sequences(draw: st.DrawFn, spec: SequenceSpec, rows: int) -> JaggedSequence:
    """A history, and windows anywhere in it."""
    pauses = draw(st.lists(st.sampled_from([0, 1, 40, 900, 1800, 1801, 100_000]), max_size=12))
    size = len(pauses)
    values: dict[str, np.ndarray] = {"event_timestamp": T + 1_000_000 * np.cumsum([0, *pauses])[:size]}
    dictionaries, nulls = {}, {}
    for field in spec.fields:
        if field in NUMBERS:
            drawn = draw(st.lists(AMOUNTS, min_size=size, max_size=size))
            values[field] = np.array([one or 0 for one in drawn], np.int64)
            if None in drawn:
                nulls[field] = np.array([one is None for one in drawn])
        elif field in STRINGS:
            dictionaries[field] = draw(st.permutations(["a", "b", "c"]))
            codes = draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size))
            values[field] = np.array(codes, np.int32)
    windows = [sorted(draw(st.tuples(*[st.integers(0, size)] * 2))) for _ in range(rows)]
    bounds = np.array(windows, np.int64).reshape(-1, 2)
    return JaggedSequence(values=values, dictionaries=dictionaries, nulls=nulls, starts=bounds[:, 0], ends=bounds[:, 1])


@st.composite
def rows_of(draw: st.DrawFn, spec: InputSpec) -> Rows:
    count = draw(st.integers(0, 5))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    def numbers(width: int) -> np.ndarray:
        drawn = [column(st.just(np.nan) | st.integers(0, 50)) for _ in range(width)]
        return np.array(drawn, np.float64).T

    return Rows(
        sequences={one.view: draw(sequences(one, count)) for one in spec.sequences},
        scalars={name: numbers(1)[:, 0] for name in spec.scalars} | {name: numbers(2) for name in spec.rates},
        request={name: column(AMOUNTS if name in NUMBERS else st.sampled_from(WORDS)) for name in spec.request_fields},
        t=T + MINUTE * np.array(column(st.integers(-60, 60 * 24 * 40)), np.int64),
    )


@st.composite
def fitted(draw: st.DrawFn) -> tuple[Encoding, Rows]:
    """An encoding, and rows that it was not fitted on."""
    spec = draw(specs())
    return Encoding.fit(spec, draw(rows_of(spec))), draw(rows_of(spec))


@settings(max_examples=200, deadline=None)
@given(fitted())
def test_arrays_are_what_a_loop_over_events_finds(given_: tuple[Encoding, Rows]) -> None:
    """Ids are equal to the last bit, numbers to a millionth, whatever the spec."""
    encoding, rows = given_
    found, wanted = encoding.encode(rows), oracle.encode(encoding, rows)
    assert list(found) == list(encoding.inputs()) == list(wanted)
    for name, array in found.items():
        assert (str(array.dtype), array.shape) == (encoding.inputs()[name][0], wanted[name].shape)
        np.testing.assert_allclose(array, wanted[name], atol=1e-6, rtol=1e-6 if "numbers" in name else 0)


@settings(max_examples=100, deadline=None)
@given(fitted())
def test_training_and_serving_see_the_same(given_: tuple[Encoding, Rows]) -> None:
    """Flat tokens cut into windows, as batches are made, are the arrays of `encode` to the bit."""
    encoding, rows = given_
    found = encoding.encode(rows)
    for one in encoding.spec.sequences:
        tokens = encoding.tokens(one.view, rows)
        assert (tokens.ids.dtype, tokens.numbers.dtype) == (np.int32, np.float32)
        assert (tokens.ends - tokens.starts).tolist() == found[f"{one.view}__length"].tolist()
        ids, numbers = pad(tokens, tokens.starts, tokens.ends, found[f"{one.view}__ids"].shape[1])
        np.testing.assert_array_equal(ids, found[f"{one.view}__ids"])
        np.testing.assert_array_equal(numbers, found[f"{one.view}__numbers"])
