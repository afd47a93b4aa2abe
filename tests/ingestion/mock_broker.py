"""A Kafka broker without Kafka: librdkafka's mock cluster, which speaks the protocol on a port of this machine.

The Python client has no door to it, but its own librdkafka exports the functions. Groups, commits and fetches are
real; nothing is kept on disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import pytest

_PRODUCER = 0


@contextmanager
def mock_broker(topic: str, partitions: int = 1) -> Iterator[str]:
    """Bootstrap servers of a cluster of one broker that has this topic; it is gone when the block ends."""
    library = _library()
    said = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), said, len(said))
    assert client, said.value
    cluster = library.rd_kafka_mock_cluster_new(client, 1)
    assert cluster
    try:
        assert library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, 1) == 0
        yield library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(client)


def _library() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    found = list(package.with_name("confluent_kafka.libs").glob("librdkafka*.so*"))
    if not found:
        pytest.skip("the client brings no librdkafka of its own here, as its wheels for Linux do")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
