"""The values of a request before scaling: what was read of aggregates, what was sent, what its sequences say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clicktrail.encoding_plans import window_plan
from clicktrail.flat_events import Fields, FlatEvents
from clicktrail.input_spec import InputSpec
from clicktrail.kernels.encode_request import WindowPlan, rate_values, window_values
from clicktrail.rows import Rows, as_floats


@dataclass(frozen=True, kw_only=True)
class RequestValues:
    """Which values a request has, in the order of `InputSpec.value_columns`; `windows`: by view, `size`: how many."""

    scalars: tuple[str, ...]
    rates: tuple[str, ...]
    numbers: tuple[str, ...]
    windows: Mapping[str, WindowPlan]
    size: int

    @classmethod
    def of(cls, spec: InputSpec, fields: Mapping[str, Fields]) -> RequestValues:
        """The values of a spec."""
        return cls(
            scalars=spec.scalars,
            rates=spec.rates,
            numbers=spec.request_numbers,
            windows={one.view: window_plan(spec, one, fields[one.view]) for one in spec.sequences},
            size=len(spec.value_columns),
        )

    def raw(self, rows: Rows, flat: Mapping[str, FlatEvents], priors: np.ndarray) -> np.ndarray:
        """Values of rows, float64 [values, R], nan for null.

        Args:
            rows: features and requests.
            flat: events of the rows' sequences, by view.
            priors: overall label rates, float64 [rates].
        """
        out, to = np.empty((self.size, len(rows.t))), len(self.scalars)
        if self.scalars:
            np.concatenate([rows.scalars[name] for name in self.scalars], out=out[:to].reshape(-1))
        if self.rates:
            pairs = np.concatenate([rows.scalars[name] for name in self.rates], dtype=np.float64)
            rate_values(pairs.reshape(len(self.rates), -1, 2), priors, out[to:])
            to += 3 * len(self.rates)
        for place, name in enumerate(self.numbers):
            out[to + place] = as_floats(rows.request[name])
        for view, plan in self.windows.items():
            window_values(flat[view].events, plan, out)
        return out
