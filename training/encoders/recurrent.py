"""What the recurrent families share; they differ in the layer alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from training.config import EncoderConfig
from training.encoders.base import Encoder, Packing, positions


class RecurrentEncoder(Encoder):
    """x_BLD -> h_BLD; the residual lets the last event through unchanged."""

    def __init__(self, layer: type[nn.RNNBase], config: EncoderConfig) -> None:
        """Build `config.layers` layers of width D."""
        super().__init__()
        self.recurrent = layer(
            config.width,
            config.width,
            num_layers=config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """Causal by construction: padding to the right is never looked at."""
        segment_BL = None if packing is None else packing.segment_BL
        h_BLD = self.recurrent(x_BLD)[0] if segment_BL is None else self._packed(x_BLD, segment_BL)
        return self.norm(x_BLD + h_BLD)

    def _packed(self, x_BLD: torch.Tensor, segment_BL: torch.Tensor) -> torch.Tensor:
        """Every sequence from a state of zero, and no step for padding."""
        order_T, sizes_L = steps_of(segment_BL)
        x_TD = x_BLD.flatten(0, 1)
        h_TD, _ = self.recurrent(PackedSequence(x_TD[order_T], sizes_L))
        return x_TD.new_zeros(x_TD.shape).index_copy(0, order_T, h_TD.data.to(x_TD.dtype)).view(x_BLD.shape)


def steps_of(segment_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The real events of a batch step by step: first those at position 0, longest sequence first, then at 1, ...

    Returns:
        Their places in the flat [B x L] batch, int64 [T], and how many there are of each position, int64 on the CPU.
    """
    real_T = segment_BL.flatten().nonzero()[:, 0]
    position_T = positions(segment_BL).flatten()[real_T]
    sequence_T = (position_T == 0).cumsum(0) - 1
    length_S = torch.bincount(sequence_T)
    rank_S = length_S.argsort(descending=True, stable=True).argsort()
    order_T = real_T[(position_T * len(length_S) + rank_S[sequence_T]).argsort()]
    return order_T, torch.bincount(position_T).cpu()
