"""Builds a bundle from a run: `python -m serving.build --task fraud [--run var/runs/fraud/<run_id>]`.

The Bento is built by BentoML's own command in a store aside, completed with a bill of materials, a skew receipt and a
manifest, signed where CLICKTRAIL_SIGNING_KEY names a key, and verified by the code that it carries. Only then is it
moved into the user's store (BENTOML_HOME, else ~/bentoml) and, if the run passed its gates, named `latest` there, each
in one step. Killed anywhere, `latest` names a whole bundle: the old one or the new.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from clicktrail import settings as settings_module
from clicktrail.clock import read_time
from clicktrail.encoding import Encoding
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from serving import manifest as manifests
from serving import origin
from serving.bill_of_materials import bill_of_materials, constraints
from serving.bundle_store import Built, publish, staging
from serving.manifest import (
    BILL,
    BUNDLE,
    MANIFEST,
    RECEIPT,
    SOURCE,
    TASKS,
    VERSION_LENGTH,
    canonical,
    digest_of,
    seal_of,
)
from serving.model import used_views
from serving.signing import sign
from serving.sources import OURS, Sources, needed

CHECKOUT = Path(__file__).resolve().parent.parent

ENTRIES = ("serving.service", "serving.verify", "serving.warm", "serving.decide_again", "serving.score_batch")

CONSTRAINTS = "env/python/constraints.txt"
"""Versions of what the requirements need in their turn: an image is to hold what was tested."""

_IMAGE = Path("deploy") / "bundle.Dockerfile"

_SQL = "clicktrail.sql_expressions"
"""What computes features of kind sql; it brings DuckDB, which other bundles do without."""

_ITEM_INDEX = "serving.item_index"
"""What reads the index of a large catalogue; it brings usearch."""

_PLAIN = {".onnx", ".data", ".json", ".parquet", ".npy", ".usearch", ".md", ".txt"}
"""Kinds of files that hold data alone; anything else (a pickle, a checkpoint) could hold code."""

_ON_DEMAND = ("cryptography", "tqdm")
"""Packages that a function of ours imports: where signatures are demanded, and where a file is scored."""

_FROM_RUN = ("metrics.json", "model_card.md")

_METRICS = ("primary_metric", "model", "baselines", "oracle", "intervals", "gates")

_STAGED = "staged"


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build: the run, whose shop it is for, and the clock that its service reads by unless told otherwise."""

    task: str
    run: Path
    home: Path
    shop: str
    clock: str
    bentoml_home: Path
    signing_key: Path | None = None


def build(config: BuildConfig) -> Built:
    """Build, verify and publish the bundle of a run.

    Raises:
        ValueError: the run has no export or learned from rows that were not validated, the clock is none, a view's
            online reads differ from offline ones more often than it allows, or the bundle does not pass its own checks.
    """
    read_time(config.clock, 0)
    export = config.run / "export"
    if not (export / "interface.json").is_file():
        message = f"{export} holds no export: train first (make train TASK={config.task}), or name a run with --run"
        raise ValueError(message)
    interface = _json(export / "interface.json")
    if interface["task"] != config.task:
        message = f"{config.run} is a run of {interface['task']}, not of {config.task}"
        raise ValueError(message)
    settings = _settings(config)
    metrics = _metrics(config.run)
    try:
        lineage = origin.lineage(EventLog(settings.log), metrics.get("data", {}))
    except ValueError as error:
        message = f"{config.run} may not become a bundle: {error}"
        raise ValueError(message) from error
    with_state = settings.online.is_file() or bool(settings.online_url)
    receipt = _receipt(settings, export, interface, with_state=with_state)
    with staging(config.bentoml_home) as aside:
        bento = _bento(config, export, _sources(interface), aside)
        manifest = _complete(config, bento, metrics=metrics, lineage=lineage, receipt=receipt)
        if config.signing_key:
            sign(bento, config.signing_key)
        self_check(bento, *([] if with_state else ["--no-state"]))
        passed = not failed_gates(metrics)
        return publish(config.bentoml_home, bento, manifest, promote=passed, key=config.signing_key)


def failed_gates(metrics: Mapping[str, Any]) -> list[str]:
    """The gates of its task that a run did not pass: `latest` goes on naming the bundle that it names now."""
    gates = metrics.get("gates", {})
    return [
        f"{name} is {metrics['model'][name]:.4g}, at least {gate['least']:g} is asked"
        for name, gate in sorted(gates.items())
        if not gate["passed"]
    ]


def _settings(config: BuildConfig) -> Settings:
    """Of the shop that the bundle will read, by its clock."""
    chosen = {
        "CLICKTRAIL_HOME": str(config.home),
        "CLICKTRAIL_SHOP": config.shop,
        "CLICKTRAIL_CLOCK": config.clock,
    }
    return settings_module.load({**os.environ, **chosen})


def _sources(interface: Mapping[str, Any]) -> Sources:
    found = needed(CHECKOUT, entries(interface))
    return replace(found, foreign=(*found.foreign, *_ON_DEMAND))


def _receipt(settings: Settings, export: Path, interface: Mapping[str, Any], *, with_state: bool) -> dict[str, Any]:
    if not with_state:
        return {"views": None, "reason": "there was no online state where it was built"}
    read = used_views(Encoding.from_json(_json(export / "encoding.json")))
    views = [one for one in interface["declarations"] if one["name"] in read]
    return origin.skew_receipt(settings, views, CHECKOUT)


def entries(interface: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a service with this interface loads, or its features need."""
    kinds = {part["kind"] for one in interface["declarations"] for part in one["aggregates"]}
    more = {_SQL: "sql" in kinds, _ITEM_INDEX: bool(interface.get("item_index"))}
    return (*ENTRIES, *(module for module, wanted in more.items() if wanted))


def _bento(config: BuildConfig, export: Path, sources: Sources, aside: Path) -> Path:
    """The Bento's folder, as BentoML builds it from nothing but the files that the service needs."""
    context = aside / "context"
    for file in sources.files:
        _copy(CHECKOUT / file, context / file)
    for path in _plain_files(export):
        _copy(path, context / "bundle" / path.relative_to(export))
    for name in _FROM_RUN:
        if (config.run / name).is_file():
            _copy(config.run / name, context / "bundle" / name)
    card = context / "bundle" / "model_card.md"
    _copy(CHECKOUT / _IMAGE, context / _IMAGE.name)
    options = {
        "service": f"serving.service:{config.task}",
        "description": "file:./bundle/model_card.md" if card.is_file() else f"# clicktrail-{config.task}\n",
        "labels": {"task": config.task, "owner": "clicktrail"},
        "include": ["clicktrail/**/*.py", "serving/*.py", "bundle/**"],
        "python": {"packages": sources.requirements, "lock_packages": False},
        # BentoML's own would bring compilers, and be written anew for the image: the manifest would not know it
        "docker": {"dockerfile_template": f"./{_IMAGE.name}"},
    }
    (context / "bentofile.yaml").write_text(yaml.safe_dump(options, sort_keys=True), encoding="utf-8")
    environ = _environ() | {"BENTOML_HOME": str(aside / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "bentoml", "build", ".", "--version", _STAGED, "--output", "tag"]
    _run(command, context, environ, "bentoml build")
    return aside / "home" / "bentos" / f"clicktrail-{config.task}" / _STAGED


def _complete(
    config: BuildConfig,
    bento: Path,
    *,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    receipt: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the Bento its bill of materials, its receipt, its version and its manifest."""
    bundle = bento / BUNDLE
    interface = _json(bundle / "interface.json")
    name = f"clicktrail-{config.task}"
    requirements = (bento / "env/python/requirements.txt").read_text(encoding="utf-8").splitlines()
    modules = {path: sha for path, sha in manifests.listing(bento).items() if path.endswith(".py")}
    (bento / BILL).write_text(bill_of_materials(name, requirements, modules), encoding="utf-8")
    (bento / CONSTRAINTS).write_text(constraints(requirements), encoding="utf-8")
    (bento / RECEIPT).write_bytes(canonical(receipt))
    listing = manifests.listing(bento)
    inner = manifests.decides(listing)
    content: dict[str, Any] = {
        "format": manifests.FORMAT,
        "name": name,
        "task": config.task,
        "feature_service": interface["feature_service"],
        "fingerprints": {one["name"]: one["fingerprint"] for one in interface["declarations"]},
        "run": _plain({"id": config.run.name, **_origin(metrics)}),
        "lineage": lineage,
        "metrics": _plain({key: metrics.get(key) for key in _METRICS}),
        "defaults": {"shop": config.shop, "clock": config.clock},
        "files": {name: listing[name] for name in inner},
    }
    content["digest"] = digest_of(content)
    content["version"] = content["digest"][:VERSION_LENGTH]
    wrapping = bento / "bento.yaml"
    description = yaml.safe_load(wrapping.read_text(encoding="utf-8"))
    # the time of the run, not of the build: the same run gives the same bytes
    description |= {"version": content["version"], "creation_time": _finished(config.run)}
    wrapping.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    content["envelope"] = {name: sha for name, sha in manifests.listing(bento).items() if name not in content["files"]}
    content["home"] = str(config.home)
    content["built"] = origin.revision(CHECKOUT, OURS)
    content["seal"] = seal_of(content)
    (bento / MANIFEST).write_bytes(canonical(content))
    return content


def self_check(bento: Path, *arguments: str) -> None:
    """Let the bundle verify itself, with the code that it carries and without any other of ours on the path.

    Raises:
        ValueError: it refused.
    """
    command = [sys.executable, "-m", "serving.verify", str(bento), *arguments]
    _run(command, bento / SOURCE, _environ() | {"PYTHONDONTWRITEBYTECODE": "1"}, "the bundle's check of itself")


# ---- files and processes


def _plain_files(export: Path) -> Iterator[Path]:
    for path in sorted(export.rglob("*")):
        if path.is_dir():
            continue
        if path.suffix not in _PLAIN or path.is_symlink():
            message = f"{path} may not travel in a bundle: only plain files of data do ({', '.join(sorted(_PLAIN))})"
            raise ValueError(message)
        yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _metrics(run: Path) -> dict[str, Any]:
    return _json(run / "metrics.json") if (run / "metrics.json").is_file() else {}


def _origin(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Code of the run, and what it learned from: offset and digest of the log, digest and size of the training set."""
    data = dict(metrics.get("data", {}))
    return {
        "revision": metrics.get("revision"),
        "dirty": metrics.get("dirty"),
        "log_digest": data.pop("log_content", ""),
        "training_set": data.pop("digest", ""),
        **data,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON data
    """JSON data in which a number that is none (the oracle of real data, say) is null."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finished(run: Path) -> datetime:
    """When the run ended: its metrics are the last thing that it writes."""
    written = run / "metrics.json"
    stamp = (written if written.is_file() else run / "export" / "interface.json").stat().st_mtime
    return datetime.fromtimestamp(int(stamp), UTC)


def _environ() -> dict[str, str]:
    """The environment of a child that is to find the code beside it and no other."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CLICKTRAIL_FAILPOINT")}
    return {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true", **kept}


def _run(command: list[str], folder: Path, environ: dict[str, str], what: str) -> None:
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}".rstrip()
        raise ValueError(message)


# ---- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one bundle and say where it is."""
    from bentoml._internal.configuration.containers import BentoMLContainer  # only the command needs it

    chosen = settings_module.load()
    parser = argparse.ArgumentParser(prog="python -m serving.build", description="build the bundle of a run")
    parser.add_argument("--task", required=True, help=f"one that has a service: {', '.join(TASKS)}")
    parser.add_argument("--run", type=Path, help="folder of the run (default: the task's latest)")
    parser.add_argument("--if-served", action="store_true", help="a task without a service is left out, no error")
    parser.add_argument("--clock", default=chosen.clock, help="default clock of the service: wall, log or a time")
    given = parser.parse_args(arguments)
    if given.task not in TASKS:
        why = f"no service answers for task {given.task} (there is one for {', '.join(TASKS)})"
        (sys.stdout if given.if_served else sys.stderr).write(f"no bundle was built: {why}\n")
        return 0 if given.if_served else 1
    run = (given.run or chosen.runs / given.task / "latest").expanduser()
    # a bundle reads the state of the shop that its run learned from, whichever shop this command stands in
    metrics = _metrics(run)
    shop = metrics.get("data", {}).get("shop") or chosen.shop
    config = BuildConfig(
        task=given.task,
        run=run.resolve(),
        home=chosen.home,
        shop=shop,
        clock=given.clock,
        bentoml_home=Path(BentoMLContainer.bentoml_home.get()),
        signing_key=chosen.signing_key,
    )
    try:
        built = build(config)
    except ValueError as error:
        sys.stderr.write(f"no bundle was built: {error}\n")
        return 1
    state = "built" if built.fresh else "was built before, nothing changed"
    name = built.tag if not built.latest else f"clicktrail-{given.task}:latest"
    sys.stdout.write(
        f"{built.tag} {state}: {built.files} files, {built.bytes / 2**20:.1f} MiB in {built.path}\n"
        f"  serve it: bentoml serve {name}    verify it: make verify BUNDLE={built.tag}\n"
    )
    failed = failed_gates(metrics)
    if failed:
        sys.stdout.write(f"  latest does not name it, since its run did not pass its gates: {'; '.join(failed)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
