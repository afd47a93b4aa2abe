"""What is known of items besides their events: attributes, or vectors that somebody computed before.

Each item's content becomes a vector of the model's width, which is added to the item's own wherever it is read or
scored. So items of a few events, or none yet, share what other items taught their attributes. I items, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

ATTRIBUTES, VECTOR = "attributes", "vector"
"""Columns of an item table: a list of strings, or a list of numbers that has the same length for every item."""
_STD = 0.05


class ItemContent(nn.Module):
    """c_ID: the mean of an item's attributes' embeddings, and a linear map of its vector; 0 where it has neither."""

    offsets: torch.Tensor
    codes: torch.Tensor
    vectors: torch.Tensor

    def __init__(
        self,
        width: int,
        *,
        attributes: tuple[np.ndarray, np.ndarray] | None = None,
        vectors: np.ndarray | None = None,
    ) -> None:
        """Either or both.

        Args:
            width: D.
            attributes: offsets int64 [I + 1] and codes int64: item i has codes[offsets[i]:offsets[i + 1]].
            vectors: float32 [I, any].
        """
        super().__init__()
        self.table = self.map = None
        if attributes is not None:
            offsets, codes = attributes
            self.register_buffer("offsets", torch.from_numpy(np.ascontiguousarray(offsets, np.int64)), persistent=False)
            self.register_buffer("codes", torch.from_numpy(np.ascontiguousarray(codes, np.int64)), persistent=False)
            self.table = nn.Parameter(torch.randn(int(codes.max(initial=-1)) + 1, width) * _STD)
        if vectors is not None:
            scaled = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
            self.register_buffer("vectors", scaled / scaled.square().mean().sqrt().clamp(min=1e-6), persistent=False)
            self.map = nn.Linear(vectors.shape[1], width, bias=False)
            nn.init.normal_(self.map.weight, std=_STD * vectors.shape[1] ** -0.5)

    def forward(self) -> torch.Tensor:
        """c_ID of all items."""
        parts = []
        if self.table is not None:
            parts.append(F.embedding_bag(self.codes, self.table, self.offsets, mode="mean", include_last_offset=True))
        if self.map is not None:
            parts.append(self.map(self.vectors))
        return torch.stack(parts).sum(0)


def content_of(items: pa.Table, width: int) -> ItemContent | None:
    """The content that an item table holds in its columns `attributes` and `vector`; None where it has neither.

    Raises:
        ValueError: vectors of different lengths.
    """
    attributes = vectors = None
    if ATTRIBUTES in items.column_names:
        lists = items[ATTRIBUTES].combine_chunks()
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        codes = _codes(lists.flatten().to_pylist())
        attributes = (np.concatenate([[0], np.cumsum(lengths)]), codes)
    if VECTOR in items.column_names:
        lists = items[VECTOR].to_pylist()
        if len({len(one or ()) for one in lists}) > 1:
            message = f"column {VECTOR!r} of the items must hold as many numbers for every item"
            raise ValueError(message)
        vectors = np.array(lists, np.float32)
    if attributes is None and vectors is None:
        return None
    return ItemContent(width, attributes=attributes, vectors=vectors)


def _codes(values: Sequence[str]) -> np.ndarray:
    """Each value as its place among the different ones, int64."""
    return np.unique(np.array(values, object).astype(str), return_inverse=True)[1].astype(np.int64)
