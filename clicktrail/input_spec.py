"""What a model sees, as plain data: which sequences, which numbers, which fields of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """How a sequence view enters: its `last` events, string fields by vocabulary, integer fields by size.

    `same`: string fields compared with the request's; `seen`: string fields, whether the value stood
    earlier in the window; `age`: time from the event to the query. With any of these an event looks
    different to each query, so windows cannot be shared between queries.
    """

    view: str
    last: int
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    age: bool = False

    @property
    def shared(self) -> bool:
        """Whether an event is encoded alike for all queries."""
        return not (self.same or self.seen or self.age)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of the view that are read."""
        return tuple(dict.fromkeys((*self.categories, *self.numbers, *self.same, *self.seen, "event_timestamp")))

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Names of the id columns; the gap to the event before comes last."""
        buckets = (f"{name}_bucket" for name in self.numbers)
        return (*self.categories, *buckets, "hour", "weekday", *(("age",) if self.age else ()), "gap")

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Names of the number columns; the gap to the event before comes last."""
        flags = (*(f"same_{name}" for name in self.same), *(f"seen_{name}" for name in self.seen))
        return (*self.numbers, *(("age",) if self.age else ()), *flags, "gap")


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
        rates = (f"{name}__{part}" for name in self.rates for part in ("rate", "all"))
        ratios = (f"{name}_to_{view}" for view, name in self.ratios)
        matches = (f"same_{name}_in_{view}" for view, name in self.matches)
        since = (f"since_{one.view}" for one in self.sequences)
        return (*self.scalars, *rates, *self.request_numbers, *ratios, *matches, *since)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """What `to_json` wrote."""
        tuples = {name: tuple(value) for name, value in data.items() if name != "sequences"}
        sequences = tuple(
            SequenceSpec(**{name: tuple(value) if isinstance(value, list) else value for name, value in one.items()})
            for one in data["sequences"]
        )
        return cls(sequences=sequences, **tuples)
