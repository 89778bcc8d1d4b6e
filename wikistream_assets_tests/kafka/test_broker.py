"""Topics and reading against a real Kafka, with records written by real transactions."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from producer.cursor import Cursor
from producer.sink import read_cursor
from producer.topics import RAW_EVENTS, SSE_CURSOR
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import Broker, topic_specs
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, free_port, wait_until

pytestmark = pytest.mark.kafka

_HOUR_MS = 3_600_000


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """A topic of this test's own, two partitions, removed afterwards."""
    name = f"test-{abs(hash(request.node.nodeid))}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(timeout=20)
    yield name
    admin.delete_topics([name])[name].result(timeout=20)


@pytest.fixture
def producer(broker: Broker, topic: str) -> Producer:
    transactional = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 0})
    transactional.init_transactions(20)
    return transactional


def write(producer: Producer, topic: str, partition: int, values: Sequence[str]) -> None:
    for value in values:
        producer.produce(topic, value=value, partition=partition)


def commit(broker: Broker, producer: Producer, topic: str, partition: int, values: Sequence[str]) -> None:
    """A transaction, and its marker: that is written a moment after the commit is answered."""
    before = broker.offsets(topic)[partition][1]
    producer.begin_transaction()
    write(producer, topic, partition, values)
    producer.commit_transaction(20)
    wait_until(lambda: broker.offsets(topic)[partition][1] == before + len(values) + 1)


def ends(broker: Broker, topic: str) -> dict[str, dict[str, int]]:
    return {topic: {str(partition): high for partition, (_, high) in broker.offsets(topic).items()}}


def test_the_topics_are_as_the_settings_want_them(fresh_topics: Broker, broker_settings: Settings) -> None:
    assert fresh_topics.list_topics() == {"dlq-events": 1, "raw-events": 3, "sse-cursor": 1}
    raw = fresh_topics.describe_config("raw-events")
    assert raw["compression.type"] == "zstd"
    assert raw["cleanup.policy"] == "delete"
    assert int(raw["retention.ms"]) == 168 * _HOUR_MS
    # an accepted event of the greatest size, every byte of it a quote that the envelope has to escape
    assert int(raw["max.message.bytes"]) > 2 * broker_settings.max_event_bytes
    dead = fresh_topics.describe_config("dlq-events")
    assert int(dead["retention.ms"]) == 168 * _HOUR_MS
    assert int(dead["max.message.bytes"]) > 8 * 1024 * 1024 * 4 // 3
    assert fresh_topics.describe_config("sse-cursor")["cleanup.policy"] == "compact"


def test_synchronising_corrects_what_differs_and_then_finds_nothing(
    fresh_topics: Broker, settings_factory: SettingsFactory
) -> None:
    changed = settings_factory(kafka_retention_hours=24, kafka_partitions=4)
    assert sorted(fresh_topics.ensure_topics(changed)) == [
        "extended topic raw-events from 3 to 4 partitions",
        f"set retention.ms={24 * _HOUR_MS} on topic dlq-events (was {168 * _HOUR_MS})",
        f"set retention.ms={24 * _HOUR_MS} on topic raw-events (was {168 * _HOUR_MS})",
    ]
    fresh_topics.wait_ready(10)
    assert fresh_topics.ensure_topics(changed) == []
    assert int(fresh_topics.describe_config("raw-events")["retention.ms"]) == 24 * _HOUR_MS
    assert fresh_topics.list_topics()["raw-events"] == 4


def test_the_largest_accepted_event_fits(fresh_topics: Broker, broker_settings: Settings) -> None:
    size = 2 * broker_settings.max_event_bytes
    client = Producer(
        {"bootstrap.servers": fresh_topics.bootstrap_servers, "message.max.bytes": size + 1_000_000, "log_level": 0}
    )
    failures: list[object] = []
    client.produce("raw-events", value=bytes(size), on_delivery=lambda error, _: failures.append(error))
    assert client.flush(20) == 0
    assert failures == [None]


def test_tail_gives_the_last_committed_records(broker: Broker, topic: str, producer: Producer) -> None:
    for number in range(30):  # each commit takes an offset of its own, so the last 5 records lie about 10 offsets back
        commit(broker, producer, topic, number % 2, [f"value-{number}"])
    producer.begin_transaction()
    write(producer, topic, 0, ["aborted"])
    producer.flush(20)
    producer.abort_transaction(20)
    records = broker.tail(topic, 5)
    assert {record.value for record in records} == {f"value-{number}".encode() for number in range(25, 30)}
    assert [record.timestamp_ms for record in records] == sorted(record.timestamp_ms or 0 for record in records)
    last = next(record for record in records if record.value == b"value-29")
    assert (last.topic, last.partition, last.offset, last.key) == (topic, 1, 28, None)
    assert len(broker.tail(topic, 1000)) == 30


def test_a_marker_at_the_end_is_nothing_left_to_read(broker: Broker, topic: str, producer: Producer) -> None:
    assert not broker.has_committed_records({}, ends(broker, topic))
    commit(broker, producer, topic, 0, ["a", "b"])
    until = ends(broker, topic)
    assert until == {topic: {"0": 3, "1": 0}}  # two records and the marker of their commit
    assert broker.has_committed_records({}, until)
    assert broker.has_committed_records({topic: {"0": 1}}, until)
    assert not broker.has_committed_records({topic: {"0": 2}}, until)
    assert not broker.has_committed_records({topic: {"0": 3}}, until)


def test_records_beyond_the_end_and_in_other_partitions(broker: Broker, topic: str, producer: Producer) -> None:
    commit(broker, producer, topic, 0, ["a"])
    until = ends(broker, topic)
    commit(broker, producer, topic, 0, ["later"])
    commit(broker, producer, topic, 1, ["later"])
    assert not broker.has_committed_records({topic: {"0": 1}}, until)
    assert broker.has_committed_records({topic: {"0": 1}}, ends(broker, topic))
    assert broker.has_committed_records({topic: {"0": 4}}, ends(broker, topic))  # partition 1 is read from its start
    assert not broker.has_committed_records({topic: {"0": 4, "1": 1}}, ends(broker, topic))


def test_aborted_and_unfinished_records_do_not_count(broker: Broker, topic: str, producer: Producer) -> None:
    producer.begin_transaction()
    write(producer, topic, 0, ["aborted"])
    producer.flush(20)
    producer.abort_transaction(20)
    assert not broker.has_committed_records({}, ends(broker, topic))
    producer.begin_transaction()
    write(producer, topic, 0, ["unfinished"])
    producer.flush(20)
    assert not broker.has_committed_records({}, ends(broker, topic))
    producer.commit_transaction(20)
    wait_until(lambda: broker.has_committed_records({}, ends(broker, topic)))


def test_an_absent_topic_is_named(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=r"topic no-such-topic does not exist .*wikistream topics sync"):
        broker.offsets("no-such-topic")


@pytest.mark.parametrize("method", ["list_topics", "offsets"])
def test_a_broker_that_is_not_there_is_one_line_soon(method: str) -> None:
    absent = Broker(f"127.0.0.1:{free_port()}")
    arguments = ("raw-events",) if method == "offsets" else ()
    started = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        getattr(absent, method)(*arguments)
    assert time.monotonic() - started < 30  # a hang, not a slow machine
    text = str(caught.value)
    assert text.startswith(f"the broker at {absent.bootstrap_servers} does not answer (")
    assert "make up" in text
    assert "\n" not in text


def test_every_topic_is_specified_once(settings: Settings) -> None:
    names = [spec.name for spec in topic_specs(settings)]
    assert len(names) == len(set(names)) == 3


def test_reading_ends_while_somebody_writes_all_the_time(fresh_topics: Broker) -> None:
    """A client that fetches a topic faster written than it waits for data is never told of its end."""
    stop = threading.Event()
    writing = Producer(
        {"bootstrap.servers": fresh_topics.bootstrap_servers, "transactional.id": "busy", "log_level": 0}
    )
    writing.init_transactions(20)

    def write_on() -> None:
        while not stop.wait(0.05):
            writing.begin_transaction()
            writing.produce(SSE_CURSOR, value=Cursor(position="mine").to_json(), key=b"mine")
            writing.produce(RAW_EVENTS, value="busy", partition=0)
            writing.commit_transaction(20)

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write_on)
        try:
            wait_until(lambda: fresh_topics.offsets(RAW_EVENTS)[0][1] > 20)
            cursor = read_cursor(fresh_topics.bootstrap_servers, "mine")
            assert cursor is not None
            assert cursor.position == "mine"
            assert read_cursor(fresh_topics.bootstrap_servers, "nobody's") is None
            assert {record.value for record in fresh_topics.tail(RAW_EVENTS, 5)} == {b"busy"}
            high = fresh_topics.offsets(RAW_EVENTS)[0][1]
            last = next(record for record in reversed(fresh_topics.tail(RAW_EVENTS, 50)) if record.offset < high)
            until = {RAW_EVENTS: {"0": last.offset + 2}}  # its transaction's marker is the last one asked for
            assert not fresh_topics.has_committed_records({RAW_EVENTS: {"0": last.offset + 1}}, until)
            assert fresh_topics.has_committed_records({RAW_EVENTS: {"0": last.offset}}, until)
        finally:
            stop.set()
        written.result(30)
