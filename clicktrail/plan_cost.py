"""What a view costs and gives, measured: its states are really built, for a sample of entities and the log's end.

Times are those of the processor: what else runs on the machine meanwhile does not change them much.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clicktrail import sampling
from clicktrail.advance import STRETCH
from clicktrail.declarations import Declaration
from clicktrail.distributions import Distribution, distribution
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.settings import Settings
from clicktrail.state_views import views_of

ENTITIES = 100
RECENT = 100_000
"""Rows at the end of the log on which updates are measured: fewer, and states would not grow enough to be folded."""

_WARM, _FEW = 2_000, 100
"""The first rows are not measured, since a store is made meanwhile; a few more tell what a step costs anyhow."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a view costs.

    `state_bytes_mean`, `state_bytes_p99`: of the entities of the sample. `read_ms`: one entity, mean. `update_us`: one
    event; None where none of the last rows touches the view. `rows`: of the log touch it; what applying them should
    take, and what a step does anyhow, are the predicted `backfill_seconds`.
    """

    entities: int
    state_bytes_mean: float
    state_bytes_p99: float
    read_ms: float
    update_us: float | None
    rows: int
    backfill_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A view on a sample: how its values lie by feature, and what it costs."""

    values: dict[str, Distribution]
    cost: Cost


def measure(
    settings: Settings, declarations: Sequence[Declaration], *, entities: int = ENTITIES, t: int
) -> dict[Declaration, Measured]:
    """Values of sampled entities at `t` (microseconds UTC), and the costs, of each view on its own.

    Args:
        settings: of the shop; its log and catalogue are read, nothing is written.
        declarations: the views.
        entities: how many of each are looked at.
        t: when they are read.
    """
    log = EventLog(settings.log)
    samples = {one: sampling.sample(log, one, entities) for one in declarations}
    steps = -(-log.version // STRETCH)
    recent = log.read(start=max(log.version - RECENT, 0))
    out = {}
    with (
        sampling.log_of(log, samples, catalogue=settings.catalogue) as theirs,
        sampling.copy_of(recent, catalogue=settings.catalogue) as tail,
    ):
        for one, sampled in samples.items():
            values, sizes, read_ms = _read(theirs, one, sampled, t, settings.item_history)
            rows = sampling.touched(log, one)
            update_us, step_s = _update(tail, one)
            cost = Cost(
                entities=len(sampled),
                state_bytes_mean=float(np.mean(sizes)) if sizes else 0.0,
                state_bytes_p99=float(np.quantile(sizes, 0.99)) if sizes else 0.0,
                read_ms=read_ms,
                update_us=update_us,
                rows=rows,
                backfill_seconds=None if update_us is None else rows * update_us / 1e6 + steps * step_s,
            )
            out[one] = Measured(values=values, cost=cost)
    return out


def _read(
    log: EventLog, declaration: Declaration, entities: Sequence[str], t: int, catalogue: Path
) -> tuple[dict[str, Distribution], list[int], float]:
    """Values, bytes of each state, and milliseconds of a read."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "online.db"
        state = OnlineState(path)
        state.catch_up(log, declaration)
        generation = views_of(state.store)[declaration.name].live
        sizes = state.store.sizes(generation, entities)
        reader = OnlineReader(path, [declaration], catalogue=catalogue)
        reader.warm()
        columns = reader.read(declaration.name, entities, t).columns
        began = time.process_time()
        for entity in entities:
            reader.read(declaration.name, [entity], t)
        spent = time.process_time() - began
    values = {name: distribution(declaration, name, column) for name, column in columns.items()}
    return values, sizes, spent * 1e3 / max(len(entities), 1)


def _update(tail: EventLog, declaration: Declaration) -> tuple[float | None, float]:
    """Microseconds an event, of the rows of `tail` that touch the view (None: none does); seconds of an idle step."""
    warm = min(_WARM, tail.version // 2)
    few = min(warm + _FEW, tail.version)
    touched = sampling.touched(tail, declaration, start=few)
    for _ in range(2):  # the second time counts: the first one compiles or loads the kernels, also those of folding
        with TemporaryDirectory() as folder:
            state = OnlineState(Path(folder) / "online.db")
            spent = []
            for stop in (warm, few, tail.version):
                began = time.process_time()
                state.catch_up(tail, declaration, stop=stop)
                spent.append(time.process_time() - began)
    return (max(spent[2] - spent[1], 0.0) * 1e6 / touched if touched else None), spent[1]
