"""What a feature means, in a sentence that follows from its declaration."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES
from clicktrail.declarations import Aggregate, Declaration
from clicktrail.request_declarations import RequestView

_SPANS = ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"))
_KINDS = {
    "count": "Number of {events}",
    "sum": "Sum of {field} of {events}",
    "mean": "Mean {field} of {events}",
    "std": "Standard deviation of {field} of {events}",
    "min": "Smallest {field} of {events}",
    "max": "Largest {field} of {events}",
    "distinct": "Number of different {field} among {events}",
    "first": "{field} of the first {event}",
    "last": "{field} of the last {event}",
    "most_frequent": "Most frequent {field} of {events}",
    "top": "The {k} most frequent {field} of {events}",
    "time_since": "Seconds since the last {event}",
    "mean_gap": "Mean time between one and the next of {events}",
    "std_gap": "Standard deviation of the times between one and the next of {events}",
    "sql": "{sql} of {events}",
}
_REQUEST_KINDS = {
    "count_with": "{of[0]}, the request's own event included",
    "total_with": "{of[0]}, the request's own {of[1]} included",
    "mean_with": "{of[0]} divided by {of[1]}, the request's own {of[2]} included in both",
    "largest_with": "The larger of {of[0]} and the request's {of[1]}",
    "times_mean": "How many times the mean ({of[1]} divided by {of[2]}) the request's {of[0]} is",
    "share": "{of[0]} as one number: labelled divided by all{none}",
    "due": "Of how many events {of[0]} speaks",
    "difference": "{of[0]} less {of[1]}",
    "quotient": "{of[0]} divided by {of[1]}",
    "hour_of_day": "Hour of the request's time, 0 to 23, UTC",
    "day_of_week": "Day of the request's time, Monday 0 to Sunday 6, UTC",
    "is_weekend": "1 where the request comes on a Saturday or Sunday, else 0; UTC",
    "is_night": "1 where the request's hour is less than {before}, else 0; UTC",
}


def meaning_of(declaration: Declaration, feature: str) -> str:
    """A sentence without its full stop: what a feature of a view is.

    Raises:
        KeyError: the view has no such feature.
    """
    if feature not in declaration.outputs:
        raise KeyError(feature)
    if declaration.is_sequence:
        return _sequence(declaration, feature)
    return _aggregate(next(one for one in declaration.aggregates if one.name == feature))


def request_meaning_of(view: RequestView, feature: str) -> str:
    """The same of a feature that is made when it is asked for; a stored feature in it is called view.feature.

    Raises:
        KeyError: the view has no such feature.
    """
    one = next((known for known in view.features if known.name == feature), None)
    if one is None:
        raise KeyError(feature)
    none = "" if one.none is None else f"; {one.none:g} where there is nothing to divide by"
    of = [operand.replace("__", ".", 1) for operand in one.of]
    return _REQUEST_KINDS[one.kind].format(of=of, none=none, before=one.before)


def type_text(type_: pa.DataType) -> str:
    """An Arrow type as people say it: `list of string`, `timestamp`."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return f"list of {type_text(type_.value_type)}"
    return "float64" if pa.types.is_float64(type_) else str(type_).partition("[")[0]


def span_text(microseconds: int) -> str:
    """A length of time in its largest whole unit: `7 days`, `90 minutes`."""
    for size, name in _SPANS:
        if microseconds and microseconds % size == 0:
            number = microseconds // size
            return f"{number} {name}{'' if number == 1 else 's'}"
    return f"{microseconds} microseconds"


def events_text(events: Sequence[str], noun: str = "events") -> str:
    """The events that are looked at: `view or cart events`."""
    if set(events) == set(BEHAVIOUR_TYPES):
        return f"{noun} of any kind"
    *others, last = events
    return f"{', '.join(others)} or {last} {noun}" if others else f"{last} {noun}"


def _sequence(declaration: Declaration, feature: str) -> str:
    parts = [f"{feature} of the last {declaration.last} {events_text(declaration.events)}"]
    if declaration.within_us is not None:
        parts.append(f" within {span_text(declaration.within_us)}")
    if declaration.session_us is not None:
        ends = f", which a pause of {span_text(declaration.session_us)} ends" if declaration.session_us else ""
        parts.append(f" of the visit that is under way{ends}")
    parts.append(", oldest first")
    if declaration.drop_repeats:
        parts.append(f"; an event with the same {' and '.join(declaration.drop_repeats)} as the one before is left out")
    return "".join(parts)


def _aggregate(one: Aggregate) -> str:
    events, event = events_text(one.events), events_text(one.events, "event")
    if one.kind == "label_rate":
        until = f" up to {span_text(one.delay_us)} ago" if one.delay_us else ""
        said = f"Of {events} of the {_window(one)}{until}: how many are labelled {one.label!r} by now, of how many"
    elif one.kind == "ratio":
        what = "Number" if one.part == "count" else f"Sum of {one.field}"
        said = f"{what} of {events} over the last {_window(one)}, divided by that over {span_text(one.over_us or 0)}"
    else:
        said = _KINDS[one.kind].format(events=events, event=event, field=one.field, k=one.k, sql=one.sql)
        said += "" if one.window_us is None else f" over the last {_window(one)}"
        said += ", the most frequent first" if one.kind == "top" else ""
    return said if not one.hop_us else f"{said}; the window begins at a whole multiple of {span_text(one.hop_us)}"


def _window(one: Aggregate) -> str:
    """`day`, `7 days`: what follows "over the last"."""
    return "whole past" if one.window_us is None else span_text(one.window_us).removeprefix("1 ")
