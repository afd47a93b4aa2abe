"""Files in, gate, quarantine, log: an intake, which may be killed anywhere and run again.

Files are judged one by one against the shop's history and enter the log in groups, one atomic publish each. Whether
a file was taken in is recorded with its rows, by the digest of its bytes. Quarantine is published before the rows
enter, under the file's digest: run again, it is replaced by the same.
Always: rows in + labels made = accepted + copies + quarantined.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from clicktrail.contract import arrow_schema
from clicktrail.event_log import Appended, EventLog
from clicktrail.settings import Settings
from ingestion.handed_back import handed_back
from ingestion.mapping import Mapping
from ingestion.prepare import Prepared, prepare
from ingestion.readers import digest_of, find_files
from validation.batch import BatchFacts, BatchStoppedError, Stop, compare, judge, of_reader
from validation.gate import SLICE_ROWS, Failed, Gate
from validation.quarantine import publish_quarantine
from validation.report import RuleCount, count_rules, merge_counts
from validation.stamps import gate_stamp


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A file that stayed out whole: why, and its bad rows where it could be read that far."""

    file: str
    rows: int
    stops: tuple[Stop, ...]
    rules: tuple[RuleCount, ...] = ()


@dataclass(kw_only=True)
class Outcome:
    """What an intake did. `rows` + `made` = `accepted` + `copies` + quarantined rows, over the files that entered."""

    files: int = 0
    known: list[str] = field(default_factory=list)
    rows: int = 0
    made: int = 0
    accepted: int = 0
    copies: int = 0
    quarantined: list[RuleCount] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """Rows in quarantine."""
        return sum(one.count for one in self.quarantined)

    @property
    def ok(self) -> bool:
        """Whether every file entered."""
        return not self.stopped

    def assert_balance(self) -> None:
        """No row is lost, none is counted twice."""
        assert self.rows + self.made == self.accepted + self.copies + self.rejected, self  # noqa: S101 - ours to keep


def recorded(log: EventLog) -> list[BatchFacts]:
    """Facts of every file that was taken in, oldest first."""
    return [BatchFacts.from_json(facts) for batch in log.batches() for facts in batch["counts"].get("files", ())]


def take_in(
    path: Path,
    mapping: Mapping,
    settings: Settings,
    *,
    gate: Gate,
    allow: Sequence[str] = (),
    group_rows: int = SLICE_ROWS,
    progress: bool = False,
) -> Outcome:
    """Take every file at `path` into the shop's log that is not in it yet.

    Args:
        path: file or folder.
        mapping: how its columns become the contract's.
        settings: of the shop.
        gate: holds the thresholds and collects the Data Docs.
        allow: rules that stop no batch this time (a person has looked at it).
        group_rows: files are put together up to this many rows for one publish.
        progress: show a bar.

    Raises:
        ValueError: nothing to read at `path`.
    """
    side = [glob for table in (mapping.items, mapping.users) if table for glob in table.files]
    files = find_files(path, mapping.include, (*mapping.exclude, *side))
    intake = _Intake(path=path, mapping=mapping, settings=settings, gate=gate, allow=frozenset(allow))
    with one_at_a_time(settings), tqdm(total=len(files), desc="ingest", unit="file", disable=not progress) as bar:
        intake.start()
        for file in files:
            intake.consider(file)
            if intake.waiting_rows >= group_rows:
                intake.enter()
            bar.update()
            bar.set_postfix(rows=f"{intake.outcome.rows + intake.waiting_rows:,}", refresh=False)
        intake.enter()
        intake.document()
    intake.outcome.assert_balance()
    return intake.outcome


@dataclass(kw_only=True)
class _Intake:
    """The state of one run."""

    path: Path
    mapping: Mapping
    settings: Settings
    gate: Gate
    allow: frozenset[str]
    outcome: Outcome = field(default_factory=Outcome)
    waiting: list[Prepared] = field(default_factory=list)
    waived: set[str] = field(default_factory=set)
    history: list[BatchFacts] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    judged: list[dict[str, object]] = field(default_factory=list)

    @property
    def waiting_rows(self) -> int:
        return sum(one.facts.rows for one in self.waiting)

    def start(self) -> None:
        self.log = EventLog(self.settings.log)
        known = recorded(self.log)
        self.seen = {facts.digest for facts in known}
        self.history = of_reader(known, self.mapping.name, self.gate.limits.history)

    def consider(self, file: Path) -> None:
        """Judge a file; if it may enter it waits for its group."""
        name = file.name if file == self.path else file.relative_to(self.path).as_posix()
        digest = digest_of(file)
        if digest in self.seen:
            self.outcome.known.append(name)
            return
        self.seen.add(digest)
        self.gate.warm_up()
        try:
            prepared = prepare(file, file=name, digest=digest, mapping=self.mapping)
        except BatchStoppedError as error:
            self.judged.append({"file": name, "unusable": 1.0})
            self._stop(name, 0, error.stops)
            return
        limits = self.gate.limits
        history = self.history[-limits.history :]
        self.judged.append(
            {"file": name, "rows": prepared.facts.rows, **vars(compare(prepared.facts, history, limits))}
        )
        found = judge(prepared.facts, history, limits)
        stops = [stop for stop in found if stop.rule not in self.allow]
        if stops:
            self._stop(name, prepared.facts.rows, stops, count_rules(prepared.bad))
            return
        self.waived |= {stop.rule for stop in found}
        self.history.append(prepared.facts)
        self.waiting.append(prepared)

    def enter(self) -> None:
        """Through GX, into quarantine and log: the group that waits, in one publish."""
        group, self.waiting = self.waiting, []
        stamp, self.waived = gate_stamp(self.gate.limits, self.waived), set()
        if not group:
            return
        events = pa.concat_tables([one.events for one in group]).combine_chunks()
        failed = self.gate.check("events", events)
        if failed:
            self._refuse(group, failed)
            return
        digest = hashlib.sha256("".join(one.facts.digest for one in group).encode()).hexdigest()
        rejected: list[pa.Table] = []

        def before(appended: Appended) -> None:
            rejected.extend(_rejected_rows(group, events, appended))
            self._balance(group, appended)
            for one, more in zip(group, rejected, strict=True):
                publish_quarantine(
                    self.settings.quarantine, one.facts.digest, pa.concat_tables([one.bad, more]).sort_by("row")
                )

        rows, made = sum(one.facts.rows for one in group), sum(one.facts.made for one in group)
        counts = {
            "reader": self.mapping.name,
            "rows": rows,
            "made": made,
            "quarantined": sum(one.facts.bad_rows for one in group),
            "files": [one.facts.to_json() for one in group],
        }
        appended = self.log.append(
            events.cast(arrow_schema()), batch=digest, validated_by=stamp, counts=counts, before=before
        )
        outcome = self.outcome
        outcome.files += len(group)
        outcome.rows += rows
        outcome.made += made
        outcome.accepted += appended.accepted
        outcome.copies += appended.copies
        bad = pa.concat_tables([one.bad for one in group] + rejected)
        outcome.quarantined = merge_counts([outcome.quarantined, count_rules(bad)])

    def document(self) -> None:
        """The files of this run beside their history, for the Data Docs."""
        if self.judged:
            from validation.suites import BATCH_FACTS

            frame = pd.DataFrame(self.judged, columns=["file", "rows", *BATCH_FACTS])
            self.gate.check_batches(frame.astype(dict.fromkeys(BATCH_FACTS, float)))

    def _balance(self, group: Sequence[Prepared], appended: Appended) -> None:
        given = sum(one.facts.rows + one.facts.made for one in group)
        out = (
            sum(one.facts.bad_rows for one in group) + appended.accepted + appended.copies + appended.rejected.num_rows
        )
        assert given == out, (given, out)  # noqa: S101 - broken balance is our defect: stop before anything is published

    def _refuse(self, group: Sequence[Prepared], failed: Sequence[Failed]) -> None:
        """GX found what the row rules let through: none of the group enters."""
        for one in group:
            self.history.remove(one.facts)
            self._stop(one.facts.file, one.facts.rows, [failure.stop() for failure in failed])

    def _stop(self, file: str, rows: int, stops: Sequence[Stop], rules: Sequence[RuleCount] = ()) -> None:
        self.outcome.stopped.append(Stopped(file=file, rows=rows, stops=tuple(stops), rules=tuple(rules)))


def _rejected_rows(group: Sequence[Prepared], events: pa.Table, appended: Appended) -> list[pa.Table]:
    """What the log handed back, as `QUARANTINE_SCHEMA`, one table for each file of the group."""
    ends = np.cumsum([one.events.num_rows for one in group])
    owner = np.searchsorted(ends, appended.rejected["row"].to_numpy(), side="right")
    table = handed_back(
        appended,
        events["event_id"],
        files=[group[index].facts.file for index in owner],
        rows=np.concatenate([one.rows for one in group]),
    )
    return [table.filter(pa.array(owner == index)) for index in range(len(group))]


@contextmanager
def one_at_a_time(settings: Settings) -> Iterator[None]:
    """Two intakes at once would judge the same file twice: the second waits for the first."""
    settings.shop_home.mkdir(parents=True, exist_ok=True)
    with (settings.shop_home / ".intake.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
