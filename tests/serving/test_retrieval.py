"""The best items of all that may be shown, against versions that look at one item after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA, Catalogue
from serving.diversity import spread
from serving.filters import FEW, Filters, passing
from serving.items import Items
from serving.offers import offers
from serving.retrieval import Retrieval
from serving.top_k import best
from tests.serving.made_items import items_of

NONE: dict[str, Any] = {"allow": None, "deny": None, "categories": None, "price_minor": None, "in_stock": False}


def catalogue_of(**told: dict[str, Any]) -> Catalogue:
    """What the shop says of some items, always known."""
    rows = [{"item_id": item, "known_at": ALWAYS, "version": 1, **told[item]} for item in sorted(told)]
    return Catalogue(pa.Table.from_pylist(rows, schema=HISTORY_SCHEMA))


def naive_passes(wanted: dict[str, Any], items: Items, told: dict[str, dict[str, Any]], place: int) -> bool:
    """One item against one filter after the other."""
    item = items.ids[place]
    mine = told.get(item, {})
    category, price = mine.get("category_id"), mine.get("price_minor")
    category = items.category[place].as_py() if category is None else category
    price = items.price[place].as_py() if price is None else price
    bounds = wanted["price_minor"]
    return (
        (wanted["allow"] is None or item in wanted["allow"])
        and item not in (wanted["deny"] or [])
        and (wanted["categories"] is None or category in wanted["categories"])
        and not (wanted["in_stock"] and mine.get("in_stock") == 0)
        and (
            bounds is None
            or (price is not None and (bounds["minimum"] or 0) <= price <= (bounds["maximum"] or math.inf))
        )
    )


def naive_best(scores: list[float], allowed: list[bool], k: int) -> list[int]:
    """All of them sorted, equal ones by position."""
    places = [place for place, one in enumerate(allowed) if one]
    return sorted(places, key=lambda place: (-scores[place], place))[:k]


@given(
    st.integers(1, 3).flatmap(
        lambda rows: st.integers(0, 300).flatmap(
            lambda n: st.lists(
                st.lists(st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 2.0, -3.0]), min_size=n, max_size=n),
                min_size=rows,
                max_size=rows,
            )
        )
    ),
    st.integers(0, 320),
)
def test_the_best_are_those_of_a_sort(scores: list[list[float]], k: int) -> None:
    """Largest first, of equal ones the earlier position, -inf never; for every k, also beyond what there is."""
    found = best(np.array(scores, np.float32).reshape(len(scores), -1), k)
    for row, places in zip(scores, found, strict=True):
        assert places.tolist() == naive_best(row, [one > -math.inf for one in row], k)


names = st.lists(st.sampled_from([f"i{place}" for place in range(40)] + ["nobody's"]), unique=True, max_size=12)
wishes = st.fixed_dictionaries(
    {
        "allow": st.none() | names,
        "deny": st.none() | names,
        "categories": st.none() | st.lists(st.sampled_from(["hats", "socks", "boats", "nobody's"]), unique=True),
        "price_minor": st.none()
        | st.fixed_dictionaries(
            {"minimum": st.none() | st.integers(0, 4000), "maximum": st.none() | st.integers(1, 4000)}
        ),
        "in_stock": st.booleans(),
    }
)
known = st.dictionaries(
    st.sampled_from([f"i{place}" for place in range(45)]),
    st.fixed_dictionaries(
        {},
        optional={
            "category_id": st.sampled_from(["hats", "boats"]),
            "price_minor": st.integers(0, 4000),
            "in_stock": st.integers(0, 1),
        },
    ),
)


@given(wishes, known, st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_the_best_that_pass_the_filters(
    wanted: dict[str, Any], told: dict[str, dict[str, Any]], k: int, seed: int
) -> None:
    """Filters, what each user has seen and scores together give what one item after the other gives."""
    rng = np.random.default_rng(seed)
    # whole numbers: every order of adding gives the same sum, so ties are ties
    items = items_of(rng.integers(-2, 3, (40, 4)), rng.integers(0, 2, 40), rng.integers(0, 5, 40).tolist())
    queries = rng.integers(-2, 3, (3, 4)).astype(np.float32)
    seen = [np.flatnonzero(rng.random(40) < share) for share in (0, 0.2, 0.9)]
    now = offers(catalogue_of(**told), items, 0)
    eligible = Filters(items).eligible(wanted, now)
    allowed = [naive_passes(wanted, items, told, place) for place in range(40)]
    assert eligible.count == sum(allowed)
    assert passing(wanted, items, now).tolist() == allowed
    retrieval = Retrieval(items)
    by_model, by_popularity = retrieval.best(queries, k, eligible, seen), retrieval.popular(k, eligible, seen)
    for query, mine, ranked, popular in zip(queries, seen, by_model, by_popularity, strict=True):
        left = [one and place not in mine for place, one in enumerate(allowed)]
        scores = [float(sum(query * items.vectors[place]) + items.bias[place]) for place in range(40)]
        assert ranked.places.tolist() == naive_best(scores, left, k)
        assert ranked.scores.tolist() == [scores[place] for place in ranked.places]
        assert popular.places.tolist() == naive_best(items.share.tolist(), left, k)
        assert eligible.among(mine).tolist() == [allowed[place] for place in mine]


def test_few_that_may_be_shown_are_scored_alone() -> None:
    """Of a thousand items two: no product with all of them; half of them: one float32 for all."""
    items = items_of(np.ones((1000, 2)))
    filters = Filters(items)
    now = offers(catalogue_of(), items, 0)
    two = filters.eligible(NONE | {"allow": ["i7", "i3", "who"]}, now)
    assert two.places is not None
    assert two.places.tolist() == [3, 7]
    half = filters.eligible(NONE | {"price_minor": {"minimum": 50_000, "maximum": None}}, now)
    assert half.places is None
    assert half.count == 400 > 1000 / FEW
    assert filters.eligible(NONE | {"allow": ["i7", "i3", "who"]}, now) is two
    assert filters.eligible(NONE | {"allow": ["i7", "i3", "who"]}, offers(catalogue_of(), items, 0)) is not two


def test_many_users_at_once_are_answered_as_one_by_one() -> None:
    """Users are taken in groups that fit in memory; where one group ends makes no difference."""
    rng = np.random.default_rng(0)
    items = items_of(rng.integers(-3, 4, (500, 3)))
    queries = rng.integers(-3, 4, (9, 3)).astype(np.float32)
    eligible, seen = Filters(items).all, [np.zeros(0, np.int64)] * 9
    whole, small = Retrieval(items), Retrieval(items)
    small._scores = small._scores[:1100]  # noqa: SLF001 - two users a group
    for one, other in zip(whole.best(queries, 7, eligible, seen), small.best(queries, 7, eligible, seen), strict=True):
        assert one.places.tolist() == other.places.tolist()


@given(st.integers(0, 12), st.integers(1, 14), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 2**32 - 1))
def test_each_pick_is_the_most_relevant_and_unlike(count: int, k: int, diversity: float, seed: int) -> None:
    """Every candidate that is taken has, to rounding, the largest marginal relevance of those that were left."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (count, 3)).astype(np.float32)
    scores = -np.sort(-rng.integers(0, 6, count).astype(np.float32))
    chosen = spread(vectors, scores, k, diversity).tolist()
    assert len(chosen) == len(set(chosen)) == min(k, count)

    def cosine(a: int, b: int) -> float:
        lengths = math.sqrt(sum(vectors[a] ** 2)) * math.sqrt(sum(vectors[b] ** 2))
        return float(sum(vectors[a] * vectors[b])) / lengths if lengths else 0.0

    def marginal(one: int, taken: list[int]) -> float:
        low, high = min(scores), max(scores)
        relevance = (scores[one] - low) / (high - low) if high > low else 0.0
        return float((1 - diversity) * relevance - diversity * max((cosine(one, other) for other in taken), default=0))

    for place, one in enumerate(chosen):
        left = set(range(count)) - set(chosen[:place])
        best_left = max(marginal(other, chosen[:place]) for other in left)
        assert marginal(one, chosen[:place]) == pytest.approx(best_left, abs=1e-5)
    if not diversity:
        assert chosen == list(range(min(k, count)))
