"""How long it takes to find the best items, exactly and by index: `OMP_NUM_THREADS=1 python -m benchmarks.retrieval`.

Vectors of 64 numbers, items near the centre of their category and users near an item, as fitted models have them.
Retrieval alone, in one process, without model and HTTP; services run with one thread, hence OMP_NUM_THREADS. The
index of two millions takes minutes to build, on all cores.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.catalogue import HISTORY_SCHEMA, Catalogue
from clicktrail.encoding import Encoding
from clicktrail.input_spec import InputSpec
from serving.diversity import POOL, spread
from serving.filters import Eligible, Filters
from serving.items import Items
from serving.offers import offers
from serving.retrieval import Retrieval

EXACT = (10_000, 100_000, 1_000_000)
APPROXIMATE = (2_000_000,)
_WIDTH, _USERS, _DEPTHS = 64, 200, (10, 100)
_PER_CATEGORY = 100
_NOTHING = np.zeros(0, np.int64)


def world(count: int, seed: int = 0) -> tuple[Items, np.ndarray]:
    """Items, and the queries of users: float32 [users, D]."""
    rng = np.random.default_rng(seed)
    categories = max(1, count // _PER_CATEGORY)
    category = rng.integers(0, categories, count)
    centres = rng.standard_normal((categories, _WIDTH), dtype=np.float32)
    vectors = centres[category] + np.float32(0.7) * rng.standard_normal((count, _WIDTH), dtype=np.float32)
    near = vectors[rng.integers(0, count, _USERS)]
    queries = near + np.float32(0.5) * rng.standard_normal((_USERS, _WIDTH), dtype=np.float32)
    ids = tuple(f"i{place}" for place in range(count))
    items = Items(
        ids=ids,
        vectors=vectors,
        bias=rng.standard_normal(count, dtype=np.float32),
        share=np.full(count, 1 / count),
        category=pa.array(category).cast(pa.string()),
        price=pa.array(rng.integers(100, 10_000, count)),
        encoding=Encoding(
            spec=InputSpec(sequences=(), scalars=()), vocabularies={"item_id": ids}, scales={}, priors={}
        ),
    )
    return items, queries


def measure(items: Items, queries: np.ndarray, retrieval: Retrieval) -> dict[str, float]:
    """Milliseconds: of one user at each depth, with a filter, with diversity, and of one of 32 at once."""
    filters = Filters(items)
    wanted = dict.fromkeys(("allow", "deny", "categories"))
    dear = {**wanted, "price_minor": {"minimum": 5_000, "maximum": None}, "in_stock": False}
    now = offers(Catalogue(HISTORY_SCHEMA.empty_table()), items, 0)
    half = filters.eligible(dear, now)

    def diverse(query: np.ndarray) -> None:
        (ranked,) = retrieval.best(query[None], POOL * _DEPTHS[0], filters.all, [_NOTHING])
        spread(items.vectors[ranked.places], ranked.scores, _DEPTHS[0], 0.3)

    def top(query: np.ndarray, k: int, eligible: Eligible) -> object:
        return retrieval.best(query[None], k, eligible, [_NOTHING])

    found: dict[str, float] = {}
    for depth in _DEPTHS:
        found |= _times(f"top{depth}", partial(top, k=depth, eligible=filters.all), queries)
    found |= _times("half_may_be_shown", partial(top, k=_DEPTHS[0], eligible=half), queries)
    found |= _times("diverse", diverse, queries)
    few = 32
    began = time.perf_counter()
    for start in range(0, _USERS - few, few):
        retrieval.best(queries[start : start + few], 10, filters.all, [_NOTHING] * few)
    found["one_of_32_ms"] = (time.perf_counter() - began) * 1e3 / (_USERS // few * few)
    return {name: round(value, 3) for name, value in found.items()}


def _times(name: str, do: Callable[[np.ndarray], object], queries: np.ndarray) -> dict[str, float]:
    took = []
    for query in queries:
        began = time.perf_counter()
        do(query)
        took.append((time.perf_counter() - began) * 1e3)
    return {f"{name}_p50_ms": float(np.median(took)), f"{name}_p99_ms": float(np.quantile(took, 0.99))}


def by_index(items: Items, queries: np.ndarray, folder: Path) -> tuple[dict[str, Any], Retrieval]:
    """Build the index as an export does; what is known of it, its size, and a retrieval that uses it."""
    from serving.item_index import ItemIndex
    from training.item_index import build_index

    path = folder / "items.usearch"
    described = build_index(items.vectors, items.bias, queries, path)
    size = {"index_mb": round(path.stat().st_size / 2**20, 1)}
    return {**described, **size}, Retrieval(items, ItemIndex(folder, described))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=int, nargs="*", default=EXACT, help="sizes that are looked at whole")
    parser.add_argument("--approximate", type=int, nargs="*", default=APPROXIMATE, help="sizes that get an index")
    given = parser.parse_args(arguments)
    figures: dict[str, Any] = {"threads": os.environ.get("OMP_NUM_THREADS", "all")}
    for count in given.exact:
        items, queries = world(count)
        figures[f"exact_{count}"] = measure(items, queries, Retrieval(items))
        print(_line(f"{count:>9,} exact", figures[f"exact_{count}"]), flush=True)
    for count in given.approximate:
        items, queries = world(count)
        with tempfile.TemporaryDirectory() as folder:
            described, retrieval = by_index(items, queries, Path(folder))
            figures[f"approximate_{count}"] = {**described, **measure(items, queries, retrieval)}
        print(_line(f"{count:>9,} index", figures[f"approximate_{count}"]), flush=True)
    print(json.dumps(figures))


def _line(name: str, figures: dict[str, Any]) -> str:
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items())


if __name__ == "__main__":
    main()
