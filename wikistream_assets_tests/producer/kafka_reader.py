"""Reads topics in tests with a plain consumer: what is committed, and nothing else."""

import base64
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from producer.topics import DLQ_EVENTS, RAW_EVENTS


def committed(bootstrap_servers: str, topic: str) -> list[Message]:
    """Every committed record of a topic, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": str(uuid.uuid4()),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        unread = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in unread])
        messages: list[Message] = []
        deadline = time.monotonic() + 60
        while unread:
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in consumer.consume(5_000, 0.5):
                if message.error() is None:
                    messages.append(message)
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    unread.discard(message.partition())
        return sorted(messages, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


@dataclass
class Landed:
    """What lies in ``raw-events`` and ``dlq-events``."""

    ids: list[str] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    processing: list[dict[str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    originals: list[bytes] = field(default_factory=list)
    partitions_of: dict[str, set[int]] = field(default_factory=dict)


def landed(bootstrap_servers: str) -> Landed:
    """Read both topics and take the envelopes off."""
    found = Landed()
    for message in committed(bootstrap_servers, RAW_EVENTS):
        value = json.loads(message.value())
        assert message.key().decode() == value["id"]
        found.ids.append(value["id"])
        found.data.append(value["data"].encode())
        found.processing.append(value["_processing"])
        found.partitions_of.setdefault(value["id"], set()).add(message.partition())
    for message in committed(bootstrap_servers, DLQ_EVENTS):
        value = json.loads(message.value())
        found.reasons[value["reason"]] += 1
        found.originals.append(base64.b64decode(value["original"], validate=True))
    return found
