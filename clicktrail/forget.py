"""Forget users: `make forget USER=u1,u2` (python -m clicktrail.forget u1,u2).

A tombstone in the log first, so that no reader sees them from then on; then the online state and all that was derived.
Their rows go from the log's segments when these are written next; `--now` does that at once. Runs and bundles are
never changed: those whose training may have seen the users are named. What the log can't say once the tombstone is
there is noted in a file beside the reports before, so that a killed run can be run again.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clicktrail.entity_ids import in_the_dark
from clicktrail.event_log import EventLog
from clicktrail.forget_derived import (
    Trained,
    from_catalogue,
    from_decisions,
    from_pages,
    from_quarantine,
    from_read_log,
    from_training_sets,
    trained_on,
)
from clicktrail.online_state import OnlineState, declarations_here
from clicktrail.publish import failpoint, publish_bytes
from clicktrail.settings import Settings, load
from clicktrail.traces import Traces, traces

_PENDING = "pending.json"


@dataclass(kw_only=True)
class Forgotten:
    """What became of some users: rows or files removed by place, and what may still hold something of them."""

    users: tuple[str, ...]
    first_offset: int | None
    removed: dict[str, int] = field(default_factory=dict)
    in_segments: int = 0
    trained: list[Trained] = field(default_factory=list)

    def to_json(self, at: str) -> dict[str, Any]:
        """The report that stays: users by the sha256 of their ids."""
        return {
            "at": at,
            "users": [in_the_dark(user) for user in self.users],
            "first_offset": self.first_offset,
            "removed": self.removed,
            "rows_left_in_segments": self.in_segments,
            "to_retrain": [{"kind": one.kind, "name": one.name} for one in self.trained],
        }


def forget(
    settings: Settings,
    users: Sequence[str],
    *,
    now: bool = False,
    at: datetime | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> Forgotten:
    """Forget users everywhere in a shop; done again it finds nothing more to remove.

    Args:
        settings: the shop.
        users: their ids.
        now: erase their rows from the log's segments too, and from SQLite's freed pages: both are written anew.
        at: names the report; the wall clock by default.
        progress: is told each place before it is worked on.

    Raises:
        ValueError: no user is named, or the shop has no log.
    """
    log = EventLog(settings.log)
    if not users or not all(users):
        message = "name the users to forget: make forget USER=u1,u2"
        raise ValueError(message)
    if not log.epoch:
        message = (
            f"shop {settings.shop!r} has no event log at {settings.log}: check CLICKTRAIL_HOME and CLICKTRAIL_SHOP"
        )
        raise ValueError(message)
    progress("log")
    found = _noted(settings, traces(log, users))
    failpoint("forget.after_note")
    log.forget(users)
    failpoint("forget.after_tombstone")
    out = Forgotten(users=found.users, first_offset=found.first_offset)
    out.removed["events and labels in the log"] = len(found.event_ids)
    state = OnlineState(settings.online_state)
    state.forget(log)
    views = declarations_here(settings.online_state)
    for view in views:  # of others, whose values the users' events made
        progress(f"online state of {view.name}")
        state.catch_up(log, view)
    out.removed["from views of the online state"] = len(views)
    progress("derived data")
    out.removed["rows of the read log"] = from_read_log(settings, found)
    out.removed["rows of the decision log"] = from_decisions(settings, found)
    sets = from_training_sets(settings, log, found)
    out.removed["training sets"] = len(sets)
    out.removed["rows of the user table"] = from_catalogue(settings, found)
    out.removed["rows in quarantine"] = from_quarantine(settings, found)
    out.removed["pages and samples"] = from_pages(settings, found)
    if now:
        progress("segments")
        log.compact()
        _shred(settings)
    out.in_segments = sum(segment.hidden_rows for segment in log.segments)
    out.trained = trained_on(settings, log, found, sets)
    moment = at or datetime.now(UTC)
    report = settings.forgotten / f"{moment:%Y-%m-%dT%H%M%S}.json"
    publish_bytes(report, json.dumps(out.to_json(moment.isoformat()), indent=1).encode(), "forget.report")
    (settings.forgotten / _PENDING).unlink(missing_ok=True)
    return out


def _shred(settings: Settings) -> None:
    """Have SQLite write its file anew: the pages that it has freed still hold what was in them."""
    if settings.online.is_file():
        with closing(sqlite3.connect(settings.online, timeout=60, isolation_level=None)) as con:
            con.execute("vacuum")
            con.execute("pragma wal_checkpoint(truncate)")


def _noted(settings: Settings, found: Traces) -> Traces:
    """Traces with those that a killed run noted, kept in the file until all is done.

    Of users that were forgotten before, the log says nothing any more, but a report says where their events began.
    """
    path = settings.forgotten / _PENDING
    if path.is_file():
        found = found.merge(Traces.from_json(json.loads(path.read_text())))
    publish_bytes(path, json.dumps(found.to_json()).encode(), "forget.note")
    hashes = {in_the_dark(user) for user in found.users}
    for report in sorted(settings.forgotten.glob("*T*.json")):
        before = json.loads(report.read_text())
        if hashes & set(before["users"]):
            found = found.merge(Traces(users=(), first_offset=before["first_offset"]))
    return found


def render(done: Forgotten) -> str:
    """What was removed where and what remains, as a text."""
    width = max(len(name) for name in done.removed)
    lines = [f"forgotten: {', '.join(done.users)}", "", "removed"]
    lines += [f"  {name:<{width}}  {count:>8,}" for name, count in done.removed.items()]
    lines += ["", "remains"]
    if done.in_segments:
        lines.append(f"  {done.in_segments:,} hidden rows of forgotten users in the log's segments, until these are")
        lines.append("  written next, and bytes in SQLite's freed pages: ARGS=--now writes both anew")
    lines += [f"  {one.kind} {one.name}: may have learned from them; retrain, then delete it" for one in done.trained]
    lines += [
        "  the tombstone: the ids in the log's manifest, so that their events do not come in again",
        "  raw files, backups and quarantined rows without an event_id: outside, or not known whose they are",
    ]
    return "\n".join(lines)


def main(settings: Settings, arguments: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", help="their ids, with commas between")
    parser.add_argument("--now", action="store_true", help="erase their rows from the log's segments at once")
    given = parser.parse_args(arguments)
    users = [user for user in given.users.split(",") if user]
    try:
        done = forget(settings, users, now=given.now, progress=lambda where: print(f"... {where}"))  # noqa: T201
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(render(done))  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main(load(), sys.argv[1:]))
