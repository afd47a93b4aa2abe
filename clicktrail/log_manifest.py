"""The manifest of an event log: which rows lie in which segment. One file, replaced in one step.

A `Manifest` is one version of the log and never changes; whoever holds an old one and misses a file reads the newest.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clicktrail.publish import publish_bytes

APPENDS = 256
"""So many of the newest appends are listed one by one, since compaction blurs when a row was accepted."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows with start <= offset < stop, in one Parquet file, in the order of their offsets.

    `rows` are those in the file: fewer than stop - start once users were erased. `hidden_rows` of them are of
    forgotten users (their offsets are in the file `hidden`) and go when the segment is written next. Times
    (microseconds) and `digest` speak of the rows that are seen; times are 0 where there are none. `accepted_at` is
    the wall clock (microseconds) when the newest of them was about to be published.
    """

    file: str
    start: int
    stop: int
    rows: int
    min_event: int
    max_event: int
    min_known: int
    max_known: int
    digest: str
    accepted_at: int
    hidden: str = ""
    hidden_rows: int = 0

    @property
    def seen_rows(self) -> int:
        """Rows that readers see."""
        return self.rows - self.hidden_rows

    @property
    def index(self) -> str:
        """File name of the index beside it."""
        return f"{self.file.removesuffix('.parquet')}.index.npy"


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Rows with start <= offset < stop, and what validated them before they came; `by` is empty where nothing did."""

    start: int
    stop: int
    by: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One version of the log.

    `generation` numbers compactions, forgettings and lists of batches: their files are named by it. `batches` and
    `gone` are names of files in the log's folder, empty while there is nothing to say. `appends` are
    (stop, accepted_at) of the newest appends, oldest first. `validations` are (stop, by) of all appends, neighbours
    of the same `by` as one: compaction does not blur who let a row in. Rows that it does not reach are of an older
    Clicktrail, which did not say.
    """

    version: int = 0
    epoch: str = ""
    generation: int = 0
    segments: tuple[Segment, ...] = ()
    forgotten: tuple[str, ...] = ()
    gone: str = ""
    batches: str = ""
    appends: tuple[tuple[int, int], ...] = ()
    validations: tuple[tuple[int, str], ...] = ()

    def within(self, start: int, stop: int) -> tuple[Segment, ...]:
        """Segments that reach into start <= offset < stop."""
        return tuple(one for one in self.segments if one.start < stop and one.stop > start)

    def with_append(self, segment: Segment, accepted_at: int, validated_by: str = "") -> Manifest:
        """The next version: one more segment, accepted now (microseconds)."""
        known = [(one.stop, one.by) for one in self.validated(self.version)]
        if known and known[-1][1] == validated_by:
            known.pop()
        return replace(
            self,
            version=segment.stop,
            segments=(*self.segments, replace(segment, accepted_at=accepted_at)),
            appends=(*self.appends[1 - APPENDS :], (segment.stop, accepted_at)),
            validations=(*known, (segment.stop, validated_by)),
        )

    def validated(self, stop: int) -> list[Validated]:
        """What validated the rows before `stop`: stretches without gaps, in the order of offsets."""
        out: list[Validated] = []
        start = 0
        for end, by in (*self.validations, (self.version, "")):
            if start < min(end, stop):
                out.append(Validated(start=start, stop=min(end, stop), by=by))
                start = end
        return out

    def accepted_at(self, offset: int) -> int:
        """When the row of this offset was accepted, microseconds; of a compacted segment of long ago, its newest row.

        0 where it is not known: the row was erased, or is older than this figure.
        """
        listed_from = self.appends[0][0] if len(self.appends) == APPENDS else 0
        if offset >= listed_from:
            for stop, moment in self.appends:
                if offset < stop:
                    return moment
        return next((one.accepted_at for one in self.segments if one.start <= offset < one.stop), 0)


class ManifestFile:
    """`manifest.json` in a log's folder; a version is parsed once."""

    def __init__(self, path: Path) -> None:
        """`path` is the file; it need not be there yet."""
        self.path = path
        self._met: tuple[tuple[int, int, int], Manifest] | None = None

    def load(self) -> Manifest:
        """The newest version; the very same object until something is published."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return _NOTHING
        with file:
            stat = os.fstat(file.fileno())
            identity = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            met = self._met
            if met is None or met[0] != identity:
                met = self._met = (identity, _from_json(json.loads(file.read()), self.path))
        return met[1]

    def publish(self, manifest: Manifest, name: str) -> None:
        """Make this the newest version; failpoints `<name>.before_rename` and `<name>.after_rename`."""
        whole = replace(manifest, epoch=manifest.epoch or uuid.uuid4().hex)
        content = {"form": _FORM, **vars(whole), "segments": [vars(one) for one in whole.segments]}
        publish_bytes(self.path, json.dumps(content).encode(), name)


_FORM = 2
_NOTHING = Manifest()


def _from_json(content: dict[str, Any], path: Path) -> Manifest:
    if content.pop("form", None) != _FORM:
        message = f"{path} was written by another version of Clicktrail: move the log away and ingest again"
        raise ValueError(message)
    return Manifest(
        **{
            **content,
            "segments": tuple(Segment(**one) for one in content["segments"]),
            "forgotten": tuple(content["forgotten"]),
            "appends": tuple((stop, moment) for stop, moment in content["appends"]),
            "validations": tuple((stop, by) for stop, by in content.get("validations", ())),
        }
    )
