"""The action of least expected cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving import costs
from serving.manifest import RefusedError

CONTENT: dict[str, Any] = {
    "review": {"fixed_minor": 300, "finds": 0.9},
    "missed_fraud": {"share": 1.0, "fixed_minor": 1000},
    "false_decline": {"share": 0.2, "fixed_minor": 500},
}


def test_expected_costs_by_hand() -> None:
    """A payment of 100.00 that is fraud with 4 %: what each action costs on average."""
    found = costs.read(CONTENT, "here").expected(0.04, 10_000)
    assert found == pytest.approx(
        {
            "approve": 0.04 * (10_000 + 1000),
            "review": 300 + 0.1 * 0.04 * (10_000 + 1000),
            "decline": 0.96 * (0.2 * 10_000 + 500),
        }
    )
    assert min(costs.ACTIONS, key=found.__getitem__) == "review"


@pytest.mark.parametrize(
    ("probability", "action"), [(0.0, "approve"), (0.02, "approve"), (0.1, "review"), (1.0, "decline")]
)
def test_the_surer_the_harder(probability: float, action: str) -> None:
    """From approve over review to decline as the probability rises."""
    found = costs.read(CONTENT, "here").expected(probability, 10_000)
    assert min(costs.ACTIONS, key=found.__getitem__) == action


def test_of_equally_dear_actions_the_gentlest() -> None:
    """Where nothing costs anything, a payment is approved."""
    free = {name: dict.fromkeys(parts, 0) for name, parts in CONTENT.items()}
    found = costs.read(free, "here").expected(0.7, 10_000)
    assert min(costs.ACTIONS, key=found.__getitem__) == "approve"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"review": None}, "review must have fixed_minor, finds"),
        ({"review": {"fixed_minor": 300}}, "there is fixed_minor"),
        ({"review": {"fixed_minor": 300, "finds": 1.5}}, "review.finds is 1.5; give a number from 0 to 1"),
        ({"missed_fraud": {"share": True, "fixed_minor": 1}}, "missed_fraud.share is true"),
        ({"missed_fraud": {"share": 1, "fixed_minor": "12"}}, 'missed_fraud.fixed_minor is "12"'),
        ({"false_decline": {"share": float("nan"), "fixed_minor": 0}}, "false_decline.share is NaN"),
        ({"false_decline": {"share": 0, "fixed_minor": -1}}, "false_decline.fixed_minor is -1"),
        ({"chargeback": {}}, "nothing else; there is chargeback"),
    ],
)
def test_costs_are_read_strictly(change: dict[str, Any], said: str) -> None:
    """A key that is missing or unknown, and a number that is none, are named."""
    with pytest.raises(RefusedError, match=said.replace("(", r"\(")):
        costs.read(CONTENT | change, "here")


def test_a_deployment_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLICKTRAIL_FRAUD_COSTS stands before the bundle's costs; a file that cannot be read is named."""
    file = tmp_path / "costs.json"
    file.write_text(json.dumps(CONTENT | {"review": {"fixed_minor": 7, "finds": 0.5}}))
    assert costs.chosen({"costs": CONTENT}).review_minor == 300
    monkeypatch.setenv("CLICKTRAIL_FRAUD_COSTS", str(file))
    assert costs.chosen({"costs": CONTENT}).review_minor == 7
    file.write_text("{")
    with pytest.raises(RefusedError, match=r"CLICKTRAIL_FRAUD_COSTS .*cannot be read"):
        costs.chosen({"costs": CONTENT})
    monkeypatch.delenv("CLICKTRAIL_FRAUD_COSTS")
    with pytest.raises(RefusedError, match="has no costs: train again"):
        costs.chosen({})
