"""From features to a model's input arrays: the one place for it, used by training and serving alike.

`Encoding.fit` learns vocabularies, quantiles and scales on the training range alone; `Encoding.encode`
turns features into named arrays. Ids that no model should learn by heart (terminals, cards) become
flags: the same as in the request being scored? seen before in the sequence? So a model works for cards
and terminals that training never saw. numpy in and out; imports neither torch nor feast.

Shapes: N flat events, R rows (queries), L positions, C id columns, F number columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clicktrail.input_spec import RHYTHM, InputSpec, SequenceSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows, rows_of_lists
from clicktrail.scales import (
    PIECES,
    TIME_BUCKETS,
    Scale,
    hour_and_weekday,
    signed_log,
    smoothed_rate,
    time_bucket,
    time_number,
)
from clicktrail.visits import rhythm, visit_of_window, visit_starts
from clicktrail.windows import (
    Tokens,
    covered,
    last_of,
    materialised,
    number,
    pad,
    same_as,
    seen_before,
    step_of,
    window_mean,
    window_positions,
)

PAD, UNKNOWN, FIRST = 0, 1, 2
"""Codes of a vocabulary: null or padding, a value that training had not seen, the first known value."""

_MICROSECONDS = 1_000_000
_TIME = "event_timestamp"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A fitted encoding; `to_json` and `from_json` carry it from training to serving.

    `vocabularies`: values by field, the code of a value is FIRST + its place. `scales` by number name.
    `priors`: overall label rate by rate name.
    """

    spec: InputSpec
    vocabularies: dict[str, tuple[str, ...]]
    scales: dict[str, Scale]
    priors: dict[str, float]

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        """The code of each value, by field; made once."""
        return {
            field: {value: FIRST + place for place, value in enumerate(values)}
            for field, values in self.vocabularies.items()
        }

    # ---- what the model must know

    def id_sizes(self, view: str) -> list[int]:
        """How many codes each id column of a sequence has, [C]."""
        return [self._size(name) for name in _sequence(self.spec, view).id_columns]

    @property
    def request_id_sizes(self) -> list[int]:
        """How many codes each id column of the request has."""
        return [self._size(name) for name in self.spec.id_columns]

    @property
    def value_edges(self) -> np.ndarray:
        """Quantiles of each scaled request value on the training range, float32 [values, PIECES + 1], rising."""
        edges = [
            np.quantile(self.scales[name].edges, np.linspace(0, 1, PIECES + 1)) for name in self.spec.value_columns
        ]
        return np.array(edges, np.float32).reshape(-1, PIECES + 1)

    def inputs(self) -> dict[str, tuple[str, list[str | int]]]:
        """Name -> (dtype, shape) of the arrays that `encode` gives; named sizes are free."""
        out: dict[str, tuple[str, list[str | int]]] = {}
        for one in self.spec.sequences:
            length = f"{one.view}_length"
            out[f"{one.view}__ids"] = ("int64", ["batch", length, len(one.id_columns)])
            out[f"{one.view}__numbers"] = ("float32", ["batch", length, len(one.number_columns)])
            out[f"{one.view}__length"] = ("int64", ["batch"])
        out["request_ids"] = ("int64", ["batch", len(self.spec.id_columns)])
        out["request_numbers"] = ("float32", ["batch", 2 * len(self.spec.value_columns)])
        return out

    # ---- encoding

    def encode_lists(
        self,
        features: Mapping[str, Mapping[str, Any]],
        request: Mapping[str, Sequence[Any]],
        t: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """What a server calls: features by view and name, one value a row (lists or Arrow arrays).

        Args:
            features: view -> feature -> [R] values; sequences and label rates are lists, null where unknown.
            request: field -> [R] values, the spec's `request_fields`; ids that are not encoded may stand there too.
            t: int64 [R], microseconds UTC.

        Raises:
            ValueError: a view, a feature or a field of the request is missing.
        """
        return self.encode(rows_of_lists(self.spec, features, request, t))

    def encode(self, rows: Rows) -> dict[str, np.ndarray]:
        """The arrays of `inputs()`, sequences padded to the right up to the longest of these rows (at least 1)."""
        out = {}
        for one in self.spec.sequences:
            tokens = self.tokens(one.view, rows)
            used = tokens.ends - tokens.starts
            longest = max(1, int(used.max(initial=0)))
            out[f"{one.view}__ids"], out[f"{one.view}__numbers"] = pad(tokens, tokens.starts, tokens.ends, longest)
            out[f"{one.view}__length"] = used
        out["request_ids"], out["request_numbers"] = self.request(rows)
        return out

    def tokens(self, view: str, rows: Rows) -> Tokens:
        """Encoded events of a sequence view: over the shared history if `SequenceSpec.shared`, else row by row."""
        spec, sequence = _sequence(self.spec, view), rows.sequences[view]
        starts, ends = last_of(spec, sequence)
        if spec.shared:
            ids, numbers = self._events(spec, sequence, slice(None))
            return Tokens(ids=ids, numbers=numbers, starts=starts, ends=ends, edge=spec.edge)
        sequence = materialised(spec, sequence, rows.request, rows.t)
        starts, ends = sequence.starts, sequence.ends
        positions, row = np.arange(int((ends - starts).sum())), np.repeat(np.arange(len(starts)), ends - starts)
        ids, numbers = self._events(spec, sequence, positions)
        time, more_ids, more_numbers = sequence.values[_TIME], [], []
        if spec.age:
            seconds = (rows.t[row] - time) / _MICROSECONDS
            more_ids.append(time_bucket(seconds))
            more_numbers.append(time_number(seconds))
        more_numbers += [same_as(sequence, field, positions, row, rows.request[field]) for field in spec.same]
        more_numbers += [seen_before(sequence, field, positions, row) for field in spec.seen]
        if spec.steps:
            logs = [signed_log(number(sequence, name, positions)) for name in spec.numbers]
            logs.append(np.where(step_of(row, row.astype(np.float64)) == 0, np.log1p(_pauses(time)), np.nan))
            more_numbers += [np.nan_to_num(step_of(row, one)) for one in logs]
        ids, numbers = _put(ids, more_ids, 1, np.int32), _put(numbers, more_numbers, spec.edge, np.float32)
        if spec.visits:
            ids, numbers, starts, ends = self._visits(spec, sequence, ids, numbers)
        return Tokens(ids=ids, numbers=numbers, starts=starts, ends=ends, edge=spec.edge)

    def request(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """What is known of each query besides the sequences.

        Returns:
            int64 [R, id_columns] and float32 [R, 2 * value_columns]: scaled values (0 for null), then null flags.
        """
        hour, weekday = hour_and_weekday(rows.t)
        raw = self._raw_values(self.spec, rows, self.priors)
        ids = [hour, weekday]
        ids += [time_bucket(raw[f"since_{one.view}"]) for one in self.spec.sequences]
        ids += [self._code_all(field, rows.request[field]) for field in self.spec.request_categories]
        ids += [self.scales[name].bucket(raw[name]) for name in self.spec.request_numbers]
        values = np.empty((len(rows.t), len(self.spec.value_columns)))
        for place, name in enumerate(self.spec.value_columns):
            values[:, place] = self.scales[name](raw[name])
        null = np.isnan(values)
        return np.stack(ids, 1).astype(np.int64), np.hstack([np.where(null, 0, values), null]).astype(np.float32)

    def codes(self, field: str, values: Iterable[str | None]) -> np.ndarray:
        """Codes of strings: PAD for null, UNKNOWN for what training had not seen; int64 [R]."""
        return self._code_all(field, values)

    # ---- fitting and carrying

    @classmethod
    def fit(cls, spec: InputSpec, rows: Rows, *, more: Mapping[str, Sequence[str]] | None = None) -> Encoding:
        """Learn from the rows of the training range, and of their sequences what these rows see.

        Args:
            spec: what goes in.
            rows: training rows alone; sequences may hold later events, they are not looked at.
            more: further values for vocabularies, such as the targets of the training rows.
        """
        counts: dict[str, Counter[str]] = {}
        scales: dict[str, Scale] = {}
        for one in spec.sequences:
            sequence = rows.sequences[one.view]
            visible = np.flatnonzero(covered(sequence.starts, sequence.ends, len(sequence.values[_TIME])))
            for field in one.categories:
                codes = sequence.values[field][visible]
                frequency = np.bincount(codes[codes >= 0], minlength=len(sequence.dictionaries[field]))
                found = counts.setdefault(field, Counter())
                found.update(
                    {sequence.dictionaries[field][code]: int(frequency[code]) for code in np.flatnonzero(frequency)}
                )
            for name in one.numbers:
                scales[name] = Scale.fit(number(sequence, name, visible))
        for field in spec.request_categories:
            counts.setdefault(field, Counter()).update(str(value) for value in rows.request[field] if value is not None)
        for field, extra in (more or {}).items():
            counts.setdefault(field, Counter()).update(extra)
        vocabularies = {
            field: tuple(sorted(found, key=lambda value: (-found[value], value))) for field, found in counts.items()
        }
        sums = {name: rows.scalars[name] for name in spec.rates}
        priors = {name: float(np.nansum(pair[:, 0]) / max(np.nansum(pair[:, 1]), 1)) for name, pair in sums.items()}
        raw = cls._raw_values(spec, rows, priors)
        scales |= {name: Scale.fit(raw[name]) for name in spec.value_columns if name not in scales}
        return cls(spec=spec, vocabularies=vocabularies, scales=scales, priors=priors)

    def to_json(self) -> dict[str, Any]:
        """The whole state as plain JSON data."""
        return {
            "spec": self.spec.to_json(),
            "vocabularies": {field: list(values) for field, values in self.vocabularies.items()},
            "scales": {name: asdict(scale) for name, scale in self.scales.items()},
            "priors": self.priors,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Encoding:
        """What `to_json` wrote."""
        return cls(
            spec=InputSpec.from_json(data["spec"]),
            vocabularies={field: tuple(values) for field, values in data["vocabularies"].items()},
            scales={
                name: Scale(mean=one["mean"], std=one["std"], edges=tuple(one["edges"]))
                for name, one in data["scales"].items()
            },
            priors=dict(data["priors"]),
        )

    # ---- inside

    def _size(self, column: str) -> int:
        column = column.removesuffix("_before")
        if column in self.vocabularies:
            return FIRST + len(self.vocabularies[column])
        if column.endswith("_bucket"):
            return len(self.scales[column.removesuffix("_bucket")].edges) + 2
        return {"hour": 25, "weekday": 8}.get(column, TIME_BUCKETS)

    def _code_all(self, field: str, values: Iterable[Any]) -> np.ndarray:
        codes = self._codes[field]
        return np.array([PAD if value is None else codes.get(value, UNKNOWN) for value in values], np.int64)

    def _events(
        self, spec: SequenceSpec, sequence: JaggedSequence, positions: slice | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The columns that do not depend on the query: int32 [N, C], float32 [N, F]; the gap comes last."""
        time = sequence.values[_TIME]
        seconds = (np.diff(time, prepend=time[:1]) / _MICROSECONDS)[positions]
        hour, weekday = hour_and_weekday(time[positions])
        ids, numbers = [], []
        for field in spec.categories:
            # codes of the view's dictionary to codes of the vocabulary; null (-1) takes the last place
            table = np.append(self._code_all(field, sequence.dictionaries[field]), PAD)
            ids.append(table[sequence.values[field][positions]])
        for name in spec.numbers:
            raw = number(sequence, name, positions)
            ids.append(self.scales[name].bucket(raw))
            numbers.append(np.nan_to_num(self.scales[name](raw)))
        ids += [hour, weekday, time_bucket(seconds)]
        if spec.rise:
            rises = (signed_log(number(sequence, name, slice(None))) for name in spec.numbers)
            numbers += [np.nan_to_num(np.diff(one, prepend=one[:1])[positions]) for one in rises]
            codes = (sequence.values[field] for field in spec.categories)
            numbers += [(np.diff(one, prepend=-1) == 0)[positions] for one in codes]
        numbers.append(time_number(seconds))
        return np.stack(ids, 1).astype(np.int32), np.stack(numbers, 1).astype(np.float32)

    def _visits(
        self, spec: SequenceSpec, sequence: JaggedSequence, ids: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One token a visit: its last event, the event before that, how many events, the time from visit to visit."""
        time, starts, ends = sequence.values[_TIME], sequence.starts, sequence.ends
        begins = visit_starts(time, starts, ends, spec.visits)
        first = np.flatnonzero(begins)
        last = np.append(first[1:], len(time))[: len(first)] - 1
        events = last - first + 1
        seconds = np.diff(time[first], prepend=time[first][:1]) / _MICROSECONDS
        more_ids = [np.where(events > 1, ids[np.maximum(last - 1, 0), 0], PAD)] if spec.categories else []
        ids, numbers = (
            _put(ids[last], more_ids, 1, np.int32),
            _put(numbers[last], [np.log(events) / 2], spec.edge, np.float32),
        )
        ids[:, -1], numbers[:, -1] = time_bucket(seconds), time_number(seconds)
        return ids, numbers, *visit_of_window(begins, starts, ends)

    @staticmethod
    def _raw_values(spec: InputSpec, rows: Rows, priors: Mapping[str, float]) -> dict[str, np.ndarray]:
        """The request's values before scaling, by name of `value_columns`; float64 [R], nan for null."""
        raw = {name: np.asarray(rows.scalars[name], np.float64) for name in spec.scalars}
        for name in spec.rates:
            labelled, total = np.asarray(rows.scalars[name], np.float64).T
            # log1p of a small rate is the rate: a thousandth is the unit that leaves shape to it
            raw[f"{name}__rate"] = 1000 * smoothed_rate(labelled, total, priors[name])
            raw[f"{name}__all"], raw[f"{name}__labelled"] = total, labelled
        for name in spec.request_numbers:
            raw[name] = np.array(
                [np.nan if value is None else float(value) for value in rows.request[name]], np.float64
            )
        for view, name in spec.ratios:
            one, sequence = _sequence(spec, view), rows.sequences[view]
            usual = window_mean(*last_of(one, sequence), signed_log(number(sequence, name, slice(None))))
            raw[f"{name}_to_{view}"] = 100 * (signed_log(raw[name]) - usual)
            starts, ends = last_of(one, sequence)
            latest = (
                number(sequence, name, np.maximum(ends - 1, 0)) if len(sequence.values[name]) else np.zeros(len(ends))
            )
            latest = np.where(ends > starts, latest, np.nan)
            raw[f"{name}_to_last_of_{view}"] = 100 * (signed_log(raw[name]) - signed_log(latest))
        for view, field in spec.matches:
            starts, ends = last_of(_sequence(spec, view), rows.sequences[view])
            row = np.repeat(np.arange(len(starts)), ends - starts)
            same = same_as(rows.sequences[view], field, window_positions(starts, ends), row, rows.request[field])
            found = np.bincount(row, weights=same, minlength=len(starts))
            raw[f"same_{field}_in_{view}"] = np.where(ends > starts, found, np.nan)
            raw[f"share_{field}_in_{view}"] = np.where(
                ends > starts, 100 * found / np.maximum(ends - starts, 1), np.nan
            )
        for one in spec.sequences:
            starts, ends = last_of(one, rows.sequences[one.view])
            time = np.append(rows.sequences[one.view].values[_TIME], 0)
            since = np.maximum(rows.t - time[ends - 1], 0) / _MICROSECONDS
            raw[f"since_{one.view}"] = np.where(ends > starts, since, np.nan)
            raw[f"known_{one.view}"] = (ends - starts).astype(np.float64)
            if one.rhythm:
                lengths = ends - starts
                stops = np.cumsum(lengths)
                pauses = rhythm(time[window_positions(starts, ends)], stops - lengths, stops, rows.t, one.rhythm)
                raw |= {f"{part}_{one.view}": values for part, values in zip(RHYTHM, pauses, strict=True)}
        return raw


def _sequence(spec: InputSpec, view: str) -> SequenceSpec:
    return next(one for one in spec.sequences if one.view == view)


def _pauses(time: np.ndarray) -> np.ndarray:
    return np.maximum(np.diff(time, prepend=time[:1]), 0) / _MICROSECONDS


def _put(matrix: np.ndarray, columns: list[np.ndarray], edge: int, dtype: type) -> np.ndarray:
    """Put columns in front of the last `edge` ones, which speak of the event before."""
    if not columns:
        return matrix
    return np.column_stack([matrix[:, :-edge], *columns, matrix[:, -edge:]]).astype(dtype)
