"""Publishing: what others may read is written aside, synced and renamed, so killed work leaves the old state.

A failpoint is a named moment around a publish. `CLICKTRAIL_FAILPOINT=name` kills the process there
(SIGKILL, as a crash would), which is how the tests show that nothing published is lost or doubled.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path


def failpoint(name: str) -> None:
    """Die here when CLICKTRAIL_FAILPOINT names this moment."""
    if os.environ.get("CLICKTRAIL_FAILPOINT") == name:
        os.kill(os.getpid(), signal.SIGKILL)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_file(target: Path, write: Callable[[Path], None], name: str) -> None:
    """Let `write` fill a file aside, then put it in the place of `target`.

    Failpoints: `<name>.before_rename` and `<name>.after_rename`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_killed(target)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write(aside)
        sync(aside)
        failpoint(f"{name}.before_rename")
        aside.replace(target)
        sync(target.parent)
        failpoint(f"{name}.after_rename")
    finally:
        aside.unlink(missing_ok=True)


def publish_bytes(target: Path, content: bytes, name: str) -> None:
    """Publish `content` as a file."""
    publish_file(target, lambda aside: _write(aside, content), name)


def publish_folder(target: Path, aside: Path, name: str) -> None:
    """Move a finished folder into place. `aside` is on the same file system; `target` does not exist yet.

    Failpoints: `<name>.before_rename` and `<name>.after_rename`.

    Raises:
        FileExistsError: `target` exists: published folders are never written again.
    """
    if target.exists():
        message = f"{target} exists already: published folders are never written again"
        raise FileExistsError(message)
    for path in sorted(aside.rglob("*")):
        if not path.is_symlink():
            sync(path)
    sync(aside)
    target.parent.mkdir(parents=True, exist_ok=True)
    failpoint(f"{name}.before_rename")
    aside.rename(target)
    sync(target.parent)
    failpoint(f"{name}.after_rename")


def point(link: Path, target: Path, name: str) -> None:
    """Make `link` point at its sibling `target` in one step."""
    sweep_killed(link)
    aside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.name)
    failpoint(f"{name}.before_point")
    aside.replace(link)
    sync(link.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left aside in `folder`. Call it only while no other writer is at work there."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sweep_killed(target: Path) -> None:
    """Remove what killed writers left aside of `target`; a writer that is alive keeps its own."""
    for path in target.parent.glob(f".{target.name}.*.tmp"):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and not alive(int(writer)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
