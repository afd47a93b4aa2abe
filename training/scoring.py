"""Scores of examples: the model's answer to each as serving would give it, in batches of little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from training.batches import Arrays, batches, own_windows
from training.model import BINARY, NEXT_ITEM, SequenceModel
from training.training_set import TrainingSet

TOP = 20
_ROWS = 1_024
_CELLS = 1 << 27
"""So many scores of items at once, at most: 512 MiB of float32."""


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
    parts: list[tuple[np.ndarray, ...]] = []
    if model.head == NEXT_ITEM:
        for example, score_QI, target_Q in logits(model, data, examples, tokens=tokens, arrays=arrays):
            parts.append((example, rank_of(score_QI, target_Q).cpu().numpy(), best_of(score_QI)))
        return in_order(parts, examples, ("rank", "ranked"))
    timed = model.head == "time"
    for batch, out in _answered(model, data, examples, tokens=tokens, rows=_ROWS, arrays=arrays):
        raw = out.double()
        found = (model.predictor.answers(raw), *([model.predictor.median(raw)] if timed else []))
        parts.append((batch["example"].cpu().numpy(), *(one.cpu().numpy() for one in found)))
    return in_order(parts, examples, ("score", *(("median",) if timed else ())))


@torch.no_grad()
def logits(
    model: SequenceModel,
    data: TrainingSet,
    examples: np.ndarray,
    *,
    tokens: int = 32_768,
    arrays: Arrays | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """Scores of all items for next-item examples, in batches whose order is that of the lengths of histories.

    Args:
        model: as in `predict`, whose other arguments these are too.
        data: has the examples.
        examples: their places.
        tokens: events a batch.
        arrays: of this data on the model's device.

    Yields:
        Places of the examples int64 [Q] in `data`, float32 [Q, I], their targets int64 [Q], -1 where unknown.
    """
    e_ID, bias_I = model.item_vectors()
    rows = max(1, min(_ROWS, _CELLS // len(bias_I)))
    for batch, q_QD in _answered(model, data, examples, tokens=tokens, rows=rows, arrays=arrays):
        yield batch["example"].cpu().numpy(), (q_QD @ e_ID.T + bias_I).float(), batch["target"]


def best_of(score_QI: torch.Tensor) -> np.ndarray:
    """Positions of the `TOP` best of each row, best first, int64."""
    return score_QI.topk(min(TOP, score_QI.shape[1]), 1).indices.cpu().numpy()


def in_order(parts: list[tuple[np.ndarray, ...]], examples: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Answers of batches (places of the examples, then an array a name), put together in the order of `examples`."""
    example = np.concatenate([part[0] for part in parts])
    place = np.argsort(example, kind="stable")[np.argsort(np.argsort(examples, kind="stable"), kind="stable")]
    return {name: np.concatenate([part[1 + at] for part in parts])[place] for at, name in enumerate(names)}


@torch.no_grad()
def _answered(
    model: SequenceModel, data: TrainingSet, examples: np.ndarray, *, tokens: int, rows: int, arrays: Arrays | None
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Batches of examples, each with a window of its own, and what the model says; its mode is as before in the end."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    for batch in batches(arrays or Arrays(data, device), own_windows(data, examples), tokens=tokens, rows=rows):
        yield batch, model(batch)
    model.train(training)


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
