"""What a bundle's service costs beside an empty endpoint, and how much it carries beside the obvious service.

    python -m benchmarks.serving --task recommendation|retention|fraud --store sqlite|redis
        [--items 10000] [--length 50] [--only cpu ...] [--profile]

A shop of 1,500 users with full histories, the real declarations, and a run whose weights are drawn by chance: speed
does not depend on them. Recommendation has the transformer of d = 64 and two blocks, the other tasks the model of the
preset `small`. The bundle is built and served by the commands that a user has; load comes from a process of its own
(benchmarks/serving_load.py) on the same cores. All servers of a run stand side by side and are loaded in turns. The
last line is one JSON object; a figure that was not asked for, or that the service does not have, is null.

added_cpu_ms           processor time of a request beyond that of the empty endpoint, at --rate a second
capacity_per_s         highest rate of arrivals with p99 under 50 ms and no failure; empty_, naive_: of the others
share_of_empty_endpoint, speedup_over_naive   ratios of these
p99_ms_half_load       at half the capacity
users_per_s_batch32    requests for 32 users each, as many as it takes (recommendation alone)
p99_ms_million_items   at --rate a second (4 by default), with a million items or more
ready_s                from `bentoml serve` to the first 200 of /readyz, loops compiled before; median of 3
environment_mb         what the bundle's requirements install
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.serving_bench import Bench, answer_of, bundle, empty, naive, prepared, say
from benchmarks.serving_capacity import capacities
from benchmarks.serving_load import Order
from benchmarks.serving_servers import Server, Step
from benchmarks.serving_shop import PATHS, many_users, requests
from benchmarks.serving_world import Size

MEASUREMENTS = ("cpu", "capacity", "batch", "ready", "environment")
FIGURES = (
    "added_cpu_ms",
    "share_of_empty_endpoint",
    "p99_ms_half_load",
    "users_per_s_batch32",
    "speedup_over_naive",
    "ready_s",
    "environment_mb",
    "capacity_per_s",
    "empty_capacity_per_s",
    "naive_capacity_per_s",
    "p99_ms_million_items",
)
_RATE, _RATE_OF_A_MILLION, _MILLION = 100.0, 4.0, 1_000_000
_ROUNDS = 4
_LEAST_REQUESTS = 100
"""Of a stretch of load: fewer have no 99th percentile."""
_STARTS = 3
_PROFILED = 2_000
_TOGETHER = 32


def measure(bench: Bench, only: Sequence[str]) -> dict[str, Any]:
    """The figures that were asked for."""
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(bundle(bench))
        nothing = stack.enter_context(empty(bench, answer_of(bench, ours)))
        if "cpu" in only:
            figures |= cpu(bench, ours, nothing)
        if "capacity" in only:
            figures |= capacity(bench, ours, nothing, stack.enter_context(naive(bench)))
        if "batch" in only and bench.size.task == "recommendation":
            figures |= batch(bench, ours)
    if "ready" in only:
        figures |= ready(bench)
    if "environment" in only:
        figures |= environment_size(bench)
    return figures


def cpu(bench: Bench, ours: Server, nothing: Server) -> dict[str, Any]:
    """CPU of a request at a fixed rate; of the rounds the one in the middle."""
    found = _in_turns(bench, [ours, nothing], bench.rate)
    middle = {name: statistics.median(step.cpu_ms for step in steps) for name, steps in found.items()}
    failed = any(step.failed for steps in found.values() for step in steps)
    figures = {
        # where a request failed, the rest paid less than they would have
        "added_cpu_ms": None if failed else round(middle["bundle"] - middle["empty"], 3),
        "cpu_ms": round(middle["bundle"], 3),
        "empty_cpu_ms": round(middle["empty"], 3),
        "client_cpu_ms": round(statistics.median(step.client_cpu_ms for step in found["bundle"]), 3),
    }
    if bench.size.items >= _MILLION:
        figures["p99_ms_million_items"] = _p99(found["bundle"])
    return figures


def capacity(bench: Bench, ours: Server, nothing: Server, obvious: Server) -> dict[str, Any]:
    """What each carries, and how soon the bundle answers at half of that."""
    probe = bench.order(min(bench.rate, 20.0), min(bench.seconds, 2.0))
    servers = [ours, nothing, obvious]
    for server in servers:
        server.load(probe)  # what the first requests load is not theirs to pay
    held = capacities(servers, bench.order(probe.rate, bench.seconds / 2), _show)
    figures: dict[str, Any] = {
        "capacity_per_s": round(held["bundle"], 1),
        "empty_capacity_per_s": round(held["empty"], 1),
        "naive_capacity_per_s": round(held["naive"], 1),
        "share_of_empty_endpoint": _ratio(held["bundle"], held["empty"]),
        "speedup_over_naive": _ratio(held["bundle"], held["naive"]),
    }
    if held["bundle"]:
        figures["p99_ms_half_load"] = _p99(_in_turns(bench, [ours], held["bundle"] / 2)["bundle"])
    return figures


def batch(bench: Bench, ours: Server) -> dict[str, Any]:
    """Users a second that are served 32 at a time, closed loop; nothing where the service takes one user alone."""
    lines = many_users(bench.size.users, 200, _TOGETHER)
    status, answer = ours.ask(bench.path, lines[0])
    if status != HTTPStatus.OK or len(json.loads(answer).get("answers", [])) != _TOGETHER:
        say(f"many users in one request: {status} {answer[:200]!r}")
        return {}
    connections = 2 * (os.cpu_count() or 1)
    order = Order(
        path=bench.path, bodies=bench.bodies("many", lines), rate=0, seconds=bench.seconds, connections=connections
    )
    step = ours.load(order)
    _show(ours, step)
    return {
        "users_per_s_batch32": None if step.failed else round(step.per_s * _TOGETHER),
        "batch32_cpu_ms_a_user": round(step.cpu_ms / _TOGETHER, 3),
    }


def ready(bench: Bench) -> dict[str, Any]:
    """Seconds until it takes requests."""
    took = []
    for _ in range(_STARTS):
        with bundle(bench) as server:
            took.append(server.ready_s)
            say(f"ready after {server.ready_s:.2f} s")
    return {"ready_s": round(statistics.median(took), 2)}


def environment_size(bench: Bench) -> dict[str, Any]:
    """Megabytes (10^6 bytes) of what the requirements install into an empty folder."""
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.TemporaryDirectory() as folder:
        needed = str(bench.bento / "env" / "python" / "requirements.txt")
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", sys.executable, "--target", folder, "-r", needed], check=True
        )
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"environment_mb": round(size / 1e6)}


def profile(bench: Bench) -> dict[str, Any]:
    """The bundle's own code in one process, without HTTP; see benchmarks/serving_profile.py."""
    bodies = bench.bodies("profiled", requests(bench.size.task, bench.size.users, _PROFILED))
    script = Path(__file__).with_name("serving_profile.py")
    command = [sys.executable, str(script), str(bench.bento), bench.size.task, bench.path, bodies]
    done = subprocess.run(command, cwd=bench.folder, env=bench.environ, check=True, stdout=subprocess.PIPE, text=True)
    *told, last = done.stdout.splitlines()
    print("\n".join(line for line in told if not line.startswith("{")))  # without the service's own log
    return dict(json.loads(last))


# ---- helpers


def _in_turns(bench: Bench, servers: Sequence[Server], rate: float) -> dict[str, list[Step]]:
    """Rounds of load at one rate, a stretch for each server in each; by name."""
    for server in servers:
        server.load(bench.order(rate, min(bench.seconds, 2.0)))  # what the first requests load is not theirs to pay
    found: dict[str, list[Step]] = {server.name: [] for server in servers}
    seconds = max(bench.seconds / 2, _LEAST_REQUESTS / rate)
    for turn in range(_ROUNDS):
        for server in servers:
            step = server.load(bench.order(rate, seconds, seed=turn + 1))
            _show(server, step)
            found[server.name].append(step)
    return found


def _p99(steps: Sequence[Step]) -> float | None:
    """The median of the rounds' p99; None where a request failed."""
    return None if any(step.failed for step in steps) else round(statistics.median(step.p99_ms for step in steps), 2)


def _ratio(one: float, other: float) -> float | None:
    return round(one / other, 3) if other else None


def _show(server: Server, step: Step) -> None:
    said = f" {step.said[:200]}" if step.said else ""
    say(
        f"{server.name:8}{step.rate:8.1f}/s: {step.requests:6} requests, {step.failed} failed, "
        f"p50 {step.p50_ms:6.2f} ms, p99 {step.p99_ms:7.2f} ms, CPU {step.cpu_ms:.3f} ms a request "
        f"(client {step.client_cpu_ms:.3f}){said}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(PATHS), required=True)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--items", type=int, default=10_000, help="items of the catalogue (default: %(default)s)")
    parser.add_argument("--length", type=int, default=50, help="events that the recommendation model reads")
    parser.add_argument("--users", type=int, default=Size.users, help="users of the shop (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="two stretches of load (default: %(default)s)")
    parser.add_argument("--rate", type=float, help=f"requests a second at which CPU is measured ({_RATE:g})")
    parser.add_argument("--home", type=Path, help="keep the world here and find it again")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="these alone (default: all but environment)")
    parser.add_argument("--environment", action="store_true", help="also install the requirements and weigh them")
    parser.add_argument("--profile", action="store_true", help="instead: where the time of a request goes")
    given = parser.parse_args()
    only = given.only or [one for one in MEASUREMENTS if one != "environment" or given.environment]
    size = Size(task=given.task, items=given.items, length=given.length, users=given.users)
    rate = given.rate or (_RATE if given.items < _MILLION else _RATE_OF_A_MILLION)
    home = given.home.resolve() if given.home else None
    figures: dict[str, Any] = {"task": given.task, "store": given.store, "items": given.items, "length": given.length}
    with prepared(size, given.store, home, given.seconds, rate) as bench:
        if given.profile:
            figures |= profile(bench)
        else:
            figures |= {**dict.fromkeys(FIGURES), **measure(bench, only)}
    print("\n".join(f"{name:28}{value!s:>14}" for name, value in figures.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
