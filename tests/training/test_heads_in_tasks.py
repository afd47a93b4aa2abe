"""Tasks of classes, counts and times: labels by the naive way, and runs from training set to report and export."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.encoding import Encoding
from serving.build import main as build
from tests import oracles
from tests.training.conftest import CLASSES
from tests.training.test_examples import DAY, HOUR, START, event, log_of
from training import report
from training.__main__ import main as train
from training.build_set import all_examples, choose_examples
from training.config import EncoderConfig, FitConfig, RunConfig
from training.evaluation import LOG_LIKELIHOOD
from training.fit import fit
from training.head_answers import head_measures
from training.head_baselines import head_baseline
from training.head_predictions import answers_in
from training.labels import class_codes, classes_of, labels_of
from training.presets import preset
from training.run import execute, place_of
from training.task import Task, load_task
from training.tasks.next_action import ACTIONS
from training.training_set import TEST, VALIDATION, TrainingSet, load, save

Sets = Callable[[str], TrainingSet]
HEADS = {"next_action": "multiclass", "purchase_count": "count", "time_to_purchase": "time"}
US = 1_000_000


def shop(seed: int, days: int, users: int, count: int) -> list[dict[str, Any]]:
    """Events of some users on few moments, so that many tie; some arrive minutes, some days late."""
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    kinds = ["view", "view", "search", "cart", "purchase", "purchase", "payment", "login"]
    rows = []
    for place in range(count):
        at = rng.randrange(days * DAY // (10 * US)) * 10 * US
        if rng.random() < 0.3:
            at = at // DAY * DAY + rng.choice([0, HOUR, HOUR + 10 * US, 2 * HOUR])
        late = rng.choice([0, US, US, 60 * US, 400 * US, 2 * HOUR, 3 * DAY])
        made = event(f"e{place}", at, rng.choice(kinds), item_id="i", source_seq=rng.randrange(3))
        rows.append(made | {"user_id": f"u{rng.randrange(users)}", "ingested_at": START + at + late})
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_the_next_action_is_the_first_that_was_known(seed: int, tmp_path: Path) -> None:
    """Asked whenever an action is known, whatever ties or comes late; nothing within the hour is an answer too."""
    rows = shop(seed, days=2, users=4, count=900)
    log, task = log_of(rows, tmp_path), load_task("next_action")
    table = task.examples(log.query, log.end_time())
    acted = [row for row in rows if row["event_type"] in ACTIONS]
    asked = {(row["user_id"], oracles.known_at(row) + 1) for row in acted}
    found = dict(
        zip(zip(table["user_id"].to_pylist(), times(table), strict=True), table["class"].to_pylist(), strict=True)
    )
    expected = {
        (user, t): oracles.next_action(rows, user, t, actions=ACTIONS, horizon=HOUR, wait=task.wait)
        for user, t in asked
    }
    assert found == expected
    assert len(table) == len(asked)
    assert {"nothing", "view", "purchase"} <= set(found.values())


@pytest.mark.parametrize("seed", range(2))
def test_purchases_are_counted_as_they_were_known(seed: int, tmp_path: Path) -> None:
    """One question a week for those who did something in the 30 days before, as far as that was known."""
    rows = shop(seed, days=70, users=40, count=400)
    log, task = log_of(rows, tmp_path), load_task("purchase_count")
    table = task.examples(log.query, log.end_time())
    found = dict(
        zip(zip(table["user_id"].to_pylist(), times(table), strict=True), table["count"].to_pylist(), strict=True)
    )
    asked = weekly(rows, log.end_time(), 14 * DAY)
    assert found == {(user, t): oracles.purchases(rows, user, t, 14 * DAY) for user, t in asked}
    assert max(found.values()) > 1


@pytest.mark.parametrize("seed", range(2))
def test_times_are_cut_off_where_their_split_ends(seed: int, tmp_path: Path) -> None:
    """What a split's cut did not know has not happened: neither a later purchase nor one that was heard of later."""
    rows = shop(seed, days=80, users=40, count=400)
    log, task = log_of(rows, tmp_path), load_task("time_to_purchase")
    table, parts = all_examples(task, log, log.version)
    t, split = times(table), parts.assign(np.array(times(table)))
    users = table["user_id"].to_pylist()
    assert set(zip(users, t, strict=True)) == weekly(rows, log.end_time(), 7 * DAY + HOUR)
    labels = labels_of(task, table, split, parts)
    for place in np.flatnonzero(split >= 0):
        cut = parts.cuts[split[place]]
        expected = oracles.time_to_purchase(rows, users[place], t[place], cut=cut, delay=HOUR)
        assert labels[place].tolist() == pytest.approx([float(one) for one in expected]), (users[place], t[place])
    seen = labels[split >= 0, 1]
    assert 0 < seen.sum() < len(seen)
    assert len(set(split[split >= 0].tolist())) == 3


def times(table: pa.Table) -> list[int]:
    return table["t"].cast(pa.int64()).to_pylist()


def weekly(rows: list[dict[str, Any]], end: int, wait: int) -> set[tuple[str, int]]:
    """(user, midnight) back from the last midnight that lies `wait` before the end, of those known to be active."""
    last = (end - wait) // DAY * DAY
    return {
        (row["user_id"], week)
        for row in rows
        for week in range(last, START, -7 * DAY)
        if oracles.known_at(row) < week and row["event_timestamp"] >= week - 30 * DAY
    }


def test_classes_come_from_training_alone() -> None:
    """The most frequent first, equals by name; one that training had not seen is none of them."""
    classes = classes_of(np.array(["b", "a", "c", "c"], object))
    assert classes == ("c", "a", "b")
    assert class_codes(np.array(["a", "new", "c"], object), classes).tolist() == [1, -1, 0]


def test_answers_that_are_none_are_refused(tmp_path: Path) -> None:
    """A class that is null, a count below 0 and an event before its question name the example."""
    log = log_of(shop(0, days=80, users=40, count=400), tmp_path)
    for name, column, bad, words in (
        ("next_action", "class", pa.nulls(1, pa.string()), "class is null"),
        ("purchase_count", "count", pa.array([-1]), "below 0"),
        ("time_to_purchase", "happened_at", pa.array([0], pa.timestamp("us", "UTC")), "before t"),
    ):
        task = load_task(name)

        def spoiled(
            sql: Callable[[str], pa.Table], end: int, task: Task = task, column: str = column, bad: pa.Array = bad
        ) -> pa.Table:
            table = task.examples(sql, end)
            place = table.column_names.index(column)
            values = pa.chunked_array([bad.cast(table[column].type), table[column].slice(1).combine_chunks()])
            return table.set_column(place, column, values)

        with pytest.raises(ValueError, match=words):
            choose_examples(replace(task, examples=spoiled), preset("small", name), log, log.version)


def test_a_range_of_one_answer_is_refused(tmp_path: Path) -> None:
    """Where nobody bought anything there is nothing to learn, and the error says what was found."""
    rows = [row for row in shop(0, days=80, users=60, count=3_000) if row["event_type"] != "purchase"]
    log = log_of(rows, tmp_path)
    for name, words in (("purchase_count", "all with the answer 0"), ("time_to_purchase", "0 of them seen to happen")):
        with pytest.raises(ValueError, match=words):
            choose_examples(load_task(name), preset("small", name), log, log.version)


# ---- runs


def small(name: str, epochs: int) -> RunConfig:
    """What learns a synthetic set in a second or two."""
    fitting = FitConfig(epochs=epochs, tokens=2_048, rows=64, rate=1e-2, patience=0, packed=False)
    return replace(preset("small", name), fit=fitting, encoder=EncoderConfig(width=16), head_width=16)


@pytest.fixture(scope="module")
def runs(synthetic: Sets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each task."""
    home, found = tmp_path_factory.mktemp("runs"), {}
    for name in HEADS:
        save(synthetic(name), home / "sets" / name)
        data, task = load(home / "sets" / name), load_task(name)
        config = small(name, epochs=4)
        place, _ = place_of(home, task, "run1", force=False)
        execute(task, data, config, place, accelerator="cpu", progress=False, say=lambda _: None)
        found[name] = place.target
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_run_is_complete_and_learns(name: str, synthetic: Sets, runs: dict[str, Path]) -> None:
    """It says what its scores are, beats those that answer everybody alike, and is computed again from its answers."""
    metrics = json.loads((runs[name] / "metrics.json").read_text())
    predictions = pq.read_table(runs[name] / "predictions.parquet")
    task, data = load_task(name), synthetic(name)
    assert metrics["head"] == HEADS[name]
    again = head_measures(task, data.manifest, predictions)
    assert again == {key: metrics[key] for key in again}
    alike = metrics["intervals"][LOG_LIKELIHOOD][task.baselines[0]]
    assert alike["difference"] > 0
    assert set(metrics["baselines"]) == set(task.baselines)
    assert all(
        one.shape == (len(data.of(TEST)), len(metrics["score_columns"])) for one in answers_in(predictions).values()
    )
    report.write_report(runs[name])
    page, card = ((runs[name] / file).read_text() for file in ("report.html", "model_card.md"))
    for text in (page, card):
        for values in (metrics["model"], *metrics["baselines"].values()):
            assert [key for key, value in values.items() if f"{value:.4f}" not in text] == []
    assert page.count("<svg") == {"multiclass": 4, "count": 4, "time": 3}[HEADS[name]]
    assert "threshold" not in card.lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_the_exported_model_answers_as_training_did(name: str, runs: dict[str, Path]) -> None:
    """Golden requests from the files alone come out the same; the interface names what the numbers are."""
    export = runs[name] / "export"
    interface = json.loads((export / "interface.json").read_text())
    assert interface["head"] == HEADS[name]
    width = interface["outputs"]["scores"][1][1]
    assert len(json.loads((export / "fallback.json").read_text())["scores"]) == width
    if HEADS[name] == "multiclass":
        assert interface["classes"] == list(CLASSES)
    if HEADS[name] == "time":
        assert interface["edges"] == list(load_task(name).edges)
    encoding = Encoding.from_json(json.loads((export / "encoding.json").read_text()))
    session = ort.InferenceSession(str(export / "model.onnx"))
    wanted = {one.name for one in session.get_inputs()}
    golden = json.loads((export / "golden.json").read_text())
    for case in golden["cases"]:
        features = {view: {field: [value] for field, value in one.items()} for view, one in case["features"].items()}
        inputs = encoding.encode_lists(features, {}, np.array([case["t"]], np.int64))
        (scores,) = session.run(None, {field: array for field, array in inputs.items() if field in wanted})
        assert scores[0] == pytest.approx(case["answer"]["scores"], abs=golden["tolerance"], rel=1e-4)
        assert scores.shape == (1, width)


@pytest.mark.parametrize("name", HEADS)
def test_a_killed_fit_goes_on_to_the_same_curves(name: str, synthetic: Sets, tmp_path: Path) -> None:
    """Ended after one epoch and called again, a fit ends where it would have ended."""
    data = synthetic(name)
    config = small(name, epochs=2)
    resumed, _, whole = (
        fit(data, config, LOG_LIKELIHOOD, tmp_path / folder, accelerator="cpu", progress=False, max_epochs=stop)
        for folder, stop in (("whole", None), ("cut", 1), ("cut", None))
    )
    assert resumed.curves.equals(whole.curves)
    assert whole.best_metric == whole.curves["val_metric"].max() < 0


@pytest.mark.parametrize("name", HEADS)
def test_baselines_are_fitted_before_the_test(name: str, synthetic: Sets) -> None:
    """Other labels in the test range change no answer; probabilities are some; an unknown name is refused."""
    data, task = synthetic(name), load_task(name)
    test = data.of(TEST)
    target = data.target.copy()
    target[test] = target[test][::-1] * 0
    for one in task.baselines:
        first = head_baseline(one, data, test)
        np.testing.assert_array_equal(first, head_baseline(one, replace(data, target=target), test))
        assert np.isfinite(first).all()
        assert (first >= 0).all()
    with pytest.raises(ValueError, match=f"choose among: {task.baselines[0]}"):
        head_baseline("popularity", data, data.of(VALIDATION))


def test_what_has_no_service_becomes_no_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that says which tasks have a service; in the main job a line, and on it goes."""
    assert build(["--task", "next_action"]) == 1
    assert "no service answers for task next_action" in capsys.readouterr().err
    assert build(["--task", "next_action", "--if-served"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_shop_that_knows_no_truth_of_a_task_goes_without(
    synthetic: Sets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo shop's folder of truths is given to every task; a folder that is not there is an error."""
    save(synthetic("next_action"), tmp_path / "set")
    words = ["--task", "next_action", "--data", str(tmp_path / "set"), "--build-only", "--truth"]
    assert train([*words, str(tmp_path)]) == 0
    assert "holds no truth of it" in capsys.readouterr().out
    assert train([*words, str(tmp_path / "none")]) == 1
