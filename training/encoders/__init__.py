"""Sequence encoders behind one signature, one family a file.

An encoder takes `x_BLD` (float, padded to the right) and gives `h_BLD`: h at position p has seen x[0..p] and nothing
later, so padding to the right changes nothing that is read. `last` gives h at the last position alone.

Shape suffixes: B batch, L positions, D model width, H heads, E width of a head.
"""

from __future__ import annotations

from importlib import import_module

from training.config import FAMILIES, EncoderConfig
from training.encoders.base import Encoder


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder of this configuration.

    Raises:
        ValueError: there is no such family.
    """
    if config.family not in FAMILIES:
        message = f"encoder {config.family!r} does not exist; choose one of: {', '.join(FAMILIES)}"
        raise ValueError(message)
    module = import_module(f"training.encoders.{config.family}")
    encoder: Encoder = module.build(config)
    return encoder
