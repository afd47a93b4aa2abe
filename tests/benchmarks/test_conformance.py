"""The conformance kit: ours is right, stock Feast is wrong where its page says so, and the page is up to date."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conformance.counts import Count, Result
from benchmarks.conformance.groups import GROUPS, OTHER, group_of
from benchmarks.conformance.page import BEGIN, END, OURS, PAGE, PER_CHANGE, STOCK, chosen, figures, tables, write
from tests import oracles
from tests.worlds import START

FEATURES: list[dict[str, Any]] = [
    {"name": "last2_items", "kind": "sequence", "field": "item_id", "last": 2},
    {"name": "views_1h", "kind": "count", "events": ["view"], "window_s": 3600, "hop_s": 0},
    {"name": "spent_1d_hop_1h", "kind": "sum", "field": "price_minor", "window_s": 86400, "hop_s": 3600},
    {"name": "since", "kind": "seconds_since_last"},
    {
        "name": "risk",
        "kind": "label_rate",
        "label": "fraud",
        "events": ["view"],
        "entity": "terminal_id",
        "window_s": 3600,
        "delay_s": 60,
    },
]
CASES: dict[str, tuple[list[tuple[int, int]], list[int]]] = {
    # seconds at which a view happened and arrived; seconds of the reads
    "strictly before": ([(10, 10), (20, 20)], [20, 21]),
    "late event": ([(10, 100), (20, 20)], [50, 101]),
    "expiry without an event": ([(0, 0), (1800, 1800)], [1801, 3601, 9000]),
    "read in the past": ([(10, 10), (20, 90)], [95, 30]),
    "unknown user": ([], [10]),
}


def write_few(path: Path) -> None:
    cases = []
    for name, (events, times) in CASES.items():
        rows = [
            {
                "event_id": f"e{number}",
                "user_id": "u",
                "item_id": f"i{number}",
                "event_type": "view",
                "event_timestamp": START + happened,
                "ingested_at": START + arrived,
                "source_seq": number,
                "price_minor": 100,
                "terminal_id": "T",
            }
            for number, (happened, arrived) in enumerate(events)
        ]
        labels = [{"event_id": "e0", "label": "fraud", "value": 1, "known_at": START + 25}] if rows else []
        reads: list[dict[str, Any]] = [{"user_id": "u", "terminal_id": "T", "t": START + t} for t in times]
        for read in reads:
            read["expect"] = {
                one["name"]: oracles.value(one, rows, labels, read[one.get("entity") or "user_id"], read["t"])
                for one in FEATURES
            }
        cases.append({"name": name, "events": rows, "labels": labels, "reads": reads})
    path.write_text(json.dumps({"features": FEATURES, "cases": cases}))


@pytest.mark.slow
@pytest.mark.xdist_group("feast")
def test_ours_is_right_where_stock_feast_goes_stale(tmp_path: Path) -> None:
    """Few cases through all stores: ours without a wrong value, a row per event stale, a row per change right."""
    from benchmarks.conformance.__main__ import run

    write_few(tmp_path / "cases.json")
    results = run(tmp_path / "cases.json")
    found = figures(results)
    reads = sum(len(times) for _, times in CASES.values())
    assert {one["reads"] for one in found.values()} == {reads}
    assert {one["values"] for one in found.values()} == {reads * len(FEATURES)}
    for name, one in found.items():
        online = name.endswith(("sqlite", "redis"))
        assert one["inexpressible"] == (len(FEATURES) if online else 0)  # the second read in the past, all features
        assert (one["mismatches"] == 0) == name.startswith("clicktrail"), name
    by_way = {(one.store, one.build): one for one in results}
    for store in ("Feast DuckDB", "Feast SQLite", "Feast Redis"):
        assert by_way[store, PER_CHANGE].total().mismatches == 0
        known = by_way[store, "row per event, when known"].groups
        assert known["late arrival"].mismatches == known["unknown entity"].mismatches == 0
        assert known["windows that slide"].mismatches > 0
        # stamped with its own time, the row of the event at t is what a read at t finds
        assert by_way[store, "row per event, at event time"].groups["strictly before"].mismatches > 0


def test_every_worked_case_is_about_a_rule(time_cases: Path) -> None:
    """No case falls among the others, and no rule of the table is without a case."""
    cases = json.loads(time_cases.read_text())["cases"]
    assert {group_of(case) for case in cases} == set(GROUPS)
    assert group_of({"name": "world 7"}) == OTHER


def test_the_page_shows_every_rule_and_store() -> None:
    """What `--write-docs` left in the page has the rules and stores of today, in their order, and ours without red."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()]
    table = [row for row in rows if len(row) == 2 + len(OURS) + len(STOCK)]
    assert table[0] == ["rule", "values", *OURS, *STOCK]
    assert [row[0] for row in table[2:]] == [*GROUPS, "all"]
    assert not any("🔴" in cell for row in table[2:] for cell in row[2 : 2 + len(OURS)])


def result(store: str, build: str, mismatches: int) -> Result:
    count = Count(reads=2, values=10, mismatches=mismatches, example="late event: views is 2, not 1")
    return Result(store=store, build=build, rows=7 if build else 0, groups={"late arrival": count})


RESULTS = [
    *(result(store, "", 0) for store in OURS),
    *(result(store, "plain", 4) for store in STOCK),
    *(result(store, "careful", 3) for store in STOCK),
    *(result(store, PER_CHANGE, 0) for store in STOCK),
]


def test_a_store_is_shown_at_its_best_with_a_row_per_event() -> None:
    """Of a stock store's ways the one with fewest wrong values counts, but for that with a row per change."""
    assert [one.build for one in chosen(RESULTS)] == [""] * len(OURS) + ["careful"] * len(STOCK)
    assert figures(RESULTS)["feast_redis"] == {
        "reads": 2,
        "values": 10,
        "mismatches": 3,
        "inexpressible": 0,
        "build": "careful",
        "rows": 7,
        "mismatches_by_build": {"plain": 4, "careful": 3, PER_CHANGE: 0},
    }
    assert "| late arrival | 10 | 🟢 | 🟢 | 🟢 | 🔴 3 | 🔴 3 | 🔴 3 | 🔴 3 |" in tables(RESULTS).splitlines()


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    """What a person wrote around the tables stays, the old tables go; a page without marks is refused."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, RESULTS, datetime(2026, 3, 1, tzinfo=UTC))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\n2 reads, of 2026-03-01.\n\n| rule |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place for the tables"):
        write(page, RESULTS)
