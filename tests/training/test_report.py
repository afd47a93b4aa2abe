"""The report, the model card and the index, on made-up runs of both kinds."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training import report, wording
from training.evaluation import binary_metrics, choose_threshold, intervals, paired_bootstrap, ranking_metrics
from training.run_record import read_run, standing

pytestmark = pytest.mark.slow  # torchmetrics and matplotlib take seconds to import, pictures to draw
BASELINES = {"next_item": ("popularity", "covisitation"), "binary": ("recency_frequency", "gradient_boosting")}


def write_run(folder: Path, task: str, metric: str, *, n: int = 3000, rate: float = 0.5, oracle: bool = True) -> Path:
    """A run folder with the files and keys of a real one; the model lies between baselines and oracle."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    kind = "next_item" if "@" in metric else "binary"
    skill = {"": 1.6, **dict(zip(BASELINES[kind], (0.5, 1.2), strict=True))} | ({"oracle": 2.0} if oracle else {})
    columns: dict[str, Any] = {
        "example_id": [f"e{at}" for at in range(n)],
        "t": pa.array(1_760_000_000_000_000 + np.arange(n) * 60_000_000, pa.timestamp("us", tz="UTC")),
        "group": rng.integers(0, n // 4, n),
        "history": rng.geometric(0.06, n) - 1,
    }
    found: dict[str, dict[str, float]] = {}
    paired: dict[str, dict[str, float]] = {}
    if kind == "next_item":
        shared = rng.exponential(size=n)
        for name, strength in skill.items():
            column = f"rank_{name}" if name else "rank"
            columns[column] = 1 + np.floor(60 * (shared + 0.3 * rng.exponential(size=n)) / strength**2).astype(np.int64)
            found[name] = ranking_metrics(columns[column])
            if name not in {"", "oracle"}:
                paired[name] = paired_bootstrap(metric, columns["rank"], columns[column], samples=100)
        columns["ranked"] = pa.array([[1, 2, 3]] * n)
    else:
        labels = (rng.random(n) < rate).astype(np.int64)
        columns["label"] = labels
        noise = rng.normal(size=n)
        for name, strength in skill.items():
            column = f"score_{name}" if name else "score"
            signal = strength * (labels - 0.5) + 0.9 * noise + 0.4 * rng.normal(size=n)
            columns[column] = 1 / (1 + np.exp(-(signal * strength + np.log(rate / (1 - rate)))))
            found[name] = binary_metrics(labels, columns[column], choose_threshold(labels, columns[column]))
            if name not in {"", "oracle"}:
                paired[name] = paired_bootstrap(metric, columns["score"], columns[column], labels, samples=100)
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    metrics = {
        "task": task,
        "primary_metric": metric,
        "model": found.pop(""),
        "oracle": found.pop("oracle", None),
        "baselines": found,
        "intervals": {metric: paired},
        "data": {
            "log_offset": 1_012_345,
            "digest": "9f2c" * 8,
            "events": 1_012_345,
            "examples": {"train": 400_000, "test": n},
        },
        "seconds": {"read": 12.5, "fit": 95.0, "evaluate": 8.0},
        "revision": "0123abc",
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(
        json.dumps({"preset": "small", "seed": 0, "encoder": {"family": "gru", "width": 64}})
    )
    steps = ["step,epoch,train_loss,val_loss,val_metric"]
    for at in range(1, 61):
        validation = f"{2 + 3 / (at // 10 + 1):.4f},{0.3 - 0.2 / (at // 10 + 1):.4f}" if at % 10 == 0 else ","
        steps.append(f"{at * 10},{at // 10},{2 + 4 / at + 0.1 * rng.random():.4f},{validation}")
    (folder / "curves.csv").write_text("\n".join(steps) + "\n")
    return folder


class Page(HTMLParser):
    """Open elements must be closed in order; addresses and ids are kept."""

    _EMPTY = ("meta", "link", "br", "img", "hr")

    def __init__(self, text: str) -> None:  # noqa: D107
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.pictures = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        if tag not in self._EMPTY:
            self.open.append(tag)
        self.pictures += tag == "svg"
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.handle_starttag(tag, attrs)
        if tag not in self._EMPTY:
            self.open.pop()


RUNS = [("recommendation", "ndcg@10", 0.5), ("retention", "auc", 0.5), ("fraud", "average_precision", 0.02)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three reported runs."""
    home = tmp_path_factory.mktemp("runs")
    for task, metric, rate in RUNS:
        report.write_report(write_run(home / task / "run1", task, metric, rate=rate))
    report.write_index(home)
    return home


@pytest.mark.parametrize("task", [task for task, _, _ in RUNS])
def test_a_report_opens_offline(runs: Path, task: str) -> None:
    """A page is well-formed, holds its pictures, and names no address and no script."""
    text = (runs / task / "run1" / "report.html").read_text()
    page = Page(text)
    assert "http" not in text
    assert "<script" not in text
    assert all(link.startswith("#") for link in page.links)  # parts of pictures use each other
    assert page.pictures == {"recommendation": 5, "retention": 6, "fraud": 6}[task]


@pytest.mark.parametrize("task", [task for task, _, _ in RUNS])
def test_pictures_have_no_fixed_colour(runs: Path, task: str) -> None:
    """Inside pictures every colour is a variable of the page, defined for light and for dark; references resolve."""
    text = (runs / task / "run1" / "report.html").read_text()
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    style = text[text.index("<style>") : text.index("</style>")]
    for picture in pictures:
        assert re.findall(r"(?:fill|stroke): ?#[0-9a-f]{3,6}", picture) == []
        for name in set(re.findall(r"var\((--[a-z0-9-]+)\)", picture)):
            assert style.count(f"{name}:") == 2, name
        ids = set(re.findall(r' id="([^"]+)"', picture))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture)) <= ids


@pytest.mark.parametrize(("task", "metric", "rate"), RUNS)
def test_report_and_card_show_every_figure(runs: Path, task: str, metric: str, rate: float) -> None:
    """Every method's every metric, with four decimals, is in the report and in the model card."""
    del rate
    folder = runs / task / "run1"
    metrics = json.loads((folder / "metrics.json").read_text())
    for text in ((folder / "report.html").read_text(), (folder / "model_card.md").read_text()):
        for values in (metrics["model"], metrics["oracle"], *metrics["baselines"].values()):
            missing = [name for name, value in values.items() if name != "threshold" and f"{value:.4f}" not in text]
            assert missing == []
        low = min(one["low"] for one in metrics["intervals"][metric].values())
        assert f"{low:+.4f}" in text
        assert "1,012,345" in text
        assert "1 min 56 s" in text  # 12.5 + 95 + 8 seconds
    assert metric in (folder / "metrics.json").read_text()


def test_confusion_adds_up(runs: Path) -> None:
    """The four cells are the decisions at the threshold: precision and recall follow from them."""
    run = read_run(runs / "fraud" / "run1")
    cells = report._confusion(run)  # noqa: SLF001 - the table's figures
    assert sum(cells.values()) == 3000
    assert cells["caught"] / (cells["caught"] + cells["false"]) == pytest.approx(run.metrics["model"]["precision"])
    assert cells["caught"] / (cells["caught"] + cells["missed"]) == pytest.approx(run.metrics["model"]["recall"])


def test_curves_keep_their_area() -> None:
    """Thinned to a few hundred points, the ROC curve still has the AUC of all 20,000 examples."""
    rng = np.random.default_rng(1)
    labels = (rng.random(20_000) < 0.3).astype(np.int64)
    scores = 1 / (1 + np.exp(-labels - rng.normal(size=20_000)))
    curve = report._curves(labels, scores)  # noqa: SLF001 - the points of the picture
    auc = intervals("auc", {"this": scores}, labels, samples=1)["this"]["value"]
    assert float(np.trapezoid(curve["recall"], curve["false"])) == pytest.approx(auc, abs=1e-3)
    assert len(curve["recall"]) < 600


def test_verdict_does_not_flatter(tmp_path: Path) -> None:
    """A model that is worse than a baseline, or that chance may explain, is called so."""
    run = read_run(write_run(tmp_path / "run", "retention", "auc", n=400))
    for low, high, words in ((0.01, 0.02, "beats the best"), (-0.01, 0.02, "may be chance"), (-0.02, -0.01, "worse")):
        changed = {name: {"difference": 0.0, "low": low, "high": high} for name in run.metrics["intervals"]["auc"]}
        metrics = run.metrics | {"intervals": changed}
        told = " ".join(wording.verdict(dataclasses.replace(run, metrics=metrics), standing(metrics)))
        assert words in told
    assert standing(metrics).beats_all is False


def test_a_run_on_real_data_has_no_oracle(tmp_path: Path) -> None:
    """Without truth, curves, groups and histories there is a report all the same, without a share of the gap."""
    folder = write_run(tmp_path / "run", "fraud", "average_precision", n=500, rate=0.1, oracle=False)
    (folder / "curves.csv").unlink()
    table = pq.read_table(folder / "predictions.parquet").drop_columns(["group", "history", "t"])
    pq.write_table(table, folder / "predictions.parquet")
    report.write_report(folder)
    text = (folder / "report.html").read_text()
    assert "Gap closed" not in text
    assert "nan" not in text.lower().replace("nance", "")


@pytest.mark.parametrize(("metric", "column"), [("ndcg@10", "rank_oracle"), ("auc", "score_oracle")])
def test_an_oracle_may_know_less(tmp_path: Path, metric: str, column: str) -> None:
    """An oracle that is silent about some examples is still drawn, on those that it answered."""
    folder = write_run(tmp_path / "run", "shop", metric, n=800)
    table = pq.read_table(folder / "predictions.parquet")
    values = table[column].to_pylist()
    holes = pa.array([None if at % 10 == 0 else value for at, value in enumerate(values)])
    table = table.set_column(table.column_names.index(column), column, holes)
    pq.write_table(table, folder / "predictions.parquet")
    report.write_report(folder)
    pictures = re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(), flags=re.DOTALL)
    assert sum(">Oracle</text>" in picture for picture in pictures) == (4 if metric == "ndcg@10" else 3)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    """What a shop's data says is shown as text, never taken as markup."""
    folder = write_run(tmp_path / "run", "retention", "auc", n=200)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["data"]["source"] = "<script>alert(1)</script>"
    metrics["question"] = "Is 1 < 2 & 3?"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    report.write_report(folder)
    text = (folder / "report.html").read_text()
    assert "<script" not in text
    assert "Is 1 &lt; 2 &amp; 3?" in text
    Page(text)


def test_rendering_again_changes_nothing(runs: Path) -> None:
    """The same run gives the same bytes: a report can be compared and kept in a digest."""
    folder = runs / "retention" / "run1"
    before = (folder / "report.html").read_bytes()
    assert report.main([str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == before


def test_index_links_the_newest_of_each_task(runs: Path, tmp_path: Path) -> None:
    """Each link leads to a report; where `latest` points decides, earlier runs stay reachable."""
    page = Page((runs / "index.html").read_text())
    assert sorted(page.links) == sorted(f"{task}/run1/report.html" for task, _, _ in RUNS)
    for name in ("a", "b"):
        report.write_report(write_run(tmp_path / "retention" / name, "retention", "auc", n=200))
    write_run(tmp_path / "retention" / ".c.tmp", "retention", "auc", n=200)
    (tmp_path / "retention" / ".c.tmp" / "report.html").touch()  # killed before it was published: no run
    (tmp_path / "retention" / "latest").symlink_to("a")
    page = Page(report.write_index(tmp_path).read_text())
    assert page.links == ["retention/a/report.html", "retention/b/report.html"]
    assert all((tmp_path / link).is_file() for link in page.links)


def test_a_report_names_the_run_that_it_will_be(tmp_path: Path) -> None:
    """Written before the run has its place, a report names the run's id, not the folder it lies in until then."""
    folder = write_run(tmp_path / ".0a1b.tmp", "retention", "auc", n=200)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"run_id": "0a1b"}))
    report.write_report(folder)
    text = (folder / "report.html").read_text()
    assert "run 0a1b" in text
    assert ".tmp" not in text


def test_an_incomplete_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no complete run is named with what it lacks, and the command exits with 2."""
    assert report.main([str(tmp_path)]) == 2
    assert "has no metrics.json" in capsys.readouterr().err


def test_figures_in_words() -> None:
    """Durations and shares read as people say them."""
    assert [wording.duration(seconds) for seconds in (4.21, 185, 7800)] == ["4.2 s", "3 min 05 s", "2 h 10 min"]
    assert [wording.of_hundred(share) for share in (0.342, 0.0071, 0.05, 1.0)] == ["34", "0.7", "5", "100"]
    assert wording.flat({"a": {"b": 1200, "c": [1, 2]}, "d": None}) == {"a.b": "1,200", "a.c": "1, 2", "d": "none"}
