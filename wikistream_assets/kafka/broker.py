"""Kafka as WikiStream uses it: the topics it needs, what is in them, and whether anything is left to read.

Works against any Kafka by its bootstrap servers, the embedded one or another. Does not belong here: running a broker
(``embedded``), and the producer's and Spark's own clients.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ re-exports without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from producer.cursor import Cursor
from producer.envelope import MAX_ORIGINAL_BYTES
from producer.sink import watermarks
from producer.topics import DLQ_EVENTS, FETCH_WAIT_MS, RAW_EVENTS, SSE_CURSOR
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.settings import Settings

Positions = Mapping[str, Mapping[str, int]]
"""Offsets by topic and partition (as text, because it travels as JSON); the next offset to read."""

_REQUEST_SECONDS: Final = 5.0
_READ_SECONDS: Final = 30.0
_KNOCK_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05
_VISIBLE_POLL_SECONDS: Final = 0.02
_HOUR_MS: Final = 3_600_000
_NEWEST_CURSORS: Final = 50
_OVERHEAD_BYTES: Final = 1_048_576
"""Kafka's default limit; on top of an event's own size it leaves room for the envelope and for a batch of small records."""
_UNSTABLE: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}
)


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it has to be.

    Attributes:
        name: its name.
        partitions: at least so many; more are left alone, Kafka cannot take any away.
        config: the settings of the topic that WikiStream relies on, as Kafka spells them.
    """

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """One committed record of a topic; ``timestamp_ms`` is milliseconds since 1970 in UTC, None if it has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return the topics that WikiStream needs, from the settings."""
    retention = {"cleanup.policy": "delete", "retention.ms": str(settings.kafka_retention_hours * _HOUR_MS)}
    # The cursor gets a record per transaction and is read whole at each start of a producer: small segments, closed soon and
    # cleaned early, keep that a matter of milliseconds.
    cursor = {
        "cleanup.policy": "compact",
        "segment.bytes": str(4 * 1024 * 1024),
        "segment.ms": str(_HOUR_MS // 6),
        "min.cleanable.dirty.ratio": "0.1",
    }
    # An event of the greatest size may double when its JSON is quoted inside the envelope; a dead letter holds base64.
    event_bytes = 2 * settings.max_event_bytes + _OVERHEAD_BYTES
    letter_bytes = 4 * MAX_ORIGINAL_BYTES // 3 + _OVERHEAD_BYTES
    return (
        TopicSpec(RAW_EVENTS, settings.kafka_partitions, {**_compressed(event_bytes), **retention}),
        TopicSpec(DLQ_EVENTS, 1, {**_compressed(letter_bytes), **retention}),
        TopicSpec(SSE_CURSOR, 1, {**_compressed(_OVERHEAD_BYTES), **cursor}),
    )


def _compressed(max_message_bytes: int) -> dict[str, str]:
    return {"compression.type": "zstd", "max.message.bytes": str(max_message_bytes)}


def max_message_bytes(settings: Settings) -> int:
    """Return the size of the largest record that any topic must take, bytes."""
    return max(int(spec.config["max.message.bytes"]) for spec in topic_specs(settings))


class Broker:
    """A Kafka cluster, by its bootstrap servers. Methods raise ``BrokerError`` within seconds if it does not answer."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient(self._config())

    def _config(self) -> dict[str, Any]:
        # librdkafka's own log goes to stderr line by line; what matters of it comes back as an error
        return {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, "socket.timeout.ms": 10_000}

    def refuse_absent(self) -> None:
        """Return if somebody listens at one of its addresses; costs milliseconds, unlike a request that waits for an answer.

        Raises:
            BrokerError: nobody does.
        """
        reason = ""
        for address in self.bootstrap_servers.split(","):
            host, _, port = address.strip().rpartition("://")[2].rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
                return
            except (OSError, ValueError) as error:  # ValueError: no number after the colon
                reason = getattr(error, "strerror", None) or str(error)
        raise self._failure(OSError(reason))

    def wait_ready(self, timeout: float, still_alive: Callable[[], object] | None = None) -> None:
        """Return once the broker answers a metadata request and is one of its own brokers.

        Args:
            timeout: seconds to wait.
            still_alive: called between attempts; raises if waiting has become pointless.

        Raises:
            BrokerError: it did not answer in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self._admin.list_topics(timeout=min(1.0, timeout)).brokers:
                    return
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise self._failure(error) from None
            if still_alive is not None:
                still_alive()

    def list_topics(self) -> dict[str, int]:
        """Return the topics, Kafka's own left out, with their numbers of partitions."""
        found = self._metadata().topics
        return {name: len(topic.partitions) for name, topic in sorted(found.items()) if not name.startswith("__")}

    def ensure_topics(self, settings: Settings) -> list[str]:
        """Create the topics that are missing and correct those that differ from the settings.

        Returns:
            One line for each change; empty when everything was as it has to be.
        """
        present = self.list_topics()
        specs = topic_specs(settings)
        changes = self._create([spec for spec in specs if spec.name not in present])
        for spec in specs:
            if spec.name in present:
                changes += self._add_partitions(spec, present[spec.name])
                changes += self._correct_config(spec)
        if changes:
            self._wait_visible(specs)
        return changes

    def describe_config(self, topic: str) -> dict[str, str]:
        """Return the settings made on a topic itself, without the broker's defaults."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._wait(self._admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS))[0]
        own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        return {name: entry.value for name, entry in entries.items() if entry.source == own}

    def offsets(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the first offset and the one after the last for each partition; transaction markers occupy offsets too."""
        with self._consumer() as consumer:
            return self._watermarks(consumer, topic)

    def ends(self, topics: Iterable[str]) -> Positions:
        """Return where the topics end now: the offset after the last of each partition, as positions are written."""
        return {topic: {str(number): high for number, (_, high) in self.offsets(topic).items()} for topic in topics}

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the id that Kafka gave each topic when it was made; one deleted and made anew has another."""
        described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_REQUEST_SECONDS)
        return {topic.name: str(topic.topic_id) for topic in self._wait(described)}

    def tail(self, topic: str, n: int) -> list[Record]:
        """Return the last ``n`` committed records of a topic, oldest first."""
        with self._consumer() as consumer:
            bounds = self._watermarks(consumer, topic)
            span = n
            while True:
                starts = {partition: max(low, high - span) for partition, (low, high) in bounds.items()}
                ends = {partition: high for partition, (_, high) in bounds.items()}
                records = list(self._read(consumer, topic, starts, ends))
                if len(records) >= n or all(starts[partition] == low for partition, (low, _) in bounds.items()):
                    return sorted(records, key=lambda r: (r.timestamp_ms or 0, r.partition, r.offset))[-n:]
                span *= 4  # transaction markers and aborted records took up the offsets: look further back

    def newest_cursor(self, identity: str) -> tuple[Cursor, datetime | None] | None:
        """The cursor of a source and when it was written.

        None if none of the newest few is this source's: redrives and backfills write there too, and say nothing about it.
        """
        records = [record for record in self.tail(SSE_CURSOR, _NEWEST_CURSORS) if record.key == identity.encode()]
        if not records:
            return None
        written = records[-1].timestamp_ms
        return Cursor.from_json(records[-1].value or b""), datetime.fromtimestamp(
            written / 1000, UTC
        ) if written else None

    def has_committed_records(self, position: Positions, until: Positions) -> bool:
        """Tell whether a committed record lies at or after ``position`` and before ``until``.

        Offsets alone cannot tell: the end of a topic written by transactions is a marker, which no reader ever gets. A
        partition that ``position`` does not name is read from its start.
        """
        with self._consumer() as consumer:
            for topic, ends in until.items():
                starts = {int(partition): position.get(topic, {}).get(partition, 0) for partition in ends}
                open_ranges = {number: start for number, start in starts.items() if start < ends[str(number)]}
                wanted = {number: ends[str(number)] for number in open_ranges}
                if next(self._read(consumer, topic, open_ranges, wanted), None) is not None:
                    return True
        return False

    def _create(self, specs: Sequence[TopicSpec]) -> list[str]:
        if not specs:
            return []
        new = [NewTopic(spec.name, spec.partitions, 1, config=dict(spec.config)) for spec in specs]
        self._wait(self._admin.create_topics(new, request_timeout=_REQUEST_SECONDS))
        return [f"created topic {spec.name}, partitions: {spec.partitions}" for spec in specs]

    def _add_partitions(self, spec: TopicSpec, present: int) -> list[str]:
        if present >= spec.partitions:
            return []
        more = NewPartitions(spec.name, spec.partitions)
        self._wait(self._admin.create_partitions([more], request_timeout=_REQUEST_SECONDS))
        return [f"extended topic {spec.name} from {present} to {spec.partitions} partitions"]

    def _correct_config(self, spec: TopicSpec) -> list[str]:
        present = self.describe_config(spec.name)
        wrong = {name: value for name, value in spec.config.items() if present.get(name) != value}
        if not wrong:
            return []
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in wrong.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, spec.name, incremental_configs=entries)
        self._wait(self._admin.incremental_alter_configs([resource], request_timeout=_REQUEST_SECONDS))
        return [f"set {name}={value} on topic {spec.name} (was {present.get(name)})" for name, value in wrong.items()]

    def _wait_visible(self, specs: Sequence[TopicSpec]) -> None:
        """Return once a metadata answer shows the topics: the controller accepts them a moment before the broker knows them."""
        deadline = time.monotonic() + _READ_SECONDS
        while True:
            present = self.list_topics()
            missing = [spec.name for spec in specs if present.get(spec.name, 0) < spec.partitions]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise self._failure(TimeoutError(f"topic {missing[0]} does not appear"))
            time.sleep(_VISIBLE_POLL_SECONDS)

    def _metadata(self) -> Any:
        try:
            return self._admin.list_topics(timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            raise self._failure(error) from None

    def _wait(self, futures: Mapping[Any, Any]) -> list[Any]:
        try:
            return [future.result(timeout=2 * _REQUEST_SECONDS) for future in futures.values()]
        except (KafkaException, TimeoutError) as error:
            raise self._failure(error) from None

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        consumer = Consumer(
            {
                **self._config(),
                "group.id": "wikistream-inspection",  # required by the client; nothing is ever committed to it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            raise self._failure(error) from None
        finally:
            consumer.close()

    def _watermarks(self, consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
        metadata = consumer.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
        if metadata.error is not None:
            raise BrokerError(f"topic {topic} does not exist on {self.bootstrap_servers}: run 'wikistream topics sync'")
        return {
            partition: watermarks(consumer, topic, partition, _REQUEST_SECONDS)
            for partition in sorted(metadata.partitions)
        }

    def _read(
        self, consumer: Consumer, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[Record]:
        """Yield the committed records from ``starts`` up to, without, ``ends`` (offsets by partition).

        A record at or after the end is waited for as well as the partition's own end: while somebody writes more often than a
        fetch waits, Kafka's client never reports that end; and the last offsets are often markers, which it never delivers.
        """
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        unfinished = set(starts)
        deadline = time.monotonic() + _READ_SECONDS
        while unfinished:
            for message in consumer.consume(num_messages=500, timeout=_POLL_SECONDS):
                error = message.error()
                if error is None:
                    record = _record(message)
                    if record.offset >= ends[record.partition] - 1:
                        unfinished.discard(record.partition)
                    if record.offset < ends[record.partition]:
                        yield record
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                elif error.code() not in _UNSTABLE:
                    raise KafkaException(error)
            if time.monotonic() > deadline:
                raise self._failure(TimeoutError(f"no end of topic {topic} within {_READ_SECONDS:.0f} s"))

    def _failure(self, error: Exception) -> BrokerError:
        cause = error.args[0] if error.args else error
        if isinstance(cause, KafkaError) and cause.code() not in _UNSTABLE:
            return BrokerError(f"the broker at {self.bootstrap_servers} refused a request ({cause.str()}): see its log")
        reason = cause.str() if isinstance(cause, KafkaError) else str(cause) or type(error).__name__
        return BrokerError(
            f"the broker at {self.bootstrap_servers} does not answer ({reason}): start it with 'make up', or set "
            "WIKISTREAM_BOOTSTRAP_SERVERS"
        )


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018  # only errors lack them
    kind, timestamp = message.timestamp()
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        key=message.key(),
        value=message.value(),
    )
