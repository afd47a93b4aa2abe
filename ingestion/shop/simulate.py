"""One seeded run of the whole simulator: parameters in, clean events and the truth behind them out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ingestion.shop.assembly import Events, assemble
from ingestion.shop.catalogue import Catalogue, make_catalogue
from ingestion.shop.fraud import Rings, with_fraud
from ingestion.shop.parameters import ShopParameters
from ingestion.shop.rhythm import Users, draw_users, draw_visits
from ingestion.shop.scripts import Chain, Sessions, make_chain, plan_honest
from ingestion.shop.walk import Walk, walk

_PILOT_USERS = 2_000


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Everything that was simulated, latent truth included."""

    parameters: ShopParameters
    catalogue: Catalogue
    users: Users
    """The honest, then the accounts of the rings."""
    honest_users: int
    rings: Rings
    sessions: Sessions
    chain: Chain
    chosen: Walk
    events: Events


def simulate(parameters: ShopParameters) -> Shop:
    """Simulate the shop."""
    catalogue = make_catalogue(parameters)
    honest = draw_users(parameters, _user_count(parameters), parameters.rng("users"))
    visits = draw_visits(parameters, honest, parameters.rng("visits"))
    planned = plan_honest(parameters, visits, parameters.rng("plan"))
    in_the_middle = catalogue.launched_dcj[0].ravel() / catalogue.launched_dcj[0].sum()
    sessions, rings = with_fraud(parameters, planned, len(honest), in_the_middle, parameters.rng("fraud"))
    fakes = draw_users(parameters, int(rings.accounts.sum()), parameters.rng("fake users"))
    users = Users(**{name: np.concatenate([values, getattr(fakes, name)]) for name, values in vars(honest).items()})
    chain = make_chain(parameters, sessions, parameters.rng("chain"))
    pushed = np.where(sessions.ring >= 0, rings.item[np.maximum(sessions.ring, 0)], -1)
    chosen = walk(parameters, catalogue, users, sessions, chain, pushed, parameters.rng("walk"))
    events = assemble(parameters, catalogue, users, len(honest), sessions, chain, chosen, parameters.rng("assembly"))
    return Shop(
        parameters=parameters,
        catalogue=catalogue,
        users=users,
        honest_users=len(honest),
        rings=rings,
        sessions=sessions,
        chain=chain,
        chosen=chosen,
        events=events,
    )


def _user_count(parameters: ShopParameters) -> int:
    """Users that make about `events` events, from a pilot with the same parameters."""
    pilot = replace(parameters, seed=parameters.seed + 1_000_003)
    users = draw_users(pilot, _PILOT_USERS, pilot.rng("users"))
    visits = draw_visits(pilot, users, pilot.rng("visits"))
    sessions = plan_honest(pilot, visits, pilot.rng("plan"))
    chain = make_chain(pilot, sessions, pilot.rng("chain"))
    orders = int(sessions.buys.sum())
    events = (
        int((~chain.direct).sum() + chain.searches.sum() + chain.cart.sum() + chain.favourite.sum())
        + 2 * orders
        + int(chain.cart[sessions.buys[chain.session]].sum())
        + int(2.5 * sessions.frustrated.sum())
        + int(sessions.payments.sum())
        + int(0.75 * len(sessions))
    )
    return max(round(parameters.events / events * _PILOT_USERS), 20)
