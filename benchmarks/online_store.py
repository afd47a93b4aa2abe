"""Reads and updates of the online state: how quick, how many, how fresh.

    python -m benchmarks.online_store --store sqlite|redis

Reads: a sequence of K = 200 events with 4 fields and 20 window aggregates of users with 300 events each, through
Feast's `get_online_features`: one row, and 100 rows at once.

Updates: `--rate` events a second for `--seconds`, Zipf users and terminals, 1 % late by up to a day, labels among them.
They enter the event log in synced appends four times a second; an updater process (`python -m clicktrail.updater`)
applies them to the views of the feature service `fraud`; a reader process reads all of these views for one payment
200 times a second, as a service does. An append is fresh when a read by the reader has it: seconds since the log
accepted it, weighted by events. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from benchmarks.redis_server import redis_server
from clicktrail.contract import LABEL, arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.settings import load

SECOND = 1_000_000
_APPENDS_PER_SECOND = 4
_READS_PER_SECOND = 200
_USERS, _TERMINALS, _ITEMS = 50_000, 2_000, 10_000
_LATE, _LABELLED = 0.01, 0.01
_TYPES = ("view", "search", "cart", "login", "purchase", "payment")
_SHARES = (0.5, 0.12, 0.1, 0.04, 0.06, 0.18)


class Shop:
    """Events of a busy shop, as contract rows; every call goes on where the last one ended."""

    def __init__(self, seed: int, users: int = _USERS) -> None:
        """Users and terminals are Zipf-distributed with exponent 1."""
        self._rng = np.random.default_rng(seed)
        self._users = _zipf(users)
        self._terminals = _zipf(_TERMINALS)
        self._made = 0
        self._payments: list[str] = []

    def batch(self, rows: int, now: int) -> pa.Table:
        """So many events that arrive at `now` (microseconds), 1 % of them late, and labels of earlier payments."""
        rng = self._rng
        user = np.searchsorted(self._users, rng.random(rows))
        kind = rng.choice(len(_TYPES), rows, p=_SHARES)
        number = np.arange(self._made, self._made + rows)
        self._made += rows
        late = rng.random(rows) < _LATE
        happened = now - rng.integers(0, 50_000, rows) - np.where(late, rng.integers(0, 86_400 * SECOND, rows), 0)
        pays = kind == _TYPES.index("payment")
        item = pa.array([f"i{one}" for one in rng.integers(0, _ITEMS, rows)])
        names = {
            "event_id": [f"e{one}" for one in number],
            "user_id": [f"u{one}" for one in user],
            "item_id": item,
            "event_type": pa.array(_TYPES).take(pa.array(kind)),
            "event_timestamp": happened,
            "ingested_at": np.full(rows, now),
            "source_seq": number,
            "session_id": [f"s{one}" for one in user],
            "category_id": [f"c{one}" for one in kind],
            "price_minor": rng.integers(100, 100_000, rows),
            "device": [f"d{one % 3}" for one in user],
            "card_id": pa.array([f"k{one}" for one in user], mask=~pays),
            "terminal_id": pa.array(
                [f"t{one}" for one in np.searchsorted(self._terminals, rng.random(rows))], mask=~pays
            ),
        }
        events = _contract(names, rows)
        labels = self._labels(now)
        self._payments += [f"e{one}" for one in number[pays]]
        return pa.concat_tables([events, labels])

    def _labels(self, now: int) -> pa.Table:
        """Frauds among the payments so far that become known now."""
        n = int(self._rng.binomial(len(self._payments), _LABELLED))
        chosen = [self._payments[one] for one in self._rng.choice(max(len(self._payments), 1), n, replace=False)]
        self._payments = self._payments[-20_000:]
        number = np.arange(self._made, self._made + n)
        self._made += n
        names = {
            "event_id": [f"l{one}" for one in number],
            "event_type": [LABEL] * n,
            "event_timestamp": np.full(n, now),
            "ingested_at": np.full(n, now),
            "source_seq": number,
            "label_of": chosen,
            "label": ["fraud"] * n,
            "label_value": np.ones(n, np.int64),
        }
        return _contract(names, n)


def _contract(columns: dict[str, Any], rows: int) -> pa.Table:
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in arrow_schema()
    ]
    return pa.table(arrays, schema=arrow_schema())


def _zipf(size: int) -> np.ndarray:
    weight = 1 / np.arange(1, size + 1)
    return np.cumsum(weight) / weight.sum()


# ---- reads


def reads(folder: Path, target: str, users: int, singles: int, hundreds: int) -> dict[str, float]:
    """Milliseconds of reads through Feast's online door."""
    from feast import Entity, FeatureStore, RepoConfig, ValueType

    from clicktrail import views as v

    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    about: dict[str, Any] = {
        "owner": "benchmarks@example.com",
        "description": "what the benchmark reads",
        "entity": user,
    }
    fields = ["item_id", "event_type", "price_minor", "event_timestamp"]
    recent = v.sequence_view(name="recent_v1", last=200, fields=fields, **about)
    windows = [v.hours(1), v.days(1), v.days(7), v.days(30)]
    twenty = [
        v.count("view"),
        v.count("purchase"),
        v.total("price_minor"),
        v.distinct("item_id"),
        v.largest("price_minor"),
    ]
    activity = v.aggregate_view(name="activity_v1", windows=windows, aggregations=twenty, **about)
    log = EventLog(folder / "log")
    rng = np.random.default_rng(0)
    now = time.time_ns() // 1_000
    _fill(log, users, now, rng)
    online = {"type": "clicktrail.online_store.EventLogOnlineStore", "path": str(folder / "online.db"), "url": target}
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
            offline_store={"type": "clicktrail.offline_store.EventLogOfflineStore", "log_path": str(log.path)},
            online_store={**online, "clock": "wall"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, recent, activity])
    state = OnlineState(target or folder / "online.db")
    began = time.perf_counter()
    for view in (recent, activity):
        state.catch_up(log, view.batch_source.declaration)
    figures = {"read_backfill_seconds": round(time.perf_counter() - began, 2)}
    references = [f"{view.name}:{field.name}" for view in (recent, activity) for field in view.features]
    for rows, turns in ((1, singles), (100, hundreds)):
        took = []
        for _ in tqdm(range(turns + 20), desc=f"reads of {rows}", unit="read"):
            asked = [{"user_id": f"u{one}"} for one in rng.integers(0, users, rows)]
            began = time.perf_counter()
            store.get_online_features(references, asked).to_arrow()
            took.append((time.perf_counter() - began) * 1000)
        p50, p99 = np.percentile(took[20:], [50, 99])  # the first ones load code
        figures |= {f"p50_ms_{rows}": round(float(p50), 3), f"p99_ms_{rows}": round(float(p99), 3)}
    return figures


def _fill(log: EventLog, users: int, now: int, rng: np.random.Generator) -> None:
    """300 events of each user over the last 40 days."""
    rows = users * 300
    happened = np.sort(now - rng.integers(1, 40 * 86_400 * SECOND, rows))
    names = {
        "event_id": [f"e{one}" for one in range(rows)],
        "user_id": [f"u{one}" for one in rng.permutation(np.repeat(np.arange(users), 300))],
        "item_id": [f"i{one}" for one in rng.integers(0, _ITEMS, rows)],
        "event_type": pa.array(_TYPES).take(pa.array(rng.choice(len(_TYPES), rows, p=_SHARES))),
        "event_timestamp": happened,
        "ingested_at": happened + SECOND,
        "source_seq": np.arange(rows),
        "price_minor": rng.integers(100, 100_000, rows),
    }
    log.append(_contract(names, rows))


# ---- updates


def fraud_views() -> list[Declaration]:
    """The views of the feature service `fraud`."""
    from clicktrail.data_source import declaration_of
    from clicktrail.repo_objects import repo_objects

    objects = repo_objects(load().feature_repo)
    service = next(one for one in objects.feature_services if one.name == "fraud")
    names = {projection.name for projection in service.feature_view_projections}
    found = [declaration_of(view) for view in objects.feature_views if view.name in names]
    return [one for one in found if one is not None]


def updates(folder: Path, target: str, rate: int, seconds: int) -> dict[str, float]:
    """Run the shop, an updater and a reader side by side."""
    environ = {**os.environ, "CLICKTRAIL_HOME": str(folder), "CLICKTRAIL_SHOP": "bench", "CLICKTRAIL_CLOCK": "wall"}
    environ |= {"CLICKTRAIL_ONLINE_URL": target, "OMP_NUM_THREADS": "1"}
    settings = load(environ)
    log, state = EventLog(settings.log), OnlineState(settings.online_state)
    for declaration in fraud_views():
        state.prepare(declaration)
    shop = Shop(seed=1)
    log.append(shop.batch(100_000, time.time_ns() // 1_000 - 60 * SECOND))
    command = [sys.executable, "-m", "clicktrail.updater", "--metrics-port", "0"]
    updater = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    _wait(state, log, updater)
    command = [sys.executable, "-m", "benchmarks.online_store", "--reader", str(folder / "reads.json")]
    reader = subprocess.Popen(command, env=environ)
    accepted: list[tuple[int, float, int]] = []
    rows = rate // _APPENDS_PER_SECOND
    while not (folder / "reads.json.ready").exists():
        time.sleep(0.05)
    began = time.monotonic()
    for turn in tqdm(range(seconds * _APPENDS_PER_SECOND), desc="updates", unit="append"):
        table = shop.batch(rows, time.time_ns() // 1_000)
        done = log.append(table)
        accepted.append((done.version, log.accepted_at(done.version - 1) / SECOND, done.accepted))
        time.sleep(max(0.0, began + (turn + 1) / _APPENDS_PER_SECOND - time.monotonic()))
    fed = time.monotonic() - began
    _wait(state, log, updater)
    caught_up = time.monotonic() - began
    time.sleep(0.5)
    reader.send_signal(signal.SIGTERM)
    reader.wait()
    updater.send_signal(signal.SIGTERM)
    updater.wait()
    seen = json.loads((folder / "reads.json").read_text())
    freshness = freshness_of(accepted, seen["moments"], seen["offsets"])
    events = sum(one[2] for one in accepted)
    return {
        "events": events,
        "offered_per_s": round(events / fed),
        "updates_per_s": round(events / max(caught_up, seconds)),
        "freshness_p50_s": round(float(np.percentile(freshness, 50)), 3),
        "freshness_p99_s": round(float(np.percentile(freshness, 99)), 3),
        "alongside_reads_per_s": round(len(seen["took_ms"]) / (seen["moments"][-1] - seen["moments"][0])),
        "alongside_p50_ms": round(float(np.percentile(seen["took_ms"], 50)), 2),
        "alongside_p99_ms": round(float(np.percentile(seen["took_ms"], 99)), 2),
    }


def _wait(state: OnlineState, log: EventLog, updater: subprocess.Popen[bytes]) -> None:
    """Until the state is as far as the log."""
    while min(one.offset for one in state.views().values()) < log.version:
        if updater.poll() is not None:
            message = f"the updater ended with status {updater.returncode}"
            raise RuntimeError(message)
        time.sleep(0.01)


def freshness_of(accepted: list[tuple[int, float, int]], moments: list[float], offsets: list[int]) -> np.ndarray:
    """Seconds from acceptance to the first read that has it, one a thousand events, [values].

    Args:
        accepted: (end offset, wall seconds, events) of each append.
        moments: when each read ended, wall seconds.
        offsets: up to where the state had come at each read.
    """
    reached = np.maximum.accumulate(np.array(offsets))
    out = []
    for stop, at, events in accepted:
        first = int(np.searchsorted(reached, stop))
        delay = moments[first] - at if first < len(moments) else float("inf")
        out += [delay] * max(events // 1000, 1)
    return np.array(out)


def follow(result: Path) -> None:
    """Read all views of a payment so many times a second until SIGTERM; leaves times and offsets in a file."""
    settings = load()
    declarations = fraud_views()
    reader = OnlineReader(settings.online_state, declarations)
    rng = np.random.default_rng(2)
    users, terminals = _zipf(_USERS), _zipf(_TERMINALS)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    moments, offsets, took = [], [], []

    def once() -> int:
        user, terminal = (int(np.searchsorted(one, rng.random())) for one in (users, terminals))
        keys = {"user_id": f"u{user}", "card_id": f"k{user}", "terminal_id": f"t{terminal}"}
        asked = [(one.name, [keys[one.entity_key]]) for one in declarations]
        found = reader.read_many(asked, time.time_ns() // 1_000)
        return min(one.offset for one in found.values())

    for _ in range(50):
        once()
    result.with_name(f"{result.name}.ready").touch()
    began, turn = time.monotonic(), 0
    while not stopped:
        time.sleep(max(0.0, began + turn / _READS_PER_SECOND - time.monotonic()))
        started = time.perf_counter()
        offsets.append(once())
        took.append((time.perf_counter() - started) * 1000)
        moments.append(time.time())
        turn += 1
    result.write_text(json.dumps({"moments": moments, "offsets": offsets, "took_ms": took}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--rate", type=int, default=5_000, help="events a second")
    parser.add_argument("--seconds", type=int, default=60, help="for how long")
    parser.add_argument("--users", type=int, default=2_000, help="users that are read")
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        follow(arguments.reader)
        return
    figures: dict[str, Any] = {"store": arguments.store}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        target = stack.enter_context(redis_server()) if arguments.store == "redis" else ""
        (Path(folder) / "reads").mkdir()
        figures |= reads(Path(folder) / "reads", target and f"{target}#reads", arguments.users, 3_000, 300)
        (Path(folder) / "updates").mkdir()
        figures |= updates(Path(folder) / "updates", target and f"{target}#updates", arguments.rate, arguments.seconds)
    print("\n".join(f"{name:24}{value:>12}" for name, value in figures.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
