"""The items that a recommendation bundle can name, a row each, in the order of the encoding's vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.encoding import FIRST, Encoding
from serving.manifest import RefusedError

ITEM = "item_id"
_SCHEMA = pa.schema(
    [
        (ITEM, pa.string()),
        ("category_id", pa.string()),
        ("price_minor", pa.int64()),
        ("popularity", pa.int64()),
        ("bias", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Items:
    """I items. The score of item i for a query q is q @ vectors[i] + bias[i].

    `vectors` float32 [I, D], a file that is mapped; `bias` float32 [I]; `share` float64 [I], of all views in the
    training range; `category` strings [I] and `price` int64 [I] (minor units, null where unknown) as training saw them
    last.
    """

    ids: tuple[str, ...]
    vectors: np.ndarray
    bias: np.ndarray
    share: np.ndarray
    category: pa.Array
    price: pa.Array
    encoding: Encoding

    @classmethod
    def load(cls, folder: Path, interface: Mapping[str, Any], encoding: Encoding) -> Items:
        """Of a bundle's folder.

        Raises:
            RefusedError: table, vectors and vocabulary are not of the same items.
        """
        table = pq.read_table(folder / interface["items"], columns=_SCHEMA.names).cast(_SCHEMA).combine_chunks()
        vectors = np.load(folder / interface["item_vectors"], mmap_mode="r", allow_pickle=False)
        ids = encoding.vocabularies[ITEM]
        if tuple(table[ITEM].to_pylist()) != ids or vectors.dtype != np.float32 or len(vectors) != len(ids):
            message = (
                f"{folder / interface['items']} ({table.num_rows} rows), {interface['item_vectors']} "
                f"({vectors.dtype} {list(vectors.shape)}) and the vocabulary of {ITEM} ({len(ids)}) are not of the "
                "same items in the same order: export the run again"
            )
            raise RefusedError(message)
        popularity = table["popularity"].to_numpy()
        return cls(
            ids=ids,
            vectors=np.asarray(vectors),  # still the mapped file, without the overhead of numpy's class for it
            bias=table["bias"].to_numpy(),
            share=popularity / max(1, popularity.sum()),
            category=_one_chunk(table["category_id"]),
            price=_one_chunk(table["price_minor"]),
            encoding=encoding,
        )

    def __len__(self) -> int:
        """I."""
        return len(self.ids)

    def places(self, ids: Iterable[str | None]) -> np.ndarray:
        """Places of those that are known, each once, rising; int64 [up to len(ids)]."""
        places = np.unique(self.in_order(ids))
        return places[np.searchsorted(places, 0) :]

    def in_order(self, ids: Iterable[str | None]) -> np.ndarray:
        """Place of each id, below 0 where it is not known; int64 [len(ids)]."""
        return self.encoding.codes(ITEM, ids) - FIRST


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
