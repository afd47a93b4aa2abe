"""Reads of now for parity: entities that are busy, entities that have been idle for long, and such as nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import pyarrow as pa

from clicktrail import read_log
from clicktrail.clock import read_time
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import SEPARATOR
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader
from validation.parity_counts import BUSY, IDLE, UNKNOWN

_AT_ONCE = 100
_END = 0.1
"""Busy and idle are the tenths of the entities whose newest event came last and first."""


def reads_of_now(
    log: EventLog, declaration: Declaration, reader: OnlineReader, *, clock: str, sample: int, seed: int
) -> Iterator[tuple[str, pa.Table]]:
    """(source, reads) of a view, read online by the shop's clock; `sample` entities of a kind at most."""
    for source, keys in chosen(log, declaration, sample, seed).items():
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            t = read_time(clock, reader.read(declaration.name, [], 0).watermark)
            yield source, read_log.rows_of(some, t, reader.read(declaration.name, some, t))


def chosen(log: EventLog, declaration: Declaration, sample: int, seed: int) -> dict[str, list[str | None]]:
    """Entities to read, by source; the same ones for the same log and seed."""
    keys = declaration.entity_keys
    types = ", ".join(f"'{name}'" for name in declaration.events)
    present = " and ".join(f"{key} is not null" for key in keys)
    found = log.query(
        f"select concat_ws('{SEPARATOR}', {', '.join(keys)}) as entity, max(known_at) as last from events "
        f"where event_type in ({types}) and {present} group by all order by last, entity"
    )["entity"].combine_chunks()
    rng = Random(seed)  # noqa: S311 - a sample, no secret
    tenth = max(int(len(found) * _END), min(sample, len(found)))
    out: dict[str, list[str | None]] = {UNKNOWN: ["nobody of this name", None]}
    for source, first in ((IDLE, 0), (BUSY, len(found) - tenth)):
        places = np.array(sorted(rng.sample(range(first, first + tenth), min(sample, tenth))), np.int64)
        out[source] = found.take(pa.array(places)).to_pylist()
    return out
