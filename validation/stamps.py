"""What the log records of who held rows to the contract: `rules:<fingerprint>`, `gate:<fingerprint>[ waived:rule,...]`.

The fingerprint is of the contract's columns and row rules, for the gate of its thresholds too. So a bundle says which
rules its training data kept, and rows that passed none are told apart from those that did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from clicktrail.contract import EVENT_COLUMNS, row_rules
from validation.batch import Thresholds

_LENGTH = 12


def rules_stamp() -> str:
    """Rows passed the row rules one by one, as live events do."""
    return f"rules:{_fingerprint(_contract())}"


def gate_stamp(limits: Thresholds, waived: Iterable[str] = ()) -> str:
    """Rows passed the row rules, their files the thresholds, and all of it the Great Expectations suite.

    Args:
        limits: the thresholds.
        waived: rules that would have stopped a file of the batch, but a person had looked at it.
    """
    stamp = f"gate:{_fingerprint([_contract(), asdict(limits)])}"
    return f"{stamp} waived:{','.join(sorted(waived))}" if waived else stamp


def _contract() -> list[Any]:
    columns = [[one.name, str(one.type), one.nullable, one.allowed, one.minimum] for one in EVENT_COLUMNS]
    return [columns, [[rule.name, rule.violated] for rule in row_rules()]]


def _fingerprint(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:_LENGTH]
