"""Scores of examples: the model's answer to each as serving would give it, in batches of little padding."""

from __future__ import annotations

import numpy as np
import torch

from training.batches import Arrays, batches, own_windows
from training.model import BINARY, NEXT_ITEM, SequenceModel
from training.training_set import TrainingSet

TOP = 20
_ROWS = 1_024


def rank_of(score_QI: torch.Tensor, target_Q: torch.Tensor) -> torch.Tensor:
    """1-based rank of each query's target, ties against it; one past the last where the target is -1. int64 [Q]."""
    own_Q1 = score_QI.gather(1, target_Q.clamp(min=0)[:, None])
    rank_Q = (score_QI >= own_Q1).sum(1)
    return torch.where(target_Q < 0, score_QI.shape[1] + 1, rank_Q)


@torch.no_grad()
def predict(
    model: SequenceModel,
    data: TrainingSet,
    examples: np.ndarray,
    *,
    tokens: int = 32_768,
    arrays: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """The model's answers, rows as in `examples`.

    Args:
        model: on any device.
        data: has the examples.
        examples: their places, int64 [n].
        tokens: events a batch, padding included.
        arrays: of this data on the model's device, where the caller has them already.

    Returns:
        Next item: `rank` int64 [n], `ranked` int64 [n, 20] positions. Else `score`, float64: [n], a probability, of a
        binary task; [n, columns] (`Head.answers`) of the others; of a time task also `median` [n], seconds.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    parts: list[tuple[np.ndarray, ...]] = []
    vectors = model.item_vectors() if model.head == NEXT_ITEM else None
    timed = model.head == "time"
    for batch in batches(arrays or Arrays(data, device), own_windows(data, examples), tokens=tokens, rows=_ROWS):
        out, example = model(batch), batch["example"].cpu().numpy()
        if vectors is None:
            out = out.double()
            found = (model.predictor.answers(out), *([model.predictor.median(out)] if timed else []))
            parts.append((example, *(one.cpu().numpy() for one in found)))
            continue
        score_QI = (out @ vectors[0].T + vectors[1]).float()
        best = score_QI.topk(min(TOP, score_QI.shape[1]), 1).indices
        parts.append((example, rank_of(score_QI, batch["target"]).cpu().numpy(), best.cpu().numpy()))
    model.train(training)
    example = np.concatenate([part[0] for part in parts])
    place = np.argsort(example, kind="stable")[np.argsort(np.argsort(examples, kind="stable"), kind="stable")]
    names = ("score", *(("median",) if timed else ())) if vectors is None else ("rank", "ranked")
    return {name: np.concatenate([part[1 + at] for part in parts])[place] for at, name in enumerate(names)}


def metric_of(
    model: SequenceModel, data: TrainingSet, examples: np.ndarray, metric: str, arrays: Arrays | None = None
) -> float:
    """The primary metric of the model on these examples; `arrays` as in `predict`."""
    from training.evaluation import binary_metrics, ranking_metrics
    from training.head_metrics import log_likelihoods

    found = predict(model, data, examples, arrays=arrays)
    if model.head == NEXT_ITEM:
        return ranking_metrics(found["rank"])[metric]
    target = data.target[examples]
    if model.head != BINARY:
        return float(np.nanmean(log_likelihoods(data.manifest, target, found["score"])))
    return binary_metrics(target, found["score"], 0.5)[metric]
