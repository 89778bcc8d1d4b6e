"""Case 10: the broker's disk is full; a topic is deleted and recreated. Loud at once, and nothing passed over in silence."""

from itertools import islice

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession

from producer.eventstreams.recording import Synthetic
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.launch import source_from
from producer.settings import ProducerSettings
from producer.topics import RAW_EVENTS as RAW_TOPIC
from wikistream_assets.embedded import services
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, event_ids, streaming
from wikistream_assets_tests.faults.bronze_sends import messages
from wikistream_assets_tests.faults.conftest import Account, ExactlyOnce, SmallDisk, drained_hashes, fill
from wikistream_assets_tests.faults.producing import GENERATOR, PROCESS_SECONDS, ended, finish, start
from wikistream_assets_tests.kafka_records import Message, produce
from wikistream_assets_tests.producer.kafka_reader import committed

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

READ, UNREAD = 500, 400
"""Events that Bronze has read of the deleted topic, and those that it has not."""


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)


@pytest.mark.spark
def test_10_the_brokers_disk_is_full(
    settings_factory: SettingsFactory, small_disk: SmallDisk, assert_exactly_once: ExactlyOnce
) -> None:
    owned = settings_factory()
    small_disk(owned.kafka_dir, 64)
    settings = ProducerSettings(bootstrap_servers=owned.bootstrap_servers, producer_batch_events=100)
    source = source_from("synthetic", settings, GENERATOR)
    twenty_seconds = Behaviour(speed=GENERATOR.hours * 3600 / 20)
    try:
        services.up(owned)
        with EventStreamsServer(Synthetic(GENERATOR), twenty_seconds) as server:
            with ended(start(source, server.url, settings)) as process:
                wait_until(lambda: _records(owned), PROCESS_SECONDS)
                filler = fill(owned.kafka_dir)
                wait_until(lambda: not services.broker_runs(owned), PROCESS_SECONDS)
                filler.unlink()
                Broker(owned.bootstrap_servers).wait_ready(PROCESS_SECONDS)
                code = finish(process)
            if code != 0:  # it gave up on the broker: its keeper starts it again
                server.behaviour = Behaviour()
                assert finish(start(source, server.url, settings)) == 0
        assert_exactly_once(settings, source, "10", "the broker's disk is full while the producer sends")
    finally:
        services.down(owned)


def test_10_control_what_the_broker_refuses_is_let_go(
    settings_factory: SettingsFactory, small_disk: SmallDisk, account: Account
) -> None:
    """A producer that does not look at what became of its records."""
    owned = settings_factory()
    small_disk(owned.kafka_dir, 64)
    try:
        services.up(owned)
        producer = Producer({"bootstrap.servers": owned.bootstrap_servers, "message.timeout.ms": 2_000, "log_level": 0})
        numbers = iter(range(2_000))
        for number in islice(numbers, 1_000):
            producer.produce(RAW_TOPIC, value=str(number))
        producer.flush(PROCESS_SECONDS)
        filler = fill(owned.kafka_dir)
        for number in numbers:
            producer.produce(RAW_TOPIC, value=f"{number}".ljust(10_000))
        producer.flush(PROCESS_SECONDS)
        wait_until(lambda: not services.broker_runs(owned), PROCESS_SECONDS)
        filler.unlink()
        Broker(owned.bootstrap_servers).wait_ready(PROCESS_SECONDS)
        found = [(record.value() or b"").decode().rstrip() for record in committed(owned.bootstrap_servers, RAW_TOPIC)]
    finally:
        services.down(owned)
    fault = "the broker's disk is full; records sent and forgotten"
    account.settle("10", fault, sent=map(str, range(2_000)), found=found, control=True)


@pytest.mark.spark
def test_10_the_topic_is_deleted_and_made_anew(
    lake: Lakehouse,
    settings: Settings,
    settings_factory: SettingsFactory,
    fresh_topics: Broker,
    account: Account,
) -> None:
    """Also when the new topic is longer than the old one was, which offsets alone do not show."""
    read = _events(READ)
    produce(settings.bootstrap_servers, read)
    undisturbed = drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    with streaming(settings) as stream:
        wait_until(lambda: len(event_ids(lake)) == READ)
        _delete(fresh_topics)
        assert stream.exit_code() == 1, stream.log
    fresh_topics.ensure_topics(settings)
    for more in (_events(10), _events(2 * READ)):
        produce(settings.bootstrap_servers, more)
        with pytest.raises(BrokerError, match="is another one than Bronze has read"):
            drain(job_in(settings))
    account.settle(
        "10", "the topic is deleted and recreated", sent=[message.key or "" for message in read], found=event_ids(lake)
    )
    assert_sound(lake)
    assert table_hashes(lake) == undisturbed


@pytest.mark.spark
def test_10_control_a_stream_that_does_not_ask(
    spark: SparkSession, settings: Settings, fresh_topics: Broker, account: Account
) -> None:
    """Told not to fail on data loss, Spark goes on at the old topic's offset: what the new one has before it is passed over."""
    seen: list[str] = []
    produce(settings.bootstrap_servers, _events(READ))
    _careless_drain(spark, settings, seen)
    _delete(fresh_topics)
    fresh_topics.ensure_topics(settings)
    new = [Message(RAW_TOPIC, m.value, f"new-{m.key}", 0) for m in _events(READ + UNREAD)]
    produce(settings.bootstrap_servers, new)
    _careless_drain(spark, settings, seen)
    account.settle(
        "10",
        "the topic is deleted and recreated; offsets alone",
        sent=[message.key or "" for message in [*_events(READ), *new]],
        found=seen,
        control=True,
    )


def _events(number: int) -> list[Message]:
    """Events without redeliveries, all in one partition, so that one topic is longer than another or it is not."""
    once: dict[str, Message] = {}
    for message in messages():
        if message.topic == RAW_TOPIC and message.key:
            once.setdefault(message.key, Message(RAW_TOPIC, message.value, message.key, 0))
    return list(islice(once.values(), number))


def _records(settings: Settings) -> int:
    return sum(high for _, high in Broker(settings.bootstrap_servers).offsets(RAW_TOPIC).values())


def _delete(broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for future in admin.delete_topics([RAW_TOPIC], operation_timeout=30).values():
        future.result(timeout=30)
    wait_until(lambda: RAW_TOPIC not in broker.list_topics())


def _careless_drain(spark: SparkSession, settings: Settings, seen: list[str]) -> None:
    def note(records: DataFrame, _: int) -> None:
        seen.extend(row["key"] for row in records.selectExpr("cast(key as string) as key").collect())

    (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", RAW_TOPIC)
        .option("kafka.isolation.level", "read_committed")
        .option("startingOffsets", "earliest")
        .option("failOnDataLoss", "false")
        .load()
        .writeStream.foreachBatch(note)
        .option("checkpointLocation", str(settings.checkpoints / "careless"))
        .trigger(availableNow=True)
        .start()
        .awaitTermination()
    )
