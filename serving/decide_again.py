"""Decides a request again from what the decision log kept of it: `python -m serving.decide_again ROWS`.

Run in a bundle's `src`. ROWS is a Parquet file of all rows of one request. It is decided by the code and the model that
lie here, from the features in the file, so the same bundle comes to the same decision to the bit. Prints one JSON
object: `outcomes` and `answer`, or the views whose features are `missing`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.declarations import Declaration
from clicktrail.jagged import JaggedSequence
from clicktrail.windows import jagged_of_lists
from serving import manifest as manifests
from serving.checks import settings_of
from serving.decision_rows import KNOWN, OFFSET, READ_AT, request_of
from serving.endpoints import ENDPOINTS
from serving.features import Features, LiveState, Moment, plain_lists
from serving.manifest import RefusedError
from serving.model import Model
from serving.predictor import Predictor

_REASONS = ("reasons", "drivers")
"""Fields that ask for the why, which changes nothing else."""


@dataclass(frozen=True, kw_only=True)
class KeptView:
    """What was read of one view: see `serving.features.ViewRead`."""

    columns: Mapping[str, pa.Array]
    known: list[bool]
    times: list[int]
    offsets: list[int]
    floats: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, declaration: Declaration, rows: pa.Table) -> KeptView:
        """From the rows of a request."""
        view = declaration.name
        return cls(
            columns={name: plain_lists(rows[f"{view}__{name}"].combine_chunks()) for name in declaration.outputs},
            known=rows[f"{KNOWN}{view}"].to_pylist(),
            times=_integers(rows[f"{READ_AT}{view}"]),
            offsets=_integers(rows[f"{OFFSET}{view}"]),
        )

    @cached_property
    def sequence(self) -> JaggedSequence:
        """The lists as plain arrays."""
        return jagged_of_lists(self.columns)


class KeptState(LiveState):
    """A state that knows nothing but what was read for one request."""

    def __init__(self, rows: pa.Table, model: Model) -> None:
        """`rows` have the features of all views that the model reads."""
        self._rows = rows
        self._declarations = list(model.declarations)
        self._manifest = model.manifest

    def moment(self, at: int | None = None) -> Moment:  # noqa: ARG002 - it is in the rows when it was
        """When the request was decided."""
        return Moment(**{name: _integers(self._rows[name])[0] for name in ("t", "watermark", "offset")})

    @property
    def on_the_wall(self) -> bool:
        """Nothing lies in the future any more."""
        return False

    @property
    def item_history(self) -> Path:
        """The shop's catalogue, which still says what was known of the items then."""
        return settings_of(self._manifest).item_history

    def read(
        self,
        keys: Mapping[str, Sequence[str | None]],  # noqa: ARG002
        t: int | np.ndarray,  # noqa: ARG002
        recent: pa.Table | None = None,  # noqa: ARG002
    ) -> Features:
        """What was read then."""
        return Features(
            results={one.name: KeptView.of(one, self._rows) for one in self._declarations},
            as_of=_integers(self._rows["as_of"]),
        )


def decide_again(model: Model, rows: pa.Table) -> dict[str, Any]:
    """What the model decides of the rows of one request, or which views' features they lack."""
    missing = [
        one.name
        for one in model.declarations
        if not {f"{one.name}__{name}" for name in one.outputs} | {f"{KNOWN}{one.name}"} <= set(rows.column_names)
    ]
    if missing:
        return {"model": model.manifest.tag, "missing": missing}
    fields = ENDPOINTS[model.manifest.task].fields
    as_integers = pa.table({name: _plain(column) for name, column in zip(rows.column_names, rows.columns, strict=True)})
    request = request_of(as_integers.to_pylist(), fields)
    if rows.num_rows == 1:  # of many it would take long
        request |= {field.name: True for field in fields if field.name in _REASONS}
    decision = Predictor(model, KeptState(rows, model)).decide(request)
    return {"model": model.manifest.tag, "outcomes": list(decision.outcomes), "answer": decision.answer}


def main(arguments: Sequence[str] | None = None) -> int:
    """Decide for the bundle that this code lies in."""
    (path,) = arguments or sys.argv[1:]
    try:
        model = Model.load(manifests.read(Path(__file__).resolve().parent.parent.parent))
        found = decide_again(model, pq.read_table(path, partitioning=None))
    except RefusedError as error:
        sys.stderr.write(f"REFUSED: {error}\n")
        return 1
    sys.stdout.write(json.dumps(found, default=lambda value: value.item()) + "\n")
    return 0


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _integers(column: pa.ChunkedArray) -> list[int]:
    return list(_plain(column).to_pylist())


if __name__ == "__main__":
    sys.exit(main())
