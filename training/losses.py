"""Losses, each a pure function of tensors. Q queries, I items, N drawn negatives, D width.

Of next-item losses there is one door, `item_loss`. Scores of a chunk of queries stand at a time and never all of
[Q, I]: what a softmax sends back is known once its row is, so the gradient is made on the way and kept, and rows are
still in the cache when they are used again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import LossConfig

_CHUNK = 1 << 18
"""Scores that stand at a time: about a megabyte, which a core's cache holds."""
_WIDE_CHUNK = 1 << 26
"""The same on a GPU, where few and large operations count."""


def binary_loss(logit_Q: torch.Tensor, label_Q: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
    """Cross entropy of labels, where negatives were kept with probability `negative_rate` alone.

    Among the kept, odds are 1 / negative_rate times too high; adding its log inside the loss leaves the logit itself
    calibrated for the whole population.
    """
    return F.binary_cross_entropy_with_logits(logit_Q.float() - math.log(negative_rate), label_Q.float())


# ---- next item


def item_loss(
    config: LossConfig,
    q_QD: torch.Tensor,
    e_ID: torch.Tensor,
    bias_I: torch.Tensor,
    target_Q: torch.Tensor,
    log_draws_I: torch.Tensor,
) -> torch.Tensor:
    """The configured loss of next items, a scalar; scores are q_QD @ e_ID.T + bias_I.

    Negatives are drawn here, with torch's own generator: the same seed, the same draws.

    Args:
        config: which loss.
        q_QD: query vectors.
        e_ID: item vectors.
        bias_I: item biases.
        target_Q: int64, the item that came, all of them known (>= 0).
        log_draws_I: of `log_draws`; not looked at where all items are negatives.
    """
    if config.kind == "full" or (config.kind == "auto" and len(bias_I) <= config.full_up_to):
        return full_softmax(q_QD, e_ID, bias_I, target_Q)
    negative_N = torch.multinomial(log_draws_I.exp(), config.negatives, replacement=True)
    if config.kind == "gbce":
        return gbce(q_QD, e_ID, bias_I, target_Q, negative_N, config.calibration)
    return sampled_softmax(q_QD, e_ID, bias_I, target_Q, negative_N, log_draws_I)


def log_draws(config: LossConfig, popularity_I: torch.Tensor) -> torch.Tensor:
    """Log of how often each item is expected among the drawn negatives, float32 [I].

    Draws follow popularity ^ `config.popularity_power`, but for a share `config.uniform` of them, which take any item
    alike: then rare items are told apart too. All of gbce's do: it takes nothing off for how often an item is drawn, so
    what is popular would learn to be rare.
    """
    weight_I = popularity_I.double() ** config.popularity_power + 1e-3
    uniform = 1.0 if config.kind == "gbce" else config.uniform
    chance_I = (1 - uniform) * weight_I / weight_I.sum() + uniform / len(weight_I)
    return (config.negatives * chance_I).log().float()


def full_softmax(q_QD: torch.Tensor, e_ID: torch.Tensor, bias_I: torch.Tensor, target_Q: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the target among all items."""
    return _cross_entropy(q_QD, e_ID, bias_I, _own(q_QD, e_ID, bias_I, target_Q), target_Q, None)


def sampled_softmax(
    q_QD: torch.Tensor,
    e_ID: torch.Tensor,
    bias_I: torch.Tensor,
    target_Q: torch.Tensor,
    negative_N: torch.Tensor,
    log_draws_I: torch.Tensor,
) -> torch.Tensor:
    """Cross entropy of the target among negatives that all queries share (Bengio and Senecal 2008).

    `log_draws_I` is the log of how often an item is expected among the N; taking it off makes the sum over negatives
    an estimate of the full one, however popular items are drawn. The target is there for certain, so nothing is taken
    off its own score, and a negative that is the query's own target does not count.
    """
    own_Q = _own(q_QD, e_ID, bias_I, target_Q)
    offset_N = (bias_I - log_draws_I)[negative_N]
    return _cross_entropy(q_QD, F.embedding(negative_N, e_ID), offset_N, own_Q, target_Q, negative_N)


def gbce(
    q_QD: torch.Tensor,
    e_ID: torch.Tensor,
    bias_I: torch.Tensor,
    target_Q: torch.Tensor,
    negative_N: torch.Tensor,
    calibration: float,
) -> torch.Tensor:
    """Generalised binary cross entropy (Petrov and Macdonald 2023), the mean over target and negatives.

    With few of the items drawn as negatives, plain cross entropy learns scores that are far too sure. The target's
    probability is raised to the power beta = a (t (1 - 1/a) + 1/a), where a is the share of items drawn and t is
    `calibration`: 0 is plain cross entropy, 1 is calibrated. Scores start at the odds of an average item and not at
    even ones: to get there by steps of the optimiser takes a fit of its own, and all items alike learn nothing else.
    """
    drawn = min(1.0, len(negative_N) / max(1, len(bias_I) - 1))
    beta = drawn * (calibration * (1 - 1 / drawn) + 1 / drawn)
    start = math.log(beta / len(negative_N))
    own_Q = _own(q_QD, e_ID, bias_I, target_Q).float() + start
    other_QN = torch.addmm(bias_I[negative_N] + start, q_QD, F.embedding(negative_N, e_ID).T).float()
    other_QN = other_QN.masked_fill(negative_N[None, :] == target_Q[:, None], -math.inf)
    total_Q = -beta * F.logsigmoid(own_Q) + F.softplus(other_QN).sum(1)
    return total_Q.mean() / (1 + len(negative_N))


def later_targets(target_Q: torch.Tensor, window_Q: torch.Tensor, ahead: int) -> torch.Tensor:
    """For each query the target of one of its window's next `ahead` queries, drawn alike, itself the first; int64 [Q].

    A state that has to say what comes next and also what comes later (dense all action, Pancha et al. 2022) learns
    tastes that last. Queries of a window stand together, in the order of time; where fewer are left, one of these is
    drawn.

    Args:
        target_Q: int64 [Q].
        window_Q: int64 [Q], the same number for queries of one window.
        ahead: 1 leaves all targets as they are.
    """
    place_Q = torch.arange(len(target_Q), device=target_Q.device)
    ends_Q = torch.cat([window_Q[1:] != window_Q[:-1], window_Q.new_ones(min(1, len(window_Q)), dtype=torch.bool)])
    last_Q = torch.where(ends_Q, place_Q, len(place_Q)).flip(0).cummin(0).values.flip(0)
    room_Q = (last_Q - place_Q + 1).clamp(max=ahead)
    step_Q = (torch.rand(len(target_Q), device=target_Q.device) * room_Q).long()
    return target_Q[place_Q + torch.minimum(step_Q, room_Q - 1)]


# ---- inside


def _own(q_QD: torch.Tensor, e_ID: torch.Tensor, bias_I: torch.Tensor, target_Q: torch.Tensor) -> torch.Tensor:
    """Each query's score of its own target."""
    return (q_QD * F.embedding(target_Q, e_ID)).sum(1) + bias_I[target_Q]


def _cross_entropy(
    q_QD: torch.Tensor,
    e_ND: torch.Tensor,
    offset_N: torch.Tensor,
    own_Q: torch.Tensor,
    target_Q: torch.Tensor,
    item_N: torch.Tensor | None,
) -> torch.Tensor:
    loss: torch.Tensor = _CrossEntropy.apply(q_QD, e_ND, offset_N, own_Q, target_Q, item_N)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean of log(exp(own) + sum of exp(q e_n + offset_n) over the n that are not the target) - own.

    `item_N`: the item of each column; None where column n is item n.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        q_QD: torch.Tensor,
        e_ND: torch.Tensor,
        offset_N: torch.Tensor,
        own_Q: torch.Tensor,
        target_Q: torch.Tensor,
        item_N: torch.Tensor | None,
    ) -> torch.Tensor:
        total = own_Q.new_zeros((), dtype=torch.float32)
        count, columns = len(q_QD), len(e_ND)
        dq_QD, de_ND = torch.empty_like(q_QD), torch.zeros_like(e_ND, dtype=torch.float32)
        doffset_N = torch.zeros_like(offset_N, dtype=torch.float32)
        down_Q = torch.empty_like(own_Q)
        e_DN, offset_N = e_ND.to(q_QD.dtype).T, offset_N.to(q_QD.dtype)
        step = max(1, (_WIDE_CHUNK if q_QD.is_cuda else _CHUNK) // max(1, columns))
        for begin in range(0, count, step):
            chunk = slice(begin, min(count, begin + step))
            q_CD, target_C1, own_C1 = q_QD[chunk], target_Q[chunk, None], own_Q[chunk, None].float()
            score_CN = torch.addmm(offset_N, q_CD, e_DN).float()
            if item_N is None:
                score_CN.scatter_(1, target_C1, -math.inf)
            else:
                score_CN.masked_fill_(item_N == target_C1, -math.inf)
            top_C1 = torch.maximum(score_CN.amax(1, keepdim=True), own_C1)
            share_CN = score_CN.sub_(top_C1).exp_()
            own_share_C1 = (own_C1 - top_C1).exp_()
            sum_C1 = share_CN.sum(1, keepdim=True) + own_share_C1
            total += (sum_C1.log() - (own_C1 - top_C1)).sum()
            share_CN = share_CN.div_(sum_C1 * count).to(q_QD.dtype)
            dq_QD[chunk] = share_CN @ e_DN.T
            de_ND += share_CN.T @ q_CD
            doffset_N += share_CN.sum(0)
            down_Q[chunk] = ((own_share_C1 / sum_C1 - 1) / count)[:, 0].to(own_Q.dtype)
        ctx.save_for_backward(dq_QD, de_ND.to(e_ND.dtype), doffset_N, down_Q)
        return total / max(1, count)

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - torch's own
        dq_QD, de_ND, doffset_N, down_Q = ctx.saved_tensors
        (scale,) = gradient
        return dq_QD * scale, de_ND * scale, doffset_N * scale, down_Q * scale, None, None
