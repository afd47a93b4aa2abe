"""What a bundle is made of, and how a reader sees that nothing of it was changed.

A bundle is a Bento. Its `src/bundle/manifest.json` names every other file with its sha256, so that a
flipped byte is found, and its own digest, so that a flipped byte of the manifest is found too. The
digest covers what decides an answer (`files`: code, model, tables, requirements) and where it comes from;
it is the Bento's version, so the same run built twice is the same bundle. BentoML's wrapping, which
repeats that version, is listed apart (`envelope`), and so is the skew receipt: it speaks of the state at the time of
the build, and the same run is the same bundle whenever it is built. A signature, if there is one, lies beside the
manifest (serving.signing) and covers all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "src"
BUNDLE = f"{SOURCE}/bundle"
MANIFEST = f"{BUNDLE}/manifest.json"
SIGNATURE = f"{MANIFEST}.sig"
RECEIPT = f"{BUNDLE}/skew_receipt.json"
BILL = "env/sbom.cdx.json"
FORMAT = 2
VERSION_LENGTH = 16

TASKS = ("recommendation", "retention", "fraud")

_DECIDES = (f"{SOURCE}/", "env/")
_OUTSIDE_DIGEST = ("digest", "version", "envelope", "home", "built", "seal")


class RefusedError(ValueError):
    """The bundle, or the state beside it, is not what it was built to be: it must not answer."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest that was read and whose digest is right; `root` is the Bento's folder."""

    root: Path
    content: dict[str, Any]

    @property
    def task(self) -> str:
        """recommendation, retention or fraud."""
        return str(self.content["task"])

    @property
    def tag(self) -> str:
        """Name and version, as BentoML writes them."""
        return f"{self.content['name']}:{self.content['version']}"

    @property
    def bundle(self) -> Path:
        """Folder of the model and its tables."""
        return self.root / BUNDLE


def canonical(content: Any) -> bytes:  # noqa: ANN401 - any JSON data
    """The one way in which JSON data is written here: sorted keys, no NaN, a line feed at its end."""
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def digest_of(content: dict[str, Any]) -> str:
    """Sha256 of what decides an answer and where it comes from."""
    inner = {key: value for key, value in content.items() if key not in _OUTSIDE_DIGEST}
    return hashlib.sha256(canonical(inner)).hexdigest()


def seal_of(content: dict[str, Any]) -> str:
    """Sha256 of all of the manifest, what is outside the digest too."""
    return hashlib.sha256(canonical({key: value for key, value in content.items() if key != "seal"})).hexdigest()


def sha256_of(path: Path) -> str:
    """Sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def listing(root: Path) -> dict[str, str]:
    """Sha256 by path of every file of a Bento but manifest, signature and what Python compiled beside its sources."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = [path.relative_to(root).as_posix() for path in paths]
    return {name: sha256_of(path) for name, path in zip(names, paths, strict=True) if name not in (MANIFEST, SIGNATURE)}


def decides(names: Iterable[str]) -> list[str]:
    """Of these paths, those that belong in `files`: neither BentoML's wrapping nor the skew receipt."""
    return [name for name in names if name.startswith(_DECIDES) and name != RECEIPT]


def read(root: Path) -> Manifest:
    """The manifest of the Bento in `root`.

    Raises:
        RefusedError: there is none, or it is not the one that was written.
    """
    path = root / MANIFEST
    try:
        written = path.read_bytes()
        content = json.loads(written)
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read ({error}): this is no bundle of ours, or a broken one; build it again"
        raise RefusedError(message) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        message = f"{path} has format {found!r}, this code reads {FORMAT}: verify it with the code inside the bundle"
        raise RefusedError(message)
    digest = digest_of(content)
    if content.get("digest") != digest or content.get("version") != digest[:VERSION_LENGTH]:
        message = f"{path} was changed after it was built (its digest is {digest[:12]}, it says otherwise)"
        raise RefusedError(message)
    if written != canonical(content) or content.get("seal") != seal_of(content):
        message = f"{path} was changed after it was built (it is not as it was written)"
        raise RefusedError(message)
    return Manifest(root=root, content=content)


def check_files(manifest: Manifest) -> int:
    """Compare every file with the manifest; returns how many there are.

    Raises:
        RefusedError: a file is missing, changed, or lies among the sources without being listed.
    """
    expected: dict[str, str] = {**manifest.content["files"], **manifest.content["envelope"]}
    found = listing(manifest.root)
    missing = sorted(expected.keys() - found.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    # outside src a stray file decides nothing; inside it could stand before a module of the same name
    foreign = sorted(name for name in found.keys() - expected.keys() if name.startswith(f"{SOURCE}/"))
    problems = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("changed", changed), ("not in the manifest", foreign))
        if names
    ]
    if problems:
        message = (
            f"{manifest.tag} in {manifest.root} is not what was built. {'; '.join(problems)}. Build or import again"
        )
        raise RefusedError(message)
    return len(expected)
