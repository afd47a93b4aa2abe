"""An explained decision as a text that a person reads: asked, known, decided, and whether all of it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from serving.decision_rows import KNOWN, OFFSET, READ_AT, REQUEST

if TYPE_CHECKING:
    from serving.explain import Again, Explained

_SHOWN = 5
_ROWS = 10


def render(found: Explained) -> str:
    """The text; of a request with many rows the first ones."""
    first = found.rows[0]
    ms = first["latency_us"] / 1000
    lines = [
        f"request {first['request_id']}, {_short(first['received'])} UTC, answered in {ms:.1f} ms",
        f"  by {first['model']}, log offset {first['offset']:,}, as of {_short(first['t'])} UTC",
        *_asked(first),
    ]
    for number, (row, decided) in enumerate(zip(found.rows[:_ROWS], found.decided[:_ROWS], strict=True)):
        if len(found.rows) > 1:
            lines += ["", f"-- row {number} of {len(found.rows)}: {row['user_id']}"]
        lines += [*_known(found, row, number), *_decided(row, decided), *_why(found.again, number)]
    if len(found.rows) > _ROWS:
        lines += ["", f"-- {len(found.rows) - _ROWS} further rows: --json shows them"]
    lines += ["", *_checks(found)]
    if found.other:
        lines += ["", *_other(found, found.other)]
    return "\n".join(lines)


def _asked(row: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "asked")
    given = {name.removeprefix(REQUEST): value for name, value in row.items() if name.startswith(REQUEST)}
    yield from _table({name: value for name, value in given.items() if value is not None})


def _known(found: Explained, row: Mapping[str, Any], number: int) -> Iterator[str]:
    yield from ("", "known")
    for view, names in found.views.items():
        whose = " and ".join(_short(row[key]) for key in found.keys[view])
        if not row[f"{KNOWN}{view}"]:
            yield f"  {view} of {whose}: nothing"
            continue
        yield f"  {view} of {whose}, at offset {row[f'{OFFSET}{view}']:,}, as of {_short(row[f'{READ_AT}{view}'])}"
        values = {name: row[f"{view}__{name}"] for name in names}
        for line, name in zip(_table(values), names, strict=True):
            differs = (found.differing or {}).get(f"{view}__{name}")
            offline = "" if differs is None or differs[number] == values[name] else f"   log: {_short(differs[number])}"
            yield f"  {line}{offline}"


def _decided(row: Mapping[str, Any], decided: Mapping[str, Any]) -> Iterator[str]:
    cold = ", something was unknown (cold start)" if row["cold_start"] else ""
    yield from ("", f"decided by {row['answered_by']}{cold}")
    yield from _outcome(decided)


def _outcome(decided: Mapping[str, Any]) -> Iterator[str]:
    rest = {name: value for name, value in decided.items() if name not in ("items", "scores")}
    yield from _table(rest)
    items, scores = decided.get("items"), decided.get("scores") or []
    if items is not None:
        for place, item in enumerate(items[:_SHOWN]):
            yield f"  {place + 1}. {item}" + (f"   {scores[place]:.6g}" if place < len(scores) else "")
        if len(items) > _SHOWN:
            yield f"  ... {len(items)} in all"


def _why(again: Again, number: int) -> Iterator[str]:
    answer = again.answers[number] if number < len(again.answers) else {}
    for one in answer.get("reasons") or answer.get("drivers") or ():
        yield f"  because: {one['text']} ({one['direction']} it by {abs(one['contribution']):.2f} log odds)"
    for item in answer.get("items", ())[:_SHOWN]:
        if item.get("because_of"):
            yield f"  {item['item_id']} because of {', '.join(one['item_id'] for one in item['because_of'])}"


def _checks(found: Explained) -> Iterator[str]:
    if found.differing is None:
        yield f"features: not compared with the event log: {found.problem}"
    else:
        count = sum(map(len, found.views.values()))
        yield (
            f"features: {count - len(found.differing)} of {count} are the same in the event log at that offset and time"
            + (f"; not {', '.join(found.differing)}" if found.differing else "")
        )
    again = found.again
    if again.problem:
        yield f"decision: not made again: {again.problem}"
    else:
        yield "decision: made again, equal to the bit" if again.same else "decision: made again, and it is ANOTHER one"
        if not again.same:
            yield from (line for one in again.outcomes for line in _outcome(one))


def _other(found: Explained, other: Again) -> Iterator[str]:
    if other.problem:
        yield f"under {other.model}: not to be said: {other.problem}"
        return
    yield f"under {other.model}: " + ("the same" if other.same else "another decision")
    if other.from_the_log:
        yield f"  it reads {', '.join(other.from_the_log)} too: taken from the event log"
    for number, outcome in enumerate(other.outcomes[:_ROWS]):
        if len(found.rows) > 1:
            yield f"-- row {number}: {found.rows[number]['user_id']}"
        yield from _outcome(outcome)


def _table(values: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, values), default=0)
    return (f"  {name:<{width}}  {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:  # noqa: ANN401 - a value of any column
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")[:26]
    if isinstance(value, Sequence) and not isinstance(value, str):
        newest = ", ".join(map(_short, value[-_SHOWN:]))
        return f"[{'... ' if len(value) > _SHOWN else ''}{newest}] ({len(value)})"
    return "-" if value is None else str(value)
