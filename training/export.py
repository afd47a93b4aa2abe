"""Export a fitted model to what serving reads: ONNX without pickle, encoding, item table, fallback, golden answers.

Files of `export/`:
  model.onnx        inputs by name (see interface.json), output `scores`, or of a next-item model `query`; batch and
                    lengths are free
  interface.json    how to go from features to answers: task, head, feature service, declarations, inputs, request,
                    threshold, calibration, value, costs; of classes their names, of times the edges
  encoding.json     state of `clicktrail.encoding.Encoding`: `from_json`, then `encode_lists(features, request, t)`
  items.parquet, item_vectors.npy, and of a large catalogue items.usearch: next item only (training/export_items.py)
  blend_*.npy       simple recommenders beside the network: next item only (training/export_blend.py)
  fallback.json     what to answer when nothing is known of the entity
  golden.json       synthetic features and the answers that eager torch gave to them, of a blend all of it
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from clicktrail.contract import EVENT_COLUMNS
from clicktrail.encoding import Encoding
from clicktrail.value_table import ValueTable
from training.export_items import EXACT_ITEMS, write_items
from training.golden import golden_rows
from training.heads import head_of
from training.model import BINARY, NEXT_ITEM, SequenceModel, ServedModel
from training.training_set import TRAIN, TrainingSet
from training.trees import CUSTOM_OPSETS

if TYPE_CHECKING:
    from training.blended import Blended  # needs scipy, which a machine that only fits networks need not have

FORMAT = 1
TOLERANCE = 1e-4
_TOP = 100


def export(
    model: SequenceModel,
    data: TrainingSet,
    folder: Path,
    *,
    threshold: float | None = None,
    calibration: dict[str, Any] | None = None,
    value: ValueTable | None = None,
    costs: dict[str, dict[str, float]] | None = None,
    exact_items: int = EXACT_ITEMS,
    blended: Blended | None = None,
) -> None:
    """Write the export of a fitted model into a folder.

    Args:
        model: fitted, on the CPU.
        data: its training set.
        folder: is made if need be.
        threshold: binary tasks: a score from here on is called positive.
        calibration: how scores become probabilities, and how far they are from that.
        value: what the event is worth if it comes.
        costs: what acting on a score costs.
        exact_items: next item only: a catalogue of more gets an index.
        blended: next item only: the simple recommenders that join the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoding = data.encoding
    write_onnx(model, encoding, folder / "model.onnx")
    (folder / "encoding.json").write_text(json.dumps(encoding.to_json()))
    items = {} if data.items is None else write_items(model, data, folder, exact_items=exact_items)
    decisions = {"value": None if value is None else value.to_json(), "costs": costs}
    described = interface(model, data, threshold=threshold, calibration=calibration) | items | decisions
    described["blend"] = None
    if blended is not None:
        from training.export_blend import write_blend

        described["blend"] = write_blend(blended, folder)
    (folder / "interface.json").write_text(json.dumps(described, indent=1))
    (folder / "fallback.json").write_text(json.dumps(fallback(data), indent=1))
    (folder / "golden.json").write_text(json.dumps(golden(model, data, blended), indent=1))


def interface(
    model: SequenceModel, data: TrainingSet, *, threshold: float | None, calibration: dict[str, Any] | None
) -> dict[str, Any]:
    """How to go from features to answers."""
    spec, ranking = data.encoding.spec, model.head == NEXT_ITEM
    columns = model.out.out_features if ranking else model.predictor.columns
    types = {column.name: str(column.type) for column in EVENT_COLUMNS}
    return {
        "format": FORMAT,
        "task": data.manifest["task"],
        "head": model.head,
        "feature_service": data.manifest["feature_service"],
        "declarations": data.manifest["declarations"],
        "inputs": {name: [dtype, list(shape)] for name, (dtype, shape) in data.encoding.inputs().items()},
        "outputs": {output_name(model): ["float32", ["batch", columns] if columns else ["batch"]]},
        "output_meaning": "query @ item_vectors.T + bias: logits of the items" if ranking else model.predictor.meaning,
        **{name: data.manifest[name] for name in ("classes", "edges") if name in data.manifest},
        "request": {name: types.get(name, "string") for name in spec.request_fields},
        "sequences": {one.view: one.last for one in spec.sequences},
        "items": None,
        "threshold": threshold,
        "calibration": calibration or {},
        "training_set": data.digest,
        "log_offset": data.manifest["log_offset"],
    }


def fallback(data: TrainingSet) -> dict[str, Any]:
    """What is said of those of whom nothing is known.

    Next item: the most viewed items of the training range with their shares. Binary: the base rate. Else `scores`: the
    prediction that is best for all training examples as one.
    """
    if data.items is not None:
        popularity = data.items["popularity"].to_numpy()
        best = np.argsort(-popularity, kind="stable")[:_TOP]
        share = popularity / max(1, popularity.sum())
        names = data.items["item_id"].to_pylist()
        return {"items": [names[place] for place in best], "scores": [float(share[place]) for place in best]}
    if data.manifest["head"] != BINARY:
        head = head_of(data.manifest)
        start = head.start(torch.from_numpy(data.target[data.of(TRAIN)]))
        return {"scores": head.predict(start[None])[0].tolist()}
    labels = data.target[data.of(TRAIN)].astype(np.float64)
    rate = float(data.manifest.get("negative_rate", 1.0))
    positive, negative = labels.sum(), (1 - labels).sum() / rate
    return {"score": float(positive / max(1.0, positive + negative))}


# ---- the model file


def write_onnx(model: SequenceModel, encoding: Encoding, path: Path) -> None:
    """One self-contained ONNX file; batch and sequence lengths are free."""
    names = list(encoding.inputs())
    served = ServedModel(model, names).eval()
    arrays = tuple(torch.from_numpy(array) for array in example_inputs(encoding).values())
    axes: dict[str, dict[int, str]] = {
        name: {place: size for place, size in enumerate(shape) if isinstance(size, str)}
        for name, (_, shape) in encoding.inputs().items()
    }
    # the TorchScript exporter: the newer one unrolls recurrent layers to a fixed length. A test compares the file with
    # eager torch at other batch sizes and lengths than those traced here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            arrays,
            str(path),
            input_names=names,
            output_names=[output_name(model)],
            dynamic_axes={**axes, output_name(model): {0: "batch"}},
            opset_version=18,
            custom_opsets=CUSTOM_OPSETS if model.trees is not None else None,
            dynamo=False,
        )


def output_name(model: SequenceModel) -> str:
    """What the model file gives."""
    return "query" if model.head == NEXT_ITEM else "scores"


def example_inputs(encoding: Encoding) -> dict[str, np.ndarray]:
    """Arrays of the right shapes: two rows of three events."""
    sizes = {"batch": 2}
    out = {}
    for name, (dtype, shape) in encoding.inputs().items():
        out[name] = np.zeros([sizes.get(size, 3) if isinstance(size, str) else size for size in shape], dtype)
        if name.endswith("__length"):
            out[name][:] = [3, 1]
    return out


# ---- golden answers


def golden(model: SequenceModel, data: TrainingSet, blended: Blended | None = None) -> dict[str, Any]:
    """Synthetic features, as a server would read them, and eager torch's answers to each row alone.

    Scores of items are logits, and of a blend logarithms of its shares.
    """
    rows = golden_rows(data)
    served = ServedModel(model, list(data.encoding.inputs())).eval()
    cases = []
    for row in rows:
        features = {view: {name: [value] for name, value in found.items()} for view, found in row["features"].items()}
        request = {name: [value] for name, value in row["request"].items()}
        inputs = data.encoding.encode_lists(features, request, np.array([row["t"]], np.int64))
        with torch.no_grad():
            out = served(*(torch.from_numpy(array) for array in inputs.values()))
            scores = model.scores(out)[0] if model.head == NEXT_ITEM else out[0]
        if blended is not None and not blended.network_alone:
            scores = torch.from_numpy(np.log(blended.answers(scores[None].numpy(), data.encoding, inputs)[0]))
        cases.append({**row, "answer": _answer(scores, data.items)})
    return {"tolerance": TOLERANCE, "cases": cases}


def _answer(scores: torch.Tensor, items: pa.Table | None) -> dict[str, Any]:
    if scores.ndim == 0:
        return {"score": float(scores)}
    if items is None:
        return {"scores": scores.tolist()}
    value, place = scores.topk(min(10, len(scores)))
    names = items["item_id"].to_pylist()
    return {"items": [names[one] for one in place.tolist()], "scores": [float(one) for one in value.tolist()]}
