"""Is this batch (one file) like its history? What stops a whole batch, and from which threshold on.

A batch is judged by facts about it and by what was recorded of the batches of the same reader before.
The first batches have no history and pass.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

DAY_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Beyond these a batch is stopped. They are wide on purpose: a broken feed is far outside, a sale is not."""

    history: int = 14
    """So many batches back a batch is compared with: two weeks of daily files see every weekday twice."""
    least_history: int = 3
    """With fewer batches than this there is no history to be far from."""
    least_rows: int = 100
    """Shares of fewer rows than this say nothing."""
    volume_low: float = 0.1
    """Rows of the batch / median rows of the history. A tenth: half of the collectors down is still within."""
    volume_high: float = 10.0
    """Ten times: the largest sale of the year is still within, a feed sent as one file with its past is not."""
    mix: float = 0.5
    """Total variation distance between event-type shares: half of the rows would have to change their type."""
    behind_arrival_days: float = 3.0
    """Newest event before newest arrival: a collector that replays old events sends nothing new for days."""
    behind_history_days: float = 7.0
    """Newest event before the newest event of the history: last week's file under today's name is within."""
    unreadable: float = 0.5
    """Share of a column's values that can't be read as its type: then the column has changed, not its rows."""
    quarantined: float = 0.5
    """Share of rows that break a row rule: then the batch is not fit to learn from."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a whole batch stays out."""

    rule: str
    subject: str
    reason: str
    remedy: str


class BatchStoppedError(Exception):
    """A file that cannot be read as a batch at all; `stops` say why."""

    def __init__(self, stops: Sequence[Stop]) -> None:
        """`stops` is not empty."""
        super().__init__("; ".join(f"{stop.rule}: {stop.reason}" for stop in stops))
        self.stops = tuple(stops)


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """What is recorded of a batch. Grain: one file.

    `rows`: rows in the file; `made`: label rows made from them; `quarantined`: rows by rule, before the log
    has looked for conflicts. `types`: rows by event type as it arrived. `kinds`: source column -> text, number, time,
    flag or null (typed files only). `unreadable`: contract column -> [unreadable values, values].
    `newest_event`, `newest_arrival`: 99th percentile of the good rows, microseconds UTC (one wrong clock does not
    move it), 0 when there is none.
    """

    file: str
    digest: str
    reader: str
    rows: int
    made: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, Sequence[int]] = field(default_factory=dict)
    newest_event: int = 0
    newest_arrival: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the log records it."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> BatchFacts:
        """What `to_json` gave; keys of a later version are left out."""
        return cls(**{one.name: entry[one.name] for one in fields(cls) if one.name in entry})

    @property
    def bad_rows(self) -> int:
        """Rows that broke a row rule."""
        return sum(self.quarantined.values())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A batch beside its history; None where there is nothing to compare."""

    volume_ratio: float | None
    mix_distance: float | None
    behind_arrival_days: float | None
    behind_history_days: float | None
    unreadable_share: float
    quarantined_share: float
    changed_kinds: int


def of_reader(history: Sequence[BatchFacts], reader: str, last: int) -> list[BatchFacts]:
    """The last batches of a reader: other readers bring other data."""
    return [facts for facts in history if facts.reader == reader][-last:]


def compare(facts: BatchFacts, history: Sequence[BatchFacts], limits: Thresholds) -> Comparison:
    """Set a batch beside `history` (batches of its reader, oldest first)."""
    enough = len(history) >= limits.least_history
    usual = statistics.median(one.rows for one in history) if enough else 0
    newest = max((one.newest_event for one in history), default=0)
    worst = max((bad / values for bad, values in facts.unreadable.values() if values >= limits.least_rows), default=0.0)
    return Comparison(
        volume_ratio=facts.rows / usual if usual else None,
        mix_distance=_distance(facts.types, history) if enough and facts.rows >= limits.least_rows else None,
        behind_arrival_days=_days(facts.newest_arrival - facts.newest_event) if facts.newest_event else None,
        behind_history_days=_days(newest - facts.newest_event) if enough and facts.newest_event else None,
        unreadable_share=worst,
        quarantined_share=facts.bad_rows / facts.rows if facts.rows >= limits.least_rows else 0.0,
        changed_kinds=len(changed_kinds(facts, history)),
    )


def judge(facts: BatchFacts, history: Sequence[BatchFacts], limits: Thresholds) -> list[Stop]:
    """Everything that stops this batch; empty when it may enter.

    Args:
        facts: of the batch.
        history: batches of its reader that were accepted before, oldest first.
        limits: the thresholds.
    """
    seen = compare(facts, history, limits)
    stops = [
        Stop(
            rule="type_changed",
            subject=column,
            reason=f"source column {column} holds {new}, in the batch before it held {old}",
            remedy="let the producer send the old type, or accept the new one with --allow type_changed",
        )
        for column, old, new in changed_kinds(facts, history)
    ]
    stops += [
        Stop(
            rule="type_changed",
            subject=column,
            reason=f"{bad} of {values} values cannot be read as the type of {column}",
            remedy="mend the producer, or the mapping's rule for this column (format, epoch, missing)",
        )
        for column, (bad, values) in facts.unreadable.items()
        if values >= limits.least_rows and bad / values > limits.unreadable
    ]
    if seen.volume_ratio is not None and not limits.volume_low <= seen.volume_ratio <= limits.volume_high:
        stops.append(
            Stop(
                rule="volume",
                subject="rows",
                reason=f"{facts.rows} rows are {seen.volume_ratio:.3g} times the median of the last "
                f"{len(history)} batches (allowed {limits.volume_low:g} to {limits.volume_high:g})",
                remedy="ask the producer whether the file is whole; if it is, take it in with --allow volume",
            )
        )
    if seen.mix_distance is not None and seen.mix_distance > limits.mix:
        stops.append(
            Stop(
                rule="mix",
                subject="event_type",
                reason=f"event types lie {seen.mix_distance:.2f} from the last {len(history)} batches "
                f"(allowed {limits.mix:g}): {_moved(facts.types, history)}",
                remedy="map renamed event types in [columns] event_type values; if the shop has changed, --allow mix",
            )
        )
    stops += _stale(seen, limits)
    if not stops and seen.quarantined_share > limits.quarantined:
        stops.append(
            Stop(
                rule="bad_rows",
                subject="rows",
                reason=f"{facts.bad_rows} of {facts.rows} rows break a row rule (allowed {limits.quarantined:.0%})",
                remedy="see the rules below; if the rest is worth learning from, take it in with --allow bad_rows",
            )
        )
    return stops


def changed_kinds(facts: BatchFacts, history: Sequence[BatchFacts]) -> list[tuple[str, str, str]]:
    """Source columns whose kind differs from what it was last: (column, old, new). All-null columns say nothing."""
    last: dict[str, str] = {}
    for one in history:
        last.update({column: kind for column, kind in one.kinds.items() if kind != "null"})
    return [
        (column, last[column], kind)
        for column, kind in facts.kinds.items()
        if kind != "null" and last.get(column, kind) != kind
    ]


def _stale(seen: Comparison, limits: Thresholds) -> list[Stop]:
    stops = []
    for days, allowed, what in (
        (seen.behind_arrival_days, limits.behind_arrival_days, "its newest arrival"),
        (seen.behind_history_days, limits.behind_history_days, "the newest event of the batches before"),
    ):
        if days is not None and days > allowed:
            stops.append(
                Stop(
                    rule="stale",
                    subject="event_timestamp",
                    reason=f"the newest event lies {days:.1f} days before {what} (allowed {allowed:g})",
                    remedy="look for a collector that stands still; a file of older events on purpose: --allow stale",
                )
            )
    return stops


def _shares(types: Mapping[str, int]) -> dict[str, float]:
    total = sum(types.values())
    return {name: count / total for name, count in types.items()} if total else {}


def _pooled(history: Sequence[BatchFacts]) -> dict[str, int]:
    pooled: dict[str, int] = {}
    for one in history:
        for name, count in one.types.items():
            pooled[name] = pooled.get(name, 0) + count
    return pooled


def _distance(types: Mapping[str, int], history: Sequence[BatchFacts]) -> float:
    """Total variation distance: half the sum of absolute differences of shares."""
    new, old = _shares(types), _shares(_pooled(history))
    return sum(abs(new.get(name, 0.0) - old.get(name, 0.0)) for name in new.keys() | old.keys()) / 2


def _moved(types: Mapping[str, int], history: Sequence[BatchFacts]) -> str:
    """The three types that moved most."""
    new, old = _shares(types), _shares(_pooled(history))
    names = sorted(new.keys() | old.keys(), key=lambda name: (-abs(new.get(name, 0.0) - old.get(name, 0.0)), name))
    return ", ".join(f"{name} {old.get(name, 0.0):.0%} -> {new.get(name, 0.0):.0%}" for name in names[:3])


def _days(microseconds: int) -> float:
    return microseconds / 1_000_000 / DAY_SECONDS
