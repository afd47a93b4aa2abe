"""Serves a task through champion, canary and shadow, and changes which bundle is what.

python -m serving.rollout --task fraud --port 3000       the front; it starts the bundles and follows the rest:
python -m serving.rollout --task fraud --promote TAG     a bundle becomes the champion once it is ready
python -m serving.rollout --task fraud --canary TAG --share 5    ... answers for 5 % of users (--canary off)
python -m serving.rollout --task fraud --shadow TAG      ... gets copies of what the champion answers (--shadow off)
python -m serving.rollout --task fraud --rollback        the champion before is the champion again
python -m serving.rollout --task fraud --guard error_rate=0.01   when a canary is taken out
python -m serving.rollout --task fraud --status          what is, and what happened

TAG is a tag of BentoML's store, its version alone, or `latest`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clicktrail import settings
from serving.manifest import TASKS
from serving.rollout import state
from serving.rollout.state import Canary, Limits, Rollout, Step

_OFF = "off"
_WAIT_S = 240.0
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, or change what is served; returns the exit status."""
    given = _arguments(arguments)
    try:
        file = state.file_of(settings.load().home, given.task)
        if given.status:
            return _status(file, given.port)
        step = _step(given)
        if step is None:
            return _serve(given, file)
        return _follow(file, state.change(file, step), given.port)
    except FileNotFoundError:
        _err(f"{given.task} has no rollout yet: begin one with python -m serving.rollout --task {given.task}")
    except ValueError as error:
        _err(str(error))
    return 1


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.rollout", description="champion, canary and shadow of a task behind one port"
    )
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--host", default="127.0.0.1", help="address that the front listens on")
    parser.add_argument("--port", type=int, default=3000, help="where the front listens, or is to be asked")
    parser.add_argument(
        "--keep-warm", type=float, default=600.0, metavar="S", help="how long the champion before keeps running"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--promote", metavar="TAG", help="make a bundle the champion")
    what.add_argument("--canary", metavar="TAG", help="let a bundle answer for --share of users; off ends it")
    what.add_argument("--shadow", metavar="TAG", help="send a bundle copies of requests; off ends it")
    what.add_argument("--rollback", action="store_true", help="go back to the champion before")
    what.add_argument("--guard", nargs="+", metavar="LIMIT=VALUE", help=", ".join(one.name for one in fields(Limits)))
    what.add_argument("--status", action="store_true", help="say who answers and what happened")
    parser.add_argument("--share", type=float, help="per cent of users of the canary")
    given = parser.parse_args(arguments)
    needs_share = given.canary is not None and given.canary != _OFF
    if needs_share != (given.share is not None):
        parser.error("--canary TAG and --share PER_CENT go together")
    return given


def _step(given: argparse.Namespace) -> Step | None:
    """The change that was asked for; None where none was.

    Raises:
        ValueError: there is no such bundle, share or limit.
    """
    now = _now()
    if given.promote:
        tag = _tag(given.task, given.promote)
        return lambda rollout: state.promoted(rollout, tag, now)
    if given.canary:
        canary = None if given.canary == _OFF else Canary(tag=_tag(given.task, given.canary), share=given.share)
        return lambda rollout: state.with_canary(rollout, canary, now)
    if given.shadow:
        shadow = None if given.shadow == _OFF else _tag(given.task, given.shadow)
        return lambda rollout: state.with_shadow(rollout, shadow, now)
    if given.guard:
        limits = _limits(given.guard)
        return lambda rollout: state.with_limits(rollout, replace(rollout.limits, **limits), now)
    if given.rollback:
        return lambda rollout: state.rolled_back(rollout, now)
    return None


def _tag(task: str, given: str) -> str:
    """The whole tag of a bundle in BentoML's store."""
    import bentoml

    name = f"clicktrail-{task}"
    tag = given if ":" in given else f"{name}:{given}"
    try:
        found = str(bentoml.bentos.get(tag).tag)
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        message = f"{tag} is no bundle in BentoML's store ({error}); bentoml list shows what is"
        raise ValueError(message) from error
    if not found.startswith(f"{name}:"):
        message = f"{found} is no bundle of {task}"
        raise ValueError(message)
    return found


def _limits(given: list[str]) -> dict[str, Any]:
    kinds = {name: type(value) for name, value in asdict(Limits()).items()}
    limits: dict[str, Any] = {}
    for one in given:
        name, _, value = one.partition("=")
        try:
            limits[name] = kinds[name](value)
        except (KeyError, ValueError) as error:
            message = f"{one} is no limit: give LIMIT=VALUE, of {', '.join(kinds)}"
            raise ValueError(message) from error
    return limits


# ---- the front


def _serve(given: argparse.Namespace, file: Path) -> int:
    import uvicorn

    from serving.rollout.front import Front

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if not file.exists():
        state.begin(file, state.begun(given.task, _tag(given.task, "latest"), _now()))
    state.read(file)

    def stop() -> None:
        server.should_exit = True

    front = Front(given.task, file, keep_warm_s=given.keep_warm, stop=stop)
    server = uvicorn.Server(
        uvicorn.Config(
            front,
            host=given.host,
            port=given.port,
            access_log=False,  # a line a request costs as much as the request
            server_header=False,
            proxy_headers=False,  # who asked is nothing to the front
            timeout_keep_alive=75,
            timeout_graceful_shutdown=30,
            log_config=None,
        )
    )
    server.run()
    if front.fatal is not None:
        _err(f"{front.fatal}\nThe state is in {file}; --rollback and --promote change its champion")
    return 0 if server.started and front.fatal is None else 1


# ---- what is told


def _status(file: Path, port: int) -> int:
    rollout = state.read(file)
    front = _asked(port, rollout.task)
    print(*_roles(rollout, front), sep="\n")
    if front is None:
        print(f"no front of {rollout.task} answers on port {port}")
    for entry in rollout.history[-_SHOWN:]:
        print(f"  {entry.at}  {entry.what} {entry.tag}{f': {entry.why}' if entry.why else ''}")
    return 0


def _follow(file: Path, after: Rollout, port: int) -> int:
    """Wait until a front that is running has done what was asked, or has found that it can't be."""
    if _asked(port, after.task) is None:
        print(f"written to {file}; no front of {after.task} answers on port {port}, the next one begins with this")
        return 0
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        front = _asked(port, after.task)
        if front and front["settled"] and front["revision"] >= after.revision:
            now = state.read(file)
            print(*_roles(now, front), sep="\n")
            since = now.history[len(now.history) - (now.revision - after.revision) :]  # an entry for every revision
            undone = [entry for entry in since if entry.what in state.UNDONE and entry.why]
            for entry in undone:
                _err(f"{entry.tag} {entry.what}: {entry.why}")
            return 1 if undone else 0
        time.sleep(0.1)
    _err(f"written to {file}, but the front on port {port} has not followed within {_WAIT_S:g} s; see its log")
    return 1


def _roles(rollout: Rollout, front: dict[str, Any] | None) -> list[str]:
    lines = []
    for role, tag in rollout.roles.items():
        share = f", {rollout.canary.share:g} % of users" if role == "canary" and rollout.canary else ""
        lines.append(f"{role:9} {tag}{share}{_does(front, role, tag)}")
    if rollout.previous:
        lines.append(f"{'before':9} {rollout.previous[-1]}")
    return lines


def _does(front: dict[str, Any] | None, role: str, tag: str) -> str:
    if front is None:
        return ""
    there = front.get(role)
    if there is None or there["tag"] != tag:
        return "  (starting)"
    return "  (answering)" if there["up"] else "  (down)"


def _asked(port: int, task: str) -> dict[str, Any] | None:
    """What the front of a task says on this machine's port; None where there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/rollout", timeout=5) as answer:
            front = json.load(answer)
    except (OSError, ValueError):
        return None
    return front if isinstance(front, dict) and front.get("task") == task else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _err(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
