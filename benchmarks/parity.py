"""Online reads under load held against the offline store, at the same log offset and time.

    python -m benchmarks.parity --reads 1000000 [--store sqlite|redis] [--kills 100]

A shop's events run into a log while updaters follow it and readers ask for random entities at random times, a hundred
at once of several views; a row of a view is a read. Every single one is replayed. With `--kills`, updaters are killed
(SIGKILL) and started again all the while, two of them at work at once; on Redis the store is emptied once in the
middle. When all have caught up, entities of every view are read once more. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.parity_load import Updater, Updaters, Writer, processes
from benchmarks.parity_readers import ALL, REFUSED, read_all_views, read_on
from benchmarks.parity_world import Shop
from benchmarks.redis_server import redis_server
from clicktrail import read_log
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.settings import Settings
from clicktrail.state_views import heads_of, views_of
from validation.parity_counts import LOGGED, ViewParity, measure

READERS = 2
PATIENCE = 120.0
"""Seconds within which what an updater left undone has to be made good."""


def run(reads: int, store: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """The whole measurement; gives the figures."""
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))
        url = stack.enter_context(redis_server()) if store == "redis" else ""
        settings = Settings(home=home, shop="parity", online_url=url)
        log, shop = EventLog(settings.log), Shop(seed)
        log.append(shop.batch(20_000))
        for view in ALL:
            OnlineState(settings.online_state).catch_up(log, view)
        context = processes()
        enough, refusals = context.Event(), context.SimpleQueue()
        updaters = Updaters(lambda: Updater(settings, context), 2 if kills else 1)
        stack.callback(updaters.stop)
        readers = [
            context.Process(
                target=read_on, args=(settings, reads // READERS, seed + number, enough, refusals), daemon=True
            )
            for number in range(READERS)
        ]
        writer = Writer(log, shop)
        for reader in readers:
            reader.start()
        writer.start()
        stack.callback(writer.stop)
        trouble = make_trouble(settings, log, updaters, kills, np.random.default_rng(seed), url)
        enough.set()
        for reader in readers:
            reader.join()
            if reader.exitcode:
                message = f"a reader failed with status {reader.exitcode}"
                raise RuntimeError(message)
        writer.stop()
        come_to_rest(settings, log.version)
        updaters.stop()
        read_all_views(settings, seed)
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
            "refused": sum(refusals.get() for _ in readers),
            **trouble,
            "live_seconds": round(live, 1),
            "seconds": round(time.monotonic() - began, 1),
        }


# ---- kills


def make_trouble(
    settings: Settings, log: EventLog, updaters: Updaters, kills: int, rng: np.random.Generator, url: str
) -> dict[str, Any]:
    """Kill updaters, and empty Redis once half way, until enough were killed and all has been made good.

    A kill comes up to a second after somebody has gone on since the last one: in the middle of work.
    """
    killed, emptied, seen, due = 0, 0, 0, 0.0
    waiting: list[tuple[int, float]] = []
    recovered: list[float] = []
    while killed < kills or waiting:
        time.sleep(0.02)
        here, moved = offset_of(settings), progress_of(settings)
        if moved > seen and not due:
            due = time.monotonic() + rng.uniform(0, 1)
        if url and not emptied and killed >= kills / 2:
            if updaters.all_at_work():
                redis.Redis.from_url(url).flushall()
                emptied, seen, due = 1, 0, 0.0
                waiting.append((log.version, time.monotonic()))
        elif killed < kills and due and time.monotonic() > due and updaters.kill_one():
            killed, seen, due = killed + 1, progress_of(settings), 0.0
            waiting.append((log.version, time.monotonic()))
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
        return int(str(OnlineReader(settings.online_state, ALL).meta()["offset"]))
    except REFUSED:
        return -1


def progress_of(settings: Settings) -> int:
    """Grows whenever anything is applied to any partition of any view; smaller after the store was emptied."""
    store = OnlineState(settings.online_state).store
    return sum(head.offset for heads in heads_of(store, views_of(store).values()).values() for head in heads)


def come_to_rest(settings: Settings, version: int) -> None:
    """Wait until every view has come up to a version of the log.

    Raises:
        RuntimeError: it takes too long.
    """
    deadline = time.monotonic() + PATIENCE
    while offset_of(settings) < version:
        if time.monotonic() > deadline:
            message = f"the state has not come up to log offset {version}: it is at {offset_of(settings)}"
            raise RuntimeError(message)
        time.sleep(0.05)


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(run(given.reads, given.store, given.kills, given.seed)))


if __name__ == "__main__":
    main()
