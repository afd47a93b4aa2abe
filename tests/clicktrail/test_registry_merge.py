"""What two changed of one registry becomes one: nothing of either is lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]  # the first imports feast

Views = dict[str, tuple[str, dict[str, str], set[int]]]
"""Description, tags and days of materialization, by view."""

_NAMES = st.sampled_from(["a_v1", "b_v1", "c_v1"])
_VIEWS = st.dictionaries(
    _NAMES,
    st.tuples(
        st.sampled_from(["", "short", "long"]),
        st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
        st.sets(st.integers(1, 3)),
    ),
)


def registry(views: Views):  # noqa: ANN201 - Feast is imported late
    from feast.protos.feast.core.Registry_pb2 import Registry

    out = Registry()
    for name, (description, tags, days) in views.items():
        view = out.feature_views.add()
        view.spec.name, view.spec.project, view.spec.description = name, "shop", description
        view.spec.tags.update(tags)
        for day in sorted(days):
            view.meta.materialization_intervals.add().start_time.FromDatetime(datetime(2026, 3, day, tzinfo=UTC))
        record = out.feature_view_version_history.records.add()
        record.feature_view_name, record.project_id = name, "shop"
    return out


def read(merged) -> Views:  # noqa: ANN001
    return {
        view.spec.name: (
            view.spec.description,
            dict(view.spec.tags),
            {one.start_time.ToDatetime().day for one in view.meta.materialization_intervals},
        )
        for view in merged.feature_views
    }


def merged(base: Views, ours: Views, theirs: Views) -> Views:
    from clicktrail.registry_merge import merge

    return read(merge(registry(base), registry(ours), registry(theirs)))


@settings(deadline=None)
@given(_VIEWS, _VIEWS)
def test_one_alone_is_written_as_it_is(base: Views, changed: Views) -> None:
    """Where only we, or only they, changed something, that is what there is."""
    assert merged(base, changed, base) == changed
    assert merged(base, base, changed) == changed


@settings(deadline=None)
@given(_VIEWS, _VIEWS, _VIEWS)
def test_views_that_only_one_changed_are_theirs_who_did(base: Views, ours: Views, theirs: Views) -> None:
    """View by view: added, changed or deleted by one, and by the other not touched."""
    out = merged(base, ours, theirs)
    for name in {*base, *ours, *theirs}:
        if ours.get(name) == base.get(name):
            assert out.get(name) == theirs.get(name)
        elif theirs.get(name) == base.get(name):
            assert out.get(name) == ours.get(name)


def test_a_description_and_a_materialization_both_stand() -> None:
    """They wrote a new description and a tag, we materialized a day: the view has all of it."""
    base: Views = {"a_v1": ("old", {"x": "1", "y": "1"}, {1})}
    ours: Views = {"a_v1": ("old", {"x": "1"}, {1, 2})}
    theirs: Views = {"a_v1": ("new", {"x": "2", "y": "1"}, {1, 3})}
    assert merged(base, ours, theirs) == {"a_v1": ("new", {"x": "2"}, {1, 2, 3})}


def test_what_they_deleted_is_not_brought_back_by_a_materialization() -> None:
    """A view that was deleted while we materialized it stays deleted; one that we declared otherwise is there."""
    base: Views = {"a_v1": ("old", {}, {1}), "b_v1": ("old", {}, {1})}
    ours: Views = {"a_v1": ("old", {}, {1, 2}), "b_v1": ("new", {}, {1})}
    assert merged(base, ours, {}) == {"b_v1": ("new", {}, {1})}


def test_history_of_both_is_kept() -> None:
    """The versions that Feast notes of each view are all there."""
    from clicktrail.registry_merge import merge

    nothing: tuple[str, dict[str, str], set[int]] = ("", {}, set())
    out = merge(registry({}), registry({"a_v1": nothing}), registry({"b_v1": nothing}))
    assert sorted(one.feature_view_name for one in out.feature_view_version_history.records) == ["a_v1", "b_v1"]
