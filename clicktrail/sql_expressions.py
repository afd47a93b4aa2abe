"""SQL expressions over the events of a window: checked when they are declared, run by DuckDB at both doors.

The expression sees one table of the visible events of one window; it cannot reach past it. One thread and
the contract's order make an order-dependent answer the same offline and online.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS
from clicktrail.declarations import DERIVED_FIELDS, field_type

_FIELDS = tuple(name for name in (*(column.name for column in EVENT_COLUMNS), *DERIVED_FIELDS))
_HELD_BACK = ("event_id", "ingested_at", "source_seq", "label_of", "label", "label_value")
_USABLE = tuple(name for name in _FIELDS if name not in _HELD_BACK)
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "BOOLEAN")
_CHANGING = frozenset(
    (
        "now",
        "current_timestamp",
        "get_current_timestamp",
        "transaction_timestamp",
        "current_date",
        "today",
        "current_time",
        "get_current_time",
        "random",
        "setseed",
        "uuid",
        "gen_random_uuid",
        "txid_current",
        "nextval",
        "currval",
        "approx_count_distinct",
        "approx_quantile",
        "reservoir_quantile",
    )
)


def check(expression: str, name: str) -> tuple[tuple[str, ...], str]:
    """The fields that an expression reads, sorted, and the type that it gives (int64, float64 or string).

    Raises:
        ValueError: it is no aggregate expression, reads an unknown field or another table, or its answer changes.
    """
    with _connect() as con:
        # as a function's argument: what would end the select list is no expression
        tree = json.loads(
            con.execute("select json_serialize_sql($1)", [f"select ({expression}) as x"]).fetchall()[0][0]
        )
        if tree["error"]:
            message = f"sql feature {name!r}: {tree['error_message']}"
            raise ValueError(message)
        nodes = list(_nodes(tree["statements"]))
        columns = {node["column_names"][-1] for node in nodes if node.get("class") == "COLUMN_REF"}
        called = {str(node.get("function_name", "")).lower() for node in nodes} | {one.lower() for one in columns}
        unknown, changing = sorted(columns - set(_FIELDS)), sorted(called & _CHANGING)
        unknown += sorted(columns & set(_HELD_BACK))
        if changing or any(node.get("class") == "SUBQUERY" for node in nodes) or len(tree["statements"]) != 1:
            message = (
                f"sql feature {name!r}: {changing or 'a query'} gives other answers each time: use the events alone"
            )
            raise ValueError(message)
        if unknown:
            message = f"sql feature {name!r}: there is no field {unknown}; choose among: {', '.join(_USABLE)}"
            raise ValueError(message)
        uses = tuple(sorted(columns))
        schema = pa.schema([("row", pa.int64()), *((field, field_type(field)) for field in uses)])
        con.register("contents", schema.empty_table())
        try:
            described = con.execute(f"describe select ({expression}) as x from contents group by row").fetchall()
        except duckdb.Error as error:
            message = f"sql feature {name!r}: {error}; give one aggregate expression, such as count(distinct item_id)"
            raise ValueError(message) from error
    given = described[0][1]
    if given in _INTEGERS:
        return uses, "int64"
    if given in ("DOUBLE", "FLOAT") or given.startswith("DECIMAL"):
        return uses, "float64"
    if given == "VARCHAR":
        return uses, "string"
    message = f"sql feature {name!r} gives {given}: cast it to bigint, double or varchar"
    raise ValueError(message)


def evaluate(expression: str, sql_type: str, contents: pa.Table, rows: int) -> pa.Array:
    """Run an expression over the windows of `rows` rows.

    Args:
        expression: a checked one.
        sql_type: the type that it gives.
        contents: `row` int64 [events], rising, and the fields that it uses, in the contract's order within a row.
        rows: how many there are; one without events gets what the expression says of nothing.

    Returns:
        [rows].
    """
    cast = {"int64": "bigint", "float64": "double", "string": "varchar"}[sql_type]
    with _connect() as con:
        con.register("contents", contents)
        found = con.sql(f"select row, cast(({expression}) as {cast}) as x from contents group by row").to_arrow_table()
        con.register("contents", contents.slice(0, 0))
        nothing = con.sql(f"select cast(({expression}) as {cast}) as x from contents").to_arrow_table()["x"]
    place = np.full(rows, -1, np.int64)
    place[found["row"].to_numpy()] = np.arange(found.num_rows)
    values = pa.concat_arrays([*found["x"].chunks, *nothing.chunks])
    return values.take(pa.array(np.where(place < 0, found.num_rows, place)))


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 1})
    con.execute("set timezone = 'UTC'")
    return con


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
