"""Parity in counts: reads that equal the offline value at the same log offset and time, and how others differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.read_log import FEATURE
from validation import replay
from validation.differences import Differences, compare

LOGGED, BUSY, IDLE, UNKNOWN = "logged", "busy", "idle", "unknown"


@dataclass(kw_only=True)
class FeatureParity:
    """Counts of one feature: `measured` differing lists had `edits` in all, the earliest difference at `first`."""

    reads: int = 0
    differing: int = 0
    missing: int = 0
    extra: int = 0
    measured: int = 0
    edits: int = 0
    first: int | None = None

    def add(self, found: Differences) -> None:
        """Count some more reads."""
        self.reads += len(found.differs)
        self.differing += int(found.differs.sum())
        self.missing += int(found.missing.sum())
        self.extra += int(found.extra.sum())
        self.measured += len(found.edits)
        self.edits += int(found.edits.sum())
        if len(found.first):
            earliest = int(found.first.min())
            self.first = earliest if self.first is None else min(self.first, earliest)

    @property
    def match_rate(self) -> float:
        """Share of reads that are equal; 1 of none."""
        return 1 - self.differing / self.reads if self.reads else 1.0


@dataclass(kw_only=True)
class ViewParity:
    """Counts of one view: a read differs where any of its features does.

    `lagging`: reads at which something was known by the clock that the state had not applied yet. `sources`: reads and
    differing ones of each kind. `unreplayable`: reads at an offset that the log does not have. `examples`: entity, log
    offset and time (microseconds) of the first reads that differed.
    """

    reads: int = 0
    differing: int = 0
    lagging: int = 0
    unreplayable: int = 0
    features: dict[str, FeatureParity] = field(default_factory=dict)
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    examples: list[tuple[str | None, int, int]] = field(default_factory=list)

    @property
    def match_rate(self) -> float:
        """Share of reads that are equal in every feature; 1 of none."""
        return 1 - self.differing / self.reads if self.reads else 1.0

    def over(self, budget: float) -> bool:
        """Whether more reads differ than the view's declaration allows."""
        return self.differing > budget * self.reads


def measure(
    log: EventLog, pieces: Iterable[tuple[Declaration, str, pa.Table]], *, examples: int = 3
) -> dict[str, ViewParity]:
    """Replay reads and count what differs, by view.

    Args:
        log: the event log that the state follows.
        pieces: view, source (`LOGGED`, ...) and reads, as `clicktrail.read_log.read` gives them; those of one view
            together, since the view is loaded once for them.
        examples: how many differing reads of a view to keep.
    """
    out: dict[str, ViewParity] = {}
    loaded: replay.Replay | None = None
    for declaration, source, reads in pieces:
        view = out.setdefault(declaration.name, ViewParity())
        if loaded is None or loaded.declaration != declaration:
            loaded = replay.load(log, declaration)
        here = reads["offset"].to_numpy() <= loaded.stop
        view.unreplayable += int((~here).sum())
        _replay(loaded, reads.filter(pa.array(here)), source, view, examples)
    return out


def _replay(loaded: replay.Replay, reads: pa.Table, source: str, view: ViewParity, examples: int) -> None:
    offsets, times = reads["offset"].to_numpy(), reads["answered"].to_numpy()
    offline, lagging = loaded.values(reads["entity"], offsets, times)
    differs, absent = np.zeros(reads.num_rows, bool), ~reads["found"].to_numpy()
    for name, column in offline.items():
        if reads.num_rows and f"{FEATURE}{name}" in reads.column_names:
            found = compare(reads[f"{FEATURE}{name}"], column, absent=absent)
            view.features.setdefault(name, FeatureParity()).add(found)
            differs |= found.differs
    view.reads += reads.num_rows
    view.differing += int(differs.sum())
    view.lagging += int(lagging.sum())
    before = view.sources.get(source, (0, 0))
    view.sources[source] = (before[0] + reads.num_rows, before[1] + int(differs.sum()))
    for row in np.flatnonzero(differs)[: examples - len(view.examples)].tolist():
        view.examples.append((reads["entity"][row].as_py(), int(offsets[row]), int(times[row])))
