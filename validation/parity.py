"""Parity: what was read online against what the offline store says at the same log offset and the same time.

    make parity        (python -m validation.parity)

Two kinds of reads are replayed: those that the services left in the read log (CLICKTRAIL_READ_LOG), and reads of now,
of entities that are busy, that have been idle for long, and that nobody knows. A view whose share of differing reads
is above its `parity_budget` (0 where none is declared) makes the exit status 1. How far the state lags behind the log
is a figure of its own: a state that is late and right is no mismatch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from clicktrail import read_log
from clicktrail.clock import moment
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader
from clicktrail.publish import publish_bytes
from clicktrail.settings import Settings, load
from validation.parity_counts import LOGGED, ViewParity, measure
from validation.parity_picture import page
from validation.parity_reads import reads_of_now

KEPT = 500
"""Runs that the picture goes back."""


@dataclass(frozen=True, kw_only=True)
class Lag:
    """How far a view's state is behind the log: rows, and seconds since the first of them was accepted."""

    rows: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A view and the share of its reads that may differ."""

    declaration: Declaration
    budget: float = 0.0


def run(
    settings: Settings, watched: Sequence[Watched], *, sample: int = 200, seed: int = 0, at: datetime | None = None
) -> tuple[dict[str, Any], dict[str, ViewParity]]:
    """Measure the parity of a shop's views, add it to the history and draw the picture; gives summary and counts.

    Args:
        settings: the shop.
        watched: its views; reads of others in the read log are counted too, with budget 0.
        sample: entities of a kind that are read now, of each view; 0: the read log alone.
        seed: which ones.
        at: names the run; the wall clock by default.

    Raises:
        ValueError: there is no online state of a view.
    """
    log = EventLog(settings.log)
    reader = OnlineReader(
        settings.online_state,
        [one.declaration for one in watched],
        catalogue=settings.catalogue / "items_history.parquet",
    )
    lags = {one.declaration.name: _lag(log, reader, one.declaration) for one in watched}
    found = measure(log, _pieces(settings, log, watched, reader, sample, seed))
    budgets = {one.declaration.name: one.budget for one in watched}
    newest = summary(settings.shop, at or datetime.now(UTC), found, lags, budgets)
    history = settings.parity / "parity.json"
    before = json.loads(history.read_text())["runs"] if history.is_file() else []
    runs = [*before, newest][-KEPT:]
    publish_bytes(history, json.dumps({"runs": runs}).encode(), "parity.history")
    publish_bytes(settings.parity / "index.html", page(runs).encode(), "parity.page")
    return newest, found


def summary(
    shop: str,
    at: datetime,
    found: Mapping[str, ViewParity],
    lags: Mapping[str, Lag],
    budgets: Mapping[str, float],
) -> dict[str, Any]:
    """A run as JSON data."""
    nothing = Lag(rows=0, seconds=0.0)
    return {
        "shop": shop,
        "at": at.isoformat(timespec="seconds"),
        "views": {
            name: {
                "reads": view.reads,
                "differing": view.differing,
                "match_rate": view.match_rate,
                "budget": budgets.get(name, 0.0),
                "over_budget": view.over(budgets.get(name, 0.0)),
                "sources": view.sources,
                "lagging": view.lagging,
                "unreplayable": view.unreplayable,
                "lag_rows": lags.get(name, nothing).rows,
                "lag_seconds": lags.get(name, nothing).seconds,
                "features": {
                    feature: {
                        **{key: value for key, value in asdict(one).items() if key != "measured"},
                        "match_rate": one.match_rate,
                        "edits": one.edits / one.measured if one.measured else None,
                    }
                    for feature, one in view.features.items()
                },
            }
            for name, view in sorted(found.items())
        },
    }


def render(newest: Mapping[str, Any], found: Mapping[str, ViewParity]) -> str:
    """A run as a text: views, the features that differ, and where to look; ids stand here alone, not in the history."""
    columns = f"{'reads':>9} {'match':>9} {'differ':>7} {'lagging':>8} {'rows behind':>11} {'s behind':>8}"
    lines = [f"{'view':<24} {columns}  reads of"]
    for name, view in newest["views"].items():
        sources = ", ".join(f"{source} {reads:,}" for source, (reads, _) in sorted(view["sources"].items()))
        lines.append(
            f"{name:<24} {view['reads']:>9,} {view['match_rate']:>9.4%} {view['differing']:>7,} {view['lagging']:>8,} "
            f"{view['lag_rows']:>11,} {view['lag_seconds']:>8.1f}  {sources}"
        )
        for feature, one in view["features"].items():
            if one["differing"]:
                lists = "" if one["edits"] is None else f", {one['edits']:.1f} edits, first at {one['first']}"
                lines.append(
                    f"  {feature}: {one['differing']:,} of {one['reads']:,} differ, {one['missing']:,} missing, "
                    f"{one['extra']:,} extra{lists}"
                )
        lines += [
            f"  for one: make preview VIEW={name} ENTITY={entity} AT={moment(t).isoformat()}, at log offset {offset}"
            for entity, offset, t in found[name].examples
        ]
        if view["unreplayable"]:
            lines.append(f"  {view['unreplayable']:,} logged reads are of another log, or past its end: left out")
        if view["over_budget"]:
            lines.append(f"  over its budget: {view['differing'] / view['reads']:.4%} differ, {view['budget']:.4%} may")
    return "\n".join(lines)


def _pieces(
    settings: Settings, log: EventLog, watched: Sequence[Watched], reader: OnlineReader, sample: int, seed: int
) -> Iterator[tuple[Declaration, str, pa.Table]]:
    """Reads of now, then those of the read log, view by view."""
    for one in watched if sample else ():
        for source, table in list(
            reads_of_now(log, one.declaration, reader, clock=settings.clock, sample=sample, seed=seed)
        ):
            yield one.declaration, source, table
    for declaration, table in read_log.by_view(settings.read_log):
        yield declaration, LOGGED, table


def _lag(log: EventLog, reader: OnlineReader, declaration: Declaration) -> Lag:
    offset, version = reader.read(declaration.name, [], 0).offset, log.version
    if offset >= version:
        return Lag(rows=0, seconds=0.0)
    return Lag(rows=version - offset, seconds=round(time.time() - log.accepted_at(offset) / 1e6, 3))


def registered(settings: Settings) -> list[Watched]:
    """The shop's event-log views and their budgets, from the registry."""
    from clicktrail.data_source import declaration_of
    from clicktrail.feast_repo import open_store

    out = []
    for view in open_store(settings).list_feature_views():
        declaration = declaration_of(view)
        if declaration is not None:
            out.append(Watched(declaration=declaration, budget=float(view.tags.get("parity_budget", 0))))
    return out


def main(settings: Settings, arguments: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=200, help="entities of a kind to read now, of each view")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which ones; others each time by default")
    given = parser.parse_args(arguments)
    try:
        newest, found = run(settings, registered(settings), sample=given.sample, seed=given.seed)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(render(newest, found))  # noqa: T201
    print(f"picture: {settings.parity / 'index.html'}")  # noqa: T201
    return 1 if any(view["over_budget"] for view in newest["views"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main(load(), sys.argv[1:]))
