"""BentoML's store as a place to publish to: a finished Bento is moved in and named `latest`, each in one step.

Failpoints: `bundle.before_rename`, `bundle.after_rename`, `bundle.latest.before_rename`, `bundle.latest.after_rename`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clicktrail.publish import alive, publish_bytes, publish_folder, sweep
from serving import manifest as manifests
from serving.signing import sign


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bundle in the store.

    `fresh` is false where the same run had been built before, `latest` whether it is what `latest` names now.
    """

    tag: str
    path: Path
    files: int
    bytes: int
    fresh: bool
    latest: bool


def publish(
    bentoml_home: Path, bento: Path, manifest: dict[str, Any], *, promote: bool = True, key: Path | None = None
) -> Built:
    """Move a finished Bento into the store; one that is there already stays as it is.

    Args:
        bentoml_home: the store.
        bento: the Bento's folder, on the same file system; signed already if it is to be.
        manifest: its manifest.
        promote: name it `latest`.
        key: signs the one that is there already, which may have been built without.

    Raises:
        RefusedError: it is there already, and was changed since.
    """
    family = bentoml_home / "bentos" / manifest["name"]
    family.mkdir(parents=True, exist_ok=True)
    target, latest = family / manifest["version"], family / "latest"
    with _one_at_a_time(bentoml_home):
        sweep(family)
        fresh = not target.exists()
        if fresh:
            publish_folder(target, bento, "bundle")
        else:
            manifests.check_files(manifests.read(target))
            if key:
                sign(target, key)
        if promote:
            publish_bytes(latest, manifest["version"].encode(), "bundle.latest")
    files = [path for path in target.rglob("*") if path.is_file()]
    return Built(
        tag=f"{manifest['name']}:{manifest['version']}",
        path=target,
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        fresh=fresh,
        latest=latest.is_file() and latest.read_text(encoding="utf-8") == manifest["version"],
    )


@contextmanager
def staging(bentoml_home: Path) -> Iterator[Path]:
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
