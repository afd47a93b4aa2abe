"""The demo shop's front: daily event files, catalogue and users in one folder, the truth behind them in another.

    python -m ingestion.demo_shop --out DIR --truth DIR [--events 1000000] [--days 90] [--seed 0] [--set name=value ...]

`DIR/events/YYYY-MM-DD.parquet` (day of arrival), `DIR/items.parquet`, `DIR/users.parquet`, `DIR/manifest.json` (what
was planted). Truth: `recommendation.parquet`, `retention.parquet`, `fraud.parquet`, `manifest.json`. A
finished folder with the same parameters is left alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from clicktrail.contract import ITEM_COLUMNS, USER_COLUMNS, arrow_schema
from clicktrail.publish import publish_folder
from ingestion.shop.assembly import CODE
from ingestion.shop.collector import Collected, Names, arrivals, collect, event_table, make_names
from ingestion.shop.oracle_fraud import fraud_truth
from ingestion.shop.oracle_recommendation import gather, ranks
from ingestion.shop.oracle_retention import retention_truth
from ingestion.shop.oracle_visits import see_visits
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters, with_settings
from ingestion.shop.scripts import HONEST
from ingestion.shop.simulate import Shop, simulate

MANIFEST = "manifest.json"

TRUTH_FROM = 0.4
"""The oracles cover examples from this share of the days on: what lies before is for training."""

_TIME = pa.timestamp("us", tz="UTC")

_log = logging.getLogger(__name__)


def make_shop(parameters: ShopParameters, out: Path, truth: Path) -> bool:
    """Leave the shop's files in `out` and the truth in `truth`; False when both were there already.

    Raises:
        ValueError: a folder holds something else than this shop.
    """
    wanted = {folder: not _finished(folder, parameters) for folder in (truth, out)}
    if not any(wanted.values()):
        return False
    for folder in wanted:
        folder.parent.mkdir(parents=True, exist_ok=True)
    shop = simulate(parameters)
    names = make_names(parameters, shop.events, len(shop.users))
    ingested, late = arrivals(parameters, shop.events)
    table = event_table(shop.events, names, ingested)
    if wanted[truth]:
        _publish(truth, lambda aside: write_truth(aside, shop, names, table, ingested, late), "shop_truth")
    if wanted[out]:
        collected = collect(parameters, table, ingested)
        _publish(out, lambda aside: write_files(aside, shop, names, collected, late), "shop")
    return True


def write_files(folder: Path, shop: Shop, names: Names, collected: Collected, late: np.ndarray) -> None:
    """Write what a collector leaves into an empty folder."""
    parameters = shop.parameters
    (folder / "events").mkdir()
    bounds = np.searchsorted(collected.file_day, np.arange(parameters.days + 1))
    first = datetime.fromtimestamp(parameters.start_us / MICROSECONDS, UTC)
    for day in tqdm(range(parameters.days), desc="shop: files", leave=False, disable=None):
        part = collected.table.slice(bounds[day], bounds[day + 1] - bounds[day])
        name = f"{first + timedelta(days=day):%Y-%m-%d}.parquet"
        pq.write_table(part, folder / "events" / name, compression="zstd")
    pq.write_table(items_table(shop, names), folder / "items.parquet", compression="zstd")
    pq.write_table(users_table(shop, names), folder / "users.parquet", compression="zstd")
    clean = collected.clean[collected.clean >= 0]
    paid = shop.events.type[clean] == CODE["payment"]
    manifest = {
        "digest": parameters.digest,
        "parameters": dataclasses.asdict(parameters),
        "rows": len(collected.clean),
        "clean_rows": len(clean),
        "late_rows": int(late[clean].sum()),
        "planted": collected.planted,
        "users": len(shop.users),
        "payments": int(paid.sum()),
        "frauds": int((paid & (shop.events.kind[clean] != HONEST)).sum()),
        "labels": int((shop.events.label_of[clean] >= 0).sum()),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def write_truth(
    folder: Path, shop: Shop, names: Names, table: pa.Table, ingested: np.ndarray, late: np.ndarray
) -> None:
    """Write what the oracles know into an empty folder; examples whose events are in no file are left out."""
    parameters, events, catalogue = shop.parameters, shop.events, shop.catalogue
    from_day = int(TRUTH_FROM * parameters.days)
    from_us = parameters.start_us + from_day * DAY * MICROSECONDS
    collected = ingested < parameters.start_us + parameters.days * DAY * MICROSECONDS

    evidence = gather(parameters, catalogue, events, late)
    rows, rank = ranks(parameters, catalogue, events, evidence, from_us)
    rows, rank = rows[collected[rows]], rank[collected[rows]]
    _write(folder, "recommendation", example_id=_ids(table, rows), rank=pa.array(rank), t=_times(table, rows))

    visits = see_visits(parameters, events, late)
    rows, chance = fraud_truth(parameters, catalogue, events, visits, evidence)
    fake_chance = np.zeros(len(shop.users))
    np.maximum.at(fake_chance, events.user[rows], chance)
    keep = collected[rows] & (events.time[rows] >= from_us)
    _write(folder, "fraud", example_id=_ids(table, rows[keep]), p=pa.array(chance[keep]), t=_times(table, rows[keep]))

    active = retention_truth(parameters, visits, from_day, fake_chance)
    first = datetime.fromtimestamp(parameters.start_us / MICROSECONDS, UTC)
    dates = pa.array([f"{first + timedelta(days=day):%Y-%m-%d}" for day in range(parameters.days + 1)])
    users = names.user.take(pa.array(active.user))
    example_id = pc.binary_join_element_wise(users, dates.take(pa.array(active.day)), "@")
    t = parameters.start_us + active.day * DAY * MICROSECONDS
    _write(folder, "retention", example_id=example_id, p=pa.array(active.chance), t=pa.array(t).cast(_TIME))
    content = {"digest": parameters.digest, "from": f"{first + timedelta(days=from_day):%Y-%m-%d}"}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def _write(folder: Path, name: str, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", compression="zstd")


def _ids(table: pa.Table, rows: np.ndarray) -> pa.ChunkedArray:
    return table["event_id"].take(pa.array(rows))


def _times(table: pa.Table, rows: np.ndarray) -> pa.ChunkedArray:
    return table["event_timestamp"].take(pa.array(rows))


def items_table(shop: Shop, names: Names) -> pa.Table:
    """The catalogue, under the contract's columns."""
    catalogue = shop.catalogue
    category, slot = np.divmod(np.arange(len(catalogue.price)), catalogue.slots)
    launched = shop.parameters.start_us + catalogue.launch_day * DAY * MICROSECONDS
    columns = [
        names.item,
        names.category.take(pa.array(category)),
        pa.array(catalogue.price),
        pa.array(launched).cast(pa.timestamp("us", tz="UTC")),
        pa.array([f"Category {c}, rank {s + 1}" for c, s in zip(category, slot, strict=True)]),
        pa.nulls(len(catalogue.price), pa.int64()),  # nothing of this shop is ever sold out
    ]
    return pa.table(columns, schema=arrow_schema(ITEM_COLUMNS))


def users_table(shop: Shop, names: Names) -> pa.Table:
    """Everybody with an account, under the contract's columns."""
    rng = shop.parameters.rng("user table")
    events, count = shop.events, len(shop.users)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, events.user, events.time)
    known = np.flatnonzero(first < np.iinfo(np.int64).max)
    before = rng.integers(30, 900, count) * DAY * MICROSECONDS
    minutes = rng.integers(20, 600, count) * MICROSECONDS
    old = ~shop.users.is_new & (np.arange(count) < shop.honest_users)
    signed_up = np.where(old, shop.parameters.start_us - before, first - minutes)
    country = rng.choice(["DE", "FR", "NL", "AT", "PL"], count, p=[0.4, 0.2, 0.15, 0.1, 0.15])
    columns = [
        names.user.take(pa.array(known)),
        pa.array(signed_up[known]).cast(pa.timestamp("us", tz="UTC")),
        pa.array(country[known]),
    ]
    table = pa.table(columns, schema=arrow_schema(USER_COLUMNS))
    return table.sort_by("user_id")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m ingestion.demo_shop", description=(__doc__ or "").splitlines()[0])
    defaults = ShopParameters()
    parser.add_argument("--out", type=Path, required=True, help="folder of the event files, catalogue and users")
    parser.add_argument("--truth", type=Path, required=True, help="folder of the true probabilities")
    parser.add_argument("--events", type=int, default=defaults.events, help="about how many events (%(default)s)")
    parser.add_argument("--days", type=int, default=defaults.days, help="how many days (%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="another seed, another shop (%(default)s)")
    parser.add_argument("--start", default=defaults.start, help="first day, UTC (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other parameter")
    given = parser.parse_args(arguments)
    settings = dict(text.split("=", 1) if "=" in text else (text, "") for text in given.set)
    try:
        size = ShopParameters(events=given.events, days=given.days, seed=given.seed, start=given.start)
        made = make_shop(with_settings(size, settings), given.out, given.truth)
    except ValueError as error:
        parser.error(str(error))
    _log.info("%s %s", "made" if made else "found, left alone:", given.out)


def _finished(folder: Path, parameters: ShopParameters) -> bool:
    """Whether the folder holds this shop; False when there is no such folder."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    manifest = folder / MANIFEST
    digest = json.loads(manifest.read_text()).get("digest") if manifest.exists() else None
    if digest == parameters.digest:
        return True
    message = f"{folder} holds something else than this shop: remove it, or name another folder"
    raise ValueError(message)


def _publish(target: Path, write: Callable[[Path], None], name: str) -> None:
    aside = target.with_name(f".{target.name}.shop.tmp")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir()
    try:
        write(aside)
        if target.exists():
            target.rmdir()  # it is empty: `_finished` looked
        publish_folder(target, aside, name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    main()
