"""Labels with the events they speak of, found through the log's index."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import ENTITY_KEYS, LABEL
from clicktrail.event_log import EventLog, known_at

_SAID = ("event_id", "event_timestamp", "ingested_at", "source_seq", "label_of", "label", "label_value", "event_type")
_SPOKEN_OF = ("event_id", "event_type", "event_timestamp", "ingested_at")
_ORDER = ("target", "known", "event_timestamp", "source_seq", "event_id")


def read_labels(
    log: EventLog,
    label: str,
    events: Sequence[str],
    *,
    stop: int | None = None,
    of: pa.Array | None = None,
    keys: Sequence[str] = ENTITY_KEYS,
) -> pa.Table:
    """Labels with the events they speak of, those of one event together and oldest first.

    Costs as much as there are labels to be read, however long the log.

    Args:
        log: the event log.
        label: name of the label.
        events: event types that it may speak of.
        stop: only what the log held before this offset.
        of: only labels of these event_ids.
        keys: entity keys of the event that are wanted; each costs.

    Returns:
        Columns `offset` (of the label), `target` (offset of the event), `target_known`, `target_event`, `known` (int64,
        microseconds), `value`, `label_of` and `keys` of the event.
    """
    stop = log.version if stop is None else stop
    said = log.labels_of(of, [*_SAID, "offset"], stop=stop)
    said = said.filter(pc.and_(pc.equal(said["label"], label), pc.equal(said["event_type"], LABEL)))
    spoken_of = log.rows_of(pc.unique(said["label_of"]), [*_SPOKEN_OF, *keys, "offset"], stop=stop)
    spoken_of = spoken_of.filter(pc.is_in(spoken_of["event_type"], value_set=pa.array(events, pa.string())))
    place = pc.index_in(said["label_of"], value_set=spoken_of["event_id"].combine_chunks())
    said, event = said.filter(pc.is_valid(place)), spoken_of.take(place.drop_null())
    known, target_known = pa.array(known_at(said)), pa.array(known_at(event))
    order = pc.sort_indices(
        said.append_column("target", event["offset"]).append_column("known", known),
        sort_keys=[(key, "ascending") for key in _ORDER],
    )
    return pa.table(
        {
            "offset": said["offset"],
            "target": event["offset"],
            "target_known": target_known,
            "target_event": event["event_timestamp"].cast(pa.int64()),
            "known": known,
            "value": said["label_value"],
            "label_of": said["label_of"],
            **{key: event[key] for key in keys},
        }
    ).take(order)
