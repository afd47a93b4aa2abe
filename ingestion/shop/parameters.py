"""Parameters of the demo shop: one frozen dataclass, every number of the generating process in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

GENERATOR_VERSION = 2
"""Raised whenever the same parameters would give other events: a finished folder of an older version is not reused."""

DAY = 86_400
MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ShopParameters:
    """Everything that decides what the shop does. Probabilities are per opportunity; times carry their unit."""

    # size
    events: int = 1_000_000
    """About how many clean events; the number of users follows from it."""
    days: int = 90
    seed: int = 0
    start: str = "2026-01-01"

    # catalogue
    items: int = 400
    categories: int = 20
    tastes: int = 16
    """Latent types of users; each favours `favourites` categories."""
    favourites: int = 5
    favourite_share: float = 0.8
    launch_share: float = 0.12
    """Share of the items that are launched while the shop runs."""
    launch_boost: float = 2.0
    """How much likelier a fresh look falls on an item in its first ten days: times 1 + this."""

    # the walk from item to item
    keep_direction: float = 0.92
    """A shopper who compares upwards (or downwards) in price goes on in that direction."""
    stray: float = 0.06
    """A step lands anywhere in the category."""
    revive_soon: float = 0.7
    revive_later: float = 0.45
    revive_late: float = 0.15
    """A visit takes up the interest of the visit before, by the gap: up to 3 days, up to 8, longer."""
    search_first: float = 0.3
    search_next: float = 0.12
    search_complement: float = 0.35
    """A search is for what goes with the last item; else for what the user likes."""
    views_mean: float = 4.6

    # rhythm and churn
    periods: tuple[float, ...] = (2.0, 4.0, 7.0, 12.0, 20.0)
    """Mean days between visits, one entry a kind of user."""
    period_weights: tuple[float, ...] = (0.12, 0.22, 0.28, 0.22, 0.16)
    regularities: tuple[float, ...] = (1.0, 5.0, 30.0)
    """Shape of the gamma distribution of the gaps: 1 is no rhythm at all, 30 nearly a calendar."""
    regularity_weights: tuple[float, ...] = (0.35, 0.3, 0.35)
    existing_share: float = 0.6
    """Share of users that the shop had before the first day; the others sign up evenly over the days."""
    frustration: float = 0.22
    frustration_again: float = 0.45
    """A visit ends in searches without a click; likelier after one that did."""
    hazards: tuple[float, ...] = (0.01, 0.12, 0.45, 0.7)
    """Chance to leave after a visit, by the number of frustrated visits in a row."""
    revival_days: float = 150.0
    """Mean days until somebody who left comes back."""

    # buying
    buy: float = 0.42
    direct: float = 0.1
    """Share of the buying visits that start with search and cart, before any view."""
    second_cart: float = 0.25
    stray_cart: float = 0.04
    favourite: float = 0.03
    returns: float = 0.05
    topup: float = 0.08
    """A visit ends in a burst of small payments for digital goods."""
    topup_big: float = 0.25
    """Such a burst ends in a big payment."""

    # fraud, per visit of the honest
    takeover: float = 0.0075
    card_testing: float = 0.0019
    fake_rings: float = 0.0002
    testing_big: float = 0.65
    ladder_step: float = 0.45
    """Mean step of the logarithm of the amount from one test to the next."""
    ladder_hurry: float = 0.3
    """Mean step down of the logarithm of the gap between tests."""
    ladder_noise: float = 0.15
    new_device: float = 0.6
    traveller: float = 0.1
    """Share of honest visits from a device that is not the user's own."""

    # what the collector leaves
    late_events: float = 0.004
    late_visits: float = 0.01
    duplicates: float = 0.005
    redelivered: float = 0.002
    conflicting: float = 0.0003
    clock_errors: float = 0.0005
    missing_ids: float = 0.0004
    missing_fields: float = 0.0006
    unknown_types: float = 0.0005
    negative_prices: float = 0.0004

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: names the parameter and what it may be.
        """
        for name, least in {"events": 1_000, "days": 28, "items": 40, "categories": 4, "tastes": 1}.items():
            if getattr(self, name) < least:
                message = f"{name} = {getattr(self, name)}: at least {least}"
                raise ValueError(message)
        if self.items % self.categories:
            message = f"items = {self.items}: a multiple of categories = {self.categories}"
            raise ValueError(message)
        if self.slots < 2 * _LONGEST_STEP - 1:
            message = f"items / categories = {self.slots}: at least {2 * _LONGEST_STEP - 1} items a category"
            raise ValueError(message)
        if self.favourites > self.categories:
            message = f"favourites = {self.favourites}: at most categories = {self.categories}"
            raise ValueError(message)
        for values, weights in (("periods", "period_weights"), ("regularities", "regularity_weights")):
            if len(getattr(self, values)) != len(getattr(self, weights)):
                message = f"{weights}: one weight for each of {values}"
                raise ValueError(message)
        for field in dataclasses.fields(self):
            _check_float(field, getattr(self, field.name))
        self.start_us  # noqa: B018  (reads the date, which raises where it is none)

    @property
    def slots(self) -> int:
        """Items a category."""
        return self.items // self.categories

    @property
    def start_us(self) -> int:
        """Midnight UTC of the first day, microseconds since the epoch."""
        try:
            day = datetime.strptime(self.start, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            message = f"start = {self.start!r}: a date such as 2026-01-01"
            raise ValueError(message) from error
        return int(day.timestamp()) * MICROSECONDS

    @property
    def digest(self) -> str:
        """Names the events that these parameters give."""
        content = json.dumps({"version": GENERATOR_VERSION, **dataclasses.asdict(self)}, sort_keys=True)
        return f"{GENERATOR_VERSION}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"

    def rng(self, stage: str) -> np.random.Generator:
        """The random numbers of one stage: a change in one stage leaves the draws of the others alone."""
        return np.random.default_rng([self.seed, zlib.crc32(stage.encode())])


def _check_float(field: dataclasses.Field[object], value: float) -> None:
    if not isinstance(field.default, float):
        return
    if field.name in _AMOUNTS and value <= 0.0:
        message = f"{field.name} = {value}: above 0"
        raise ValueError(message)
    if field.name not in _AMOUNTS and not 0.0 <= value < 1.0:
        message = f"{field.name} = {value}: a share, from 0 to below 1"
        raise ValueError(message)


_LONGEST_STEP = 8

_AMOUNTS = frozenset(("launch_boost", "views_mean", "revival_days", "ladder_step", "ladder_hurry", "ladder_noise"))
"""Floats that are no shares: above 0, without an upper limit."""


def with_settings(parameters: ShopParameters, settings: Mapping[str, str]) -> ShopParameters:
    """Parameters with some of them given as text, as on a command line; tuples are separated by commas.

    Raises:
        ValueError: no such parameter, or its text cannot be read as its type.
    """
    known = {field.name: getattr(parameters, field.name) for field in dataclasses.fields(parameters)}
    values: dict[str, object] = {}
    for name, text in settings.items():
        if name not in known:
            message = f"no parameter {name!r}; there are: {', '.join(sorted(known))}"
            raise ValueError(message)
        default = known[name]
        try:
            if isinstance(default, tuple):
                values[name] = tuple(float(part) for part in text.split(","))
            elif isinstance(default, int | float):
                values[name] = type(default)(text)
            else:
                values[name] = text
        except ValueError as error:
            message = f"{name} = {text!r}: cannot be read as {type(default).__name__}"
            raise ValueError(message) from error
    return dataclasses.replace(parameters, **values)  # type: ignore[arg-type]
