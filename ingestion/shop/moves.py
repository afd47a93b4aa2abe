"""Where a shopper looks next, given what he did: the one definition that the walk draws from and the oracle weighs.

A look is one of five moves; which one depends on what anybody can observe (a search, a cart, the gap, how long he has
been comparing), where it lands also on two latents (taste z, price band b). Names end in their shape as in `catalogue`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingestion.shop.catalogue import UP_FIRST, Catalogue, within_category
from ingestion.shop.parameters import ShopParameters

STAY, COMPLEMENT, BACK, TASTE, SEARCHED = range(5)
MOVES = 5

SOON_DAYS, LATER_DAYS = 3, 8
"""Gaps between visits up to which an interest is taken up soon, or later."""

#                          stay  complement  back  taste  searched
_BROWSING = np.array(
    [
        [0.80, 0.06, 0.08, 0.06, 0.0],  # has seen one item of the category in this visit
        [0.80, 0.06, 0.08, 0.06, 0.0],
        [0.62, 0.14, 0.16, 0.08, 0.0],
        [0.38, 0.26, 0.28, 0.08, 0.0],  # four or more
    ]
)
_AFTER_CART = np.array([0.08, 0.74, 0.10, 0.08, 0.0])


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What can be observed before each look, arrays of [n]; -1 is none.

    `last` the item before, `run` items in a row of its category in this visit, `up` the last step went up in price,
    `other` the last item of another category in this visit, `first` of the visit, `gap` days since the visit before,
    `bought` in the visit before, `cart` since the last look, `searched` category since the last look, `day`.
    """

    last: np.ndarray
    run: np.ndarray
    up: np.ndarray
    other: np.ndarray
    first: np.ndarray
    gap: np.ndarray
    bought: np.ndarray
    cart: np.ndarray
    searched: np.ndarray
    day: np.ndarray


def move_weights(parameters: ShopParameters, looks: Looks) -> np.ndarray:
    """Probability of each move, [n, MOVES]."""
    weights = _BROWSING[np.clip(looks.run, 1, 4) - 1].copy()
    weights[looks.cart] = _AFTER_CART
    lonely = looks.other < 0
    weights[lonely, TASTE] += weights[lonely, BACK]
    weights[lonely, BACK] = 0.0
    revive = np.select(
        [looks.gap <= SOON_DAYS, looks.gap <= LATER_DAYS],
        [parameters.revive_soon, parameters.revive_later],
        parameters.revive_late,
    )
    opening = np.zeros_like(weights)
    opening[:, STAY] = np.where(looks.bought, 0.0, revive)
    opening[:, COMPLEMENT] = np.where(looks.bought, revive, 0.0)
    opening[:, TASTE] = 1.0 - revive
    weights[looks.first] = opening[looks.first]
    weights[looks.last < 0] = np.eye(MOVES)[TASTE]
    weights[looks.searched >= 0] = np.eye(MOVES)[SEARCHED]
    return weights


def up_chance(parameters: ShopParameters, looks: Looks) -> np.ndarray:
    """Chance that a step within the category goes up in price, by band, [n, B]."""
    keep = np.where(looks.up, parameters.keep_direction, 1.0 - parameters.keep_direction)
    going_on = (looks.run > 1) & ~looks.first
    return np.where(going_on[:, None], keep[:, None], UP_FIRST[None, :])


def step_rows(
    parameters: ShopParameters, catalogue: Catalogue, looks: Looks, rows: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Where a step within the category of `last` lands, in the direction given, [rows, J]."""
    phase = np.where(looks.first[rows], 2, np.clip(looks.run[rows] - 1, 0, 2))
    category, slot = np.divmod(looks.last[rows], catalogue.slots)
    kernel = catalogue.step_prjj[phase, up.astype(np.int64), slot]
    return within_category(kernel, catalogue.launched_dcj[looks.day[rows], category], parameters.stray)


def back_rows(parameters: ShopParameters, catalogue: Catalogue, looks: Looks, rows: np.ndarray) -> np.ndarray:
    """Where a step back to the category of `other` lands, [rows, J]."""
    category, slot = np.divmod(looks.other[rows], catalogue.slots)
    kernel = catalogue.step_prjj[2, :, slot].mean(axis=1)
    return within_category(kernel, catalogue.launched_dcj[looks.day[rows], category], parameters.stray)


def complement_rows(
    parameters: ShopParameters, catalogue: Catalogue, looks: Looks, rows: np.ndarray, which: int | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The category that goes with `last` (its first or second complement) and where in it, ([rows], [rows, J])."""
    category, slot = np.divmod(looks.last[rows], catalogue.slots)
    target = catalogue.complements_c2[category, which]
    launched = catalogue.launched_dcj[looks.day[rows], target]
    return target, within_category(catalogue.alike_jj[slot], launched, parameters.stray)


def search_chances(parameters: ShopParameters, last_category: np.ndarray) -> np.ndarray:
    """Chance that a search is for a complement of the last item, [n]: none where there is no last item (-1)."""
    return np.where(last_category >= 0, parameters.search_complement, 0.0)
