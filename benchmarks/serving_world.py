"""The shop that the serving benchmark asks: events, online state, and a run whose model was never fitted.

Speed does not depend on the weights, so they are drawn from a seed; everything else is the real way: the declarations
of the feature repo, a training set through Feast, training's own export.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.serving_shop import ITEM, USERS, days_of_events
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings

RECENT = "user_recent_v1"
RUN = "untrained"
WEIGHTS = "weights.pt"
_REMEMBERED = 100
"""What the feature repo's user_recent_v1 keeps; for longer histories the view is declared longer."""
_EXAMPLES = 20_000
_WIDTH, _BLOCKS = 64, 2


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is asked for: `items` of the catalogue, `length` of a user's sequence (recommendation alone)."""

    task: str
    items: int
    length: int
    users: int = USERS


def make_world(settings: Settings, size: Size) -> None:
    """Fill the shop's log, register the features, and leave a run with an export; what is there already stays.

    The run is made again where the code that makes it has changed.

    Args:
        settings: of the shop; its home is empty, or of a world of the same size.
        size: how much of everything.

    Raises:
        ValueError: the home holds a world of another size.
    """
    mark = settings.home / "world.json"
    made = json.loads(mark.read_text()) if mark.is_file() else {}
    wanted = {"size": asdict(size), "code": _code()}
    if made == wanted:
        return
    if made.get("size", wanted["size"]) != wanted["size"]:
        message = f"{settings.home} holds a world of another size ({mark}): remove it, or name another folder"
        raise ValueError(message)
    if not made:
        _take_in(
            settings, days_of_events(size.users, max(size.length, _REMEMBERED), size.items, time.time_ns() // 1_000)
        )
    _register(settings, size)
    _leave_run(settings, size)
    mark.write_text(json.dumps(wanted))


def _code() -> str:
    """Digest of what decides how an export looks."""
    checkout = Path(__file__).resolve().parent.parent
    files = [*sorted((checkout / "training").rglob("*.py")), checkout / "clicktrail" / "encoding.py", Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _take_in(settings: Settings, batches: Iterable[pa.Table]) -> None:
    """Past the row rules into the log: a bundle of what nothing has validated is refused."""
    from ingestion.live import ACCEPTED, LiveIntake

    intake = LiveIntake(settings)
    for table in batches:
        streams, positions = np.repeat("bench", table.num_rows), np.arange(table.num_rows)
        taken = intake.enter(table, streams=streams, positions=positions)
        if taken.count(ACCEPTED) < table.num_rows:
            message = f"the shop's own events were refused: {taken.rejected.slice(0, 3).to_pylist()}"
            raise RuntimeError(message)


def fill_state(settings: Settings, declarations: Sequence[Declaration]) -> None:
    """Bring the online state of these views up to the log."""
    log, state = EventLog(settings.log), OnlineState(settings.online_state)
    for declaration in declarations:
        state.catch_up(log, declaration)


def declared(settings: Settings, size: Size) -> list[Declaration]:
    """The views of the task's feature service, as the world declares them."""
    from clicktrail.data_source import declaration_of

    objects = _objects(settings, size)
    service = next(one for one in objects.feature_services if one.name == size.task)
    names = {projection.name for projection in service.feature_view_projections}
    found = [declaration_of(view) for view in objects.feature_views if view.name in names]
    return [one for one in found if one is not None]


def _objects(settings: Settings, size: Size) -> Any:  # noqa: ANN401 - Feast's
    from clicktrail.repo_objects import repo_objects

    objects = repo_objects(settings.feature_repo)
    for view in objects.feature_views:
        if view.name == RECENT and size.length > _REMEMBERED:
            view.batch_source.declaration = replace(view.batch_source.declaration, last=size.length)
    return objects


def _register(settings: Settings, size: Size) -> None:
    from clicktrail.feast_repo import open_store

    objects = _objects(settings, size)
    open_store(settings).apply([*objects.entities, *objects.feature_views, *objects.feature_services])


# ---- the run


def _leave_run(settings: Settings, size: Size) -> None:
    """A run folder as training publishes it, with measured nothing and weights by chance."""
    import pandas as pd
    import torch

    from training import run
    from training.build_set import training_set
    from training.decided import decide_on_validation
    from training.export import export
    from training.fit import Fitted, build_model
    from training.presets import preset
    from training.task import load_task
    from training.training_set import load

    task, config = load_task(size.task), preset("small", size.task)
    if size.task == "recommendation":
        encoder = replace(config.encoder, family="transformer", width=_WIDTH, layers=_BLOCKS)
        config = replace(config, encoder=encoder)
        task = replace(task, sequences=tuple(replace(one, last=size.length) for one in task.sequences))
    config = replace(config, train_examples=_EXAMPLES, validation_examples=500, test_examples=500)
    folder, _ = training_set(task, config, settings)
    data = load(folder)
    if data.items is not None:
        data = _whole_catalogue(data, size.items)
    place, _ = run.place_of(settings.runs, task, RUN, force=False)
    for left in (place.aside, place.target):
        shutil.rmtree(left, ignore_errors=True)
    place.aside.mkdir(parents=True)
    (place.aside / "config.json").write_text(json.dumps(run.run_config(task, data, config)))
    model = build_model(data, config).eval()
    fitted = Fitted(
        model=model, curves=pd.DataFrame(), best_metric=0.0, epochs=0, seconds=0.0, events=0, tokens_per_second=0.0
    )
    decided = decide_on_validation(task, data, fitted)
    export(
        model,
        data,
        place.aside / "export",
        threshold=decided.threshold,
        calibration=decided.calibration,
        value=decided.value,
        costs=task.costs,
        blended=_blended(data) if data.items is not None else None,
    )
    facts = model.items.facts_I if data.items is not None else None
    # beside the run, not in it: what the obvious service loads (serving_peers/naive.py)
    torch.save({"config": config.to_json(), "facts": facts, "weights": model.state_dict()}, settings.home / WEIGHTS)
    keys = {"log_offset": "log_offset", "log_digest": "log_content", "events": "events", "shop": "shop"}
    metrics = {
        "task": task.name,
        "primary_metric": task.primary_metric,
        **{name: {} for name in ("model", "baselines", "oracle", "intervals", "gates")},
        "data": {"digest": data.digest, **{new: data.manifest[old] for old, new in keys.items()}},
        "revision": run.revision(),
        "run_id": RUN,
    }
    (place.aside / "metrics.json").write_text(json.dumps(metrics))
    (place.aside / "model_card.md").write_text(f"# {task.name}\n\nNever fitted: of the serving benchmark.\n")
    run.publish(place)


def _blended(data: Any) -> Any:  # noqa: ANN401 - a TrainingSet
    """Everybody has a say: a network that was never fitted would have none on validation."""
    from training.blend import Blend
    from training.blended import Blended, fit_companions

    weights = {"network": 0.6, "covisitation": 0.2, "own_history": 0.15, "popularity": 0.05}
    blend = Blend(weights=weights, roots=dict.fromkeys(weights, 1))
    return Blended(blend=blend, companions=fit_companions(data), validation={})


def _whole_catalogue(data: Any, items: int) -> Any:  # noqa: ANN401 - a TrainingSet; training is imported late
    """The training set with every item of the shop in its vocabulary: also those that no example has met."""
    rng = np.random.default_rng(3)
    known = data.encoding.vocabularies[ITEM]
    met = set(known)
    more = [name for name in (f"i{one}" for one in range(items)) if name not in met]
    if not more:
        return data
    vocabularies = {**data.encoding.vocabularies, ITEM: (*known, *more)}
    categories = data.encoding.vocabularies["category_id"]
    columns = {
        ITEM: pa.array(more),
        "category_id": pa.array(categories).take(pa.array(rng.integers(0, len(categories), len(more)))),
        "price_minor": pa.array(rng.integers(100, 100_000, len(more))),
        "popularity": pa.array(np.zeros(len(more), np.int64)),
    }
    added = pa.table({name: columns[name] for name in data.items.column_names}).cast(data.items.schema)
    return replace(
        data, encoding=replace(data.encoding, vocabularies=vocabularies), items=pa.concat_tables([data.items, added])
    )
