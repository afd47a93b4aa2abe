"""Verifies a bundle: `python -m serving.verify TAG_OR_PATH [--no-state]`; ends with 1 where it must not answer.

The files are compared with the manifest first, and the signature is checked where CLICKTRAIL_TRUSTED_KEYS demands one.
Then the bundle's own code, in a process that finds no other of ours, goes through lineage and skew receipt, runs the
golden requests and compares the live state's declarations with its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clicktrail import settings
from serving import manifest as manifests
from serving.manifest import SOURCE, Manifest, RefusedError
from serving.proofs import check_lineage, check_receipt
from serving.signing import check_signature

_HERE = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify and print one line a check."""
    parser = argparse.ArgumentParser(prog="python -m serving.verify", description="verify a bundle")
    parser.add_argument("bundle", help="tag in BentoML's store, folder of a Bento, or an exported .bento file")
    parser.add_argument("--no-state", action="store_true", help="leave out the live state, where there is none")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="clicktrail-verify-") as scratch:
        try:
            root = folder_of(given.bundle, Path(scratch))
            manifest = manifests.read(root)
            inside = root / SOURCE == _HERE
            if not inside:
                _say("files", f"{manifests.check_files(manifest)} as they were built ({manifest.tag})")
                if trusted := settings.load().trusted_keys:  # before anything of the bundle runs
                    _say("signature", f"by {check_signature(manifest, trusted)}")
                return _by_its_own_code(root, given.no_state)
            _check_inside(manifest, with_state=not given.no_state)
        except ValueError as error:  # RefusedError, or a setting of the environment that cannot be read
            sys.stderr.write(f"REFUSED: {error}\n")
            return 1
    return 0


def folder_of(bundle: str, scratch: Path) -> Path:
    """The folder of a Bento that goes by its tag, its path or the path of an exported file, unpacked into `scratch`.

    Raises:
        RefusedError: there is none.
    """
    path = Path(bundle).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_file():
        try:
            with tarfile.open(path) as archive:
                archive.extractall(scratch, filter="data")
        except tarfile.TarError as error:
            message = f"{path} is no exported bundle ({error})"
            raise RefusedError(message) from error
        return scratch.resolve()
    import bentoml  # only a tag needs it

    try:
        return Path(bentoml.bentos.get(bundle).path).resolve()
    except (bentoml.exceptions.BentoMLException, ValueError) as error:
        message = f"{bundle} is no folder, no file and no tag in BentoML's store ({error})"
        raise RefusedError(message) from error


def _by_its_own_code(root: Path, no_state: bool) -> int:  # noqa: FBT001 - passes an option on
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "serving.verify", str(root), *(["--no-state"] if no_state else [])]
    done = subprocess.run(command, cwd=root / SOURCE, env=environ | {"PYTHONDONTWRITEBYTECODE": "1"}, check=False)
    return done.returncode


def _check_inside(manifest: Manifest, *, with_state: bool) -> None:
    # files and signature were checked by whoever started this, but a bundle may also be asked directly
    manifests.check_files(manifest)
    if trusted := settings.load().trusted_keys:
        check_signature(manifest, trusted)
    from serving import checks  # nothing of a changed bundle is to run before its files are checked
    from serving.model import Model

    model = Model.load(manifest)
    _say("lineage", check_lineage(manifest))
    _say("skew receipt", check_receipt(manifest))
    _say("code", f"{checks.check_origin(manifest.root)} modules, all from the bundle")
    _say("golden requests", f"{checks.check_goldens(model)} answered within {model.golden_tolerance:g}")
    if with_state:
        state = checks.live_state(model)
        moment = state.moment()
        _say("live state", f"{len(model.declarations)} views as declared, offset {moment.offset}")


def _say(check: str, found: str) -> None:
    sys.stdout.write(f"ok  {check}: {found}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
