"""What a view's first catch-up was expected to take, and what it took: a small file a declaration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clicktrail.publish import publish_bytes


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """How many log rows touch a view, and the seconds that applying them was expected to take and took (None: not yet).

    `predicted_seconds` and `processor_seconds` are of the processor, `actual_seconds` by the clock on the wall.
    """

    view: str
    fingerprint: str
    rows: int
    predicted_seconds: float
    processor_seconds: float | None = None
    actual_seconds: float | None = None

    def __str__(self) -> str:
        """As one line."""
        told = f"backfill of {self.view}: {self.predicted_seconds:.1f} s of the processor predicted"
        if self.actual_seconds is None:
            return told
        return f"{told}, {self.processor_seconds:.1f} s taken ({self.actual_seconds:.1f} s by the clock)"


def folder_of(log: Path) -> Path:
    """Where the files lie: beside the event log in the folder `log`."""
    return log.parent / "plans"


def predict(folder: Path, expected: Backfill) -> None:
    """Keep what is expected, in the place of an earlier expectation."""
    _publish(folder, expected)


def record(folder: Path, fingerprint: str, *, processor_seconds: float, seconds: float) -> Backfill | None:
    """Put what a first catch-up took beside what was expected; None where nobody asked for a plan.

    Args:
        folder: `folder_of(...)`.
        fingerprint: of the view's declaration.
        processor_seconds: that it took of the processor.
        seconds: that it took by the clock.
    """
    expected = _read(folder / f"{fingerprint}.json")
    if expected is None:
        return None
    known = replace(expected, processor_seconds=round(processor_seconds, 3), actual_seconds=round(seconds, 3))
    _publish(folder, known)
    return known


def backfills(folder: Path) -> Iterator[Backfill]:
    """What is known of each declaration that was planned, by view."""
    found = (_read(path) for path in folder.glob("*.json"))
    yield from sorted((one for one in found if one is not None), key=lambda one: (one.view, one.fingerprint))


def _publish(folder: Path, one: Backfill) -> None:
    publish_bytes(folder / f"{one.fingerprint}.json", json.dumps(asdict(one), indent=1).encode(), "plan")


def _read(path: Path) -> Backfill | None:
    return Backfill(**json.loads(path.read_text())) if path.is_file() else None
