"""What all encoders have in common: the signature, and the packed layout of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Packing:
    """Several sequences in one row, one behind the other, so that next to nothing is padding.

    Attributes:
        segment_BL: int64, 0 for padding, else the number of the sequence in its row: 1, 2, ...
        time_BL: float32 seconds since the start of the event's own sequence, where the encoder has a time bias.
    """

    segment_BL: torch.Tensor
    time_BL: torch.Tensor | None = None

    def starts(self) -> torch.Tensor:
        """Whether a sequence (or padding) begins here, bool."""
        before_BL = torch.cat([self.segment_BL.new_full((len(self.segment_BL), 1), -1), self.segment_BL[:, :-1]], 1)
        return self.segment_BL != before_BL

    def positions(self) -> torch.Tensor:
        """Places from the start of the own sequence, int64."""
        place_L = torch.arange(self.segment_BL.shape[1], device=self.segment_BL.device)
        begun_BL = torch.where(self.starts(), place_L, 0).cummax(1).values
        return place_L - begun_BL

    def sees(self) -> torch.Tensor:
        """Whether an event (row) sees another (column): of the same sequence, not later. Padding sees padding."""
        same_BLL = self.segment_BL[:, :, None] == self.segment_BL[:, None, :]
        return same_BLL.tril_()


class Encoder(nn.Module):
    """x_BLD -> h_BLD, causal: h at position p has seen x of its own sequence up to p and nothing else."""

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """h_BLD; without a packing a row is one sequence, padded to the right. At padding h means nothing."""
        raise NotImplementedError

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """h_BD at each sequence's last position, which is all that serving reads; of length 0 it means nothing."""
        return at_last(self(x_BLD), length_B)[:, 0]


def at_last(x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """x_B1D at each sequence's last position."""
    last_B11 = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, x_BLD.shape[2])
    return x_BLD.gather(1, last_B11)
