"""Because of what an item is recommended: the model is asked again as if the user had never met an item of his history.

How much lower that puts a recommended item is what the one contributed to the other. Aggregates of the user stay as
they are. All questions about a user are one run of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows
from serving.blend_kernels import Met
from serving.decision import Read
from serving.items import ITEM
from serving.model import Model

_LOOKS_BACK = 16
"""Only so many of the items that a user met last are asked about: each costs a run of the model."""

_RUNS = 512
"""Of a request about many users only so many runs are made: fewer items are asked about for each."""

_SHOWN = 2


def because(
    model: Model, found: Read, row: int, scores_of: Callable[[np.ndarray, Met | None], np.ndarray]
) -> list[list[dict[str, Any]]]:
    """Of each recommended item up to two items of the user's history that contributed most to its score.

    Args:
        model: the bundle's.
        found: what was read.
        row: of which user.
        scores_of: from queries and histories to the scores of the k items that are recommended to him, [B, k].

    Returns:
        k lists of {"item_id", "contribution"}, largest first; what contributed nothing, or spoke against, is left out.
    """
    times = np.full(found.rows, found.moment.t, np.int64)
    rows = found.features.rows(model.encoding.spec, found.fields, times)
    most = max(1, min(_LOOKS_BACK, _RUNS // found.rows))
    met = list(islice(_met_last(rows.sequences.values(), row), most))
    scores = scores_of(*model.run_met(without(rows, row, [None, *met])))
    contribution = scores[0] - scores[1:]
    order = np.argsort(-contribution, axis=0, kind="stable")[:_SHOWN]
    return [
        [{ITEM: met[one], "contribution": float(mine[one])} for one in best if mine[one] > 0]
        for mine, best in zip(contribution.T, order.T, strict=True)
    ]


def without(rows: Rows, row: int, items: Sequence[str | None]) -> Rows:
    """One of the rows, once for each of these items as if there had been no event about it; None leaves it as it is."""
    times = len(items)
    return Rows(
        sequences={view: _sequence_without(one, row, items) for view, one in rows.sequences.items()},
        scalars={name: np.repeat(values[row : row + 1], times, axis=0) for name, values in rows.scalars.items()},
        request={name: [values[row]] * times for name, values in rows.request.items()},
        t=np.repeat(rows.t[row], times),
    )


def _sequence_without(sequence: JaggedSequence, row: int, items: Sequence[str | None]) -> JaggedSequence:
    start, end, times = int(sequence.starts[row]), int(sequence.ends[row]), len(items)
    if ITEM not in sequence.values:
        return replace(sequence, starts=np.full(times, start), ends=np.full(times, end))
    code: dict[str | None, int] = {item: place for place, item in enumerate(sequence.dictionaries[ITEM])}
    mine = sequence.values[ITEM][start:end]
    kept = [start + np.flatnonzero(mine != code.get(item, -1 - len(code))) for item in items]
    ends, places = np.cumsum([len(one) for one in kept]), np.concatenate(kept)
    return replace(
        sequence,
        values={name: values[places] for name, values in sequence.values.items()},
        nulls={name: nulls[places] for name, nulls in sequence.nulls.items()},
        starts=ends - [len(one) for one in kept],
        ends=ends,
    )


def _met_last(sequences: Iterable[JaggedSequence], row: int) -> dict[str, None]:
    """The items of a user's sequences, the latest first, each once."""
    met: dict[str, None] = {}
    for one in sequences:
        if ITEM in one.values:
            codes = one.values[ITEM][one.starts[row] : one.ends[row]]
            met |= {one.dictionaries[ITEM][code]: None for code in codes[::-1].tolist() if code >= 0}
    return met
