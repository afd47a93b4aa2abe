"""A finished training set: a folder of arrays under a content digest, carried to wherever the fit runs.

Loading it needs numpy and pyarrow alone. Grain of `examples.parquet`: one row an example; the arrays run along with
it. `manifest.json` says from which version of the log it came and holds the sha256 of every file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.encoding import Encoding
from clicktrail.windows import Tokens

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """R examples with everything that a fit needs.

    `tokens`: encoded sequences by view; `request_ids` int32 [R, C], `request_numbers` float32 [R, 2 V]; `target` int64
    [R]: the label, or the position of item or class (-1: one that training had not seen), of time tasks float64 [R, 2]:
    seconds, and 1 where it happened then, 0 where it had not yet; `split` int8 [R]; `t` int64 [R], microseconds UTC;
    `entity` int64 [R]: queries of one entity share a history; `example_id` string [R]. `items`: next item only, a
    row an output position: item_id, category_id, price_minor, popularity. `value` int64 [R]: what came after each
    example, in minor units, where the task asks for it.
    """

    manifest: dict[str, Any]
    encoding: Encoding
    tokens: dict[str, Tokens]
    request_ids: np.ndarray
    request_numbers: np.ndarray
    target: np.ndarray
    split: np.ndarray
    t: np.ndarray
    entity: np.ndarray
    example_id: pa.Array
    scalars: pa.Table
    items: pa.Table | None = None
    value: np.ndarray | None = None

    def of(self, split: int) -> np.ndarray:
        """Places of a split's examples, int64."""
        return np.flatnonzero(self.split == split)

    @property
    def digest(self) -> str:
        """Digest of the content."""
        return str(self.manifest["digest"])


def save(data: TrainingSet, folder: Path) -> dict[str, Any]:
    """Write a training set into an empty folder; gives the manifest with digests."""
    folder.mkdir(parents=True, exist_ok=True)
    for view, tokens in data.tokens.items():
        for part in ("ids", "numbers", "starts", "ends"):
            np.save(folder / f"{view}__{part}.npy", getattr(tokens, part))
    np.save(folder / "request_ids.npy", data.request_ids.astype(np.int32))
    np.save(folder / "request_numbers.npy", data.request_numbers)
    pq.write_table(
        pa.table(
            {
                "example_id": data.example_id,
                "t": pa.array(data.t, pa.int64()),
                "split": pa.array(data.split, pa.int8()),
                **_target_columns(data.target),
                "entity": pa.array(data.entity, pa.int64()),
                **({} if data.value is None else {"value": pa.array(data.value, pa.int64())}),
            }
        ),
        folder / "examples.parquet",
    )
    pq.write_table(data.scalars, folder / "scalars.parquet")
    if data.items is not None:
        pq.write_table(data.items, folder / "items.parquet")
    (folder / "encoding.json").write_text(json.dumps(data.encoding.to_json()))
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    manifest = {**data.manifest, "files": files, "digest": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def load(folder: Path) -> TrainingSet:
    """Read a training set; arrays stay on disk until they are touched.

    Raises:
        ValueError: the folder is no training set, or a file of it was changed.
    """
    if not (folder / "manifest.json").is_file():
        message = f"{folder} is no training set: it has no manifest.json"
        raise ValueError(message)
    manifest = json.loads((folder / "manifest.json").read_text())
    changed = [name for name, digest in manifest["files"].items() if file_digest(folder / name) != digest]
    if changed:
        message = f"training set {folder}: {', '.join(changed)} changed since it was made: delete it and make it again"
        raise ValueError(message)
    encoding = Encoding.from_json(json.loads((folder / "encoding.json").read_text()))
    examples = pq.read_table(folder / "examples.parquet")
    return TrainingSet(
        manifest=manifest,
        encoding=encoding,
        tokens={
            one.view: Tokens(
                **{part: np.load(folder / f"{one.view}__{part}.npy") for part in ("ids", "numbers", "starts", "ends")},
                edge=one.edge,
            )
            for one in encoding.spec.sequences
        },
        request_ids=np.load(folder / "request_ids.npy"),
        request_numbers=np.load(folder / "request_numbers.npy"),
        target=_target(examples),
        split=examples["split"].to_numpy(),
        t=examples["t"].to_numpy(),
        entity=examples["entity"].to_numpy(),
        example_id=examples["example_id"].combine_chunks(),
        scalars=pq.read_table(folder / "scalars.parquet"),
        items=pq.read_table(folder / "items.parquet") if (folder / "items.parquet").is_file() else None,
        value=examples["value"].to_numpy() if "value" in examples.column_names else None,
    )


def _target_columns(target: np.ndarray) -> dict[str, pa.Array]:
    if target.ndim == 1:
        return {"target": pa.array(target, pa.int64())}
    return {"target": pa.array(target[:, 0], pa.float64()), "seen": pa.array(target[:, 1] == 1)}


def _target(examples: pa.Table) -> np.ndarray:
    target = examples["target"].to_numpy()
    return np.stack([target, examples["seen"].to_numpy()], 1) if "seen" in examples.column_names else target


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
