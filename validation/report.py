"""What a person reads after an intake: which rule, how many, three examples, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

EXAMPLES = 3
_WIDE = 60


@dataclass(frozen=True, kw_only=True)
class RuleCount:
    """Rejected rows under one rule. `examples` are `file row 7: value`."""

    rule: str
    count: int
    examples: tuple[str, ...]
    remedy: str


def count_rules(rows: pa.Table) -> list[RuleCount]:
    """Rejected rows (`QUARANTINE_SCHEMA`) by rule, most frequent first."""
    found: dict[str, list[int]] = {}
    for index, rule in enumerate(rows["rule"].to_pylist()):
        found.setdefault(rule, []).append(index)
    counted = []
    for rule, indices in found.items():
        shown = rows.take(indices[:EXAMPLES]).to_pylist()
        counted.append(
            RuleCount(
                rule=rule,
                count=len(indices),
                examples=tuple(f"{one['file']} row {one['row']}: {_short(one['value'])}" for one in shown),
                remedy=shown[0]["remedy"],
            )
        )
    return sorted(counted, key=lambda one: (-one.count, one.rule))


def merge_counts(lists: Sequence[Sequence[RuleCount]]) -> list[RuleCount]:
    """Counts of several batches as one."""
    merged: dict[str, RuleCount] = {}
    for one in (count for counts in lists for count in counts):
        have = merged.get(one.rule)
        merged[one.rule] = (
            one
            if have is None
            else RuleCount(
                rule=one.rule,
                count=have.count + one.count,
                examples=(have.examples + one.examples)[:EXAMPLES],
                remedy=have.remedy,
            )
        )
    return sorted(merged.values(), key=lambda one: (-one.count, one.rule))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table; the last column may be as wide as it likes."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    lines = [header, ["-" * min(width, _WIDE) for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def format_rules(counts: Sequence[RuleCount]) -> str:
    """Rules as a table; examples below each other."""
    rows = []
    for one in counts:
        examples = one.examples or ("",)
        rows.append([one.rule, f"{one.count:,}", examples[0], one.remedy])
        rows.extend(["", "", example, ""] for example in examples[1:])
    return format_table(["rule", "rows", "for example (file, row, value)", "what to do"], rows)


def _short(value: str | None) -> str:
    if value is None:
        return "(nothing)"
    text = repr(value) if value.strip() != value or not value else value
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"
