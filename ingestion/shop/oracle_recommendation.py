"""The recommendation oracle: exact Bayes over taste and price band, then the rank of what was looked at next.

It sees what a model could see: events that had arrived. Approximations: a view that arrived late never counts as
evidence, direct orders say nothing of the taste, and the looks of thieves count as the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ingestion.shop import moves
from ingestion.shop.assembly import CODE, Events
from ingestion.shop.catalogue import BAND_SHARES, BANDS, COMPLEMENT_SHARES, Catalogue
from ingestion.shop.moves import Looks
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters

_BLOCK = 50_000


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Views, direct carts and searches in the order of (user, time), arrays of [n]; ZB joint latents.

    `event` row of the clean events; `looks` the state of the visit before each (meaningless for searches);
    `before_zb` what is known of (taste, band) before it.
    """

    event: np.ndarray
    looks: Looks
    is_view: np.ndarray
    before_zb: np.ndarray


def gather(parameters: ShopParameters, catalogue: Catalogue, events: Events, late: np.ndarray) -> Evidence:
    """Everything that says something of items and tastes, with what was known before it."""
    kinds = (CODE["view"], CODE["cart"], CODE["search"], CODE["checkout"])
    rows = np.flatnonzero(np.isin(events.type, kinds) & (~late | (events.type == CODE["view"])))
    rows = rows[np.lexsort((events.time[rows], events.user[rows]))]
    looks, keep = _observed_looks(parameters, catalogue, events, rows, late[rows])
    rows = rows[keep]
    looks = _take(looks, keep)
    log_chance = np.zeros((len(rows), parameters.tastes * BANDS), dtype=np.float32)
    is_view = events.type[rows] == CODE["view"]
    counts = is_view & ~late[rows]
    for block in np.array_split(np.flatnonzero(counts), max(1, counts.sum() // _BLOCK)):
        log_chance[block] = np.log(
            _chance_zb(parameters, catalogue, _take(looks, block), events.item[rows[block]]) + 1e-30
        )
    is_search = events.type[rows] == CODE["search"]
    log_chance[is_search] = np.log(_search_chance_zb(parameters, catalogue, looks, events, rows, is_search) + 1e-30)
    return Evidence(event=rows, looks=looks, is_view=is_view, before_zb=_filtered(events.user[rows], log_chance))


def ranks(
    parameters: ShopParameters, catalogue: Catalogue, events: Events, evidence: Evidence, from_us: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the clean events, rank of the item) of every view from `from_us` on; 1 is best, over launched items."""
    chosen = np.flatnonzero(evidence.is_view & (events.time[evidence.event] >= from_us))
    chosen = chosen[np.argsort(evidence.looks.day[chosen], kind="stable")]
    bounds = np.searchsorted(evidence.looks.day[chosen], np.arange(parameters.days + 1))
    rank = np.empty(len(chosen), dtype=np.int64)
    for day in tqdm(range(parameters.days), desc="shop: ranks", leave=False, disable=None):
        part = slice(bounds[day], bounds[day + 1])
        if bounds[day] < bounds[day + 1]:
            index = chosen[part]
            scores = predictive(parameters, catalogue, _take(evidence.looks, index), evidence.before_zb[index])
            item = events.item[evidence.event[index]]
            rank[part] = 1 + (scores > scores[np.arange(len(item)), item][:, None]).sum(axis=1)
    return evidence.event[chosen], rank


def predictive(parameters: ShopParameters, catalogue: Catalogue, looks: Looks, before_zb: np.ndarray) -> np.ndarray:
    """P(next item | what was seen), [n, items]; all looks of one day."""
    count, slots = len(looks.last), catalogue.slots
    day = int(looks.day[0])
    before = before_zb.reshape(count, -1, BANDS)
    weights = moves.move_weights(parameters, looks)
    taste = np.einsum("zc,bcj->zbcj", catalogue.taste_zc, catalogue.fresh_bdcj[:, day])
    flat = (weights[:, [moves.TASTE]] * before_zb).astype(np.float32) @ taste.reshape(before_zb.shape[1], -1).astype(
        np.float32
    )
    scores = flat.reshape(count, -1, slots)
    here = np.arange(count)
    for category, chances in _landings(parameters, catalogue, looks, weights, before.sum(axis=1)):
        scores[here, category] += chances
    return scores.reshape(count, -1)


def legit_direct_chance(catalogue: Catalogue, before_zb: np.ndarray, day: np.ndarray, item: np.ndarray) -> np.ndarray:
    """P(an honest direct order names this item), [n]."""
    category, slot = np.divmod(item, catalogue.slots)
    fresh_nb = catalogue.fresh_bdcj[:, day, category, slot].T
    taste_nz = catalogue.taste_zc[:, category].T
    return np.einsum("nzb,nz,nb->n", before_zb.reshape(len(item), -1, BANDS), taste_nz, fresh_nb)


def _landings(
    parameters: ShopParameters, catalogue: Catalogue, looks: Looks, weights: np.ndarray, band_nb: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(category [n], weight of its slots [n, J]) of every move but TASTE, averaged over the bands given."""
    count, slots = len(looks.last), catalogue.slots
    everyone = np.arange(count)
    safe = replace(looks, last=np.maximum(looks.last, 0), other=np.maximum(looks.other, 0))
    up = (band_nb * moves.up_chance(parameters, looks)).sum(axis=1, keepdims=True)
    rising = moves.step_rows(parameters, catalogue, safe, everyone, np.ones(count, dtype=bool))
    falling = moves.step_rows(parameters, catalogue, safe, everyone, np.zeros(count, dtype=bool))
    stay = up * rising + (band_nb.sum(axis=1, keepdims=True) - up) * falling
    landings = [(safe.last // slots, weights[:, [moves.STAY]] * stay)]
    total = band_nb.sum(axis=1, keepdims=True)
    for which, share in enumerate(COMPLEMENT_SHARES):
        category, chances = moves.complement_rows(parameters, catalogue, safe, everyone, which)
        landings.append((category, weights[:, [moves.COMPLEMENT]] * share * chances * total))
    back = moves.back_rows(parameters, catalogue, safe, everyone)
    landings.append((safe.other // slots, weights[:, [moves.BACK]] * back * total))
    searched = np.maximum(looks.searched, 0)
    fresh = np.einsum("nb,bnj->nj", band_nb, catalogue.fresh_bdcj[:, looks.day, searched])
    landings.append((searched, weights[:, [moves.SEARCHED]] * fresh))
    return landings


def _chance_zb(parameters: ShopParameters, catalogue: Catalogue, looks: Looks, item: np.ndarray) -> np.ndarray:
    """P(this item | taste, band, state), [n, ZB]."""
    count = len(item)
    category, slot = np.divmod(item, catalogue.slots)
    weights = moves.move_weights(parameters, looks)
    by_band = np.zeros((count, BANDS))
    for band in range(BANDS):
        sure = np.zeros((count, BANDS))
        sure[:, band] = 1.0
        for target, chances in _landings(parameters, catalogue, looks, weights, sure):
            by_band[:, band] += np.where(target == category, chances[np.arange(count), slot], 0.0)
    fresh_nb = catalogue.fresh_bdcj[:, looks.day, category, slot].T * weights[:, [moves.TASTE]]
    taste_nz = catalogue.taste_zc[:, category].T
    return (by_band[:, None, :] + taste_nz[:, :, None] * fresh_nb[:, None, :]).reshape(count, -1)


def _search_chance_zb(
    parameters: ShopParameters, catalogue: Catalogue, looks: Looks, events: Events, rows: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """P(this category is searched for | taste), the same for all bands, [n, ZB]."""
    category = events.category[rows[mask]]
    last = looks.last[mask]
    last_category = np.where(last >= 0, last // catalogue.slots, -1)
    goes_with = catalogue.complements_c2[np.maximum(last_category, 0)]
    complement = ((goes_with == category[:, None]) * COMPLEMENT_SHARES).sum(axis=1)
    share = moves.search_chances(parameters, last_category)
    chance = (share * complement)[:, None] + (1.0 - share)[:, None] * catalogue.taste_zc[:, category].T
    return np.repeat(chance, BANDS, axis=1)


def _filtered(user: np.ndarray, log_chance: np.ndarray) -> np.ndarray:
    """Posterior of (taste, band) before each row, float32 [n, ZB]."""
    joint = log_chance.shape[1]
    prior = np.log(np.tile(BAND_SHARES, joint // BANDS) / (joint // BANDS))
    total = np.cumsum(log_chance, axis=0, dtype=np.float64)
    total -= log_chance
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    lengths = np.diff(np.append(starts, len(user)))
    total -= np.repeat(total[starts], lengths, axis=0)
    total += prior
    total -= total.max(axis=1, keepdims=True)
    weight = np.exp(total).astype(np.float32)
    return weight / weight.sum(axis=1, keepdims=True)


def _observed_looks(
    parameters: ShopParameters, catalogue: Catalogue, events: Events, rows: np.ndarray, late: np.ndarray
) -> tuple[Looks, np.ndarray]:
    """State before every row as the arrived events show it, and which rows are evidence or targets."""
    count = len(rows)
    here = np.arange(count)
    user, session, kind, item = events.user[rows], events.session[rows], events.type[rows], events.item[rows]
    view, cart, search, checkout = (kind == CODE[name] for name in ("view", "cart", "search", "checkout"))
    seen_view = _latest(view & ~late)
    viewed = (seen_view >= 0) & (session[np.maximum(seen_view, 0)] == session)
    direct = cart & ~viewed
    link = (view & ~late) | direct
    before = np.concatenate([[-1], _latest(link)[:-1]])
    before = np.where((before >= 0) & (user[np.maximum(before, 0)] == user), before, -1)
    has = before >= 0
    safe = np.maximum(before, 0)

    links = np.flatnonzero(link)
    run, up, other = _chain_state(user[links], session[links], item[links], catalogue.slots)
    position = np.cumsum(link) - 1
    state = position[safe]
    day = (events.time[rows] - parameters.start_us) // (DAY * MICROSECONDS)
    first = has & (session[safe] != session)
    last_search = np.concatenate([[-1], _latest(search & ~late)[:-1]])
    asked = (last_search > before) & (last_search >= 0) & (session[np.maximum(last_search, 0)] == session)
    last_cart = _latest(cart & ~late)
    carted = has & ~first & (last_cart >= safe) & (last_cart < here) & (session[np.maximum(last_cart, 0)] == session)
    paid = np.unique(session[checkout])
    return (
        Looks(
            last=np.where(has, item[safe], -1),
            run=np.where(has, run[state], 0),
            up=has & up[state],
            other=np.where(has & ~first, other[state], -1),
            first=first | ~has,
            gap=np.where(has, day - day[safe], 10_000),
            bought=has & np.isin(session[safe], paid),
            cart=carted,
            searched=np.where(asked, events.category[rows[np.maximum(last_search, 0)]], -1),
            day=day,
        ),
        np.flatnonzero(view | direct | search),
    )


def _chain_state(
    user: np.ndarray, session: np.ndarray, item: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """After each look or direct cart: (items in a row of its category, rose in price, last of another category)."""
    here = np.arange(len(item))
    together = np.concatenate([[False], session[1:] == session[:-1]])
    same = together & np.concatenate([[False], item[1:] // slots == item[:-1] // slots])
    start = np.maximum.accumulate(np.where(same, 0, here))
    up = np.concatenate([[False], (item[1:] > item[:-1]) & (user[1:] == user[:-1])])
    other = np.where((start > 0) & together[start], item[np.maximum(start - 1, 0)], -1)
    return here - start + 1, up, other


def _latest(flag: np.ndarray) -> np.ndarray:
    """Index of the latest true at or before each position, -1 for none."""
    return np.maximum.accumulate(np.where(flag, np.arange(len(flag)), -1))


def _take(looks: Looks, index: np.ndarray) -> Looks:
    return Looks(**{name: values[index] for name, values in vars(looks).items()})
