"""Labels of examples: what each counts as, by knowledge that its split had, and what is said of them.

Form by head: `binary` float64 [n], 0 or 1; `count` int64 [n]; `time` float64 [n, 2]: seconds, and 1 where it happened
then, 0 where it had not yet; `multiclass` names [n], which `class_codes` turns into int64 positions once the classes of
the training examples are known. Next items have none: their target is an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.split import OUTSIDE, TimeSplit
from training.task import Task

_NEVER = np.iinfo(np.int64).max


def labels_of(task: Task, table: pa.Table, split: np.ndarray, parts: TimeSplit) -> np.ndarray:
    """Labels of all examples.

    Args:
        task: says which head.
        table: as its `examples` gave it.
        split: of each row, int8.
        parts: the cuts, by which a label had to be known.

    Raises:
        ValueError: an answer is missing or is none; names the row.
    """
    if task.head == "binary":
        return (_moments(table, "label_known_at") < _cuts(split, parts)).astype(np.float64)
    if task.head == "multiclass":
        column = table["class"]
        _refuse(table, pc.is_null(column), "class is null: give what did not happen a class of its own")
        return np.array(column.to_pylist(), object)
    if task.head == "count":
        column = table["count"]
        _refuse(table, pc.fill_null(pc.less(column, 0), True), "count is null or below 0: what never came counts 0")  # noqa: FBT003
        return column.to_numpy().astype(np.int64)
    if task.head == "time":
        return _times(task, table, _cuts(split, parts))
    return np.zeros(len(split))


def _times(task: Task, table: pa.Table, cut: np.ndarray) -> np.ndarray:
    """Seconds until it happened, or for how long it was watched in vain.

    An example is watched until the cut of its split less the label delay. What happened later, or was not known by the
    cut, had not happened as far as anybody knew: the time is cut off there.
    """
    t = table["t"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    happened, known = _moments(table, "happened_at"), _moments(table, "label_known_at")
    _refuse(table, pa.array(happened < t), "happened_at lies before t: ask for what comes at t or later")
    watched = cut - task.label_delay // timedelta(microseconds=1)
    seen = (known < cut) & (happened < watched)
    seconds = np.maximum(np.where(seen, happened, watched) - t, 0) / 1e6
    return np.stack([seconds, seen], 1)


# ---- classes


def classes_of(names: np.ndarray) -> tuple[str, ...]:
    """The classes of the training examples, most frequent first, equally frequent ones by name."""
    found, count = np.unique(names.astype(str), return_counts=True)
    return tuple(found[np.lexsort((found, -count))].tolist())


def class_codes(names: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Position of each name among the classes, int64 [n]; -1 for one that training had not seen."""
    place = {name: at for at, name in enumerate(classes)}
    return np.array([place.get(name, -1) for name in names], np.int64)


# ---- what is said of labels


def differ(head: str, label: np.ndarray) -> bool:
    """Whether not all have the same answer; of times, whether anything was seen to happen."""
    return bool(label[:, 1].any()) if head == "time" else bool((label != label[:1]).any())


def said(head: str, label: np.ndarray) -> str:
    """What the labels of a range are like, for the sentence that refuses it."""
    if head == "binary":
        return f", {int(label.sum())} of them with label 1"
    if head == "time":
        return f", {int(label[:, 1].sum())} of them seen to happen"
    return "" if head == "next_item" or differ(head, label) or not len(label) else f", all with the answer {label[0]}"


def described(task: Task, classes: tuple[str, ...], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For a training set's manifest: what the outputs are, and a summary of the labels by split.

    `positives`: mean of 0-1 labels. `labels`, of the other heads: share of each class, unseen ones apart; mean count
    and share of zeros; share that was seen to happen.
    """
    if task.head == "multiclass":
        shares = {
            split: {
                **{name: float((label == at).mean()) for at, name in enumerate(classes)},
                "of classes unseen in training": float((label < 0).mean()),
            }
            for split, label in labels.items()
        }
        return {"positives": {}, "classes": list(classes), "labels": shares}
    if task.head == "count":
        counts = {
            split: {"mean": float(label.mean()), "none": float((label == 0).mean())} for split, label in labels.items()
        }
        return {"positives": {}, "labels": counts}
    if task.head == "time":
        seen = {split: {"seen to happen": float(label[:, 1].mean())} for split, label in labels.items()}
        return {"positives": {}, "edges": list(task.edges), "labels": seen}
    if task.head == "next_item":
        return {"positives": {}}
    return {"positives": {split: float(label.mean()) for split, label in labels.items()}}


# ---- columns


def _moments(table: pa.Table, name: str) -> np.ndarray:
    """A time column as int64 microseconds UTC, null as the end of all time."""
    return pc.fill_null(table[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), _NEVER).to_numpy()


def _cuts(split: np.ndarray, parts: TimeSplit) -> np.ndarray:
    """By example, the moment whose knowledge its label may use; 0 outside of all splits."""
    return np.array([*parts.cuts, 0], np.int64)[np.where(split == OUTSIDE, 3, split)]


def _refuse(table: pa.Table, bad: Any, why: str) -> None:  # noqa: ANN401 - an array or a chunked one
    """Raise for the first bad row, if there is one."""
    places = np.flatnonzero(np.asarray(bad))
    if len(places):
        message = f"example {table['example_id'][places[0]].as_py()!r} (of {len(places)}): {why}"
        raise ValueError(message)
