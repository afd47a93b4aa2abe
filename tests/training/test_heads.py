"""Heads: likelihoods sum or integrate to one, predictions are what the likelihoods say."""

from __future__ import annotations

import math

import pytest
import torch

from training.heads import BinaryHead, CountHead, Head, MulticlassHead, TimeHead

DAY = 86_400.0


def test_classes_sum_to_one_and_unknown_targets_say_nothing() -> None:
    """Of logits log 1, log 3 the second has probability 3 / 4; its loss is its log, whatever an unknown target adds."""
    head = MulticlassHead(2)
    out = torch.tensor([[0.0, math.log(3)], [5.0, -5.0]])
    assert head.predict(out)[0].tolist() == pytest.approx([1 / 4, 3 / 4])
    assert float(head.loss(out, torch.tensor([1, -1]))) == pytest.approx(-math.log(3 / 4))


@pytest.mark.parametrize(("log_mean", "log_shape"), [(0.0, 0.0), (1.5, -1.0), (-2.0, 3.0), (1.0, 10.0)])
def test_counts_sum_to_one_with_the_predicted_mean(log_mean: float, log_shape: float) -> None:
    """Probabilities of 0, 1, 2, ... sum to 1; their mean and the chance of any are what is predicted."""
    head, out = CountHead(), torch.tensor([[log_mean, log_shape]])
    count = torch.arange(3_000)
    chance = head.log_likelihood(out.expand(3_000, 2), count).exp()
    mean, some = head.predict(out)[0].tolist()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    assert float((chance * count).sum()) == pytest.approx(mean, rel=1e-4)
    assert float(1 - chance[0]) == pytest.approx(some, abs=1e-4)


def test_a_large_shape_is_poisson() -> None:
    """With mean 2 and no overdispersion, three events have probability e^-2 2^3 / 3!."""
    found = CountHead().log_likelihood(torch.tensor([[math.log(2), 12.0]]), torch.tensor([3]))
    assert float(found.exp()) == pytest.approx(math.exp(-2) * 2**3 / 6, rel=1e-3)


def hazards() -> tuple[TimeHead, torch.Tensor]:
    return TimeHead([1 * DAY, 3 * DAY, 10 * DAY]), torch.tensor([[-1.0, 0.5, 0.2, 1.0]])


def test_times_integrate_to_one() -> None:
    """The density over all times is 1, up to each edge what is predicted, and what is not yet is its complement."""
    head, out = hazards()
    step, count = 0.005, 20_000  # days
    middle = (torch.arange(count) + 0.5) * step * DAY
    density = head.log_likelihood(out.expand(count, 4), middle, torch.ones(count)).exp()
    assert float((density * step).sum()) == pytest.approx(1, abs=1e-3)
    for edge, predicted in zip((1, 3, 10), head.predict(out)[0].tolist(), strict=True):
        assert float((density * step)[middle < edge * DAY].sum()) == pytest.approx(predicted, abs=1e-3)
        yet = head.log_likelihood(out, torch.tensor([edge * DAY]), torch.zeros(1)).exp()
        assert float(yet) == pytest.approx(1 - predicted, abs=1e-5)


def test_the_median_splits_the_times() -> None:
    """Not yet at the median: one half."""
    head, out = hazards()
    median = head.median(out)
    assert float(head.log_likelihood(out, median, torch.zeros(1)).exp()) == pytest.approx(0.5, abs=1e-5)
    late = torch.full((1, 4), -3.0)  # beyond the last edge
    assert float(head.log_likelihood(late, head.median(late), torch.zeros(1)).exp()) == pytest.approx(0.5, abs=1e-5)


def test_a_constant_rate_is_arithmetic() -> None:
    """One event a day everywhere: seen after half a day its log density is -1/2, cut off after 2 days -2."""
    head = TimeHead([1 * DAY, 2 * DAY])
    out = torch.tensor([[0.0, 0.0, math.log(2)]]).expand(2, 3)  # the open piece counts as long as its edge, 2 days
    target = torch.tensor([[0.5 * DAY, 1.0], [2 * DAY, 0.0]])
    assert head.log_likelihood(out, *target.T).tolist() == pytest.approx([-0.5, -2.0])
    assert float(head.loss(out, target)) == pytest.approx((0.5 + 2) / 2)


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (BinaryHead(), torch.tensor([0.0, 1.0, 1.0])),
        (MulticlassHead(3), torch.tensor([0, 2, -1])),
        (CountHead(), torch.tensor([0, 4, 10_000])),
        (TimeHead(), torch.tensor([[0.0, 1.0], [1e9, 0.0], [3_600.0, 1.0]])),
    ],
)
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0])
def test_gradients_are_finite(head: Head, target: torch.Tensor, size: float) -> None:
    """However far off the numbers are, the loss and what it sends back are numbers; predictions have their columns."""
    torch.manual_seed(0)
    shape = (3, head.outputs) if head.outputs > 1 else (3,)
    out = (size * torch.randn(shape)).requires_grad_()
    loss = head.loss(out, target)
    loss.backward()
    assert loss.isfinite()
    assert out.grad is not None
    assert out.grad.isfinite().all()
    assert head.predict(out).shape == ((3, head.columns) if head.columns else (3,))


def test_wrong_heads_are_refused() -> None:
    """A choice of one, and edges that do not rise, are errors that say what was given."""
    with pytest.raises(ValueError, match="2 classes or more, not 1"):
        MulticlassHead(1)
    with pytest.raises(ValueError, match=r"must rise from above 0, not \[2, 1\]"):
        TimeHead([2, 1])
