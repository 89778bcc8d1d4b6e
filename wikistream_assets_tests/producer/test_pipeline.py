"""The whole producer, from the project's EventStreams server to a real broker, read back with read_committed."""

import json
import logging
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from producer import service
from producer.cursor import Cursor
from producer.eventstreams import capture
from producer.eventstreams.generator import Generator
from producer.eventstreams.recording import Captured, Recording, Synthetic, offset_id
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.exceptions import FencedError, KafkaError, SourceError
from producer.failpoints import Failpoint
from producer.pipeline import Pipeline, Report, Stop
from producer.settings import ProducerSettings
from producer.sink import Record, TransactionalSink, producer_config, read_cursor
from producer.topics import EVENT_TOPICS, RAW_EVENTS
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import free_port
from wikistream_assets_tests.producer.kafka_reader import landed

pytestmark = pytest.mark.kafka

GENERATOR = Generator(events=6_000, malformed=0.005)


@pytest.fixture
def settings(fresh_topics: Broker) -> ProducerSettings:
    return ProducerSettings(
        bootstrap_servers=fresh_topics.bootstrap_servers,
        producer_backoff_seconds=0.01,
        producer_backoff_max_seconds=0.05,
    )


@contextmanager
def serving(recording: Recording, behaviour: Behaviour | None = None) -> Iterator[EventStreamsServer]:
    with EventStreamsServer(recording, behaviour) as server:
        yield server


def produce(
    server: EventStreamsServer, settings: ProducerSettings, *, max_events: int | None = None, until_end: bool = True
) -> Report:
    recording = server.recording
    job = service.Job(server.url, recording.identity, recording.mode, until_end=until_end, max_events=max_events)
    return service.run(job, settings, Stop())


def test_everything_arrives_once_and_adds_up(settings: ProducerSettings) -> None:
    with serving(Synthetic(GENERATOR)) as server:
        report = produce(server, settings)
    ledger: set[str] = set()
    truth = GENERATOR.manifest(ledger=ledger)
    found = landed(settings.bootstrap_servers)
    lines = list(GENERATOR.lines())
    assert set(found.ids) == ledger
    assert len(found.ids) == truth.unique + truth.redelivered
    assert found.reasons == truth.malformed
    assert Counter(found.originals) == Counter(line.data for line in lines if line.defect)
    assert Counter(found.data) == Counter(
        line.data for line in lines if line.event_id and line.domain in FOLLOWED_DOMAINS
    )
    assert report.outcome == "end"
    assert report.as_dict()["total"] == {
        "received": 6_000,
        "accepted": truth.unique + truth.redelivered,
        "filtered": truth.filtered,
        "canary": truth.canary,
        "dead_lettered": dict(truth.malformed),
    }
    assert truth.lines == truth.unique + truth.redelivered + truth.dead_lettered + truth.canary + truth.filtered
    assert all(len(partitions) == 1 for partitions in found.partitions_of.values())
    assert {(p["environment"], p["source_mode"], p["producer_version"]) for p in found.processing} == {
        ("local", "synthetic", "0.2.0")
    }
    assert all(datetime.fromisoformat(p["ingested_at"]).tzinfo for p in found.processing)


def test_ten_malformed_of_a_thousand(settings: ProducerSettings) -> None:
    generator = Generator(events=1_000, malformed=0.01, redelivered=0, canary=0)
    settings = settings.model_copy(update={"domains": "*"})
    with serving(Synthetic(generator)) as server:
        produce(server, settings)
    found = landed(settings.bootstrap_servers)
    assert len(found.ids) == len(set(found.ids)) == 990
    assert found.reasons == generator.manifest().malformed
    assert found.reasons.total() == 10
    assert len(found.reasons) == 9


def test_a_second_run_finds_nothing_new(settings: ProducerSettings, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Synthetic(GENERATOR)) as server:
        first = produce(server, settings)
        with caplog.at_level(logging.INFO):
            second = produce(server, settings)
    assert second.outcome == "end"
    assert second.run.received == 0
    assert second.cursor.counters == first.cursor.counters
    assert "nothing new" in caplog.text


def test_a_run_of_so_many_events_and_on_from_there(settings: ProducerSettings) -> None:
    with serving(Synthetic(GENERATOR)) as server:
        first = produce(server, settings, max_events=1_234)
        second = produce(server, settings)
    assert (first.outcome, first.run.received) == ("max-events", 1_234)
    assert first.cursor.position == offset_id(1_233).decode()
    assert second.run.received == 6_000 - 1_234
    assert second.cursor.counters.received == 6_000
    assert set(landed(settings.bootstrap_servers).ids) == _ledger(GENERATOR)


def test_a_position_is_never_given_to_another_source(settings: ProducerSettings) -> None:
    other = replace(GENERATOR, seed=8, events=500)
    with serving(Synthetic(GENERATOR)) as server:
        produce(server, settings, max_events=1_000)
    with serving(Synthetic(other)) as server:
        report = produce(server, settings)
        assert "Last-Event-ID" not in server.requests[0]
    assert report.run.received == 500
    kept = read_cursor(settings.bootstrap_servers, GENERATOR.identity)
    assert kept is not None
    assert kept.counters.received == 1_000


def test_a_gap_is_told_to_everybody_downstream(settings: ProducerSettings) -> None:
    with serving(Synthetic(GENERATOR)) as server:
        produce(server, settings, max_events=100)
        server.behaviour = Behaviour(retained_from=2_500)
        report = produce(server, settings)
    cursor = read_cursor(settings.bootstrap_servers, GENERATOR.identity)
    assert cursor is not None
    assert (cursor.gaps_total, len(cursor.gaps)) == (1, 1)
    assert cursor.gaps[0].gap.after == offset_id(99).decode()
    assert cursor.gaps[0].gap.before == offset_id(2_500).decode()
    assert report.as_dict()["gaps_total"] == 1
    assert cursor.counters.received == 100 + 3_500


def test_bytes_that_are_no_utf8_reach_the_dead_letter_unchanged(settings: ProducerSettings, tmp_path: Path) -> None:
    bad = b'{"meta":{"id":"a","domain":"en.wikipedia.org"},"type":"edit","title":"\xff\xc3("}'
    path = tmp_path / "bad.jsonl"
    path.write_bytes(bad + b"\n")
    with serving(Captured(path, capture.inspect(path).sha256)) as server:
        produce(server, settings)
    found = landed(settings.bootstrap_servers)
    assert (found.ids, found.originals, found.reasons) == ([], [bad], Counter(not_json=1))


def test_metrics_show_exactly_what_was_fed(settings: ProducerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    scraped: list[str] = []
    whole_run = Pipeline.run

    def run_and_scrape(self: Pipeline) -> Report:
        report = whole_run(self)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            scraped.append(response.read().decode())
        return report

    monkeypatch.setattr(Pipeline, "run", run_and_scrape)
    with serving(Synthetic(GENERATOR)) as server:
        produce(server, settings.model_copy(update={"producer_metrics_port": port}))
    truth = GENERATOR.manifest()
    figures = dict(line.rsplit(" ", 1) for line in scraped[0].splitlines() if not line.startswith("#"))
    prefix = "wikistream_producer_"
    assert float(figures[f"{prefix}events_received_total"]) == 6_000
    assert float(figures[f"{prefix}events_accepted_total"]) == truth.unique + truth.redelivered
    assert float(figures[f"{prefix}events_filtered_total"]) == truth.filtered
    assert float(figures[f"{prefix}canaries_total"]) == truth.canary
    assert float(figures[f"{prefix}gaps_total"]) == 0
    for reason, count in truth.malformed.items():
        assert float(figures[f'{prefix}dead_letters_total{{reason="{reason}"}}']) == count
    broker = Broker(settings.bootstrap_servers)
    sizes = [len(record.value or b"") for topic in EVENT_TOPICS for record in broker.tail(topic, 6_000)]
    assert float(figures[f"{prefix}record_bytes_count"]) == len(sizes) > 0
    assert float(figures[f"{prefix}record_bytes_sum"]) == sum(sizes)
    assert float(figures[f"{prefix}connections_total"]) == 1
    assert float(figures[f"{prefix}transactions_aborted_total"]) == 0


def test_what_was_read_before_the_stream_failed_is_kept(settings: ProducerSettings) -> None:
    with serving(Synthetic(GENERATOR)) as server, pytest.raises(SourceError, match="HTTP 204"):
        produce(server, settings, until_end=False)
    cursor = read_cursor(settings.bootstrap_servers, GENERATOR.identity)
    assert cursor is not None
    assert cursor.counters.received == 6_000


def test_large_events_within_the_limit_pass(settings: ProducerSettings, tmp_path: Path) -> None:
    line = next(line.data for line in GENERATOR.lines() if line.event_id and line.domain in FOLLOWED_DOMAINS)
    document = json.loads(line)
    document["comment"] = '"' * 490_000  # quoted twice it takes four times the room
    big = json.dumps(document, ensure_ascii=False).encode()
    assert 980_000 < len(big) < settings.max_event_bytes
    path = tmp_path / "big.jsonl"
    path.write_bytes(big + b"\n" + line + b"\n")
    with serving(Captured(path, capture.inspect(path).sha256)) as server:
        produce(server, settings)
    assert sorted(landed(settings.bootstrap_servers).data, key=len) == [line, big]


def test_missing_topics_are_one_line_of_error(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.sink.SSE_CURSOR", "no-such-topic")
    with pytest.raises(KafkaError, match="wikistream up"):
        read_cursor(broker.bootstrap_servers, "x")


def test_a_fenced_producer_says_so_whenever_it_learns_it(
    settings: ProducerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two records the client knows only that it is broken, and a broker in good health would be blamed."""
    older, _newer = (TransactionalSink(settings.bootstrap_servers, "fenced", Failpoint("")) for _ in range(2))
    hand_over = older._produce

    def produce_slowly(record: Record, give_up: Callable[[], bool]) -> None:
        hand_over(record, give_up)
        time.sleep(2)  # meanwhile the client's own threads hear of it

    monkeypatch.setattr(older, "_produce", produce_slowly)
    with pytest.raises(FencedError, match="a newer producer of this source has taken over"):
        older.commit([Record(RAW_EVENTS, b"key", b"{}")] * 2, Cursor(), lambda: False)
    assert landed(settings.bootstrap_servers).ids == []


def test_kafka_client_is_configured_for_exactly_once() -> None:
    config = producer_config("127.0.0.1:1", "some source")
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True
    assert config["compression.type"] == "zstd"
    assert config["linger.ms"] == 50
    assert config["transactional.id"] == producer_config("elsewhere:1", "some source")["transactional.id"]
    assert config["transactional.id"] != producer_config("127.0.0.1:1", "another source")["transactional.id"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["recentchange_2021-08-27_1950.sse.gz", "recentchange_2021-08-27_1950_sse.jsonl.gz"])
def test_1950_real_events_of_1950_byte_for_byte(settings: ProducerSettings, name: str) -> None:
    path = _capture(name)
    with serving(Captured(path, capture.inspect(path).sha256)) as server:
        produce(server, settings.model_copy(update={"domains": "*"}))
    recorded = [frame.data for frame in capture.read(path)]
    found = landed(settings.bootstrap_servers)
    assert len(found.ids) == 1_950
    assert Counter(found.data) == Counter(recorded)
    assert {processing["source_mode"] for processing in found.processing} == {"replay"}


@pytest.mark.real_data
def test_resuming_at_real_timestamps_repeats_some_and_loses_none(settings: ProducerSettings) -> None:
    path = _capture("recentchange_2021-08-27_1950.sse.gz")
    settings = settings.model_copy(update={"domains": "*"})
    behaviour = Behaviour(recorded_ids=True, cut_after=400)
    with serving(Captured(path, capture.inspect(path).sha256), behaviour) as server:
        while len(set(landed(settings.bootstrap_servers).ids)) < 1_950:
            before = len(landed(settings.bootstrap_servers).ids)
            produce(server, settings, max_events=700)
            assert len(landed(settings.bootstrap_servers).ids) == before + 700
    assert set(landed(settings.bootstrap_servers).data) == {frame.data for frame in capture.read(path)}
    cursor = read_cursor(settings.bootstrap_servers, f"capture:sha256={capture.inspect(path).sha256}")
    assert cursor is not None
    assert cursor.gaps_total == 0


@pytest.mark.real_data
def test_domain_filter_on_64_real_domains(settings: ProducerSettings) -> None:
    path = _capture("recentchange_2021-10-07_08_es_global.jsonl.gz")
    domains = Counter(json.loads(frame.data)["meta"]["domain"] for frame in capture.read(path))
    with serving(Captured(path, capture.inspect(path).sha256)) as server:
        report = produce(server, settings)
    found = Counter(json.loads(data)["meta"]["domain"] for data in landed(settings.bootstrap_servers).data)
    assert found == {domain: count for domain, count in domains.items() if domain in FOLLOWED_DOMAINS}
    assert report.run.filtered == domains.total() - found.total()


def _capture(name: str) -> Path:
    path = Settings().data / "events" / name
    if not path.exists():
        pytest.skip(f"no {path}: set WIKISTREAM_DATA to the folder of captures")
    return path


def _ledger(generator: Generator) -> set[str]:
    ledger: set[str] = set()
    generator.manifest(ledger=ledger)
    return ledger
