"""The oracles: equal to naive Bayes by loops, calibrated, blind to the future, and above what is simple."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ingestion.shop import moves
from ingestion.shop.assembly import CODE, Events
from ingestion.shop.catalogue import BAND_SHARES, COMPLEMENT_SHARES
from ingestion.shop.collector import arrivals
from ingestion.shop.moves import Looks
from ingestion.shop.oracle_fraud import fraud_truth
from ingestion.shop.oracle_recommendation import Evidence, gather, predictive, ranks
from ingestion.shop.oracle_retention import HORIZON_DAYS, retention_truth
from ingestion.shop.oracle_visits import SeenVisits, see_visits
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters
from ingestion.shop.rhythm import gap_table, hazard, revival_table
from ingestion.shop.scripts import HONEST
from ingestion.shop.simulate import Shop, simulate

PARAMETERS = ShopParameters(events=60_000, days=60, seed=5)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate(PARAMETERS)


@pytest.fixture(scope="module")
def late(shop: Shop) -> np.ndarray:
    return arrivals(PARAMETERS, shop.events)[1]


@pytest.fixture(scope="module")
def evidence(shop: Shop, late: np.ndarray) -> Evidence:
    return gather(PARAMETERS, shop.catalogue, shop.events, late)


@pytest.fixture(scope="module")
def visits(shop: Shop, late: np.ndarray) -> SeenVisits:
    return see_visits(PARAMETERS, shop.events, late)


def _before(events: Events, time: int) -> Events:
    """The events before a time; labels are at the end of no list, so rows keep their order."""
    keep = np.flatnonzero(events.time < time)
    return Events(**{name: values[keep] for name, values in vars(events).items()})


def _look(looks: Looks, row: int) -> Looks:
    return Looks(**{name: values[[row]] for name, values in vars(looks).items()})


def _at(day: int) -> int:
    return PARAMETERS.start_us + day * DAY * MICROSECONDS


def test_gap_tables_are_distributions_with_the_means_asked_for() -> None:
    """Rows sum to 1; the mean is the period, plus half a day for counting whole days."""
    table = gap_table(PARAMETERS)
    assert np.allclose(table.sum(axis=2), 1.0)
    mean = (table * np.arange(table.shape[2])).sum(axis=2)
    assert np.allclose(mean, np.asarray(PARAMETERS.periods)[:, None] + 0.5, atol=0.25)
    assert revival_table(PARAMETERS).sum() == pytest.approx(1.0)


def test_retention_equals_bayes_by_enumeration(visits: SeenVisits) -> None:
    """For single users: every kind of rhythm, gone or not at every visit, weighed in plain loops."""
    gaps = gap_table(PARAMETERS)
    back = revival_table(PARAMETERS)
    day = 40
    truth = retention_truth(PARAMETERS, visits, day, np.zeros(visits.user.max() + 1))
    here = truth.day == day
    for user in np.unique(visits.user)[:200:20]:
        mine = np.flatnonzero((visits.user == user) & (visits.day < day))
        if not len(mine):
            continue
        days, streaks = visits.day[mine], visits.streak[mine]
        silent = active = 0.0
        for i, period in enumerate(PARAMETERS.periods):
            for j in range(len(PARAMETERS.regularities)):
                old = PARAMETERS.existing_share * (days[0] < np.ceil(period)) / np.ceil(period)
                first = old + (1 - PARAMETERS.existing_share) / PARAMETERS.days
                weight = PARAMETERS.period_weights[i] * PARAMETERS.regularity_weights[j] * first
                for gap, streak in zip(np.diff(days), streaks[:-1], strict=True):
                    leaves = float(hazard(PARAMETERS, np.array([streak]))[0])
                    weight *= (1 - leaves) * gaps[i, j, gap] + leaves * back[gap]
                leaves = float(hazard(PARAMETERS, streaks[-1:])[0])
                rest = day - 1 - days[-1]
                both = (1 - leaves) * gaps[i, j] + leaves * back
                active += weight * both[rest + 1 : rest + 1 + HORIZON_DAYS].sum()
                silent += weight * both[rest + 1 + HORIZON_DAYS :].sum()
        expected = active / (active + silent)
        assert truth.chance[here][truth.user[here] == user] == pytest.approx([expected], abs=1e-6)


def test_streaks_count_frustrated_visits_in_a_row(visits: SeenVisits) -> None:
    """The streak grows by one with each frustrated visit and ends with a calm one."""
    streak = 0
    for row in range(2_000):
        streak = 0 if visits.number[row] == 0 else streak
        streak = streak + 1 if visits.frustrated[row] else 0
        assert visits.streak[row] == streak


def test_visits_are_seen_as_they_were_planned(shop: Shop) -> None:
    """With nothing late, which visits ended in frustration can be read off the events without a mistake."""
    seen = see_visits(PARAMETERS, shop.events, np.zeros(len(shop.events), dtype=bool))
    assert np.array_equal(seen.session, np.arange(len(shop.sessions)))
    assert np.array_equal(seen.frustrated, shop.sessions.frustrated)


def test_retention_is_calibrated(shop: Shop, visits: SeenVisits) -> None:
    """Among users given p, a share near p is active: by tenths, within four standard errors and a point."""
    truth = retention_truth(PARAMETERS, visits, 30, np.zeros(len(shop.users)))
    key = np.unique(shop.sessions.user * 1_000 + shop.sessions.day)
    first = np.searchsorted(key, truth.user * 1_000 + truth.day)
    after = np.searchsorted(key, truth.user * 1_000 + truth.day + HORIZON_DAYS)
    active = after > first
    tenth = np.minimum((truth.chance * 10).astype(int), 9)
    for number in range(10):
        chosen = tenth == number
        spread = 0.5 / np.sqrt(len(np.unique(truth.user[chosen])))
        assert active[chosen].mean() == pytest.approx(truth.chance[chosen].mean(), abs=4 * spread + 0.01)


def test_the_next_look_is_a_distribution_over_launched_items(shop: Shop, evidence: Evidence) -> None:
    """Chances sum to 1 and are 0 before the launch."""
    rows = np.flatnonzero(evidence.is_view & (evidence.looks.day == 50))
    looks = Looks(**{name: values[rows] for name, values in vars(evidence.looks).items()})
    scores = predictive(PARAMETERS, shop.catalogue, looks, evidence.before_zb[rows])
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-4)
    assert (scores[:, shop.catalogue.launch_day > 50] == 0).all()


def test_the_next_look_equals_a_sum_over_all_ways_to_it(shop: Shop, evidence: Evidence) -> None:
    """For single looks: every move, taste, band, direction and complement, added up in plain loops."""
    catalogue, slots = shop.catalogue, shop.catalogue.slots
    views = np.flatnonzero(evidence.is_view & (evidence.looks.last >= 0))
    one = np.zeros(1, dtype=int)
    for row in views[:: len(views) // 12]:
        look = _look(evidence.looks, row)
        weights = moves.move_weights(PARAMETERS, look)[0]
        expected = np.zeros((PARAMETERS.categories, slots))
        posterior = evidence.before_zb[row].reshape(-1, len(BAND_SHARES))
        home = look.last[0] // slots
        for taste in range(PARAMETERS.tastes):
            for band in range(len(BAND_SHARES)):
                share = posterior[taste, band]
                fresh = catalogue.fresh_bdcj[band, look.day[0]]
                expected += share * weights[moves.TASTE] * catalogue.taste_zc[taste][:, None] * fresh
                if look.searched[0] >= 0:
                    expected[look.searched[0]] += share * weights[moves.SEARCHED] * fresh[look.searched[0]]
                rises = moves.up_chance(PARAMETERS, look)[0, band]
                for up, chance in ((True, rises), (False, 1 - rises)):
                    step = moves.step_rows(PARAMETERS, catalogue, look, one, np.array([up]))[0]
                    expected[home] += share * weights[moves.STAY] * chance * step
        for which, share in enumerate(COMPLEMENT_SHARES):
            category, chances = moves.complement_rows(PARAMETERS, catalogue, look, one, which)
            expected[category[0]] += weights[moves.COMPLEMENT] * share * chances[0]
        if look.other[0] >= 0:
            expected[look.other[0] // slots] += (
                weights[moves.BACK] * moves.back_rows(PARAMETERS, catalogue, look, one)[0]
            )
        scores = predictive(PARAMETERS, catalogue, look, evidence.before_zb[[row]])[0]
        assert np.allclose(scores, expected.ravel(), atol=1e-6)


def test_ranks_are_calibrated(shop: Shop, evidence: Evidence) -> None:
    """The item held likeliest is looked at as often as the oracle says."""
    said, hit = [], []
    for day in range(30, 60):
        rows = np.flatnonzero(evidence.is_view & (evidence.looks.day == day))
        looks = Looks(**{name: values[rows] for name, values in vars(evidence.looks).items()})
        scores = predictive(PARAMETERS, shop.catalogue, looks, evidence.before_zb[rows])
        said.append(scores.max(axis=1))
        hit.append(scores.argmax(axis=1) == shop.events.item[evidence.event[rows]])
    chances, hits = np.concatenate(said), np.concatenate(hit)
    assert hits.mean() == pytest.approx(chances.mean(), abs=4 * 0.5 / np.sqrt(len(hits)) + 0.01)


def test_a_rank_counts_the_items_held_likelier(shop: Shop, evidence: Evidence) -> None:
    """Rank 1 is the likeliest; the rank is one more than how many items have a larger chance."""
    events, rank = ranks(PARAMETERS, shop.catalogue, shop.events, evidence, _at(58))
    row_of = {int(event): row for row, event in enumerate(evidence.event)}
    for event, given in list(zip(events, rank, strict=True))[::97]:
        row = row_of[int(event)]
        scores = predictive(PARAMETERS, shop.catalogue, _look(evidence.looks, row), evidence.before_zb[[row]])[0]
        assert given == 1 + (scores > scores[shop.events.item[event]]).sum()


def test_no_oracle_sees_the_future(shop: Shop, late: np.ndarray, evidence: Evidence, visits: SeenVisits) -> None:
    """Cut off at a day, everything said of what came before it stays the same."""
    time = _at(45)
    cut = _before(shop.events, time)
    arrived = late[shop.events.time < time]
    less = gather(PARAMETERS, shop.catalogue, cut, arrived)
    seen = np.flatnonzero(shop.events.time[evidence.event] < time)
    assert np.allclose(less.before_zb, evidence.before_zb[seen], atol=1e-5)
    truth = dict(zip(*_payments(shop, shop.events, visits, evidence), strict=True))
    position = np.flatnonzero(shop.events.time < time)
    for row, chance in zip(*_payments(shop, cut, see_visits(PARAMETERS, cut, arrived), less), strict=True):
        # how many visits there are in all sets the rate of fake orders; everything else must agree
        assert chance == pytest.approx(truth[int(position[row])], abs=0.05)


def test_fraud_is_calibrated_and_found(shop: Shop, visits: SeenVisits, evidence: Evidence) -> None:
    """The chances add up to the frauds there are, and most of the payments held surely fraud are."""
    rows, chance = _payments(shop, shop.events, visits, evidence)
    fraud = shop.events.kind[rows] != HONEST
    assert fraud.sum() > 50
    assert chance.sum() == pytest.approx(fraud.sum(), rel=0.25)
    assert fraud[chance > 0.9].mean() > 0.9
    assert chance[fraud].mean() > 0.6
    assert fraud[chance < 0.1].mean() < 0.01


def test_honest_and_thieving_bursts_agree_in_what_can_be_counted(shop: Shop) -> None:
    """Number, amounts and gaps of small payments are alike in both kinds: only their order differs."""
    many = simulate(replace(PARAMETERS, events=80_000, card_testing=0.03, topup_big=0.0, testing_big=0.0))
    events = many.events
    ordering = np.unique(events.session[events.type == CODE["checkout"]])
    rows = np.flatnonzero((events.type == CODE["payment"]) & ~np.isin(events.session, ordering))
    testing = events.kind[rows] != HONEST
    amount = np.log(events.price[rows])
    assert amount[testing].mean() == pytest.approx(amount[~testing].mean(), abs=0.15)
    assert amount[testing].std() == pytest.approx(amount[~testing].std(), rel=0.15)
    lengths = [np.unique(events.session[rows[kind]], return_counts=True)[1].mean() for kind in (testing, ~testing)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.1)
    assert len(shop.events) > 0


def test_the_oracle_is_far_above_the_last_category_and_popularity(shop: Shop, evidence: Evidence) -> None:
    """Within the first ten: the oracle beats "popular in the category looked at last" clearly."""
    events, rank = ranks(PARAMETERS, shop.catalogue, shop.events, evidence, _at(40))
    row_of = np.full(len(shop.events), -1)
    row_of[evidence.event] = np.arange(len(evidence.event))
    last = evidence.looks.last[row_of[events]]
    item = shop.events.item[events]
    slots = shop.catalogue.slots
    counts = np.bincount(shop.events.item[shop.events.type == CODE["view"]], minlength=PARAMETERS.items)
    same = last // slots == item // slots
    in_category = counts.reshape(-1, slots)[item // slots]
    better = (in_category > counts[item][:, None]).sum(axis=1)
    simple = same & (better < 10) & (last >= 0)
    assert (rank <= 10).mean() > simple.mean() + 0.15


def _payments(shop: Shop, events: Events, visits: SeenVisits, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    rows, chance = fraud_truth(PARAMETERS, shop.catalogue, events, visits, evidence)
    return rows, chance
