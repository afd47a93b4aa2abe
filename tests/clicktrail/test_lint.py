"""What a feature repo owes its readers is checked, line by line, without a registry."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from clicktrail import lint
from clicktrail.settings import load

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

TODAY = date(2026, 11, 24)
ABOUT: dict[str, Any] = {"owner": "shop@example.com", "description": "what the user did last"}


def sequence(name: str = "recent_v1", **changed: Any) -> Any:  # noqa: ANN401 - a view of Feast, imported late
    from clicktrail.views import sequence_view
    from feature_repo.entities import user

    return sequence_view(**{"name": name, "entity": user, "last": 3, "fields": ["item_id"], **ABOUT, **changed})


def aggregate(*aggregations: Any, name: str = "activity_v1", **changed: Any) -> Any:  # noqa: ANN401
    from clicktrail.views import aggregate_view, days
    from feature_repo.entities import user

    given = {"name": name, "entity": user, "windows": [days(7)], "aggregations": aggregations, **ABOUT}
    return aggregate_view(**{**given, **changed})


def service(*views: Any, **changed: Any) -> Any:  # noqa: ANN401
    from feast import FeatureService

    about = {"owner": "shop@example.com", "description": "whether the user comes back"}
    return FeatureService(**{"name": "retention", "features": list(views), **about, **changed})


def lines(*views: Any, services: tuple[Any, ...] = ()) -> list[str]:  # noqa: ANN401
    from clicktrail.lint_rules import Repo, check

    return [str(one) for one in check(Repo(views=views, services=services, today=TODAY))]


def test_the_repo_itself_passes() -> None:
    """No view or service of feature_repo breaks a rule."""
    assert [str(one) for one in lint.lint(load({}).feature_repo, TODAY) if not one.warning] == []


def test_nothing_is_said_of_what_is_well() -> None:
    """A named, owned, described view without payments, and a service that reads it."""
    assert lines(sequence(), services=(service(sequence()),)) == []


@pytest.mark.parametrize("name", ["recent", "Recent_v1", "recent-v1", "recent_v0", "recent_v1_old", "_recent_v1"])
def test_a_view_is_named_in_snake_case_with_its_version(name: str) -> None:
    """Anything else is an error."""
    assert lines(sequence(name)) == [f"{name}: name: use snake_case and end in _v1, _v2, ..."]


def test_a_feature_is_named_in_snake_case() -> None:
    """A name that was given by hand is looked at too."""
    from clicktrail.views import count

    assert lines(aggregate(count(name="Visits"))) == ["activity_v1: Visits: name: use snake_case: name=..."]


@pytest.mark.parametrize("owner", ["", "growth", "growth@shop", "a b@example.com"])
def test_an_owner_is_an_address(owner: str) -> None:
    """Of views and of services."""
    said = f"owner: owner={owner!r}: give the e-mail address of who answers"
    assert lines(sequence(owner=owner), services=(service(owner=owner),)) == [
        f"recent_v1: {said}",
        f"retention: {said}",
    ]


@pytest.mark.parametrize("description", ["", "recent", "recent v1 recent", "the user"])
def test_a_description_says_more_than_the_name(description: str) -> None:
    """Two words, or the name's own, are none."""
    said = f"{description!r} tells nobody what it means: write a sentence, not the name again"
    assert lines(sequence(description=description)) == [f"recent_v1: description: {said}"]


def test_every_feature_has_a_unit() -> None:
    """What a SQL expression counts has to be said."""
    from clicktrail.views import count, sql

    spread = sql("max(quantity) - min(quantity)", name="spread")
    (line,) = lines(aggregate(spread, count()))
    assert line.startswith('activity_v1: spread: unit: it cannot be derived: say it, tags={"unit.spread": "..."}')
    assert lines(aggregate(spread, count(), tags={"unit.spread": "items"})) == []


def test_payment_data_is_held_by_views_that_say_so() -> None:
    """A view made of prices says so by its tag; a request view answers for what it reads."""
    from clicktrail.request_declarations import count_with
    from clicktrail.views import count, request_view, total

    said = 'it holds payment data and may hold pseudonym: leave the columns out, or say so, tags={"personal_data": '
    priced = aggregate(total("price_minor"), count())
    assert lines(priced) == [f'activity_v1: personal data: {said}"payment"}}']
    assert lines(aggregate(total("price_minor"), tags={"personal_data": "payment"})) == []
    (line,) = lines(aggregate(count(), tags={"personal_data": "none"}))
    assert line.startswith("activity_v1: personal data: it holds pseudonym data and may hold none")
    assert lines(aggregate(count(), tags={"personal_data": "secret"})) == [
        "activity_v1: personal data: 'secret' is none of none, behaviour, pseudonym, payment"
    ]
    about = {**ABOUT, "description": "the visits, this one included"}
    plain = request_view(name="r_v1", request={}, inputs=[priced], features=[count_with("count_any_7d")], **about)
    assert len(lines(priced, plain)) == 1  # it reads the count alone


def test_a_deprecated_view_is_left_in_time() -> None:
    """Until the day it is a warning, from it on an error; what replaces it must be there."""
    successor = sequence("recent_v2", last=4)

    def read(day: str, replaced_by: str = "recent_v2") -> list[str]:
        old = sequence(tags={"deprecated": day, "replaced_by": replaced_by})
        return lines(old, successor, services=(service(old),))

    said = "'recent_v1' is deprecated from {} on: read 'recent_v2' instead"
    assert read("2026-11-25") == [f"retention: deprecated view (warning): {said.format('2026-11-25')}"]
    assert read("2026-11-24") == [f"retention: deprecated view: {said.format('2026-11-24')}"]
    assert read("soon") == ["recent_v1: deprecation: 'soon' is no date: write 2027-01-31"]
    assert "recent_v1: deprecation: 'recent_v3' is no view of this repo" in read("2026-11-25", "recent_v3")


def test_a_feature_of_another_view_is_a_warning() -> None:
    """The same events, field and window of the same entity, whatever it is called; another window is another one."""
    from clicktrail.views import count, days

    one, other = aggregate(count("view")), aggregate(count("view", name="looks"), name="habits_v1")
    said = "'activity_v1' has the same feature of the same entity: read it from there"
    assert lines(one, other) == [f"habits_v1: looks: doubled (warning): {said}"]
    assert lines(one, aggregate(count("view", windows=[days(8)]), name="habits_v1")) == []
    assert len(lines(sequence(), sequence("again_v1"))) == 1
    assert lines(sequence(), sequence("longer_v1", last=4)) == []


def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and a line for each error of another repo; a folder without one is told apart."""
    repo = tmp_path / "shop_features"
    repo.mkdir()
    (repo / "definitions.py").write_text(
        "from tests.clicktrail.test_lint import sequence\nview = sequence('recent_v1', owner='nobody')\n"
    )
    monkeypatch.setenv("CLICKTRAIL_FEATURE_REPO", str(repo))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    assert lint.main([]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "recent_v1: owner: owner='nobody': give the e-mail address of who answers",
        "shop_features: 1 errors, 0 warnings",
    ]
    monkeypatch.setenv("CLICKTRAIL_FEATURE_REPO", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="is no Feast repo"):
        lint.main([])
