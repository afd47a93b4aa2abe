"""Events of a sequence view as the encoding's kernels take them: strings as codes, numbers as logarithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.kernels.arrays import readonly
from clicktrail.kernels.encode import Events
from clicktrail.kernels.encode_numbers import signed_logs
from clicktrail.rows import Rows, as_floats


class Fields(NamedTuple):
    """What is read of a view: string fields (categories first) and number fields, and which of them of the request."""

    view: str
    strings: tuple[str, ...]
    numbers: tuple[str, ...]
    asked: frozenset[str]

    @classmethod
    def of(cls, spec: InputSpec, one: SequenceSpec) -> Fields:
        """The fields of a sequence: the request's are an event of their own, or compared with the events'."""
        strings = tuple(dict.fromkeys((*one.categories, *one.same, *one.seen)))
        compared = (*one.same, *(name for name in one.numbers if name in spec.request_numbers))
        return cls(
            view=one.view,
            strings=strings,
            numbers=one.numbers,
            asked=frozenset((*strings, *one.numbers) if one.request else compared),
        )


class FlatEvents(NamedTuple):
    """Events as kernels take them, and the strings of the codes, by string field: dictionaries and what they lacked."""

    events: Events
    dictionaries: list[Sequence[str]]


def flat_events(fields: Fields, rows: Rows) -> FlatEvents:
    """The events of a view with the request of each row behind them; see `clicktrail.kernels.encode.Events`."""
    sequence, count = rows.sequences[fields.view], len(rows.t)
    assert len(sequence.starts) == len(sequence.ends) == count  # noqa: S101 - kernels do not look where they read
    time = readonly(sequence.values["event_timestamp"])
    size = len(time)
    codes = np.empty((len(fields.strings), size + count), np.int32)
    logs = np.empty((len(fields.numbers), size + count))
    codes[:, size:], logs[:, size:] = -1, np.nan
    dictionaries: list[Sequence[str]] = []
    for place, field in enumerate(fields.strings):
        codes[place, :size] = sequence.values[field]
        dictionary: Sequence[str] = sequence.dictionaries[field]
        if field in fields.asked:
            codes[place, size:], dictionary = _codes_of(dictionary, rows.request[field])
        dictionaries.append(dictionary)
    for place, field in enumerate(fields.numbers):
        numbers = logs[place]
        numbers[:size] = sequence.values[field]
        if field in sequence.nulls:
            numbers[:size][sequence.nulls[field]] = np.nan
        if field in fields.asked:
            numbers[size:] = as_floats(rows.request[field])
    signed_logs(logs.reshape(-1))
    events = Events(
        time=time,
        codes=codes,
        values=max(map(len, dictionaries), default=0),
        logs=logs,
        starts=np.array(sequence.starts, np.int64),
        ends=np.array(sequence.ends, np.int64),
        t=np.array(rows.t, np.int64),
    )
    return FlatEvents(events=events, dictionaries=dictionaries)


def table_of(
    codes: Sequence[Mapping[str | None, int]], dictionaries: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of vocabularies for codes of dictionaries.

    Args:
        codes: of each category, the code of a string; it has one for any string.
        dictionaries: of each category, its strings.

    Returns:
        Codes one category after the other, int32, and where each begins, int64 [categories].
    """
    offsets, size = np.empty(len(codes), np.int64), 0
    for place, strings in enumerate(dictionaries):
        offsets[place], size = size, size + len(strings)
    found = chain.from_iterable(map(one.__getitem__, strings) for one, strings in zip(codes, dictionaries, strict=True))
    return np.fromiter(found, np.int32, size), offsets


def _codes_of(dictionary: Sequence[str], wanted: Sequence[Any]) -> tuple[list[int], Sequence[str]]:
    """Codes of strings in a dictionary, -1 for null, and the dictionary with those that it lacked behind."""
    places = dict(zip(dictionary, range(len(dictionary)), strict=True))
    own = [-1 if value is None else places.setdefault(value, len(places)) for value in wanted]
    return own, dictionary if len(places) == len(dictionary) else list(places)
