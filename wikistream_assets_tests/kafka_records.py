"""What tests put into Kafka: values in the producer's format, committed in transactions like the producer's."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from confluent_kafka import Producer

from producer.contract import Accepted, Contract, Rejected
from producer.cursor import Cursor, RecordedGap
from producer.envelope import Envelope, SourceMode
from producer.failpoints import Failpoint
from producer.sink import TransactionalSink
from producer.topics import DLQ_EVENTS, RAW_EVENTS
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.settings import Settings

INGESTED_AT = datetime(2026, 3, 1, 12, 0, 5, 678_000, tzinfo=UTC)


@dataclass(frozen=True)
class Message:
    """One record to produce."""

    topic: str
    value: bytes | None
    key: str | None = None
    partition: int = -1  # by key


def envelope(mode: SourceMode = "replay", ingested_at: datetime = INGESTED_AT) -> Envelope:
    """The producer's envelope, with a clock that stands still."""
    return Envelope("local", "test-source", mode, now=lambda: ingested_at)


def event_message(event_id: str, line: str, partition: int = -1) -> Message:
    """The record of an accepted event."""
    return Message(RAW_EVENTS, envelope().event_value(event_id, line), event_id, partition)


def judged(
    lines: Iterable[str | bytes], domains: frozenset[str] | None = None, ingested_at: datetime = INGESTED_AT
) -> Iterator[Message]:
    """What the producer makes of the lines of a source; canaries and unfollowed domains make nothing."""
    wrap, contract = envelope(ingested_at=ingested_at), Contract(domains, max_event_bytes=1_000_000)
    for line in lines:
        verdict = contract.judge(line)
        text = line.encode() if isinstance(line, str) else line
        if isinstance(verdict, Accepted):
            yield Message(RAW_EVENTS, wrap.event_value(verdict.event_id, text.decode()), verdict.event_id)
        elif isinstance(verdict, Rejected):
            yield Message(DLQ_EVENTS, wrap.rejected_value(verdict, text))


def produce(bootstrap_servers: str, messages: Iterable[Message], per_transaction: int = 5_000) -> int:
    """Commit the messages, and return how many when a reader of committed records sees them all."""
    config: dict[str, str | int] = {
        "bootstrap.servers": bootstrap_servers,
        "transactional.id": f"test-{uuid.uuid4()}",
        "compression.type": "zstd",
        "message.max.bytes": 20_000_000,
        "log_level": 0,
    }
    producer = Producer(config)
    producer.init_transactions(30)
    produced = 0
    remaining = iter(messages)
    while chunk := list(islice(remaining, per_transaction)):
        producer.begin_transaction()
        for message in chunk:
            producer.produce(message.topic, message.value, message.key, message.partition)
        producer.commit_transaction(60)
        produced += len(chunk)
    # A commit is answered before its markers are in the partitions; a successor is let in only when they are.
    Producer(config).init_transactions(30)
    return produced


def open_transaction(bootstrap_servers: str) -> Producer:
    """A producer with an open transaction, for a test that does not commit it."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": "test-source", "log_level": 0})
    producer.init_transactions(300)
    producer.begin_transaction()
    return producer


def advance_producer(settings: Settings, at: datetime, *gaps: RecordedGap) -> None:
    """Commit a cursor as the producer of the synthetic source would have at ``at``; nothing but the cursor."""
    source = choose_source(settings, "synthetic").source
    sink = TransactionalSink(settings.bootstrap_servers, source.identity, Failpoint(""))
    cursor = Cursor(position="[]", gaps=gaps, gaps_total=len(gaps), updated_at=at.isoformat())
    sink.commit([], cursor, lambda: False)
    sink.close()
