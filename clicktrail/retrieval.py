"""A point-in-time read of the event log, as Feast's retrieval job: lists for its users, ranges for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from clicktrail.declarations import Declaration
from clicktrail.engine import Slices, aggregates, sequence_lists, sequences
from clicktrail.entity_ids import entity_ids
from clicktrail.event_log import EventLog
from clicktrail.jagged import JaggedFeatures, JaggedSequence, jagged_sequence
from clicktrail.offline import entity_codes, load_history
from clicktrail.publish import publish_file
from clicktrail.request_declarations import RequestView
from clicktrail.request_features import apply, request_fields

ROW = "__clicktrail_row"
"""Column by which results of another store are brought back into the order of the entity rows."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One view of a request: the features asked for, and the entity columns that hold its keys.

    `hidden`: features that a request view reads, and whose bare name is another feature's in the result.
    """

    declaration: Declaration
    name: str
    features: tuple[str, ...]
    entity_columns: tuple[str, ...]
    hidden: tuple[str, ...] = ()

    @property
    def shown(self) -> list[str]:
        """The features that the result holds."""
        return [feature for feature in self.features if feature not in self.hidden]


@dataclass(frozen=True, kw_only=True)
class WantedOfRequest:
    """A request view under its name in the request, and the features asked for."""

    view: RequestView
    name: str
    features: tuple[str, ...]


class EventLogRetrievalJob(RetrievalJob):
    """A point-in-time read; nothing is computed before one of its `to_...` methods is called."""

    def __init__(  # noqa: PLR0913 - what Feast's signature spreads over two objects
        self,
        *,
        log: EventLog,
        stop: int,
        rows: pa.Table,
        timestamp_column: str,
        wanted: list[Wanted],
        others: Callable[[], pa.Table] | None,
        full_feature_names: bool,
        of_request: list[WantedOfRequest],
        on_demand: list[OnDemandFeatureView],
        metadata: RetrievalMetadata,
    ) -> None:
        """`rows` are the entity rows; `others` reads the views that have another source.

        `of_request` are request views, which are computed here; Feast applies the views `on_demand`.
        """
        self.log = log
        self.stop = stop
        self._rows = rows
        self._timestamp_column = timestamp_column
        self._wanted = wanted
        self._others = others
        self._full_feature_names = full_feature_names
        self._of_request = of_request
        self._on_demand = on_demand
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are called view__feature."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """On-demand views that Feast applies to the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return self._metadata

    def to_jagged(self) -> JaggedFeatures:
        """Flat arrays and ranges instead of lists: no row of the past is copied per entity row.

        Raises:
            ValueError: a view with another source is among those asked for: it has no history to share.
        """
        if self._others is not None:
            message = "to_jagged reads event-log views alone; ask for the others with to_arrow"
            raise ValueError(message)
        sequences_out: dict[str, JaggedSequence] = {}
        scalars: dict[str, pa.Array] = {}
        for wanted, slices, values in self._values():
            if slices is not None:
                sequences_out[wanted.name] = jagged_sequence(wanted.declaration, list(wanted.features), slices)
            scalars |= _scalars(wanted, values)
        requested = {f"{one.name}__{feature}": column for one, feature, column in self._requested(scalars)}
        return JaggedFeatures(rows=self._rows, sequences=sequences_out, scalars={**scalars, **requested})

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,
    ) -> None:
        """Save the result as a Feast saved dataset in a Parquet file."""
        path = Path(storage.to_data_source().path)
        if path.exists() and not allow_overwrite:
            message = f"{path} exists already: choose another place or pass allow_overwrite=True"
            raise ValueError(message)
        self.to_df(timeout=timeout).to_parquet(path)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return _plain(self._to_arrow_internal(timeout)).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        del timeout
        table = self._rows
        scalars: dict[str, pa.Array] = {}
        for wanted, slices, values in self._values():
            columns = values if slices is None else sequence_lists(wanted.declaration.only(wanted.features), slices)
            scalars |= _scalars(wanted, values)
            for feature in wanted.shown:
                table = table.append_column(self._column_name(wanted, feature), without_nulls(columns[feature]))
        for one, feature, column in self._requested(scalars):
            table = table.append_column(self._column_name(one, feature), column)
        table = self._with_others(table)
        assert table.num_rows == self._rows.num_rows  # noqa: S101 - every row that goes in comes out
        return table

    def to_batches(self, rows: int = 100_000) -> Iterator[pa.Table]:
        """The result in pieces of so many rows, in order: lists of a piece are made when it is asked for.

        Only histories, ranges and scalars of all rows are held, so a result may be larger than memory. Feast's own
        on-demand views are not applied.
        """
        read = list(self._values())
        requested = self._requested({k: v for wanted, _, values in read for k, v in _scalars(wanted, values).items()})
        others = self._with_others(self._rows).drop_columns(self._rows.column_names)
        for begin in range(0, max(self._rows.num_rows, 1), rows):
            piece = self._rows.slice(begin, rows)
            for wanted, slices, values in read:
                declaration = wanted.declaration.only(wanted.features)
                columns = {name: column.slice(begin, rows) for name, column in values.items()}
                if slices is not None:
                    columns = sequence_lists(declaration, slices.slice(begin, rows))
                for feature in wanted.shown:
                    piece = piece.append_column(self._column_name(wanted, feature), without_nulls(columns[feature]))
            for one, feature, column in requested:
                piece = piece.append_column(self._column_name(one, feature), column.slice(begin, rows))
            for name in others.column_names:
                piece = piece.append_column(name, others[name].slice(begin, rows))
            yield piece

    def write_parquet(self, path: Path, rows: int = 100_000) -> None:
        """Stream the result to a Parquet file, written aside and renamed; see `to_batches`."""

        def write(aside: Path) -> None:
            writer = None
            for piece in self.to_batches(rows):
                writer = writer or pq.ParquetWriter(aside, piece.schema, compression="zstd")
                writer.write_table(piece)
            assert writer is not None  # noqa: S101 - there is one piece at least
            writer.close()

        publish_file(path, write, "retrieval")

    def _column_name(self, wanted: Wanted | WantedOfRequest, feature: str) -> str:
        return f"{wanted.name}__{feature}" if self._full_feature_names else feature

    def _requested(self, scalars: Mapping[str, pa.Array]) -> list[tuple[WantedOfRequest, str, pa.Array]]:
        """The features of request views: the view, the feature's name, [rows] values."""
        if not self._of_request:
            return []
        t = microseconds_of(self._rows[self._timestamp_column])
        out = []
        for one in self._of_request:
            features = [feature for feature in one.view.features if feature.name in one.features]
            columns = {**scalars, **request_fields(one.view, self._rows)}
            out += [(one, name, column) for name, column in apply(features, columns, t).items()]
        return out

    def _with_others(self, table: pa.Table) -> pa.Table:
        """The table with the columns of views that have another source."""
        if self._others is not None:
            other = self._others().sort_by(ROW)
            for name in other.column_names:
                if name not in (*self._rows.column_names, ROW):
                    table = table.append_column(name, other[name])
        return table

    def _values(self) -> Iterator[tuple[Wanted, Slices | None, dict[str, pa.Array]]]:
        t = microseconds_of(self._rows[self._timestamp_column])
        keys = dict.fromkeys(wanted.declaration.entity_key for wanted in self._wanted)
        for key in keys:
            of_entity = [wanted for wanted in self._wanted if wanted.declaration.entity_key == key]
            needed = {one.name: one.declaration.only(one.features) for one in of_entity}
            history, entities = load_history(self.log, key, list(needed.values()), stop=self.stop)
            for wanted in of_entity:
                declaration = needed[wanted.name]
                codes = entity_codes(entity_ids(self._rows, wanted.entity_columns), entities)
                if declaration.is_sequence:
                    yield wanted, sequences(declaration, history, codes, t), {}
                else:
                    yield wanted, None, aggregates(declaration.aggregates, history, codes, t)


def _scalars(wanted: Wanted, values: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    return {f"{wanted.name}__{feature}": values[feature] for feature in wanted.features if values}


def microseconds_of(column: pa.ChunkedArray) -> np.ndarray:
    """Times as int64 microseconds UTC; a time without a zone is UTC.

    Raises:
        ValueError: a row has no time.
    """
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(value=True)).as_py()
        message = f"row {row} of entity_df has no event_timestamp: every row says at which time it is read"
        raise ValueError(message)
    return column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False).cast(pa.int64()).to_numpy()


def without_nulls(column: pa.Array) -> pa.Array:
    """A sequence with "" and 0 for what is missing inside: Feast's own lists, online, can hold no null."""
    if not pa.types.is_large_list(column.type) or not column.flatten().null_count:
        return column
    values = column.flatten()
    if pa.types.is_dictionary(values.type):
        blank = pa.concat_arrays([values.dictionary, pa.array([""])])
        values = pa.DictionaryArray.from_arrays(pc.fill_null(values.indices, len(values.dictionary)), blank)
    else:
        values = pc.fill_null(values, 0)
    return pa.LargeListArray.from_arrays(column.offsets, values)


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary-encoded strings as strings, inside lists too: what pandas users expect."""
    for index, field in enumerate(table.schema):
        inner = getattr(field.type, "value_type", None)
        if pa.types.is_large_list(field.type) and pa.types.is_dictionary(inner):
            table = table.set_column(index, field.name, table[index].cast(pa.large_list(pa.string())))
    return table
