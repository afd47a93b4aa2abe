"""Linear recurrence with gates, after RG-LRU (De et al. 2024): state by state decay that the event itself sets.

h[p] = a[p] h[p-1] + sqrt(1 - a[p]^2) v[p], value by value, with a and v from the event alone. So a whole row is
computed in log2(L) passes instead of L steps, and cost grows with L, not with its square. At a sequence's start a is 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders.base import Encoder, Packing, starts
from training.encoders.dropout import dropout
from training.encoders.feed_forward import GatedForward, calm

_LONGEST = 1_024
"""Passes of an exported graph, whose lengths are free, reach so far back; what lies behind has long decayed."""
_SHORT, _LONG = 0.5, 0.99
"""Decay by event at the start, from the shortest memory to the longest."""


class Block(nn.Module):
    """Recurrence and feed-forward, each on a normalised copy and added."""

    def __init__(self, config: EncoderConfig) -> None:
        """Width D."""
        super().__init__()
        self.dropout = config.dropout
        self.norm = nn.LayerNorm(config.width)
        self.value, self.gates = nn.Linear(config.width, config.width), nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        calm(self.out, config.layers)
        # half open gates give the decays of _SHORT to _LONG: a = exp(-rate x gate)
        rate = torch.linspace(-2 * math.log(_SHORT), -2 * math.log(_LONG), config.width)
        self.rate = nn.Parameter(rate.expm1().log())  # softplus undone
        self.feed_forward = GatedForward(config)

    def forward(self, x_BLD: torch.Tensor, starts_BL1: torch.Tensor) -> torch.Tensor:
        """x_BLD -> x_BLD."""
        normed_BLD = self.norm(x_BLD)
        value_BLD = self.value(normed_BLD)
        decays_BLD, enters_BLD, leaves_BLD = self.gates(normed_BLD).float().chunk(3, -1)
        a_BLD = (-F.softplus(self.rate) * decays_BLD.sigmoid()).exp()
        kept_BLD = (1 - a_BLD * a_BLD).clamp(min=1e-6).sqrt().masked_fill(starts_BL1, 1.0)
        a_BLD = a_BLD.masked_fill(starts_BL1, 0.0)
        h_BLD = scan(a_BLD, kept_BLD * enters_BLD.sigmoid() * value_BLD)
        out_BLD = self.out((h_BLD * F.silu(leaves_BLD)).to(value_BLD.dtype))
        return self.feed_forward(x_BLD + dropout(out_BLD, self.dropout, self.training))


def scan(a_BLD: torch.Tensor, b_BLD: torch.Tensor) -> torch.Tensor:
    """h_BLD with h[p] = a[p] h[p-1] + b[p], by doubling; h before the first is 0."""
    if torch.onnx.is_in_onnx_export():
        step = 1
        while step < _LONGEST:
            length = a_BLD.shape[1]
            b_BLD = b_BLD + a_BLD * F.pad(b_BLD, (0, 0, step, 0))[:, :length]
            a_BLD = a_BLD * F.pad(a_BLD, (0, 0, step, 0), value=1.0)[:, :length]
            step *= 2
        return b_BLD
    h_BLD: torch.Tensor = _Scan.apply(a_BLD, b_BLD)
    return h_BLD


class _Scan(torch.autograd.Function):
    """Keeps a and h alone: what comes back is a scan from the end."""

    @staticmethod
    def forward(ctx: Any, a_BLD: torch.Tensor, b_BLD: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's own
        h_BLD = _doubled(a_BLD, b_BLD)
        ctx.save_for_backward(a_BLD, h_BLD)
        return h_BLD

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - torch's own
        a_BLD, h_BLD = ctx.saved_tensors
        next_BLD = F.pad(a_BLD, (0, 0, -1, 1))
        db_BLD = _doubled(next_BLD.flip(1), gradient[0].flip(1)).flip(1)
        return db_BLD * F.pad(h_BLD, (0, 0, 1, -1)), db_BLD


def _doubled(a_BLD: torch.Tensor, b_BLD: torch.Tensor) -> torch.Tensor:
    """After a pass of step s, h holds what came in the last 2 s events, and a the decay over so many."""
    a_BLD, h_BLD, step = a_BLD.clone(), b_BLD.clone(), 1
    while step < a_BLD.shape[1]:
        h_BLD[:, step:] += a_BLD[:, step:] * h_BLD[:, :-step]
        a_BLD[:, step:] = a_BLD[:, step:] * a_BLD[:, :-step]
        step *= 2
    return h_BLD


class LinearEncoder(Encoder):
    """x_BLD -> h_BLD through `config.layers` blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Stack the blocks."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """Causal by construction; a sequence starts from a state of zero."""
        if packing is None or packing.segment_BL is None:
            starts_BL = (torch.arange(x_BLD.shape[1], device=x_BLD.device) == 0)[None]
        else:
            starts_BL = starts(packing.segment_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, starts_BL[:, :, None])
        return self.norm(x_BLD)


def build(config: EncoderConfig) -> Encoder:
    """The encoder of this file."""
    return LinearEncoder(config)
