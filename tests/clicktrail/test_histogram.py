"""Histograms as inline SVG."""

from __future__ import annotations

import re

import pyarrow as pa

from clicktrail.distributions import distribution_of
from clicktrail.histogram import ends, histogram


def bars(picture: str) -> list[tuple[float, float]]:
    """(x, height) of each bar."""
    return [(float(x), float(high)) for x, high in re.findall(r'<rect x="([\d.]+)".*?height="([\d.]+)"', picture)]


def test_bars_are_as_high_as_their_share_of_the_highest() -> None:
    """33 units for the most frequent; what is rare is still seen, what is not there is not."""
    lies = distribution_of(pa.array([0] * 1000 + [19] * 500 + [38, None]))
    assert bars(histogram(lies)) == [(0, 33), (80, 16.5), (152, 1.5)]
    assert ends(lies) == ("0", "38")


def test_one_value_is_one_bar_in_the_middle() -> None:
    """Where all are the same there is no span to draw."""
    assert bars(histogram(distribution_of(pa.array([7, 7])))) == [(80, 33)]


def test_nothing_measured_is_nothing_drawn() -> None:
    """Texts and nulls have no histogram."""
    for column in (pa.array(["a"]), pa.array([None], pa.int64())):
        assert histogram(distribution_of(column)) == ""
        assert ends(distribution_of(column)) == ("", "")


def test_the_picture_says_its_numbers() -> None:
    """For who does not see it: lowest, highest and mean; a time as a time."""
    assert 'aria-label="from 0.25 to 1,234, mean 617.1"' in histogram(distribution_of(pa.array([0.25, 1234.0])))
    time = pa.array([1_772_359_200_000_000], pa.timestamp("us", tz="UTC"))
    assert "from 2026-03-01 10:00 to 2026-03-01 10:00" in histogram(distribution_of(time))
