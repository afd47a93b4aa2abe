"""Mapping files: how somebody else's columns become the event contract's. One TOML file a source.

```toml
[files]      # include, exclude (globs); delimiter, encoding, names (of headerless CSV) for text files
[source]     # timezone (of times without an offset), missing (texts that stand for no value),
             # never_read (columns of truth that no mapping may touch)
[columns]    # contract column = "source column", or a table:
             # { column, optional, prefix, values = {theirs = "ours"}, minor_per_unit, epoch, format },
             # { constant = "EUR" }; event_id = { hash = [source columns] } where the source names no events
             # ingested_at = { stream = "column" }           when it arrived was recorded
             #             | { feed = "2h", every = "1d" }   files that arrive so long after their period ends
             #             | { assume = "0s" }               history loaded in bulk: event time + lag
[[labels]]   # label, column, values = {theirs = 1}, ignore = [...], known_after = "7d"
[items]      # files = [globs], and [items.columns] as above: a side table; [users] likewise
             # [items.columns] known_at = "column": where the source records when each row was written
```
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from clicktrail.catalogue import KNOWN_AT
from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, Column
from ingestion.source import FileOptions

SHIPPED = Path(__file__).with_name("mappings")
EPOCHS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds in a unit of epoch time; `ns` has a thousand in one microsecond and is handled apart."""

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}

Arrival = Literal["stream", "feed", "assume"]


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """Where one contract column comes from: a source column or a constant.

    `values` names theirs -> ours (anything else is unreadable); `minor_per_unit` makes money of a decimal;
    `epoch` (s, ms, us, ns) or `format` (strptime) reads times; ISO 8601 needs neither.
    """

    target: Column
    source: str = ""
    constant: str | None = None
    optional: bool = False
    prefix: str = ""
    values: Table[str, str] | None = None
    minor_per_unit: int = 0
    epoch: str = ""
    format: str = ""


@dataclass(frozen=True, kw_only=True)
class ArrivalMapping:
    """What `ingested_at` means: recorded in a column, or derived. Times in microseconds."""

    kind: Arrival
    column: ColumnMapping | None = None
    lag: int = 0
    every: int = 0


@dataclass(frozen=True, kw_only=True)
class LabelMapping:
    """A column that says something of its own row, which only became known `known_after` microseconds later."""

    label: str
    source: str
    values: Table[str, int]
    ignore: tuple[str, ...]
    known_after: int


@dataclass(frozen=True, kw_only=True)
class SideTable:
    """A side table: which files, which columns."""

    files: tuple[str, ...]
    columns: tuple[ColumnMapping, ...]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A whole mapping file. `name` is what batches are recorded under."""

    name: str
    path: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    options: FileOptions
    timezone: str = "UTC"
    missing: tuple[str, ...] = ("",)
    columns: tuple[ColumnMapping, ...]
    arrival: ArrivalMapping
    hashed_id: tuple[str, ...] = ()
    labels: tuple[LabelMapping, ...] = ()
    items: SideTable | None = None
    users: SideTable | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Source columns that an event file must have."""
        mapped = (one.source for one in self._every() if one.source and not one.optional)
        return tuple(dict.fromkeys([*mapped, *self.hashed_id, *(label.source for label in self.labels)]))

    @property
    def optional(self) -> tuple[str, ...]:
        """Source columns that an event file may lack."""
        return tuple(one.source for one in self._every() if one.optional)

    def _every(self) -> tuple[ColumnMapping, ...]:
        return (*self.columns, self.arrival.column) if self.arrival.column else self.columns


def shipped() -> list[str]:
    """Names of the mappings that come with the project."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_mapping(reader: str) -> Mapping:
    """Read a mapping by shipped name or by the path of a TOML file.

    Raises:
        ValueError: no such mapping, or what is wrong in it, where, and the way out.
    """
    path = SHIPPED / f"{reader}.toml" if reader in shipped() else Path(reader)
    if not path.is_file():
        near = difflib.get_close_matches(reader, shipped(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        message = f"--reader {reader}: neither a shipped mapping ({', '.join(shipped())}) nor a TOML file{hint}"
        raise ValueError(message)
    content = path.read_bytes()
    try:
        tree = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path}: not a TOML file: {error}"
        raise ValueError(message) from error
    # two files of one name are two readers: their histories must not mix
    name = (
        path.stem
        if path.parent == SHIPPED
        else f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    )
    return parse_mapping(tree, name=name, path=path)


def parse_mapping(tree: dict[str, Any], *, name: str, path: Path) -> Mapping:
    """A mapping from its parsed TOML.

    Raises:
        ValueError: an unknown key, an unknown contract column, a wrong value.
    """
    where = _Where(path)
    where.known(tree, ("description", "files", "source", "columns", "labels", "items", "users"), "")
    files, source = where.table(tree, "files"), where.table(tree, "source")
    where.known(files, ("include", "exclude", "delimiter", "encoding", "names"), "files")
    where.known(source, ("timezone", "missing", "never_read"), "source")
    timezone = source.get("timezone", "UTC")
    if timezone not in zoneinfo.available_timezones():
        where.fail("source.timezone", f"{timezone!r} is no time zone: use an IANA name such as UTC or Asia/Shanghai")
    try:
        codecs.lookup(files.get("encoding", "utf8"))
    except (LookupError, TypeError):
        where.fail("files.encoding", f"{files['encoding']!r} is no encoding: use a name such as utf8 or latin1")
    columns = dict(where.table(tree, "columns"))
    for needed in ("event_type", "event_timestamp", "ingested_at", "event_id"):
        if needed not in columns:
            where.fail(f"columns.{needed}", f"is missing: {_HELP[needed]}")
    arrival = _arrival(where, columns.pop("ingested_at"))
    hashed = _hashed(where, columns)
    labels = tuple(_label(where, entry, index) for index, entry in enumerate(tree.get("labels", ())))
    mapping = Mapping(
        name=name,
        path=path,
        include=where.strings(files, "include", "files"),
        exclude=where.strings(files, "exclude", "files"),
        options=FileOptions(
            delimiter=str(files.get("delimiter", "")),
            encoding=str(files.get("encoding", "utf8")),
            names=where.strings(files, "names", "files"),
        ),
        timezone=timezone,
        missing=("", *where.strings(source, "missing", "source")),
        columns=_columns(where, columns, EVENT_COLUMNS, "columns"),
        arrival=arrival,
        hashed_id=hashed,
        labels=labels,
        items=_side(where, tree, "items", (*ITEM_COLUMNS, KNOWN_AT)),
        users=_side(where, tree, "users", USER_COLUMNS),
    )
    secret = set(where.strings(source, "never_read", "source")) & {*mapping.required, *mapping.optional}
    if secret:
        where.fail("source.never_read", f"{min(secret)} is read by the mapping all the same: take it out of one")
    return mapping


def parse_duration(text: str) -> int:
    """`90s`, `15m`, `2h`, `7d` (also ms, us) in microseconds.

    Raises:
        ValueError: not of that form.
    """
    found = re.fullmatch(r"(\d+)\s*(us|ms|s|m|h|d)", text.strip()) if isinstance(text, str) else None
    if not found:
        message = f"{text!r} is no duration: write a whole number and us, ms, s, m, h or d, for example 7d"
        raise ValueError(message)
    return int(found[1]) * _UNITS[found[2]]


_HELP = {
    "event_id": 'map a column, or write event_id = { hash = ["user", "item", "time"] } where events have no name',
    "event_type": 'map a column, or write event_type = { constant = "payment" }',
    "event_timestamp": "map the column that says when it happened",
    "ingested_at": 'say what it means: { stream = "column" }, { feed = "2h", every = "1d" } or { assume = "0s" }',
}


@dataclass(frozen=True)
class _Where:
    """Names the place of a mistake in a mapping file."""

    path: Path

    def fail(self, key: str, what: str) -> None:
        message = f"{self.path}: {key}: {what}"
        raise ValueError(message)

    def known(self, table: Table[str, Any], allowed: Iterable[str], key: str) -> None:
        allowed = list(allowed)
        for name in table:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, 1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(allowed)}"
                self.fail(f"{key}.{name}" if key else name, f"unknown key; {hint}")

    def table(self, tree: Table[str, Any], key: str) -> dict[str, Any]:
        found = tree.get(key, {})
        if not isinstance(found, dict):
            self.fail(key, f"must be a table: write [{key}]")
        return found

    def strings(self, table: Table[str, Any], key: str, above: str) -> tuple[str, ...]:
        found = table.get(key, ())
        if isinstance(found, str) or not all(isinstance(one, str) for one in found):
            self.fail(f"{above}.{key}", 'must be a list of texts: ["a", "b"]')
        return tuple(found)

    def duration(self, text: str, key: str) -> int:
        try:
            return parse_duration(text)
        except ValueError as error:
            self.fail(key, str(error))
            raise


def _columns(where: _Where, table: Table[str, Any], contract: Sequence[Column], key: str) -> tuple[ColumnMapping, ...]:
    targets = {column.name: column for column in contract}
    where.known(table, targets, key)
    return tuple(_column(where, table[name], targets[name], f"{key}.{name}") for name in targets if name in table)


def _column(where: _Where, entry: str | dict[str, Any], target: Column, key: str) -> ColumnMapping:
    if isinstance(entry, str):
        entry = {"column": entry}
    if not isinstance(entry, dict):
        where.fail(key, 'must be "source column" or a table such as { column = "price", minor_per_unit = 100 }')
    text, number = pa.types.is_string(target.type), pa.types.is_integer(target.type)
    own = ["prefix", "values"] if text else ["minor_per_unit"] if number else ["epoch", "format"]
    where.known(entry, ["column", "constant", "optional", *own], key)
    if ("column" in entry) == ("constant" in entry):
        where.fail(key, "give it either `column` or `constant`")
    epoch = entry.get("epoch", "")
    if epoch and epoch not in {*EPOCHS, "ns"}:
        where.fail(f"{key}.epoch", f"{epoch!r} is no unit: use s, ms, us or ns")
    factor = entry.get("minor_per_unit", 0)
    if "minor_per_unit" in entry and (not isinstance(factor, int) or factor < 1):
        where.fail(f"{key}.minor_per_unit", "must be a whole number such as 100 (cents in a euro)")
    return ColumnMapping(
        target=target,
        source=str(entry.get("column", "")),
        constant=_constant(where, entry, target, key),
        optional=bool(entry.get("optional", False)),
        prefix=str(entry.get("prefix", "")),
        values=_values(where, entry, target, key),
        minor_per_unit=factor,
        epoch=epoch,
        format=str(entry.get("format", "")),
    )


def _constant(where: _Where, entry: Table[str, Any], target: Column, key: str) -> str | None:
    if "constant" not in entry:
        return None
    constant = str(entry["constant"])
    if target.allowed and constant not in target.allowed:
        where.fail(f"{key}.constant", f"{constant!r} is none of the contract's: {', '.join(target.allowed)}")
    whole = pa.types.is_integer(target.type) and re.fullmatch(r"-?\d{1,18}", constant)
    if not pa.types.is_string(target.type) and not whole:
        where.fail(f"{key}.constant", f"{constant!r} is no {target.type}: map a column that holds it")
    return constant


def _values(where: _Where, entry: Table[str, Any], target: Column, key: str) -> dict[str, str] | None:
    if "values" not in entry:
        return None
    values = entry["values"]
    if not isinstance(values, dict) or not values:
        where.fail(f"{key}.values", 'must name theirs = "ours"')
    wrong = sorted({str(ours) for ours in values.values()} - set(target.allowed)) if target.allowed else []
    if wrong:
        where.fail(f"{key}.values", f"{wrong[0]!r} is none of the contract's: {', '.join(target.allowed)}")
    return {str(theirs): str(ours) for theirs, ours in values.items()}


_ARRIVAL_COLUMN = next(column for column in EVENT_COLUMNS if column.name == "ingested_at")


def _arrival(where: _Where, entry: dict[str, Any]) -> ArrivalMapping:
    key = "columns.ingested_at"
    kinds = [kind for kind in ("stream", "feed", "assume") if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        where.fail(key, _HELP["ingested_at"])
    if kinds[0] == "stream":
        where.known(entry, ("stream", "epoch", "format"), key)
        rest = {name: value for name, value in entry.items() if name != "stream"}
        return ArrivalMapping(
            kind="stream", column=_column(where, {"column": entry["stream"], **rest}, _ARRIVAL_COLUMN, key)
        )
    if kinds[0] == "feed":
        where.known(entry, ("feed", "every"), key)
        every = where.duration(entry.get("every", "1d"), f"{key}.every")
        if every < 1:
            where.fail(f"{key}.every", "a period must last longer than nothing")
        return ArrivalMapping(kind="feed", lag=where.duration(entry["feed"], f"{key}.feed"), every=every)
    where.known(entry, ("assume",), key)
    return ArrivalMapping(kind="assume", lag=where.duration(entry["assume"], f"{key}.assume"))


def _hashed(where: _Where, columns: dict[str, Any]) -> tuple[str, ...]:
    entry = columns["event_id"]
    if not isinstance(entry, dict) or "hash" not in entry:
        return ()
    where.known(entry, ("hash",), "columns.event_id")
    names = where.strings(entry, "hash", "columns.event_id")
    if not names:
        where.fail("columns.event_id.hash", "name the source columns that tell one event from another")
    del columns["event_id"]
    return names


def _label(where: _Where, entry: dict[str, Any], index: int) -> LabelMapping:
    key = f"labels[{index}]"
    where.known(entry, ("label", "column", "values", "ignore", "known_after"), key)
    for needed in ("label", "column", "values", "known_after"):
        if needed not in entry:
            where.fail(key, f"{needed} is missing: a label needs label, column, values and known_after")
    values = entry["values"]
    if not isinstance(values, dict) or not all(value in (0, 1) for value in values.values()):
        where.fail(f"{key}.values", 'must name theirs = 1 (it is so) or 0 (it is not): { "1" = 1 }')
    return LabelMapping(
        label=str(entry["label"]),
        source=str(entry["column"]),
        values={str(theirs): int(ours) for theirs, ours in values.items()},
        ignore=where.strings(entry, "ignore", key),
        known_after=where.duration(entry["known_after"], f"{key}.known_after"),
    )


def _side(where: _Where, tree: Table[str, Any], key: str, contract: Sequence[Column]) -> SideTable | None:
    if key not in tree:
        return None
    table = where.table(tree, key)
    where.known(table, ("files", "columns"), key)
    columns = _columns(where, where.table(table, "columns"), contract, f"{key}.columns")
    first = contract[0].name
    if first not in {column.target.name for column in columns}:
        where.fail(f"{key}.columns.{first}", "is missing: it names the rows")
    files = where.strings(table, "files", key)
    if not files:
        where.fail(f"{key}.files", f'say where they are: files = ["{key}.parquet"]')
    return SideTable(files=files, columns=columns)
