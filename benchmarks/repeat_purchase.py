"""Who buys again, and how often: `python -m benchmarks.repeat_purchase --data FILE`.

FILE is Parquet with customer_id and date, one row a purchase; columns of numbers beside them (amount, quantity) are
used where there are any. Purchases of one customer and day are one. The first half of the days is the calibration
period, the second, of equal length, the hold-out: no model sees it, and customers who begin in it are left out. BG/NBD,
Pareto/NBD and simple rules are fitted the same way. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.repeat_purchase_metrics import METRICS, Judged, differences
from clicktrail.publish import publish_file
from training.baselines import bgnbd
from training.purchases.forecast import FIRST, STEPS, Chosen, Forecast, ForecastConfig, choose, forecast
from training.purchases.history import WEEK, Floats, Purchases, merge_days
from training.purchases.snapshots import Calibration, look

OUT = Path("var/bench/repeat_purchase")
_SEEDS = 3
_KEYS = ("customer_id", "date")
_RECENT = 13  # weeks, of the rule that goes on as of late


@dataclass(frozen=True, kw_only=True)
class Split:
    """A file, and where its calibration period ends.

    Attributes:
        purchases: of customers who bought in the calibration period.
        ids: [n], the customers.
        until: last day of the calibration period.
        days: length of either period.
        target: float64 [n], purchases in the hold-out.
    """

    purchases: Purchases
    ids: np.ndarray
    until: int
    days: int
    target: Floats


def read(path: Path, until: str | None = None) -> Split:
    """Read a file and cut it; `until` (YYYY-MM-DD) ends the calibration period elsewhere than in the middle.

    Raises:
        ValueError: a column is missing or null, a period is empty, or nobody bought in the calibration period.
    """
    table = pq.read_table(path)
    missing = [name for name in _KEYS if name not in table.column_names]
    if missing:
        message = f"{path} lacks {missing}, it has {table.column_names}: one row a purchase, with {list(_KEYS)}"
        raise ValueError(message)
    if not table.num_rows:
        message = f"{path} has no rows: one row a purchase is needed"
        raise ValueError(message)
    for name in _KEYS:
        if table[name].null_count:
            row = pc.index(table[name].is_null(), pa.scalar(value=True)).as_py()
            message = f"{path}: {name} is null in row {row}, {table[name].null_count} in all; leave such rows out"
            raise ValueError(message)
    try:
        dates = pc.cast(pc.cast(table["date"], pa.timestamp("us")), pa.date32())
    except pa.ArrowInvalid as wrong:
        message = f"{path}: date is {table['date'].type} and cannot be read as dates ({wrong})"
        raise ValueError(message) from wrong
    day = dates.cast(pa.int32()).to_numpy().astype(np.int64)
    return _cut(table, day, None if until is None else int(np.datetime64(until, "D").astype(np.int64)))


def _cut(table: pa.Table, day: np.ndarray, until: int | None) -> Split:
    start = day.min()
    span = int(day.max() - start) + 1
    days = span // 2 if until is None else until - int(start) + 1
    if days <= 0 or 2 * days > span:
        message = (
            f"the file spans {span} days, which does not hold a calibration period of {days} days and a hold-out "
            "of as many: give an earlier --until, or a longer file"
        )
        raise ValueError(message)
    amounts = {
        field.name: table[field.name].cast(pa.float64()).to_numpy()
        for field in table.schema
        if field.name not in _KEYS and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    }
    purchases, ids = merge_days(table["customer_id"].to_numpy(), day - start, amounts)
    known = np.flatnonzero(purchases.first < days)
    kept = purchases.take(known)
    return Split(purchases=kept, ids=ids[known], until=days - 1, days=days, target=kept.count(days - 1, 2 * days - 1))


def simple(split: Split) -> dict[str, Floats]:
    """Expected purchases by rules that fit nothing: [n] each."""
    past, _ = split.purchases.until(split.until)
    seen = past.summary(split.until)
    recent = min(_RECENT * int(WEEK), split.days)
    return {
        "zero": np.zeros(len(past)),
        "rate so far": seen.x / np.maximum(seen.T, 1 / WEEK) * split.days / WEEK,
        f"as in the last {recent / WEEK:.0f} weeks": past.count(split.until - recent, split.until)
        * split.days
        / recent,
    }


def run(
    split: Split, *, seeds: int, draws: int, config: ForecastConfig | None = None
) -> tuple[dict[str, Any], pa.Table]:
    """Fit everything on the calibration period, and measure it on the hold-out: figures and predictions."""
    began = time.perf_counter()
    config = config or ForecastConfig()
    weeks = split.days / WEEK
    past, _ = split.purchases.until(split.until)
    seen = past.summary(split.until)
    bg = bgnbd.fit(seen)
    period = look(past, split.until, steps=STEPS, first=FIRST, progress=True)
    pareto = period.looks[STEPS].model
    chosen = choose(period, split.days, config, progress=True)
    ours = [forecast(period, split.days, chosen, config, seed=seed) for seed in range(seeds)]
    peers = {
        "BG/NBD": Forecast(expected=bg.expected(seen, weeks), buys_again=bg.buys_again(seen, weeks)),
        "Pareto/NBD": Forecast(expected=pareto.expected(seen, weeks), buys_again=pareto.buys_again(seen, weeks)),
    }
    judged = {name: Judged(split.target, one.expected, _ranking(split.target, one)) for name, one in peers.items()}
    rules = {name: Judged(split.target, expected, expected) for name, expected in simple(split).items()}
    own = [Judged(split.target, one.expected, one.buys_again) for one in ours]
    everybody = np.ones(len(split.ids))
    by_seed = [one.measure(everybody) for one in own]
    figures: dict[str, Any] = {
        "customers": len(split.ids),
        "days": split.days,
        "purchases": int(split.target.sum()),
        "buy_again": float((split.target > 0).mean()),
        **{metric: float(np.mean([one[metric] for one in by_seed])) for metric in METRICS},
        "spread": {
            metric: float(np.std([one[metric] for one in by_seed], ddof=min(1, seeds - 1))) for metric in METRICS
        },
        "bgnbd_log_likelihood": float(bg.log_likelihood(seen).sum()),
        "pareto_nbd_log_likelihood": float(pareto.log_likelihood(seen).sum()),
        "parameters": {"BG/NBD": vars(bg), "Pareto/NBD": vars(pareto)},
        "chosen": _described(chosen, period),
        "peers": {name: one.measure(everybody) for name, one in (judged | rules).items()},
        "gains": differences(own, judged, len(split.ids), draws=draws),
    }
    figures["seconds"] = round(time.perf_counter() - began, 1)
    return _without_nan(figures), _predictions(split, peers, ours)


def _ranking(target: Floats, one: Forecast) -> Floats:
    """What a peer ranks customers by: the better of its two answers, on the hold-out itself. We do not choose so."""
    everybody = np.ones(len(target))
    return max(
        (one.expected, one.buys_again), key=lambda ranks: Judged(target, one.expected, ranks).measure(everybody)["auc"]
    )


def _described(chosen: Chosen, period: Calibration) -> dict[str, Any]:
    return {
        "number": vars(chosen.number),
        "chance": vars(chosen.chance),
        "spread": chosen.spread,
        "level": chosen.level,
        "inner": {f"{trees.count} of depth {trees.depth}": vars(one) for trees, one in chosen.tried.items()},
        "features": list(period.looks[STEPS].names),
    }


def _predictions(split: Split, peers: dict[str, Forecast], ours: Sequence[Forecast]) -> pa.Table:
    columns: dict[str, Any] = {"customer_id": split.ids, "target": split.target.astype(np.int64)}
    for name, one in (peers | {f"ours_seed{seed}": one for seed, one in enumerate(ours)}).items():
        column = name.lower().replace("/", "_")
        columns |= {f"{column}_expected": one.expected, f"{column}_buys_again": one.buys_again}
    for name, expected in simple(split).items():
        columns[f"{name.replace(' ', '_')}_expected"] = expected
    return pa.table(columns)


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """JSON has no NaN: null stands for a figure that does not exist."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def table(figures: dict[str, Any]) -> str:
    """Models and figures, and by how much ours are ahead."""
    size = f"{figures['customers']:,} customers, {figures['days']} + {figures['days']} days"
    lines = [
        f"{size}, {figures['purchases']:,} purchases in the hold-out, {figures['buy_again']:.1%} buy again",
        f"{'':<24} {'RMSE':>8} {'bias':>8} {'corr.':>8} {'AUC':>8}",
    ]
    for name, one in [*figures["peers"].items(), ("ours, mean of seeds", figures), ("  spread", figures["spread"])]:
        lines.append(f"{name:<24} " + " ".join(_cell(one[metric], metric) for metric in METRICS))
    for name, gains in figures["gains"].items():
        lines.append(f"better than {name}, 95 % interval:")
        lines += [
            f"  {metric:<22} {_cell(one['gain'], metric)}  [{_cell(one['low'], metric)}, {_cell(one['high'], metric)}]"
            for metric, one in gains.items()
        ]
    return "\n".join(lines)


def _cell(value: float | None, metric: str) -> str:
    if value is None:
        return f"{'-':>8}"
    return f"{value:>+8.1%}" if metric == "bias" else f"{value:>8.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--until", metavar="DATE", help="last day of the calibration period; else the middle")
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="predictions.parquet goes here")
    given = parser.parse_args(arguments)
    try:
        split = read(given.data, given.until)
        figures, predictions = run(split, seeds=given.seeds, draws=given.draws)
    except ValueError as wrong:
        parser.exit(2, f"{wrong}\n")
    publish_file(given.out / "predictions.parquet", lambda aside: pq.write_table(predictions, aside), "predictions")
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
