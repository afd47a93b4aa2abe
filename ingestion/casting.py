"""A source table becomes a contract table: every value read exactly, or named as unreadable. Never a silent null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, Column, arrow_schema
from ingestion.mapping import EPOCHS, ArrivalMapping, ColumnMapping, LabelMapping, Mapping
from ingestion.source import Source, kind_of
from validation.batch import BatchStoppedError, Stop
from validation.routing import Failure

# times outside these are a misread unit or a broken clock, not a time
_EARLIEST, _LATEST = "1970-01-01 00:00:00+00", "2200-01-01 00:00:00+00"
_NUMBER = r"\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
_WHOLE = r"\s*[+-]?[0-9]+(\.0*)?\s*"
_ISO = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}.*"
_EXACT = "decimal(38, 16)"  # as many places as a double can tell apart, before 22 digits
_BOTH_EXACT = 2**53  # whole doubles below this stand for one integer each


@dataclass(frozen=True, kw_only=True)
class Cast:
    """What a source became.

    Attributes:
        table: contract columns, all nullable here (the row rules say what may be null); [rows].
        failures: unreadable values by column; only columns that have some.
        readable: contract column -> [unreadable values, values].
        labels: int64 [rows] of each label mapping, null where the row says nothing.
    """

    table: pa.Table
    failures: tuple[Failure, ...]
    readable: dict[str, list[int]]
    labels: tuple[pa.ChunkedArray, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Read:
    """SQL that reads one source column: `expression` is null where `source` is null or unreadable."""

    name: str
    source: str
    expression: str
    rule: str
    reason: str
    remedy: str


def cast_events(source: Source, mapping: Mapping) -> Cast:
    """An event file's columns as contract columns.

    Raises:
        BatchStoppedError: a column's type can't be read as the contract's at all.
    """
    return _cast(
        source,
        mapping.columns,
        EVENT_COLUMNS,
        mapping,
        arrival=mapping.arrival,
        hashed=mapping.hashed_id,
        labels=mapping.labels,
    )


def cast_side(source: Source, columns: Sequence[ColumnMapping], contract: tuple[Column, ...], mapping: Mapping) -> Cast:
    """A side table's columns as contract columns."""
    return _cast(source, columns, contract, mapping)


def _cast(
    source: Source,
    columns: Sequence[ColumnMapping],
    contract: tuple[Column, ...],
    mapping: Mapping,
    *,
    arrival: ArrivalMapping | None = None,
    hashed: Sequence[str] = (),
    labels: Sequence[LabelMapping] = (),
) -> Cast:
    given, kinds, names = _prepare(source)
    mapped = [*columns, arrival.column] if arrival and arrival.column else list(columns)
    reads = [
        _read(one, names[one.source], given[names[one.source]].type, kinds[one.source], mapping)
        for one in mapped
        if one.source in names
    ]
    reads += [
        _read_label(one, index, names[one.source], given[names[one.source]].type, kinds[one.source])
        for index, one in enumerate(labels)
    ]
    constants = {one.target.name: _quote(one.constant) for one in columns if one.constant is not None}
    texts = [_text(names[name], given[names[name]].type, kinds[name]) for name in hashed]
    missing = ", ".join(_quote(word) for word in mapping.missing)
    cleaned = [
        f"case when {name} in ({missing}) then null else {name} end as {name}" if kinds[column] == "text" else name
        for column, name in names.items()
    ]
    with duckdb.connect() as con:
        con.execute(f"set timezone = {_quote(mapping.timezone)}")
        con.register("given", given)
        con.execute(f"create temp view cleaned as select {', '.join([*cleaned, '__row'])} from given")
        values = ", ".join(["*", *(f"{one.expression} as {_as(one.name)}" for one in reads)])
        if texts:
            joined = "concat_ws(chr(31), " + ", ".join(f"coalesce({text}, chr(0))" for text in texts) + ")"
            values += f", md5({joined}) as __hash, row_number() over (partition by {joined} order by __row) as __nth"
        con.execute(f"create temp table read as select {values} from cleaned")
        picked = [_pick(column, reads, constants, arrival, bool(texts), mapping.timezone) for column in contract]
        picked += [f"{_as(f'label_{index}')} as __label_{index}" for index in range(len(labels))]
        picked += [
            f"case when {one.source} is not null and {_as(one.name)} is null then cast({one.source} as varchar) end "
            f"as __failed_{index}"
            for index, one in enumerate(reads)
        ]
        counted = ", ".join(f"count({one.source}), count({_as(one.name)})" for one in reads)
        counts = con.sql(f"select {counted or '0'} from read").fetchall()[0]
        done = con.sql(f"select {', '.join(picked)} from read order by __row").to_arrow_table()
    schema = arrow_schema(contract)
    table = done.select(schema.names).cast(pa.schema([field.with_nullable(nullable=True) for field in schema]))
    failures = tuple(
        Failure(
            column=one.name if not one.name.startswith("label_") else "label_value",
            rule=one.rule,
            reason=one.reason,
            remedy=one.remedy,
            values=done[f"__failed_{index}"].cast(pa.string()),
        )
        for index, one in enumerate(reads)
        if counts[2 * index] > counts[2 * index + 1]
    )
    readable = {
        one.name: [counts[2 * index] - counts[2 * index + 1], counts[2 * index]] for index, one in enumerate(reads)
    }
    return Cast(
        table=table,
        failures=failures,
        readable=readable,
        labels=tuple(done[f"__label_{index}"].cast(pa.int64()) for index in range(len(labels))),
    )


def _prepare(source: Source) -> tuple[pa.Table, dict[str, str], dict[str, str]]:
    """Source columns under plain names, their kinds, and the plain name of each."""
    names = {name: f"s{index}" for index, name in enumerate(source.table.column_names) if name}
    columns, kinds = {}, {}
    for name, plain in names.items():
        column = source.table[name]
        kinds[name] = source.kinds.get(name) or kind_of(column)
        if kinds[name] == "null":  # no value, no type to respect
            column, kinds[name] = pa.chunked_array([pa.nulls(len(column), pa.string())]), "text"
        columns[plain] = column
    return pa.table({**columns, "__row": pa.array(source.rows)}), kinds, names


def _pick(
    column: Column,
    reads: Sequence[_Read],
    constants: dict[str, str],
    arrival: ArrivalMapping | None,
    hashed: bool,  # noqa: FBT001 - private, called once
    timezone: str,
) -> str:
    name = column.name
    if name == "event_id" and hashed:
        return "__hash || case when __nth > 1 then '-' || __nth else '' end as event_id"
    if name == "ingested_at" and arrival and arrival.kind != "stream":
        happened = _as("event_timestamp")
        if arrival.kind == "assume":
            return f"{happened} + to_microseconds({arrival.lag}) as ingested_at"
        # the period ends at a boundary of the source's own clock (midnight there, for days)
        local = f"epoch_us(timezone({_quote(timezone)}, {happened}))"
        ends = f"make_timestamp(({local} // {arrival.every} + 1) * {arrival.every})"
        return f"timezone({_quote(timezone)}, {ends}) + to_microseconds({arrival.lag}) as ingested_at"
    if any(one.name == name for one in reads):
        return f"{_as(name)} as {name}"
    empty = "timestamptz" if pa.types.is_timestamp(column.type) else "bigint" if _is_integer(column) else "varchar"
    # where no column is mapped the order of the file is the order of the source
    other = "__row" if name == "source_seq" else f"null::{empty}"
    return f"{constants.get(name, other)} as {name}"


def _read(one: ColumnMapping, name: str, type_: pa.DataType, kind: str, mapping: Mapping) -> _Read:
    target = one.target
    rule, remedy = f"{target.name}_readable", f"mend source column {one.source}, or its entry in {mapping.path.name}"
    if pa.types.is_string(target.type):
        if kind == "other":
            _refuse(one, type_, "text, a number or a time")
        text = _text(name, type_, kind)
        reason = f"{one.source} is no text"
        if one.values is not None:
            cases = " ".join(f"when {_quote(theirs)} then {_quote(ours)}" for theirs, ours in one.values.items())
            text = f"case {text} {cases} end"
            rule, reason = f"{target.name}_mapped", f"the mapping names no contract value for this {one.source}"
            remedy = f"add it to [columns] {target.name} values in {mapping.path.name}"
        if one.prefix:
            text = f"{_quote(one.prefix)} || {text}"
        return _Read(name=target.name, source=name, expression=text, rule=rule, reason=reason, remedy=remedy)
    if pa.types.is_timestamp(target.type):
        what = f"epoch time in {one.epoch}" if one.epoch else f"a time ({one.format or 'ISO 8601'})"
        return _Read(
            name=target.name,
            source=name,
            expression=_time(one, name, type_, kind),
            rule=rule,
            reason=f"{one.source} cannot be read as {what} between 1970 and 2200",
            remedy=remedy,
        )
    if kind in {"time", "other"}:
        _refuse(one, type_, "a number")
    if one.minor_per_unit:
        expression, what = _money(name, one.minor_per_unit), "a decimal amount"
    else:
        expression, what = _integer(name, type_, kind), "a whole number"
    return _Read(
        name=target.name,
        source=name,
        expression=expression,
        rule=rule,
        reason=f"{one.source} cannot be read as {what}",
        remedy=remedy,
    )


def _read_label(one: LabelMapping, index: int, name: str, type_: pa.DataType, kind: str) -> _Read:
    text = _text(name, type_, kind)
    cases = " ".join(f"when {_quote(theirs)} then {ours}" for theirs, ours in one.values.items())
    # -1 stands for "read, and says nothing": null would mean unreadable
    ignored = " ".join(f"when {_quote(theirs)} then -1" for theirs in one.ignore)
    return _Read(
        name=f"label_{index}",
        source=name,
        expression=f"(case {text} {cases} {ignored} end)",
        rule=f"{one.label}_readable",
        reason=f"the mapping names no label value for this {one.source}",
        remedy=f"add it to values or ignore of label {one.label}",
    )


def _text(name: str, type_: pa.DataType, kind: str) -> str:
    """An id or a word: whole floats (integers that pandas met a null among) without their `.0`."""
    if kind == "number" and pa.types.is_floating(type_):
        whole = f"{name} = trunc({name}) and abs({name}) < {_BOTH_EXACT}"
        return (
            f"case when isfinite({name}) then case when {whole} then cast(cast({name} as bigint) as varchar) "
            f"else cast({name} as varchar) end end"
        )
    return f"cast({name} as varchar)"


def _integer(name: str, type_: pa.DataType, kind: str) -> str:
    if kind == "text":
        return (
            f"case when regexp_full_match({name}, '{_WHOLE}') "
            f"then try_cast(split_part(trim({name}), '.', 1) as bigint) end"
        )
    if pa.types.is_floating(type_):
        return f"case when isfinite({name}) and {name} = trunc({name}) then try_cast({name} as bigint) end"
    if pa.types.is_decimal(type_):
        return f"case when {name} = floor({name}) then try_cast({name} as bigint) end"
    return f"try_cast({name} as bigint)"


def _decimal(name: str) -> str:
    """A number as it is written: doubles through their shortest text, so that 57.16 is 57.16."""
    text = f"trim(cast({name} as varchar))"
    return f"case when regexp_full_match({text}, '{_NUMBER}') then try_cast({text} as {_EXACT}) end"


def _money(name: str, factor: int) -> str:
    """Decimal x factor, half to even: the rounding that adds no bias over many rows."""
    exact = f"try({_decimal(name)} * {factor})"
    floor = f"floor({exact})"
    rest = f"({exact} - {floor})"
    up = f"case when {rest} > 0.5 or ({rest} = 0.5 and {floor} % 2 <> 0) then 1 else 0 end"
    return f"try_cast({floor} + {up} as bigint)"


def _time(one: ColumnMapping, name: str, type_: pa.DataType, kind: str) -> str:
    if kind == "time":
        read = f"cast({name} as timestamptz)"  # without an offset: in the session's zone, which is the mapping's
    elif kind in {"flag", "other"} or (kind == "number" and not one.epoch):
        _refuse(one, type_, "a time, or a number with `epoch` in the mapping")
    elif one.epoch:
        # integer division: a double does not hold nanoseconds since 1970
        whole = f"cast(floor({_decimal(name)}) as hugeint) // 1000"
        scaled = whole if one.epoch == "ns" else f"floor({_decimal(name)} * {EPOCHS[one.epoch]})"
        read = f"try(make_timestamptz(try_cast({scaled} as bigint)))"
    elif one.format:
        read = f"try_cast(try_strptime({name}, {_quote(one.format)}) as timestamptz)"
    else:
        read = f"case when regexp_full_match({name}, '{_ISO}') then try_cast({name} as timestamptz) end"
    return f"case when {read} >= timestamptz '{_EARLIEST}' and {read} < timestamptz '{_LATEST}' then {read} end"


def _refuse(one: ColumnMapping, type_: pa.DataType, wanted: str) -> None:
    stop = Stop(
        rule="type_changed",
        subject=one.source,
        reason=f"source column {one.source} is {type_}, {one.target.name} is made of {wanted}",
        remedy="let the producer send the type that the mapping was written for, or map another column",
    )
    raise BatchStoppedError([stop])


def _is_integer(column: Column) -> bool:
    return bool(pa.types.is_integer(column.type))


def _as(name: str) -> str:
    return f"v_{name}"


def _quote(text: str | None) -> str:
    return "'" + (text or "").replace("'", "''") + "'"
