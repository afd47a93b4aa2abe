"""Hold what a store answered against what the cases expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.case_features import plain, same
from benchmarks.conformance.counts import Count, Result
from benchmarks.conformance.groups import group_of
from benchmarks.time_semantics import Read

_PAST = "read in the past"


def tally(
    result: Result,
    cases: list[dict[str, Any]],
    reads: Sequence[Read],
    answers: Sequence[dict[str, Any]],
    *,
    online: bool,
) -> Result:
    """Hold answers against what the cases expect, and add them to the result.

    An online store answers for now alone: that an earlier time read again gives what it gave then cannot be asked.
    """
    latest: dict[str, int] = {}
    for read, answer in zip(reads, answers, strict=True):
        group = group_of(cases[int(read.case)])
        count = result.groups.setdefault(group, Count())
        count.reads += 1
        count.values += len(read.expect)
        past = online and group == _PAST and read.t < latest.get(read.case, read.t)
        latest[read.case] = max(read.t, latest.get(read.case, read.t))
        if past:
            count.inexpressible += len(read.expect)
            continue
        for name, expected in read.expect.items():
            got = plain(answer[name], read.case)
            if not same(expected, got):
                count.mismatches += 1
                count.example = count.example or f"{read.name}: {name} is {got}, not {expected}"
    return result
