"""BG/NBD and Pareto/NBD: published figures, and answers held to simulated customers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from training.baselines import bgnbd, pareto_nbd
from training.baselines.bgnbd import BgNbd
from training.baselines.pareto_nbd import ParetoNbd
from training.purchases.history import Summary, merge_days

BG = BgNbd(r=0.6, alpha=3.0, a=0.8, b=2.0)
PARETO = ParetoNbd(r=0.6, alpha=4.0, s=0.7, beta=9.0)
MODELS = pytest.mark.parametrize("model", [BG, PARETO], ids=["BG/NBD", "Pareto/NBD"])
HISTORY, AHEAD = 20.0, 15.0
CUSTOMERS = 100_000


def simulate(model: BgNbd | ParetoNbd, seed: int) -> tuple[Summary, NDArray[np.float64]]:
    """Customers by the model's own story, purchase by purchase: their summaries, and what they buy afterwards.

    All begin at 0; the first purchase does not count.
    """
    rng = np.random.default_rng(seed)
    n = CUSTOMERS
    rate = rng.gamma(model.r, 1 / model.alpha, n)
    if isinstance(model, BgNbd):
        drop, end = rng.beta(model.a, model.b, n), np.full(n, np.inf)
    else:
        drop, end = np.zeros(n), rng.exponential(1 / rng.gamma(model.s, 1 / model.beta, n))
    now, x, last, later = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    going = np.arange(n)
    while len(going):
        now[going] += rng.exponential(1 / rate[going])
        going = going[now[going] < np.minimum(end[going], HISTORY + AHEAD)]
        early = going[now[going] <= HISTORY]
        x[early] += 1
        last[early] = now[early]
        later[going[now[going] > HISTORY]] += 1
        going = going[rng.random(len(going)) >= drop[going]]
    return Summary(x=x, t_x=last, T=np.full(n, HISTORY)), later


@pytest.fixture(scope="module")
def sample(data: Path) -> Summary:
    """CDNOW's 1/10 sample, up to 1997-09-30."""
    log = pd.read_parquet(data / "cdnow" / "transactions_sample_1of10.parquet")
    day = (pd.to_datetime(log["date"]) - pd.Timestamp("1997-01-01")).dt.days.to_numpy()
    past, _ = merge_days(log["customer_id"].to_numpy(), day, {})[0].until(272)
    return past.summary(272)


def test_bgnbd_published(sample: Summary) -> None:
    """On CDNOW's sample BG/NBD has the published parameters and log-likelihood."""
    found = bgnbd.fit(sample)
    assert [found.r, found.alpha, found.a, found.b] == pytest.approx([0.243, 4.414, 0.793, 2.426], abs=1e-3)
    assert found.log_likelihood(sample).sum() == pytest.approx(-9582.43, abs=0.01)


def test_pareto_published(sample: Summary) -> None:
    """On CDNOW's sample Pareto/NBD has the published parameters and log-likelihood."""
    found = pareto_nbd.fit(sample)
    assert [found.r, found.s] == pytest.approx([0.553, 0.606], abs=1e-3)
    assert [found.alpha, found.beta] == pytest.approx([10.578, 11.669], abs=1e-2)
    assert found.log_likelihood(sample).sum() == pytest.approx(-9594.98, abs=0.01)


@MODELS
def test_simulated(model: BgNbd | ParetoNbd) -> None:
    """Expected purchases and the chance to buy again are the means of simulated customers with the same history."""
    seen, later = simulate(model, seed=1)
    expected, again = model.expected(seen, AHEAD), model.buys_again(seen, AHEAD)
    silence = seen.T - seen.t_x
    groups = [
        seen.x == 0,
        (seen.x == 1) & (silence > 10),
        (seen.x == 1) & (silence < 5),
        (seen.x > 1) & (silence > 8),
        (seen.x > 1) & (silence < 2),
    ]
    for group in groups:
        noise = later[group].std() / np.sqrt(group.sum())
        assert expected[group].mean() == pytest.approx(later[group].mean(), abs=4 * noise)
        share = (later[group] > 0).mean()
        noise = np.sqrt(share * (1 - share) / group.sum())
        assert again[group].mean() == pytest.approx(share, abs=4 * noise)


@MODELS
def test_likelihood_simulated(model: BgNbd | ParetoNbd) -> None:
    """To buy nothing is as likely as the share of simulated customers without one."""
    seen, _ = simulate(model, seed=2)
    nothing = Summary(x=np.zeros(1), t_x=np.zeros(1), T=np.full(1, HISTORY))
    share = (seen.x == 0).mean()
    noise = np.sqrt(share * (1 - share) / CUSTOMERS)
    assert np.exp(model.log_likelihood(nothing))[0] == pytest.approx(share, abs=4 * noise)


@MODELS
def test_fit_recovers(model: BgNbd | ParetoNbd) -> None:
    """No parameters are likelier than those fitted, not even the true ones."""
    seen, _ = simulate(model, seed=3)
    few = Summary(x=seen.x[:5000], t_x=seen.t_x[:5000], T=seen.T[:5000])
    found = (bgnbd if isinstance(model, BgNbd) else pareto_nbd).fit(few)
    assert found.log_likelihood(few).sum() >= model.log_likelihood(few).sum()
    assert found.r == pytest.approx(model.r, rel=0.2)


@pytest.mark.parametrize(
    "model",
    [
        BG,
        BgNbd(r=0.2, alpha=4.0, a=1.0, b=0.5),
        BgNbd(r=50.0, alpha=0.01, a=1e-4, b=1e4),
        PARETO,
        ParetoNbd(r=0.5, alpha=3.0, s=1.0, beta=3.0),
        ParetoNbd(r=0.5, alpha=0.01, s=0.5, beta=1000.0),
        ParetoNbd(r=5.0, alpha=1000.0, s=100.0, beta=0.01),
    ],
)
def test_extremes(model: BgNbd | ParetoNbd) -> None:
    """Customers of a day, of thousands of purchases and of none, and parameters at poles have finite answers."""
    seen = Summary(
        x=np.array([0.0, 0.0, 1.0, 500.0, 5000.0]),
        t_x=np.array([0.0, 0.0, 0.1, 30.0, 700.0]),
        T=np.array([0.0, 100.0, 100.0, 30.0, 700.0]),
    )
    assert np.isfinite(model.log_likelihood(seen)).all()
    expected, again = model.expected(seen, 52.0), model.buys_again(seen, 52.0)
    assert (np.isfinite(expected) & (expected >= 0)).all()
    assert ((again >= 0) & (again <= 1)).all()
    assert (again <= expected + 1e-9).all()


@pytest.mark.parametrize("fit", [bgnbd.fit, pareto_nbd.fit])
def test_nobody_twice(fit: object) -> None:
    """Where nobody bought twice the error says so, and what helps."""
    once = Summary(x=np.zeros(3), t_x=np.zeros(3), T=np.full(3, 10.0))
    with pytest.raises(ValueError, match="none of 3 customers bought on a second day; give a longer history"):
        fit(once)  # type: ignore[operator]


def test_summary_refuses() -> None:
    """A last purchase after the end of the history is refused."""
    with pytest.raises(ValueError, match=r"customer 1 has x=1\.0, t_x=5\.0, T=4\.0"):
        Summary(x=np.array([0.0, 1.0]), t_x=np.array([0.0, 5.0]), T=np.array([4.0, 4.0]))
