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

from clicktrail.encoding_plans import request_plan, token_plan
from clicktrail.flat_events import Fields, FlatEvents, flat_events, table_of
from clicktrail.input_spec import InputSpec
from clicktrail.kernels import encode as kernels
from clicktrail.kernels import encode_request as request_kernels
from clicktrail.kernels.encode_numbers import TIME_BUCKETS
from clicktrail.request_values import RequestValues
from clicktrail.rows import Rows, rows_of_lists
from clicktrail.scales import PIECES, Scale
from clicktrail.windows import Tokens, covered, last_of, number

PAD, UNKNOWN, FIRST = 0, 1, 2
"""Codes of a vocabulary: null or padding, a value that training had not seen, the first known value."""


class _Codes(dict[str | None, int]):
    """The code of each value of a field."""

    def __missing__(self, value: str | None) -> int:
        return UNKNOWN


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

    # ---- what the model must know

    def id_sizes(self, view: str) -> list[int]:
        """How many codes each id column of a sequence has, [C]."""
        (spec,) = (one for one in self.spec.sequences if one.view == view)
        return [self._size(name) for name in spec.id_columns]

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
        out, flat = {}, self._flat(rows)
        for view, plan in self._token_plans.items():
            events, dictionaries = flat[view]
            ids, numbers, used = kernels.tokens(events, plan, *self._table(view, dictionaries), padded=True)
            shape = (len(used), len(ids) // len(used) if len(used) else 1)
            out[f"{view}__ids"] = ids.astype(np.int64).reshape(*shape, plan.ids)
            out[f"{view}__numbers"] = numbers.reshape(*shape, plan.numbers)
            out[f"{view}__length"] = used
        out["request_ids"], out["request_numbers"] = self._request(rows, flat)
        return out

    def tokens(self, view: str, rows: Rows) -> Tokens:
        """Encoded events of a sequence view: over the shared history if `SequenceSpec.shared`, else row by row."""
        spec, plan = next(one for one in self.spec.sequences if one.view == view), self._token_plans[view]
        events, dictionaries = flat_events(self._fields[view], rows)
        if spec.shared:  # one window over all
            size = len(events.time)
            starts, ends = last_of(spec, rows.sequences[view])
            events = events._replace(starts=np.zeros(1, np.int64), ends=np.array([size]), t=np.zeros(1, np.int64))
            plan = plan._replace(last=size)
        ids, numbers, used = kernels.tokens(events, plan, *self._table(view, dictionaries), padded=False)
        if not spec.shared:
            ends = np.cumsum(used)
            starts = ends - used
        return Tokens(ids=ids, numbers=numbers, starts=starts, ends=ends, edge=spec.edge)

    def request(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """What is known of each query besides the sequences.

        Returns:
            int64 [R, id_columns] and float32 [R, 2 * value_columns]: scaled values (0 for null), then null flags.
        """
        return self._request(rows, self._flat(rows))

    def codes(self, field: str, values: Iterable[str | None]) -> np.ndarray:
        """Codes of strings: PAD for null, UNKNOWN for what training had not seen; int64 [R]."""
        return np.fromiter(map(self._codes[field].__getitem__, values), np.int64)

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
            visible = np.flatnonzero(covered(sequence.starts, sequence.ends, len(sequence.values["event_timestamp"])))
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
        fields = _fields(spec)
        flat = {view: flat_events(one, rows) for view, one in fields.items()}
        raw = RequestValues.of(spec, fields).raw(
            rows, flat, np.array([priors[name] for name in spec.rates], np.float64)
        )
        for name, values in zip(spec.value_columns, raw, strict=True):
            if name not in scales:
                scales[name] = Scale.fit(values)
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

    @cached_property
    def _codes(self) -> dict[str, _Codes]:
        """The code of each value, by field."""
        return {
            field: _Codes({None: PAD} | {value: FIRST + place for place, value in enumerate(values)})
            for field, values in self.vocabularies.items()
        }

    @cached_property
    def _fields(self) -> dict[str, Fields]:
        return _fields(self.spec)

    @cached_property
    def _token_plans(self) -> dict[str, kernels.TokenPlan]:
        return {one.view: token_plan(one, self._fields[one.view], self.scales) for one in self.spec.sequences}

    @cached_property
    def _values(self) -> RequestValues:
        return RequestValues.of(self.spec, self._fields)

    @cached_property
    def _request_plan(self) -> request_kernels.RequestPlan:
        return request_plan(self.spec, self.scales)

    @cached_property
    def _category_codes(self) -> dict[str, list[_Codes]]:
        """The codes of a sequence's categories, by view."""
        return {one.view: [self._codes[field] for field in one.categories] for one in self.spec.sequences}

    @cached_property
    def _priors(self) -> np.ndarray:
        return np.array([self.priors[name] for name in self.spec.rates], np.float64)

    def _size(self, column: str) -> int:
        column = column.removesuffix("_before")
        if column in self.vocabularies:
            return FIRST + len(self.vocabularies[column])
        if column.endswith("_bucket"):
            return len(self.scales[column.removesuffix("_bucket")].edges) + 2
        return {"hour": 25, "weekday": 8}.get(column, TIME_BUCKETS)

    def _flat(self, rows: Rows) -> dict[str, FlatEvents]:
        return {view: flat_events(fields, rows) for view, fields in self._fields.items()}

    def _table(self, view: str, dictionaries: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        codes = self._category_codes[view]
        return table_of(codes, dictionaries[: len(codes)])

    def _request(self, rows: Rows, flat: Mapping[str, FlatEvents]) -> tuple[np.ndarray, np.ndarray]:
        raw = self._values.raw(rows, flat, self._priors)
        codes = np.empty((len(self.spec.request_categories), len(rows.t)), np.int64)
        for place, field in enumerate(self.spec.request_categories):
            codes[place] = self.codes(field, rows.request[field])
        return request_kernels.request(raw, np.array(rows.t, np.int64), codes, self._request_plan)


def _fields(spec: InputSpec) -> dict[str, Fields]:
    return {one.view: Fields.of(spec, one) for one in spec.sequences}
