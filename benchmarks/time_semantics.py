"""Hold offline and online reads against a file of worked cases of the time contract.

    python -m benchmarks.time_semantics --cases FILE

Every case is a world of its own, so all of them share one log with prefixed ids. Offline, all events are
in the log. Online, events and labels are applied as they arrive, and a read at t is answered from the
state by then. The way is a user's: `feast apply` on a repo, `get_historical_features`,
`materialize_incremental`, `get_online_features`. The last line is one JSON object.
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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml
from feast import Entity, FeatureStore, FeatureView, ValueType
from tqdm import tqdm

from benchmarks.arrivals import SECOND, arrivals, prefixed
from clicktrail.clock import read_at
from clicktrail.contract import LABEL, arrow_schema
from clicktrail.declaring import Aggregation
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from clicktrail.views import (
    aggregate_view,
    count,
    distinct,
    label_rate,
    largest,
    sequence_view,
    time_since,
    total,
)

OWNER = "benchmarks@example.com"
ABOUT = "features of the time cases"


@dataclass(frozen=True, kw_only=True)
class Read:
    """One read of a case: of whom, when (seconds), and the values that are expected."""

    case: str
    name: str
    keys: dict[str, str | None]
    t: int
    expect: dict[str, Any]


def feature_views(features: list[dict[str, Any]]) -> tuple[list[Entity | FeatureView], dict[str, str]]:
    """Entities and views for the features of a file, and for each feature its Feast reference."""
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in sorted({_entity_key(one) for one in features})
    }
    views, references = [], {}
    grouped: dict[str, list[tuple[str, Aggregation]]] = defaultdict(list)
    for one in features:
        name = one["name"]
        if one["kind"] == "sequence":
            within = timedelta(seconds=one["within_s"]) if one.get("within_s") else None
            views.append(
                sequence_view(
                    name=f"{name}_v1",
                    entity=entities[_entity_key(one)],
                    last=one["last"],
                    fields=[one["field"]],
                    events=one.get("events") or (),
                    within=within,
                    owner=OWNER,
                    description=ABOUT,
                )
            )
            references[name] = f"{name}_v1:{one['field']}"
        else:
            grouped[_entity_key(one)].append((name, _aggregation(one)))
            references[name] = f"{_entity_key(one)}_aggregates_v1:{name}"
    for key, aggregations in grouped.items():
        views.append(
            aggregate_view(
                name=f"{key}_aggregates_v1",
                entity=entities[key],
                aggregations=[aggregation for _, aggregation in aggregations],
                owner=OWNER,
                description=ABOUT,
            )
        )
    return [*entities.values(), *views], references


def _entity_key(feature: dict[str, Any]) -> str:
    return str(feature.get("entity") or "user_id")


def _aggregation(one: dict[str, Any]) -> Aggregation:
    of = one.get("events") or None
    options: dict[str, Any] = {"name": one["name"]}
    if "window_s" in one:
        options |= {"windows": [timedelta(seconds=one["window_s"])], "hop": timedelta(seconds=one.get("hop_s", 0))}
    match one["kind"]:
        case "count":
            return count(of, **options)
        case "sum":
            return total(one["field"], of=of, **options)
        case "distinct":
            return distinct(one["field"], of=of, **options)
        case "max":
            return largest(one["field"], of=of, **options)
        case "seconds_since_last":
            return time_since(of, **options)
        case "label_rate":
            return label_rate(one["label"], of=of or [], delay=timedelta(seconds=one["delay_s"]), **options)
        case kind:
            message = f"feature {one['name']!r}: kind {kind!r} is none of the time contract's"
            raise ValueError(message)


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
    waiting = arrivals(cases).sort_by("arrives")
    order: dict[str, list[int]] = defaultdict(list)
    for position in sorted(range(len(reads)), key=lambda one: reads[one].t):
        order[reads[position].case].append(position)
    by_key = {name: _join_key(store, reference) for name, reference in references.items()}
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
            asked = {name: reference for name, reference in references.items() if by_key[name] in present}
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


def _join_key(store: FeatureStore, reference: str) -> str:
    view = store.get_feature_view(reference.split(":", maxsplit=1)[0])
    return str(view.join_keys[0])


def mismatches(reads: list[Read], answers: list[dict[str, Any]], door: str) -> int:
    """Count and print the values that are not what a case expects."""
    wrong = 0
    for read, answer in zip(reads, answers, strict=True):
        for name, expected in read.expect.items():
            if answer[name] != expected:
                wrong += 1
                print(f"{door}: case {read.name!r}, t={read.t}, {name}: expected {expected}, got {answer[name]}")
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


def make_store(home: Path, cases_file: Path) -> tuple[FeatureStore, EventLog]:
    """A Feast repo for the features of a file, after `feast apply`; and its empty log."""
    settings = Settings(home=home)
    settings.shop_home.mkdir(parents=True)
    repo = home / "feature_repo"
    repo.mkdir()
    (repo / "definitions.py").write_text(
        "import json\nfrom pathlib import Path\n\nfrom benchmarks.time_semantics import feature_views\n\n"
        f"objects, _ = feature_views(json.loads(Path({str(cases_file)!r}).read_text())['features'])\n"
        "globals().update({one.name: one for one in objects})\n"
    )
    configuration = {
        "project": "time_semantics",
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{settings.registry}"},
        "offline_store": {"type": "clicktrail.offline_store.EventLogOfflineStore", "log_path": str(settings.log)},
        "online_store": {"type": "clicktrail.online_store.EventLogOnlineStore", "path": str(settings.online)},
        "batch_engine": {"type": "clicktrail.compute.EventLogComputeEngine"},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(configuration))
    feast = Path(sys.executable).with_name("feast")
    subprocess.run([feast, "apply"], cwd=repo, check=True, stdout=subprocess.DEVNULL)
    return FeatureStore(repo_path=repo), EventLog(settings.log)


def run(cases_file: Path) -> dict[str, int]:
    """Hold both doors against a file of cases; see the module's text."""
    content = json.loads(cases_file.read_text())
    cases = content["cases"]
    _, references = feature_views(content["features"])
    reads = reads_of(cases, sorted({"user_id", *(_entity_key(one) for one in content["features"])}))
    with tempfile.TemporaryDirectory() as folder:
        store, log = make_store(Path(folder), cases_file.resolve())
        answers, waiting = online(store, log, cases, reads, references)
        log.append(waiting)
        return {
            "reads": len(reads),
            "values": sum(len(read.expect) for read in reads),
            "accepted_mismatches": accepted_mismatches(cases, log),
            "offline_mismatches": mismatches(reads, offline(store, reads, references), "offline"),
            "online_mismatches": mismatches(reads, answers, "online"),
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="a file of the form of time_cases.json")
    print(json.dumps(run(parser.parse_args().cases)))


if __name__ == "__main__":
    main()
