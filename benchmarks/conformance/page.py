"""The tables of the conformance kit, and the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.conformance.counts import Count, Result
from benchmarks.conformance.groups import GROUPS, OTHER
from clicktrail.publish import publish_bytes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
OURS = ("Clicktrail offline", "Clicktrail SQLite", "Clicktrail Redis")
STOCK = ("Feast dask", "Feast DuckDB", "Feast SQLite", "Feast Redis")
ONLINE = ("Feast SQLite", "Feast Redis")
PER_CHANGE = "row per change"
"""The build that needs a row wherever a window's edge passes an event: shown, but no store's best."""


def chosen(results: Sequence[Result]) -> list[Result]:
    """One result a store: ours, and of each stock store the build with a row per event that has fewest wrong values."""
    best = []
    for store in (*OURS, *STOCK):
        ways = [one for one in results if one.store == store and one.build != PER_CHANGE]
        best.append(min(ways, key=lambda one: one.total().mismatches))
    return best


def figures(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Counts of each store, as `chosen`; beside them the build, its rows, and what the other builds got wrong."""
    found: dict[str, dict[str, Any]] = {}
    for one in chosen(results):
        count = one.total()
        key = one.store.lower().replace(" ", "_")
        found[key] = {name: getattr(count, name) for name in ("reads", "values", "mismatches", "inexpressible")}
        if one.build:
            builds = {other.build: other.total().mismatches for other in results if other.store == one.store}
            found[key] |= {"build": one.build, "rows": one.rows, "mismatches_by_build": builds}
    return found


def tables(results: Sequence[Result]) -> str:
    """Both tables and one example of a wrong value for each rule group, as Markdown."""
    best = chosen(results)
    present = [group for group in (*GROUPS, OTHER) if group in best[0].groups]
    lines = _table(
        ["rule", "values", *(one.store for one in best)],
        [[group, str(best[0].groups[group].values), *(_cell(one.groups[group]) for one in best)] for group in present]
        + [["all", str(best[0].total().values), *(_cell(one.total()) for one in best)]],
    )
    builds = list(dict.fromkeys(one.build for one in results if one.build))
    by_way = {(one.store, one.build): one for one in results}
    lines += ["", "Wrong values by the way in which Feast is set up:", ""]
    lines += _table(
        ["way", "rows written", *STOCK],
        [
            [build, f"{by_way[STOCK[0], build].rows:,}", *(str(by_way[one, build].total().mismatches) for one in STOCK)]
            for build in builds
        ],
    )
    lines += [
        "",
        "The table above shows " + "; ".join(f"{one.store}: {one.build}" for one in best if one.build) + ".",
        "",
    ]
    closest = sorted(best, key=lambda one: one.total().mismatches)
    lines += [example for group in present if (example := _example(group, closest))]
    return "\n".join(lines)


def write(page: Path, results: Sequence[Result], now: datetime | None = None) -> None:
    """Put the tables between the page's marks, with the day.

    Raises:
        ValueError: the page lacks a mark.
    """
    text = page.read_text()
    if BEGIN not in text or END not in text:
        message = f"{page} has no place for the tables: it needs the lines {BEGIN!r} and {END!r}"
        raise ValueError(message)
    before, rest = text.split(BEGIN, maxsplit=1)
    after = rest.split(END, maxsplit=1)[1]
    day = (now or datetime.now(UTC)).date().isoformat()
    body = f"{before}{BEGIN}\n\n{results[0].total().reads} reads, of {day}.\n\n{tables(results)}\n\n{END}{after}"
    publish_bytes(page, body.encode(), "docs")


def _cell(count: Count) -> str:
    if count.mismatches:
        return f"🔴 {count.mismatches}"
    return f"⚪ {count.inexpressible}" if count.inexpressible else "🟢"


def _example(group: str, results: Sequence[Result]) -> str:
    wrong = next((one for one in results if one.groups[group].mismatches), None)
    return f"- {group}: {wrong.store}, {wrong.groups[group].example}" if wrong else ""


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
