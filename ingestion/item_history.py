"""The history of the catalogue: a take-in adds a version of each item that is new or changed, and nothing else.

An item that is missing from a newer file keeps its last version. When a version became known is what the source says
(a mapped `known_at`), else: of the first take-in, which is history loaded in bulk, `launched_at`, or always; of later
ones the time of the take-in. No version is ever rewritten; docs/decisions/0018 says what a late `known_at` changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA, KNOWN_AT
from clicktrail.contract import ITEM_COLUMNS, arrow_schema
from validation.routing import QUARANTINE_SCHEMA

_NAMES = tuple(column.name for column in ITEM_COLUMNS)
_LISTED = ", ".join(_NAMES)
_CONTENT = "concat_ws(chr(31), " + ", ".join(f"coalesce(cast({name} as varchar), chr(0))" for name in _NAMES) + ")"


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What a take-in made of the history.

    `history`: `HISTORY_SCHEMA`, by (item_id, known_at); `newest`: the newest good row of each item of this take-in, by
    item (`ITEM_COLUMNS`); `added`: how many versions it added; `refused`: rows that would change the past
    (`QUARANTINE_SCHEMA`).
    """

    history: pa.Table
    newest: pa.Table
    added: int
    refused: pa.Table


def grow(before: pa.Table | None, rows: pa.Table, *, now: int) -> Grown:
    """The history with what a take-in says.

    Args:
        before: the history so far (`HISTORY_SCHEMA`); None at the first take-in.
        rows: `ITEM_COLUMNS`, `known_at` where the source records it, and `__file`, `__row`; good rows, one of each
            item, or of each (item, known_at).
        now: the time of the take-in, microseconds UTC.
    """
    if KNOWN_AT.name in rows.column_names:
        moment = f"epoch_us({KNOWN_AT.name})"
    elif before is None:
        moment = f"coalesce(epoch_us(launched_at), {ALWAYS})"
    else:
        # a clock that was set back, or an item that is launched later: still after the version that it follows
        moment = f"greatest({int(now)}, coalesce(last_known + 1, {ALWAYS}))"
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.register("given", rows)
        con.register("history", HISTORY_SCHEMA.empty_table() if before is None else before)
        con.execute(f"create temp view old as select *, {_CONTENT} as content from history")
        con.execute(
            "create temp view newest_old as select item_id, max(known_at) as last_known, max(version) as last_version, "
            "arg_max(content, known_at) as last_content from old group by item_id"
        )
        con.execute(
            f"create temp table dated as select {_LISTED}, __file, __row, {moment} as moment, {_CONTENT} as content, "
            "last_known, last_version, last_content from given left join newest_old using (item_id)"
        )
        # a row of before the newest version may repeat what is known of that time, and may not say otherwise
        con.execute(
            "create temp table refused as select dated.* from dated asof left join old "
            "on dated.item_id = old.item_id and dated.moment >= old.known_at "
            "where dated.moment <= dated.last_known and dated.content is distinct from old.content"
        )
        con.execute(
            "create temp table later as select *, row_number() over following as nth, "
            "lag(content, 1, last_content) over following as content_before "
            "from dated where last_known is null or moment > last_known "
            "window following as (partition by item_id order by moment)"
        )
        con.execute(
            f"create temp table added as select {_LISTED}, moment as known_at, "
            "coalesce(last_version, 0) + row_number() over (partition by item_id order by moment) as version "
            "from later where (nth = 1 and last_known is null) or content is distinct from content_before"
        )
        columns = f"{_LISTED}, known_at, version"
        grown = con.sql(
            f"select {columns} from history union all select {columns} from added order by item_id, known_at"
        ).to_arrow_table()
        newest = con.sql(
            f"select {_LISTED} from (from dated anti join refused using (__file, __row)) "
            "qualify row_number() over (partition by item_id order by moment desc) = 1 order by item_id"
        ).to_arrow_table()
        refused = con.sql(
            "select __file as file, __row as row, item_id as event_id, 'past_changed' as rule, "
            f"'{KNOWN_AT.name}' as \"column\", cast(make_timestamp(moment) as varchar) as value, "
            "'the item has a version of that time or later, and what was known is never changed' as reason, "
            f"'send the correction with the {KNOWN_AT.name} at which it was made' as remedy, '' as also "
            "from refused order by __file, __row"
        ).to_arrow_table()
        added = con.sql("select count(*) from added").fetchall()[0][0]
    return Grown(
        history=grown.cast(HISTORY_SCHEMA),
        newest=newest.cast(arrow_schema(ITEM_COLUMNS)),
        added=int(added),
        refused=refused.cast(QUARANTINE_SCHEMA),
    )
