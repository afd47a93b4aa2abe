"""Updaters: they follow the log, share the work, and may be killed, doubled or robbed of their store at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from benchmarks.redis_server import redis_server
from clicktrail.contract import LABEL
from clicktrail.declaring import aggregates, count, days, distinct, label_rate, sequence, total
from clicktrail.event_log import EventLog
from clicktrail.leases import SECONDS, Leases
from clicktrail.online_state import OnlineReader, OnlineState, StateMissingError, StateWentBackError
from clicktrail.settings import Settings
from clicktrail.state_target import open_store
from clicktrail.updater import Updater, run
from clicktrail.updater_metrics import Metrics, serve
from tests.clicktrail.test_event_log import rows

SECOND = 1_000_000
START = 1_700_000_000
LAST = sequence(name="last_v1", entity_key="user_id", last=5, fields=["item_id", "event_timestamp"])
SPENT = aggregates(
    name="spent_v1",
    entity_key="terminal_id",
    windows=[days(1)],
    aggregations=[count(), total("price_minor"), distinct("user_id"), label_rate("fraud", of="payment", delay=days(0))],
)
VIEWS = [LAST, SPENT]
USERS = [f"u{number}" for number in range(7)]
TERMINALS = [f"t{number}" for number in range(3)]


def payments(first: int, number: int, rng: random.Random) -> pa.Table:
    """Payments of a few users, one after the other, some late, and labels that speak of earlier ones."""
    events = []
    for place in range(first, first + number):
        arrives = (START + place) * SECOND
        if place > 10 and rng.random() < 0.1:
            said = {"label_of": f"p{rng.randrange(place)}", "label": "fraud", "label_value": rng.choice([0, 1, 1])}
            event = {"event_type": LABEL, "user_id": None, "item_id": None, **said}
        else:
            event = {
                "event_type": "payment",
                "user_id": rng.choice(USERS),
                "terminal_id": rng.choice(TERMINALS),
                "price_minor": rng.randrange(1_000),
                "item_id": f"i{place}",
            }
        late = rng.choice([0, 0, 0, 30, 4_000])
        times = {"event_timestamp": arrives - late * SECOND, "ingested_at": arrives, "source_seq": place}
        events.append({**event, **times, "event_id": f"p{place}"})
    return rows(*events)


def everything(target: str, t: int) -> dict[str, object]:
    """What is read of every entity at a time."""
    read = OnlineReader(target, VIEWS).read_many([("last_v1", USERS), ("spent_v1", TERMINALS)], t)
    return {
        f"{view}.{name}": column.to_pylist() for view, one in read.items() for name, column in one.columns.items()
    } | {view: one.known for view, one in read.items()}


def calm(settings: Settings, folder: Path, t: int) -> dict[str, object]:
    """The same from a state that nobody disturbed."""
    target = str(folder / f"{uuid.uuid4().hex}.db")
    for view in VIEWS:
        OnlineState(target).catch_up(EventLog(settings.log), view)
    return everything(target, t)


@contextmanager
def updating(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """An updater in a process of its own; what it says is in `updater.log` of the shop."""
    environ = {"CLICKTRAIL_HOME": str(settings.home), "CLICKTRAIL_ONLINE_URL": settings.online_url}
    command = [sys.executable, "-m", "clicktrail.updater", "--metrics-port", "0", *arguments]
    settings.shop_home.mkdir(parents=True, exist_ok=True)
    with (settings.shop_home / "updater.log").open("a") as said:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stderr=said, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_caught_up(settings: Settings, seconds: float = 60) -> None:
    """Return when every view can be read and is where the log is."""
    state, log = OnlineState(settings.online_state), EventLog(settings.log)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        here = state.views()
        if len(here) == len(VIEWS) and all(one.complete and one.offset == log.version for one in here.values()):
            return
        time.sleep(0.05)
    pytest.fail(f"not caught up: {state.views()}; {(settings.shop_home / 'updater.log').read_text()[-2000:]}")


# ---- in one process


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_step_applies_what_is_there(settings: Settings) -> None:
    """Each append is readable after one step, and the figures say how soon it was and how far everything is."""
    log, state, metrics = EventLog(settings.log), OnlineState(settings.online), Metrics()
    for view in VIEWS:
        state.prepare(view)
    updater = Updater(log, state, metrics=metrics)
    log.append(payments(0, 20, random.Random(0)))  # noqa: S311 - reproducible test data
    while updater.step():
        pass
    before = time.monotonic()
    log.append(payments(20, 20, random.Random(1)))  # noqa: S311
    assert updater.step()
    assert not updater.step()
    passed = time.monotonic() - before
    t = (START + 100) * SECOND
    assert everything(settings.online_state, t) == calm(settings, settings.home, t)
    page = metrics.text()
    assert 'clicktrail_state_offset{view="last_v1"} 40' in page
    assert "clicktrail_log_offset 40" in page
    assert "clicktrail_freshness_seconds_count 20" in page
    events, freshness = metrics.recent()
    assert events == 20
    assert 0 < freshness < passed + 0.1


def test_figures_are_served() -> None:
    """GET /metrics gives the page; anything else is not there."""
    metrics = Metrics()
    for seconds, events in ((0.02, 3), (0.3, 1), (70.0, 1)):
        metrics.readable(seconds, events)
    server = serve(metrics, 0)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        page = urllib.request.urlopen(f"{address}/metrics").read().decode()  # noqa: S310 - our own server
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/")  # noqa: S310
    finally:
        server.shutdown()
        server.server_close()
    for line in ('_bucket{le="0.025"} 3', '_bucket{le="0.5"} 4', '_bucket{le="60.0"} 4', '_bucket{le="+Inf"} 5'):
        assert f"clicktrail_freshness_seconds{line}" in page
    assert metrics.recent() == (5, 70.0)
    assert metrics.recent() == (0, 0.0)


def test_updaters_share_partitions_and_inherit_those_of_the_dead(tmp_path: Path) -> None:
    """One has all, two have half each, and the half of one that is silent goes to the other when its lease ends."""
    now = [1_000.0]
    store = open_store(tmp_path / "online.db")
    one, two = (Leases(store, name, clock=lambda: now[0]) for name in ("one", "two"))
    assert one.mine(4) == {0, 1, 2, 3}
    assert two.mine(4) == set()
    now[0] += SECONDS / 2
    assert one.mine(4) == {0, 1}
    now[0] += SECONDS / 2
    assert two.mine(4) == {2, 3}
    now[0] += SECONDS / 2
    assert (one.mine(4), two.mine(4)) == ({0, 1}, {2, 3})
    now[0] += SECONDS * 1.5
    assert two.mine(4) == {0, 1, 2, 3}
    two.release()
    assert one.mine(4) == {0, 1, 2, 3}
    one.release()
    assert store.texts("") == {}


def test_an_updater_makes_an_emptied_store_whole(settings: Settings, tmp_path: Path) -> None:
    """The views that were there are built anew from the log, without anybody's doing."""
    with redis_server() as url:
        log, state = EventLog(settings.log), OnlineState(f"{url}#shop")
        log.append(payments(0, 30, random.Random(0)))  # noqa: S311
        for view in VIEWS:
            state.catch_up(log, view)
        updater = Updater(log, state)
        updater.step()
        redis.Redis.from_url(url).flushall()
        while updater.step() or not state.views()["last_v1"].complete:
            pass
        t = (START + 100) * SECOND
        assert everything(f"{url}#shop", t) == calm(settings, tmp_path, t)


def test_an_updater_builds_a_view_anew_when_it_is_told_to(settings: Settings, tmp_path: Path) -> None:
    """It is readable all the while, ends up the same, and only the new generation stays."""
    log, state = EventLog(settings.log), OnlineState(settings.online)
    log.append(payments(0, 60, random.Random(0)))  # noqa: S311
    for view in VIEWS:
        state.catch_up(log, view)
    old = {name.rpartition(":")[0] for name in state.store.texts("head:")}
    stop = threading.Event()
    updater = threading.Thread(target=run, args=(settings,), kwargs={"rebuild": ("spent_v1",), "stop": stop})
    updater.start()
    try:
        while old == {name.rpartition(":")[0] for name in state.store.texts("head:")} or any(
            view.rebuilding for view in state.views().values()
        ):
            assert OnlineReader(settings.online_state, VIEWS).read("spent_v1", TERMINALS, 0).known == [True] * 3
    finally:
        stop.set()
        updater.join()
    t = (START + 100) * SECOND
    assert everything(settings.online_state, t) == calm(settings, tmp_path, t)
    assert len(state.store.texts("head:")) == 2
    with pytest.raises(ValueError, match="no state of view 'other_v1'"):
        run(settings, rebuild=("other_v1",), stop=stop)


# ---- several processes, and kills


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, str]]:
    """A shop with two views, on both stores; with the URL of its own Redis."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path), ""
        return
    with redis_server() as url:
        yield Settings(home=tmp_path, online_url=f"{url}#shop"), url


@pytest.mark.slow
def test_two_updaters_and_twenty_kills_lose_and_double_nothing(shop: tuple[Settings, str], tmp_path: Path) -> None:
    """While events come in, updaters are killed at any moment and others started; the state is as if nothing was."""
    settings, _ = shop
    log, state, rng = EventLog(settings.log), OnlineState(settings.online_state), random.Random(0)  # noqa: S311
    for view in VIEWS:
        state.prepare(view)
    done = threading.Event()
    written = [0]

    def write() -> None:
        mine = random.Random(1)  # noqa: S311
        while not done.is_set():
            log.append(payments(written[0], 25, mine))
            written[0] += 25
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            with updating(settings) as one, updating(settings) as two:
                time.sleep(3 + rng.random())
                for process in (one, two):
                    assert process.poll() is None, (settings.shop_home / "updater.log").read_text()[-2000:]
                    time.sleep(rng.random() / 10)
                    process.kill()
    finally:
        done.set()
        writer.join()
    with updating(settings) as last:
        until_caught_up(settings)
        last.send_signal(signal.SIGTERM)
        assert last.wait(20) == 0
    t = (START + written[0] + 10) * SECOND
    assert everything(settings.online_state, t) == calm(settings, tmp_path, t)


@pytest.mark.slow
def test_redis_emptied_under_load_is_never_an_unknown_user(tmp_path: Path) -> None:
    """FLUSHALL while events come in and are read: reads fail in words until all is built anew, and are right again."""
    with redis_server() as url:
        settings = Settings(home=tmp_path, online_url=f"{url}#shop")
        log, state = EventLog(settings.log), OnlineState(settings.online_state)
        log.append(payments(0, 400, random.Random(0)))  # noqa: S311
        for view in VIEWS:
            state.catch_up(log, view)
        reader, written = OnlineReader(settings.online_state, VIEWS), 400
        with updating(settings):
            for emptied in (False, True, True, True):
                if emptied:
                    redis.Redis.from_url(url).flushall()
                log.append(payments(written, 50, random.Random(written)))  # noqa: S311
                written += 50
                answered, outages = _read_for(reader, 3.0)
                until_caught_up(settings)
                assert answered
                assert bool(outages) == emptied
        t = (START + written + 10) * SECOND
        assert everything(settings.online_state, t) == calm(settings, tmp_path, t)


def _read_for(reader: OnlineReader, seconds: float) -> tuple[int, int]:
    """Reads that were answered, each with everybody known, and reads that failed in words."""
    answered, outages, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            assert reader.read("last_v1", USERS, START * SECOND).known == [True] * len(USERS)
            answered += 1
        except (StateMissingError, StateWentBackError):
            outages += 1
        time.sleep(0.005)
    return answered, outages
