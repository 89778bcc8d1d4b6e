"""The control of Bronze's cases: a writer as it is commonly written, seen to lose.

It reads a part of the topic and appends it. Where the append fails it says so, and goes on with the next part. It begins where
the topic ends, as Spark's stream does by default, or where it is told to begin.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from producer.topics import RAW_EVENTS as RAW_TOPIC
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.streams.edits.tables import RAW_EVENTS


class WeakBronze:
    """Reads ``raw-events`` from its beginning or, ``earliest=False``, from its end on."""

    def __init__(self, bootstrap_servers: str, *, earliest: bool) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": str(uuid.uuid4()),
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        places = [
            TopicPartition(RAW_TOPIC, number)
            for number in self._consumer.list_topics(RAW_TOPIC).topics[RAW_TOPIC].partitions
        ]
        for place in places:
            low, high = self._consumer.get_watermark_offsets(place)
            place.offset = low if earliest else high
        self._consumer.assign(places)

    def read(self, number: int) -> list[str]:
        """The keys of the next ``number`` records."""
        keys: list[str] = []
        while len(keys) < number:
            messages = self._consumer.consume(number - len(keys), 30)
            assert messages, f"{len(keys)} records of {number} came"
            assert not any(message.error() for message in messages)
            keys += [(message.key() or b"").decode() for message in messages]
        return keys

    def append(self, lake: Lakehouse, rows: Mapping[str, dict[str, Any]], number: int) -> None:
        """Read the next ``number`` events and append their rows."""
        schema = lake.table(RAW_EVENTS).schema().as_arrow()
        lake.append(RAW_EVENTS, pa.Table.from_pylist([rows[key] for key in self.read(number)], schema=schema))

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
