"""Heads: what is predicted, its likelihood, and what an exported model answers. Q queries, C classes, K pieces of time.

A head names how many numbers the model gives a query (`outputs`), the loss of these numbers, and the prediction that
they stand for; `predict` alone is exported. Next items have a query vector instead, and losses of their own
(training/losses.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.losses import binary_loss

_HOUR, _DAY = 3_600.0, 86_400.0
TIME_EDGES = tuple([_HOUR, 6 * _HOUR] + [day * _DAY for day in (1, 3, 7, 14, 30, 60, 90, 180)])
_LARGEST = 15.0
"""Logarithms of means and rates stay within this, so that their exponentials are numbers."""
_RARE = 1e-6


class Head(nn.Module):
    """Numbers of a query [Q] or [Q, outputs] -> loss and prediction.

    Attributes:
        outputs: how many numbers.
        columns: of a prediction; 0: it is one number a query, [Q].
        meaning: of the prediction, for those who read an export.
    """

    outputs = 1
    columns = 0
    meaning = ""

    def loss(self, out: torch.Tensor, target: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
        """Mean negative log-likelihood of the targets, a scalar; `negative_rate` is of binary heads alone."""
        raise NotImplementedError

    def predict(self, out: torch.Tensor) -> torch.Tensor:
        """The prediction, float32 (of float64 numbers: float64) [Q] or [Q, columns]."""
        raise NotImplementedError

    def answers(self, out: torch.Tensor) -> torch.Tensor:
        """The prediction and what else its likelihood needs (training/head_metrics.py), as float64 where `out` is."""
        return self.predict(out)

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """Where the bias of the numbers starts, float32 [outputs]: what the training targets say as one."""
        raise NotImplementedError


class BinaryHead(Head):
    """Whether it happens: a logit. Target 0 or 1, prediction its probability [Q]."""

    meaning = "probability of label 1"

    def loss(self, out: torch.Tensor, target: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
        """Cross entropy, for a training set that kept a share of the negatives alone."""
        return binary_loss(out, target, negative_rate)

    def predict(self, out: torch.Tensor) -> torch.Tensor:
        """Probability of 1."""
        return torch.sigmoid(out)

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """Log odds of 1."""
        return target.double().mean().clamp(_RARE, 1 - _RARE).logit().float()[None]


class MulticlassHead(Head):
    """Which of C: logits. Target int64 class, negative where none is known; prediction probabilities [Q, C]."""

    meaning = "probability of each class"

    def __init__(self, classes: int) -> None:
        """For 2 classes or more.

        Raises:
            ValueError: there are fewer.
        """
        super().__init__()
        if classes < 2:  # noqa: PLR2004 - a choice needs two
            message = f"a multiclass head chooses among 2 classes or more, not {classes}"
            raise ValueError(message)
        self.outputs = self.columns = classes

    def loss(self, out: torch.Tensor, target: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
        """Cross entropy of the known targets."""
        del negative_rate
        known = target >= 0
        return F.cross_entropy(out[known].float(), target[known], reduction="sum") / known.sum().clamp(min=1)

    def predict(self, out: torch.Tensor) -> torch.Tensor:
        """Probability of each class."""
        return out.softmax(-1)

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """Logs of the shares of the classes, each counted once more than it was seen."""
        counts = torch.bincount(target[target >= 0], minlength=self.outputs).float() + 1
        return (counts / counts.sum()).log()


class CountHead(Head):
    """How often: negative binomial. Numbers are log mean and log shape; the larger the shape, the closer to Poisson.

    Target a count; prediction [Q, 2]: expected count, probability of at least one.
    """

    outputs = columns = 2
    meaning = "expected count, probability of at least one"

    def loss(self, out: torch.Tensor, target: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
        """Negative log-likelihood of the counts."""
        del negative_rate
        return -self.log_likelihood(out, target).mean().float()

    def log_likelihood(self, out_Q2: torch.Tensor, count_Q: torch.Tensor) -> torch.Tensor:
        """Log of the probability of these counts, float64 [Q]: a large shape leaves little of a float's digits."""
        mean, shape = _logs(out_Q2.double())
        count, r = count_Q.double(), shape.exp()
        both = torch.logaddexp(mean, shape)
        ways = torch.lgamma(count + r) - torch.lgamma(r) - torch.lgamma(count + 1)
        return ways + r * (shape - both) + count * (mean - both)

    def predict(self, out: torch.Tensor) -> torch.Tensor:
        """Expected count, and probability of at least one."""
        mean, shape = _logs(_wide(out))
        some = 1 - (-shape.exp() * F.softplus(mean - shape)).exp()  # none at all: (r / (r + mean)) ^ r
        return torch.stack([mean.exp(), some], -1)

    def answers(self, out: torch.Tensor) -> torch.Tensor:
        """Expected count, probability of at least one, shape."""
        return torch.cat([self.predict(out), _logs(_wide(out))[1].exp()[:, None]], -1)

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """Logs of mean and shape by their moments; where counts spread no more than Poisson, a large shape."""
        count = target.double()
        mean, variance = count.mean().clamp(min=_RARE), count.var(correction=0)
        shape = mean**2 / (variance - mean).clamp(min=_RARE)
        return torch.stack([mean, shape]).clamp(_RARE, 1 / _RARE).log().float()


class TimeHead(Head):
    """How long until it happens: a rate that is constant between `edges`, and from the last one on.

    So examples whose time was cut off (the log ended first) count exactly for as long as they were seen. Numbers are
    logs of rates, in events by piece. Target float [Q, 2]: seconds, and 1 if it happened then, 0 if it had not yet.
    Prediction [Q, K]: the probability that it happens by each edge.
    """

    start_K1: torch.Tensor
    width_K1: torch.Tensor

    def __init__(self, edges: Sequence[float] = TIME_EDGES) -> None:
        """`edges`: seconds, rising, above 0.

        Raises:
            ValueError: they are not.
        """
        super().__init__()
        starts = [0.0, *edges]
        widths = [after - before for before, after in zip(starts, edges, strict=False)]
        if not widths or min(widths) <= 0:
            message = f"edges of time must rise from above 0, not {list(edges)}"
            raise ValueError(message)
        self.outputs, self.columns = len(starts), len(edges)
        self.meaning = f"probability that it happens within {', '.join(f'{edge:g}' for edge in edges)} seconds"
        # times are counted in days, so that their squares stay small
        self.register_buffer("start_K1", torch.tensor(starts) / _DAY, persistent=False)
        self.register_buffer("width_K1", torch.tensor([*widths, edges[-1]]) / _DAY, persistent=False)

    def loss(self, out: torch.Tensor, target: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
        """Negative log-likelihood of times by the day."""
        del negative_rate
        target = target.float()
        return -self.log_likelihood(out, target[:, 0], target[:, 1]).mean()

    def log_likelihood(self, out_QK1: torch.Tensor, seconds_Q: torch.Tensor, seen_Q: torch.Tensor) -> torch.Tensor:
        """Log density (by the day) where it was seen to happen, log probability of not yet where not, [Q]."""
        rate_QK1 = self._rates(out_QK1)
        spent_QK1, piece_Q1 = self._spent(seconds_Q)
        log_rate_Q = rate_QK1.gather(1, piece_Q1).log()[:, 0]
        return seen_Q * log_rate_Q - (rate_QK1 * spent_QK1).sum(1)

    def predict(self, out: torch.Tensor) -> torch.Tensor:
        """Probability that it happens by each edge."""
        return 1 - (-self._by_edge(out)).exp()

    def start(self, target: torch.Tensor) -> torch.Tensor:
        """Logs of events by time watched, piece by piece; a piece that was hardly watched has the overall rate."""
        spent_QK1, piece_Q1 = self._spent(target[:, 0])
        watched_K1 = spent_QK1.sum(0)
        events_K1 = torch.bincount(piece_Q1[target[:, 1] == 1, 0], minlength=self.outputs).float()
        overall = events_K1.sum().clamp(min=1) / watched_K1.sum().clamp(min=_RARE)
        return ((events_K1 + 1) / (watched_K1 + 1 / overall) * self.width_K1).log()

    def median(self, out_QK1: torch.Tensor) -> torch.Tensor:
        """Seconds after which it has happened with probability 1/2, [Q]."""
        before_QK1 = F.pad(self._by_edge(out_QK1), (1, 0))
        piece_Q1 = (before_QK1 <= math.log(2)).sum(1, keepdim=True) - 1
        rest_Q1 = (math.log(2) - before_QK1.gather(1, piece_Q1)) / self._rates(out_QK1).gather(1, piece_Q1)
        return (self.start_K1[piece_Q1] + rest_Q1)[:, 0] * _DAY

    def _spent(self, seconds_Q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Days spent in each piece [Q, K + 1], and the piece where they end [Q, 1]."""
        days_Q1 = (seconds_Q.float() / _DAY).clamp(min=0)[:, None]
        spent_QK1 = (days_Q1 - self.start_K1).clamp(min=0)
        spent_QK1 = torch.cat([spent_QK1[:, :-1].minimum(self.width_K1[:-1]), spent_QK1[:, -1:]], 1)
        return spent_QK1, torch.searchsorted(self.start_K1, days_Q1, right=True) - 1

    def _rates(self, out_QK1: torch.Tensor) -> torch.Tensor:
        """Rates by the day."""
        return _wide(out_QK1).clamp(-_LARGEST, _LARGEST).exp() / self.width_K1

    def _by_edge(self, out_QK1: torch.Tensor) -> torch.Tensor:
        """Expected events up to each edge, [Q, K]."""
        return (self._rates(out_QK1) * self.width_K1)[:, :-1].cumsum(1)


def head_of(manifest: Mapping[str, Any]) -> Head:
    """The head that a training set's manifest asks for, next items apart."""
    kind = manifest["head"]
    if kind == "multiclass":
        return MulticlassHead(len(manifest["classes"]))
    if kind == "time":
        return TimeHead(manifest["edges"])
    return CountHead() if kind == "count" else BinaryHead()


def _wide(out: torch.Tensor) -> torch.Tensor:
    """As float32, where it is not wider: under autocast numbers come in half of it."""
    return out if out.dtype == torch.float64 else out.float()


def _logs(out_Q2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log mean and log shape."""
    mean, shape = out_Q2.clamp(-_LARGEST, _LARGEST).unbind(-1)
    return mean, shape
