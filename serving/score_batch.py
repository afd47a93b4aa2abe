"""Answers a file of requests by a bundle: `python -m serving.score_batch --bundle TAG --in FILE --out FILE`.

The bundle's own code runs, in a process that finds no other of ours, and passes all its checks first. Rows are read,
decided and written in chunks, with one read of the state and one run of the model a chunk, as the service would answer
them now. A row that breaks a rule goes to OUT.rejected.parquet with its number, the rule and the reason. Both files
stand there whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clicktrail.publish import publish_file
from serving import manifest as manifests
from serving.batch_rows import (
    answer_schema,
    answer_table,
    chunks,
    fields_of,
    rejected_table,
    request_of,
    row_count,
)
from serving.checks import opened
from serving.manifest import SOURCE, RefusedError
from serving.predictor import Predictor
from serving.schema import Field, InvalidRequestError, Problem
from serving.verify import folder_of

_HERE = Path(__file__).resolve().parent.parent

ROWS = 256
"""Rows of a chunk: more are hardly cheaper a row, and a request may be about so many users."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a file; prints one line of counts."""
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="clicktrail-score-") as scratch:
        try:
            if (_HERE / "bundle").is_dir():
                return _inside(given)
            root = folder_of(given.bundle, Path(scratch))
            manifests.check_files(manifests.read(root))
        except ValueError as error:  # RefusedError, or a file or setting that cannot be read
            sys.stderr.write(f"nothing was scored: {error}\n")
            return 1
        return _by_its_own_code(root, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.score_batch", description="score a file by a bundle")
    parser.add_argument("--bundle", required=True, help="tag in BentoML's store, folder of a Bento, or exported file")
    parser.add_argument("--in", dest="source", required=True, type=Path, help="Parquet, or .csv: a request a row")
    parser.add_argument("--out", dest="target", required=True, type=Path, help="Parquet file of answers")
    parser.add_argument("--fields", default="{}", help='fields that all requests have, JSON: {"k": 20}')
    parser.add_argument("--ignore", default="", help="columns of the file to leave out: a,b")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows a chunk (1: each alone, as the service does it)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _by_its_own_code(root: Path, given: argparse.Namespace) -> int:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "serving.score_batch", "--bundle", str(root)]
    command += ["--in", str(given.source.expanduser().resolve()), "--out", str(given.target.expanduser().resolve())]
    command += ["--fields", given.fields, "--ignore", given.ignore, "--rows", str(given.rows)]
    command += ["--quiet"] if given.quiet else []
    done = subprocess.run(command, cwd=root / SOURCE, env=environ | {"PYTHONDONTWRITEBYTECODE": "1"}, check=False)
    return done.returncode


def _inside(given: argparse.Namespace) -> int:
    root = _HERE.parent
    task = manifests.read(root).task
    if not given.source.is_file():
        message = f"there is no file {given.source}"
        raise RefusedError(message)
    if given.rows < 1 or given.rows > ROWS:
        message = f"--rows is {given.rows}: give 1 to {ROWS}"
        raise RefusedError(message)
    answered, rejected = score_file(
        opened(root, task=task),
        task,
        given.source,
        given.target,
        more=_more(given.fields),
        ignore=[name for name in given.ignore.split(",") if name],
        rows=given.rows,
        progress=not given.quiet,
    )
    aside = f", {rejected:,} rejected, see {rejected_path(given.target)}" if rejected else ""
    sys.stdout.write(f"{answered + rejected:,} rows: {answered:,} answered in {given.target}{aside}\n")
    return 0


def rejected_path(target: Path) -> Path:
    """Where the rows lie that broke a rule."""
    return target.with_suffix(".rejected.parquet")


def score_file(
    predictor: Predictor,
    task: str,
    source: Path,
    target: Path,
    *,
    more: Mapping[str, Any],
    ignore: Sequence[str] = (),
    rows: int = ROWS,
    progress: bool = False,
) -> tuple[int, int]:
    """Answer every row of a file that keeps the rules; rows in = answered + rejected.

    Args:
        predictor: of the bundle.
        task: its task.
        source: Parquet or CSV, a request a row.
        target: Parquet file of answers, which it becomes in one step.
        more: fields that all requests have.
        ignore: columns to leave out.
        rows: rows a chunk.
        progress: show a bar.

    Returns:
        How many rows were answered, how many rejected.

    Raises:
        ValueError: the file cannot be read, or has a column that is no field.
    """
    from tqdm import tqdm  # no service needs it

    schema, fields = answer_schema(task), fields_of(task)
    rejected: list[tuple[int, Problem]] = []
    counts = {"answered": 0, "seen": 0}

    def write(aside: Path) -> None:
        bar = tqdm(total=row_count(source), unit=" rows", disable=not progress)
        with bar, pq.ParquetWriter(aside, schema) as writer:
            for bodies in chunks(source, fields, rows, ignore):
                numbered = list(enumerate(bodies, counts["seen"] + 1))
                requests, broken = _read(numbered, more, fields)
                answers, refused = answered(predictor, requests)
                rejected.extend(broken + refused)
                if answers:
                    writer.write_table(answer_table(answers, schema))
                counts["answered"] += len(answers)
                counts["seen"] += len(bodies)
                bar.update(len(bodies))
        beside = rejected_path(target)
        if rejected:
            table = rejected_table(sorted(rejected, key=lambda one: one[0]))
            publish_file(beside, lambda path: pq.write_table(table, path), "score_batch.rejected")
        else:
            beside.unlink(missing_ok=True)  # of a file before this one

    publish_file(target, write, "score_batch")
    return counts["answered"], counts["seen"] - counts["answered"]


Numbered = list[tuple[int, dict[str, Any]]]


def _read(
    bodies: Numbered, more: Mapping[str, Any], fields: tuple[Field, ...]
) -> tuple[Numbered, list[tuple[int, Problem]]]:
    """The requests of rows, and what is wrong with the others."""
    requests, broken = [], []
    for row, body in bodies:
        try:
            requests.append((row, request_of(body, more, fields)))
        except InvalidRequestError as error:
            broken += [(row, problem) for problem in error.problems]
    return requests, broken


def answered(predictor: Predictor, requests: Numbered) -> tuple[Numbered, list[tuple[int, Problem]]]:
    """Answers to rows at once; where a request is refused, to halves of them, down to the row that is to blame."""
    if not requests:
        return [], []
    try:
        answers = predictor.answers([request for _, request in requests])
    except InvalidRequestError as error:
        if len(requests) == 1:
            return [], [(requests[0][0], problem) for problem in error.problems]
        half = len(requests) // 2
        first, second = answered(predictor, requests[:half]), answered(predictor, requests[half:])
        return first[0] + second[0], first[1] + second[1]
    return [(row, answer) for (row, _), answer in zip(requests, answers, strict=True)], []


def _more(text: str) -> dict[str, Any]:
    try:
        more = json.loads(text)
    except ValueError as error:
        message = f"--fields is no JSON text: {error}"
        raise RefusedError(message) from error
    if not isinstance(more, dict):
        message = f"--fields is {text}: give one JSON object"
        raise RefusedError(message)
    return more


if __name__ == "__main__":
    sys.exit(main())
