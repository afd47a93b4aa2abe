"""Keeps the online state up to the event log: `python -m clicktrail.updater`, `make update`.

It tails the log and applies every append to all views of the shop within moments. Any number of updaters may run:
they share the partitions, and whoever is killed is replaced. State that was emptied, is of another log, or holds
somebody who is to be forgotten is built anew beside the one that is read.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
import uuid

from clicktrail import state_views
from clicktrail.advance import Advance
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.leases import Leases
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings, load
from clicktrail.state_target import shown
from clicktrail.updater_metrics import Metrics, serve

logger = logging.getLogger("clicktrail.updater")

STRETCH = 50_000
"""Rows that one step applies: while a view is built anew, the others wait for it no longer than this takes."""

_POLL_S = 0.02
_LOOK_S = 1.0
_SAY_S = 5.0


class Updater:
    """One updater of a shop's state; for one thread."""

    def __init__(self, log: EventLog, state: OnlineState, *, metrics: Metrics | None = None) -> None:
        """Apply `log` to what is in `state`."""
        self._log, self._state = log, state
        self._advance = Advance(log, state.store, stretch=STRETCH)
        self._leases = Leases(state.store, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")
        self._declarations: dict[str, Declaration] = {}
        self._store_id = ""
        self._metrics = metrics or Metrics()

    def step(self) -> bool:
        """Apply what is there to apply, at most one stretch; says whether anything was."""
        views = self._views()
        partitions = self._leases.mine(max((view.partitions for view in views.values()), default=0))
        version = self._log.version
        progress = self._advance.step(None, version, partitions)
        if progress.live:
            now = time.time_ns() // 1_000
            for rows, accepted_at in self._log.accepted(progress.start, progress.stop):
                if accepted_at:
                    self._metrics.readable(max(now - accepted_at, 0) / 1e6, rows)
        self._metrics.stands(version, self._advance.offsets)
        return progress.stop > progress.start

    def release(self) -> None:
        """Let other updaters go on at once."""
        self._leases.release()

    def _views(self) -> dict[str, state_views.View]:
        """The views of the store; those that an emptied store had are prepared again."""
        found, views = state_views.store_id(self._state.store), state_views.views_of(self._state.store)
        if found != self._store_id and self._declarations:
            logger.warning("the store was emptied: %d views are built anew", len(self._declarations))
            for declaration in self._declarations.values():
                self._state.prepare(declaration)
            found, views = state_views.store_id(self._state.store), state_views.views_of(self._state.store)
        self._store_id = found
        self._declarations = {name: view.declaration for name, view in views.items()}
        return views


def run(
    settings: Settings,
    *,
    metrics_port: int = 0,
    metrics_host: str = "127.0.0.1",
    rebuild: tuple[str, ...] = (),
    stop: threading.Event | None = None,
) -> None:
    """Update the shop's state until `stop` is set.

    Args:
        settings: of the shop.
        metrics_port: where to tell figures; 0 nowhere.
        metrics_host: address to tell them on.
        rebuild: views that are built anew.
        stop: set when it is to end; never by default.

    Raises:
        ValueError: a view's state is damaged, or one that is to be built anew is not there.
        OSError: the port is taken.
    """
    log, state, stop = EventLog(settings.log), OnlineState(settings.online_state), stop or threading.Event()
    metrics = Metrics()
    server = serve(metrics, metrics_port, metrics_host) if metrics_port else None
    place = shown(settings.online_state)
    if not state.views():
        for declaration in registered(settings):
            state.prepare(declaration)
    for view in rebuild:
        state.rebuild(view)
    state_views.sweep(state.store)
    updater = Updater(log, state, metrics=metrics)
    logger.info("updating %d views in %s from %s", len(state.views()), place, settings.log)
    looked, met, said = 0.0, -1, time.monotonic()
    try:
        while not stop.is_set():
            version = log.version
            if version != met or time.monotonic() - looked > _LOOK_S:
                try:
                    met = -1 if updater.step() else version
                except (OSError, sqlite3.OperationalError) as error:  # gone for a while: what is applied stays applied
                    logger.warning("%s: %s; trying again", type(error).__name__, error)
                    stop.wait(_LOOK_S)
                looked = time.monotonic()
            else:
                stop.wait(_POLL_S)
            if time.monotonic() - said > _SAY_S:
                events, freshness = metrics.recent()
                seconds, said = time.monotonic() - said, time.monotonic()
                logger.info("log at %d, %.0f events/s, freshness p99 %.2f s", version, events / seconds, freshness)
    finally:
        updater.release()
        if server is not None:
            server.shutdown()


def registered(settings: Settings) -> list[Declaration]:
    """The event-log views of the shop's registry; none where there is no registry."""
    if not settings.registry.is_file():
        return []
    from clicktrail.data_source import declaration_of  # Feast: only an empty store asks for it
    from clicktrail.feast_repo import open_store

    views = [declaration_of(view) for view in open_store(settings).list_feature_views()]
    return [one for one in views if one is not None]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m clicktrail.updater", description=__doc__)
    parser.add_argument("--metrics-port", type=int, default=9465, help="figures for Prometheus; 0 for none (9465)")
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address to tell them on (this machine alone)")
    parser.add_argument(
        "--rebuild", action="append", default=[], metavar="VIEW", help="build this view anew; again for more"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        run(
            load(),
            metrics_port=arguments.metrics_port,
            metrics_host=arguments.metrics_host,
            rebuild=tuple(arguments.rebuild),
            stop=stop,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
