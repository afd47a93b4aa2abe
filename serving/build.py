"""Builds a bundle from a run: `python -m serving.build --task fraud [--run var/runs/fraud/<run_id>]`.

The Bento is built by BentoML's own command in a store aside, completed with a manifest, verified by the
code that it carries, and only then moved into the user's store (BENTOML_HOME, else ~/bentoml) and named
`latest` there, each in one step. Killed anywhere, `latest` names a whole bundle: the old one or the new.

Failpoints: `bundle.before_rename`, `bundle.after_rename`, `bundle.latest.before_rename`, `bundle.latest.after_rename`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from clicktrail import settings as settings_module
from clicktrail.clock import read_time
from clicktrail.publish import alive, publish_bytes, publish_folder, sweep
from clicktrail.settings import Settings
from serving import manifest as manifests
from serving.manifest import BUNDLE, MANIFEST, SOURCE, TASKS, VERSION_LENGTH, canonical, digest_of
from serving.sources import Sources, needed

CHECKOUT = Path(__file__).resolve().parent.parent

ENTRIES = ("serving.service", "serving.verify")

_SQL = "clicktrail.sql_expressions"
"""What computes features of kind sql; it brings DuckDB, which other bundles do without."""

_PLAIN = {".onnx", ".data", ".json", ".parquet", ".md", ".txt"}
"""Kinds of files that hold data alone; anything else (a pickle, a checkpoint) could hold code."""

_FROM_RUN = ("metrics.json", "model_card.md")

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


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bundle in the store; `fresh` is false where the same run had been built before."""

    tag: str
    path: Path
    files: int
    bytes: int
    fresh: bool


def build(config: BuildConfig) -> Built:
    """Build, verify and publish the bundle of a run.

    Raises:
        ValueError: the run has no export, the clock is none, or the bundle does not pass its own checks.
    """
    read_time(config.clock, 0)
    export = config.run / "export"
    if not (export / "interface.json").is_file():
        message = f"{export} holds no export: train first (make train TASK={config.task}), or name a run with --run"
        raise ValueError(message)
    with _staging(config.bentoml_home) as aside:
        bento = _bento(config, export, needed(CHECKOUT, entries(_json(export / "interface.json"))), aside)
        manifest = _complete(config, bento)
        in_file = Settings(home=config.home, shop=config.shop, clock=config.clock).online.is_file()
        here = in_file or bool(settings_module.load().online_url)
        self_check(bento, *([] if here else ["--no-state"]))
        return publish(config.bentoml_home, bento, manifest)


def entries(interface: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a service with this interface loads, or its features need."""
    kinds = {part["kind"] for one in interface["declarations"] for part in one["aggregates"]}
    return (*ENTRIES, _SQL) if "sql" in kinds else ENTRIES


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
    options = {
        "service": f"serving.service:{config.task}",
        "description": "file:./bundle/model_card.md" if card.is_file() else f"# clicktrail-{config.task}\n",
        "labels": {"task": config.task, "owner": "clicktrail"},
        "include": ["clicktrail/**/*.py", "serving/*.py", "bundle/**"],
        "python": {"packages": sources.requirements, "lock_packages": False},
        # in a container the loopback address would reach nobody
        "envs": [{"name": "BENTOML_HOST", "value": "0.0.0.0"}],  # noqa: S104
    }
    (context / "bentofile.yaml").write_text(yaml.safe_dump(options, sort_keys=True), encoding="utf-8")
    environ = _environ() | {"BENTOML_HOME": str(aside / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "bentoml", "build", ".", "--version", _STAGED, "--output", "tag"]
    _run(command, context, environ, "bentoml build")
    return aside / "home" / "bentos" / f"clicktrail-{config.task}" / _STAGED


def _complete(config: BuildConfig, bento: Path) -> dict[str, Any]:
    """Give the Bento its version and its manifest, both decided by its content."""
    bundle = bento / BUNDLE
    interface = _json(bundle / "interface.json")
    metrics = _json(bundle / "metrics.json") if (bundle / "metrics.json").is_file() else {}
    if interface["task"] != config.task:
        message = f"{config.run} is a run of {interface['task']}, not of {config.task}"
        raise ValueError(message)
    listing = manifests.listing(bento)
    inner = manifests.decides(listing)
    content: dict[str, Any] = {
        "format": manifests.FORMAT,
        "name": f"clicktrail-{config.task}",
        "task": config.task,
        "feature_service": interface["feature_service"],
        "fingerprints": {one["name"]: one["fingerprint"] for one in interface["declarations"]},
        "run": _plain({"id": config.run.name, "revision": metrics.get("revision") or _revision(), **_origin(metrics)}),
        "metrics": _plain({key: metrics.get(key) for key in ("primary_metric", "model", "baselines", "oracle")}),
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
    (bento / MANIFEST).write_bytes(canonical(content))
    return content


def self_check(bento: Path, *arguments: str) -> None:
    """Let the bundle verify itself, with the code that it carries and without any other of ours on the path.

    Raises:
        ValueError: it refused.
    """
    command = [sys.executable, "-m", "serving.verify", str(bento), *arguments]
    _run(command, bento / SOURCE, _environ() | {"PYTHONDONTWRITEBYTECODE": "1"}, "the bundle's check of itself")


def publish(bentoml_home: Path, bento: Path, manifest: dict[str, Any]) -> Built:
    """Move a finished Bento into the store and name it `latest`; one that is there already is only named.

    Raises:
        RefusedError: it is there already, and was changed since.
    """
    family = bentoml_home / "bentos" / manifest["name"]
    family.mkdir(parents=True, exist_ok=True)
    target = family / manifest["version"]
    with _one_at_a_time(bentoml_home):
        sweep(family)
        fresh = not target.exists()
        if fresh:
            publish_folder(target, bento, "bundle")
        else:
            manifests.check_files(manifests.read(target))
        publish_bytes(family / "latest", manifest["version"].encode(), "bundle.latest")
    files = [path for path in target.rglob("*") if path.is_file()]
    return Built(
        tag=f"{manifest['name']}:{manifest['version']}",
        path=target,
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        fresh=fresh,
    )


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


def _origin(metrics: dict[str, Any]) -> dict[str, Any]:
    """Log offset and digest of what the run learned from."""
    return {
        f"log_{key}" if key in ("offset", "digest") else key: value for key, value in metrics.get("data", {}).items()
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


def _revision() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def _environ() -> dict[str, str]:
    """The environment of a child that is to find the code beside it and no other."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CLICKTRAIL_FAILPOINT")}
    return {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true", **kept}


def _run(command: list[str], folder: Path, environ: dict[str, str], what: str) -> None:
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}".rstrip()
        raise ValueError(message)


@contextmanager
def _staging(bentoml_home: Path) -> Iterator[Path]:
    """A folder of this build on the store's file system; what killed builds left there is removed."""
    parent = bentoml_home / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("clicktrail-*"):
        writer = left.name.split("-")[1]
        if left.is_dir() and not (writer.isdigit() and alive(int(writer))):
            shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f"clicktrail-{os.getpid()}-", dir=parent))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _one_at_a_time(bentoml_home: Path) -> Iterator[None]:
    lock = bentoml_home / "tmp" / "clicktrail.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# ---- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one bundle and say where it is."""
    from bentoml._internal.configuration.containers import BentoMLContainer  # only the command needs it

    chosen = settings_module.load()
    parser = argparse.ArgumentParser(prog="python -m serving.build", description="build the bundle of a run")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--run", type=Path, help="folder of the run (default: the task's latest)")
    parser.add_argument("--clock", default=chosen.clock, help="default clock of the service: wall, log or a time")
    given = parser.parse_args(arguments)
    run = (given.run or chosen.runs / given.task / "latest").expanduser()
    # a bundle reads the state of the shop that its run learned from, whichever shop this command stands in
    facts = _json(run / "metrics.json") if (run / "metrics.json").is_file() else {}
    shop = facts.get("data", {}).get("shop") or chosen.shop
    config = BuildConfig(
        task=given.task,
        run=run.resolve(),
        home=chosen.home,
        shop=shop,
        clock=given.clock,
        bentoml_home=Path(BentoMLContainer.bentoml_home.get()),
    )
    try:
        built = build(config)
    except ValueError as error:
        sys.stderr.write(f"no bundle was built: {error}\n")
        return 1
    state = "built" if built.fresh else "was built before, nothing changed"
    sys.stdout.write(
        f"{built.tag} {state}: {built.files} files, {built.bytes / 2**20:.1f} MiB in {built.path}\n"
        f"  serve it: bentoml serve clicktrail-{given.task}:latest    verify it: python -m serving.verify {built.tag}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
