"""Take files into a shop's event log.

    python -m ingestion --events PATH --reader NAME_OR_TOML [--shop SHOP] [--allow RULE ...]

Exit status: 0 all files are in (or were before), 1 the gate stopped some, 2 the command itself is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clicktrail.event_log import EventLog
from clicktrail.settings import Settings, load
from ingestion.catalogue import SideOutcome, take_in_side_tables
from ingestion.intake import Outcome, take_in
from ingestion.mapping import load_mapping, shipped
from validation.batch import Thresholds
from validation.gate import Gate
from validation.report import format_rules, format_table

_ALLOWED = ("bad_rows", "mix", "stale", "type_changed", "volume")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    settings = load({**os.environ, "CLICKTRAIL_SHOP": options.shop} if options.shop else None)
    try:
        if not options.check:
            return _run(options, settings)
        with _aside(settings) as copy:
            status = _run(options, copy)
        print("checked only: the log, quarantine and data docs are as before")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    else:
        return status


@contextmanager
def _aside(settings: Settings) -> Iterator[Settings]:
    """A shop with the same history in a folder of its own, for a look without a change: segments are linked."""
    with tempfile.TemporaryDirectory() as folder:
        copy = replace(settings, home=Path(folder))
        for folder_of, target in ((settings.log, copy.log), (settings.catalogue, copy.catalogue)):
            if folder_of.is_dir():
                shutil.copytree(folder_of, target, copy_function=_link_or_copy)
        yield copy


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    started = time.monotonic()
    mapping = load_mapping(options.reader)
    gate = Gate(settings.data_docs, Thresholds())
    outcome = take_in(options.events, mapping, settings, gate=gate, allow=options.allow, progress=not options.quiet)
    sides = take_in_side_tables(options.events, mapping, settings, gate=gate, allow=options.allow)
    gate.write_docs()
    _print_intake(outcome, sides)
    where = [] if options.check else _places(settings)
    print(f"\n{'; '.join([f'log at offset {EventLog(settings.log).version:,}', *where])}", end="")
    print(f" ({time.monotonic() - started:.1f} s)")
    return _print_stopped(outcome, sides)


def _places(settings: Settings) -> list[str]:
    """Where a person looks next."""
    docs = settings.data_docs / "index.html"
    found = [f"quarantine {settings.quarantine}"] if settings.quarantine.is_dir() else []
    return [*found, f"data docs {docs}"] if docs.exists() else found


def _print_intake(outcome: Outcome, sides: list[SideOutcome]) -> None:
    header = ["files", "rows in", "labels made", "accepted", "copies", "quarantined"]
    counts = (outcome.files, outcome.rows, outcome.made, outcome.accepted, outcome.copies, outcome.rejected)
    print(format_table(header, [[f"{count:,}" for count in counts]]))
    if outcome.known:
        print(f"\n{len(outcome.known)} files were taken in before and changed nothing")
    for side in sides:
        if side.known:
            print(f"\n{side.name}: as before, {side.published:,} rows")
        elif not side.stops:
            rejected = sum(one.count for one in side.quarantined)
            print(
                f"\n{side.name}: {side.rows:,} rows in, {side.published:,} published, {side.copies:,} copies, "
                f"{rejected:,} quarantined"
                + (f", {side.older:,} older versions" if side.older else "")
                + (f"; the history grew by {side.versions:,}" if side.versions else "")
            )
    for title, rules in [("quarantined", outcome.quarantined)] + [
        (f"quarantined in {side.name}", list(side.quarantined)) for side in sides if not side.stops
    ]:
        if rules:
            print(f"\n{title}\n{format_rules(rules)}")


def _print_stopped(outcome: Outcome, sides: list[SideOutcome]) -> int:
    stopped = [(one.file, one.rows, one.stops, one.rules) for one in outcome.stopped]
    stopped += [(side.name, side.rows, side.stops, side.quarantined) for side in sides if side.stops]
    if not stopped:
        return 0
    rows = [
        [file, stop.rule, f"{count:,}", f"{stop.reason}", stop.remedy]
        for file, count, stops, _ in stopped
        for stop in stops
    ]
    print(f"\nGATE: {len(stopped)} batches were stopped whole, nothing of them entered", file=sys.stderr)
    print(format_table(["batch", "rule", "rows", "why", "what to do"], rows), file=sys.stderr)
    for file, _, _, rules in stopped:
        if rules:
            print(f"\nbad rows in {file}\n{format_rules(rules)}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingestion", description="Take files into a shop's event log.")
    parser.add_argument(
        "--events", type=Path, required=True, help="CSV, JSON lines or Parquet file, or a folder of them"
    )
    parser.add_argument("--reader", required=True, help=f"{', '.join(shipped())}, or the path of a mapping (TOML)")
    parser.add_argument("--shop", default="", help="whose data (default: CLICKTRAIL_SHOP, else demo)")
    parser.add_argument(
        "--allow", nargs="+", default=[], choices=_ALLOWED, help="gates to pass this once: a person has looked"
    )
    parser.add_argument("--check", action="store_true", help="show what would happen and change nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
