"""The catalogue's page: every feature is on it, with what is known of it; and the page that links all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clicktrail import feature_page, shop_page
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.feast_repo import open_store
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings
from clicktrail.testing import event

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop with the repo's views and one that is deprecated, a few events, state of some views, a run of fraud."""
    from clicktrail.views import aggregate_view, days, most_frequent
    from feature_repo import definitions
    from feature_repo.entities import user

    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, bentoml_home=home / "bentoml", clock="log")
    old = aggregate_view(
        name="tastes_v1",
        entity=user,
        windows=[days(7)],
        aggregations=[most_frequent("category_id", of="view"), most_frequent("device", of="view")],
        owner="shop@example.com",
        description="what the user liked <best>",
        tags={"deprecated": "2027-01-31", "replaced_by": "user_profile_v1"},
    )
    open_store(settings).apply([*(getattr(definitions, name) for name in definitions.__all__), old])
    log = EventLog(settings.log)
    seen = [
        event(
            "view", f"2026-03-01 10:0{n}", user_id=f"visitor-{n}", item_id="a", category_id="shoes", device="someones"
        )
        for n in range(3)
    ]
    paid = event("payment", "2026-03-01 11:00", user_id="visitor-0", card_id="c", terminal_id="t", price_minor=700)
    rows = [{"event_id": f"e{n}", "source_seq": n, **one} for n, one in enumerate([*seen, paid])]
    log.append(pa.Table.from_pylist(rows, schema=arrow_schema()))
    OnlineState(settings.online).catch_up(log, declared("user_recent_v1"))
    OnlineState(settings.online).catch_up(log, declared("card_recent_v1"), stop=3)
    run = settings.runs / "fraud" / "r1"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"feature_service": "fraud"}))
    (run.parent / "latest").symlink_to("r1")
    return settings


@pytest.fixture(scope="module")
def text(shop: Settings) -> str:
    return feature_page.publish(shop).read_text()


def declared(view: str) -> Declaration:
    from feature_repo import views

    declaration: Declaration = getattr(views, view).batch_source.declaration
    return declaration


def section(text: str, view: str) -> str:
    """The part of the page that is about a view."""
    return text.partition(f'id="{view}"')[2].partition("</section>")[0]


def row(text: str, feature: str) -> str:
    return text.partition(f'<tr id="{feature}"')[2].partition("</tr>")[0]


def test_every_feature_of_the_repo_is_on_the_page(text: str) -> None:
    """Each view once with its owner and description, each feature once with its meaning."""
    from feature_repo import definitions

    views: list[Any] = [one for one in vars(definitions).values() if hasattr(one, "features") and hasattr(one, "tags")]
    views = [one for one in views if hasattr(one, "projection")]
    assert len(views) == 9
    for view in views:
        assert text.count(f'<section class="card view" id="{view.name}"') == 1
        assert view.owner in section(text, view.name)
        assert view.description in section(text, view.name)
        for field in view.features:
            found = row(text, f"{view.name}.{field.name}")
            assert re.search(rf'<span class="name">{field.name}</span><br>[A-Z\w]', found), field.name
    assert len(re.findall('<tr id="', text)) == sum(len(one.features) for one in views) + 2


def test_the_page_opens_offline(text: str) -> None:
    """It loads nothing: no address of another file or host, script and style are in it."""
    assert not re.search(r"(src=|<link|@import|url\(|https?://)", text)
    assert "addEventListener" in text
    assert "prefers-color-scheme: dark" in text


def test_a_row_tells_what_follows_from_the_declaration(text: str) -> None:
    """Meaning, type, unit, personal data, and what it is made of."""
    found = row(text, "card_activity_v1.total_price_minor_payment_7d")
    assert "Sum of price_minor of payment events over the last 7 days" in found
    assert "<td>int64</td><td>minor units of <code>currency</code> (cents)</td><td>payment</td>" in found
    assert 'title="price of one item, or amount of a payment">price_minor</span>' in found
    asked = row(text, "payment_context_v1.count_payment_1d_with_request")
    assert "card_activity_v1.count_payment_1d, the request&#x27;s own event included" in asked


def test_lineage_goes_from_events_to_runs(text: str) -> None:
    """Event types and columns before, services, request views and the newest run behind."""
    found = section(text, "card_activity_v1")
    flow = re.sub("<[^>]+>", " ", found.partition('<div class="flow">')[2].partition("<dl")[0])
    assert " ".join(flow.split()) == (
        "Events payment Columns card_id device event_timestamp event_type price_minor terminal_id "
        "Services and request views fraud payment_context_v1 Newest runs, bundles fraud, run r1"
    )
    assert declared("card_activity_v1").fingerprint in found
    assert ">label</span>" in row(text, "terminal_risk_v1.label_rate_fraud_payment_7d")
    assert "payment_context_v1" in row(text, "card_activity_v1.count_payment_1d").rpartition("<td>")[2]
    assert "payment_context_v1" not in row(text, "card_activity_v1.count_payment_1h")


def test_freshness_is_the_state_against_the_log(text: str) -> None:
    """Up to date, behind by rows and time, or not built."""
    assert "up to date" in section(text, "user_recent_v1")
    behind = section(text, "card_recent_v1")
    assert "1 row, 58.0 min behind" in behind
    assert "offset 3 of 4, known up to 2026-03-01 10:02:00 UTC" in behind
    assert "online state not built yet" in section(text, "item_activity_v1")


def test_distributions_are_of_the_log(text: str) -> None:
    """Values of all three users; of requests the stored features as they were before."""
    assert "from 1 to 1, mean 1" in row(text, "user_activity_v1.count_view_1d")
    assert "0 %<br><small>of 3</small>" in row(text, "user_activity_v1.count_view_1d")
    assert "from 1 to 1, mean 1" in row(text, "payment_context_v1.count_payment_1d_with_request")
    assert "100 %<br><small>of 1</small>" in row(text, "payment_context_v1.price_times_mean_30d")


def test_no_value_that_tells_of_a_person_is_shown(text: str) -> None:
    """A category is shown as most frequent; a device, an item that a user saw and an id are not."""
    assert "most frequent: shoes" in row(text, "tastes_v1.most_frequent_category_id_view_7d")
    assert "someones" not in text
    assert "visitor-" not in text


def test_a_deprecated_view_names_what_replaces_it(text: str) -> None:
    """The day, and a link; what people wrote is text, not HTML."""
    found = section(text, "tastes_v1")
    assert "Deprecated from 2027-01-31 on." in found
    assert 'Read <a class="name" href="#user_profile_v1">user_profile_v1</a> instead.' in found
    assert "what the user liked &lt;best&gt;" in found


def test_a_shop_without_views_says_how_to_come_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names the target that registers them."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="run `make features`"):
        feature_page.main()


def test_one_page_links_all(shop: Settings, text: str) -> None:
    """What is there is linked by a path beside it, what is not names the command that makes it."""
    assert text
    links = shop_page.publish(shop).read_text()
    assert '<a href="catalogue_page/index.html">Feature catalogue</a>' in links
    assert '<a href="http://127.0.0.1:8888">' in links
    assert "not there yet: <code>make train</code> makes it" in links
    (shop.runs / "index.html").touch()
    assert '<a href="../../runs/index.html">Run reports</a>' in shop_page.publish(shop).read_text()
