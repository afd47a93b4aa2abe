"""What acting on a payment costs, and the action of least expected cost.

The bundle has costs from the task; CLICKTRAIL_FRAUD_COSTS names a JSON file with those of a deployment. Shares are of
the payment's amount, fixed costs in minor units of its currency:

    {"review": {"fixed_minor": 500, "finds": 0.9},
     "missed_fraud": {"share": 1.0, "fixed_minor": 1500},
     "false_decline": {"share": 0.2, "fixed_minor": 500}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clicktrail import settings
from serving.manifest import RefusedError

APPROVE, REVIEW, DECLINE = ACTIONS = ("approve", "review", "decline")
"""The gentlest first: of equally dear ones it is taken."""

_SHARE = ("share", "finds")
_WANTED = {
    "review": ("fixed_minor", "finds"),
    "missed_fraud": ("share", "fixed_minor"),
    "false_decline": ("share", "fixed_minor"),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A share of the amount, and minor units beside it."""

    share: float
    fixed_minor: float

    def of(self, amount_minor: int) -> float:
        """Minor units."""
        return self.share * amount_minor + self.fixed_minor


@dataclass(frozen=True, kw_only=True)
class Costs:
    """A review costs minor units and finds a share of fraud; what missed fraud and a false decline cost."""

    review_minor: float
    finds: float
    missed_fraud: Cost
    false_decline: Cost

    def expected(self, probability: float, amount_minor: int) -> dict[str, float]:
        """Expected cost of each action, minor units.

        A review lets through every honest payment, and of the fraudulent ones those that it does not find.
        """
        missed = probability * self.missed_fraud.of(amount_minor)
        return {
            APPROVE: missed,
            REVIEW: self.review_minor + (1 - self.finds) * missed,
            DECLINE: (1 - probability) * self.false_decline.of(amount_minor),
        }


def chosen(interface: Mapping[str, Any]) -> Costs:
    """The costs of this deployment, else those of the bundle.

    Raises:
        RefusedError: they cannot be read, or the bundle has none.
    """
    path = settings.load().fraud_costs
    if path is None:
        if interface.get("costs") is None:
            message = "the bundle's interface.json has no costs: train again (make train TASK=fraud) and build anew"
            raise RefusedError(message)
        return read(interface["costs"], "costs in the bundle's interface.json")
    where = f"CLICKTRAIL_FRAUD_COSTS ({path})"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{where} cannot be read: {error}"
        raise RefusedError(message) from error
    return read(content, where)


def read(content: Any, where: str) -> Costs:  # noqa: ANN401 - JSON data
    """Costs from JSON data; `where` it stands is for the message.

    Raises:
        RefusedError: a key is missing, unknown, or no number from 0 on; shares of fraud are at most 1.
    """
    _keys(content, tuple(_WANTED), where)
    for name, parts in _WANTED.items():
        _keys(content[name], parts, f"{where}: {name}")
        for part in parts:
            number, most = content[name][part], 1 if part in _SHARE else 1e12
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
                message = f"{where}: {name}.{part} is {json.dumps(number)}; give a number from 0 to {most:g}"
                raise RefusedError(message)
    return Costs(
        review_minor=float(content["review"]["fixed_minor"]),
        finds=float(content["review"]["finds"]),
        missed_fraud=Cost(**content["missed_fraud"]),
        false_decline=Cost(**content["false_decline"]),
    )


def _keys(content: Any, wanted: tuple[str, ...], where: str) -> None:  # noqa: ANN401 - JSON data
    if not isinstance(content, dict) or set(content) != set(wanted):
        there = ", ".join(sorted(content)) if isinstance(content, dict) else json.dumps(content)[:60]
        message = f"{where} must have {', '.join(wanted)}, and nothing else; there is {there}"
        raise RefusedError(message)
