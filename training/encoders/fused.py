"""Attention of packed rows in one kernel: no mask of numbers by head, and what is hidden whole is not computed.

FlexAttention (Dong et al. 2024): what a query sees, and what time differences add, are functions of places that a
compiler puts into the kernel. Made for GPUs; without a compiler it computes the same by dense products.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from training.encoders.base import Packing
from training.encoders.log_bias import KNOTS, LogBias

ScoreMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_CLOSE = 0.05
"""Of two ways to compute bf16 attention, by the size of the result: GPUs round products of float32 too."""


def blocks(segment_BL: torch.Tensor) -> BlockMask:
    """What is seen in packed rows: the own sequence, not later.

    Made outside of compiled code, once a batch; [B, L, L] truth values stand for that moment alone.
    """

    def sees(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        del head
        return (segment_BL[row, query] == segment_BL[row, key]) & (query >= key)

    rows, length = segment_BL.shape
    return create_block_mask(sees, rows, None, length, length, device=segment_BL.device)


def attend(
    q_BHLE: torch.Tensor, k_BHLE: torch.Tensor, v_BHLE: torch.Tensor, seen: BlockMask, bias: ScoreMod | None
) -> torch.Tensor:
    """Softmax attention, [B, H, L, E]."""
    out: torch.Tensor = flex_attention(q_BHLE, k_BHLE, v_BHLE, score_mod=bias, block_mask=seen)
    return out


def timed(bias: LogBias, time_BL: torch.Tensor) -> ScoreMod:
    """What `LogBias` adds, place by place.

    Times are kept as two floats each: one alone would be seconds off after a year, a double is slow in a kernel.
    """
    high_BL = time_BL.float()
    low_BL = (time_BL - high_BL.double()).float()
    curve = bias.curve
    scale = curve.new_tensor(bias.scale)  # compilers that leave sizes free take a number for one

    def add(
        score: torch.Tensor, row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        difference = (high_BL[row, query] - high_BL[row, key]) + (low_BL[row, query] - low_BL[row, key])
        place = (difference.clamp(min=0).log1p() * scale).clamp(max=KNOTS - 1)
        knot = place.floor().clamp(max=KNOTS - 2)
        at = knot.to(torch.int32)
        before, after = curve[head, at], curve[head, at + 1]
        return score + before + (after - before) * (place - knot)

    return add


def works(encoder: nn.Module, width: int, device: torch.device) -> str:
    """Try it on this machine, forward and backward, beside dense attention; gives what is wrong, or nothing.

    Kernels are made by a compiler for the very GPU, so only the GPU itself can say.
    """
    generator = torch.Generator().manual_seed(0)
    segment_BL = torch.arange(48).div(10, rounding_mode="floor").add(1).expand(2, -1).to(device)
    time_BL = torch.rand(2, 48, generator=generator).mul(1e4).cumsum(1).double().to(device)
    x_BLD = torch.randn(2, 48, width, generator=generator).to(device)
    dense = Packing(segment_BL, time_BL)
    was, encoder = encoder.training, encoder.eval()
    try:
        found = []
        for packing in (dense, Packing(segment_BL, time_BL, blocks(segment_BL))):
            encoder.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                h_BLD = encoder(x_BLD, packing)
            h_BLD.float().square().mean().backward()
            slopes = [one.grad.float().flatten() for one in encoder.parameters() if one.grad is not None]
            found.append((h_BLD.detach().float().flatten(), torch.cat(slopes)))
        for wanted, got in zip(*found, strict=True):
            apart = float((wanted - got).norm() / wanted.norm())
            if not apart < _CLOSE:
                return f"fused attention is {apart:.2g} of its size away from dense attention"
    except Exception as error:  # noqa: BLE001 - a compiler may fail in any way, and there is another way to go on
        return f"fused attention does not run here: {str(error).splitlines()[0] if str(error) else error!r}"
    finally:
        encoder.zero_grad()
        encoder.train(was)
    return ""
