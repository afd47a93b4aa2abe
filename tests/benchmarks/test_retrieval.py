"""The retrieval benchmark runs at a small size and ends with one JSON object."""

from __future__ import annotations

import json

import pytest

from benchmarks.retrieval import main


def test_small_sizes_give_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Exact and by index: times at each depth, of a filter, of diversity and of many users; what the index finds."""
    main(["--exact", "2000", "--approximate", "4000"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"threads", "exact_2000", "approximate_4000"}
    assert all(value > 0 for name, value in figures["exact_2000"].items() if name.endswith("_ms"))
    assert figures["approximate_4000"]["recall@10"] >= figures["approximate_4000"]["recall@100"] - 0.01 >= 0.94
