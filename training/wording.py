"""A run in plain words and rounded figures, for people who do not think in AUC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from training.pictures import readable
from training.run_record import Run, Standing

LOWER_IS_BETTER = {"brier", "ece", "deviance", "rmse", "mae"}
"""Metrics by their name before an `@`."""

_EXPLAINED = {
    "log_likelihood": "mean logarithm of the probability (of a time: density by the day) given to what happened",
    "macro_precision": "share of right ones among those called a class, the mean over classes",
    "macro_recall": "share of a class that is called so, the mean over classes",
    "macro_f1": "balance of precision and recall, the mean over classes",
    "top_3": "share of cases whose class is among the three likeliest",
    "deviance": "Poisson deviance, distance of expected and observed counts; lower is better",
    "rmse": "root of the mean squared error of the expected count; lower is better",
    "mae": "mean absolute error of the expected count; lower is better",
    "bias": "expected minus observed count, in the mean; 0 is best",
    "auc_of_any": "how often a case with a count above 0 scores above one without; guessing gives 0.5",
    "concordance": "of two cases, how often the quicker one was thought to be it; guessing gives 0.5",
    "ndcg": "1 when what comes next stands first in the list, less the further down it stands, 0 beyond the cut",
    "hit_rate": "share of cases in which what comes next is in the list of that length",
    "mrr": "mean of 1 / position of what comes next",
    "auc": "how often a yes scores above a no when one of each is drawn; guessing gives 0.5",
    "average_precision": "mean precision over all thresholds; guessing gives the share of yes cases",
    "accuracy": "share of right decisions (at the threshold, where there is one)",
    "precision": "share of alarms that are right",
    "recall": "share of the yes cases that are found",
    "f1": "balance of precision and recall (harmonic mean)",
    "brier": "mean squared error of the probability; lower is better",
    "ece": "expected calibration error, the mean distance between predicted and observed rate; lower is better",
}


def explain(metric: str) -> str:
    """One line on what a metric says."""
    return _EXPLAINED.get(metric.partition("@")[0], metric)


def title(metric: str) -> str:
    """A metric as a column head."""
    short = {
        "rmse": "RMSE",
        "mae": "MAE",
        "auc_of_any": "AUC of any",
        "auc": "AUC",
        "mrr": "MRR",
        "ece": "ECE",
        "f1": "F1",
        "macro_f1": "Macro F1",
    }
    name, _, cut = metric.partition("@")
    if cut and name in {"auc", "brier"}:
        return f"{title(name)} by {cut}"
    words = metric.replace("_", " ")
    return short.get(metric, words.replace("ndcg", "NDCG") if "ndcg" in metric else words[:1].upper() + words[1:])


def of_hundred(share: float) -> str:
    """`34`, or `0.7` where whole numbers say too little."""
    value = 100 * share
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A JSON value for a table: grouped digits, four decimals, lists on one line."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "none"
        return f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(number(one) for one in value)
    return str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested JSON as rows: `encoder.width` -> `64`."""
    rows: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{name}.")
        else:
            rows[prefix + name] = number(value)
    return rows


def verdict(run: Run, stands: Standing) -> list[str]:
    """What the run shows, in two to four sentences."""
    said = _ranking_words(run, stands) if run.ranking else _head_words(run)
    if stands.best_baseline:
        name = readable(stands.best_baseline)
        if stands.difference is None:
            relation = "is above" if stands.model > stands.baseline else "is not above"
            said.append(f"In {title(stands.metric)} the model {relation} the best simple method ({name}).")
        elif stands.difference["low"] > 0:
            said.append(f"It beats the best simple method ({name}), and chance does not explain the difference.")
        elif stands.difference["high"] < 0:
            said.append(f"It is worse than the best simple method ({name}): do not deploy it.")
        else:
            said.append(f"The difference from the best simple method ({name}) may be chance: do not rely on it.")
    if not math.isnan(stands.share):
        said.append(
            f"It closes {100 * stands.share:.0f} % of the gap from there to an oracle "
            "that knows the shop's true parameters."
        )
    return said


def _ranking_words(run: Run, stands: Standing) -> list[str]:
    cut = int(stands.metric.partition("@")[2] or 10)
    name = f"hit_rate@{cut}"
    model = run.metrics["model"].get(name)
    if model is None:
        return []
    beside = run.metrics["baselines"].get(stands.best_baseline, {}).get(name)
    others = f"; {readable(stands.best_baseline)} manages {of_hundred(beside)}" if beside is not None else ""
    return [f"In {of_hundred(model)} of 100 cases the right item is among the first {cut} of the list{others}."]


def _head_words(run: Run) -> list[str]:
    model = run.metrics["model"]
    said = []
    if run.head == "multiclass":
        said.append(f"The likeliest class is the right one in {of_hundred(model['accuracy'])} of 100 cases.")
    if run.head == "count":
        said.append(
            f"Expected counts are off by {model['mae']:.3g} in the mean, their sum by {model['bias']:+.3g} a case."
        )
    if run.head == "time":
        quicker = of_hundred(model["concordance"])
        said.append(f"Of two cases, the model tells which one it happens to first {quicker} times of 100.")
    if "auc" in model:
        said.append(f"Given one yes and one no, the model puts the yes first {of_hundred(model['auc'])} times of 100.")
    if {"precision", "recall", "threshold"} <= set(model):
        said.append(
            f"At its threshold of {model['threshold']:.3g}, {of_hundred(model['precision'])} of 100 alarms are right, "
            f"and {of_hundred(model['recall'])} of 100 yes cases are found."
        )
    return said


def cost_rows(cost: Mapping[str, Any]) -> dict[str, str]:
    """What a run cost, for people."""
    return {
        "parameters": number(cost["parameters"]),
        "events read in training": number(cost["events"]),
        "events a second": number(float(round(cost["events_per_second"]))),
        "arithmetic by event": f"{scaled(cost['flops_per_event'])}FLOP",
        "arithmetic of all steps": f"{scaled(cost['flops'])}FLOP",
        "rate in training": f"{scaled(cost['flops_per_second'])}FLOP/s, {of_hundred(cost['mfu'])} % of what the "
        f"step's matrix products reach alone ({scaled(cost['product_flops_per_second'])}FLOP/s)",
        "energy": f"{cost['joules'] / 3600:.2g} Wh, {cost['energy']}",
    }


def part_rows(run: Run) -> list[dict[str, Any]]:
    """What the model is made of, a row a part: its weight and what it is worth alone; none where the model is one."""
    parts = run.metrics.get("parts") or {}
    metric, validation = run.metric, parts.get("validation", {})
    return [
        {
            "name": name,
            "weight": weight,
            "validation": validation.get(name),
            "test": parts["test"].get(name, {}).get(metric),
        }
        for name, weight in parts.get("weights", {}).items()
    ]


def scaled(value: float) -> str:
    """`1.2 M`, `34 G`: three figures and a unit's prefix."""
    place = 0 if abs(value) < 1 else min(5, int(math.log10(abs(value))) // 3)
    return f"{value / 1_000**place:.3g} {['', 'k', 'M', 'G', 'T', 'P'][place]}"
