"""Card fraud by the Fraud Detection Handbook's protocol: our hybrid beside the handbook's models, week by week.

    python -m benchmarks.fraud_handbook --data FILE

FILE has the form of the handbook's transactions (TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT,
TX_FRAUD), in one Parquet file. Every model learns from the same rows, those of one week; settings, the network and the
blend are chosen on weeks whose labels were known before the first week that is measured. `predictions.parquet` holds
every score. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import fraud_handbook_peers as peers
from benchmarks.fraud_handbook_fits import Fits, Settings, choose
from benchmarks.fraud_handbook_protocol import Fold, Plan, fold, plan
from benchmarks.fraud_handbook_report import OURS, Scores, figures, table
from clicktrail.publish import publish_file
from training.hybrids.hybrid import PaymentBook
from training.hybrids.payments import DAY, Ints, Payments

_COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")


@dataclass(frozen=True, kw_only=True)
class Transactions:
    """The file, oldest first; `day` counts from `first`."""

    payments: Payments
    transaction: Ints
    day: Ints
    first: date


def read(path: Path, delay_days: int) -> Transactions:
    """The transactions in `path`; the scenario of a fraud, which the simulator knows, is not read.

    Raises:
        ValueError: a column is absent, or a value is null.
    """
    absent = set(_COLUMNS) - set(pq.read_schema(path).names)
    if absent:
        message = f"{path} has no column {', '.join(sorted(absent))}: it needs {', '.join(_COLUMNS)}"
        raise ValueError(message)
    raw = pq.read_table(path, columns=list(_COLUMNS))
    for name in _COLUMNS:
        if raw[name].null_count:
            message = f"{name} of {path} is null in {raw[name].null_count} rows: leave them out or fill them"
            raise ValueError(message)
    stamp = raw["TX_DATETIME"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    order = np.argsort(stamp, kind="stable")
    stamp = stamp[order]

    def column(name: str) -> Ints:
        return raw[name].to_numpy()[order].astype(np.int64)

    payments = Payments(
        time=stamp,
        card=np.unique(raw["CUSTOMER_ID"].to_numpy()[order], return_inverse=True)[1],
        place=np.unique(raw["TERMINAL_ID"].to_numpy()[order], return_inverse=True)[1],
        amount=np.rint(raw["TX_AMOUNT"].to_numpy()[order] * 100).astype(np.int64),
        fraud=column("TX_FRAUD"),
        delay=delay_days * DAY,
    )
    first = stamp[0] // DAY
    return Transactions(
        payments=payments,
        transaction=column("TRANSACTION_ID"),
        day=stamp // DAY - first,
        first=date(1970, 1, 1) + timedelta(days=int(first)),
    )


def run(transactions: Transactions, weeks: Plan, *, seeds: int, jobs: int) -> tuple[Scores, Settings]:
    """Choose on the validation weeks, then score every measured week."""
    payments = transactions.payments
    delay = payments.delay // DAY

    def week(start: int) -> Fold:
        return fold(transactions.day, payments.card, payments.fraud, start=start, delay=delay)

    fits = Fits(
        book=peers.book_features(payments).astype(np.float32),
        ours=PaymentBook(payments),
        fraud=payments.fraud,
        jobs=jobs,
    )
    settings = choose(fits, [week(start) for start in weeks.validation])
    folds = [week(start) for start in weeks.prequential]
    scores = Scores(
        folds=folds,
        test=weeks.prequential.index(weeks.test),
        methods=fits.measured(folds, weeks.prequential.index(weeks.test), settings, range(seeds)),
        fraud=payments.fraud,
        card=payments.card,
        day=transactions.day,
        seeds=seeds,
    )
    return scores, settings


def write_predictions(path: Path, scores: Scores, transactions: Transactions) -> None:
    """One row a scored transaction: transaction, customer, t, target, fold and every method's score."""
    rows = np.concatenate([one.test for one in scores.folds])
    starts = [transactions.first + timedelta(days=one.start) for one in scores.folds]
    columns = {
        "transaction": transactions.transaction[rows],
        "customer": transactions.payments.card[rows],
        "t": pa.array(transactions.payments.time[rows], pa.timestamp("us")),
        "target": transactions.payments.fraud[rows].astype(np.int8),
        "fold": [start for start, one in zip(starts, scores.folds, strict=True) for _ in one.test],
    }
    for name, by_fold in scores.methods.items():
        parts = [
            pa.nulls(len(one.test), pa.float64()) if score is None else pa.array(score.astype(np.float64))
            for one, score in zip(scores.folds, by_fold, strict=True)
        ]
        columns[name] = pa.concat_arrays(parts)
    publish_file(path, lambda aside: pq.write_table(pa.table(columns), aside), "fraud_handbook")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="transactions in one Parquet file")
    parser.add_argument("--train-start", type=date.fromisoformat, help="first training day of the test week's models")
    parser.add_argument("--delay", type=int, default=7, help="days until a label is known")
    parser.add_argument("--folds", type=int, default=13, help="weeks that are measured, at least")
    parser.add_argument("--validation", type=int, default=3, help="weeks that choose")
    parser.add_argument("--seeds", type=int, default=3, help="fits of our models in each week")
    parser.add_argument("--samples", type=int, default=300, help="resamples of the bootstrap")
    parser.add_argument("--jobs", type=int, default=2, help="processes that fit models")
    parser.add_argument("--out", type=Path, default=Path("var/bench/fraud_handbook"), help="for predictions.parquet")
    arguments = parser.parse_args()
    began = time.perf_counter()
    transactions = read(arguments.data, arguments.delay)
    start = arguments.train_start
    weeks = plan(
        int(transactions.day[-1]) + 1,
        train_start=None if start is None else (start - transactions.first).days,
        folds=arguments.folds,
        validation=arguments.validation,
        delay=arguments.delay,
    )
    scores, settings = run(transactions, weeks, seeds=arguments.seeds, jobs=arguments.jobs)
    write_predictions(arguments.out / "predictions.parquet", scores, transactions)
    found = figures(scores, samples=arguments.samples)
    print(table(scores, transactions.first, found))
    print(f"\nChosen on {arguments.validation} earlier weeks: {settings}")
    print(f"Scores of {OURS} and the rest: {arguments.out / 'predictions.parquet'}")
    print(json.dumps({**found, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
