"""Explains one decision: `make explain REQUEST=id`, or `python -m serving.explain ID [--bundle TAG] [--json]`.

Finds the decision, decides it again by the bundle that answered, from the features as they were served, and computes
these features anew from the event log, at the offset and the time that they were read at. All of it must be equal to
the bit. With --bundle it says what another bundle would have decided.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.declarations import Declaration, from_json
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings, load
from serving import manifest as manifests
from serving.decision_rows import KNOWN, OUTCOMES, REQUEST
from serving.decisions import Kept, find
from serving.explain_text import render
from serving.manifest import BUNDLE, SOURCE, RefusedError
from serving.offline_features import rebuilt

_COSTS = "CLICKTRAIL_FRAUD_COSTS"
_RECENT = f"{REQUEST}recent_events"


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a bundle decides of the rows of a request [R], and what it says of each.

    `same`: whether that is what was decided. `from_the_log`: views that were not read then, computed from the event
    log. `problem`: why it could not be asked.
    """

    model: str
    outcomes: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    same: bool | None
    from_the_log: list[str]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A decision and what was found about it.

    `rows`: the rows of the decision log. `views`, `keys`: names of the features and the entity keys of each view.
    `decided`: outcomes [R]. `differing`: features that the event log gives otherwise, with its values [R]; None, with
    the `problem`, where it cannot be asked.
    """

    rows: list[dict[str, Any]]
    views: dict[str, list[str]]
    keys: dict[str, list[str]]
    decided: list[dict[str, Any]]
    differing: dict[str, list[Any]] | None
    problem: str | None
    again: Again
    other: Again | None


def explain(settings: Settings, kept: Kept, other: str | None = None) -> Explained:
    """Explain a decision; `other` is the tag of another bundle to ask."""
    decided = [_decided(row) for row in kept.rows.to_pylist()]
    differing, problem = _differing(settings, kept)
    return Explained(
        rows=kept.rows.to_pylist(),
        views={one.name: list(one.outputs) for one in kept.declarations},
        keys={one.name: list(one.entity_keys) for one in kept.declarations},
        decided=decided,
        differing=differing,
        problem=problem,
        again=ask(settings, kept, kept.model),
        other=ask(settings, kept, other) if other else None,
    )


def ask(settings: Settings, kept: Kept, tag: str) -> Again:
    """Have a bundle decide, by its own code in a process of its own."""
    try:
        root = _root(settings, tag)
        manifest = manifests.read(root)
        if manifest.task != kept.task:
            message = f"{tag} is a bundle for {manifest.task}, and this was a request for {kept.task}"
            raise RefusedError(message)
        manifests.check_files(manifest)  # its code is about to run
        rows, filled = _with_all_views(settings, kept, root)
        found = _asked(root, rows, kept.costs)
    except ValueError as error:
        return Again(model=tag, outcomes=[], answers=[], same=None, from_the_log=[], problem=str(error))
    if "missing" in found:
        problem = f"it reads views that were not read then: {', '.join(found['missing'])}"
        return Again(model=found["model"], outcomes=[], answers=[], same=None, from_the_log=filled, problem=problem)
    outcomes = [
        {name: value for name, value in one.items() if value is not None and name != "answered_by"}
        for one in found["outcomes"]
    ]
    return Again(
        model=found["model"],
        outcomes=outcomes,
        answers=found["answer"].get("answers", [found["answer"]]),
        same=outcomes == [_decided(row) for row in kept.rows.to_pylist()],
        from_the_log=filled,
    )


def _decided(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: row[name] for name in OUTCOMES if row.get(name) is not None}
    return found | (json.loads(row["more"]) if row["more"] else {})


def _differing(settings: Settings, kept: Kept) -> tuple[dict[str, list[Any]] | None, str | None]:
    if kept.rows.column_names.count(_RECENT) and kept.rows[_RECENT][0].as_py() not in (None, "[]"):
        return None, "events came with the request, which the log may not have had"
    log = EventLog(settings.log)
    if not log.epoch:
        return None, f"there is no event log at {settings.log}"
    try:
        anew = rebuilt(log, kept.rows, kept.declarations)
    except ValueError as error:
        return None, str(error)
    features = [f"{one.name}__{name}" for one in kept.declarations for name in one.outputs]
    pairs = {name: (kept.rows[name].to_pylist(), anew[name].to_pylist()) for name in features}
    # by their text: NaN is equal to itself then, and 0.0 differs from -0.0
    return {name: offline for name, (served, offline) in pairs.items() if repr(served) != repr(offline)}, None


def _root(settings: Settings, tag: str) -> Path:
    name, _, version = tag.partition(":")
    family = settings.bentoml_home / "bentos" / name
    if version == "latest" and (family / "latest").is_file():
        version = (family / "latest").read_text().strip()
    if not version or not (family / version).is_dir():
        message = f"{tag} is not in BentoML's store at {settings.bentoml_home}: import it, or set BENTOML_HOME"
        raise ValueError(message)
    return family / version


def _with_all_views(settings: Settings, kept: Kept, root: Path) -> tuple[pa.Table, list[str]]:
    """The rows with every view that a bundle declares; those that were not read as declared come from the log."""
    interface = json.loads((root / BUNDLE / "interface.json").read_text(encoding="utf-8"))
    read = {one.name: one.fingerprint for one in kept.declarations}
    wanted: list[Declaration] = [from_json(one) for one in interface["declarations"]]
    lacking = [one for one in wanted if read.get(one.name) != one.fingerprint]
    names = {one.name for one in lacking}
    otherwise = [f"{one.name}__{name}" for one in kept.declarations if one.name in names for name in one.outputs]
    rows = kept.rows.drop_columns(otherwise + [f"{KNOWN}{one.name}" for one in kept.declarations if one.name in names])
    log = EventLog(settings.log)
    if not lacking or not log.epoch:
        return rows, []
    anew = rebuilt(log, kept.rows, lacking)
    for name in anew.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(name, anew[name])
    return rows, sorted(names)


def _asked(root: Path, rows: pa.Table, costs: str) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", _COSTS)}
    with tempfile.TemporaryDirectory(prefix="clicktrail-explain-") as scratch:
        path = Path(scratch) / "rows.parquet"
        pq.write_table(rows, path)
        if costs:
            environ[_COSTS] = str(Path(scratch) / "costs.json")
            Path(environ[_COSTS]).write_text(costs, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "serving.decide_again", str(path)],
            cwd=root / SOURCE,
            env=environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        message = f"it could not be asked (a bundle of before decisions were kept?):\n{done.stderr[-1500:].rstrip()}"
        raise ValueError(message)
    return dict(json.loads(done.stdout))


def main(settings: Settings, arguments: Sequence[str]) -> int:
    """Command line; status 1 where something is not as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("request", help="its id: x-request-id of the answer")
    parser.add_argument("--bundle", help="tag of another bundle to ask, or clicktrail-TASK:latest")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        kept = find(settings, given.request)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    found = [explain(settings, one, given.bundle) for one in kept]
    if given.json:
        print(json.dumps([asdict(one) for one in found], indent=1, default=str))  # noqa: T201
    else:
        print("\n\n".join(map(render, found)))  # noqa: T201
    return 1 if any(one.differing or one.again.same is False for one in found) else 0


if __name__ == "__main__":
    raise SystemExit(main(load(), sys.argv[1:]))
