"""Interactions of any file with users, items and an order, and which of them train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.training_set import TEST, TRAIN, VALIDATION

Order = Literal["position", "timestamp"]

_USERS = ("user_id", "ml_user_id", "CUSTOMER_ID", "customer_id")
_ITEMS = ("item_id", "movie_id", "TERMINAL_ID")
_TIMES = ("timestamp", "event_timestamp", "event_time", "TX_DATETIME")
OUTSIDE = -1
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Events sorted by user, oldest first.

    Attributes:
        user: int64 [n], 0 .. users - 1, rising.
        item: int64 [n], 0 .. items - 1.
        time: int64 [n], microseconds UTC; None where the file has an order alone.
        users: string [users], what the file calls them.
        items: string [items].
        offsets: int64 [items + 1]; item i has the attributes `attributes[offsets[i]:offsets[i + 1]]`.
        attributes: int64, codes 0 .. ; empty where nothing is known of the items.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    users: pa.Array
    items: pa.Array
    offsets: np.ndarray
    attributes: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Where each user's events begin, int64 [users + 1]."""
        return np.searchsorted(self.user, np.arange(len(self.users) + 1))


def read(file: Path, order: Order, attributes: Path | None = None) -> Interactions:
    """Read a Parquet file of interactions.

    Args:
        file: with a user, an item, and a position or a timestamp.
        order: which of the two orders a user's events; equal ones stay as they stand in the file.
        attributes: Parquet with the item's column and `attributes` (a list); by default the file beside it that is
            called `<name>_item_attributes.parquet`, if there is one. Without any, a `category_id` of the file serves.

    Raises:
        ValueError: a column is missing or holds nulls.
    """
    names = pq.read_schema(file).names
    user, item = _column(file, names, _USERS, "user"), _column(file, names, _ITEMS, "item")
    by = "position" if order == "position" else _column(file, names, _TIMES, "time")
    if by not in names:
        message = f"{file} has no column position: give one, or --order timestamp; it has {', '.join(names)}"
        raise ValueError(message)
    category = [name for name in ("category_id",) if name in names]
    frame = pd.read_parquet(file, columns=list(dict.fromkeys([user, item, by, *category])))
    for name in (user, item, by):
        if frame[name].isna().any():
            row = int(np.flatnonzero(frame[name].isna())[0])
            message = f"{file}, row {row}: {name} is null; leave such rows out"
            raise ValueError(message)
    if len(frame) == 0:
        message = f"{file} has no rows"
        raise ValueError(message)
    frame = frame.sort_values([user, by], kind="stable", ignore_index=True)
    user_code, users = pd.factorize(frame[user], sort=True)
    item_code, items = pd.factorize(frame[item], sort=True)
    beside = attributes or file.with_name(f"{file.stem}_item_attributes.parquet")
    if beside.is_file():
        offsets, codes = _attributes(beside, item, items)
    elif category:
        table = pd.DataFrame({item: frame[item], "attributes": frame[category[0]]}).drop_duplicates(item)
        offsets, codes = _lists(table.set_index(item)["attributes"].reindex(items).map(lambda one: [one]).to_list())
    else:
        offsets, codes = np.zeros(len(items) + 1, np.int64), np.empty(0, np.int64)
    return Interactions(
        user=user_code.astype(np.int64),
        item=item_code.astype(np.int64),
        time=_microseconds(frame[by]) if order == "timestamp" else None,
        users=pa.array(pd.Index(users).astype(str)),
        items=pa.array(pd.Index(items).astype(str)),
        offsets=offsets,
        attributes=codes,
    )


def leave_one_out(data: Interactions, *, refit: bool) -> np.ndarray:
    """Split of each event as a target: a user's last is test, the one before validation (training too with `refit`).

    Returns:
        int8 [n]; OUTSIDE for first events: nothing is known before them. Users of fewer than three events train alone.

    Raises:
        ValueError: no user has three events.
    """
    first = data.first
    split = np.full(len(data.user), TRAIN, np.int8)
    split[first[:-1]] = OUTSIDE
    long = np.diff(first) >= _FEWEST
    if not long.any():
        message = f"no user has {_FEWEST} events: one to train, one to validate, one to test"
        raise ValueError(message)
    split[first[1:][long] - 1] = TEST
    if not refit:
        split[first[1:][long] - 2] = VALIDATION
    return split


def by_time(data: Interactions, shares: tuple[float, float] = (0.8, 0.9), *, refit: bool) -> np.ndarray:
    """Split of each event as a target by two moments that all users share: nothing of later days trains.

    Returns:
        int8 [n], as `leave_one_out`; the moments leave these shares of all events before them.
    """
    assert data.time is not None  # noqa: S101 - the caller ordered by time
    begin, end = np.quantile(data.time, shares, method="lower")
    split = np.where(data.time < begin, TRAIN, np.where(data.time < end, TRAIN if refit else VALIDATION, TEST))
    split = split.astype(np.int8)
    split[data.first[:-1]] = OUTSIDE
    return split


def _column(file: Path, names: list[str], known: tuple[str, ...], what: str) -> str:
    found = [name for name in known if name in names]
    if not found:
        message = f"{file} has no {what} column: call it {known[0]} (it has {', '.join(names)})"
        raise ValueError(message)
    return found[0]


def _microseconds(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column):  # seconds since 1970
        return (column.to_numpy(np.float64) * 1e6).astype(np.int64)
    return pd.to_datetime(column, utc=True).to_numpy("datetime64[us]").astype(np.int64)


def _attributes(file: Path, item: str, items: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    names = pq.read_schema(file).names
    key = item if item in names else _column(file, names, _ITEMS, "item")
    if "attributes" not in names:
        message = f"{file} has no column attributes (a list for each item); it has {', '.join(names)}"
        raise ValueError(message)
    table = pd.read_parquet(file, columns=[key, "attributes"]).drop_duplicates(key).set_index(key)["attributes"]
    return _lists([[] if one is None or np.ndim(one) == 0 else list(one) for one in table.reindex(items)])


def _lists(lists: list[list[object]]) -> tuple[np.ndarray, np.ndarray]:
    flat = [str(value) for one in lists for value in one]
    codes, _ = pd.factorize(pd.Series(flat, dtype="string"))
    return np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64), codes.astype(np.int64)
