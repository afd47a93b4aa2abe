"""EventLogSource: a Feast data source that carries a declaration into the registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.online_state import OnlineState


class EventLogSource(DataSource):
    """The event log as one view sees it; `declaration` says what is made of the events."""

    def __init__(
        self,
        *,
        declaration: Declaration,
        name: str = "",
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        """A source for this declaration; it is named after the view by default."""
        super().__init__(
            name=name or f"{declaration.name}_events",
            timestamp_field="event_timestamp",
            description=description,
            tags=tags or {},
            owner=owner,
        )
        self.declaration = declaration

    def __eq__(self, other: object) -> bool:
        """Equal when Feast's fields and the declaration are."""
        return isinstance(other, EventLogSource) and super().__eq__(other) and self.declaration == other.declaration

    def __hash__(self) -> int:
        """As Feast's sources: by name."""
        return super().__hash__()

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> EventLogSource:
        """Read it back from the registry."""
        return EventLogSource(
            declaration=from_json(json.loads(data_source.custom_options.configuration)),
            name=data_source.name,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        proto = DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type="clicktrail.data_source.EventLogSource",
            timestamp_field=self.timestamp_field,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )
        proto.custom_options.configuration = json.dumps(to_json(self.declaration), sort_keys=True).encode()
        return proto

    def validate(self, config: RepoConfig) -> None:
        """`feast apply` asks before it writes: a changed declaration is refused before the registry has it.

        Raises:
            ValueError: the registry or the online state has another declaration of this view.
        """
        from clicktrail.registry import check_published  # whoever reads features needs no registry of ours

        check_published(config, [self.declaration])
        target = getattr(config.online_store, "target", None)
        if target is not None:
            OnlineState(target).check(self.declaration)

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """Join key, time and features, with Arrow type names."""
        del config
        features = ((name, str(type_)) for name, type_ in self.declaration.outputs.items())
        return [(self.declaration.entity_key, "string"), ("event_timestamp", "timestamp[us, tz=UTC]"), *features]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Arrow type name to Feast's value type."""
        return pa_to_feast_value_type

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """A custom source, in Feast's terms."""
        return DataSourceProto.CUSTOM_SOURCE

    def get_table_query_string(self) -> str:
        """Name to show where Feast shows a table."""
        return f"event log, view {self.declaration.name}"


def declaration_of(view: Any) -> Declaration | None:  # noqa: ANN401 - Feast has several classes of view without a common base
    """The declaration behind a feature view, None where it has another source."""
    source = getattr(view, "batch_source", None)
    return source.declaration if isinstance(source, EventLogSource) else None
