"""Losses, each a pure function of tensors. Q queries, I items, N drawn negatives, D width."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own idiom


def binary_loss(logit_Q: torch.Tensor, label_Q: torch.Tensor, negative_rate: float = 1.0) -> torch.Tensor:
    """Cross entropy of labels, where negatives were kept with probability `negative_rate` alone.

    Among the kept, odds are 1 / negative_rate times too high; adding its log inside the loss leaves the logit itself
    calibrated for the whole population.
    """
    return F.binary_cross_entropy_with_logits(logit_Q.float() - math.log(negative_rate), label_Q.float())


def full_softmax(q_QD: torch.Tensor, e_ID: torch.Tensor, bias_I: torch.Tensor, target_Q: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the target among all items."""
    return F.cross_entropy((q_QD @ e_ID.T + bias_I).float(), target_Q)


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
    own_Q = (q_QD * e_ID[target_Q]).sum(1) + bias_I[target_Q]
    other_QN = q_QD @ e_ID[negative_N].T + (bias_I - log_draws_I)[negative_N]
    other_QN = other_QN.masked_fill(negative_N[None, :] == target_Q[:, None], float("-inf"))
    return F.cross_entropy(torch.cat([own_Q[:, None], other_QN], 1).float(), torch.zeros_like(target_Q))
