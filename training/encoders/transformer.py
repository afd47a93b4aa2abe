"""Causal transformer: pre-norm blocks, rotary positions, gated feed-forward, fused attention where the machine has it.

Positions are rotary (Su et al. 2021), so attention sees distances alone: an event means the same wherever a window was
cut and wherever its sequence stands in a packed row, and one rotation serves all rows. Time enters with each event
(gap, hour); with `time_bias` attention sees time differences too. What all blocks share is made once a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders import fused
from training.encoders.base import Encoder, Packing, at_last
from training.encoders.dropout import dropout
from training.encoders.feed_forward import GatedForward, calm
from training.encoders.log_bias import LogBias

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""q, k, v -> what they attend to, all [B, H, L, E]."""

_BASE = 10_000.0
_YEAR = 365.0 * 86_400


def turns(position: torch.Tensor, width: int) -> torch.Tensor:
    """Cosine and sine of position x frequency for heads of this width, [..., width / 2, 2]; `position` is [...]."""
    half = width // 2
    frequency = _BASE ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = position.to(torch.float32)[..., None] * frequency
    return torch.stack([angle.cos(), angle.sin()], -1)


def rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn each pair of neighbours of the last axis; `turn` from `turns`.

    As complex numbers this is one pass over memory, a quarter of the time; exports and compilers know only reals.
    """
    pairs = x.unflatten(-1, (-1, 2))
    if x.dtype == torch.float32 and not (torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()):
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn)).flatten(-2)
    (first, second), (cos, sin) = pairs.unbind(-1), turn.to(x.dtype).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised copy and added."""

    def __init__(self, config: EncoderConfig) -> None:
        """Width D, `config.heads` heads."""
        super().__init__()
        if config.width % (2 * config.heads):
            message = f"width {config.width} must be a multiple of 2 x {config.heads} heads (rotary positions)"
            raise ValueError(message)
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        calm(self.out, config.layers)
        self.feed_forward = GatedForward(config)

    def forward(self, x_BLD: torch.Tensor, turn: torch.Tensor, attend: Attend) -> torch.Tensor:
        """x_BLD -> x_BLD; `turn` [L, E / 2, 2]."""
        width = x_BLD.shape[2]
        # split, not sliced: slices send back an array of zeros each, and these are added up
        turned, v_BLD = self.query_key_value(self.norm(x_BLD)).split((2 * width, width), -1)
        q_BLHE, k_BLHE = rotate(turned.unflatten(-1, (2, self.heads, -1)), turn[:, None, None]).unbind(2)
        v_BLHE = v_BLD.unflatten(-1, (self.heads, -1))
        return self._finish(x_BLD, attend(q_BLHE.transpose(1, 2), k_BLHE.transpose(1, 2), v_BLHE.transpose(1, 2)))

    def last(
        self, x_BLD: torch.Tensor, length_B: torch.Tensor, turn: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """x_BLD -> x_B1D at each sequence's last position: of all others only keys and values are computed."""
        width = x_BLD.shape[2]
        weight, bias_3D = self.query_key_value.weight, self.query_key_value.bias
        own_B1D, own_B1 = at_last(x_BLD, length_B), (length_B - 1).clamp(min=0)[:, None]
        q_B1HE = F.linear(self.norm(own_B1D), weight[:width], bias_3D[:width]).unflatten(-1, (self.heads, -1))
        split = F.linear(self.norm(x_BLD), weight[width:], bias_3D[width:]).unflatten(-1, (2, self.heads, -1))
        sees_B11L = (torch.arange(x_BLD.shape[1], device=x_BLD.device) <= own_B1)[:, None, None]
        attended_BH1E = F.scaled_dot_product_attention(
            rotate(q_B1HE, turns(own_B1, q_B1HE.shape[3])[:, :, None]).transpose(1, 2),
            rotate(split[:, :, 0], turn[:, None]).transpose(1, 2),
            split[:, :, 1].transpose(1, 2),
            attn_mask=sees_B11L if bias is None else bias.masked_fill(~sees_B11L, float("-inf")),
        )
        return self._finish(own_B1D, attended_BH1E)

    def _finish(self, x_BLD: torch.Tensor, attended_BHLE: torch.Tensor) -> torch.Tensor:
        merged_BLD = attended_BHLE.transpose(1, 2).flatten(2)
        return self.feed_forward(x_BLD + dropout(self.out(merged_BLD), self.dropout, self.training))


class TransformerEncoder(Encoder):
    """x_BLD -> h_BLD through `config.layers` blocks."""

    fusable = True

    def __init__(self, config: EncoderConfig) -> None:
        """Stack the blocks."""
        super().__init__()
        self.head_width = config.width // config.heads
        self.time_bias = LogBias(config.heads, _YEAR) if config.time_bias else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """Causal: position p attends to its own sequence up to p."""
        turn, attend = self._turn(x_BLD), self._attend(x_BLD, packing)
        for block in self.blocks:
            x_BLD = block(x_BLD, turn, attend)
        return self.norm(x_BLD)

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """As `Encoder.last`, with a third less work."""
        *before, final = self.blocks
        turn = self._turn(x_BLD)
        attend = self._attend(x_BLD, packing)
        for block in before:
            x_BLD = block(x_BLD, turn, attend)
        bias = None
        if self.time_bias is not None and packing is not None and packing.time_BL is not None:
            bias = self.time_bias(at_last(packing.time_BL[:, :, None], length_B)[:, :, 0], packing.time_BL)
        return self.norm(final.last(x_BLD, length_B, turn, bias))[:, 0]

    def _turn(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return turns(torch.arange(x_BLD.shape[1], device=x_BLD.device), self.head_width)

    def _attend(self, x_BLD: torch.Tensor, packing: Packing | None) -> Attend:
        """How the blocks attend: fused, with a mask, or, where order alone decides, causal."""
        time_BL = None if packing is None or self.time_bias is None else packing.time_BL
        if packing is None or (packing.segment_BL is None and time_BL is None):
            return partial(F.scaled_dot_product_attention, is_causal=True)
        if packing.blocks is not None:
            bias = None if self.time_bias is None or time_BL is None else fused.timed(self.time_bias, time_BL)
            return partial(fused.attend, seen=packing.blocks, bias=bias)
        mask = packing.mask(x_BLD, float("-inf"))
        if self.time_bias is not None and time_BL is not None:
            mask = self.time_bias(time_BL, time_BL) + mask
        return partial(F.scaled_dot_product_attention, attn_mask=mask)


def build(config: EncoderConfig) -> Encoder:
    """The encoder of this file."""
    return TransformerEncoder(config)
