"""What a bundle says of where it comes from: a record that does not add up is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.manifest import RECEIPT, Manifest, RefusedError
from serving.proofs import check_lineage, check_receipt


def of(root: Path, *, offset: int = 10, validated: list[tuple[int, int, str]] | None = None) -> Manifest:
    """A manifest that says no more than is checked here."""
    stretches = [(0, 4, "gate:1"), (4, 10, "rules:2")] if validated is None else validated
    keys = ("start", "stop", "by")
    return Manifest(
        root=root,
        content={
            "name": "clicktrail-fraud",
            "version": "d",
            "fingerprints": {"card_v1": "f"},
            "lineage": {
                "log_offset": offset,
                "validated": [dict(zip(keys, one, strict=True)) for one in stretches],
            },
        },
    )


def write_receipt(root: Path, view: dict[str, Any] | None, reason: str = "") -> None:
    (root / RECEIPT).parent.mkdir(parents=True, exist_ok=True)
    (root / RECEIPT).write_text(json.dumps({"views": {"card_v1": view} if view else None, "reason": reason}))


VIEW: dict[str, Any] = {
    "fingerprint": "f",
    "offset": 10,
    "reads": 40,
    "differing": 1,
    "budget": 0.05,
    "over_budget": False,
    "features": {
        "count": {"reads": 40, "equal": 39, "missing": 1, "extra": 0},
        "total": {"reads": 40, "equal": 40, "missing": 0, "extra": 0},
    },
}


def test_says_what_validated_the_rows(tmp_path: Path) -> None:
    """The line names every gate that let rows in."""
    assert check_lineage(of(tmp_path)) == (
        "all 10 rows of the log that it learned from were validated (gate:1, rules:2)"
    )


@pytest.mark.parametrize(
    "validated", [[(0, 4, "gate:1"), (4, 10, "")], [(0, 4, "gate:1"), (5, 10, "gate:1")], [(0, 4, "gate:1")], []]
)
def test_rows_that_nothing_validated_are_refused(tmp_path: Path, validated: list[tuple[int, int, str]]) -> None:
    """A stretch without a gate, a hole, an end too early, no record at all."""
    with pytest.raises(RefusedError, match=r"learned from (rows 4 to|10 rows)"):
        check_lineage(of(tmp_path, validated=validated))


def test_says_how_reads_fared(tmp_path: Path) -> None:
    """Reads are counted; where there was no state the line says so."""
    write_receipt(tmp_path, VIEW)
    assert check_receipt(of(tmp_path)) == "40 reads of 1 views at offset 10, 1 differed"
    write_receipt(tmp_path, None, "there was no online state where it was built")
    assert check_receipt(of(tmp_path)) == "none: there was no online state where it was built"


def test_skew_over_the_budget_is_refused(tmp_path: Path) -> None:
    """The view, its features that differ and the way out are named."""
    write_receipt(tmp_path, VIEW | {"differing": 3, "over_budget": True})
    with pytest.raises(
        RefusedError, match=r"of 40 online reads of card_v1, 3 differ .*5\.00% may: count in 1 \(1 miss"
    ):
        check_receipt(of(tmp_path))


def test_a_receipt_of_another_declaration_is_refused(tmp_path: Path) -> None:
    """It must speak of the views as the bundle declares them."""
    write_receipt(tmp_path, VIEW | {"fingerprint": "g"})
    with pytest.raises(RefusedError, match="of another declaration of card_v1"):
        check_receipt(of(tmp_path))
