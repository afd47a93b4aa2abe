"""Hold offline and online reads against a file of worked cases of the time contract.

    python -m benchmarks.time_semantics --cases FILE [--store sqlite|redis]

Every case is a world of its own, so all of them share one log with prefixed ids. Offline, all events are
in the log. Online, events and labels are applied as they arrive, and a read at t is answered from the
state by then. The way is a user's: `feast apply` on a repo, `get_historical_features`,
`materialize_incremental`, `get_online_features`. `--store redis` starts a Redis of its own. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml
from feast import FeatureStore
from tqdm import tqdm

from benchmarks.arrivals import SECOND, arrivals, prefixed
from benchmarks.case_features import all_keys, feature_views, plain, same
from benchmarks.redis_server import redis_server
from clicktrail.clock import read_at
from clicktrail.contract import LABEL, arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings

STORES = ("sqlite", "redis")


@dataclass(frozen=True, kw_only=True)
class Read:
    """One read of a case: of whom, when (seconds), and the values that are expected."""

    case: str
    name: str
    keys: dict[str, str | None]
    t: int
    expect: dict[str, Any]


def reads_of(cases: list[dict[str, Any]], keys: list[str]) -> list[Read]:
    """All reads, each with the prefixed ids of its case."""
    return [
        Read(
            case=str(index),
            name=case["name"],
            keys={key: prefixed(index, read.get(key)) for key in keys},
            t=read["t"],
            expect=read["expect"],
        )
        for index, case in enumerate(cases)
        for read in case["reads"]
    ]


def offline(store: FeatureStore, reads: list[Read], references: dict[str, str]) -> list[dict[str, Any]]:
    """The values that get_historical_features gives for each read."""
    frame = pd.DataFrame([read.keys for read in reads])
    frame["event_timestamp"] = pd.to_datetime([read.t for read in reads], unit="s", utc=True)
    job = store.get_historical_features(frame, features=list(references.values()), full_feature_names=True)
    table = job.to_arrow()
    if table.num_rows != len(reads):
        message = f"{len(reads)} rows went in, {table.num_rows} came out"
        raise ValueError(message)
    columns = {name: table[reference.replace(":", "__")].to_pylist() for name, reference in references.items()}
    return [{name: column[row] for name, column in columns.items()} for row in range(len(reads))]


def online(
    store: FeatureStore, log: EventLog, cases: list[dict[str, Any]], reads: list[Read], references: dict[str, str]
) -> tuple[list[dict[str, Any]], pa.Table]:
    """The values that get_online_features gives for each read, events and labels applied as they arrive.

    Also what arrives only after a case's last read. The cases do not touch each other, so the first read of
    every case is done in one round, then the second of every case, and so on.
    """
    waiting = arrivals(cases, list(reads[0].keys) if reads else ()).sort_by("arrives")
    order: dict[str, list[int]] = defaultdict(list)
    for position in sorted(range(len(reads)), key=lambda one: reads[one].t):
        order[reads[position].case].append(position)
    by_keys = {name: _join_keys(store, reference) for name, reference in references.items()}
    answers: list[dict[str, Any]] = [{} for _ in reads]
    for turn in tqdm(range(max((len(one) for one in order.values()), default=0)), desc="online reads", unit="round"):
        due = [positions[turn] for positions in order.values() if len(positions) > turn]
        until = {int(reads[position].case): reads[position].t for position in due}
        arrived = [
            until.get(case, -1) >= arrives
            for case, arrives in zip(waiting["case"].to_pylist(), waiting["arrives"].to_pylist(), strict=True)
        ]
        log.append(waiting.filter(pa.array(arrived, pa.bool_())).select(arrow_schema().names))
        waiting = waiting.filter(pa.array([not one for one in arrived], pa.bool_()))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # a bar a view
            store.materialize_incremental(end_date=datetime.now(UTC))
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
        for position in due:
            present = tuple(key for key, value in reads[position].keys.items() if value is not None)
            groups[reads[position].t, present].append(position)
        for (t, present), positions in groups.items():
            asked = {name: reference for name, reference in references.items() if by_keys[name] <= set(present)}
            rows = [{key: reads[position].keys[key] for key in present} for position in positions]
            with read_at(t * SECOND):
                response = store.get_online_features(list(asked.values()), rows, full_feature_names=True).to_dict()
            for place, position in enumerate(positions):
                # nothing can be asked online about an entity that is not named: no value, as offline
                answers[position] = {
                    name: response[asked[name].replace(":", "__")][place] if name in asked else None
                    for name in references
                }
    return answers, waiting.select(arrow_schema().names)


def _join_keys(store: FeatureStore, reference: str) -> set[str]:
    return set(store.get_feature_view(reference.split(":", maxsplit=1)[0]).join_keys)


def mismatches(reads: list[Read], answers: list[dict[str, Any]], door: str) -> int:
    """Count and print the values that are not what a case expects."""
    wrong = 0
    for read, answer in zip(reads, answers, strict=True):
        for name, expected in read.expect.items():
            got = plain(answer[name], read.case)
            if not same(expected, got):
                wrong += 1
                print(f"{door}: case {read.name!r}, t={read.t}, {name}: expected {expected}, got {got}")
    return wrong


def accepted_mismatches(cases: list[dict[str, Any]], log: EventLog) -> int:
    """Count the cases whose accepted events are not those that the file lists."""
    ids = log.query(f"select event_id from events where event_type <> '{LABEL}'")["event_id"].to_pylist()
    found: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        case, _, name = one.partition("|")
        found[case].append(name)
    wrong = 0
    for index, case in enumerate(cases):
        if "accepted" in case and sorted(found[str(index)]) != sorted(case["accepted"]):
            wrong += 1
            print(f"log: case {case['name']!r}: expected {sorted(case['accepted'])}, got {sorted(found[str(index)])}")
    return wrong


def make_store(home: Path, cases_file: Path, url: str = "") -> tuple[FeatureStore, EventLog]:
    """A Feast repo for the features of a file (`write_repo`), after `feast apply`; and its empty log."""
    repo = write_repo(home, cases_file, url)
    feast = Path(sys.executable).with_name("feast")
    subprocess.run([feast, "apply"], cwd=repo, check=True, stdout=subprocess.DEVNULL)
    return FeatureStore(repo_path=repo), EventLog(Settings(home=home).log)


def write_repo(home: Path, cases_file: Path, url: str = "") -> Path:
    """Write a Feast repo for the features of a file; returns its folder.

    Args:
        home: an empty folder; the log will be that of its settings.
        cases_file: absolute path of the file.
        url: of the Redis that holds the online state; where empty, a SQLite file does.
    """
    settings = Settings(home=home)
    settings.shop_home.mkdir(parents=True)
    repo = home / "feature_repo"
    repo.mkdir()
    (repo / "definitions.py").write_text(
        "import json\nfrom pathlib import Path\n\nfrom benchmarks.case_features import feature_views\n\n"
        f"objects, _ = feature_views(json.loads(Path({str(cases_file)!r}).read_text())['features'])\n"
        "globals().update({one.name: one for one in objects})\n"
    )
    configuration = {
        "project": "time_semantics",
        "provider": "local",
        "registry": {
            "registry_store_type": "clicktrail.registry.EventLogRegistryStore",
            "path": str(settings.registry),
        },
        "offline_store": {"type": "clicktrail.offline_store.EventLogOfflineStore", "log_path": str(settings.log)},
        "online_store": {
            "type": "clicktrail.online_store.EventLogOnlineStore",
            "path": str(settings.online),
            "url": url,
            "read_log_share": 0.0,
        },
        "batch_engine": {"type": "clicktrail.compute.EventLogComputeEngine"},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(configuration))
    return repo


def run(cases_file: Path, store: str = "sqlite") -> dict[str, int]:
    """Hold both doors against a file of cases, the online state in SQLite or Redis; see the module's text."""
    content = json.loads(cases_file.read_text())
    cases = content["cases"]
    _, references = feature_views(content["features"])
    reads = reads_of(cases, all_keys(content["features"]))
    with tempfile.TemporaryDirectory() as folder, online_url(store) as url:
        repo, log = make_store(Path(folder), cases_file.resolve(), url)
        answers, waiting = online(repo, log, cases, reads, references)
        log.append(waiting)
        return {
            "reads": len(reads),
            "values": sum(len(read.expect) for read in reads),
            "accepted_mismatches": accepted_mismatches(cases, log),
            "offline_mismatches": mismatches(reads, offline(repo, reads, references), "offline"),
            "online_mismatches": mismatches(reads, answers, f"online, {store}"),
        }


@contextlib.contextmanager
def online_url(store: str) -> Iterator[str]:
    """Where the online state goes: a Redis of its own, or nowhere but the SQLite file.

    Raises:
        ValueError: a store that there is none of.
    """
    if store not in STORES:
        message = f"there is no online store {store!r}: choose among {', '.join(STORES)}"
        raise ValueError(message)
    if store == "sqlite":
        yield ""
    else:
        with redis_server() as url:
            yield url


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="a file of the form of time_cases.json")
    parser.add_argument("--store", choices=STORES, default="sqlite", help="where the online state is")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.cases, arguments.store)))


if __name__ == "__main__":
    main()
