"""The transactional side of Kafka: events, rejects and the cursor of one batch are committed together or not at all."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import KafkaError as ConfluentError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from producer.cursor import Cursor
from producer.exceptions import FencedError, KafkaError
from producer.failpoints import AFTER_COMMIT, AFTER_PRODUCE, Failpoint
from producer.topics import FETCH_WAIT_MS, MAX_MESSAGE_BYTES, SSE_CURSOR

_LOGGER = logging.getLogger(__name__)

TRANSACTION_SECONDS: Final = 60.0
"""A transaction, and with it every retry of its records, is given up after this time."""

_ATTEMPTS: Final = 3
_START_SECONDS: Final = 30.0
_SLICE_SECONDS: Final = 1.0
_NO_LEADER: Final = (ConfluentError.NOT_LEADER_FOR_PARTITION, ConfluentError.LEADER_NOT_AVAILABLE)
_ABORT_SECONDS: Final = 10.0

_FENCED: Final = frozenset(
    {ConfluentError._FENCED, ConfluentError.PRODUCER_FENCED, ConfluentError.INVALID_PRODUCER_EPOCH}
)


class Record(NamedTuple):
    """One Kafka record to be produced."""

    topic: str
    key: bytes | None
    value: bytes


def transactional_id(identity: str) -> str:
    """One for each source: a second producer of the same source fences the first, producers of other sources do not."""
    return f"wikistream-{sha256(identity.encode()).hexdigest()[:32]}"


class TransactionalSink:
    """The only writer of one source. Creating it fences any earlier one and ends what that one left open.

    Args:
        bootstrap_servers: the Kafka cluster.
        identity: of the source; key of the cursor.
        failpoint: for fault tests.

    Raises:
        KafkaError: the cluster cannot be reached.
    """

    def __init__(self, bootstrap_servers: str, identity: str, failpoint: Failpoint) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._identity = identity
        self._failpoint = failpoint
        self._producer = Producer(producer_config(bootstrap_servers, identity))
        self.aborted = 0
        try:
            self._producer.init_transactions(_START_SECONDS)
        except KafkaException as error:
            raise self._failed(error) from None

    def cursor(self) -> Cursor:
        """The committed cursor of this source; a blank one if it has none."""
        return read_cursor(self._bootstrap_servers, self._identity) or Cursor()

    def close(self) -> None:
        """Let go of the cluster after the last commit. After an error there is nothing to close: the process ends."""
        self._producer.close()

    def commit(self, records: Sequence[Record], cursor: Cursor, give_up: Callable[[], bool]) -> None:
        """Commit a batch with its cursor. After an error that Kafka can recover from, the batch is aborted and sent again.

        Args:
            records: the batch.
            cursor: covers exactly this batch and everything before.
            give_up: asked now and then; True ends all further attempts.

        Raises:
            FencedError: a newer producer has taken over; nothing of the batch is visible.
            KafkaError: it could not be done; nothing of the batch is visible.
        """
        self.commit_records([*records, Record(SSE_CURSOR, self._identity.encode(), cursor.to_json())], give_up)

    def commit_records(self, records: Sequence[Record], give_up: Callable[[], bool]) -> None:
        """As ``commit``, for a writer that keeps its place in records of its own making."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._transaction(records, give_up)
            except KafkaException as error:
                reason = error.args[0]
                if not reason.txn_requires_abort() or attempt == _ATTEMPTS or give_up():
                    raise self._failed(error) from None
                _LOGGER.warning("transaction aborted (%s), sending the batch again", reason)
                self._abort()
                continue
            self._failpoint.reach(AFTER_COMMIT)
            return

    def _transaction(self, records: Sequence[Record], give_up: Callable[[], bool]) -> None:
        self._producer.begin_transaction()
        for record in records:
            self._produce(record, give_up)
        self._failpoint.reach(AFTER_PRODUCE, before=self._producer.flush)
        while True:
            try:
                self._producer.commit_transaction(_SLICE_SECONDS)
            except KafkaException as error:
                # a retriable error means: not decided yet, ask again
                if not error.args[0].retriable() or give_up():
                    raise
            else:
                return

    def _produce(self, record: Record, give_up: Callable[[], bool]) -> None:
        while True:
            try:
                self._producer.produce(record.topic, value=record.value, key=record.key)
            except BufferError:  # librdkafka's queue is full: let it send
                if give_up():
                    raise KafkaError(
                        f"Kafka at {self._bootstrap_servers} takes no more records: check that the broker runs and start again"
                    ) from None
                self._producer.poll(0.05)
            else:
                return

    def _abort(self) -> None:
        self.aborted += 1
        try:
            self._producer.abort_transaction(_ABORT_SECONDS)
        except KafkaException as error:
            raise self._failed(error) from None

    def _failed(self, error: KafkaException) -> FencedError | KafkaError:
        if self._cause(error).code() in _FENCED:
            return FencedError(
                "a newer producer of this source has taken over, nothing of the open batch was committed: let that one work, "
                f"or stop it before this one is started again (transactional.id {transactional_id(self._identity)})"
            )
        return _kafka_error(self._bootstrap_servers, error)

    def _cause(self, error: KafkaException) -> ConfluentError:
        """Why the client has broken: of what it learns between two calls, a record that is refused does not say it."""
        reason: ConfluentError = error.args[0]
        if reason.code() == ConfluentError._FATAL:
            try:
                self._producer.abort_transaction(_SLICE_SECONDS)
            except KafkaException as told:
                reason = told.args[0]
        return reason


def producer_config(bootstrap_servers: str, identity: str) -> dict[str, Any]:
    """librdkafka's configuration of a source's producer."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "wikistream-producer",
        "transactional.id": transactional_id(identity),
        "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
        "delivery.timeout.ms": int(TRANSACTION_SECONDS * 1000),  # retries are bounded by this time, not by a count
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "zstd",
        "linger.ms": 50,
        "batch.size": 512 * 1024,
        "retry.backoff.ms": 100,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "error_cb": lambda error: _LOGGER.warning("Kafka at %s: %s", bootstrap_servers, error),
        "log_level": 0,  # librdkafka would write to stderr by itself; what matters comes as an error
    }


def read_cursor(bootstrap_servers: str, identity: str) -> Cursor | None:
    """The committed cursor of a source, None if there is none.

    Raises:
        KafkaError: the cluster or the topic cannot be read.
    """
    key = identity.encode()
    newest = read_newest(bootstrap_servers, lambda found: found == key).get(key)
    return Cursor.from_json(newest) if newest else None


def read_newest(bootstrap_servers: str, wanted: Callable[[bytes], bool]) -> dict[bytes, bytes]:
    """The newest committed value of each wanted key of ``sse-cursor``.

    Raises:
        KafkaError: the cluster or the topic cannot be read.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "wikistream-cursor",
            "group.id": f"wikistream-cursor-{uuid.uuid4()}",  # never commits: every reader starts at the beginning
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "log_level": 0,  # librdkafka would write to stderr by itself; what matters comes as an error
        }
    )
    try:
        return _newest_values(consumer, wanted)
    except KafkaException as error:
        raise _kafka_error(bootstrap_servers, error) from None
    finally:
        consumer.close()


def _newest_values(consumer: Consumer, wanted: Callable[[bytes], bool]) -> dict[bytes, bytes]:
    topic = consumer.list_topics(SSE_CURSOR, timeout=_START_SECONDS).topics[SSE_CURSOR]
    if topic.error is not None:
        raise KafkaException(topic.error)
    consumer.assign([TopicPartition(SSE_CURSOR, partition, OFFSET_BEGINNING) for partition in topic.partitions])
    # Up to the present end: while others write more often than a fetch waits, the client never reports an end.
    ends = {partition: watermarks(consumer, SSE_CURSOR, partition)[1] for partition in topic.partitions}
    unread = set(topic.partitions)
    newest: dict[bytes, bytes] = {}
    deadline = time.monotonic() + _START_SECONDS
    while unread:
        message = consumer.poll(_SLICE_SECONDS)
        if message is None:
            if time.monotonic() > deadline:
                raise KafkaException(ConfluentError(ConfluentError._TIMED_OUT))
        elif (failure := message.error()) is not None:
            if failure.code() != ConfluentError._PARTITION_EOF:
                raise KafkaException(failure)
            unread.discard(message.partition())
        else:
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None and offset >= ends[partition] - 1:
                unread.discard(partition)
            key, value = message.key(), message.value()
            if key is not None and value is not None and wanted(key):
                newest[key] = value  # one key lies in one partition, so the last one read is the newest
    return newest


def _has_no_leader_yet(error: BaseException) -> bool:
    """True of a topic made a moment ago, and of a broker that has just come back."""
    return isinstance(error, KafkaException) and error.args[0].code() in _NO_LEADER


def watermarks(consumer: Consumer, topic: str, partition: int, timeout: float = _START_SECONDS) -> tuple[int, int]:
    """The first offset of a partition and the one after its last; a partition without a leader is asked again.

    Raises:
        KafkaException: the cluster does not answer within ``timeout`` seconds, or the partition has no leader all that time.
    """
    asked_again = Retrying(
        retry=retry_if_exception(_has_no_leader_yet), stop=stop_after_delay(timeout), wait=wait_fixed(0.1), reraise=True
    )
    low, high = asked_again(consumer.get_watermark_offsets, TopicPartition(topic, partition), timeout=timeout)
    return int(low), int(high)


def _kafka_error(bootstrap_servers: str, error: KafkaException) -> KafkaError:
    reason = error.args[0]
    advice = "create the topics with 'wikistream up'" if reason.code() in _NO_TOPIC else "check that the broker runs"
    return KafkaError(
        f"Kafka at {bootstrap_servers} failed ({reason.str()}): {advice} and start again; nothing is lost"
    )


_NO_TOPIC: Final = frozenset({ConfluentError.UNKNOWN_TOPIC_OR_PART, ConfluentError._UNKNOWN_TOPIC})
