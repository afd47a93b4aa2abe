"""The items of a next-item model as serving takes them: a table, their vectors, and an index where they are many.

Files:
  items.parquet     item_id, category_id, price_minor, popularity, bias; a row an item, in the order of the vocabulary
  item_vectors.npy  float32 [I, D], the same rows: the score of item i is query @ item_vectors[i] + bias[i]
  items.usearch, item_index.json  only above `EXACT_ITEMS` items: an index of the vectors, and how much it finds
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from training.batches import Arrays, batches, own_windows
from training.model import SequenceModel
from training.training_set import TRAIN, VALIDATION, TrainingSet

ITEMS, VECTORS, INDEX, INDEX_FILE = "items.parquet", "item_vectors.npy", "item_index.json", "items.usearch"

EXACT_ITEMS = 1_000_000
"""Up to so many items a service looks at all of them for every request."""

_QUERIES = 256
"""So many examples ask, to measure what an index finds."""


@torch.no_grad()
def write_items(
    model: SequenceModel, data: TrainingSet, folder: Path, *, exact_items: int = EXACT_ITEMS
) -> dict[str, str | None]:
    """Write them into a folder; returns how interface.json names the files."""
    assert data.items is not None  # noqa: S101 - next-item sets have items
    vectors, bias = (one.float().cpu().numpy() for one in model.item_vectors())
    pq.write_table(data.items.append_column("bias", pa.array(bias, pa.float32())), folder / ITEMS)
    np.save(folder / VECTORS, np.ascontiguousarray(vectors), allow_pickle=False)
    named = {"items": ITEMS, "item_vectors": VECTORS, "item_index": None}
    if len(vectors) > exact_items:
        from training.item_index import build_index  # its package is needed for large catalogues alone

        described = build_index(vectors, bias, _some_queries(model, data), folder / INDEX_FILE)
        (folder / INDEX).write_text(json.dumps(described, indent=1))
        named["item_index"] = INDEX
    return named


def _some_queries(model: SequenceModel, data: TrainingSet) -> np.ndarray:
    """What users of the validation range ask for, or of the training range where there is none; float32 [Q, D]."""
    examples = next(found for found in (data.of(VALIDATION), data.of(TRAIN)) if len(found))[-_QUERIES:]
    model.eval()
    parts = batches(Arrays(data), own_windows(data, examples), tokens=32_768, rows=_QUERIES)
    return np.concatenate([model(batch).float().numpy() for batch in parts])
