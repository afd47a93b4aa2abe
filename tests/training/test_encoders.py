"""Every family: packed rows and padded ones give the same, and nothing later is seen."""

from __future__ import annotations

import pytest
import torch

from training.config import FAMILIES, EncoderConfig, Family
from training.encoders import build_encoder
from training.encoders.base import Encoder, Packing

ROWS = ((3, 1, 4), (7,), (2, 2, 2, 1))
"""Lengths of the sequences in each packed row."""
LENGTH, WIDTH = 9, 8


def encoder(family: Family) -> Encoder:
    torch.manual_seed(0)
    built = build_encoder(EncoderConfig(family=family, width=WIDTH, layers=2, heads=2)).eval()
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
    assert Packing(segments()).positions()[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0]


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
