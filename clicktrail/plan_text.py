"""A plan as a text for a person at a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from clicktrail.backfills import Backfill
from clicktrail.clock import moment
from clicktrail.distributions import Distribution
from clicktrail.feature_meaning import type_text
from clicktrail.plan import Plan
from clicktrail.plan_changes import Change, Kind
from clicktrail.plan_cost import Cost, Measured

_WIDTH = 110
_WHOLE = 1_000
"""Numbers from here on are shown without what comes after the point."""

_SIGNS = {"new": "+", "changed": "~", "removed": "-", "described": "~"}
_WORDS = {"described": "text changed", "same": "as before"}
_KINDS: tuple[Kind, ...] = ("new", "changed", "removed", "described", "same")


def render(plan: Plan) -> str:
    """The plan, line by line."""
    changes = plan.changes
    lines = [
        f"{plan.repo} for shop {plan.shop}, log at offset {plan.log_offset:,}",
        "; ".join(f"{what}: {_counted(getattr(changes, what))}" for what in ("views", "services", "entities")),
    ]
    for one in (*changes.entities, *changes.views, *changes.services):
        if one.kind != "same":
            lines += ["", *_change(one, plan)]
    taken = [one for one in plan.backfills if one.actual_seconds is not None]
    if taken:
        lines += ["", "backfills so far, seconds of the processor", *_backfills(taken)]
    if changes.refusals:
        lines += ["", "feast apply would refuse this:", *(f"  {one}" for one in changes.refusals)]
    return "\n".join(lines)


def _counted(changes: Sequence[Change]) -> str:
    counts = Counter(one.kind for one in changes)
    return ", ".join(f"{counts[kind]} {_WORDS.get(kind, kind)}" for kind in _KINDS if counts[kind]) or "none"


def _change(one: Change, plan: Plan) -> Iterator[str]:
    owner = f", {one.owner}" if one.owner else ""
    yield f"{_SIGNS[one.kind]} {one.name}: {_WORDS.get(one.kind, one.kind)}{owner}"
    if one.description and one.kind == "new":
        yield f"  {one.description}"
    measured = plan.after.get(one.name)
    if not (one.kind == "new" and measured):  # the table of its values says the same
        yield from _listed("", one.schema)
    yield from _listed("", one.texts)
    if measured:
        yield from _measured(one, measured, plan)
    elif one.after is not None and one.kind in ("new", "changed"):
        yield "  the log is empty: there is nothing to measure"
    if one.kind == "removed" and one.before is not None:
        yield "  its state is dropped"
    if one.name in plan.readers:
        found = [f"{reader.kind} {reader.name}" for reader in plan.readers[one.name]]
        yield from _listed("read by  ", [", ".join(found) or "nobody"])


def _listed(title: str, texts: Iterable[str]) -> Iterator[str]:
    indent = " " * len(title)
    for text in texts:
        yield from textwrap.wrap(text, _WIDTH, initial_indent=f"  {title}", subsequent_indent=f"  {indent}    ")


def _measured(one: Change, after: Measured, plan: Plan) -> Iterator[str]:
    cost = after.cost
    old, before = plan.before.get(one.name, ("", None))
    beside = "" if before is None else f", beside {old if old != one.name else 'what is registered'}"
    yield f"  values of {cost.entities} of its entities at {moment(plan.read_at - 1):%Y-%m-%d %H:%M}{beside}"
    types = {} if one.after is None else {name: type_text(type_) for name, type_ in one.after.outputs.items()}
    yield from (f"    {line}" for line in _values(types, after.values, None if before is None else before.values))
    yield f"  state    {cost.state_bytes_mean:,.0f} bytes an entity, {cost.state_bytes_p99:,.0f} at the 99th percentile"
    yield f"  read     {cost.read_ms:.2f} ms an entity"
    yield from _build(cost, plan.log_offset)


def _build(cost: Cost, log_rows: int) -> Iterator[str]:
    if cost.update_us is None or cost.backfill_seconds is None:
        yield "  update   not measured: none of the log's last rows touches it"
        return
    yield f"  update   {cost.update_us:.1f} us an event"
    yield (
        f"  backfill {cost.backfill_seconds:.1f} s of the processor predicted: "
        f"{cost.rows:,} of {log_rows:,} log rows touch it"
    )


def _values(types: dict[str, str], after: dict[str, Distribution], before: dict[str, Distribution] | None) -> list[str]:
    """A table of the features' distributions, two lines where they differ from before."""
    beside = before is not None
    then = before or {}
    rows: list[tuple[str, ...]] = [
        ("feature", "type", *([""] if beside else []), "null", "low", "mean", "high", "examples")
    ]
    for name, now in after.items():
        if name in then and then[name] != now:
            rows.append((name, types[name], "before", *_figures(then[name])))
            rows.append(("", "", "after", *_figures(now)))
        else:
            mark = ["same" if name in then else "new"] if beside else []
            rows.append((name, types[name], *mark, *_figures(now)))
    rows += [(name, "", "gone", *_figures(one)) for name, one in then.items() if name not in after]
    return _aligned(rows)


def _figures(one: Distribution) -> tuple[str, ...]:
    numbers = tuple(_number(one, number) for number in (one.low, one.mean, one.high))
    return (f"{one.null_share:.0%}", *numbers, ", ".join(one.examples))


def _number(one: Distribution, number: float | None) -> str:
    if number is None:
        return "-"
    if one.measured == "time":
        return f"{moment(int(number)):%Y-%m-%d}"
    text = f"{number:,.3g}" if number != int(number) and abs(number) < _WHOLE else f"{number:,.0f}"
    return f"{text} long" if one.measured == "length" else text


def _backfills(taken: Sequence[Backfill]) -> list[str]:
    rows = [("view", "predicted", "taken", "by the clock")]
    rows += [
        (one.view, f"{one.predicted_seconds:.1f}", f"{one.processor_seconds:.1f}", f"{one.actual_seconds:.1f}")
        for one in taken
    ]
    return [f"  {line}" for line in _aligned(rows)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
