"""Online reads under load held against the offline store, at the same log offset and time.

    python -m benchmarks.parity --reads 1000000 [--store sqlite|redis] [--kills 100]

A shop's events run into a log while updaters follow it and readers ask for random entities at random times, a hundred
at once of several views; a row of a view is a read. Every single one is replayed. With `--kills`, updaters are killed
(SIGKILL) and started again all the while, two of them at work at once; on Redis the store is emptied once in the
middle. When all have caught up, every entity is read once more. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import redis

from benchmarks.parity_load import Reader, Updaters, Writer
from benchmarks.parity_world import RARE, SECOND, VIEWS, Shop, keys
from benchmarks.redis_server import redis_server
from clicktrail import read_log
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.read_log import Recorder
from clicktrail.settings import Settings, load
from clicktrail.state_store import StateMissingError, StateWentBackError
from validation.parity_counts import LOGGED, ViewParity, measure

AT_ONCE = 100
READERS = 2
PATIENCE = 120.0
"""Seconds within which what an updater left undone has to be made good."""

_AHEAD = (0, 1, SECOND, 3600 * SECOND, 86_400 * SECOND, 7 * 86_400 * SECOND, -3600 * SECOND)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", type=int, default=-1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reader >= 0:
        read_on(load(), given.reads, given.seed + given.reader)
        return
    print(json.dumps(run(given.reads, given.store, given.kills, given.seed)))


def run(reads: int, store: str, kills: int, seed: int) -> dict[str, object]:
    """The whole measurement; gives the figures."""
    began = time.monotonic()
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-"))
        url = stack.enter_context(redis_server()) if store == "redis" else ""
        environ = {**os.environ, "CLICKTRAIL_HOME": home, "CLICKTRAIL_SHOP": "parity", "CLICKTRAIL_ONLINE_URL": url}
        settings = load(environ)
        log, shop = EventLog(settings.log), Shop(seed)
        log.append(shop.batch(20_000))
        catch_up(settings, log)
        writer, updaters = Writer(log, shop), Updaters(environ, 2 if kills else 1)
        readers = [Reader(environ, reads // READERS, seed + number) for number in range(READERS)]
        for one in (updaters, *readers, writer):
            stack.callback(one.stop)
        writer.start()
        trouble = make_trouble(settings, log, updaters, kills, np.random.default_rng(seed), url)
        enough(settings).touch()
        refused = sum(reader.refused() for reader in readers)
        writer.stop()
        caught_up = wait_for(settings, log.version)
        if not caught_up:
            message = f"the state has not come up to log offset {log.version}: it holds {offset_of(settings)}"
            raise RuntimeError(message)
        updaters.stop()
        read_everybody(settings, seed)
        live = time.monotonic() - began
        found = measure(log, ((view, LOGGED, table) for view, table in read_log.by_view(settings.read_log)))
        print_table(found)
        return {
            "reads": sum(view.reads for view in found.values()),
            "mismatches": sum(view.differing for view in found.values()),
            "store": store,
            "events": log.version,
            "values": sum(one.reads for view in found.values() for one in view.features.values()),
            "lagging": sum(view.lagging for view in found.values()),
            "refused": refused,
            **trouble,
            "live_seconds": round(live, 1),
            "seconds": round(time.monotonic() - began, 1),
        }


def enough(settings: Settings) -> Path:
    """The file that tells readers that the others are done."""
    return settings.home / "enough"


def catch_up(settings: Settings, log: EventLog) -> None:
    """What `make materialize` does."""
    for view in (*VIEWS, *RARE):
        OnlineState(settings.online_state).catch_up(log, view)


def make_trouble(
    settings: Settings,
    log: EventLog,
    updaters: Updaters,
    kills: int,
    rng: np.random.Generator,
    url: str,
) -> dict[str, object]:
    """Kill updaters, and empty Redis once half way, until enough were killed and all has been made good."""
    killed, waiting, recovered, emptied = 0, [], [], 0
    while killed < kills or waiting:
        time.sleep(0.05)
        if url and not emptied and killed >= kills / 2:
            if updaters.all_at_work():
                redis.Redis.from_url(url).flushall()
                emptied += 1
                waiting.append((log.version, time.monotonic()))
        elif killed < kills and not (emptied and offset_of(settings) < 0) and updaters.kill_one(rng):
            killed += 1
            waiting.append((log.version, time.monotonic()))
        here = offset_of(settings)
        recovered += [time.monotonic() - since for version, since in waiting if here >= version]
        waiting = [(version, since) for version, since in waiting if here < version]
        if waiting and time.monotonic() - waiting[0][1] > PATIENCE:
            message = f"{PATIENCE:.0f} s after a kill the state has not come up to {waiting[0][0]}: it is at {here}"
            raise RuntimeError(message)
    return {
        "kills": killed,
        "recoveries": len(recovered) - emptied,
        "recovery_p50_s": round(float(np.quantile(recovered, 0.5)), 2) if recovered else None,
        "recovery_max_s": round(max(recovered), 2) if recovered else None,
        "emptied": emptied,
    }


def offset_of(settings: Settings) -> int:
    """The log offset up to which every view is applied; -1 while there is no state."""
    try:
        return int(str(OnlineReader(settings.online_state, [*VIEWS, *RARE]).meta()["offset"]))
    except (StateMissingError, StateWentBackError, redis.RedisError):
        return -1


def wait_for(settings: Settings, version: int, seconds: float = PATIENCE) -> bool:
    """Whether every view comes up to a version of the log in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if offset_of(settings) >= version:
            return True
        time.sleep(0.05)
    return False


# ---- reading


def read_on(settings: Settings, reads: int, seed: int) -> None:
    """Read random entities of some views at random times; prints what was refused.

    At full speed until `reads` rows are answered, then now and then until it is enough.
    """
    rng = np.random.default_rng(seed)
    recorder = Recorder(settings.read_log, 1.0, limit_bytes=2**40, rows=20_000)
    reader: OnlineReader | None = None
    done = refused = batches = 0
    while done < reads or not enough(settings).exists():
        batches += 1
        if done >= reads:
            time.sleep(0.2)
        views = [VIEWS[one] for one in rng.choice(len(VIEWS), 3, replace=False)]
        asked = [(view.name, keys(view, rng, AT_ONCE)) for view in views]
        if batches % 100 == 0:
            asked.append((RARE[0].name, keys(RARE[0], rng, AT_ONCE)))
        try:
            if reader is None:
                reader = OnlineReader(settings.online_state, [*VIEWS, *RARE], recorder=recorder)
                watermark = int(str(reader.meta()["watermark"]))
            found = reader.read_many(asked, watermark + int(rng.choice(_AHEAD)) + int(rng.integers(0, 3600 * SECOND)))
        except (StateMissingError, StateWentBackError, redis.RedisError):
            refused += 1
            reader = None
            time.sleep(0.05)
            continue
        watermark = max(result.watermark for result in found.values())
        done += AT_ONCE * len(asked)
    recorder.flush()
    print(json.dumps({"refused": refused, "reads": done}))


def read_everybody(settings: Settings, seed: int) -> None:
    """Read entities of every view once more, now that all has come to rest."""
    rng = np.random.default_rng(seed)
    recorder = Recorder(settings.read_log, 1.0, limit_bytes=2**40)
    reader = OnlineReader(settings.online_state, [*VIEWS, *RARE], recorder=recorder)
    for view in (*VIEWS, *RARE):
        for _ in range(10 if view in RARE else 30):
            t = int(str(reader.meta()["watermark"])) + int(rng.choice(_AHEAD))
            reader.read(view.name, keys(view, rng, AT_ONCE), t)
    recorder.flush()


def print_table(found: dict[str, ViewParity]) -> None:
    """Views, and the features that differ."""
    print(f"{'view':<16} {'reads':>9} {'match':>9} {'differ':>7} {'lagging':>9}")
    for name, view in sorted(found.items()):
        print(f"{name:<16} {view.reads:>9,} {view.match_rate:>9.4%} {view.differing:>7,} {view.lagging:>9,}")
        for feature, one in view.features.items():
            if one.differing:
                print(f"  {feature}: {one.differing:,} differ, {one.missing:,} missing, {one.extra:,} extra")
        for example in view.examples:
            print(f"  {example}")


if __name__ == "__main__":
    main()
