"""Losses against arithmetic, against naive versions and against the full sum."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training import losses
from training.config import LOSSES, LossConfig, LossKind
from training.losses import binary_loss, full_softmax, gbce, item_loss, later_targets, log_draws, sampled_softmax

ITEMS, QUERIES, WIDTH, DRAWN = 40, 23, 6, 15


def some() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """q_QD, e_ID, bias_I that want gradients, and targets."""
    torch.manual_seed(0)
    q, e, bias = torch.randn(QUERIES, WIDTH), torch.randn(ITEMS, WIDTH), torch.randn(ITEMS)
    return q.requires_grad_(), e.requires_grad_(), bias.requires_grad_(), torch.randint(0, ITEMS, (QUERIES,))


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return [one.detach() for one in (loss, *torch.autograd.grad(loss, of))]


def test_kept_negatives_leave_the_logit_calibrated() -> None:
    """With a tenth of the negatives kept, the loss is least at the logit of the whole population."""
    labels = torch.tensor([1.0] * 10 + [0.0] * 99)  # 990 negatives in the population
    whole = math.log(10 / 990)
    found = {shift: float(binary_loss(torch.full((109,), whole + shift), labels, 99 / 990)) for shift in (-0.5, 0, 0.5)}
    assert found[0] < min(found[-0.5], found[0.5])


def test_full_softmax_is_arithmetic() -> None:
    """Two items with logits 1 and 0: the loss of the first is log(1 + 1 / e)."""
    loss = full_softmax(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]]), torch.zeros(2), torch.tensor([0]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("chunk", [1, 7 * ITEMS, 10**6])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients in chunks of 1, 7 and all queries are those of torch's own cross entropy."""
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    q, e, bias, target = some()
    wanted = gradients(F.cross_entropy(q @ e.T + bias, target), q, e, bias)
    torch.testing.assert_close(gradients(full_softmax(q, e, bias, target), q, e, bias), wanted)


def test_sampled_softmax_is_cross_entropy_of_what_was_drawn() -> None:
    """Loss and gradients are those of the naive version: corrected scores, own target among the drawn left out."""
    q, e, bias, target = some()
    drawn, correction = torch.randint(0, ITEMS, (DRAWN,)), torch.randn(ITEMS)
    assert (drawn[None] == target[:, None]).any()
    other = (q @ e[drawn].T + (bias - correction)[drawn]).masked_fill(drawn[None] == target[:, None], -math.inf)
    own = (q * e[target]).sum(1) + bias[target]
    naive = F.cross_entropy(torch.cat([own[:, None], other], 1), torch.zeros_like(target))
    wanted = gradients(naive, q, e, bias)
    torch.testing.assert_close(gradients(sampled_softmax(q, e, bias, target, drawn, correction), q, e, bias), wanted)


@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
def test_sampled_softmax_estimates_the_full_one(uniform: float) -> None:
    """With many draws, by popularity, alike or mixed, the sampled loss comes close to the full one."""
    q, e, bias, target = some()
    config = LossConfig(kind="sampled", negatives=20_000, uniform=uniform)
    found = item_loss(config, q, e, bias, target, log_draws(config, torch.arange(ITEMS) + 1))
    torch.testing.assert_close(found, full_softmax(q, e, bias, target), rtol=0.02, atol=0)


def test_expected_draws_add_up() -> None:
    """Expected draws sum to the number of negatives; half of them alike, an item nobody wants has half of 1 / 4."""
    expected = log_draws(LossConfig(negatives=100, uniform=0.5), torch.tensor([0.0, 5, 5, 5])).exp()
    assert float(expected.sum()) == pytest.approx(100)
    assert float(expected[0]) == pytest.approx(100 * 0.5 / 4, rel=0.01)


def test_gbce_is_arithmetic() -> None:
    """One negative of two others, t = 1: beta is the share drawn, 1 / 2, and so are the odds at which scores start."""
    q, e = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    found = gbce(q, e, torch.zeros(3), torch.tensor([0]), torch.tensor([1]), 1.0)
    odds = [0.5 * math.exp(score) for score in (2, 1)]
    wanted = (-0.5 * math.log(odds[0] / (1 + odds[0])) - math.log(1 / (1 + odds[1]))) / 2
    assert float(found) == pytest.approx(wanted)
    plain = gbce(q, e, torch.zeros(3), torch.tensor([0]), torch.tensor([1]), 0.0)
    scores, labels = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])
    assert float(plain) == pytest.approx(float(F.binary_cross_entropy_with_logits(scores, labels)))


def test_gbce_leaves_out_the_own_target_among_the_drawn() -> None:
    """A drawn item that is the target adds nothing, and sends nothing back that is no number."""
    q, e, bias, target = some()
    loss = gbce(q, e, bias, target, target[:1].repeat(3), 0.75)
    assert all(one.isfinite().all() for one in gradients(loss, q, e, bias))


@pytest.mark.parametrize("kind", LOSSES)
def test_the_same_seed_draws_the_same(kind: str) -> None:
    """Every loss is finite, has finite gradients, and is the same again under the same seed."""
    q, e, bias, target = some()
    config = LossConfig(kind=kind, negatives=DRAWN, full_up_to=ITEMS - 1)  # type: ignore[arg-type]
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(gradients(item_loss(config, q, e, bias, target, log_draws(config, torch.ones(ITEMS))), q, e, bias))
    assert all(one.isfinite().all() for one in found[0])
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_learns_what_is_popular(kind: LossKind) -> None:
    """With nothing but a bias to learn, items come in the order of how often they were chosen."""
    torch.manual_seed(0)
    count_I = torch.tensor([200, 100, 50, 25, 12, 6])
    target_Q = torch.arange(6).repeat_interleave(count_I)
    config = LossConfig(kind=kind, negatives=4)
    draws_I, bias_I = log_draws(config, count_I), torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([bias_I], lr=0.05)
    nothing_QD, nothing_ID = torch.zeros(len(target_Q), 1), torch.zeros(6, 1)
    for _ in range(300):
        optimizer.zero_grad()
        item_loss(config, nothing_QD, nothing_ID, bias_I, target_Q, draws_I).backward()
        optimizer.step()
    assert bias_I.argsort(descending=True).tolist() == list(range(6))


def test_no_queries_cost_nothing() -> None:
    """A batch of no known target has loss 0 and gradients of 0."""
    q, e, bias, target = some()
    found = gradients(full_softmax(q[:0], e, bias, target[:0]), e, bias)
    assert [float(one.abs().sum()) for one in found] == [0, 0, 0]


def test_later_targets_stay_in_the_window() -> None:
    """Of windows of 3 and 1 queries, 2 ahead: each query gets its own target or the one after, no other window's."""
    torch.manual_seed(0)
    target, window = torch.tensor([10, 11, 12, 20]), torch.tensor([0, 0, 0, 7])
    drawn = torch.stack([later_targets(target, window, 2) for _ in range(200)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[10, 11], [11, 12], [12], [20]]
    assert 60 < int((drawn[:, 0] == 11).sum()) < 140
    assert later_targets(target, window, 1).tolist() == target.tolist()
    assert later_targets(target[:0], window[:0], 2).tolist() == []


def test_a_loss_that_does_not_exist_is_refused() -> None:
    """The message names the losses that there are."""
    with pytest.raises(ValueError, match="choose one of: auto, full, sampled, gbce"):
        LossConfig(kind="hinge")  # type: ignore[arg-type]
