"""Where a bundle's time goes: its own code in this process, requests through its door without HTTP.

    python -m benchmarks.serving --task fraud --profile

Run by that command as a script of its own, so that the bundle's modules are found before the checkout's. Stages are
inclusive: what a stage calls is in it.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import json
import pstats
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

_WARM = 200
_STAGES = {
    "read the request": "serving.asgi:parse",
    "decide": "serving.predictor:Predictor.decide",
    "moment": "serving.features:LiveState.moment",
    "read the state": "serving.features:LiveState.read",
    "- fetch and finish": "clicktrail.state_reader:OnlineReader.read_many",
    "model": "serving.model:Model.run_rows",
    "- encode": "clicktrail.encoding:Encoding.encode",
    "- ONNX": "onnxruntime.capi.onnxruntime_inference_collection:Session.run",
    "JSON of the answer": "json:dumps",
    "tell": "serving.telling:Teller.answered",
}


class Stages:
    """CPU time spent in functions that are there under these names; others are left out."""

    def __init__(self, names: dict[str, str]) -> None:
        """Puts a clock around each."""
        self.spent: dict[str, float] = {}
        for stage, place in names.items():
            module, _, path = place.partition(":")
            *owners, name = path.split(".")
            try:
                owner: Any = importlib.import_module(module)
                for one in owners:
                    owner = getattr(owner, one)
                setattr(owner, name, self._timed(stage, getattr(owner, name)))
            except (ImportError, AttributeError):
                continue
            self.spent[stage] = 0.0

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it takes
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.spent[stage] += time.thread_time() - began

        return timed


async def ask(app: Any, path: str, body: bytes) -> int:  # noqa: ANN401 - an ASGI application
    """One request to an ASGI application; its status."""
    statuses = []
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 40_000),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


async def run(app: Any, path: str, bodies: list[bytes]) -> float:  # noqa: ANN401
    """Ask everything, one after the other; milliseconds of CPU a request.

    Raises:
        RuntimeError: an answer was no 200.
    """
    began = time.process_time()
    for body in bodies:
        status = await ask(app, path, body)
        if status != HTTPStatus.OK:
            message = f"{status} to {body!r}"
            raise RuntimeError(message)
    return (time.process_time() - began) * 1000 / len(bodies)


def main() -> None:
    """`serving_profile.py BENTO TASK PATH BODIES`."""
    bento, task, path, bodies_at = sys.argv[1:]
    sys.path[0] = str(Path(bento) / "src")
    stages = Stages(_STAGES)
    service: Any = getattr(importlib.import_module("serving.service"), task)
    kept = service.inner()  # verifies, and opens the door
    app = service.mount_apps[0][0]
    bodies = Path(bodies_at).read_bytes().splitlines()

    async def measure() -> tuple[float, dict[str, float], cProfile.Profile]:
        await run(app, path, bodies[:_WARM])
        stages.spent.update(dict.fromkeys(stages.spent, 0.0))
        cpu_ms = await run(app, path, bodies)
        spent = {name: seconds * 1000 / len(bodies) for name, seconds in stages.spent.items()}
        profile = cProfile.Profile()
        profile.enable()
        await run(app, path, bodies)
        profile.disable()
        return cpu_ms, spent, profile

    cpu_ms, spent, profile = asyncio.run(measure())
    del kept
    statistics = pstats.Stats(profile)
    statistics.sort_stats("tottime").print_stats(35)
    statistics.sort_stats("cumulative").print_stats(45)
    print(f"{'CPU of a request, ms':28}{cpu_ms:8.3f}")
    print("\n".join(f"{name:28}{ms:8.3f}" for name, ms in spent.items()))
    figures = {"task": task, "requests": len(bodies), "cpu_ms": round(cpu_ms, 4)}
    print(json.dumps(figures | {"stages": {name: round(ms, 4) for name, ms in spent.items()}}))


if __name__ == "__main__":
    main()
