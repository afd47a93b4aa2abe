"""Where a bundle comes from, looked up while it is built: the log behind its run, the code, the state beside it.

None of this travels in a bundle; what it finds does, and `serving.proofs` holds it to account.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clicktrail.event_log import EventLog
from clicktrail.log_manifest import Segment
from clicktrail.settings import Settings
from serving.proofs import over_budget

SAMPLE = 200
"""Entities of a kind (busy, idle) that are read of each view for the skew receipt."""


def lineage(log: EventLog, data: Mapping[str, Any]) -> dict[str, Any]:
    """What validated the rows that a run learned from.

    Args:
        log: of the run's shop.
        data: what the run says of its data (`data` in metrics.json).

    Raises:
        ValueError: it is another log, or some of the rows were not validated.
    """
    offset = data.get("log_offset")
    if not offset:
        message = "its metrics.json does not say which rows of the log it learned from (data.log_offset): train again"
        raise ValueError(message)
    if log.version < offset:
        message = (
            f"it learned from {offset:,} rows, the log in {log.path} has {log.version:,}: build where the log of the "
            "run is (CLICKTRAIL_HOME, CLICKTRAIL_SHOP), since what validated the rows is written there"
        )
        raise ValueError(message)
    content = data.get("log_content", "")
    # who is forgotten is part of a log's digest: after that only the offset can be compared
    if content and not log.forgotten and log.digest(offset) != content:
        message = f"it learned from another log than the one in {log.path}: build where its own is, or train again"
        raise ValueError(message)
    stretches = log.validated(offset)
    for one in stretches:
        if not one.by:
            message = (
                f"it learned from rows {one.start:,} to {one.stop - 1:,} of the log in {log.path} "
                f"({_files(log.segments, one.start, one.stop)}), which were appended without passing the gate: "
                "move the log away, take the events in by make ingest, make intake or make stream, and train again"
            )
            raise ValueError(message)
    return {"log_offset": offset, "log_digest": content, "validated": [vars(one) for one in stretches]}


def _files(segments: Iterable[Segment], start: int, stop: int) -> str:
    names = [one.file for one in segments if one.start < stop and one.stop > start]
    return f"segment {names[0]}" if len(names) == 1 else f"segments {names[0]} to {names[-1]}"


def skew_receipt(settings: Settings, declarations: list[dict[str, Any]], checkout: Path) -> dict[str, Any]:
    """Parity of the views that a bundle reads, over a sample of reads of the state as it is now.

    Another process measures it: what it needs is not what serving may import.

    Args:
        settings: the shop, and the clock by which the service will read.
        declarations: the views, as JSON data.
        checkout: where `validation` lies.

    Raises:
        ValueError: a view differs more often than it allows itself, or the state does not fit.
    """
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CLICKTRAIL_FAILPOINT")}
    environ |= {
        "CLICKTRAIL_HOME": str(settings.home),
        "CLICKTRAIL_SHOP": settings.shop,
        "CLICKTRAIL_CLOCK": settings.clock,
        "CLICKTRAIL_ONLINE_URL": settings.online_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "validation.receipt"],
        input=json.dumps({"declarations": declarations, "sample": SAMPLE, "seed": 0}),
        cwd=checkout,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"online reads could not be compared with the offline store: {done.stderr.strip()[-4000:]}"
        raise ValueError(message)
    found: dict[str, Any] = json.loads(done.stdout)
    for name, view in found["views"].items():
        if view["over_budget"]:
            raise ValueError(over_budget(name, view))
    return found


def revision(checkout: Path, folders: Iterable[str]) -> dict[str, Any]:
    """The commit that is checked out, and whether files in `folders` differ from it; "unknown" outside a checkout."""
    commit = _git(checkout, "rev-parse", "HEAD")
    if commit is None:
        return {"revision": "unknown", "dirty": None}
    changes = _git(checkout, "status", "--porcelain", "--", *folders)
    return {"revision": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
