"""The index of a large catalogue: what it finds, how much it says it finds, and how serving falls back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.build import CHECKOUT, entries
from serving.filters import Eligible, Filters
from serving.item_index import ItemIndex
from serving.items import Items
from serving.manifest import RefusedError
from serving.offers import offers
from serving.retrieval import Retrieval
from serving.sources import needed
from tests.serving.made_items import items_of
from tests.serving.test_retrieval import NONE, catalogue_of
from training.export import export
from training.fit import build_model
from training.item_index import build_index, exact
from training.presets import preset
from training.training_set import TrainingSet

ITEMS, DEEP = 6_000, 100


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Items, np.ndarray, ItemIndex, dict[str, float]]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 16))
    vectors = (centres[rng.integers(0, 60, ITEMS)] + 0.5 * rng.standard_normal((ITEMS, 16))).astype(np.float32)
    items = items_of(vectors, rng.standard_normal(ITEMS))
    queries = vectors[rng.integers(0, ITEMS, 40)] + 0.3 * rng.standard_normal((40, 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("index")
    described = build_index(items.vectors, items.bias, queries[:20], folder / "items.usearch")
    return items, queries[20:], ItemIndex(folder, described), described


def test_recall_is_what_was_measured(built: tuple[Items, np.ndarray, ItemIndex, dict[str, float]]) -> None:
    """Of other queries than those measured with, at least the stated part of the 100 best is found, less 2 in 100."""
    items, queries, index, described = built
    everything = Filters(items).all
    found = Retrieval(items, index).best(queries, DEEP, everything, [np.zeros(0, np.int64)] * len(queries))
    shares = []
    for query, ranked in zip(queries, found, strict=True):
        truth = exact(items.vectors, items.bias, query, DEEP)
        shares.append(len(np.intersect1d(ranked.places, truth)) / DEEP)
        np.testing.assert_allclose(
            ranked.scores, items.vectors[ranked.places] @ query + items.bias[ranked.places], 1e-5
        )
        assert (np.diff(ranked.scores) <= 0).all()
    assert described["recall@100"] >= 0.95
    assert np.mean(shares) >= described["recall@100"] - 0.02


def test_filters_that_leave_too_little_are_answered_exactly(
    built: tuple[Items, np.ndarray, ItemIndex, dict[str, float]],
) -> None:
    """Whether a few may be shown or none of the nearest: the true best, and nothing that was seen."""
    items, queries, index, _ = built
    query, seen = queries[0], np.sort(exact(items.vectors, items.bias, queries[0], 50))
    near = exact(items.vectors, items.bias, query, 400)
    for wanted in (
        {"allow": [items.ids[place] for place in near[100:130]]},
        {"deny": [items.ids[place] for place in near]},
    ):
        eligible = Filters(items).eligible(NONE | wanted, offers(catalogue_of(), items, 0))
        ranked = Retrieval(items, index).best(query[None], 30, eligible, [seen])[0]
        assert ranked.places.tolist() == best_left(items, query, eligible, seen)


def test_filters_that_leave_half_cost_no_recall(
    built: tuple[Items, np.ndarray, ItemIndex, dict[str, float]],
) -> None:
    """In the mean over users, who have seen the 50 best: a build by several threads is another index each time."""
    items, queries, index, described = built
    eligible = Filters(items).eligible(NONE | {"categories": ["hats"]}, offers(catalogue_of(), items, 0))
    shares = []
    for query in queries:
        seen = np.sort(exact(items.vectors, items.bias, query, 50))
        ranked = Retrieval(items, index).best(query[None], 30, eligible, [seen])[0]
        assert len(ranked.places) == 30
        assert eligible.among(ranked.places).all()
        assert not np.isin(ranked.places, seen).any()
        shares.append(len(np.intersect1d(best_left(items, query, eligible, seen), ranked.places)) / 30)
    assert np.mean(shares) >= described["recall@100"] - 0.05


def best_left(items: Items, query: np.ndarray, eligible: Eligible, seen: np.ndarray) -> list[int]:
    """Places of the true 30 best of those that may be shown and were not seen."""
    scores = items.vectors @ query + items.bias
    left = np.setdiff1d(np.flatnonzero(eligible.among(np.arange(ITEMS))), seen)
    return left[np.argsort(-scores[left], kind="stable")][:30].tolist()


def test_a_large_catalogue_is_exported_with_its_index(synthetic: Callable[[str], TrainingSet], tmp_path: Path) -> None:
    """Above the limit, interface.json names an index that says what it finds, and serving's parts open it all."""
    data = synthetic("recommendation")
    model = build_model(data, preset("small", "recommendation")).eval()
    export(model, data, tmp_path, exact_items=10)
    interface = json.loads((tmp_path / "interface.json").read_text())
    items = Items.load(tmp_path, interface, data.encoding)
    described = json.loads((tmp_path / interface["item_index"]).read_text())
    assert described["recall@10"] == 1
    assert described["items"] == len(items) == 30
    vectors, bias = model.item_vectors()
    np.testing.assert_array_equal(items.vectors, vectors.detach().numpy())
    np.testing.assert_array_equal(items.bias, bias.detach().numpy())
    assert ItemIndex(tmp_path, described).near(items.vectors[3], 30).tolist() == list(range(30))
    with_index, without = (needed(CHECKOUT, entries(interface | {"item_index": one})) for one in ("named", None))
    assert set(with_index.packages) - set(without.packages) == {"usearch"}


def test_items_in_another_order_are_refused(synthetic: Callable[[str], TrainingSet], tmp_path: Path) -> None:
    """Table, vectors and vocabulary that do not go together never name the wrong item."""
    data = synthetic("recommendation")
    export(build_model(data, preset("small", "recommendation")).eval(), data, tmp_path)
    interface = json.loads((tmp_path / "interface.json").read_text())
    assert interface["item_index"] is None
    table = pq.read_table(tmp_path / "items.parquet")
    pq.write_table(table.take(pa.array(range(29, -1, -1))), tmp_path / "items.parquet")
    with pytest.raises(RefusedError, match="not of the same items in the same order"):
        Items.load(tmp_path, interface, data.encoding)
