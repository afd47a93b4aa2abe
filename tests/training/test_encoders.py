"""Every family: packed rows and padded ones give the same, and nothing later is seen."""

from __future__ import annotations

import pytest
import torch

from clicktrail.kernels.encode_numbers import time_number
from training.config import FAMILIES, EncoderConfig, Family
from training.encoders import build_encoder
from training.encoders.base import Encoder, Packing, positions, starts
from training.encoders.dropout import dropout
from training.encoders.fused import blocks, works
from training.encoders.linear import scan
from training.encoders.log_bias import LogBias, elapsed

ROWS = ((3, 1, 4), (7,), (2, 2, 2, 1))
"""Lengths of the sequences in each packed row."""
TIMED: tuple[Family, ...] = ("transformer", "hstu")
LENGTH, WIDTH = 9, 8


def encoder(family: Family, *, time_bias: bool = False) -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(family=family, width=WIDTH, layers=2, heads=2, time_bias=time_bias)
    built = build_encoder(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def segments() -> torch.Tensor:
    out = torch.zeros((len(ROWS), LENGTH), dtype=torch.int64)
    for row, lengths in enumerate(ROWS):
        numbers = torch.arange(1, len(lengths) + 1).repeat_interleave(torch.tensor(lengths))
        out[row, : len(numbers)] = numbers
    return out


def test_positions_count_from_the_start_of_a_sequence() -> None:
    """The row of lengths 3, 1, 4 has positions 0 1 2, 0, 0 1 2 3, and padding after them."""
    assert positions(segments())[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_padded_agree(family: Family) -> None:
    """A sequence in a packed row gets what it gets in a row of its own."""
    model, segment_BL = encoder(family), segments()
    x_BLD = torch.randn(len(ROWS), LENGTH, WIDTH)
    packed_BLD = model(x_BLD, Packing(segment_BL))
    for row, lengths in enumerate(ROWS):
        for number, length in enumerate(lengths, 1):
            own = segment_BL[row] == number
            padded = torch.cat([x_BLD[row, own], torch.randn(2, WIDTH)])[None]
            torch.testing.assert_close(packed_BLD[row, own], model(padded)[0, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("time_bias", [False, True])
@torch.no_grad()  # of fused attention a CPU has the forward alone
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_fused_attention_sees_what_dense_attention_sees(*, time_bias: bool) -> None:
    """Packed rows, padding too, and times that differ by seconds after years."""
    model, segment_BL = encoder("transformer", time_bias=time_bias), segments()
    x_BLD = torch.randn(len(ROWS), LENGTH, WIDTH)
    time_BL = 1e8 + torch.randint(0, 50, segment_BL.shape).cumsum(1).double()
    torch.testing.assert_close(
        model(x_BLD, Packing(segment_BL, time_BL, blocks(segment_BL))),
        model(x_BLD, Packing(segment_BL, time_BL)),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_fused_attention_is_left_alone_where_it_does_not_run() -> None:
    """A CPU cannot learn through it: the trial says so, and leaves gradients and mode as they were."""
    model = encoder("transformer").train()
    assert "does not run here" in works(model, WIDTH, torch.device("cpu"))
    assert model.training
    assert all(one.grad is None for one in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_are_those_of_the_sequence_alone(family: Family) -> None:
    """What a sequence's states say about its events, packed, is what they say alone; about others they say nothing."""
    model, segment_BL = encoder(family), segments()
    x_BLD = torch.randn(len(ROWS), LENGTH, WIDTH, requires_grad=True)
    own = segment_BL[0] == 3
    (packed,) = torch.autograd.grad(model(x_BLD, Packing(segment_BL))[0, own].square().sum(), x_BLD)
    alone = x_BLD[0, own].detach()[None].requires_grad_()
    (wanted,) = torch.autograd.grad(model(alone).square().sum(), alone)
    torch.testing.assert_close(packed[0, own], wanted[0], atol=1e-4, rtol=0)
    assert packed[0, ~own].abs().max() == 0
    assert packed[1:].abs().max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_later_is_seen(family: Family) -> None:
    """Other events from position 4 on change nothing before it."""
    model = encoder(family)
    x_BLD = torch.randn(2, LENGTH, WIDTH)
    other_BLD = x_BLD.clone()
    other_BLD[:, 4:] = torch.randn(2, LENGTH - 4, WIDTH)
    torch.testing.assert_close(model(x_BLD)[:, :4], model(other_BLD)[:, :4])


@pytest.mark.parametrize("family", FAMILIES)
def test_last_is_the_state_at_the_last_event(family: Family) -> None:
    """What serving reads is the full answer at the last position."""
    model = encoder(family)
    x_BLD, length_B = torch.randn(3, LENGTH, WIDTH), torch.tensor([9, 1, 5])
    full_BLD = model(x_BLD)
    wanted_BD = torch.stack([full_BLD[0, 8], full_BLD[1, 0], full_BLD[2, 4]])
    torch.testing.assert_close(model.last(x_BLD, length_B), wanted_BD, atol=1e-5, rtol=0)


def test_times_come_back_from_encoded_gaps() -> None:
    """Gaps of 60 s and a day, encoded, are 60 s and a day; a sequence begins at no time from its own start."""
    gap = torch.tensor([[time_number(1e6), time_number(60), time_number(86_400), time_number(7), time_number(0)]])
    time = elapsed(gap.float(), starts(torch.tensor([[1, 1, 1, 2, 2]])))
    torch.testing.assert_close(time, torch.tensor([[0, 60, 86_460, 86_460, 86_460]]).double(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("family", TIMED)
def test_packed_and_padded_agree_on_time(family: Family) -> None:
    """With a time bias too: years before a sequence, and where it stands in a row, are nothing to it."""
    model, segment_BL = encoder(family, time_bias=True), segments()
    x_BLD, gap_BL = torch.randn(len(ROWS), LENGTH, WIDTH), torch.rand(len(ROWS), LENGTH) * 2 - 1
    packed_BLD = model(x_BLD, Packing(segment_BL, elapsed(gap_BL, starts(segment_BL))))
    untimed_BLD = model(x_BLD, Packing(segment_BL))
    for row, lengths in enumerate(ROWS):
        for number, length in enumerate(lengths, 1):
            own = segment_BL[row] == number
            gap_1L = torch.cat([gap_BL[row, own], torch.zeros(2)])[None]
            time_1L = elapsed(gap_1L, starts(torch.ones(1, length + 2, dtype=torch.int64)))
            padded = torch.cat([x_BLD[row, own], torch.randn(2, WIDTH)])[None]
            alone = model(padded, Packing(None, time_1L))
            torch.testing.assert_close(packed_BLD[row, own], alone[0, :length], atol=1e-5, rtol=0)
            last_1D = model.last(padded, torch.tensor([length]), Packing(None, time_1L))
            torch.testing.assert_close(last_1D[0], alone[0, length - 1], atol=1e-5, rtol=0)
    assert (packed_BLD - untimed_BLD).abs().max() > 1e-3


def test_the_time_bias_is_a_curve_of_the_difference() -> None:
    """It is the same wherever two events with the same difference stand, without jumps, and has a gradient."""
    bias = LogBias(1, 100.0)
    with torch.no_grad():
        bias.curve.copy_(torch.arange(32.0)[None] ** 2)
    difference = torch.tensor([[0.0, 1e-3, 5, 5.001, 99, 1e9]])
    found = bias(difference + 3, torch.full((1, 1), 3.0))[0, 0, :, 0]
    assert found[[0, -1]].tolist() == [0, 31**2]
    assert float((found[3] - found[2]).detach()) == pytest.approx(0, abs=0.1)
    found.sum().backward()
    assert float(bias.curve.grad.sum()) == pytest.approx(6)  # every difference lies between two knots, in shares of 1


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_the_scan_is_the_recurrence(length: int) -> None:
    """h[p] = a[p] h[p-1] + b[p], with the gradients of the loop."""
    a, b = torch.rand(2, length, 3, requires_grad=True), torch.randn(2, length, 3, requires_grad=True)
    h, steps = torch.zeros(2, 3), []
    for place in range(length):
        h = a[:, place] * h + b[:, place]
        steps.append(h)
    wanted, weight = torch.stack(steps, 1), torch.randn(2, length, 3)
    found = scan(a, b)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, (a, b), weight), torch.autograd.grad(wanted, (a, b), weight))


def test_dropout_keeps_the_mean_and_repeats_under_a_seed() -> None:
    """A fifth of the values become 0, in steps of 1/256, the others grow so that the mean stays; the seed decides."""
    x = torch.ones(1_001, 99, requires_grad=True)
    torch.manual_seed(3)
    once = dropout(x, 0.2, training=True)
    torch.manual_seed(3)
    assert torch.equal(once, dropout(x, 0.2, training=True))
    assert float((once == 0).float().mean()) == pytest.approx(51 / 256, abs=0.005)
    assert float(once.detach().mean()) == pytest.approx(1, abs=0.005)
    assert torch.equal(torch.autograd.grad(once.sum(), x)[0], once.detach())
    assert dropout(x, 0.2, training=False) is x


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_in_training(family: Family) -> None:
    """Dropout, padding, sequences of one event: every weight gets a gradient that is a number."""
    model, segment_BL = encoder(family, time_bias=True).train(), segments()
    gap_BL = torch.full((len(ROWS), LENGTH), -1.0)
    x_BLD = torch.randn(len(ROWS), LENGTH, WIDTH)
    model(x_BLD, Packing(segment_BL, elapsed(gap_BL, starts(segment_BL)))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
