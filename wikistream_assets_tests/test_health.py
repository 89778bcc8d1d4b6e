"""What ``health`` finds wrong: each line by its cause, on a real broker, lake and Dagster database."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from producer.cursor import Cursor, RecordedGap
from producer.failpoints import Failpoint
from producer.position import Gap
from producer.sink import TransactionalSink
from wikistream_assets.cycles import CYCLE
from wikistream_assets.dagster_home import dagster_instance
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.health import Health, examine
from wikistream_assets.operations.cycle_loop import Ended
from wikistream_assets.resources.broker import Broker
from wikistream_assets.resources.lakehouse import Lakehouse, summary_properties
from wikistream_assets.settings import Settings
from wikistream_assets.tables import RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.kafka_records import event_message, produce

pytestmark = pytest.mark.kafka


@pytest.fixture
def home(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    """A home that reads the synthetic source, its programs down, beside the suite's broker."""
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    Lakehouse.local(settings)
    choose_source(settings, "synthetic")
    return settings


def problems(found: Health) -> list[str]:
    """Without those about programs: none of them runs here."""
    return [problem for problem in found.problems if " is STOPPED: " not in problem]


def advance_producer(settings: Settings, at: datetime, *gaps: RecordedGap) -> None:
    source = choose_source(settings, "synthetic").source
    sink = TransactionalSink(settings.bootstrap_servers, source.identity, Failpoint(""))
    cursor = Cursor(position="[]", gaps=gaps, gaps_total=len(gaps), updated_at=at.isoformat())
    sink.commit([], cursor, lambda: False)
    sink.close()


def test_programs_that_do_not_run_are_named(home: Settings) -> None:
    found = examine(home)
    assert "producer is STOPPED: 'make up' starts it" in found.problems
    assert problems(found) == []


def test_a_producer_that_stands_still(home: Settings) -> None:
    at = datetime(2026, 3, 2, 12, tzinfo=UTC)
    advance_producer(home, at)
    assert problems(examine(home, at + timedelta(minutes=3))) == []
    late = examine(home, at + timedelta(minutes=3, seconds=1))
    assert late.cursor_at == at
    assert problems(late) == ["the producer has not advanced since 2026-03-02T12:00:00+00:00"]


def test_a_source_that_left_events_out(home: Settings) -> None:
    at = datetime(2026, 3, 2, 12, tzinfo=UTC)
    gap = RecordedGap(Gap("[1]", "[2]"), (at - timedelta(hours=1)).isoformat())
    advance_producer(home, at, gap)
    told = ["the source left events out, noticed at 2026-03-02T11:00:00+00:00: see 'wikistream backfill --help'"]
    assert problems(examine(home, at)) == told
    advance_producer(home, at + timedelta(hours=23), gap)
    assert problems(examine(home, at + timedelta(hours=23))) == [], "a day is long enough"


def test_a_bronze_that_is_behind(home: Settings) -> None:
    produce(home.bootstrap_servers, [event_message(str(number), "{}", partition=0) for number in range(3)])
    behind = "Bronze is 4 offsets behind Kafka"  # three records and the marker of their transaction
    assert problems(examine(home)) == [f"{behind} and has never committed"]
    lake = Lakehouse.local(home)
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 0}}, {}))
    head = lake.head(RAW_EVENTS)
    assert head is not None
    at = datetime.fromtimestamp(head.timestamp_ms / 1000, UTC)
    assert problems(examine(home, at + timedelta(minutes=3))) == [], "it may still be at work"
    late = examine(home, at + timedelta(minutes=3, seconds=1))
    assert problems(late) == [f"{behind} and has last committed at {at.isoformat(timespec='seconds')}"]
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 3}}, {}))
    found = examine(home, at + timedelta(hours=1))
    assert (found.bronze_lag, problems(found)) == (0, []), "only the marker is left"


def test_masking_is_no_sign_of_life(home: Settings) -> None:
    lake = Lakehouse.local(home)
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 0}}, {}))
    at = examine(home).bronze_at
    lake.mark_masked(RAW_EVENTS, "2026-01-01")
    assert at is not None
    assert examine(home).bronze_at == at


def test_a_cycle_that_broke_waits_for_a_person(home: Settings) -> None:
    assert examine(home).cycle is None
    with dagster_instance(home) as instance:
        for status, ended in (("SUCCESS", Ended.PASSED), ("CANCELED", Ended.BROKEN)):
            run = dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus(status))
            instance.add_run(run)
            found = examine(home)
            assert found.cycle is not None
            assert (found.cycle.run_id, found.cycle.ended) == (run.run_id, ended)
            told = [f"cycle {run.run_id} broke or was cancelled: mend what its run in the UI names, then start 'cycle'"]
            assert problems(found) == (told if ended is Ended.BROKEN else [])
