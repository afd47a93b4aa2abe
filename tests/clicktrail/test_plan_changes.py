"""What an apply would change is told apart: values, texts, services; and what it would refuse."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

ABOUT: dict[str, Any] = {"owner": "shop@example.com", "description": "what the user did"}


def view(name: str = "activity_v1", of: tuple[str, ...] = ("view",), **changed: Any) -> Any:  # noqa: ANN401 - a view of Feast, imported late
    from clicktrail.views import aggregate_view, count, days
    from feature_repo.entities import user

    given = {"name": name, "entity": user, "windows": [days(7)], "aggregations": [count(one) for one in of], **ABOUT}
    return aggregate_view(**{**given, **changed})


def service(*views: Any, **changed: Any) -> Any:  # noqa: ANN401
    from feast import FeatureService

    return FeatureService(**{"name": "retention", "features": list(views), **ABOUT, **changed})


def compared(before: list[Any], after: list[Any], *, services: Any = ((), ()), state: Any = None) -> Any:  # noqa: ANN401
    from clicktrail.plan_changes import Objects, compare

    old, new = services
    return compare(Objects(views=before, services=old), Objects(views=after, services=new), state or {})


def test_the_same_is_the_same() -> None:
    """Nothing is listed as a change of a view or service that stays."""
    found = compared([view()], [view()], services=([service(view())], [service(view())]))
    assert [one.kind for one in (*found.views, *found.services)] == ["same", "same"]
    assert found.refusals == ()


def test_a_new_view_brings_its_features_and_a_removed_one_takes_them_away() -> None:
    """With their types; their declarations come along, so that they can be measured."""
    (gone, new) = compared([view("a_v1")], [view("b_v1")]).views
    assert (gone.name, gone.kind, gone.schema) == ("a_v1", "removed", ("- count_view_7d Int64",))
    assert (new.name, new.kind, new.schema) == ("b_v1", "new", ("+ count_view_7d Int64",))
    assert gone.after is None
    assert new.before is None
    assert new.after.name == "b_v1"


def test_another_declaration_under_an_old_name_is_refused_with_the_way_out() -> None:
    """As apply refuses it: `_v2` is named, and what would change is listed all the same."""
    found = compared([view()], [view(of=("view", "cart"))])
    assert [(one.kind, one.schema) for one in found.views] == [("changed", ("+ count_cart_7d Int64",))]
    assert len(found.refusals) == 1
    assert "Declare 'activity_v2' beside it" in found.refusals[0]


def test_the_online_state_is_respected_like_the_registry() -> None:
    """A view that the registry does not know, with state of another declaration, is refused too."""
    found = compared([], [view()], state={"activity_v1": "0" * 64})
    assert [one.kind for one in found.views] == ["changed"]
    assert len(found.refusals) == 1
    mine = compared([], [view()], state={"activity_v1": compared([], [view()]).views[0].after.fingerprint})
    assert mine.refusals == ()


def test_owner_description_and_tags_are_texts_alone() -> None:
    """They change no value, and are no reason to refuse."""
    (one,) = compared([view(tags={"a": "1"})], [view(owner="else@example.com", tags={"a": "2"})]).views
    assert one.kind == "described"
    assert one.texts == ("owner: 'shop@example.com' -> 'else@example.com'", "tag ~ a 1 -> 2")
    assert one.refusal == ""


def test_a_service_lists_views_and_features_that_it_reads_newly_or_no_more() -> None:
    """By view, and by feature of a view that it goes on reading."""
    one, other, both = view("a_v1"), view("b_v1"), view("c_v1", of=("view", "cart"))
    before = service(one, both[["count_view_7d"]])
    after = service(other, both[["count_cart_7d"]])
    (found,) = compared([], [], services=([before], [after])).services
    assert found.schema == (
        "- a_v1 (1 features)",
        "+ b_v1 (1 features)",
        "- c_v1:count_view_7d",
        "+ c_v1:count_cart_7d",
    )


def test_a_request_view_is_compared_by_its_declaration() -> None:
    """Its tag is no text; another declaration under its name is refused."""
    from feast.types import Int64

    from clicktrail.request_declarations import difference, quotient_of
    from clicktrail.request_views import request_view

    def context(make: Any) -> Any:  # noqa: ANN401
        feature = make("price_minor", "count_view_7d", name="beside")
        return request_view(
            name="context_v1", request={"price_minor": Int64}, inputs=[view()], features=[feature], **ABOUT
        )

    assert [one.kind for one in compared([context(difference)], [context(difference)]).views] == ["same"]
    (one,) = compared([context(difference)], [context(quotient_of)]).views
    assert one.kind == "changed"
    assert one.texts == ()
    assert "'context_v2'" in one.refusal


def test_the_version_before_stands_beside_a_next_one() -> None:
    """The highest lower one; of a first version, or of another view, there is none."""
    from clicktrail.plan_changes import predecessor

    views = [view("a_v1"), view("a_v2"), view("a_v11"), view("ab_v1")]
    assert predecessor("a_v3", views).name == "a_v2"
    assert predecessor("a_v12", views).name == "a_v11"
    assert predecessor("a_v1", views) is None
    assert predecessor("b_v2", views) is None
