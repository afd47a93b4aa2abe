"""Great Expectations suites generated from the contract: nothing here knows a column by name.

Three kinds: one for each contract table (events, items, users), and `batches`, whose rows are the facts of a file
beside its history. Rules that look at several columns of a row come to GX as a computed column `rule: <name>`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, Column, RowRule, row_rules
from validation.batch import Thresholds
from validation.routing import violations


def cross_rules(columns: tuple[Column, ...]) -> tuple[RowRule, ...]:
    """Row rules that no single column states."""
    stated = {f"{column.name}_{what}" for column in columns for what in _stated(column)}
    return tuple(rule for rule in row_rules(columns) if rule.name not in stated)


def contract_expectations(columns: tuple[Column, ...] = EVENT_COLUMNS) -> list[Any]:
    """Expectations of a contract table, in the order of its columns."""
    from great_expectations import expectations as gxe

    rules = cross_rules(columns)
    names = [column.name for column in columns] + [_flag(rule) for rule in rules]
    expected: list[Any] = [gxe.ExpectTableColumnsToMatchOrderedList(column_list=names)]
    for column in columns:
        notes = _notes(column)
        if not column.nullable:
            expected.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name, notes=notes))
        if column.allowed:
            expected.append(
                gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.allowed), notes=notes)
            )
        if column.minimum is not None:
            expected.append(
                gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=column.minimum, notes=notes)
            )
    expected += [
        gxe.ExpectColumnValuesToBeInSet(
            column=_flag(rule), value_set=[False], notes=f"true where {rule.reason}; way out: {rule.remedy}"
        )
        for rule in rules
    ]
    return expected


def contract_frame(table: pa.Table, columns: tuple[Column, ...] = EVENT_COLUMNS) -> pd.DataFrame:
    """A contract table as the frame that `contract_expectations` speak of."""
    flags = violations(table, columns)
    for rule in cross_rules(columns):
        table = table.append_column(_flag(rule), pa.array(flags[rule.name]))
    key = columns[0].name
    encoded = {  # categories: GX looks at each word once; a key never repeats, so its dictionary would be in vain
        name: table[name].dictionary_encode() if pa.types.is_string(table[name].type) and name != key else table[name]
        for name in table.column_names
    }
    return pa.table(encoded).to_pandas()


def batch_expectations(limits: Thresholds) -> list[Any]:
    """What every file of an intake is held to beside its history. No history: no value, which passes."""
    from great_expectations import expectations as gxe

    low: dict[str, float] = {"volume_ratio": limits.volume_low}
    high = {
        "volume_ratio": limits.volume_high,
        "mix_distance": limits.mix,
        "behind_arrival_days": limits.behind_arrival_days,
        "behind_history_days": limits.behind_history_days,
        "unreadable_share": limits.unreadable,
        "quarantined_share": limits.quarantined,
        "changed_kinds": 0.0,
        "unusable": 0.0,
    }
    return [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low.get(name), max_value=highest, notes=_FACTS[name])
        for name, highest in high.items()
    ]


BATCH_FACTS = (
    "volume_ratio",
    "mix_distance",
    "behind_arrival_days",
    "behind_history_days",
    "unreadable_share",
    "quarantined_share",
    "changed_kinds",
    "unusable",
)
"""Columns of the frame that `batch_expectations` speak of, beside `file` and `rows`."""

_FACTS = {
    "volume_ratio": "rows of the file / median rows of the batches before",
    "mix_distance": "total variation distance of event-type shares from the batches before",
    "behind_arrival_days": "newest event before newest arrival, days",
    "behind_history_days": "newest event before the newest event of the batches before, days",
    "unreadable_share": "largest share of values of one column that cannot be read as its type",
    "quarantined_share": "share of rows that break a row rule",
    "changed_kinds": "source columns that hold another type than last time",
    "unusable": "1 where a column is missing or the file cannot be read",
}


def _flag(rule: RowRule) -> str:
    return f"rule: {rule.name}"


def _stated(column: Column) -> list[str]:
    present = [] if column.nullable else ["present"]
    return present + (["known"] if column.allowed else []) + (["minimum"] if column.minimum is not None else [])


def _notes(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.meaning}{unit}"
