"""Feast's stock stores against the cases of the time contract, beside ours.

    python -m benchmarks.conformance --cases FILE [--write-docs]

Offline dask (Feast's `file`) and DuckDB, online SQLite and Redis, set up in the ways of `snapshots.BUILDS`; the
table shows the best way with a row per event for each store. A Redis of its own is started. The last line is one
JSON object: {store: {reads, values, mismatches, inexpressible, ...}}.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.types import FeastType
from tqdm import tqdm

from benchmarks.case_features import all_keys, feature_views
from benchmarks.conformance import stock
from benchmarks.conformance.counts import Result
from benchmarks.conformance.page import ONLINE, PAGE, figures, tables, write
from benchmarks.conformance.snapshots import BUILDS, groups_of, rows_of, snapshots
from benchmarks.conformance.tally import tally
from benchmarks.redis_server import redis_server
from benchmarks.time_semantics import offline, online, reads_of, write_repo
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings


def run(cases_file: Path) -> list[Result]:
    """All stores against a file of cases: ours, then each of Feast's in each build."""
    content = json.loads(cases_file.read_text())
    features, cases = content["features"], content["cases"]
    objects, references = feature_views(features)
    reads = reads_of(cases, all_keys(features))
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, redis_server() as url:
        home = Path(folder)
        for store, place in (("Clicktrail SQLite", ""), ("Clicktrail Redis", url)):
            repo = FeatureStore(repo_path=write_repo(home / store, cases_file.resolve(), place))
            repo.apply(objects)
            log = EventLog(Settings(home=home / store).log)
            answers, waiting = online(repo, log, cases, reads, references)
            results.append(tally(Result(store=store), cases, reads, answers, online=True))
            log.append(waiting)
        answers = offline(repo, reads, references)
        results.append(tally(Result(store="Clicktrail offline"), cases, reads, answers, online=False))
        types = {name: _type(repo, reference) for name, reference in references.items()}
        rows = rows_of(log)
        for number, build in enumerate(tqdm(BUILDS, desc="stock Feast", unit="build")):
            values = {keys: snapshots(repo, references, one, rows, build) for keys, one in groups_of(features).items()}
            written = sum(one.num_rows for one in values.values())
            for store, stores in _stores(home / f"online {number}.db", url, number + 1).items():
                made = stock.make_stock(home / f"{number} {store}", features, values, types, build, stores)
                at_now = store in ONLINE
                answers = (stock.online if at_now else stock.offline)(made, reads)
                result = Result(store=store, build=build.name, rows=written)
                results.append(tally(result, cases, reads, answers, online=at_now))
    return results


def _type(repo: FeatureStore, reference: str) -> FeastType:
    view, name = reference.split(":")
    return next(one.dtype for one in repo.get_feature_view(view).features if one.name == name)


def _stores(sqlite_file: Path, url: str, database: int) -> dict[str, dict[str, Any]]:
    """Configuration of the stock stores; what online stores are filled from is DuckDB."""
    address = url.removeprefix("redis://").removesuffix("/0")
    sqlite = {"type": "sqlite", "path": str(sqlite_file)}
    redis = {"type": "redis", "connection_string": f"{address},db={database}"}
    return {
        "Feast dask": {"offline_store": {"type": "dask"}, "online_store": sqlite},
        "Feast DuckDB": {"offline_store": {"type": "duckdb"}, "online_store": sqlite},
        "Feast SQLite": {"offline_store": {"type": "duckdb"}, "online_store": sqlite},
        "Feast Redis": {"offline_store": {"type": "duckdb"}, "online_store": redis},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="a file of the form of time_cases.json")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    results = run(arguments.cases)
    print(tables(results))
    if arguments.write_docs:
        write(PAGE, results)
    print(json.dumps(figures(results)))


if __name__ == "__main__":
    main()
