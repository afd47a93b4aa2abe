"""Some entities of a view, and a log of their own that holds all that their state is made of.

The sample is stable: entities are taken in the order of a digest of their id, so the same ones until their number
outgrows what is asked for, and as fair as chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from clicktrail.contract import LABEL, arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import SEPARATOR
from clicktrail.event_log import EventLog

ROWS = 300_000
"""A sample of entities has at most about as many events: one of a few busy terminals would be the whole log."""

_SEED = "clicktrail"


def sample(log: EventLog, declaration: Declaration, number: int) -> list[str]:
    """Ids of up to `number` entities that the log has events of for this view, fewer where they are very busy."""
    entity = f" || '{SEPARATOR}' || ".join(declaration.entity_keys)
    with duckdb.connect() as con:
        log.attach(con)
        found = con.execute(
            f"with entities as (select {entity} as entity, count(*) as events from events "
            f"where {_touches(declaration)} group by all), "
            f"counted as (select entity, sum(events) over (order by md5(entity || '{_SEED}'), entity) - events "
            "as before from entities) "
            f"select entity from counted where before < {ROWS} order by before limit {int(number)}"
        ).fetchall()
    return [entity for (entity,) in found]


def touched(log: EventLog, declaration: Declaration, *, start: int = 0, stop: int | None = None) -> int:
    """How many rows of the log start..stop change the state of this view."""
    with duckdb.connect() as con:
        log.attach(con, stop=stop)
        rows = con.execute(
            f'select count(*) from events where "offset" >= {int(start)} and ({_touches(declaration)}'
            + (f" or event_type = '{LABEL}')" if _labels(declaration) else ")")
        ).fetchall()
    return int(rows[0][0])


@contextmanager
def log_of(
    log: EventLog, samples: Mapping[Declaration, Sequence[str]], *, catalogue: Path | None = None
) -> Iterator[EventLog]:
    """A log of the events of these entities alone, in the order of the whole one, with the labels that speak of them.

    `catalogue` is the folder of the catalogue that is to lie beside it.
    """
    with duckdb.connect() as con:
        log.attach(con)
        kept = []
        for place, (declaration, entities) in enumerate(samples.items()):
            keys = {
                key: pa.array([entity.split(SEPARATOR)[at] for entity in entities], pa.string())
                for at, key in enumerate(declaration.entity_keys)
            }
            con.register(f"sample_{place}", pa.table(keys))
            theirs = ", ".join(declaration.entity_keys)
            kept.append(f"({_touches(declaration)} and ({theirs}) in (select ({theirs}) from sample_{place}))")
        con.execute(f"create temp table mine as select * from events where {' or '.join(kept) or 'false'}")
        if any(_labels(declaration) for declaration in samples):
            con.execute(
                f"insert into mine select * from events where event_type = '{LABEL}' "
                "and label_of in (select event_id from mine)"
            )
        names = ", ".join(f'"{name}"' for name in arrow_schema().names)
        table = con.sql(f'select {names} from mine order by "offset"').to_arrow_table()
    with copy_of(table, catalogue=catalogue) as aside:
        yield aside


@contextmanager
def copy_of(table: pa.Table, *, catalogue: Path | None = None) -> Iterator[EventLog]:
    """A log of its own of these rows (contract columns), for as long as the block lasts."""
    with TemporaryDirectory() as folder:
        aside = EventLog(Path(folder) / "log")
        aside.append(table.select(arrow_schema().names).cast(arrow_schema()))
        if catalogue is not None and catalogue.is_dir():
            (Path(folder) / "catalogue").symlink_to(catalogue)
        yield aside


def _touches(declaration: Declaration) -> str:
    """SQL: the event is one of the view's, about some entity of it."""
    types = ", ".join(f"'{event}'" for event in declaration.events)
    there = " and ".join(f"{key} is not null" for key in declaration.entity_keys)
    return f"event_type in ({types}) and {there}"


def _labels(declaration: Declaration) -> bool:
    return any(one.label for one in declaration.aggregates)
