"""What a difference in time or place adds to attention, and the times that it is taken from."""

from __future__ import annotations

import math

import torch
from torch import nn

KNOTS = 32


class LogBias(nn.Module):
    """Differences -> bias_BHQK: a learned curve a head over log(1 + difference), straight between `KNOTS` knots.

    Buckets without the lines between them would jump: a rounding of the time in another runtime would show.
    """

    def __init__(self, heads: int, largest: float) -> None:
        """`largest`: the difference from which on all are alike."""
        super().__init__()
        self.curve = nn.Parameter(torch.zeros(heads, KNOTS))
        self.scale = (KNOTS - 1) / math.log1p(largest)

    def forward(self, query_BQ: torch.Tensor, key_BK: torch.Tensor) -> torch.Tensor:
        """Bias of each query's difference to each key; what lies behind the query counts as no difference."""
        difference_BQK = (query_BQ[:, :, None] - key_BK[:, None, :]).to(self.curve.dtype).clamp(min=0)
        place_BQK = (difference_BQK.log1p() * self.scale).clamp(max=KNOTS - 1)
        knot_BQK = place_BQK.detach().floor().clamp(max=KNOTS - 2)
        knot_N = knot_BQK.long().flatten()
        shape = (self.curve.shape[0], *place_BQK.shape)
        rise = self.curve[:, 1:] - self.curve[:, :-1]
        bias_HBQK = torch.addcmul(
            self.curve.index_select(1, knot_N).view(shape),
            rise.index_select(1, knot_N).view(shape),
            place_BQK - knot_BQK,
        )
        return bias_HBQK.transpose(0, 1)


def elapsed(gap_BL: torch.Tensor, starts_BL: torch.Tensor) -> torch.Tensor:
    """When each event was, float64 seconds [B, L], from its gaps as they are encoded: right within a sequence.

    Undoes `clicktrail.kernels.encode_numbers.time_number`. Doubles, since a year in floats has steps of seconds.
    """
    seconds_BL = (8 * (gap_BL.double() + 1)).exp() - 1
    return torch.where(starts_BL, 0.0, seconds_BL).cumsum(1)
