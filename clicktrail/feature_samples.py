"""How features lie in a sample of a shop's log: entities at its end, requests at the times they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa

from clicktrail import sampling
from clicktrail.contract import EVENT_COLUMNS
from clicktrail.declarations import Declaration
from clicktrail.distributions import Distribution, distribution, distribution_of
from clicktrail.engine import values
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.request_declarations import RequestView
from clicktrail.request_features import apply
from clicktrail.settings import Settings

_COLUMNS = {one.name for one in EVENT_COLUMNS}


def stored_distributions(
    settings: Settings, declarations: Sequence[Declaration], number: int
) -> dict[str, dict[str, Distribution]]:
    """By view and feature, of up to `number` entities each, read just after the end of the log."""
    log = EventLog(settings.log)
    t = log.end_time() + 1
    samples = {one: sampling.sample(log, one, number) for one in declarations}
    out = {}
    with sampling.log_of(log, samples, catalogue=settings.catalogue) as theirs:
        for key, group in groupby(sorted(declarations, key=_key), key=_key):
            views = list(group)
            history, entities = load_history(theirs, key, views)
            for view in views:
                codes = entity_codes(pa.array(samples[view], pa.string()), entities)
                columns = values(view, history, codes, np.full(len(codes), t))
                out[view.name] = {name: distribution(view, name, column) for name, column in columns.items()}
    return out


def request_distributions(
    settings: Settings, views: Sequence[RequestView], stored: Mapping[str, Declaration], number: int
) -> dict[str, dict[str, Distribution]]:
    """The same of up to `number` requests each: the newest events that have what a request carries.

    A view whose requests carry something that no event has is left out.
    """
    log = EventLog(settings.log)
    out = {}
    for view in views:
        inputs = [stored[name].only(known) for name, known in view.inputs if name in stored]
        if not set(view.request) <= _COLUMNS or len(inputs) < len(view.inputs):
            continue
        keys = sorted({key for one in inputs for key in one.entity_keys})
        there = " and ".join(f"{name} is not null" for name in [*view.request, *keys])
        read = ", ".join(dict.fromkeys([*view.request, *keys]))
        requests = log.query(
            f"select {read}{', ' if read else ''}epoch_us(greatest(event_timestamp, ingested_at)) as t from events "
            f'where {there or "true"} order by "offset" desc limit {int(number)}'
        )
        t = requests["t"].to_numpy()
        columns = {name: requests[name] for name in view.request}
        samples = {one: _ids(requests, one).unique().to_pylist() for one in inputs}
        with sampling.log_of(log, samples, catalogue=settings.catalogue) as theirs:
            for one in inputs:
                history, entities = load_history(theirs, one.entity_key, [one])
                found = values(one, history, entity_codes(_ids(requests, one), entities), t)
                columns |= {f"{one.name}__{name}": column for name, column in found.items()}
        made = apply(view.features, columns, t)
        out[view.name] = {name: distribution_of(column) for name, column in made.items()}
    return out


def _key(declaration: Declaration) -> str:
    return declaration.entity_key


def _ids(requests: pa.Table, declaration: Declaration) -> pa.ChunkedArray:
    ids = entity_ids(requests, declaration.entity_keys)
    return ids.cast(pa.string())
