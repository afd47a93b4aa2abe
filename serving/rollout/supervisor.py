"""Makes what the state file asks for true: starts and ends bundles, and says who answers now.

A bundle gets traffic once it has verified and is ready, the one before answers until then, and ends when it
has answered what it was asked. What answers is one immutable value, so a request sees one state of things.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from serving.rollout import state
from serving.rollout.backend import Backend, BundleError
from serving.rollout.guard import Observation, Window, judge
from serving.rollout.metrics import RolloutMetrics
from serving.rollout.state import Rollout

logger = logging.getLogger("clicktrail.rollout")

_LOOK_EVERY_S = 0.2
_JUDGE_EVERY_S = 1.0
_DRAIN_S = 15.0
_LONGEST_PAUSE_S = 30.0
_LONGEST_DOWN_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Routes:
    """Who answers now; `share` is the canary's, in per cent of users, `previous` the champion before while it runs."""

    champion: Backend
    canary: Backend | None = None
    share: float = 0.0
    shadow: Backend | None = None
    previous: Backend | None = None

    @property
    def backends(self) -> dict[str, Backend]:
        """By role, those that are there."""
        every = {
            "champion": self.champion,
            "canary": self.canary,
            "shadow": self.shadow,
            "previous": self.previous,
        }
        return {role: backend for role, backend in every.items() if backend is not None}

    @property
    def steady(self) -> tuple[str, Backend]:
        """Role and bundle of whoever answers for all: the champion, or the one before it while the champion is down."""
        if self.previous is not None and self.previous.up and not self.champion.up:
            return "previous", self.previous
        return "champion", self.champion


class Supervisor:
    """One task's bundles. `routes` is None until the champion is ready, `fatal` says why it never will be."""

    def __init__(
        self,
        file: Path,
        session: ClientSession,
        metrics: RolloutMetrics,
        *,
        keep_warm_s: float,
        stop: Callable[[], None],
    ) -> None:
        """`keep_warm_s`: how long the champion before keeps running. `stop` is called when nothing can be served."""
        self.routes: Routes | None = None
        self.fatal: str | None = None
        self._file, self._session, self._metrics = file, session, metrics
        self._keep_warm_s, self._stop = keep_warm_s, stop
        self._wanted: Rollout | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._backends: dict[str, Backend] = {}
        self._tasks: dict[Backend, asyncio.Task[None]] = {}
        self._ending: dict[asyncio.Task[None], Backend] = {}
        self._verified: set[str] = set()
        self._failures: dict[str, tuple[int, float]] = {}
        self._left: tuple[str, float] | None = None
        self._windows = {"canary": Window(), "champion": Window()}
        self._judged = 0.0
        self._complaint = ""

    async def run(self) -> None:
        """Follow the file until cancelled, then end every bundle."""
        try:
            while self.fatal is None:
                try:
                    self._look()
                    self._settle()
                    self._judge()
                    self._complaint = ""
                except (OSError, ValueError) as error:
                    self._complain(f"the rollout's file cannot be used now, what answers goes on: {error}")
                await asyncio.sleep(_LOOK_EVERY_S)
            self._stop()
            await asyncio.Event().wait()
        finally:
            for backend in list(self._backends.values()):
                self._retire(backend)
            await asyncio.gather(*self._ending)

    def kill(self) -> None:
        """Leave no process behind where ending them in order did not come to an end."""
        for backend in (*self._backends.values(), *self._ending.values()):
            backend.kill()

    def observe(self, role: str, observation: Observation) -> None:
        """A request that canary or champion was asked while both answered."""
        self._windows[role].add(observation)

    def tells(self) -> dict[str, Any]:
        """How far things are, as JSON data. `settled`: what answers is what the file asks for."""
        routes, wanted = self.routes, self._wanted
        roles: dict[str, dict[str, Any]] = {
            role: {"tag": backend.tag, "up": backend.up, "in_flight": backend.in_flight, "process": backend.pid}
            for role, backend in (routes.backends if routes else {}).items()
        }
        if routes and routes.canary:
            roles["canary"]["share"] = routes.share
        answering = {role: one["tag"] for role, one in roles.items() if role != "previous"}
        return {
            "task": wanted.task if wanted else None,
            "revision": wanted.revision if wanted else 0,
            "settled": wanted is not None and answering == wanted.roles,
            **roles,
        }

    # ---- the file

    def _look(self) -> None:
        """Read the file if it was published anew."""
        found = self._file.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        self._take(state.read(self._file))
        self._stamp = stamp

    def _take(self, rollout: Rollout) -> None:
        before, self._wanted = self._wanted, rollout
        if before == rollout:
            return
        self._failures.clear()  # somebody may have mended what failed
        if before and before.champion != rollout.champion:
            self._left = (before.champion, time.monotonic())
        if before is None or before.roles != rollout.roles:
            self._windows = {"canary": Window(), "champion": Window()}

    def _complain(self, complaint: str) -> None:
        """Say it once, not five times a second."""
        if complaint != self._complaint:
            logger.error("%s", complaint)
        self._complaint = complaint

    def _take_out(self, role: str, tag: str, rule: str, why: str) -> None:
        """Write down that a bundle has lost its role, and follow at once."""
        logger.warning("%s %s is taken out: %s", role, tag, why)
        self._metrics.taken_out(role, rule)
        assert self._wanted is not None  # noqa: S101 - it says who had the role
        now = datetime.now(UTC).isoformat(timespec="milliseconds")

        def step(rollout: Rollout) -> Rollout:
            return state.taken_out(rollout, role, tag, why, now)

        self._take(step(self._wanted))  # also where the file cannot be written
        self._take(state.change(self._file, step))

    # ---- bundles

    def _settle(self) -> None:
        """Start what is missing, say who answers, end what nobody needs."""
        assert self._wanted is not None  # noqa: S101 - looked
        there = [(role, self._backends[tag]) for role, tag in self._wanted.roles.items() if tag in self._backends]
        for role, backend in there:
            if backend.failure is not None:
                self._gone(role, backend)
            elif role != "champion" and backend.down_s > _LONGEST_DOWN_S:
                self._take_out(role, backend.tag, "process", f"it was not ready for {_LONGEST_DOWN_S:g} s")
        for tag in self._wanted.roles.values():
            if tag not in self._backends and self._failures.get(tag, (0, 0.0))[1] <= time.monotonic():
                self._raise(tag)
        warm = self._warm()
        self._route(warm)
        needed = {*self._wanted.roles.values(), warm, self.routes.champion.tag if self.routes else None}
        for tag, backend in list(self._backends.items()):
            if tag not in needed or backend.failure is not None:
                self._retire(backend)

    def _route(self, warm: str | None) -> None:
        wanted, before = self._wanted, self.routes
        assert wanted is not None  # noqa: S101 - looked
        champion = self._ready(wanted.champion) or (before.champion if before else None)
        if champion is None:
            return
        canary = self._ready(wanted.canary.tag) if wanted.canary else None
        routes = Routes(
            champion=champion,
            # a canary of the champion to come waits for it: it is compared with that one
            canary=canary if champion.tag == wanted.champion and canary is not champion else None,
            share=wanted.canary.share if wanted.canary and canary else 0.0,
            shadow=self._ready(wanted.shadow) if wanted.shadow else None,
            previous=self._ready(warm) if warm and warm != champion.tag else None,
        )
        if routes != before:
            self.routes = routes
            tags = {role: backend.tag for role, backend in routes.backends.items()}
            self._metrics.roles(tags, routes.share)
            logger.info("answering: %s", ", ".join(f"{role} {tag}" for role, tag in tags.items()))

    def _ready(self, tag: str) -> Backend | None:
        """The bundle's process, if it has been ready and has not ended."""
        backend = self._backends.get(tag)
        return backend if backend and backend.started and backend.failure is None else None

    def _warm(self) -> str | None:
        """The champion before, as long as it is kept for a rollback."""
        assert self._wanted is not None  # noqa: S101 - looked
        if self._left is None or self._wanted.previous[-1:] != (self._left[0],):
            return None
        tag, since = self._left
        return tag if time.monotonic() - since < self._keep_warm_s else None

    def _raise(self, tag: str) -> None:
        backend = self._backends[tag] = Backend(tag, self._session)
        living = self._tasks[backend] = asyncio.create_task(self._live(backend))
        living.add_done_callback(lambda task: _note(task, backend))

    async def _live(self, backend: Backend) -> None:
        try:
            await backend.start(verify=backend.tag not in self._verified)
        except BundleError as error:
            logger.error("%s", error)  # noqa: TRY400 - the message is all there is to know
            return
        self._verified.add(backend.tag)
        self._failures.pop(backend.tag, None)
        await backend.watch()

    def _gone(self, role: str, backend: Backend) -> None:
        """A bundle that has a role failed to start, or its process ended."""
        assert backend.failure is not None  # noqa: S101 - that is why it is here
        assert self._wanted is not None  # noqa: S101 - looked
        self._retire(backend)
        # whatever is tried again waits a little longer each time
        count = self._failures.get(backend.tag, (0, 0.0))[0]
        self._failures[backend.tag] = (count + 1, time.monotonic() + min(_LONGEST_PAUSE_S, 2.0**count - 1))
        if role != "champion":
            self._take_out(role, backend.tag, "process" if backend.started else "start", backend.failure)
        elif backend.started or (self.routes and self.routes.champion.tag == backend.tag):
            logger.error("champion %s is started anew: %s", backend.tag, backend.failure)
        elif self.routes:
            self._take_out(role, backend.tag, "start", backend.failure)
        else:
            self.fatal = backend.failure

    def _retire(self, backend: Backend) -> None:
        """End a bundle's process, after it has answered what it was asked."""
        if self._backends.get(backend.tag) is not backend:
            return  # it is ending already
        del self._backends[backend.tag]
        living = self._tasks.pop(backend)

        async def end() -> None:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await backend.end(_DRAIN_S)

        ending = asyncio.create_task(end())
        self._ending[ending] = backend
        ending.add_done_callback(self._ending.pop)

    # ---- the guard

    def _judge(self) -> None:
        now = time.monotonic()
        if not (self.routes and self.routes.canary and self._wanted) or now - self._judged < _JUDGE_EVERY_S:
            return
        self._judged = now
        since = now - self._wanted.limits.window_s
        seen = {role: window.since(since) for role, window in self._windows.items()}
        verdict = judge(seen["canary"], seen["champion"], self._wanted.limits)
        if verdict is not None:
            self._take_out("canary", self.routes.canary.tag, verdict.rule, verdict.why)
            self._settle()


def _note(task: asyncio.Task[None], backend: Backend) -> None:
    """A bundle that nobody watches any more is of no use, whatever the reason."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s", backend.tag, exc_info=error)
        backend.failure = f"it cannot be started or watched: {error!r}"
