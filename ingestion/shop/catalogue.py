"""Items, tastes and the tables that say where a shopper looks next. Item number = category * slots + slot.

Within a category the items are ranked by price, so "the next slot up" is "the next dearer one": what a shopper
compares. Names end in their shape: z tastes, b price bands, c categories, j slots of a category, d days, p phases of
a comparison, r directions (0 down, 1 up), n rows. `taste_zc[z, c]` is the share of category c in taste z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingestion.shop.parameters import ShopParameters

BANDS = 3
"""Price bands: saves, middle, spends."""

BAND_SHARES = np.array([0.35, 0.4, 0.25])
UP_FIRST = np.array([0.15, 0.5, 0.85])
"""By band: the first step of a comparison goes up in price."""

PHASES = 3
STEPS: tuple[dict[int, float], ...] = ({5: 0.3, 6: 0.4, 7: 0.3}, {3: 0.5, 4: 0.5}, {1: 0.7, 2: 0.3})
"""A comparison narrows down: ranks passed over at the first step, the second, and from the third on."""

ALIKE: dict[int, float] = {0: 0.5, 1: 0.25, -1: 0.25}
"""What goes with an item is about as dear within its own category."""

COMPLEMENT_SHARES = np.array([0.65, 0.35])

NEW_DAYS = 10
"""An item counts as new for so many days."""

RESELLABLE_SHARE = 0.2
"""Share of the categories whose goods a thief can sell on."""

DEAR_SHARE = 0.35
"""A thief takes one of this share of the dearest of a category."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The true catalogue and its tables. Prices in minor units, launches in days from the start."""

    price: np.ndarray
    launch_day: np.ndarray
    taste_zc: np.ndarray
    fresh_bdcj: np.ndarray
    step_prjj: np.ndarray
    alike_jj: np.ndarray
    complements_c2: np.ndarray
    launched_dcj: np.ndarray
    resellable: np.ndarray
    slots: int

    def thief_weights(self) -> np.ndarray:
        """Probability of each item to be what a thief takes, [items] (launches left out: dear items are old)."""
        weight_cj = np.zeros((len(self.complements_c2), self.slots))
        dear = max(1, round(DEAR_SHARE * self.slots))
        weight_cj[self.resellable, -dear:] = 1.0
        weight_cj *= self.launched_dcj[0]
        return (weight_cj / weight_cj.sum()).ravel()


def make_catalogue(parameters: ShopParameters) -> Catalogue:
    """Draw the catalogue."""
    rng = parameters.rng("catalogue")
    categories, slots, days = parameters.categories, parameters.slots, parameters.days
    base_c = np.exp(rng.uniform(np.log(500), np.log(40_000), categories))
    spread = np.exp(np.linspace(-0.9, 0.9, slots) + rng.normal(0, 0.01, (categories, slots)))
    price_cj = np.maximum(np.round(base_c[:, None] * np.sort(spread, axis=1)), 50).astype(np.int64)
    late_cj = rng.random((categories, slots)) < parameters.launch_share
    launch_cj = np.where(
        late_cj, rng.integers(1, days, (categories, slots)), -rng.integers(30, 700, (categories, slots))
    )
    resellable = np.sort(rng.choice(categories, max(1, round(RESELLABLE_SHARE * categories)), replace=False))

    day = np.arange(days)[:, None, None]
    launched_dcj = (launch_cj[None] <= day).astype(np.float64)
    popular_cj = rng.permuted(np.broadcast_to(1.0 / (np.arange(slots) + 3.0) ** 0.7, (categories, slots)), axis=1)
    new_dcj = launched_dcj * (1.0 + parameters.launch_boost * (day - launch_cj[None] < NEW_DAYS))
    centre_b = np.array([0.15, 0.5, 0.85]) * (slots - 1)
    near_bj = np.exp(-(((np.arange(slots)[None] - centre_b[:, None]) / (0.22 * slots)) ** 2) / 2)
    fresh = near_bj[:, None, None, :] * (popular_cj[None] * new_dcj)[None] + 1e-9 * launched_dcj[None]
    return Catalogue(
        price=price_cj.ravel(),
        launch_day=launch_cj.ravel(),
        taste_zc=_tastes(parameters, rng),
        fresh_bdcj=fresh / fresh.sum(axis=-1, keepdims=True),
        step_prjj=_steps(slots),
        alike_jj=_kernel(slots, ALIKE),
        complements_c2=_complements(categories, rng),
        launched_dcj=launched_dcj,
        resellable=resellable,
        slots=slots,
    )


def _tastes(parameters: ShopParameters, rng: np.random.Generator) -> np.ndarray:
    categories = parameters.categories
    background = rng.dirichlet(np.full(categories, 3.0), parameters.tastes)
    taste_zc = (1.0 - parameters.favourite_share) * background
    for row in taste_zc:
        favourites = rng.choice(categories, parameters.favourites, replace=False)
        row[favourites] += parameters.favourite_share * rng.dirichlet(np.full(parameters.favourites, 3.0))
    return taste_zc


def _complements(categories: int, rng: np.random.Generator) -> np.ndarray:
    """Two other categories for each, [C, 2]: two rings through all of them, so that none leads nowhere."""
    ring = rng.permutation(categories)
    complements = np.empty((categories, 2), dtype=np.int64)
    complements[ring, 0] = np.roll(ring, -1)
    complements[ring, 1] = np.roll(ring, -3)
    return complements


def _kernel(slots: int, steps: dict[int, float]) -> np.ndarray:
    """Rows sum to 1; a step past an end is reflected, [J, J]."""
    kernel = np.zeros((slots, slots))
    for step, share in steps.items():
        target = np.arange(slots) + step
        target = np.where(target < 0, -target, target)
        target = np.where(target >= slots, 2 * (slots - 1) - target, target)
        np.add.at(kernel, (np.arange(slots), target), share)
    return kernel


def _steps(slots: int) -> np.ndarray:
    down = [_kernel(slots, {-step: share for step, share in steps.items()}) for steps in STEPS]
    up = [_kernel(slots, steps) for steps in STEPS]
    return np.stack([np.stack(pair) for pair in zip(down, up, strict=True)])


def within_category(kernel_nj: np.ndarray, launched_nj: np.ndarray, stray: float) -> np.ndarray:
    """A kernel's rows over what is launched, with a share `stray` spread evenly over it, [n, J]; rows sum to 1."""
    mixed = ((1.0 - stray) * kernel_nj + stray / kernel_nj.shape[1]) * launched_nj
    return mixed / mixed.sum(axis=1, keepdims=True)
