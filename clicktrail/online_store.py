"""EventLogOnlineStore: Feast's online reads, finished from state at read time.

`get_online_features` answers with Arrow columns: Feast's protobuf costs 20 ms for 100 long sequences, so it waits.
Views with another source than the event log are kept as Feast's SQLite store keeps them, in the same
file. The read time is `clicktrail.clock.read_at(...)` where a block sets one, else the shop's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import RepoConfig
from feast.type_map import python_values_to_proto_values
from pydantic import Field

from clicktrail import settings
from clicktrail.clock import moment, read_at, read_time
from clicktrail.data_source import declaration_of
from clicktrail.declarations import Declaration
from clicktrail.entity_ids import entity_id
from clicktrail.event_log import EventLog
from clicktrail.online_answer import answer, columns_of, track
from clicktrail.online_plan import Plans
from clicktrail.online_response import EventLogResponse, feast_column, python_values
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.publish import failpoint
from clicktrail.read_log import Recorder
from clicktrail.registry import check_published


class EventLogOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Configuration in feature_store.yaml."""

    type: Literal["clicktrail.online_store.EventLogOnlineStore"] = "clicktrail.online_store.EventLogOnlineStore"

    url: str = Field(default_factory=lambda: settings.load().online_url, repr=False)
    """Redis that holds the state; by default that of CLICKTRAIL_ONLINE_URL, and where there is none, `path`."""

    path: str = Field(default_factory=lambda: str(settings.load().online))
    """SQLite file of the state, and in any case of views of other sources; by default the shop's."""

    clock: str = Field(default_factory=lambda: settings.load().clock)
    """When it is: see CLICKTRAIL_CLOCK."""

    catalogue: str = Field(default_factory=lambda: str(settings.load().catalogue / "items_history.parquet"))
    """What was known of the items, for views that read it."""

    read_log: str = Field(default_factory=lambda: str(settings.load().read_log))
    """Folder for the sample of what is answered (clicktrail.read_log)."""

    read_log_share: float = Field(default_factory=lambda: settings.load().read_log_share)
    """Which part of the rows is kept there."""

    @property
    def target(self) -> str:
        """Where the state is."""
        return self.url or self.path


class EventLogOnlineStore(SqliteOnlineStore):
    """Feast's online store over the event log's state."""

    def __init__(self) -> None:
        """Readers are opened on first use."""
        super().__init__()
        self._readers: dict[tuple[str, ...], OnlineReader] = {}
        self._plans = Plans()
        self._recorder: Recorder | None = None

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002
    ) -> OnlineResponse:
        """Features of entities now, all as of one time.

        Views of other sources are read as Feast reads them, and stand behind ours in the answer. A key column that a
        view needs and the rows lack is Feast's error.

        Raises:
            ValueError: the store holds no state of a view, or that of another declaration; a request view's field is
                missing or no whole number.
        """
        began = time.monotonic()

        def feast(features: list[str] | FeatureService) -> OnlineResponse:
            return super(EventLogOnlineStore, self).get_online_features(
                config,
                features,
                entity_rows,
                registry,
                project,
                full_feature_names,
                include_feature_view_version_metadata,
            )

        plan = self._plans.get(registry, project, features, full_feature_names)
        rows = None if plan is None else columns_of(plan, entity_rows)
        if plan is None or rows is None:
            return feast(features)
        reader = self._reader(config, plan.fingerprints, [view.declaration for view in plan.views])
        t = _now(config, reader)
        columns = answer(plan, rows, t, reader)
        others = None
        if plan.others:
            with read_at(t):
                others = feast(list(plan.others))
        track(time.monotonic() - began)
        versions = {view.declaration.name: view.version for view in plan.views if view.features}
        return EventLogResponse(columns, others, versions if include_feature_view_version_metadata else None)

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002
    ) -> OnlineResponse:
        """As `get_online_features`, in a thread of its own."""
        return await asyncio.to_thread(
            self.get_online_features,
            config,
            features,
            entity_rows,
            registry,
            project,
            full_feature_names,
            include_feature_view_version_metadata,
        )

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Features of entities now; of an entity that nothing is known of, the values of nothing.

        Raises:
            ValueError: the store holds no state of this view, or that of another declaration.
        """
        declaration = declaration_of(table)
        if declaration is None:
            return super().online_read(config, table, entity_keys, requested_features)
        reader = self._reader(config, (declaration.fingerprint,), [declaration])
        ids = [_entity_id(key, declaration.entity_keys) for key in entity_keys]
        read = reader.read(declaration.name, ids, _now(config, reader))
        columns = {name: feast_column(column) for name, column in read.columns.items()}
        names = [name for name in requested_features or list(columns) if name in columns]
        types = {field.name: field.dtype.to_value_type() for field in table.features}
        protos = [python_values_to_proto_values(python_values(columns[name]), types[name]) for name in names]
        stamp = moment(read.watermark)
        return [(stamp, dict(zip(names, row, strict=True))) for row in zip(*protos, strict=True)]

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Writes to views of other sources.

        Raises:
            ValueError: the view is kept from the event log; values can't be written past it.
        """
        if declaration_of(table) is not None:
            message = f"view {table.name!r} follows the event log: send events, then `feast materialize-incremental`"
            raise ValueError(message)
        super().online_write_batch(config, table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        """`feast apply`: make room for new views, drop removed ones, refuse a changed declaration under an old name.

        Raises:
            ValueError: a view's declaration differs from the one in the registry, or the one that its state follows.
        """
        declarations = [one for view in tables_to_keep if (one := declaration_of(view)) is not None]
        check_published(config, declarations)  # Feast writes its registry last: so far nothing is
        state = OnlineState(config.online_store.target)
        failpoint("registry.before_state")
        for declaration in declarations:
            state.prepare(declaration)
        for view in tables_to_delete:
            if declaration_of(view) is not None:
                state.drop(view.name)
        super().update(
            config,
            [view for view in tables_to_delete if declaration_of(view) is None],
            [view for view in tables_to_keep if declaration_of(view) is None],
            entities_to_delete,
            entities_to_keep,
            partial,
        )

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """`feast teardown`: remove the state, and the file."""
        self._readers.clear()
        if config.online_store.url:
            state = OnlineState(config.online_store.url)
            for table in tables:
                if declaration_of(table) is not None:
                    state.drop(table.name)
        super().teardown(config, tables, entities)

    def applied(self, config: RepoConfig, view: FeatureView) -> int:
        """The log offset up to which a view's state has come; 0 where there is none yet."""
        meta = OnlineState(config.online_store.target).views().get(view.name)
        return meta.offset if meta else 0

    def catch_up(
        self, config: RepoConfig, view: FeatureView, log: EventLog, progress: Callable[[int], Any] | None = None
    ) -> int:
        """Bring a view's state up to the end of the log; returns the offset."""
        declaration = declaration_of(view)
        if declaration is None:
            message = f"view {view.name!r} has another source than the event log"
            raise ValueError(message)
        return OnlineState(config.online_store.target).catch_up(log, declaration, progress=progress)

    @staticmethod
    def _get_db_path(config: RepoConfig) -> str:
        return str(config.online_store.path)  # Feast's own insists on type sqlite

    def _reader(
        self, config: RepoConfig, fingerprints: tuple[str, ...], declarations: Sequence[Declaration]
    ) -> OnlineReader:
        online = config.online_store
        key = (online.target, *fingerprints)
        if key not in self._readers:
            if self._recorder is None and online.read_log_share:
                self._recorder = Recorder(Path(online.read_log), online.read_log_share)
            self._readers[key] = OnlineReader(
                online.target, declarations, catalogue=Path(online.catalogue), recorder=self._recorder
            )
        return self._readers[key]


def _now(config: RepoConfig, reader: OnlineReader) -> int:
    """The time at which this read is answered; only a replayed clock has to ask how far the state has come."""
    clock, watermark = config.online_store.clock, 0
    if clock == "log":
        watermark = int(str(reader.meta()["watermark"]))
        if not watermark:  # of a request view that reads nothing stored
            here = OnlineState(config.online_store.target).views().values()
            watermark = max((one.watermark for one in here), default=0)
    return read_time(clock, watermark)


def _entity_id(key: EntityKeyProto, names: Sequence[str]) -> str | None:
    values = dict(zip(key.join_keys, key.entity_values, strict=True))
    return entity_id(
        {name: values[name].string_val if values[name].WhichOneof("val") == "string_val" else None for name in names},
        names,
    )
