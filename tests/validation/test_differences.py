"""What parity calls equal, missing and extra, and how far apart two lists are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.differences import compare, edit_distance, first_difference

LETTERS = st.lists(st.sampled_from("abc"), max_size=7)


def slow_distance(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))


@given(a=LETTERS, b=LETTERS)
def test_edit_distance_is_levenshteins(a: list[str], b: list[str]) -> None:
    """What is cut off at both ends changes nothing."""
    assert edit_distance(a, b) == slow_distance(a, b)


@pytest.mark.parametrize(("a", "b", "first"), [("ab", "ab", 2), ("ab", "abc", 2), ("xb", "ab", 0), ("", "a", 0)])
def test_first_difference(a: str, b: str, first: int) -> None:
    """A list that begins the other one differs where it ends."""
    assert first_difference(a, b) == first


def test_numbers() -> None:
    """A null equals a null and nothing else, nan equals nan, and the last bit of a float counts."""
    online = pa.array([1.0, None, None, 2.0, float("nan"), 0.1 + 0.2])
    offline = pa.array([1.0, None, 1.0, None, float("nan"), 0.3])
    found = compare(online, offline)
    assert found.differs.tolist() == [False, False, True, True, False, True]
    assert found.missing.tolist() == [False, False, True, False, False, False]
    assert found.extra.tolist() == [False, False, False, True, False, False]


def test_a_zero_of_nobody_is_missing() -> None:
    """Where online there was no state of an entity that the log knows, its count of nothing is no count."""
    found = compare(pa.array([0, 0, 0]), pa.array([3, 3, 0]), absent=np.array([True, False, True]))
    assert found.differs.tolist() == [True, True, False]
    assert found.missing.tolist() == [True, False, False]


def test_lists() -> None:
    """Lists of strings, dictionary-encoded or not, nulls inside and empty ones among them."""
    online = pa.array([["a", "b"], [], ["a"], ["a", None], ["b"], None, ["a", "b"]], pa.list_(pa.string()))
    offline = pa.array([["a", "b"], ["a"], [], ["a", None], ["b", "c"], None, ["a", None]], pa.large_list(pa.string()))
    coded = pa.LargeListArray.from_arrays(offline.offsets, offline.values.dictionary_encode(), mask=offline.is_null())
    for other in (offline, coded):
        found = compare(online, other)
        assert found.differs.tolist() == [False, True, True, False, True, False, True]
        assert found.missing.tolist() == [False, True, False, False, False, False, False]
        assert found.extra.tolist() == [False, False, True, False, False, False, False]
        assert found.edits.tolist() == [1, 1, 1, 1]
        assert found.first.tolist() == [0, 0, 1, 1]


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.lists(st.none() | st.integers(0, 2), max_size=3),
            st.none() | st.lists(st.none() | st.integers(0, 2), max_size=3),
        )
    )
)
def test_lists_are_equal_as_python_says(rows: list[tuple[list[int | None] | None, list[int | None] | None]]) -> None:
    """Column by column and row by row give the same."""
    online, offline = (pa.array([row[side] for row in rows], pa.list_(pa.int64())) for side in (0, 1))
    assert compare(online, offline).differs.tolist() == [a != b for a, b in rows]
