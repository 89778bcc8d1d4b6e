"""Bronze's streaming job on a real broker, a real Spark and a real lake."""

import json
import shutil
import signal
import threading
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql import DataFrame, SparkSession

from producer.eventstreams.generator import Generator
from producer.topics import EVENT_TOPICS
from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.embedded.spark import lock_in_jvm
from wikistream_assets.engine import batch, ingest
from wikistream_assets.engine.ingest import drain, run_forever, starting_offsets
from wikistream_assets.exceptions import BrokerError, WriterBusyError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.lake.state import Version
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets_tests import oracle
from wikistream_assets_tests.conftest import SettingsFactory, free_port, wait_until
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, batches, event_ids, streaming, table_rows, totals
from wikistream_assets_tests.kafka_records import Message, event_message, judged, open_transaction, produce
from wikistream_assets_tests.metrics.scrape import scrape
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.spark, pytest.mark.kafka]


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(
        bootstrap_servers=fresh_topics.bootstrap_servers, bronze_trigger_seconds=0.2, stream_metrics_port=free_port()
    )


def edit(number: int, partition: int = -1, **fields: object) -> Message:
    event_id = f"id-{number:05d}"
    return event_message(event_id, line(**fields).replace(ID, event_id), partition)


def test_nothing_to_read_commits_nothing(lake: Lakehouse, settings: Settings) -> None:
    before = lake.state(RAW_EVENTS).head()
    report = drain(job_in(settings))
    assert (report.records, report.batches, report.position) == (0, 0, {})
    assert lake.state(RAW_EVENTS).head() == before


def test_redelivery_in_every_way_appears_once(lake: Lakehouse, settings: Settings) -> None:
    servers = settings.bootstrap_servers
    # in the same batch, in one partition and across partitions: the first place wins
    produce(servers, [edit(1, 1), edit(2, 0), edit(1, 1), edit(1, 2), edit(3, 2)])
    first = drain(job_in(settings))
    assert (first.records, first.rows, first.duplicates, first.dead_letters) == (5, 3, 2, 0)
    places = {row["event_id"]: (row["kafka_partition"], row["kafka_offset"]) for row in table_rows(lake, RAW_EVENTS)}
    assert places == {"id-00001": (1, 0), "id-00002": (0, 0), "id-00003": (2, 1)}
    # in another batch, after a restart, with the checkpoint gone
    shutil.rmtree(settings.checkpoints)
    produce(servers, [edit(3, 0), edit(4, 0)])
    second = drain(job_in(settings))
    assert (second.records, second.rows, second.duplicates) == (2, 1, 1)
    # nothing but duplicates: a snapshot of no rows that carries position and counts
    rows_before = table_rows(lake, RAW_EVENTS)
    produce(servers, [edit(number) for number in (1, 2, 3, 4)])
    third = drain(job_in(settings))
    assert (third.records, third.rows, third.duplicates, third.batches) == (4, 0, 4, 1)
    assert sorted(map(str, table_rows(lake, RAW_EVENTS))) == sorted(map(str, rows_before))
    # nothing at all: no snapshot
    fourth = drain(job_in(settings))
    assert (fourth.records, fourth.batches, fourth.position) == (0, 0, third.position)
    assert totals(lake) == {"records": 11, "rows": 4, "dead_letters": 0, "duplicates": 7}
    assert_sound(lake)


def test_dead_letters_of_both_topics(lake: Lakehouse, settings: Settings) -> None:
    servers = settings.bootstrap_servers
    malformed = [f'{{"broken": {number}'.encode() for number in range(100)]
    produce(servers, judged(malformed))
    only_letters = drain(job_in(settings))
    assert (only_letters.records, only_letters.rows, only_letters.dead_letters, only_letters.batches) == (
        100,
        0,
        100,
        1,
    )
    assert not any(only_letters.position["raw-events"].values())
    produce(servers, [edit(1), Message("raw-events", b"?", partition=1), *judged([b"["])])
    both = drain(job_in(settings))
    assert (both.records, both.rows, both.dead_letters) == (3, 1, 2)
    letters = table_rows(lake, DEAD_LETTER)
    reasons = [(row["kafka_topic"], row["reason"]) for row in letters]
    assert reasons.count(("dlq-events", "not_json")) == 101
    assert reasons.count(("raw-events", "unreadable_envelope")) == 1
    newest = lake.state(DEAD_LETTER).newest_position()
    assert newest is not None
    assert newest.position == both.position
    assert_sound(lake)


def test_many_batches_add_up_to_the_generators_truth(
    lake: Lakehouse, settings_factory: SettingsFactory, settings: Settings, spark: SparkSession
) -> None:
    source = Generator(events=6_000, hours=5.0, redelivered=0.02, malformed=0.01)
    ledger: set[str] = set()
    truth = source.manifest(domains=None, ledger=ledger)
    produce(settings.bootstrap_servers, judged([line.data for line in source.lines()]))
    small = settings.model_copy(update={"bronze_batch_records": 1_500})
    report = drain(job_in(small))
    assert report.batches == len(batches(lake)) >= 4
    assert set(event_ids(lake)) == ledger
    assert totals(lake) == {
        "records": truth.unique + truth.redelivered + truth.dead_lettered,
        "rows": truth.unique,
        "dead_letters": truth.dead_lettered,
        "duplicates": truth.redelivered,
    }
    assert report.position == batches(lake)[-1].position
    assert_sound(lake)
    _assert_hours_are_pruned(spark, lake)


def _assert_hours_are_pruned(spark: SparkSession, lake: Lakehouse) -> None:
    """A filter on the hour plans the files of that hour alone."""
    hours = sorted(
        {(row["event_date"], row["event_hour"]) for row in table_rows(lake, RAW_EVENTS, "event_date", "event_hour")}
    )
    assert len(hours) >= 5
    date, hour = hours[1]
    bronze = read_table(spark, RAW_EVENTS)
    one_hour = bronze.where((bronze.event_date == date) & (bronze.event_hour == hour))
    everything, some = _files_read(bronze), _files_read(one_hour)
    assert 0 < some <= everything / len(hours) * 2
    # and so does the look for known events, which reads the hours of its batch alone, and of these the files of its time
    times = [
        round(row["event_timestamp"].timestamp() * 1e6)
        for row in table_rows(lake, RAW_EVENTS, "event_timestamp", "event_date", "event_hour")
        if (row["event_date"], row["event_hour"]) == (date, hour)
    ]
    assert _files_read(batch._known_ids(RAW_EVENTS, bronze, {(date, hour): (min(times), max(times))})) == some
    assert 0 < _files_read(batch._known_ids(RAW_EVENTS, bronze, {(date, hour): (min(times), min(times))})) <= some
    assert _files_read(batch._known_ids(RAW_EVENTS, bronze, {(date, hour): (min(times) - 9, min(times) - 1)})) == 0
    assert _files_read(batch._known_ids(RAW_EVENTS, bronze, {})) == 0


def test_a_batch_may_touch_very_many_hours(lake: Lakehouse, settings: Settings) -> None:
    """A hostile source spreads its events over the years; what comes again is still known."""
    began = datetime(2002, 1, 1, tzinfo=UTC)
    events = [
        {
            "meta": {
                "id": f"id-{number}",
                "domain": "en.wikipedia.org",
                "dt": (began + timedelta(hours=37 * number)).isoformat(),
            }
        }
        | {"type": "edit"}
        for number in range(batch._MANY_HOURS + 50)
    ]
    lines = [json.dumps(event).encode() for event in events]
    for _ in range(2):
        produce(settings.bootstrap_servers, judged(lines))
        drain(job_in(settings))
    assert sorted(event_ids(lake)) == sorted(event["meta"]["id"] for event in events)
    assert totals(lake)["duplicates"] == len(events)


def _files_read(rows: DataFrame) -> int:
    """Data files that Iceberg planned for the rows, by its own scan metric."""
    rows.collect()
    leaves = rows._jdf.queryExecution().executedPlan().collectLeaves()
    metrics = leaves.apply(0).metrics()
    return int(metrics.apply("resultDataFiles").value()) if metrics.contains("resultDataFiles") else 0


def test_the_table_is_what_the_contract_says(lake: Lakehouse) -> None:
    table = lake.table(RAW_EVENTS)
    arrow = {"string": "string", "int": "int", "long": "long", "boolean": "boolean", "timestamp": "timestamptz"}
    assert [(field.name, str(field.field_type), field.doc) for field in table.schema().fields] == [
        (column.name, arrow[column.type], column.comment) for column in RAW_EVENTS.columns
    ]
    assert [field.name for field in table.spec().fields] == ["event_date", "event_hour"]
    assert {
        "write.format.default": "parquet",
        "write.parquet.compression-codec": "zstd",
        "write.target-file-size-bytes": str(256 * 1024 * 1024),
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "10",
        "write.merge.mode": "merge-on-read",
    }.items() <= table.properties.items()
    assert table.format_version == 2


def test_two_writers_are_refused(lake: Lakehouse, settings: Settings) -> None:
    with writer_lock(settings, RAW_EVENTS.identifier), pytest.raises(WriterBusyError, match="being written by process"):
        run_forever(job_in(settings), threading.Event())
    produce(settings.bootstrap_servers, [edit(1)])
    with writer_lock(settings, RAW_EVENTS.identifier), pytest.raises(WriterBusyError, match="in vain"):
        drain(job_in(settings), timeout_seconds=1.0)
    assert event_ids(lake) == []


def test_a_stream_slows_down_before_its_snapshots_are_too_many_and_can_still_be_stopped(
    spark: SparkSession, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = {number: ingest.pause_for(number) for number in (5_000, 5_001, 10_000, 20_000, 1_000_000)}
    assert pauses == {5_000: 0, 5_001: 5_001 / 500, 10_000: 20, 20_000: 30, 1_000_000: 30}
    monkeypatch.setattr(ingest, "pause_for", lambda snapshots: 3_600.0 if snapshots >= 2 else 0.0)
    stop = threading.Event()
    stream = threading.Thread(target=run_forever, args=(job_in(settings), stop))
    produce(settings.bootstrap_servers, [edit(1)])  # first: the number of snapshots is looked at after batch 0
    stream.start()
    try:
        wait_until(lambda: len(batches(lake)) == 1)
        produce(settings.bootstrap_servers, [edit(2)])
        stream.join(10 * settings.bronze_trigger_seconds)
        assert len(batches(lake)) == 1, "it waits"
    finally:
        stop.set()
        stream.join(60)
    assert not stream.is_alive()
    assert drain(job_in(settings)).rows == 1
    assert_sound(lake)


def test_a_lock_in_the_jvm_is_held_once(
    spark: SparkSession, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wikistream_assets.embedded.spark._ORPHAN_SECONDS", 0.5)
    path = settings.root / "run" / "test.lock"
    with lock_in_jvm(spark, path), pytest.raises(WriterBusyError), lock_in_jvm(spark, path):
        pass
    with lock_in_jvm(spark, path):
        pass


def test_drain_waits_for_the_stream_that_owns_the_table(lake: Lakehouse, settings: Settings) -> None:
    produce(settings.bootstrap_servers, [edit(number) for number in range(200)])
    with streaming(settings) as stream:
        wait_until(lambda: lake.state(RAW_EVENTS).newest_position() is not None)
        produce(settings.bootstrap_servers, [edit(number) for number in range(100, 400)])
        report = drain(job_in(settings))
        assert report.waited
        assert (totals(lake)["records"], totals(lake)["rows"], totals(lake)["duplicates"]) == (500, 400, 100)
        wait_until(lambda: scrape(settings.stream_metrics_port)["wikistream_stream_records_total"] == 500)
        _assert_metrics(scrape(settings.stream_metrics_port), batches(lake))
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    produce(settings.bootstrap_servers, [edit(number) for number in range(400, 410)])
    assert drain(job_in(settings)).rows == 10
    assert_sound(lake)


@pytest.mark.usefixtures("hang_ups_count")
def test_a_drain_that_comes_first_costs_the_stream_no_second_jvm(lake: Lakehouse, settings: Settings) -> None:
    produce(settings.bootstrap_servers, [edit(1)])
    with streaming(settings) as stream:
        wait_until(lambda: stream.jvms() != [])
        with writer_lock(settings, RAW_EVENTS.identifier):
            wait_until(lambda: "being written by process" in stream.log)
            (jvm,) = stream.jvms()
            assert event_ids(lake) == []
        wait_until(lambda: len(event_ids(lake)) == 1)
        assert stream.jvms() == [jvm]
        stream.signal(signal.SIGHUP)
        assert stream.exit_code() == 0, stream.log
    assert_sound(lake)


def _assert_metrics(figures: dict[str, float], committed: list[Version]) -> None:
    names = ("records", "rows", "dead_letters", "duplicates")
    assert [figures[f"wikistream_stream_{name}_total"] for name in names] == [500, 400, 0, 100]
    assert figures["wikistream_stream_batch_seconds_count"] == len(committed)
    assert figures['wikistream_stream_event_lag_seconds_bucket{le="+Inf"}'] == 500
    assert figures['wikistream_stream_event_lag_seconds_bucket{le="3600.0"}'] == 0, "the samples are of another year"
    newest = figures["wikistream_stream_last_commit_timestamp_seconds"]
    assert abs(newest - committed[-1].timestamp_ms / 1000) < 60


def test_starting_offsets_come_from_the_position_and_refuse_a_gap() -> None:
    def starts(position: int, low: int, high: int) -> int:
        return starting_offsets({"raw-events": {"0": position}}, {"raw-events": {0: (low, high)}})["raw-events"]["0"]

    assert starts(position=7, low=0, high=9) == 7
    assert starts(position=9, low=9, high=9) == 9
    assert starts(position=8, low=9, high=9) == 9  # the expired record was the transaction's marker
    assert starting_offsets({}, {"raw-events": {0: (3, 9)}}) == {"raw-events": {"0": -2}}
    with pytest.raises(BrokerError, match="2 records expired unread"):
        starts(position=7, low=9, high=12)
    with pytest.raises(BrokerError, match="deleted or the broker is another one"):
        starts(position=10, low=0, high=9)


def test_aborted_records_that_expire_behind_a_batch_are_no_loss(lake: Lakehouse, settings: Settings) -> None:
    """A producer was killed while it sent a dead letter, and no other one came for as long as the broker keeps records."""
    servers = settings.bootstrap_servers
    produce(servers, [Message("dlq-events", b"?", partition=0)])
    drain(job_in(settings))
    aborted = open_transaction(servers)
    for _ in range(10):
        aborted.produce("dlq-events", b"?", partition=0)
    aborted.flush(30)
    aborted.abort_transaction(30)
    produce(servers, [edit(1)])
    report = drain(job_in(settings))
    assert (report.records, report.rows) == (1, 1)
    assert report.position == Broker(servers).ends(EVENT_TOPICS)
    admin = AdminClient({"bootstrap.servers": servers})
    for deleted in admin.delete_records([TopicPartition("dlq-events", 0, OFFSET_END)]).values():
        deleted.result(30)
    produce(servers, [edit(2)])
    assert drain(job_in(settings)).rows == 1
    assert_sound(lake)


def test_a_topic_made_anew_is_refused(lake: Lakehouse, settings: Settings, fresh_topics: Broker) -> None:
    produce(settings.bootstrap_servers, [edit(number, 0) for number in range(5)])
    drain(job_in(settings))
    other = lake.state(RAW_EVENTS).newest_position()
    assert other is not None
    ahead = {"raw-events": {"0": 5_000}}
    lake.append(
        RAW_EVENTS, properties={"wikistream.position": json.dumps(ahead), "wikistream.counts": json.dumps(other.counts)}
    )
    with pytest.raises(BrokerError, match="deleted or the broker is another one"):
        drain(job_in(settings))


def test_an_unreachable_broker_is_one_line(lake: Lakehouse, settings_factory: SettingsFactory) -> None:
    with pytest.raises(BrokerError, match="does not answer"):
        drain(job_in(settings_factory()))


@pytest.mark.real_data
def test_a_real_capture_lands_once(lake: Lakehouse, settings: Settings) -> None:
    folder = settings.data / "events"
    if not folder.exists():
        pytest.skip(f"no public captures at {settings.data} (WIKISTREAM_DATA)")
    # one after the other, as two drains; they overlap in 1,067 events
    lines: list[str] = []
    for name in ("recentchange_2021-10-07_08_es_en_de.jsonl.gz", "recentchange_2021-10-07_08_es_global.jsonl.gz"):
        capture = oracle.read_capture(folder / name)
        lines += capture
        produce(settings.bootstrap_servers, judged(capture))
        drain(job_in(settings))
    expected = oracle.bronze_rows(lines, domains=None)
    rows = table_rows(lake, RAW_EVENTS)
    oracle.assert_same_rows([{name: row[name] for name in expected[0]} for row in rows], expected, key=["event_id"])
    assert totals(lake)["records"] == len(lines)
    assert totals(lake)["rows"] == len(expected)
    assert_sound(lake)
