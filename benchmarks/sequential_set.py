"""Interactions as a training set of the engine: one example for each event, its history the user's events before."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from benchmarks.sequential_data import OUTSIDE, Interactions
from clicktrail.encoding import FIRST, Encoding
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows, only
from training.baselines import subsample
from training.training_set import SPLITS, TRAIN, VALIDATION, TrainingSet

VIEW = "history"
_SECOND = 1_000_000
_WATCHED = 4_000


def training_set(data: Interactions, split: np.ndarray, last: int) -> TrainingSet:
    """Examples for the events that `split` puts somewhere, int8 [n] as of `sequential_data.leave_one_out`.

    All items of the file can be ranked, also those that training does not see: their attributes speak for them.
    Where the file has no times, events follow each other by a second, so that every gap is alike. Where nothing is
    left for validation, some training examples stand there a second time: a fit keeps the epoch that knows them best,
    which is its last or nearly so.

    Args:
        data: interactions.
        split: of each event as a target.
        last: events of a history.
    """
    place = np.flatnonzero(split != OUTSIDE)
    kept = split[place]
    if not (kept == VALIDATION).any():
        again = place[kept == TRAIN]
        again = again[subsample(len(again), _WATCHED, 0)]
        place, kept = np.append(place, again), np.append(kept, np.full(len(again), VALIDATION, np.int8))
    first = data.first[data.user[place]]
    within = np.arange(len(data.user)) - data.first[data.user]
    time = within * _SECOND if data.time is None else data.time
    spec = InputSpec(sequences=(SequenceSpec(view=VIEW, last=last, categories=("item_id",)),))
    names = data.items.to_pylist()
    rows = Rows(
        sequences={
            VIEW: JaggedSequence(
                values={"item_id": data.item.astype(np.int32), "event_timestamp": time},
                dictionaries={"item_id": names},
                nulls={},
                starts=first,
                ends=place,
            )
        },
        scalars={},
        request={},
        t=time[place],
    )
    encoding = Encoding.fit(spec, only(rows, np.flatnonzero(kept == TRAIN)), more={"item_id": names})
    ids, numbers = encoding.request(rows)
    code_of = encoding.codes("item_id", names) - FIRST
    target = code_of[data.item[place]]
    return TrainingSet(
        manifest={
            "task": "sequential",
            "head": "next_item",
            "digest": hashlib.sha256(data.item.tobytes() + split.tobytes()).hexdigest(),
            "examples": {SPLITS[part]: int((kept == part).sum()) for part in range(len(SPLITS))},
        },
        encoding=encoding,
        tokens={VIEW: encoding.tokens(VIEW, rows)},
        request_ids=ids.astype(np.int32),
        request_numbers=numbers,
        target=target,
        split=kept,
        t=rows.t,
        entity=data.user[place],
        example_id=pa.array(place.astype(str)),
        scalars=pa.table({"group": data.user[place]}),
        items=_items(data, encoding, code_of, target[kept == TRAIN]),
    )


def _items(data: Interactions, encoding: Encoding, code_of: np.ndarray, train_target: np.ndarray) -> pa.Table:
    """One row an output position: item_id, attributes where the data has them, popularity as a target of training."""
    columns = {
        "item_id": pa.array(encoding.vocabularies["item_id"], pa.string()),
        "popularity": np.bincount(train_target, minlength=len(code_of)),
    }
    if len(data.attributes):
        item_of = np.empty(len(code_of), np.int64)
        item_of[code_of] = np.arange(len(code_of))
        lists = pa.ListArray.from_arrays(pa.array(data.offsets, pa.int32()), pa.array(data.attributes))
        columns["attributes"] = lists.take(pa.array(item_of))
    return pa.table(columns)
