"""What a model sees, as plain data: which sequences, which numbers, which fields of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RHYTHM = ("visits", "pause_mean", "pause_spread", "pause_last", "pause_now")
"""Values of a request that `SequenceSpec.rhythm` adds; pauses in hundredths of a natural logarithm."""


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """How a sequence view enters: its `last` events, string fields by vocabulary, integer fields by size.

    `same`: string fields compared with the request's; `seen`: string fields, whether the value stood
    earlier in the window; `age`: time from the event to the query; `steps`: change of each number and of
    the gap since the event before; `request`: the request itself comes last, as one more event. `visits`:
    events that follow each other within so many minutes become one (its last event, its size, the time
    from visit to visit). With any of these an event looks different to each query, so windows cannot be
    shared between queries. `rhythm`: pause in minutes that parts two visits; the pauses so far, and how
    the time since fits them, become values of the request. `rise`: change of each number since the event
    before, and whether each string field is the same again; it looks the same to every query.
    """

    view: str
    last: int
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    age: bool = False
    steps: bool = False
    request: bool = False
    visits: int = 0
    rhythm: int = 0
    rise: bool = False

    @property
    def shared(self) -> bool:
        """Whether an event is encoded alike for all queries."""
        return not (self.same or self.seen or self.age or self.steps or self.request or self.visits)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the view that are read."""
        return tuple(dict.fromkeys((*self.categories, *self.numbers, *self.same, *self.seen, "event_timestamp")))

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Names of the id columns; the gap to the event before comes last."""
        buckets = (f"{name}_bucket" for name in self.numbers)
        before = (f"{self.categories[0]}_before",) if self.visits and self.categories else ()
        return (*self.categories, *buckets, "hour", "weekday", *(("age",) if self.age else ()), *before, "gap")

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Names of the number columns; those that speak of the event before come last."""
        flags = (*(f"same_{name}" for name in self.same), *(f"seen_{name}" for name in self.seen))
        steps = (*(f"{name}_step" for name in self.numbers), "gap_step") if self.steps else ()
        events = ("events",) if self.visits else ()
        rise = tuple(f"{name}_rise" for name in self.numbers) + tuple(f"{name}_again" for name in self.categories)
        rise = rise if self.rise else ()
        return (*self.numbers, *(("age",) if self.age else ()), *flags, *steps, *events, *rise, "gap")

    @property
    def edge(self) -> int:
        """How many of the last number columns speak of the event before; they are null at the start of a window."""
        return 1 + (len(self.numbers) + len(self.categories) if self.rise else 0)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """All that a model sees. Scalars and rates are `view__feature` names; request fields are the caller's."""

    sequences: tuple[SequenceSpec, ...]
    scalars: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    request_categories: tuple[str, ...] = ()
    request_numbers: tuple[str, ...] = ()

    @property
    def request_fields(self) -> tuple[str, ...]:
        """Fields that a request has to bring, besides entity ids and the time."""
        same = tuple(name for one in self.sequences for name in one.same)
        same += tuple(name for one in self.sequences if one.request for name in one.fields if name != "event_timestamp")
        return tuple(dict.fromkeys((*self.request_categories, *self.request_numbers, *same)))

    @property
    def ratios(self) -> tuple[tuple[str, str], ...]:
        """(view, number): numbers of the request that are held against the same number in a sequence."""
        return tuple((one.view, name) for one in self.sequences for name in one.numbers if name in self.request_numbers)

    @property
    def matches(self) -> tuple[tuple[str, str], ...]:
        """(view, field): how often the request's value stands in a sequence."""
        return tuple((one.view, name) for one in self.sequences for name in one.same)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Names of the request's id columns."""
        since = (f"since_{one.view}" for one in self.sequences)
        buckets = (f"{name}_bucket" for name in self.request_numbers)
        return ("hour", "weekday", *since, *self.request_categories, *buckets)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Names of the request's scaled values; `request_numbers` holds these, then a null flag for each."""
        rates = (f"{name}__{part}" for name in self.rates for part in ("rate", "all", "labelled"))
        ratios = (f"{name}_to_{which}{view}" for view, name in self.ratios for which in ("", "last_of_"))
        matches = (f"{part}_{name}_in_{view}" for view, name in self.matches for part in ("same", "share"))
        since = (f"{part}_{one.view}" for one in self.sequences for part in ("since", "known"))
        rhythm = (f"{part}_{one.view}" for one in self.sequences if one.rhythm for part in RHYTHM)
        return (*self.scalars, *rates, *self.request_numbers, *ratios, *matches, *since, *rhythm)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """What `to_json` wrote."""
        tuples = {name: tuple(value) for name, value in data.items() if name != "sequences"}
        return cls(sequences=tuple(SequenceSpec(**_with_tuples(one)) for one in data["sequences"]), **tuples)


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON data with the tuples that JSON made lists of."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
