"""The encoding, written for reading: one row at a time, one event at a time, from what `InputSpec` says."""

from __future__ import annotations

import math
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from clicktrail.encoding import FIRST, PAD, UNKNOWN, Encoding
from clicktrail.input_spec import SequenceSpec
from clicktrail.rows import Rows

SECOND = 1_000_000
MINUTE = 60 * SECOND
TIME = "event_timestamp"
Event = dict[str, Any]


def encode(encoding: Encoding, rows: Rows) -> dict[str, np.ndarray]:
    """What `Encoding.encode` gives."""
    out: dict[str, np.ndarray] = {}
    count = len(rows.t)
    for one in encoding.spec.sequences:
        found = [tokens(encoding, one, rows, row) for row in range(count)]
        longest = max([1, *map(len, found)])
        ids = np.zeros((count, longest, len(one.id_columns)), np.int64)
        numbers = np.zeros((count, longest, len(one.number_columns)), np.float32)
        for row, these in enumerate(found):
            for place, (its_ids, its_numbers) in enumerate(these):
                ids[row, place], numbers[row, place] = its_ids, its_numbers
        out[f"{one.view}__ids"], out[f"{one.view}__numbers"] = ids, numbers
        out[f"{one.view}__length"] = np.array([len(these) for these in found], np.int64)
    asked = [request(encoding, rows, row) for row in range(count)]
    spec = encoding.spec
    out["request_ids"] = np.array([ids for ids, _ in asked], np.int64).reshape(count, len(spec.id_columns))
    numbers = np.array([numbers for _, numbers in asked], np.float32)
    out["request_numbers"] = numbers.reshape(count, 2 * len(spec.value_columns))
    return out


# ---- numbers


def log(value: float | None) -> float | None:
    """Signed logarithm."""
    return None if value is None else math.copysign(math.log1p(abs(value)), value)


def less(one: float | None, other: float | None) -> float | None:
    """A difference, null where either is."""
    return None if one is None or other is None else one - other


def scaled(encoding: Encoding, name: str, value: float | None) -> float | None:
    """A number as the model sees it."""
    scale = encoding.scales[name]
    return None if value is None else min(max((log(value) - scale.mean) / scale.std, -6.0), 6.0)  # type: ignore[operator]


def bucket(encoding: Encoding, name: str, value: float | None) -> int:
    """1 + how many edges a number reaches."""
    found = scaled(encoding, name, value)
    return 0 if found is None else 1 + bisect_right(encoding.scales[name].edges, found)


def time_bucket(microseconds: int | None) -> int:
    """1 + floor(2 log2(1 + seconds)), at most 49."""
    if microseconds is None:
        return 0
    return 1 + min(math.floor(2 * math.log2(1 + max(microseconds, 0) / SECOND)), 48)


def time_number(microseconds: int) -> float:
    """Length of time between -1 and about 1."""
    return math.log1p(max(microseconds, 0) / SECOND) / 8 - 1


def code(encoding: Encoding, field: str, value: str | None) -> int:
    """Code of a string in the vocabulary."""
    known = encoding.vocabularies[field]
    return PAD if value is None else FIRST + known.index(value) if value in known else UNKNOWN


def clock(t: int) -> list[int]:
    """Hour 1..24 and weekday 1..7."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t)
    return [1 + moment.hour, moment.isoweekday()]


# ---- sequences


def window(one: SequenceSpec, rows: Rows, row: int) -> list[Event]:
    """The last events that a row sees, without its request."""
    sequence, out = rows.sequences[one.view], []
    start, end = int(sequence.starts[row]), int(sequence.ends[row])
    for at in range(max(start, end - one.last), end):
        event: Event = {}
        for field in one.fields:
            value = int(sequence.values[field][at])
            if field in sequence.nulls and sequence.nulls[field][at]:
                event[field] = None
            elif field in sequence.dictionaries:
                event[field] = sequence.dictionaries[field][value] if value >= 0 else None
            else:
                event[field] = value
        out.append(event)
    return out


def visits_of(events: list[Event], minutes: int) -> list[list[int]]:
    """Places of the events of each visit."""
    out: list[list[int]] = []
    for place, event in enumerate(events):
        if place and event[TIME] - events[place - 1][TIME] <= minutes * MINUTE:
            out[-1].append(place)
        else:
            out.append([place])
    return out


def tokens(encoding: Encoding, one: SequenceSpec, rows: Rows, row: int) -> list[tuple[list[int], list[float]]]:
    """Ids and numbers of each token of a row."""
    events, t = window(one, rows, row), int(rows.t[row])
    asked: Event = {field: rows.request[field][row] for field in one.fields if field in rows.request} | {TIME: t}
    if one.request:
        events.append(asked)
    groups = visits_of(events, one.visits) if one.visits else [[place] for place in range(len(events))]
    out = []
    for number, group in enumerate(groups):
        place = group[-1]
        event, before = events[place], events[place - 1] if place else None
        ids = [code(encoding, field, event[field]) for field in one.categories]
        ids += [bucket(encoding, name, event[name]) for name in one.numbers]
        ids += clock(event[TIME])
        numbers: list[float] = [scaled(encoding, name, event[name]) or 0 for name in one.numbers]
        if one.age:
            ids.append(time_bucket(t - event[TIME]))
            numbers.append(time_number(t - event[TIME]))
        numbers += [event[field] is not None and event[field] == asked[field] for field in one.same]
        for field in one.seen:
            earlier = [other[field] for other in events[:place]]
            numbers.append(event[field] is not None and event[field] in earlier)
        changes = [less(log(event[name]), log(before[name])) or 0 if before else 0 for name in one.numbers]
        if one.steps:
            numbers += changes
            pauses = [math.log1p(max(b[TIME] - a[TIME], 0) / SECOND) for a, b in pairwise(events[: place + 1])]
            numbers.append(pauses[-1] - pauses[-2] if len(pauses) > 1 else 0)
        if one.visits and one.categories:
            field = one.categories[0]
            ids.append(code(encoding, field, events[place - 1][field]) if len(group) > 1 else PAD)
        if one.visits:
            numbers.append(math.log(len(group)) / 2)
        if not number:
            ids.append(0)
            numbers += [0] * one.edge
        else:
            if one.rise:
                numbers += changes
                numbers += [event[field] == events[place - 1][field] for field in one.categories]
            gap = events[group[0]][TIME] - events[groups[number - 1][0]][TIME]
            ids.append(time_bucket(gap))
            numbers.append(time_number(gap))
        out.append((ids, numbers))
    return out


# ---- requests


def request(encoding: Encoding, rows: Rows, row: int) -> tuple[list[int], list[float]]:
    """Ids and numbers of a row's request."""
    spec, raw = encoding.spec, values(encoding, rows, row)
    since = [raw[f"since_{one.view}"] for one in spec.sequences]
    ids = clock(int(rows.t[row]))
    ids += [time_bucket(None if one is None else round(one * SECOND)) for one in since]
    ids += [code(encoding, field, rows.request[field][row]) for field in spec.request_categories]
    ids += [bucket(encoding, name, raw[name]) for name in spec.request_numbers]
    found = [scaled(encoding, name, raw[name]) for name in spec.value_columns]
    return ids, [one or 0 for one in found] + [one is None for one in found]


def values(encoding: Encoding, rows: Rows, row: int) -> dict[str, float | None]:
    """A request's values before scaling, None for null."""
    spec = encoding.spec
    out = {name: known(rows.scalars[name][row]) for name in spec.scalars}
    for name in spec.rates:
        labelled, every = map(known, rows.scalars[name][row])
        out |= {f"{name}__rate": None, f"{name}__all": every, f"{name}__labelled": labelled}
        if labelled is not None and every is not None:
            out[f"{name}__rate"] = 1000 * (labelled + 5 * encoding.priors[name]) / (every + 5)
    out |= {name: rows.request[name][row] for name in spec.request_numbers}
    for one in spec.sequences:
        events, t = window(one, rows, row), int(rows.t[row])
        for view, name in spec.ratios:
            if view == one.view:
                logs = [log(event[name]) for event in events if event[name] is not None]
                usual = sum(logs) / len(logs) if logs else None  # type: ignore[arg-type]
                latest = log(events[-1][name]) if events else None
                out[f"{name}_to_{view}"] = times_100(less(log(out[name]), usual))
                out[f"{name}_to_last_of_{view}"] = times_100(less(log(out[name]), latest))
        for field in one.same:
            wanted = rows.request[field][row]
            found = sum(wanted is not None and event[field] == wanted for event in events)
            out[f"same_{field}_in_{one.view}"] = found if events else None
            out[f"share_{field}_in_{one.view}"] = 100 * found / len(events) if events else None
        out[f"since_{one.view}"] = max(t - events[-1][TIME], 0) / SECOND if events else None
        out[f"known_{one.view}"] = len(events)
        if one.rhythm:
            names = ("visits", "pause_mean", "pause_spread", "pause_last", "pause_now")
            found_ = rhythm([event[TIME] for event in events], t, one.rhythm)
            out |= {f"{name}_{one.view}": value for name, value in zip(names, found_, strict=True)}
    return out


def known(value: float) -> float | None:
    """None for nan."""
    return None if math.isnan(value) else float(value)


def times_100(value: float | None) -> float | None:
    """Hundredths."""
    return None if value is None else 100 * value


def rhythm(times: list[int], t: int, minutes: int) -> list[float | None]:
    """Visits; mean and spread of the pauses from visit to visit, in hundredths of a logarithm; the last and now."""
    begins = [times[group[0]] for group in visits_of([{TIME: one} for one in times], minutes)]
    pauses = [100 * math.log(max((b - a) / SECOND, 1)) for a, b in pairwise(begins)]
    if not pauses:
        return [len(begins), None, None, None, None]
    mean = sum(pauses) / len(pauses)
    spread = math.sqrt(sum((one - mean) ** 2 for one in pauses) / len(pauses)) if len(pauses) > 1 else None
    now = 100 * math.log(max((t - begins[-1]) / SECOND, 1)) - mean
    return [len(begins), mean, spread, pauses[-1] - mean, now]
