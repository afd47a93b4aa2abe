"""The preview's text: both doors side by side."""

from __future__ import annotations

from clicktrail.preview import render


def test_same_means_the_whole_list() -> None:
    """Lists that differ where they are not shown, before the newest five, are not called the same."""
    newest = [1, 2, 3, 4, 5]
    lines = render([("a", [0, *newest], [9, *newest]), ("b", newest, newest), ("c", None, None)], 0, 0).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["(6)", "same", "same"]
