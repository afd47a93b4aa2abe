"""Items made of vectors, for tests of what ranks them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from clicktrail.encoding import Encoding
from clicktrail.input_spec import InputSpec
from serving.items import Items

CATEGORIES = ("hats", "socks", None)


def items_of(vectors: np.ndarray, bias: np.ndarray | None = None, views: list[int] | None = None) -> Items:
    """Items i0, i1, ...; the category of item n is the n-th, its price 100 n, of every fifth unknown."""
    ids = tuple(f"i{place}" for place in range(len(vectors)))
    popularity = np.array(views or [1] * len(ids))
    return Items(
        ids=ids,
        vectors=vectors.astype(np.float32),
        bias=np.zeros(len(ids), np.float32) if bias is None else bias.astype(np.float32),
        share=popularity / max(1, popularity.sum()),
        category=pa.array([CATEGORIES[place % 3] for place in range(len(ids))], pa.string()),
        price=pa.array([None if place % 5 == 4 else 100 * place for place in range(len(ids))], pa.int64()),
        encoding=Encoding(
            spec=InputSpec(sequences=(), scalars=()), vocabularies={"item_id": ids}, scales={}, priors={}
        ),
    )
