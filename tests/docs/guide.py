"""Guides as programs: the fenced blocks of a page, and a checkout of our own to carry them out in.

The first word after a fence is its language, as everywhere; what follows tells a test what to do with the block:

    python                 run it
    python add=PATH        append it to a file of the checkout
    python write=PATH      make a file of it (any language)
    diff edit=PATH         replace lines: context and `-` lines by context and `+` lines; `@@` parts the places
    bash                   run it; `bash fails` expects an exit status other than 0
    text output            what the block before printed, among other things: every line, spaces aside
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_COPIED = (
    "Makefile",
    "pyproject.toml",
    "requirements.lock",
    "requirements-uv.lock",
    "clicktrail",
    "feature_repo",
    "ingestion",
    "validation",
)
# the guides need the library alone: without torch Feast is imported in two thirds of the time, six times over
_NO_TORCH = """\
import sys


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoTorch())
"""

_FENCE = re.compile(r"^```(\w+)[ ]?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block; `line` is that of its fence, counted from 1."""

    language: str
    order: str
    text: str
    line: int


@dataclass(kw_only=True)
class Checkout:
    """A copy of the checkout with a home of its own; its modules come before those of the editable install."""

    root: Path
    home: Path
    output: str = ""

    def environ(self) -> dict[str, str]:
        """What the blocks find in their environment."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLICKTRAIL", "MAKE", "MFLAGS", "PYTEST_XDIST", "VIRTUAL_ENV"))
        }
        return kept | {
            "CLICKTRAIL_HOME": str(self.home),
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }

    def follow(self, guide: Path) -> None:
        """Carry out every block of a guide, in order."""
        for block in blocks(guide):
            self.carry_out(block, f"{guide.name} line {block.line}")

    def carry_out(self, block: Block, where: str) -> None:
        """Carry out one block."""
        order, _, path = block.order.partition("=")
        match order or block.language:
            case "add":
                target = self.root / path
                target.write_text(target.read_text() + block.text)
            case "write":
                target = self.root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
            case "edit":
                edit(self.root / path, block.text, where)
            case "output":
                plain = " ".join(self.output.split())
                for line in block.text.splitlines():
                    assert " ".join(line.split()) in plain, f"{where}: {line!r} is not in\n{self.output}"
            case "python":
                self.run([str(self.root / ".venv/bin/python"), "-c", block.text], where)
            case "bash" | "fails":
                self.run(["bash", "-euo", "pipefail", "-c", block.text], where, fails=order == "fails")
            case other:
                message = f"{where}: nobody knows what to do with {other!r}"
                raise ValueError(message)

    def run(self, command: list[str], where: str, *, fails: bool = False) -> None:
        """Run a command in the checkout; its output is kept."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environ(), check=False, capture_output=True, text=True, timeout=300
        )
        self.output = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, f"{where}: exit status {done.returncode}\n{self.output}"


def blocks(guide: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = guide.read_text()
    return [
        Block(
            language=found[1],
            order=found[2].strip(),
            text=found[3],
            line=text[: found.start()].count("\n") + 1,
        )
        for found in _FENCE.finditer(text)
    ]


def edit(path: Path, diff: str, where: str) -> None:
    """Apply a diff block: each part must fit at exactly one place."""
    content = path.read_text()
    for part in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = part.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] != "+")
        new = "".join(line[1:] for line in lines if line[0] != "-")
        assert content.count(old) == 1, f"{where}: these lines are {content.count(old)} times in {path.name}\n{old}"
        content = content.replace(old, new)
    path.write_text(content)


def checkout(folder: Path) -> Checkout:
    """A copy of what a guide needs of the checkout, with this interpreter's environment as its `.venv`."""
    root = folder / "checkout"
    root.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / name)
    (root / "sitecustomize.py").write_text(_NO_TORCH)
    (root / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith(".installed"):
            (root / ".venv" / entry.name).symlink_to(entry)
    made = Checkout(root=root, home=folder / "home")
    # everything is installed: make is shown the stamp that says so, and asked itself what it is called
    made.run(["make", "-s", "--eval", "stamp: ; @echo $(STAMP)", "stamp"], "stamp")
    (root / made.output.strip()).touch()
    return made
