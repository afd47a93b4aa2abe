"""A view's features for one entity, online now and offline at a time: `make preview VIEW=... ENTITY=... [AT=...]`."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING, Any

from clicktrail.clock import microseconds, moment, read_at, read_time
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings, load

if TYPE_CHECKING:
    from feast import FeatureStore

_SHOWN = 5


def preview(store: FeatureStore, view: str, entity: str, now: int, at: int) -> list[tuple[str, Any, Any]]:
    """(feature, online value now, offline value at `at`) of a view for an entity; times are microseconds UTC.

    Raises:
        ValueError: there is no such view.
    """
    import pandas as pd
    from feast.errors import FeatureViewNotFoundException

    try:
        found = store.get_feature_view(view)
    except FeatureViewNotFoundException as error:
        names = ", ".join(sorted(one.name for one in store.list_feature_views()))
        message = f"there is no view {view!r}; there are: {names or 'none (run make features)'}"
        raise ValueError(message) from error
    key = found.join_keys[0]
    references = [f"{view}:{field.name}" for field in found.features]
    rows = pd.DataFrame({key: [entity], "event_timestamp": [pd.Timestamp(moment(at))]})
    offline = store.get_historical_features(rows, features=references, full_feature_names=True).to_arrow()
    with read_at(now):
        online = store.get_online_features(references, [{key: entity}], full_feature_names=True).to_dict()
    full = {field.name: f"{view}__{field.name}" for field in found.features}
    return [(name, online[column][0], offline[column][0].as_py()) for name, column in full.items()]


def render(rows: list[tuple[str, Any, Any]], now: int, at: int) -> str:
    """The rows as an aligned text; long lists show their newest elements."""
    texts = [
        (name, _short(online), "same" if _plain(online) == _plain(offline) else _short(offline))
        for name, online, offline in rows
    ]
    header = ("feature", f"online, {moment(now):%Y-%m-%d %H:%M}", f"offline, {moment(at):%Y-%m-%d %H:%M}")
    widths = [max(len(row[place]) for row in [header, *texts]) for place in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {online:<{widths[1]}}  {offline}" for name, online, offline in [header, *texts]
    )


def _short(value: Any) -> str:  # noqa: ANN401 - a value of any feature
    if not isinstance(value, list):
        return str(_plain(value))
    newest = ", ".join(str(_plain(one)) for one in value[-_SHOWN:])
    return f"[{'... ' if len(value) > _SHOWN else ''}{newest}] ({len(value)})"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of any feature
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value  # Feast's times are seconds


def main(settings: Settings) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--view", required=True, help="name of the feature view")
    parser.add_argument("--entity", required=True, help="key of the entity")
    parser.add_argument("--at", help="ISO 8601 time, UTC, of the offline read; by default now, by the shop's clock")
    arguments = parser.parse_args()
    from clicktrail.feast_repo import open_store

    now = read_time(settings.clock, EventLog(settings.log).end_time())
    at = microseconds(datetime.fromisoformat(arguments.at)) if arguments.at else now
    try:
        rows = preview(open_store(settings), arguments.view, arguments.entity, now, at)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f"{arguments.view} of {arguments.entity}")  # noqa: T201
    print(render(rows, now, at))  # noqa: T201


if __name__ == "__main__":
    main(load())
