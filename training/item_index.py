"""An index of item vectors, for a catalogue that is too large to be looked at whole, and how much it finds.

HNSW by inner product (usearch), in bfloat16. The bias is one more number of an item, and 1 is that of a query. What
the index gives is scored exactly afterwards, so that only what it overlooks is lost.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

RECALL = 0.95
"""What part of the true 100 best is to be found."""

_LOOKS_AT = (128, 256, 512, 1024, 2048)
"""How many items a search keeps in sight: more find more and take longer."""

_CONNECTIVITY, _EFFORT = 16, 128
_DEPTHS = (10, 100)
_CHUNK = 200_000


def build_index(vectors: np.ndarray, bias: np.ndarray, queries: np.ndarray, path: Path) -> dict[str, Any]:
    """Build it into a file, and choose the least effort that reaches `RECALL`, or else the greatest.

    Args:
        vectors: float32 [I, D].
        bias: float32 [I].
        queries: by which recall is measured; float32 [Q, D].
        path: of the file.

    Returns:
        `file`, `looks_at`, `recall@10`, `recall@100` (parts of what an exact search finds), `queries`, `items`,
        `seconds` (of building).
    """
    began = time.monotonic()
    index = Index(
        ndim=vectors.shape[1] + 1, metric="ip", dtype="bf16", connectivity=_CONNECTIVITY, expansion_add=_EFFORT
    )
    for start in range(0, len(vectors), _CHUNK):
        some = slice(start, start + _CHUNK)
        index.add(np.arange(len(vectors))[some], np.column_stack([vectors[some], bias[some]]))
    index.save(str(path))
    seconds = time.monotonic() - began
    truth = [exact(vectors, bias, query, max(_DEPTHS)) for query in queries]
    found: dict[str, Any] = {}
    for looks_at in _LOOKS_AT:
        answers = [near(index, vectors, bias, query, looks_at) for query in queries]
        found = {"looks_at": looks_at, **{f"recall@{depth}": _recall(answers, truth, depth) for depth in _DEPTHS}}
        if found[f"recall@{max(_DEPTHS)}"] >= RECALL:
            break
    counts = {"queries": len(queries), "items": len(vectors), "seconds": round(seconds, 1)}
    return {"file": path.name, **found, **counts}


def near(index: Index, vectors: np.ndarray, bias: np.ndarray, query: np.ndarray, looks_at: int) -> np.ndarray:
    """Places of what a search finds, best first by their exact scores."""
    index.expansion_search = looks_at  # type: ignore[misc] # its setter stands apart
    places = np.sort(index.search(np.append(query, np.float32(1)), looks_at).keys.astype(np.int64))
    return places[np.argsort(-(vectors[places] @ query + bias[places]), kind="stable")]


def exact(vectors: np.ndarray, bias: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Places of the k best."""
    scores = vectors @ query + bias
    k = min(k, len(scores))
    candidates = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
    return candidates[np.argsort(-scores[candidates])]


def _recall(answers: list[np.ndarray], truth: list[np.ndarray], depth: int) -> float:
    """How much of the true best `depth` is among as many answers, in the mean."""
    shares = [len(np.intersect1d(a[:depth], t[:depth])) / len(t[:depth]) for a, t in zip(answers, truth, strict=True)]
    return round(float(np.mean(shares)), 4)
