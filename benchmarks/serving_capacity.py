"""How much a server carries: the highest rate of arrivals at which nearly everybody is served soon."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.serving_load import Order, connections_for
from benchmarks.serving_servers import Server, Step

P99_MS = 50.0
_FACTOR = 1.5
_RESOLUTION = 1.05
_LEAST_RATE = 5.0
_LEAST_REQUESTS = 100
_DRAIN_S = 0.5


class Search:
    """Looks for the highest rate that holds: in steps of a half, then by bisection to a twentieth."""

    def __init__(self, start: float) -> None:
        """`start`: the first rate to try, a second."""
        self.rate = start
        self.held = 0.0
        self._broken = math.inf

    @property
    def done(self) -> bool:
        """Whether `held` is the answer; 0 where no rate holds."""
        return self.rate < _LEAST_RATE or (self.held > 0 and self._broken <= self.held * _RESOLUTION)

    def tell(self, held: bool) -> None:  # noqa: FBT001 - an answer to the question that `rate` is
        """Whether `rate` held; then `rate` is the next one to try."""
        if held:
            self.held = self.rate
        else:
            self._broken = self.rate
        if not self.held:
            self.rate = self._broken / _FACTOR
        elif math.isinf(self._broken):
            self.rate = self.held * _FACTOR
        else:
            self.rate = math.sqrt(self.held * self._broken)


def holds(step: Step) -> bool:
    """99 of 100 were answered within the limit, nobody got an error."""
    return not step.failed and step.p99_ms < P99_MS


def capacities(servers: Sequence[Server], order: Order, show: Callable[[Server, Step], object]) -> dict[str, float]:
    """Highest rate a second that each server holds, by name; 0 where it holds none.

    The servers take turns, a step each, so that a machine that is slower for a while is so for all of them. A rate
    that does not hold is tried a second time: a moment in which the machine did something else is nobody's limit.

    Args:
        servers: that run side by side.
        order: requests of a step and how long it takes; its rate is that of a first look at what a request costs.
        show: is told of each step.
    """
    searches = {}
    for server in servers:
        first = server.load(order)
        show(server, first)
        searches[server.name] = Search(max(400 / first.cpu_ms, 1.0))
    turn = 0
    while waiting := [one for one in servers if not searches[one.name].done]:
        for server in waiting:
            search, turn = searches[server.name], turn + 1
            seconds = max(order.seconds, _LEAST_REQUESTS / search.rate)
            connections = connections_for(search.rate)
            tried = replace(order, rate=search.rate, seconds=seconds, connections=connections, seed=turn)
            step = server.load(tried)
            show(server, step)
            if not holds(step):
                time.sleep(_DRAIN_S)  # what was sent is still being worked on
                step = server.load(replace(tried, seed=turn + 1_000))
                show(server, step)
                time.sleep(0 if holds(step) else _DRAIN_S)
            search.tell(holds(step))
    return {name: search.held for name, search in searches.items()}
