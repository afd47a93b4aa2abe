"""A skew receipt: are online reads of these views equal to offline ones now, feature by feature? As JSON data.

    python -m validation.receipt < REQUEST     (python -m serving.build runs it for the views that a bundle reads)

REQUEST is `{"declarations": [...], "sample": 200, "seed": 0}`. The shop and its clock are those of the environment.
Read are entities that are busy, that have been idle for long, and that nobody knows, `sample` of a kind at most; the
same ones for the same log, seed and state, so that the receipt is the same too where the clock stands (`log`). It names
no entity. Unlike `make parity` it leaves the shop's history alone and needs no registry, unless a read differs: then
the view's budget is looked up there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.clock import moment
from clicktrail.declarations import Declaration, from_json
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader
from clicktrail.settings import Settings, load
from validation.parity import registered
from validation.parity_counts import ViewParity, measure
from validation.parity_reads import reads_of_now

Budgets = Callable[[], Mapping[str, float]]


def receipt(
    settings: Settings, declarations: Sequence[Declaration], *, sample: int, seed: int, budgets: Budgets
) -> dict[str, Any]:
    """Read the views online and offline and count.

    Args:
        settings: the shop.
        declarations: the views.
        sample: entities of a kind to read, of each view.
        seed: which ones.
        budgets: gives the share of reads that may differ by view; asked where some do.

    Raises:
        ValueError: there is no online state of a view, or it follows another log than the shop's.
    """
    log = EventLog(settings.log)
    reader = OnlineReader(settings.online_state, declarations, catalogue=settings.item_history)
    latest: dict[str, int] = {}

    def pieces() -> Iterator[tuple[Declaration, str, pa.Table]]:
        for one in declarations:
            for source, table in reads_of_now(log, one, reader, clock=settings.clock, sample=sample, seed=seed):
                latest[one.name] = max(latest.get(one.name, 0), pc.max(table["answered"]).as_py())
                yield one, source, table

    found = measure(log, pieces())
    allowed = budgets() if any(view.differing for view in found.values()) else {}
    offsets = {one.name: reader.read(one.name, [], 0).offset for one in declarations}
    for name, view in found.items():
        if view.unreplayable:
            message = (
                f"the online state of {name} is at offset {offsets[name]}, the log of shop {settings.shop} ends at "
                f"{log.version}: it follows another log; make materialize builds it anew"
            )
            raise ValueError(message)
    return {
        "clock": settings.clock,
        "log_version": log.version,
        "views": {
            one.name: {
                "fingerprint": one.fingerprint,
                "offset": offsets[one.name],
                "read_at": moment(latest[one.name]).isoformat(),
                **_counts(found[one.name], allowed.get(one.name, 0.0)),
            }
            for one in declarations
        },
    }


def _counts(view: ViewParity, budget: float) -> dict[str, Any]:
    return {
        "reads": view.reads,
        "differing": view.differing,
        "lagging": view.lagging,
        "budget": budget if view.differing else None,  # not looked up where nothing differs
        "over_budget": view.over(budget),
        "entities": {source: reads for source, (reads, _) in sorted(view.sources.items())},
        "features": {
            name: {
                "reads": one.reads,
                "equal": one.reads - one.differing,
                "missing": one.missing,
                "extra": one.extra,
            }
            for name, one in sorted(view.features.items())
        },
    }


def main() -> int:
    """Command line: a request on standard input, the receipt on standard output."""
    settings, request = load(), json.load(sys.stdin)
    declarations = [from_json(one) for one in request["declarations"]]

    def budgets() -> dict[str, float]:
        return {one.declaration.name: one.budget for one in registered(settings)}

    try:
        found = receipt(settings, declarations, sample=request["sample"], seed=request["seed"], budgets=budgets)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
