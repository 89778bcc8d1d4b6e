"""Bronze under fire: kills at every boundary, a dying broker, a damaged or missing checkpoint, two writers.

The oracle is the list of ids that were sent. Two controls are seen to fail: a plain ``foreachBatch`` append, the obvious way to
write this job, doubles in the window between commit and checkpoint; two writers without the lock double too.
"""

import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from producer.topics import RAW_EVENTS as RAW_TOPIC
from wikistream_assets.embedded import services
from wikistream_assets.jobs import bronze_batch
from wikistream_assets.jobs.bronze_stream import drain
from wikistream_assets.jobs.failpoints import (
    BRONZE_AFTER_CHECKPOINT,
    BRONZE_AFTER_COMMIT,
    BRONZE_AFTER_DEAD_LETTERS,
    BRONZE_AFTER_OFFSETS,
    BRONZE_BEFORE_COMMIT,
)
from wikistream_assets.resources.broker import Broker
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.settings import Settings
from wikistream_assets.tables import RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.jobs.bronze_lakes import assert_sound, batches, event_ids, streaming, totals
from wikistream_assets_tests.kafka_records import Message, event_message, judged, produce
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.faults, pytest.mark.spark, pytest.mark.kafka]

EVENTS = 2_000
LETTERS = 40
BATCH_RECORDS = 800


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, bronze_batch_records=BATCH_RECORDS)


def sent_ids() -> list[str]:
    return [f"id-{number:05d}" for number in range(EVENTS)]


def messages() -> Iterator[Message]:
    """Events over a few hours, each tenth sent twice, with malformed lines in between."""
    sample = line("timestamp", meta_dt="2026-02-03T0HOUR:00:00Z")
    letters = iter(range(LETTERS))
    for number, event_id in enumerate(sent_ids()):
        message = event_message(event_id, sample.replace(ID, event_id).replace("HOUR", str(number // 500)))
        yield message
        if number % 10 == 0:
            yield message
        if number % (EVENTS // LETTERS) == 0:
            yield from judged([b"{malformed %d" % next(letters)])


def assert_all_there_once(lake: Lakehouse, letters: int = LETTERS) -> None:
    assert event_ids(lake) == sent_ids()
    assert totals(lake) == {
        "records": EVENTS + EVENTS // 10 + letters,
        "rows": EVENTS,
        "dead_letters": letters,
        "duplicates": EVENTS // 10,
    }
    assert_sound(lake)


def run_until_killed(settings: Settings, failpoint: str) -> None:
    with streaming(settings, "--once", WIKISTREAM_FAILPOINT=failpoint) as stream:
        assert stream.exit_code() == -signal.SIGKILL, stream.log


@pytest.mark.parametrize(
    ("failpoint", "committed"),
    [
        (BRONZE_AFTER_OFFSETS, 0),
        (BRONZE_AFTER_DEAD_LETTERS, 0),
        (f"{BRONZE_BEFORE_COMMIT}@2", 1),
        (f"{BRONZE_AFTER_COMMIT}@2", 2),
        (BRONZE_AFTER_CHECKPOINT, 1),
    ],
)
def test_killed_at_each_boundary_loses_and_doubles_nothing(
    spark: SparkSession, lake: Lakehouse, settings: Settings, failpoint: str, committed: int
) -> None:
    produce(settings.bootstrap_servers, messages())
    run_until_killed(settings, failpoint)
    assert len(batches(lake)) == committed
    report = drain(spark, lake, settings)
    assert report.batches > 0
    assert_all_there_once(lake)


def test_killed_between_data_files_and_commit(spark: SparkSession, lake: Lakehouse, settings: Settings) -> None:
    """The catalog is held until the data files are there: the kill falls between them and the commit, not near it."""
    # without dead letters, whose commit comes first and would be the one that is held
    produce(settings.bootstrap_servers, (message for message in messages() if message.topic == RAW_TOPIC))
    files = settings.warehouse / "bronze" / "raw_events" / "data"
    with (
        streaming(settings, "--once") as stream,
        closing(sqlite3.connect(settings.catalog_db, isolation_level=None)) as catalog,
    ):
        catalog.execute("BEGIN IMMEDIATE")
        wait_until(lambda: _parquet(files))
        stream.signal(signal.SIGKILL)
        stream.exit_code()
        catalog.execute("ROLLBACK")
    assert batches(lake) == []
    drain(spark, lake, settings)
    assert_all_there_once(lake, letters=0)


def test_the_jvm_dies_with_its_parent_and_its_lock_with_it(lake: Lakehouse, settings: Settings) -> None:
    children: list[psutil.Process] = []

    def owns_the_lock() -> bool:
        children[:] = psutil.Process(stream.process.pid).children(recursive=True)
        lock = f"{RAW_EVENTS.identifier}.jvm.lock"
        with suppress(psutil.Error):  # a helper of the start that has just ended
            return any(opened.path.endswith(lock) for child in children for opened in child.open_files())
        return False

    with streaming(settings) as stream:
        wait_until(owns_the_lock)
        stream.signal(signal.SIGKILL)
        stream.exit_code()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []


@pytest.mark.parametrize("damage", ["commit removed", "checkpoint deleted", "offsets of another run"])
def test_the_checkpoint_does_not_matter(spark: SparkSession, lake: Lakehouse, settings: Settings, damage: str) -> None:
    produce(settings.bootstrap_servers, messages())
    drain(spark, lake, settings)
    checkpoint = settings.checkpoints / "bronze"
    commits = checkpoint / "commits"
    last = max(int(path.name) for path in commits.glob("[0-9]*"))
    assert last >= 2
    if damage == "commit removed":
        for name in (f"{last}", f".{last}.crc"):
            (commits / name).unlink()
    elif damage == "checkpoint deleted":
        shutil.rmtree(checkpoint)
    else:
        for name in ("commits", "offsets"):
            for path in (checkpoint / name).glob("[1-9]*"):
                path.unlink()
    before = lake.head(RAW_EVENTS)
    report = drain(spark, lake, settings)
    assert (report.records, report.batches) == (0, 0)
    assert lake.head(RAW_EVENTS) == before
    assert_all_there_once(lake)


def test_a_batch_that_comes_again_is_not_counted(spark: SparkSession, lake: Lakehouse, settings: Settings) -> None:
    """What a replay by Spark itself would do: the same records handed to the batch again, whole and with new ones behind."""
    produce(settings.bootstrap_servers, messages())
    drain(spark, lake, settings)
    before = lake.head(RAW_EVENTS)
    everything = _kafka(spark, settings)
    bronze_batch.BatchWriter(lake, settings).write(everything, 0)
    assert lake.head(RAW_EVENTS) == before
    produce(settings.bootstrap_servers, [event_message("id-new", line().replace(ID, "id-new"))])
    bronze_batch.BatchWriter(lake, settings).write(_kafka(spark, settings), 0)
    assert batches(lake)[-1].counts is not None
    assert batches(lake)[-1].counts["batch"] == {"records": 1, "rows": 1, "dead_letters": 0, "duplicates": 0}
    assert_sound(lake)


def test_control_a_plain_append_doubles_in_the_same_window(
    spark: SparkSession, lake: Lakehouse, settings: Settings
) -> None:
    """The control of all cases above: committed, then the checkpoint's last commit is lost, then the batch comes again."""
    produce(settings.bootstrap_servers, messages())
    _plain_drain(spark, settings)
    assert Counter(event_ids(lake)).most_common(1)[0][1] == 2  # redeliveries, which a plain append keeps
    once = len(event_ids(lake))
    commits = settings.checkpoints / "plain" / "commits"
    last = max(int(path.name) for path in commits.glob("[0-9]*"))
    for name in (f"{last}", f".{last}.crc"):
        (commits / name).unlink()
    _plain_drain(spark, settings)
    assert len(event_ids(lake)) > once


def test_control_without_the_lock_two_writers_double(
    spark: SparkSession, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iceberg lets both append: two writers that start from the same position both write the same events."""
    produce(settings.bootstrap_servers, messages())
    first, second = (bronze_batch.BatchWriter(lake, settings) for _ in range(2))
    first.write(_kafka(spark, settings), 0)
    # the second one has looked for known events before the first committed
    monkeypatch.setattr(bronze_batch, "_known_ids", lambda parsed, _: parsed.select("event_id").limit(0))
    second.write(_kafka(spark, settings), 0)
    assert len(event_ids(lake)) == 2 * EVENTS


def test_two_writers_at_once(spark: SparkSession, lake: Lakehouse, settings: Settings) -> None:
    """Two processes are told to stream: one does, the other is refused; a drain beside them waits."""
    with streaming(settings) as first, streaming(settings) as second:
        both = (first, second)
        wait_until(lambda: any(stream.process.poll() is not None for stream in both))
        (refused,) = (stream for stream in both if stream.process.poll() is not None)
        (running,) = (stream for stream in both if stream is not refused)
        assert refused.exit_code() == 1
        assert f"is being written by process {running.process.pid}" in refused.log
        produce(settings.bootstrap_servers, messages())
        assert drain(spark, lake, settings).waited
        running.signal(signal.SIGTERM)
        assert running.exit_code() == 0, running.log
    assert_all_there_once(lake)


def test_the_broker_is_killed_while_bronze_drains(settings_factory: SettingsFactory) -> None:
    home = settings_factory(bronze_batch_records=400)
    services.up(home)
    try:
        Broker(home.bootstrap_servers).ensure_topics(home)
        produce(home.bootstrap_servers, messages())
        lake = Lakehouse.local(home)
        with streaming(home, "--once") as stream:
            for kill in range(3):
                wait_until(lambda seen=kill: len(batches(lake)) > seen or stream.process.poll() is not None)
                _kill_broker(home)
            if stream.exit_code() != 0:  # the broker was away for longer than Spark waits: run again, as the text says
                assert "start it again to go on" in stream.log or "does not answer" in stream.log
                with streaming(home, "--once") as again:
                    assert again.exit_code() == 0, again.log
        assert_all_there_once(lake)
    finally:
        services.down(home)


def _kill_broker(settings: Settings) -> None:
    (connection,) = (
        connection
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == settings.kafka_port
    )
    psutil.Process(connection.pid).send_signal(signal.SIGKILL)
    _wait_for_broker(settings)


def _wait_for_broker(settings: Settings) -> None:
    Broker(settings.bootstrap_servers).wait_ready(timeout=90)


def _parquet(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*.parquet") if path.stat().st_size > 0] if folder.exists() else []


def _kafka(spark: SparkSession, settings: Settings) -> DataFrame:
    """Everything that is committed in both topics, as a batch."""
    return (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", "raw-events,dlq-events")
        .option("kafka.isolation.level", "read_committed")
        .load()
    )


def _plain_drain(spark: SparkSession, settings: Settings) -> None:
    """The obvious job: parse and append in ``foreachBatch``, the checkpoint as the only memory."""

    def append(records: DataFrame, _: int) -> None:
        event = sf.get_json_object(sf.col("value").cast("string"), "$.id").alias("event_id")
        records.select(event, "partition", "offset").createOrReplaceTempView("plain")
        columns = ", ".join(
            {"event_id": "event_id", "kafka_partition": "partition", "kafka_offset": "offset"}.get(column.name)
            or f"CAST(NULL AS {column.type})"
            for column in RAW_EVENTS.columns
        )
        records.sparkSession.sql(f"INSERT INTO wikistream.{RAW_EVENTS.identifier} SELECT {columns} FROM plain")

    (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", RAW_TOPIC)
        .option("kafka.isolation.level", "read_committed")
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", BATCH_RECORDS)
        .load()
        .writeStream.foreachBatch(append)
        .option("checkpointLocation", str(settings.checkpoints / "plain"))
        .trigger(availableNow=True)
        .start()
        .awaitTermination()
    )
