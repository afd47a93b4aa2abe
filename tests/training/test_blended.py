"""The blend of a next-item model: what training means by it is what serving answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from clicktrail.encoding import FIRST
from serving.blend import Blend as ServedBlend
from serving.blend_kernels import Met
from serving.checks import check_goldens
from serving.filters import FEW, Eligible
from serving.item_index import ItemIndex
from serving.items import Items
from serving.manifest import BUNDLE, Manifest, RefusedError
from serving.model import Model
from serving.retrieval import Retrieval
from tests.serving.made_items import items_of
from training.baselines import RankingExamples
from training.baselines.covisitation import Chosen, Covisitation
from training.baselines.own_history import OwnHistory
from training.blend import Blend
from training.blended import SIMPLE, Blended, Companions, asked_with, blend_on_validation
from training.evaluation import ranking_metrics
from training.export import export
from training.export_blend import write_blend
from training.fit import build_model
from training.item_index import build_index
from training.parts import TOGETHER
from training.presets import preset
from training.scoring import predict
from training.training_set import TEST, TrainingSet

Sets = Callable[[str], TrainingSet]
COUNT, WIDTH = 64, 5


@dataclass(frozen=True, kw_only=True)
class World:
    """A made-up blend with its items, and users with queries and histories, oldest event first."""

    items: Items
    blended: Blended
    queries: np.ndarray
    histories: list[list[int]]

    def examples(self) -> RankingExamples:
        """As training has them."""
        flat = np.array([one for mine in self.histories for one in mine], np.int64)
        ends = np.cumsum([len(mine) for mine in self.histories])
        none = np.full(len(ends), -1)
        return RankingExamples(
            items=flat, starts=ends - [len(mine) for mine in self.histories], ends=ends, targets=none, times=none
        )

    def met(self) -> Met:
        """As serving has them."""
        codes = np.full((len(self.histories), max(1, *map(len, self.histories))), 7)  # behind the end stands anything
        for row, mine in enumerate(self.histories):
            codes[row, : len(mine)] = mine
        return Met(codes, np.array([len(mine) for mine in self.histories]))

    def logits(self) -> np.ndarray:
        """Of the network, float32 [B, I]."""
        return self.queries @ self.items.vectors.T + self.items.bias


def world(seed: int, count: int = COUNT, histories: list[list[int]] | None = None) -> World:
    """Histories of 0 to 40 events, unknown items among them; every weight may be 0 but popularity's."""
    rng = np.random.default_rng(seed)
    near = sparse.random(count, count, density=0.1, format="csr", dtype=np.float32, random_state=rng)
    weights = rng.random(4) * (rng.random(4) < 0.8) + [0, 0, 0, 1e-3]
    names = ("network", *SIMPLE)
    blend = Blend(
        weights=dict(zip(names, (weights / weights.sum()).tolist(), strict=True)),
        roots=dict(zip(names, rng.integers(0, 3, 4).tolist(), strict=True)),
    )
    popularity = rng.exponential(size=count).astype(np.float32) + np.float32(0.01)
    covisits = Covisitation(
        similarity=near,
        popularity=popularity.astype(np.float64),
        chosen=Chosen(pair_decay=0.8, power=0.4, query_decay=0.7),
        last=12,
        exclude_seen=False,
    )
    companions = Companions(
        whole=covisits,
        covisits=covisits,
        own=OwnHistory(decay=0.9, items=count),
        popularity=popularity,
    )
    if histories is None:
        histories = [rng.integers(-1, count, rng.integers(0, 41)).tolist() for _ in range(5)]
    return World(
        items=items_of(rng.normal(size=(count, WIDTH)), rng.normal(size=count)),
        blended=Blended(blend=blend, companions=companions, validation={}),
        queries=(2 * rng.normal(size=(len(histories), WIDTH))).astype(np.float32),
        histories=histories,
    )


def served(made: World, folder: Path) -> ServedBlend:
    """The blend as a bundle has it."""
    described = json.loads(json.dumps(write_blend(made.blended, folder)))
    return ServedBlend.load(folder, described, len(made.items))


def naive(made: World, allowed: np.ndarray) -> np.ndarray:
    """One recommender after the other, of each what may be shown [B, I] alone; float64 [B, I], 0 where it may not."""
    blend, companions, asked = made.blended.blend, made.blended.companions, made.examples()
    logits = np.where(allowed, made.logits().astype(np.float64), -np.inf)
    raw = {
        "network": np.exp(logits - logits.max(1, keepdims=True)),
        "covisitation": companions.covisits.scores(asked).toarray(),
        "own_history": companions.own.scores(asked).toarray(),
        "popularity": np.tile(companions.popularity, (len(allowed), 1)),
    }
    mixed, spoken = np.zeros(allowed.shape), np.zeros((len(allowed), 1))
    for name, values in raw.items():
        flat = np.where(allowed, values, 0) ** (0.5 ** blend.roots[name])
        total = flat.sum(1, keepdims=True)
        mixed += blend.weights[name] * flat / np.where(total > 0, total, 1)
        spoken += blend.weights[name] * (total > 0)
    return mixed / spoken


@settings(deadline=None)  # the first compiles
@given(st.integers(0, 2**32 - 1), st.sampled_from(["all", "half", "few", "one"]))
def test_training_and_serving_mean_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int, which: str) -> None:
    """Any histories, filters and items seen: all scores within 1e-4, the best first; what may not be shown is not."""
    made = world(seed)
    rng = np.random.default_rng(seed)
    share = {"all": 1.0, "half": 0.5, "few": 0.0, "one": 0.0}[which]
    passes = rng.random(COUNT) < share
    passes[rng.choice(COUNT, 3 if which == "few" else 1, replace=False)] = True
    few = np.count_nonzero(passes) * FEW < COUNT
    eligible = Eligible(
        count=int(np.count_nonzero(passes)),
        places=np.flatnonzero(passes) if few else None,
        offset=None if few else np.where(passes, made.items.bias, np.float32(-np.inf)),
    )
    seen = [np.unique([one for one in mine if one >= 0]).astype(np.int64)[: len(mine) % 9] for mine in made.histories]
    allowed = np.tile(passes, (len(seen), 1))
    for row, mine in enumerate(seen):
        allowed[row, mine] = False
    retrieval = Retrieval(made.items, blend=served(made, tmp_path_factory.mktemp("blend")))
    found = retrieval.best(made.queries, COUNT, eligible, seen, made.met())
    with np.errstate(invalid="ignore", divide="ignore"):  # a user to whom nothing may be shown
        expected = np.log(naive(made, allowed))
    for row, ranked in enumerate(found):
        assert sorted(ranked.places.tolist()) == np.flatnonzero(allowed[row]).tolist()
        np.testing.assert_allclose(ranked.scores, expected[row, ranked.places], atol=1e-4)
        assert (np.diff(ranked.scores) <= 0).all()
        one = made.met().rows(slice(row, row + 1))
        asked = made.queries[row : row + 1]
        again = retrieval.scores_of(ranked.places, eligible, seen[row], asked, one)[0]
        np.testing.assert_allclose(again, ranked.scores, atol=1e-5)
    if which == "all":
        shares = made.blended.shares(made.logits(), made.examples())
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.log(shares), np.log(naive(made, np.ones_like(allowed))), atol=1e-4)


def test_files_of_other_items_are_refused(tmp_path: Path) -> None:
    """Neighbours or popularity of another catalogue never name the wrong item; nothing is written of a lone network."""
    made = world(3)
    described = write_blend(made.blended, tmp_path)
    assert described is not None
    with pytest.raises(RefusedError, match="not of the bundle's 65 items"):
        ServedBlend.load(tmp_path, described, COUNT + 1)
    alone = Blend(weights=dict.fromkeys(SIMPLE, 0.0) | {"network": 1.0}, roots=made.blended.blend.roots)
    assert write_blend(Blended(blend=alone, companions=made.blended.companions, validation={}), tmp_path) is None


def test_a_large_catalogue_finds_what_the_blend_ranks_first(tmp_path: Path) -> None:
    """By index and by the others' own candidates: most of the true 50 best, with scores close to the true ones."""
    rng = np.random.default_rng(0)
    count = 60_000
    histories = [rng.integers(-1, count, 20).tolist() for _ in range(20)]
    made = world(1, count=200, histories=histories)
    centres = rng.standard_normal((300, 16))
    vectors = (centres[rng.integers(0, 300, count)] + 0.5 * rng.standard_normal((count, 16))).astype(np.float32)
    near = sparse.csr_matrix(
        (
            rng.random(20 * count).astype(np.float32),
            rng.integers(0, count, 20 * count).astype(np.int32),
            np.arange(count + 1) * 20,
        ),
        shape=(count, count),
    )
    popular = rng.pareto(1.2, count).astype(np.float32) + np.float32(1e-3)
    companions = made.blended.companions
    names = ("network", *SIMPLE)
    large = World(
        items=items_of(vectors, 0.5 * rng.standard_normal(count)),
        blended=Blended(
            blend=Blend(
                weights=dict(zip(names, (0.5, 0.3, 0.15, 0.05), strict=True)),
                roots=dict(zip(names, (1, 1, 0, 1), strict=True)),
            ),
            companions=Companions(
                whole=companions.whole,
                covisits=replace(companions.covisits, similarity=near, popularity=popular.astype(np.float64)),
                own=OwnHistory(decay=0.9, items=count),
                popularity=popular,
            ),
            validation={},
        ),
        queries=(0.7 * vectors[rng.integers(0, count, len(histories))]).astype(np.float32),
        histories=histories,
    )
    index = ItemIndex(tmp_path, build_index(vectors, large.items.bias, large.queries, tmp_path / "items.usearch"))
    blend = served(large, tmp_path)
    everything = Eligible(count=count, places=None, offset=large.items.bias)
    seen = [np.unique([one for one in mine if one >= 0])[:3].astype(np.int64) for mine in histories]
    allowed = np.ones((len(histories), count), bool)
    for row, mine in enumerate(seen):
        allowed[row, mine] = False
    found = Retrieval(large.items, index, blend).best(large.queries, 50, everything, seen, large.met())
    truth = np.log(naive(large, allowed), where=allowed, out=np.full(allowed.shape, -np.inf))
    recall, off = [], []
    for row, ranked in enumerate(found):
        assert allowed[row, ranked.places].all()
        best = np.argsort(-truth[row], kind="stable")[:50]
        recall.append(len(np.intersect1d(best, ranked.places)) / 50)
        off.append(np.abs(ranked.scores - truth[row, ranked.places]).max())
    assert np.mean(recall) >= 0.95
    assert np.median(off) < 0.1  # 10 % of a share, of what the sample of the rest is taken for
    again = Retrieval(large.items, index, blend).scores_of(
        found[0].places, everything, seen[0], large.queries[:1], large.met().rows(slice(0, 1))
    )
    np.testing.assert_allclose(again[0], found[0].scores, atol=0.05)


def test_a_bundle_answers_its_golden_requests_with_the_blend(synthetic: Sets, tmp_path: Path) -> None:
    """Chosen on validation, exported, loaded by serving: the golden answers are the blend's, an empty history too."""
    data = synthetic("recommendation")
    model = build_model(data, preset("small", "recommendation")).eval()
    blended = blend_on_validation(model, data, "ndcg@10")
    assert not blended.network_alone, "a network that was never fitted"
    assert blended.validation[TOGETHER] >= max(blended.validation.values())
    export(model, data, tmp_path / BUNDLE, blended=blended)
    content = {"task": "recommendation", "name": "clicktrail-recommendation", "version": "0"}
    served_model = Model.load(Manifest(root=tmp_path, content=content))
    assert check_goldens(served_model) == 8
    golden = next(served_model.goldens())
    assert sum(np.exp(served_model.scores(golden.features, golden.request, golden.t)[0])) == pytest.approx(1, rel=1e-4)
    interface = json.loads((tmp_path / BUNDLE / "interface.json").read_text())
    (tmp_path / BUNDLE / "interface.json").write_text(json.dumps(interface | {"blend": None}))
    with pytest.raises(RefusedError, match="golden request 1"):
        check_goldens(Model.load(Manifest(root=tmp_path, content=content)))


def test_ranks_are_those_of_the_blend_and_of_each_part(synthetic: Sets) -> None:
    """Together at least nearly as good as the best part; the network's own rank is what it is without the others."""
    data = synthetic("recommendation")
    model = build_model(data, preset("small", "recommendation")).eval()
    blended = blend_on_validation(model, data, "ndcg@10")
    test = data.of(TEST)[::-1].copy()
    found = blended.predict(model, data, test)
    assert (found["network"] == predict(model, data, test)["rank"]).all()
    worth = {name: ranking_metrics(found[name])["ndcg@10"] for name in ("rank", *SIMPLE)}
    assert worth["rank"] >= 0.9 * max(worth.values())
    known = data.target[test] >= 0
    assert ((found["ranked"] == data.target[test][:, None]).any(1) == (found["rank"] <= 20))[known].mean() > 0.99


def test_histories_are_those_that_a_model_reads(synthetic: Sets) -> None:
    """Padded inputs become the codes of the events, what was unknown below 0, nothing of the padding."""
    data = synthetic("recommendation")
    (view,) = data.tokens
    spec = data.encoding.spec.sequences[0]
    column = spec.id_columns.index("item_id")
    ids = np.zeros((2, 3, len(spec.id_columns)), np.int64)
    ids[0, :, column] = [FIRST + 4, 1, FIRST]
    ids[1, :, column] = [FIRST + 2, 0, 0]
    found = asked_with(data.encoding, {f"{view}__ids": ids, f"{view}__length": np.array([3, 1])})
    lists = [found.items[start:end].tolist() for start, end in zip(found.starts, found.ends, strict=True)]
    assert lists == [[4, -1, 0], [2]]
