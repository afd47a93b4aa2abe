"""The three BentoML services, one a task. Which one a bundle serves is named in its Bento.

`bentoml serve clicktrail-fraud:latest` verifies the bundle and the state beside it before any worker
starts, and each worker verifies again what it has loaded: a bundle that was tampered with, or a state
of other declarations, ends the command with an error instead of answering.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException
from opentelemetry.trace import TracerProvider

from serving.asgi import Door
from serving.checks import opened, settings_of
from serving.logs import to_stdout
from serving.metrics import apart
from serving.predictor import Predictor
from serving.telling import Teller

ROOT = Path(__file__).resolve().parent.parent.parent
"""Folder of the Bento that this code lies in (`<bento>/src/serving/service.py`)."""

_HTTP = {"host": "127.0.0.1", "port": 3000}
"""No service here knows who asks, so it listens on this machine alone unless BENTOML_HOST says otherwise."""

_TRAFFIC = {"timeout": 10, "max_concurrency": 256}
"""Seconds until a client that sends its request too slowly gets a 504; requests in flight before others get a 429."""

_LOGGING = {"access": {"enabled": False}}
"""Our own lines say more and cost a third (serving/logs.py)."""


def _verified(task: str) -> Predictor:
    try:
        return opened(ROOT, task=task)
    except ValueError as error:  # RefusedError, or a setting of the environment that cannot be read
        # what `bentoml serve` shows as one line instead of a traceback
        raise BentoMLException(str(error)) from error


def _answers_first() -> None:
    """Have requests wait less for what else goes on in the process.

    Garbage collections cost a tenth of a request: what is there for good is left out of them, and they are seldom. A
    request that lets go of the interpreter, as each does to read and to run the model, waits for the thread that took
    it up to the switch interval, several times: 5 ms by default.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    sys.setswitchinterval(0.000_5)


def _tracer_provider() -> TracerProvider:
    from bentoml._internal.configuration.containers import BentoMLContainer  # only a worker has one

    return BentoMLContainer.tracer_provider.get()


def _service(task: str) -> Any:  # noqa: ANN401 - bentoml is untyped
    door = Door(task)

    class Service:
        """Answers requests of one task from the online state and an ONNX model."""

        def __init__(self) -> None:
            self._predictor = _verified(task)
            chosen = settings_of(self._predictor.model.manifest)
            to_stdout(chosen.log_level)
            self._teller = Teller(self._predictor.model, chosen, _tracer_provider())
            _answers_first()
            door.open(self._predictor.decide, self._teller)

        async def __is_ready__(self) -> bool:
            # on the event loop, where the connection to the state is used
            ready = self._predictor.ready()
            if ready:
                self._teller.stands(self._predictor.state.moment().offset)
            return ready

        @bentoml.on_shutdown
        def tell_the_rest(self) -> None:
            """Write the decisions that are in memory."""
            self._teller.close()

        @bentoml.on_deployment
        def verify() -> None:
            """Run by the command itself before workers start, so that it ends with an error."""
            _verified(task)

    decorated = bentoml.asgi_app(door.app, path="/")(Service)
    service = bentoml.service(name=f"clicktrail-{task}", http=_HTTP, traffic=_TRAFFIC, logging=_LOGGING)(decorated)
    service.add_asgi_middleware(apart)
    return service


recommendation = _service("recommendation")
retention = _service("retention")
fraud = _service("fraud")
