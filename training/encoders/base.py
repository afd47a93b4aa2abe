"""What all encoders have in common: the signature, and the packed layout of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True)
class Packing:
    """How sequences stand in the rows of a batch, and when their events were.

    Attributes:
        segment_BL: int64, several sequences in one row, one behind the other, so that next to nothing is padding: 0
            for padding, else the number of the sequence in its row: 1, 2, ... None: one a row, padded to the right.
        time_BL: float64 seconds, of which differences within a sequence count; for encoders with a time bias.
        blocks: of several sequences in a row, where attention is fused (training/encoders/fused.py).
    """

    segment_BL: torch.Tensor | None = None
    time_BL: torch.Tensor | None = None
    blocks: BlockMask | None = None

    def mask(self, x_BLD: torch.Tensor, hidden: float) -> torch.Tensor:
        """[B or 1, 1, L, L], like x: 0 where a query (row) sees a key (column), `hidden` elsewhere.

        It sees what is of the same sequence and not later; padding sees padding.
        """
        length = x_BLD.shape[1]
        later_1LL = torch.ones(1, length, length, dtype=torch.bool, device=x_BLD.device).triu(1)
        if self.segment_BL is not None:
            later_1LL = later_1LL | (self.segment_BL[:, :, None] != self.segment_BL[:, None, :])
        return x_BLD.new_zeros(later_1LL.shape).masked_fill(later_1LL, hidden)[:, None]


def starts(segment_BL: torch.Tensor) -> torch.Tensor:
    """Whether a sequence (or padding) begins here, bool [B, L]."""
    before_BL = torch.cat([segment_BL.new_full((len(segment_BL), 1), -1), segment_BL[:, :-1]], 1)
    return segment_BL != before_BL


def positions(segment_BL: torch.Tensor) -> torch.Tensor:
    """Places from the start of the own sequence, int64 [B, L]."""
    place_L = torch.arange(segment_BL.shape[1], device=segment_BL.device)
    begun_BL = torch.where(starts(segment_BL), place_L, 0).cummax(1).values
    return place_L - begun_BL


class Encoder(nn.Module):
    """x_BLD -> h_BLD, causal: h at position p has seen x of its own sequence up to p and nothing else.

    `fusable`: whether it takes `Packing.blocks`.
    """

    fusable = False

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """h_BLD; without a packing a row is one sequence, padded to the right. At padding h means nothing."""
        raise NotImplementedError

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """h_BD at each row's last position, which is all that serving reads; of length 0 it means nothing.

        Rows hold one sequence each; of the packing only the times are looked at.
        """
        return at_last(self(x_BLD, packing), length_B)[:, 0]


def at_last(x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """x_B1D at each sequence's last position."""
    last_B11 = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, x_BLD.shape[2])
    return x_BLD.gather(1, last_B11)
