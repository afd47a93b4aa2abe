"""A training set of next items from a table of who had what in which order, without log or Feast.

Leave-one-out, as published figures have it: of each user's items the last is the test, the one before the validation,
all earlier ones are training. Order stands for time: one day from an item to the next.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from clicktrail.encoding import FIRST, Encoding
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows
from training.training_set import TEST, TRAIN, VALIDATION, TrainingSet

VIEW = "history"
_DAY = 86_400_000_000
_FEWEST = 3


def read_histories(path: Path) -> pd.DataFrame:
    """Rows `user_id`, `item_id`, `position` of users with at least three items, each user's in order.

    Raises:
        ValueError: a column is missing, or nobody has three items.
    """
    table = pd.read_parquet(path)
    missing = {"user_id", "item_id", "position"} - set(table.columns)
    if missing:
        message = f"{path} has no column {', '.join(sorted(missing))}: it must have user_id, item_id and position"
        raise ValueError(message)
    table = table.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    table = table[table.groupby("user_id")["item_id"].transform("size") >= _FEWEST]
    if table.empty:
        message = f"{path}: no user has {_FEWEST} items: one to train, one to validate, one to test"
        raise ValueError(message)
    return table[["user_id", "item_id", "position"]].reset_index(drop=True)


def train_range(table: pd.DataFrame, length: int) -> pd.DataFrame:
    """Rows that training may see: of each user all but the last two, and of these the last `length` + 1."""
    left = table.groupby("user_id").cumcount(ascending=False)
    return table[(left >= 2) & (left < length + 3)].reset_index(drop=True)  # noqa: PLR2004 - validation and test


def training_set(table: pd.DataFrame, length: int, validation: int) -> TrainingSet:
    """Examples of all users: each training item after the first, the validation items of some, the test items of all.

    Args:
        table: of `read_histories`.
        length: events that the model reads; a user's training range is cut to its last `length` and their targets, so
            that one window has them all.
        validation: users whose validation item is looked at.
    """
    left = table.groupby("user_id").cumcount(ascending=False).to_numpy()
    table, left = table[left < length + 3], left[left < length + 3]
    user, names = pd.factorize(table["user_id"])
    codes, items = pd.factorize(table["item_id"].astype(str))
    begin = np.searchsorted(user, user)  # where each row's user begins
    place = np.arange(len(table))
    split = np.select([left == 0, left == 1], [TEST, VALIDATION], TRAIN)
    looked_at = np.random.default_rng(0).choice(len(names), min(validation, len(names)), replace=False)
    chosen = np.flatnonzero((place > begin) & ((split != VALIDATION) | np.isin(user, looked_at)))
    split, stamp = split[chosen].astype(np.int8), (place - begin) * _DAY
    spec = InputSpec(sequences=(SequenceSpec(view=VIEW, last=length, categories=("item_id",)),))

    def rows_of(examples: np.ndarray) -> Rows:
        sequence = JaggedSequence(
            values={"item_id": codes.astype(np.int32), "event_timestamp": stamp},
            dictionaries={"item_id": list(items)},
            nulls={},
            starts=np.maximum(begin[examples], examples - length),
            ends=examples,
        )
        return Rows(sequences={VIEW: sequence}, scalars={}, request={}, t=stamp[examples])

    rows, train = rows_of(chosen), chosen[split == TRAIN]
    wanted = items[codes[chosen]]
    encoding = Encoding.fit(spec, rows_of(train), more={"item_id": items[codes[train]].tolist()})
    target = np.maximum(encoding.codes("item_id", wanted) - FIRST, -1)
    known = encoding.vocabularies["item_id"]
    request_ids, request_numbers = encoding.request(rows)
    return TrainingSet(
        manifest={"task": "training_speed", "head": "next_item"},
        encoding=encoding,
        tokens={VIEW: encoding.tokens(VIEW, rows)},
        request_ids=request_ids.astype(np.int32),
        request_numbers=request_numbers,
        target=target,
        split=split,
        t=rows.t,
        entity=user[chosen],
        example_id=pa.array(table["user_id"].to_numpy()[chosen].astype(str)),
        scalars=pa.table({"group": user[chosen]}),
        items=pa.table({"item_id": known, "popularity": np.bincount(target[split == TRAIN], minlength=len(known))}),
    )
