"""Presets: functions that give a whole configuration. A task's own needs come first, the preset scales them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from training.config import RECURRENT, EncoderConfig, Family, FitConfig, LossConfig, RunConfig


def small(task: str) -> RunConfig:
    """For two CPU cores and two minutes a task."""
    if task == "recommendation":
        return RunConfig(
            preset="small",
            encoder=EncoderConfig(family="gru", width=64, layers=1, dropout=0.1),
            fit=FitConfig(epochs=10, tokens=2_048, rows=8_192, rate=3e-3, average=0.995, seconds=300),
        )
    if task == "next_action":
        return RunConfig(
            preset="small",
            encoder=EncoderConfig(family="gru", width=64, layers=1, dropout=0.1),
            fit=FitConfig(epochs=5, tokens=4_096, rows=8_192, rate=3e-3, average=0.995, seconds=240),
            train_examples=200_000,
        )
    if task in {"retention", "purchase_count", "time_to_purchase"}:
        return RunConfig(
            preset="small",
            encoder=EncoderConfig(family="gru", width=32, layers=1, dropout=0.1),
            fit=FitConfig(epochs=5, tokens=4_096, rows=512, rate=2e-3, average=0.99, seconds=120),
            train_examples=150_000,
        )
    return RunConfig(
        preset="small",
        encoder=EncoderConfig(family="gru", width=32, layers=1, dropout=0.25),
        fit=FitConfig(epochs=7, tokens=8_192, rows=256, rate=2e-3, weight_decay=0.05, average=0.995, seconds=240),
        head_dropout=0.25,
        train_examples=60_000,
        validation_examples=30_000,
        test_examples=50_000,
    )


def base(task: str) -> RunConfig:
    """For a GPU, or a CPU and patience: over 1 M weights in the encoder."""
    encoder = EncoderConfig(family="transformer", width=192, layers=3, heads=6, dropout=0.1)
    return _scaled("base", small(task), encoder, epochs=2, rate=1e-3, examples=4)


def large(task: str) -> RunConfig:
    """For a GPU and millions of examples: over 10 M weights in the encoder."""
    encoder = EncoderConfig(family="transformer", width=384, layers=6, heads=12, dropout=0.1)
    return _wide(_scaled("large", base(task), encoder, epochs=1, rate=6e-4, examples=4))


def huge(task: str) -> RunConfig:
    """For GPUs and tens of millions of examples: over 100 M weights in the encoder."""
    encoder = EncoderConfig(family="transformer", width=1_024, layers=10, heads=16, dropout=0.1)
    return _wide(_scaled("huge", large(task), encoder, epochs=1, rate=3e-4, examples=4))


def _scaled(
    name: str, config: RunConfig, encoder: EncoderConfig, *, epochs: int, rate: float, examples: int
) -> RunConfig:
    """Another encoder, `epochs` and `examples` times as many, no limit of time."""
    fit = replace(config.fit, epochs=epochs * config.fit.epochs, rate=rate, seconds=0.0)
    count = examples * config.train_examples
    return replace(config, preset=name, encoder=encoder, fit=fit, head_width=encoder.width, train_examples=count)


def _wide(config: RunConfig) -> RunConfig:
    """Batches that fill a GPU."""
    return replace(config, fit=replace(config.fit, tokens=65_536, rows=32_768, loss=LossConfig(negatives=4_096)))


PRESETS: dict[str, Callable[[str], RunConfig]] = {"small": small, "base": base, "large": large, "huge": huge}


def preset(name: str, task: str, *, encoder: Family | None = None, seed: int = 0) -> RunConfig:
    """The configuration of a preset for a task, with another encoder family or seed if given.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        message = f"preset {name!r} does not exist; choose one of: {', '.join(PRESETS)}"
        raise ValueError(message)
    config = PRESETS[name](task)
    family = encoder or config.encoder.family
    fit = replace(config.fit, packed=family not in RECURRENT)  # one step an event: company of like length is shorter
    return replace(config, seed=seed, encoder=replace(config.encoder, family=family), fit=fit)
