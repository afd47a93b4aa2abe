"""What moved a score in words, made of names and declarations alone: it works for a shop's own features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clicktrail.declarations import Declaration
from clicktrail.encoding import Encoding
from clicktrail.feature_meaning import events_text, meaning_of
from clicktrail.input_spec import SequenceSpec
from clicktrail.rows import Rows
from clicktrail.scales import Scale
from clicktrail.windows import number

_FEW = 100
"""Below this a number is told with a decimal place."""

_TYPES = 3
"""More types of events are not named one by one."""

_UNITS = ((86_400_000_000, "days"), (3_600_000_000, "hours"), (60_000_000, "minutes"), (1_000_000, "seconds"))


def of_numbers(
    encoding: Encoding, declarations: Mapping[str, Declaration], names: Sequence[str], rows: Rows, row: int
) -> str:
    """An aggregate, by the window in which it is furthest from what is usual."""
    name = max(names, key=lambda one: _distance(encoding, one, rows.scalars[one][row]))
    view, _, feature = name.partition("__")
    what = f"{meaning_of(declarations[view], feature)}, of this {entity(declarations[view])}"
    value = rows.scalars[name][row]
    if name in encoding.priors:
        labelled, every = value
        if not every > 0:
            return f"{what}: none yet"
        return (
            f"{what}: {plain(labelled)} of {plain(every)} ({labelled / every:.1%}); usually {encoding.priors[name]:.1%}"
        )
    said = "none" if np.isnan(value) else plain(value)
    return f"{what}: {said}; usually {plain(mean_of(encoding.scales[name]))}"


def of_sequence(encoding: Encoding, declaration: Declaration, rows: Rows, row: int) -> str:
    """A history of events."""
    window = _window(_spec(encoding, declaration.name), rows, row)
    events, whose = _events(declaration), entity(declaration)
    if not len(window):
        return f"no {events} of this {whose} are known"
    times = rows.sequences[declaration.name].values["event_timestamp"]
    return (
        f"the last {len(window)} {events} of this {whose}, the newest {_span(rows.t[row] - times[window[-1]])} before"
    )


def of_field(encoding: Encoding, declarations: Mapping[str, Declaration], field: str, rows: Rows, row: int) -> str:
    """A field of the request beside the history of whoever it is compared with."""
    value = rows.request[field][row]
    if value is None:
        return f"{field} is not given"
    spec = compared_with(encoding, field, rows, row)
    if field in encoding.scales and field in encoding.spec.request_numbers:
        said, common = f"{field} is {plain(value)}", usual(encoding, field, rows, row)
        if spec is None or not common:
            return f"{said}; usually {plain(common)}"
        return f"{said}, {value / common:.1f} x what is usual for this {entity(declarations[spec.view])}"
    if spec is None:
        return f"{field} is {value!r}"
    window, sequence = _window(spec, rows, row), rows.sequences[spec.view]
    texts = [sequence.dictionaries[field][code] for code in sequence.values[field][window] if code >= 0]
    declaration = declarations[spec.view]
    past = f"the last {len(window)} {_events(declaration)} of this {entity(declaration)}"
    same = texts.count(value)
    return f"{field} stands in {same} of {past}" if same else f"{field} is new to {past}"


# ---- what is usual


def usual(encoding: Encoding, field: str, rows: Rows, row: int) -> Any:  # noqa: ANN401 - a number or a text
    """What a field of the request usually is: for this card or user, else for all; None where nobody can say."""
    spec, is_number = compared_with(encoding, field, rows, row), field in encoding.spec.request_numbers
    if spec is None:
        return round(mean_of(encoding.scales[field])) if is_number else None
    window, sequence = _window(spec, rows, row), rows.sequences[spec.view]
    if is_number:
        values = number(sequence, field, window)
        return round(_raw(float(np.nanmean(np.sign(values) * np.log1p(np.abs(values))))))
    codes = sequence.values[field][window]
    codes, counts = np.unique(codes[codes >= 0], return_counts=True)
    return sequence.dictionaries[field][codes[np.argmax(counts)]]


def compared_with(encoding: Encoding, field: str, rows: Rows, row: int) -> SequenceSpec | None:
    """The sequence that says what is usual of a field: the first one that has it, and a value of it here."""
    for spec in encoding.spec.sequences:
        if field not in (*spec.same, *spec.numbers):
            continue
        window, sequence = _window(spec, rows, row), rows.sequences[spec.view]
        if field in sequence.dictionaries:
            known = sequence.values[field][window] >= 0
        else:
            known = ~np.isnan(number(sequence, field, window))
        if known.any():
            return spec
    return None


def mean_of(scale: Scale) -> float:
    """The number that is scaled to 0: the mean of the training range, by logarithms."""
    return _raw(scale.mean)


def _raw(log: float) -> float:
    return math.copysign(math.expm1(abs(log)), log)


def _distance(encoding: Encoding, name: str, value: Any) -> float:  # noqa: ANN401 - a number or a pair
    if name in encoding.priors:
        return 0.0 if np.isnan(value[1]) else float(value[1])
    return 0.0 if np.isnan(value) else abs(float(encoding.scales[name](np.array([value]))[0]))


def _window(spec: SequenceSpec, rows: Rows, row: int) -> np.ndarray:
    """Positions of the events of a row that the model reads."""
    sequence = rows.sequences[spec.view]
    start, end = int(sequence.starts[row]), int(sequence.ends[row])
    return np.arange(max(start, end - spec.last), end)


def _spec(encoding: Encoding, view: str) -> SequenceSpec:
    return next(one for one in encoding.spec.sequences if one.view == view)


# ---- plain text


def entity(declaration: Declaration) -> str:
    """`card`, `user and item`."""
    return " and ".join(key.removesuffix("_id") for key in declaration.entity_keys)


def _events(declaration: Declaration) -> str:
    """Events by their types, where these are few."""
    return events_text(declaration.events) if len(declaration.events) <= _TYPES else "events"


def _span(microseconds: int) -> str:
    """A length of time in the largest unit of which there is one."""
    size, name = next((one for one in _UNITS if microseconds >= one[0]), _UNITS[-1])
    return f"{plain(round(microseconds / size, 1))} {name}"


def plain(value: float) -> str:
    """A number as people write it."""
    return f"{value:,.0f}" if abs(value) >= _FEW or float(value).is_integer() else f"{value:.1f}"
