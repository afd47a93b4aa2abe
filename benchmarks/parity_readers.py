"""Who reads in the parity benchmark; everything that was answered goes to the read log."""

from __future__ import annotations

import time
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import redis

from benchmarks.parity_world import RARE, SECOND, VIEWS, keys
from clicktrail.online_state import OnlineReader, StateMissingError, StateWentBackError
from clicktrail.read_log import Recorder
from clicktrail.settings import Settings

ALL = (*VIEWS, *RARE)
REFUSED = (StateMissingError, StateWentBackError, redis.RedisError)
"""What a reader is told where an answer would be wrong."""

_AT_ONCE = 100
_HOUR = 3600 * SECOND
_AHEAD = (0, 1, SECOND, _HOUR, 24 * _HOUR, 7 * 24 * _HOUR, -_HOUR)


def read_on(settings: Settings, reads: int, seed: int, enough: Event, refusals: Any) -> None:  # noqa: ANN401 - a queue
    """Read random entities of some views at random times; puts how often it was refused into `refusals`.

    At full speed until `reads` rows are answered, then now and then until it is enough.
    """
    rng = np.random.default_rng(seed)
    recorder = Recorder(settings.read_log, 1.0, limit_bytes=2**40, rows=20_000)
    reader: OnlineReader | None = None
    done = refused = batches = watermark = 0
    while done < reads or not enough.is_set():
        batches += 1
        if done >= reads:
            time.sleep(0.2)
        views = [VIEWS[one] for one in rng.choice(len(VIEWS), 3, replace=False)]
        views += RARE if batches % 100 == 0 else ()
        try:
            if reader is None:
                reader = OnlineReader(settings.online_state, ALL, recorder=recorder)
                watermark = int(str(reader.meta()["watermark"]))
            t = watermark + int(rng.choice(_AHEAD)) + int(rng.integers(0, _HOUR))
            found = reader.read_many([(view.name, keys(view, rng, _AT_ONCE)) for view in views], t)
        except REFUSED:
            refused += 1
            reader = None
            time.sleep(0.05)
            continue
        watermark = max(result.watermark for result in found.values())
        done += _AT_ONCE * len(views)
    recorder.flush()
    refusals.put(refused)


def read_all_views(settings: Settings, seed: int) -> None:
    """Read entities of every view once more, now that all has come to rest."""
    rng = np.random.default_rng(seed)
    recorder = Recorder(settings.read_log, 1.0, limit_bytes=2**40)
    reader = OnlineReader(settings.online_state, ALL, recorder=recorder)
    for view in ALL:
        for _ in range(10 if view in RARE else 30):
            t = int(str(reader.meta()["watermark"])) + int(rng.choice(_AHEAD))
            reader.read(view.name, keys(view, rng, _AT_ONCE), t)
    recorder.flush()
