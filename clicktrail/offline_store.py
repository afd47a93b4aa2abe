"""EventLogOfflineStore: Feast's point-in-time reads, computed from the event log.

Views with another source than the event log are read by Feast's own DuckDB store and joined row by row.
Every entity row that goes in comes out, in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from clicktrail import settings
from clicktrail.clock import microseconds
from clicktrail.data_source import EventLogSource, declaration_of
from clicktrail.event_log import EventLog
from clicktrail.readers import warn_if_deprecated
from clicktrail.request_views import request_view_of
from clicktrail.retrieval import ROW, EventLogRetrievalJob, Wanted, WantedOfRequest, microseconds_of


class EventLogOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Configuration in feature_store.yaml."""

    type: Literal["clicktrail.offline_store.EventLogOfflineStore"] = "clicktrail.offline_store.EventLogOfflineStore"

    log_path: str | None = None
    """Folder of the event log; by default that of the shop in clicktrail.settings."""

    log_offset: int | None = None
    """Read the log as it was at this offset; by default all of it."""


class EventLogOfflineStore(OfflineStore):
    """Feast's offline store over the event log."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        **kwargs: Any,  # noqa: ANN401 - Feast's signature
    ) -> RetrievalJob:
        """Features of entity rows as they were known at each row's time.

        `entity_df` is a data frame, or DuckDB SQL over the view `events` of the log.

        Raises:
            ValueError: no entity rows, an entity column is missing, or a row without a time.
        """
        if entity_df is None:
            message = "give entity_df: a data frame of entity keys and event_timestamp, or SQL over `events`"
            raise ValueError(message)
        log, stop = open_log(config)
        rows = _entity_rows(entity_df, log, stop)
        timestamp_column = infer_event_timestamp_from_entity_df(dict(_pandas_dtypes(rows)))
        microseconds_of(rows[timestamp_column])
        refs = _by_view(feature_refs)
        hidden = {} if full_feature_names else _hidden(feature_refs)
        wanted, foreign = [], []
        for view in feature_views:
            warn_if_deprecated(view)
            declaration = declaration_of(view)
            if declaration is None:
                foreign.append(view)
                continue
            name = view.projection.name_to_use()
            columns = tuple(view.projection.join_key_map.get(key, key) for key in declaration.entity_keys)
            for column in columns:
                if column not in rows.column_names:
                    message = (
                        f"entity_df has no column {column!r}, which view {name!r} joins on; it has {rows.column_names}"
                    )
                    raise ValueError(message)
            features = tuple(refs.get(name, ()))
            wanted.append(
                Wanted(
                    declaration=declaration,
                    name=name,
                    features=features,
                    entity_columns=columns,
                    hidden=tuple(hidden.get(name, ())),
                )
            )
        taken = {feature for one in wanted for feature in one.features} & set(rows.column_names)
        if taken and not full_feature_names:
            message = f"entity_df has columns named as features, {sorted(taken)}: ask with full_feature_names=True"
            raise ValueError(message)
        others = None
        if foreign:
            names = {view.projection.name_to_use() for view in foreign}
            theirs = [ref for ref in feature_refs if ref.split(":")[0].split("@")[0] in names]
            frame = rows.to_pandas()
            frame[ROW] = np.arange(len(frame))

            def others() -> pa.Table:
                job = DuckDBOfflineStore.get_historical_features(
                    config, foreign, theirs, frame, registry, project, full_feature_names, **kwargs
                )
                return job.to_arrow()

        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        for one in on_demand:
            warn_if_deprecated(one)
        of_request = [
            WantedOfRequest(view=view, name=one.name, features=tuple(refs[one.name]))
            for one in on_demand
            if (view := request_view_of(one)) is not None
        ]
        times = rows[timestamp_column]
        return EventLogRetrievalJob(
            log=log,
            stop=stop,
            rows=rows,
            timestamp_column=timestamp_column,
            wanted=wanted,
            others=others,
            full_feature_names=full_feature_names,
            of_request=of_request,
            on_demand=[one for one in on_demand if request_view_of(one) is None],
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in rows.column_names if name != timestamp_column],
                min_event_timestamp=pc.min(times).as_py(),
                max_event_timestamp=pc.max(times).as_py(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Features of every entity of the log as they are at `end_date`."""
        if not isinstance(data_source, EventLogSource):
            return DuckDBOfflineStore.pull_latest_from_table_or_query(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            )
        log, stop = open_log(config)
        declaration = data_source.declaration
        keys = ", ".join(declaration.entity_keys)
        present = " and ".join(f"{key} is not null" for key in declaration.entity_keys)
        ids = log.query(f"select distinct {keys} from events where {present} order by {keys}", stop=stop)
        end = microseconds(end_date)
        rows = ids.append_column(timestamp_field, pa.array(np.full(ids.num_rows, end), pa.timestamp("us", tz="UTC")))
        return EventLogRetrievalJob(
            log=log,
            stop=stop,
            rows=rows,
            timestamp_column=timestamp_field,
            wanted=[
                Wanted(
                    declaration=declaration,
                    name=declaration.name,
                    features=tuple(feature_name_columns),
                    entity_columns=declaration.entity_keys,
                )
            ],
            others=None,
            full_feature_names=False,
            of_request=[],
            on_demand=[],
            metadata=RetrievalMetadata(features=feature_name_columns, keys=list(declaration.entity_keys)),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """As `pull_latest_from_table_or_query`: a value of a sliding window exists at every time, so at the end."""
        if not isinstance(data_source, EventLogSource):
            return DuckDBOfflineStore.pull_all_from_table_or_query(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            )
        end = end_date or datetime.now(UTC)
        return EventLogOfflineStore.pull_latest_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date or end,
            end,
        )

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """As Feast's DuckDB store does."""
        DuckDBOfflineStore.write_logged_features(config, data, source, logging_config, registry)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Writes to views of other sources; event-log views are fed by ingestion alone.

        Raises:
            ValueError: the view reads the event log.
        """
        if declaration_of(feature_view) is not None:
            message = f"view {feature_view.name!r} reads the event log: send events (make ingest), not feature values"
            raise ValueError(message)
        DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)


def open_log(config: RepoConfig) -> tuple[EventLog, int]:
    """The event log that a Feast configuration names, and the offset to read it at."""
    offline = config.offline_store
    path = getattr(offline, "log_path", None)
    log = EventLog(Path(path) if path else settings.load().log)
    offset = getattr(offline, "log_offset", None)
    return log, log.version if offset is None else offset


def _entity_rows(entity_df: pd.DataFrame | str, log: EventLog, stop: int) -> pa.Table:
    if isinstance(entity_df, str):
        return log.query(entity_df, stop=stop)
    return pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)


def _pandas_dtypes(rows: pa.Table) -> list[tuple[str, Any]]:
    """All that Feast asks of them is which are times."""
    utc = pd.DatetimeTZDtype(tz="UTC")
    return [(field.name, utc if pa.types.is_timestamp(field.type) else np.dtype(object)) for field in rows.schema]


def _by_view(feature_refs: list[str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for ref in feature_refs:
        view, feature = ref.split(":")
        out.setdefault(view.split("@")[0], []).append(feature)
    return out


def _hidden(feature_refs: list[str]) -> dict[str, list[str]]:
    """By view, features whose bare name an earlier reference has.

    Feast refuses two such references of a user's, and puts what request views read behind them.
    """
    out: dict[str, list[str]] = {}
    seen = set()
    for ref in dict.fromkeys(feature_refs):
        view, feature = ref.split(":")
        if feature in seen:
            out.setdefault(view.split("@")[0], []).append(feature)
        seen.add(feature)
    return out
