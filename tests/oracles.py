"""The naive versions that the fast ones are checked against: each rule of the time contract, one after the other.

Events and labels are dicts as in the time cases (times in whole seconds); everything is quadratic and plain.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

AHEAD_S = 300


def accepted(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """First arrival of each event_id, without those over five minutes ahead of their arrival."""
    seen: dict[str, dict[str, Any]] = {}
    for event in sorted(events, key=lambda one: one["ingested_at"]):
        if event["event_timestamp"] - event["ingested_at"] <= AHEAD_S and event["event_id"] not in seen:
            seen[event["event_id"]] = event
    return list(seen.values())


def known_at(event: dict[str, Any]) -> int:
    """When it could be known."""
    return max(event["event_timestamp"], event["ingested_at"])


def visible(events: list[dict[str, Any]], key: str, entity: str, t: int) -> list[dict[str, Any]]:
    """What is known of an entity before t, in the order of the contract."""
    keys, ids = key.split("+"), entity.split("\x1f")
    mine = [
        event
        for event in events
        if all(event.get(one) == name for one, name in zip(keys, ids, strict=True)) and known_at(event) < t
    ]
    return sorted(mine, key=lambda one: (known_at(one), one["event_timestamp"], one["source_seq"], one["event_id"]))


def value(  # noqa: C901, PLR0911, PLR0912 - one branch and one return a rule
    feature: dict[str, Any], events: list[dict[str, Any]], labels: list[dict[str, Any]], entity: str | None, t: int
) -> Any:  # noqa: ANN401 - a value of any feature
    """Value of one feature of the time contract at a read; `events` are accepted ones."""
    if entity is None:
        return None
    seen = visible(events, feature.get("entity") or "user_id", entity, t)
    if feature.get("events"):
        seen = [event for event in seen if event["event_type"] in feature["events"]]
    if feature["kind"] == "sequence":
        last = _session(feature, _without_repeats(feature, seen))[-feature["last"] :]
        if feature.get("within_s"):
            last = [event for event in last if event["event_timestamp"] >= t - feature["within_s"]]
        return [event[feature["field"]] for event in last]
    if feature["kind"] == "seconds_since_last":
        return t - max(event["event_timestamp"] for event in seen) if seen else None
    right = t - feature.get("delay_s", 0)
    left = right - feature["window_s"]
    hop = feature.get("hop_s", 0)
    left = left // hop * hop if hop else left
    inside = [event for event in seen if event["event_timestamp"] >= left]
    present = (
        [event[feature["field"]] for event in inside if event[feature["field"]] is not None]
        if feature.get("field")
        else []
    )
    match feature["kind"]:
        case "count":
            return len(inside)
        case "sum":
            return sum(present)
        case "distinct":
            return len(set(present))
        case "max":
            return max(present, default=None)
        case "top":
            return _top(feature, inside)
        case "mean":
            return sum(present) / len(present) if present else None
        case "std":
            return _std(present)
        case "min":
            return min(present, default=None)
        case "first":
            return present[0] if present else None
        case "last":
            return present[-1] if present else None
        case "most_frequent":
            return (_top(feature, inside) or [None])[0]
        case "mean_gap":
            gaps = _gaps(inside)
            return sum(gaps) / len(gaps) if gaps else None
        case "std_gap":
            return _std(_gaps(inside))
        case "ratio":
            longer = t - feature["over_s"]
            longer = longer // hop * hop if hop else longer
            over = [event for event in seen if event["event_timestamp"] >= longer]
            if feature["part"] == "count":
                return len(inside) / len(over) if over else None
            total = sum(event[feature["field"]] or 0 for event in over)
            return sum(present) / total if total else None
        case "sql":
            return feature["oracle"](inside)
        case "label_rate":
            due = [event for event in inside if event["event_timestamp"] < right]
            return [sum(_labelled(event, labels, feature["label"], t) for event in due), len(due)]
    raise AssertionError(feature["kind"])


def _std(values: list[int]) -> float | None:
    """Sample standard deviation, the way that gives the float nearest to the truth."""
    n = len(values)
    if n < 2:
        return None
    return math.sqrt(Fraction(n * sum(one * one for one in values) - sum(values) ** 2, n * (n - 1)))


def _gaps(inside: list[dict[str, Any]]) -> list[int]:
    times = sorted(event["event_timestamp"] for event in inside)
    return [later - earlier for earlier, later in pairwise(times)]


def _without_repeats(feature: dict[str, Any], seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fields = feature.get("drop_repeats") or ()
    kept: list[dict[str, Any]] = []
    for event in seen:
        if not fields or not kept or any(event[field] != kept[-1][field] for field in fields):
            kept.append(event)
    return kept


def _session(feature: dict[str, Any], seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pause = feature.get("session_s")
    if pause is None or not seen:
        return seen
    begin = len(seen) - 1
    while begin > 0:
        before, here = seen[begin - 1], seen[begin]
        if before["session_id"] != here["session_id"] if pause == 0 else known_at(here) - known_at(before) > pause:
            break
        begin -= 1
    return seen[begin:]


def _labelled(event: dict[str, Any], labels: list[dict[str, Any]], name: str, t: int) -> bool:
    known = [
        label
        for label in labels
        if label["event_id"] == event["event_id"] and label["label"] == name and label["known_at"] < t
    ]
    return bool(known) and max(known, key=lambda one: one["known_at"])["value"] == 1


def _top(feature: dict[str, Any], inside: list[dict[str, Any]]) -> list[Any]:
    values = [event[feature["field"]] for event in inside if event[feature["field"]] is not None]
    last = {event[feature["field"]]: (-known_at(event), -event["event_timestamp"]) for event in inside}
    return sorted(set(values), key=lambda one: (-values.count(one), last[one], one))[: feature["k"]]


class NaiveLog:
    """What an event log does with batches, wishes to be forgotten and reads; rows are dicts of contract columns.

    Times are whole microseconds. Nothing is merged and nothing is erased: a hidden row stays and is not shown.
    """

    def __init__(self) -> None:
        """Nothing in it."""
        self.rows: list[dict[str, Any]] = []
        self.hidden: set[int] = set()
        self.forgotten: set[str] = set()

    def append(self, batch: list[dict[str, Any]]) -> tuple[list[int], list[int], list[tuple[int, str]]]:
        """Indices into the batch: accepted ones in order of their offsets, copies, and rejected ones with the rule."""
        fates: dict[int, str] = {}
        gone = {self.rows[offset]["event_id"] for offset in self.hidden}
        stands = {row["event_id"]: row for row in self.rows}
        accepted = []
        for place in sorted(range(len(batch)), key=lambda one: (batch[one]["ingested_at"], one)):
            row = batch[place]
            first = stands.get(row["event_id"])
            if row["event_timestamp"] - row["ingested_at"] > AHEAD_S * 1_000_000:
                fates[place] = "ahead_of_arrival"
            elif row["user_id"] in self.forgotten or row["label_of"] in gone:
                fates[place] = "forgotten"
            elif first is None:
                accepted.append(place)
                stands[row["event_id"]] = row
            else:
                fates[place] = "copy" if _says(row) == _says(first) else "conflict"
        self.rows += [batch[place] for place in accepted]
        copies = [place for place in sorted(fates) if fates[place] == "copy"]
        return accepted, copies, [(place, fates[place]) for place in sorted(fates) if fates[place] != "copy"]

    def forget(self, users: set[str]) -> None:
        """Hide what these users did, and labels of what is hidden."""
        self.forgotten |= users
        self.hidden |= {offset for offset, row in enumerate(self.rows) if row["user_id"] in self.forgotten}
        before = -1
        while before != len(self.hidden):
            before = len(self.hidden)
            gone = {self.rows[offset]["event_id"] for offset in self.hidden}
            self.hidden |= {offset for offset, row in enumerate(self.rows) if row["label_of"] in gone}

    def read(self, start: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
        """(offset, row) of what is seen."""
        return [(offset, self.rows[offset]) for offset in range(start, stop) if offset not in self.hidden]

    def labels(self, label: str, events: list[str], stop: int, of: list[str] | None) -> list[tuple[int, int]]:
        """(offset of the label, offset of its event), those of one event together and oldest first."""
        seen = self.read(0, stop)
        pairs = [
            (event_at, known_at(row), row["event_timestamp"], row["source_seq"], row["event_id"], label_at)
            for label_at, row in seen
            for event_at, event in seen
            if (row["event_type"], row["label"]) == ("label", label)
            and row["label_of"] == event["event_id"]
            and event["event_type"] in events
            and (of is None or row["label_of"] in of)
        ]
        return [(pair[-1], pair[0]) for pair in sorted(pairs)]


def _says(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"ingested_at", "source_seq"}}


# ---- answers about classes, counts and times (training/head_metrics.py)


def next_action(
    events: list[dict[str, Any]], user: str, t: int, *, actions: tuple[str, ...], horizon: int, wait: int
) -> str:
    """Type of a user's first action in [t, t + horizon), of those known before t + wait; `nothing` if there is none."""
    there = [
        event
        for event in events
        if event["user_id"] == user
        and event["event_type"] in actions
        and t <= event["event_timestamp"] < t + horizon
        and known_at(event) < t + wait
    ]
    first = min(
        there,
        key=lambda one: (one["event_timestamp"], known_at(one), one["source_seq"], one["event_id"]),
        default={"event_type": "nothing"},
    )
    return str(first["event_type"])


def purchases(events: list[dict[str, Any]], user: str, t: int, horizon: int) -> int:
    """How often a user bought in [t, t + horizon), as far as it was known by its end."""
    return sum(
        event["user_id"] == user
        and event["event_type"] == "purchase"
        and t <= event["event_timestamp"] < t + horizon
        and known_at(event) < t + horizon
        for event in events
    )


def time_to_purchase(events: list[dict[str, Any]], user: str, t: int, *, cut: int, delay: int) -> tuple[float, bool]:
    """Seconds from t to a user's next purchase and True, or for how long he was watched in vain and False.

    Whoever watches stops `delay` before the cut, and hears before the cut of what happened or not at all.
    """
    bought = [
        (event["event_timestamp"], known_at(event))
        for event in events
        if event["user_id"] == user and event["event_type"] == "purchase" and event["event_timestamp"] >= t
    ]
    happened, known = min(bought, default=(cut, cut))
    seen = happened < cut - delay and known < cut
    return max(0, (happened if seen else cut - delay) - t) / 1e6, seen


def concordance(labels: list[tuple[float, bool]], risk: list[float]) -> float:
    """Harrell's C, pair by pair."""
    hits, pairs = 0.0, 0
    for at, (time, seen) in enumerate(labels):
        for other, (longer, its) in enumerate(labels):
            if seen and (longer > time or (longer == time and not its and other != at)):
                pairs += 1
                hits += 1.0 if risk[at] > risk[other] else 0.5 if risk[at] == risk[other] else 0.0
    return hits / pairs if pairs else math.nan


def kaplan_meier(labels: list[tuple[float, bool]], at: float) -> float:
    """Share to whom it had not happened before a moment: factor by factor."""
    yet = 1.0
    for time in sorted({time for time, seen in labels if seen and time < at}):
        waiting = sum(one >= time for one, _ in labels)
        yet *= 1 - sum(one == time and seen for one, seen in labels) / waiting
    return yet


def time_likelihood(edges: list[float], by_edge: list[float], seconds: float, seen: bool) -> float:  # noqa: FBT001
    """Log density by the day, or log probability of not yet, of a rate that is constant between edges (seconds)."""
    log, begin, before = 0.0, 0.0, 0.0
    for edge, chance in zip(edges, by_edge, strict=True):
        after = -math.log(1 - chance)
        rate = (after - before) / (edge - begin)
        if seconds < edge:
            return log - rate * (seconds - begin) + (math.log(rate * 86_400) if seen else 0.0)
        log -= after - before
        begin, before = edge, after
    return log


def class_figures(labels: list[int], chosen: list[int]) -> dict[str, float]:
    """Accuracy, and means over the true classes of precision, recall and F1."""
    classes = sorted(set(labels))
    precision, recall, f1 = [], [], []
    for one in classes:
        hits = sum(true == one == said for true, said in zip(labels, chosen, strict=True))
        called, there = chosen.count(one), labels.count(one)
        precision.append(hits / called if called else 0.0)
        recall.append(hits / there)
        f1.append(2 * hits / (called + there))
    return {
        "accuracy": sum(map(int.__eq__, labels, chosen)) / len(labels),
        "macro_precision": sum(precision) / len(classes),
        "macro_recall": sum(recall) / len(classes),
        "macro_f1": sum(f1) / len(classes),
    }
