"""Losses against arithmetic and against the full sum."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import binary_loss, full_softmax, sampled_softmax


def test_kept_negatives_leave_the_logit_calibrated() -> None:
    """With a tenth of the negatives kept, the loss is least at the logit of the whole population."""
    labels = torch.tensor([1.0] * 10 + [0.0] * 99)  # 990 negatives in the population
    whole = math.log(10 / 990)
    losses = {
        shift: float(binary_loss(torch.full((109,), whole + shift), labels, 99 / 990)) for shift in (-0.5, 0.0, 0.5)
    }
    assert losses[0.0] < min(losses[-0.5], losses[0.5])


def test_full_softmax_is_arithmetic() -> None:
    """Two items with logits 1 and 0: the loss of the first is log(1 + 1 / e)."""
    loss = full_softmax(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]]), torch.zeros(2), torch.tensor([0]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))


def test_sampled_softmax_estimates_the_full_one() -> None:
    """With many draws, corrected for popularity, the sampled loss comes close to the full one."""
    torch.manual_seed(0)
    q, e, bias = torch.randn(64, 8), torch.randn(50, 8), torch.randn(50)
    target = torch.randint(0, 50, (64,))
    chance = torch.rand(50) + 0.1
    chance /= chance.sum()
    draws = 20_000
    negatives = torch.multinomial(chance, draws, replacement=True)
    sampled = sampled_softmax(q, e, bias, target, negatives, torch.log(draws * chance))
    assert float(sampled) == pytest.approx(float(full_softmax(q, e, bias, target)), rel=0.02)
