"""Row rules as SQL: which rows may enter, and why the others may not. No row is lost between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, Column, arrow_schema, row_rules

QUARANTINE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("event_id", pa.string()),
        ("rule", pa.string()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
        ("remedy", pa.string()),
        ("also", pa.string()),
    ]
)
"""Grain: one rejected row of a file, under the first rule that it breaks; `also` names the others.

`row` counts from 1 (header lines do not count); `event_id` is the row's key in a side table's quarantine.
An event_id may be null or doubled, so (file, row) names the row.
"""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Values of a column that could not be read as its type: `values` is their text, null where all is well."""

    column: str
    rule: str
    reason: str
    remedy: str
    values: pa.Array | pa.ChunkedArray


@dataclass(frozen=True, kw_only=True)
class Routed:
    """`good`: contract table; `kept`: index of its rows in the table given; `bad`: `QUARANTINE_SCHEMA`."""

    good: pa.Table
    kept: np.ndarray
    bad: pa.Table


def route(
    table: pa.Table,
    *,
    file: str,
    rows: np.ndarray,
    failures: Sequence[Failure] = (),
    columns: tuple[Column, ...] = EVENT_COLUMNS,
    con: duckdb.DuckDBPyConnection | None = None,
) -> Routed:
    """Send every row one of two ways.

    Args:
        table: contract columns of `columns`; any of them may be null.
        file: its name, for the quarantine.
        rows: number of each row in the file; int64 [rows].
        failures: what could not be read; these rules come before the contract's, since they explain them.
        columns: the contract table that it is of.
        con: where to run the query; a database of its own by default, which costs more than 2,000 rows do.
    """
    rules = row_rules(columns)
    conditions = [(one.rule, one.column, f"fail_{index} is not null") for index, one in enumerate(failures)]
    conditions += [(rule.name, rule.column, f"({rule.violated})") for rule in rules]
    reasons = [(one.reason, one.remedy) for one in failures] + [(rule.reason, rule.remedy) for rule in rules]
    values = [f"fail_{index}" for index in range(len(failures))]
    values += [f'cast("{rule.column}" as varchar)' for rule in rules]
    given = table.append_column("__row", pa.array(np.arange(table.num_rows)))
    for index, failure in enumerate(failures):
        given = given.append_column(f"fail_{index}", failure.values)
    first = " ".join(f"when {condition} then {index}" for index, (_, _, condition) in enumerate(conditions))
    value = " ".join(f"when {index} then {text}" for index, text in enumerate(values))
    others = ", ".join(
        f"case when {condition} and code <> {index} then '{name}' end"
        for index, (name, _, condition) in enumerate(conditions)
    )
    with duckdb.connect() if con is None else con.cursor() as own:
        own.execute("set timezone = 'UTC'")
        own.register("given", given)
        found = own.sql(
            f'select __row, "{columns[0].name}" as key, code, case code {value} end as value, '
            f"concat_ws(',', {others}) as also "
            f"from (select *, case {first} end as code from given) where code is not null order by __row"
        ).to_arrow_table()
    at = found["__row"].to_numpy().astype(np.int64)
    codes = found["code"].to_numpy()
    bad = pa.table(
        {
            "file": pa.array([file] * len(at), pa.string()),
            "row": pa.array(rows[at], pa.int64()),
            "event_id": found["key"],
            "rule": pa.array([conditions[code][0] for code in codes], pa.string()),
            "column": pa.array([conditions[code][1] for code in codes], pa.string()),
            "value": found["value"],
            "reason": pa.array([reasons[code][0] for code in codes], pa.string()),
            "remedy": pa.array([reasons[code][1] for code in codes], pa.string()),
            "also": found["also"],
        }
    ).cast(QUARANTINE_SCHEMA)
    kept = np.setdiff1d(np.arange(table.num_rows, dtype=np.int64), at, assume_unique=True)
    good = table if len(at) == 0 else table.take(pa.array(kept))
    return Routed(good=good.select(arrow_schema(columns).names).cast(arrow_schema(columns)), kept=kept, bad=bad)


def violations(table: pa.Table, columns: tuple[Column, ...] = EVENT_COLUMNS) -> dict[str, np.ndarray]:
    """For each row rule, which rows break it; bool [rows]."""
    rules = row_rules(columns)
    flags = ", ".join(f'({rule.violated}) as "{rule.name}"' for rule in rules)
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.register("given", table)
        found = con.sql(f"select {flags} from given").to_arrow_table()
    return {rule.name: found[rule.name].to_numpy(zero_copy_only=False).astype(bool) for rule in rules}
