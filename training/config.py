"""Every choice of a run in one tree of frozen dataclasses; stored with the run as config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Family = Literal["rnn", "gru", "lstm", "transformer"]
FAMILIES: tuple[Family, ...] = ("rnn", "gru", "lstm", "transformer")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A sequence encoder: `width` is the model dimension D, `heads` is for the transformer alone."""

    family: Family = "gru"
    width: int = 64
    layers: int = 1
    heads: int = 2
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is fitted.

    `tokens`: events a batch. `packed`: several windows a row, in random company; else one a row, padded, among
    windows of like length, which is what recurrent encoders are faster with. `checkpoint_seconds`: between two
    checkpoints within an epoch (0: at its end alone). `seconds`: training ends with the epoch under way when it has
    taken longer (0: no limit). `patience`: epochs without a better validation metric. `rows`: queries a batch at most.
    """

    epochs: int = 8
    tokens: int = 16_384
    rows: int = 4_096
    rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0
    patience: int = 3
    seconds: float = 0.0
    packed: bool = True
    checkpoint_seconds: float = 60.0
    negatives: int = 1_024
    full_softmax: int = 8_192


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run: what is learnt from how many examples, by which encoder, how."""

    preset: str = "small"
    seed: int = 0
    encoder: EncoderConfig = EncoderConfig()
    fit: FitConfig = FitConfig()
    train_examples: int = 400_000
    validation_examples: int = 10_000
    test_examples: int = 20_000
    head_width: int = 64
    head_dropout: float = 0.1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunConfig:
        """What `to_json` wrote."""
        nested = {"encoder": EncoderConfig(**data["encoder"]), "fit": FitConfig(**data["fit"])}
        return cls(**{**data, **nested})
