"""A view's features for one entity, online and offline side by side: `make preview VIEW=... ENTITY=... [AT=...]`."""

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


def preview(store: FeatureStore, view: str, entity: str, t: int) -> list[tuple[str, Any, Any]]:
    """(feature, online, offline) of a view for an entity at `t`, microseconds UTC.

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
    rows = pd.DataFrame({key: [entity], "event_timestamp": [pd.Timestamp(moment(t))]})
    offline = store.get_historical_features(rows, features=references).to_arrow()
    with read_at(t):
        online = store.get_online_features(references, [{key: entity}]).to_dict()
    return [(field.name, online[field.name][0], offline[field.name][0].as_py()) for field in found.features]


def render(rows: list[tuple[str, Any, Any]]) -> str:
    """The rows as an aligned text; long lists show their newest elements."""
    texts = [(name, _short(online), _short(offline)) for name, online, offline in rows]
    header = ("feature", "online", "offline")
    widths = [max(len(row[place]) for row in [header, *texts]) for place in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {online:<{widths[1]}}  {'same' if online == offline else offline}"
        if name != "feature"
        else f"{name:<{widths[0]}}  {online:<{widths[1]}}  {offline}"
        for name, online, offline in [header, *texts]
    )


def _short(value: Any) -> str:  # noqa: ANN401 - a value of any feature
    if not isinstance(value, list):
        return str(_plain(value))
    newest = ", ".join(str(_plain(one)) for one in value[-_SHOWN:])
    return f"[{'... ' if len(value) > _SHOWN else ''}{newest}] ({len(value)})"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of any feature
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value


def main(settings: Settings) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--view", required=True, help="name of the feature view")
    parser.add_argument("--entity", required=True, help="key of the entity")
    parser.add_argument("--at", help="ISO 8601 time, UTC; by default now, by the shop's clock")
    arguments = parser.parse_args()
    from clicktrail.feast_repo import open_store

    end = EventLog(settings.log).end_time()
    t = microseconds(datetime.fromisoformat(arguments.at)) if arguments.at else read_time(settings.clock, end)
    try:
        rows = preview(open_store(settings), arguments.view, arguments.entity, t)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f"{arguments.view} of {arguments.entity} at {moment(t):%Y-%m-%d %H:%M:%S} UTC")  # noqa: T201
    print(render(rows))  # noqa: T201


if __name__ == "__main__":
    main(load())
