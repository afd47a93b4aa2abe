"""Rule groups: which rule of the time contract a worked case is about, by its name and its `why`."""

from __future__ import annotations

import re
from typing import Any

GROUPS: dict[str, str] = {
    "strictly before": r"strictly before",
    "late arrival": r"^late event|batch that arrives at once",
    "order": r"ties by|out of order",
    "ahead of its arrival": r"ahead|future event",
    "copies and conflicts": r"same event|same id",
    "last K": r"more than k",
    "within": r"within on a sequence|last k first",
    "labels": r"label",
    "windows that slide": r"expiry|left edge",
    "hop": r"^hop",
    "time since": r"seconds since",
    "what counts": r"money|across types|types do not mix",
    "idle entity": r"nothing for|idle",
    "unknown entity": r"unknown",
    "two entities": r"two users|leaks between",
    "read in the past": r"read in the past|earlier t again",
}
"""Group by group, in the order of the table: what the name of one of its cases, else its `why`, matches."""

OTHER = "other cases"


def group_of(case: dict[str, Any]) -> str:
    """The rule group of a case; `OTHER` where neither its name nor its `why` tells."""
    for text in (case.get("name", ""), case.get("why", "")):
        for group, pattern in GROUPS.items():
            if re.search(pattern, text, re.IGNORECASE):
                return group
    return OTHER
