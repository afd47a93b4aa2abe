"""Make a training set: examples from the log, features from Feast, splits by time, encodings of the training range.

The only module of training that reads Feast. What comes out needs neither Feast nor the log.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.encoding import FIRST, PAD, Encoding
from clicktrail.event_log import EventLog
from clicktrail.input_spec import InputSpec
from clicktrail.jagged import JaggedFeatures
from clicktrail.publish import publish_folder
from clicktrail.rows import Rows, as_floats, as_pairs, only
from clicktrail.settings import Settings
from training.config import RunConfig
from training.labels import class_codes, classes_of, described, differ, labels_of, said
from training.split import TimeSplit, time_split
from training.task import Task
from training.training_set import SPLITS, TEST, TRAIN, VALIDATION, TrainingSet, save

VERSION = 1
"""Raised when the same inputs would give another training set."""

_LEAST = 50


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Chosen examples: `table` as the task gave it, `split` int8, `label` (training/labels.py), rows as in `table`.

    `negative_rate`: share of the training range's negatives that were kept. `classes`: of multiclass labels.
    """

    table: pa.Table
    split: np.ndarray
    label: np.ndarray
    negative_rate: float
    time_split: TimeSplit
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What training sets of a task are made of: the log up to offset `stop`, and the features as they are declared."""

    task: Task
    settings: Settings
    log: EventLog
    stop: int
    declared: list[dict[str, Any]]
    references: list[str]

    def digest(self, config: RunConfig) -> str:
        """Names what is made of this source with the sizes and the seed of a configuration."""
        return inputs_digest(self.task, config, self.log.digest(self.stop), self.declared)


def source_of(task: Task, settings: Settings) -> Source:
    """The shop's log as it is now, and the task's declarations.

    Raises:
        ValueError: the log is empty, or the feature service is not applied.
    """
    log = EventLog(settings.log)
    if log.version == 0:
        message = f"the event log of shop {settings.shop!r} is empty: ingest first (make ingest EVENTS=...)"
        raise ValueError(message)
    stop = log.version
    declared, references = declarations(task, settings)
    return Source(task=task, settings=settings, log=log, stop=stop, declared=declared, references=references)


def training_set(task: Task, config: RunConfig, settings: Settings, *, force: bool = False) -> tuple[Path, bool]:
    """The folder of this task's training set, and whether it was there already (same log, task, config and code).

    Raises:
        ValueError: the log is empty or too short, the feature service is not applied, or examples are too few.
    """
    source = source_of(task, settings)
    folder = settings.training_sets / task.name / source.digest(config)
    if folder.is_dir() and not force:
        return folder, True
    make_set(source, choose_examples(task, config, source.log, source.stop), folder)
    return folder, False


def make_set(source: Source, chosen: Examples, folder: Path) -> None:
    """Read the features of these examples, encode them, and publish the set as `folder`."""
    task, log = source.task, source.log
    features = read_features(task, source.settings, chosen.table, source.references)
    origin = {"shop": source.settings.shop, **log_manifest(task, log, source.stop, source.declared, chosen)}
    data = assemble(task, chosen, features, origin)
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    save(data, aside)
    if folder.is_dir():
        shutil.rmtree(folder)
    publish_folder(folder, aside, "run.training_set")


def inputs_digest(task: Task, config: RunConfig, log_digest: str, declared: list[dict[str, Any]]) -> str:
    """Names a training set by what it is made of: content of the log, declarations, sizes, seed, our own code."""
    here = Path(__file__).parent
    code = [
        path.read_text()
        for path in (
            here / "build_set.py",
            here / "split.py",
            here / "labels.py",
            here / "tasks" / f"{task.name}.py",
            here / "tasks" / "_weekly.py",
            *sorted((here.parent / "clicktrail").rglob("*.py")),
        )
    ]
    sizes = (config.train_examples, config.validation_examples, config.test_examples, config.seed)
    text = json.dumps([VERSION, task.name, log_digest, declared, sizes, code], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:20]


# ---- examples


def choose_examples(task: Task, config: RunConfig, log: EventLog, stop: int) -> Examples:
    """Examples whose label is complete, split by time, sampled to the sizes of `config`."""
    return pick(task, config, *all_examples(task, log, stop))


def all_examples(task: Task, log: EventLog, stop: int) -> tuple[pa.Table, TimeSplit]:
    """Every example of the log that can be learnt from or judged on, and where the ranges of time lie.

    Raises:
        ValueError: there is none, or the log is too short.
    """
    end = log.end_time(stop)
    table = task.examples(lambda sql: log.query(sql, stop=stop), end)
    table = table.filter(pa.array(_complete(table, task)))
    t = times(table)
    if not len(t):
        message = f"task {task.name!r}: the log holds no example of it ({task.question})"
        raise ValueError(message)
    # a few rows dated years away (35 of 84,475 in Taobao's) must not decide where the ranges lie
    first, last = np.quantile(t, [0.002, 0.9998], method="closest_observation").astype(np.int64)
    parts = time_split(
        int(first), min(end, int(last) + task.wait), wait=task.wait, validation=task.validation, test=task.test
    )
    return table, parts


def pick(task: Task, config: RunConfig, table: pa.Table, parts: TimeSplit) -> Examples:
    """Examples of each range, sampled to the sizes of `config`; a split without a test range has no test examples.

    Test and validation are plain random samples. Of training examples the positives all stay and negatives are
    sampled; `negative_rate` says how many, and the loss takes it into account.

    Raises:
        ValueError: a range has too few examples.
    """
    split = parts.assign(times(table))
    label = labels_of(task, table, split, parts)
    rng = np.random.default_rng([config.seed, 1])
    rows, rate = [], 1.0
    limits = {TRAIN: config.train_examples, VALIDATION: config.validation_examples, TEST: config.test_examples}
    for part in parts.there:
        these, limit = np.flatnonzero(split == part), limits[part]
        if part == TRAIN and task.head == "binary":
            these, rate = _fewer_negatives(these, label, limit, rng)
        elif len(these) > limit:
            these = np.sort(rng.choice(these, limit, replace=False))
        rows.append(these)
        _check(task, part, label[these])
    picked = np.concatenate(rows)
    classes: tuple[str, ...] = ()
    if task.head == "multiclass":
        classes = classes_of(label[rows[TRAIN]])
        label = class_codes(label, classes)
    return Examples(
        table=table.take(pa.array(picked)),
        split=split[picked],
        label=label[picked],
        negative_rate=rate,
        time_split=parts,
        classes=classes,
    )


def times(table: pa.Table) -> np.ndarray:
    """Column t as int64 microseconds UTC."""
    return table["t"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()


def _complete(table: pa.Table, task: Task) -> np.ndarray:
    """Rows that have an id of their own and, in next-item tasks, a target."""
    needed = ["example_id", *(["target"] if task.head == "next_item" else [])]
    keep = np.ones(table.num_rows, bool)
    for name in needed:
        keep &= table[name].is_valid().to_numpy()
    return keep


def _fewer_negatives(
    these: np.ndarray, label: np.ndarray, limit: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    positive, negative = these[label[these] == 1], these[label[these] == 0]
    room = max(limit - len(positive), limit // 2)
    if len(positive) > limit - room:
        positive = positive if len(positive) <= limit else np.sort(rng.choice(positive, limit, replace=False))
    if len(negative) <= room:
        return np.sort(np.concatenate([positive, negative])), 1.0
    kept = rng.choice(negative, room, replace=False)
    return np.sort(np.concatenate([positive, kept])), room / len(negative)


def _check(task: Task, part: int, label: np.ndarray) -> None:
    """A range holds enough examples, and, where all might have the same answer, not the same one in all."""
    name = ("training", *SPLITS[1:])[part]
    if len(label) < _LEAST or (task.head != "next_item" and not differ(task.head, label)):
        message = (
            f"task {task.name!r}: the {name} range holds {len(label)} examples{said(task.head, label)}; at least "
            f"{_LEAST} and more than one answer are needed: ingest a longer history or more users"
        )
        raise ValueError(message)


# ---- features


def declarations(task: Task, settings: Settings) -> tuple[list[dict[str, Any]], list[str]]:
    """Declarations of the task's feature service as JSON, fingerprints included, and its feature references.

    Raises:
        ValueError: the service is not in the registry.
    """
    from feast.errors import FeatureServiceNotFoundException

    from clicktrail.data_source import declaration_of
    from clicktrail.declarations import to_json
    from clicktrail.feast_repo import open_store

    store = open_store(settings)
    try:
        service = store.get_feature_service(task.feature_service)
    except FeatureServiceNotFoundException:
        message = f"feature service {task.feature_service!r} is not in the registry: run make features (feast apply)"
        raise ValueError(message) from None
    found, references, read = [], [], {one.view for one in task.sequences}
    for projection in service.feature_view_projections:
        declaration = declaration_of(store.get_feature_view(projection.name))
        if declaration is None:
            message = f"view {projection.name!r} does not read the event log: tasks are trained on event-log views"
            raise ValueError(message)
        if task.skip_scalars and projection.name not in read:
            continue
        found.append(to_json(declaration))
        references += [f"{projection.name_to_use()}:{feature.name}" for feature in projection.features]
    return found, references


def read_features(task: Task, settings: Settings, table: pa.Table, references: list[str]) -> JaggedFeatures:
    """Features of the examples, each at its own time, through Feast."""
    import pandas as pd

    from clicktrail.feast_repo import open_store

    frame = pd.DataFrame({key: table[key].to_pandas() for key in task.entity_keys})
    frame["event_timestamp"] = pd.to_datetime(times(table), unit="us", utc=True)
    job: Any = open_store(settings).get_historical_features(frame, features=references, full_feature_names=True)
    features: JaggedFeatures = job.to_jagged()
    assert features.rows.num_rows == table.num_rows  # noqa: S101 - every row that goes in comes out
    return features


def input_spec(task: Task, features: JaggedFeatures) -> InputSpec:
    """The task's inputs: its sequences and request fields, every number and label rate of the feature service."""
    numbers, rates = [], []
    for name, values in features.scalars.items():
        if pa.types.is_integer(values.type):
            numbers.append(name)
        elif pa.types.is_list(values.type) and pa.types.is_integer(values.type.value_type):
            rates.append(name)
    return InputSpec(
        sequences=task.sequences,
        scalars=tuple(numbers),
        rates=tuple(rates),
        request_categories=task.request_categories,
        request_numbers=task.request_numbers,
    )


def rows_of(spec: InputSpec, features: JaggedFeatures, table: pa.Table) -> Rows:
    """Features and request fields as the encoding takes them."""
    scalars = {name: as_floats(features.scalars[name]) for name in spec.scalars}
    scalars |= {name: as_pairs(features.scalars[name]) for name in spec.rates}
    return Rows(
        sequences=features.sequences,
        scalars=scalars,
        request={name: table[name].to_pylist() for name in spec.request_fields},
        t=times(table),
    )


# ---- together


def assemble(task: Task, chosen: Examples, features: JaggedFeatures, manifest: dict[str, Any]) -> TrainingSet:
    """Fit the encoding on the training range, encode everything."""
    table = chosen.table
    spec = input_spec(task, features)
    rows = rows_of(spec, features, table)
    train = np.flatnonzero(chosen.split == TRAIN)
    wanted = table["target"].to_pylist() if task.head == "next_item" else []
    more = {"item_id": [wanted[place] for place in train]} if wanted else None
    encoding = Encoding.fit(spec, only(rows, train), more=more)
    ids, numbers = encoding.request(rows)
    target, items = (chosen.label if task.head == "time" else chosen.label.astype(np.int64)), None
    if wanted:
        target = np.maximum(encoding.codes("item_id", wanted) - FIRST, -1)
        items = item_table(encoding, features, target[train])
    entity, _ = _codes(table[task.entity_keys[0]])
    return TrainingSet(
        manifest=manifest,
        encoding=encoding,
        tokens={one.view: encoding.tokens(one.view, rows) for one in task.sequences},
        request_ids=ids.astype(np.int32),
        request_numbers=numbers,
        target=target,
        split=chosen.split,
        t=rows.t,
        entity=entity,
        example_id=table["example_id"].combine_chunks(),
        scalars=scalar_table(spec, rows, table, task),
        items=items,
        value=table["value_minor"].to_numpy().astype(np.int64) if "value_minor" in table.column_names else None,
    )


def scalar_table(spec: InputSpec, rows: Rows, table: pa.Table, task: Task) -> pa.Table:
    """What baselines see: the same aggregates and request numbers, unscaled, and the group of each example."""
    columns: dict[str, Any] = {name: rows.scalars[name] for name in spec.scalars}
    for name in spec.rates:
        columns[f"{name}__labelled"], columns[f"{name}__all"] = rows.scalars[name].T
    for name in spec.request_numbers:
        columns[name] = as_floats(rows.request[name])
    columns = {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()}
    return pa.table({**columns, "group": _codes(table[task.group])[0]})


def item_table(encoding: Encoding, features: JaggedFeatures, train_target: np.ndarray) -> pa.Table:
    """One row an output position: item_id, category and price as last seen in the histories, training popularity."""
    names = encoding.vocabularies["item_id"]
    view = next(one for one in encoding.spec.sequences if "item_id" in one.categories)
    sequence = features.sequences[view.view]
    codes = np.append(encoding.codes("item_id", sequence.dictionaries["item_id"]), PAD)[sequence.values["item_id"]]
    place = codes - FIRST
    order = np.argsort(sequence.values["event_timestamp"], kind="stable")
    order = order[place[order] >= 0]
    columns: dict[str, Any] = {"item_id": pa.array(names, pa.string())}
    category, price = np.full(len(names), -1, np.int64), np.full(len(names), np.nan)
    if "category_id" in view.categories:
        category[place[order]] = sequence.values["category_id"][order]
        dictionary = np.array([*sequence.dictionaries["category_id"], None], object)
        columns["category_id"] = pa.array(dictionary[category], pa.string())
    if "price_minor" in view.numbers:
        known = order[~sequence.nulls["price_minor"][order]] if "price_minor" in sequence.nulls else order
        price[place[known]] = sequence.values["price_minor"][known]
        columns["price_minor"] = pa.array(price, pa.float64(), from_pandas=True).cast(pa.int64(), safe=False)
    columns["popularity"] = np.bincount(train_target[train_target >= 0], minlength=len(names))
    return pa.table(columns)


def log_manifest(
    task: Task, log: EventLog, stop: int, declared: list[dict[str, Any]], chosen: Examples
) -> dict[str, Any]:
    """Where a training set comes from."""
    of = {SPLITS[part]: chosen.label[chosen.split == part] for part in chosen.time_split.there}
    return {
        "task": task.name,
        "feature_service": task.feature_service,
        "head": task.head,
        "log_offset": stop,
        "log_digest": log.digest(stop),
        "events": stop,
        "examples": {name: len(label) for name, label in of.items()},
        **described(task, chosen.classes, of),
        "negative_rate": chosen.negative_rate,
        "time_split": vars(chosen.time_split),
        "declarations": declared,
    }


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary
