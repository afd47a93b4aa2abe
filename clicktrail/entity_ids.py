"""Who a row is about, as one string: the id of a single entity as it is, the ids of a pair side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

SEPARATOR = "\x1f"
"""Between the ids of a pair: ASCII's unit separator, which no id of a shop contains."""


def entity_id(values: Mapping[str, str | None], keys: Sequence[str]) -> str | None:
    """The id of an entity from its key columns; None where one of them is missing."""
    parts = [values[key] for key in keys]
    return None if None in parts else SEPARATOR.join(str(part) for part in parts)


def entity_ids(table: pa.Table, keys: Sequence[str]) -> pa.ChunkedArray:
    """The id of each row's entity, dictionary-encoded where there is one key column that is; null where one is null.

    Shape [rows].
    """
    if len(keys) == 1:
        return table[keys[0]]
    return pc.binary_join_element_wise(
        *(_strings(table[key]) for key in keys), SEPARATOR, null_handling="emit_null"
    ).dictionary_encode()


def in_the_dark(entity: str) -> str:
    """What stands for an id where it must not be read: its sha256."""
    return hashlib.sha256(entity.encode()).hexdigest()


def _strings(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as text; whole numbers that pandas made floats for want of a null are whole again.

    Raises:
        ValueError: an id is a number with a fraction.
    """
    if pa.types.is_floating(ids.type):
        ids = ids.cast(pa.int64())
    return ids.cast(pa.string())
