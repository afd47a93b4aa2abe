"""Two sequence encoders and a head: is this payment fraud, given what its card did and what is known of its place?

Fitted by binary cross entropy on all frauds and, anew each epoch, a few genuine payments for each fraud; the logit is
put back to the true rate afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.config import EncoderConfig
from training.encoders import build_encoder
from training.hybrids.payments import Floats, Ints
from training.hybrids.sequences import CARD_VALUES, PLACE_VALUES, Sequences

_SCORED_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network and how it is fitted; `genuine`: payments drawn for each fraud in an epoch."""

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(family="gru", width=16, dropout=0.0))
    head_width: int = 32
    head_dropout: float = 0.2
    epochs: int = 15
    genuine: int = 10
    batch: int = 256
    rate: float = 5e-3
    weight_decay: float = 1e-3
    clip: float = 1.0


class HistoryNetwork(nn.Module):
    """x_BLC of card and place -> logit_B."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build it."""
        super().__init__()
        width = config.encoder.width
        self.card_in = nn.Linear(CARD_VALUES, width)
        self.place_in = nn.Linear(PLACE_VALUES, width)
        self.card = build_encoder(config.encoder)
        self.place = build_encoder(config.encoder)
        self.head = nn.Sequential(
            nn.Linear(2 * width, config.head_width),
            nn.ReLU(),
            nn.Dropout(config.head_dropout),
            nn.Linear(config.head_width, 1),
        )

    def forward(
        self,
        card_BLC: torch.Tensor,
        card_length_B: torch.Tensor,
        place_BLC: torch.Tensor,
        place_length_B: torch.Tensor,
    ) -> torch.Tensor:
        """logit_B; of a place of which nothing is known the head sees zeros."""
        card_BD = self.card.last(torch.relu(self.card_in(card_BLC)), card_length_B)
        place_BD = self.place.last(torch.relu(self.place_in(place_BLC)), place_length_B)
        place_BD = place_BD * (place_length_B > 0)[:, None]
        return self.head(torch.cat([card_BD, place_BD], dim=1))[:, 0]


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """A fitted network; `shift` puts its logit back to the rate of fraud among all payments."""

    network: HistoryNetwork = field(repr=False)
    shift: float

    def logit(self, sequences: Sequences) -> Floats:
        """Of each payment, float64 [B]."""
        tensors = _tensors(sequences)
        self.network.eval()
        with torch.inference_mode():
            parts = [
                self.network(*(one[begin : begin + _SCORED_AT_ONCE] for one in tensors))
                for begin in range(0, len(sequences), _SCORED_AT_ONCE)
            ]
        return torch.cat(parts).double().numpy() - self.shift


def fit(sequences: Sequences, labels: Ints, *, config: NetworkConfig, seed: int) -> FittedNetwork:
    """Fit on B payments and their labels, int64 [B]; the same seed gives the same network.

    Raises:
        ValueError: a class is absent.
    """
    fraud, genuine = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    if not len(fraud) or not len(genuine):
        message = f"{len(fraud)} of {len(labels)} training payments are fraud: take a longer training range"
        raise ValueError(message)
    drawn = min(config.genuine * len(fraud), len(genuine))
    tensors, target_B = _tensors(sequences), torch.from_numpy(labels).float()
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = HistoryNetwork(config)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay)
        steps = config.epochs * -(-(len(fraud) + drawn) // config.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=steps)
        for _ in range(config.epochs):
            rows = rng.permutation(np.concatenate([fraud, rng.choice(genuine, drawn, replace=False)]))
            for begin in range(0, len(rows), config.batch):
                row = torch.from_numpy(rows[begin : begin + config.batch])
                logit_B = network(*(one[row] for one in tensors))
                optimizer.zero_grad()
                functional.binary_cross_entropy_with_logits(logit_B, target_B[row]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), config.clip)
                optimizer.step()
                schedule.step()
    return FittedNetwork(network=network, shift=float(np.log(len(genuine) / drawn)))


def _tensors(sequences: Sequences) -> tuple[torch.Tensor, ...]:
    return (
        torch.from_numpy(sequences.card_BLC),
        torch.from_numpy(sequences.card_length_B),
        torch.from_numpy(sequences.place_BLC),
        torch.from_numpy(sequences.place_length_B),
    )
