"""The cost of a run: arithmetic against numbers worked out by hand, energy, and the words that tell it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from training.cost import Step, cost, count, product_rate
from training.energy import WATTS_A_CORE, EnergyMeter, PowerIntegral
from training.wording import cost_rows, scaled

B, L, D = 8, 10, 16


def test_a_linear_layer_is_counted_once_forward_and_twice_back() -> None:
    """2 x rows x in x out, for the result and for both gradients; each product by its shape."""
    layer, x = torch.nn.Linear(D, 3 * D), torch.randn(B * L, D, requires_grad=True)
    step = count(lambda: layer(x).square().sum())
    assert step.flops == 3 * 2 * (B * L) * D * (3 * D)
    assert step.products == {(1, B * L, D, 3 * D): 1, (1, B * L, 3 * D, D): 1, (1, 3 * D, B * L, D): 1}


def test_attention_and_lstm_are_counted_though_torch_leaves_them_out() -> None:
    """The CPU's own kernels: two products forward and five back; four gates of input and state, thrice."""
    query = torch.randn(B, 2, L, D, requires_grad=True)
    step = count(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True).sum())
    one = 2 * (B * 2) * L * L * D
    assert step.flops == 2 * one + 5 * one
    assert sum(2 * times * b * m * k * n for (b, m, k, n), times in step.products.items()) == step.flops
    lstm = torch.nn.LSTM(D, D, batch_first=True)
    step = count(lambda: lstm(torch.randn(B, L, D))[0].sum())  # noqa: PLW0108 - the forward pass is counted too
    assert step.flops == 3 * 2 * B * L * (4 * D) * (D + D)
    assert sum(2 * times * b * m * k * n for (b, m, k, n), times in step.products.items()) == step.flops


def test_the_rate_of_products_is_below_what_a_processor_can_do_and_above_nothing() -> None:
    """Under a second of products, whatever their shapes; no products, no rate."""
    begun = time.perf_counter()
    rate = product_rate({(1, 256, 64, 256): 4, (16, 50, 32, 50): 8}, torch.device("cpu"), torch.float32)
    assert time.perf_counter() - begun < 5
    assert 1e7 < rate < 1e14
    assert product_rate({}, torch.device("cpu"), torch.float32) == 0.0


def test_figures_of_a_cost_fit_together() -> None:
    """A step of 1,000 FLOP over 10 events: 100 by event, 100 x 50 in all, at 20 events/s 2,000 of the rate's 8,000."""
    found = cost(
        seconds=4.0,
        events=50,
        events_per_second=20.0,
        parameters=7,
        step=Step(flops=1_000, products={}),
        step_events=10,
        rate=8_000.0,
        joules=7_200.0,
        energy="measured",
    )
    assert (found.flops_per_event, found.flops, found.flops_per_second, found.mfu) == (100, 5_000, 2_000, 0.25)
    rows = cost_rows(found.to_json())
    assert rows["rate in training"].startswith("2 kFLOP/s, 25 % of what")
    assert rows["energy"] == "2 Wh, measured"


def test_units_are_scaled() -> None:
    """Three figures and a prefix."""
    assert [scaled(one) for one in (0.5, 12, 1_234, 5.6e9, 7e17)] == ["0.5 ", "12 ", "1.23 k", "5.6 G", "700 P"]


def test_counters_are_read_where_they_are_and_go_round(tmp_path: Path) -> None:
    """A counter that passed its range: (100 - 70 + 20) microjoules; parts of a package are not added again."""
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("70\n")
        (tmp_path / name / "max_energy_range_uj").write_text("100\n")
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("20\n")
    joules, how = meter.read()
    assert joules == pytest.approx(50e-6)
    assert "counters" in how


def test_without_counters_busy_time_is_taken_and_the_assumption_said(tmp_path: Path) -> None:
    """Watts a core times the CPU time of this process."""
    before = sum(os.times()[:4])
    meter = EnergyMeter(tmp_path)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    joules, how = meter.read()
    assert 0.15 * WATTS_A_CORE < joules <= (sum(os.times()[:4]) - before) * WATTS_A_CORE
    assert f"assumed {WATTS_A_CORE:.0f} W" in how


def test_power_that_is_asked_now_and_then_is_summed_over_time(tmp_path: Path) -> None:
    """Sixty watts for as long as the meter ran, to within one look."""
    begun = time.monotonic()
    power = PowerIntegral(lambda: 60.0, every=0.01)
    time.sleep(0.2)
    power.close()
    assert 60 * 0.1 < power.joules <= 60 * (time.monotonic() - begun)
    meter = EnergyMeter(tmp_path, gpu_watts=lambda: 60.0)
    assert "GPU" in meter.read()[1]
    meter.close()
