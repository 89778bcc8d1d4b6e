"""What ``health`` finds wrong: each line by its cause, on a real broker, lake and Dagster database."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from producer.cursor import RecordedGap
from producer.position import Gap
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.engine.recompute import Position
from wikistream_assets.instance.cycles import CYCLE
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake import procedures
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import AUDITED_TAG, Masked, summary_properties
from wikistream_assets.quality.rule import Status
from wikistream_assets.readers.health import Budget, Health, examine
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.supervision.cycle_loop import Ended
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.kafka_records import advance_producer, event_message, produce
from wikistream_assets_tests.lake.lakes import add, full_row, set_clock_back

pytestmark = pytest.mark.kafka


@pytest.fixture
def home(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    """A home that reads the synthetic source, its programs down, beside the suite's broker."""
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    local_lake(settings)
    choose_source(settings, "synthetic")
    return settings


def problems(found: Health) -> list[str]:
    """Without those about programs: none of them runs here."""
    return [problem for problem in found.problems if " is STOPPED: " not in problem]


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


def test_a_clock_that_was_set_back(home: Settings) -> None:
    lake = local_lake(home)
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    set_clock_back(lake, CLEANED_EVENTS, 3_600)
    (told,) = problems(examine(home))
    assert told.startswith("the clock is 3")
    assert "s behind the newest commit of silver.cleaned_events" in told


def test_a_bronze_that_is_behind(home: Settings) -> None:
    produce(home.bootstrap_servers, [event_message(str(number), "{}", partition=0) for number in range(3)])
    behind = "Bronze is 4 offsets behind Kafka"  # three records and the marker of their transaction
    assert problems(examine(home)) == [f"{behind} and has never committed"]
    lake = local_lake(home)
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 0}}, {}))
    head = lake.state(RAW_EVENTS).head()
    assert head is not None
    at = datetime.fromtimestamp(head.timestamp_ms / 1000, UTC)
    assert problems(examine(home, at + timedelta(minutes=3))) == [], "it may still be at work"
    late = examine(home, at + timedelta(minutes=3, seconds=1))
    assert problems(late) == [f"{behind} and has last committed at {at.isoformat(timespec='seconds')}"]
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 3}}, {}))
    found = examine(home, at + timedelta(hours=1))
    assert (found.bronze_lag, problems(found)) == (0, []), "only the marker is left"


def test_masking_is_no_sign_of_life(home: Settings) -> None:
    lake = local_lake(home)
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"0": 0}}, {}))
    at = examine(home).bronze_at
    lake.mark_masked(RAW_EVENTS, Masked("2026-01-01"))
    assert at is not None
    assert examine(home).bronze_at == at


def test_how_much_went_to_quarantine(home: Settings) -> None:
    lake = local_lake(home)
    assert examine(home).quarantine == ()
    evidence = {"read": 600, "quarantined": 600, "rules": {"negative_length": 600}}
    names = {"layer": "silver", "table_name": CLEANED_EVENTS.identifier, "check_name": "quarantine_budget_range"}
    verdict = {"status": "FAILED", "message": "600 of 600 rows", "evidence": json.dumps(evidence)}
    add(lake, QUALITY_RESULTS, full_row(QUALITY_RESULTS, **names, **verdict))
    found = examine(home)
    budget = Budget("quarantine_budget_range", Status.FAILED, "600 of 600 rows", **evidence)
    assert found.quarantine == (budget,)
    told = wikistream("health", settings=home).stdout
    assert "quarantine FAILED: 600 of 600 rows\n" in told
    (as_json,) = json.loads(wikistream("health", "--json", settings=home).stdout)["quarantine"]
    assert as_json == {"check": names["check_name"], "status": "FAILED", "message": verdict["message"], **evidence}


def test_compaction_is_no_verdict(home: Settings) -> None:
    lake = local_lake(home)
    assert examine(home).verdict_at is None
    for _ in range(2):
        add(lake, QUALITY_RESULTS, full_row(QUALITY_RESULTS))
    verdicts = lake.state(QUALITY_RESULTS).head()
    assert verdicts is not None
    session = local_session(home)
    procedures.compact(session, QUALITY_RESULTS, 'run_date = "a"', target_file_bytes=1 << 28, min_input_files=2)
    compacted, *older = lake.state(QUALITY_RESULTS).history()
    assert (compacted.operation, compacted.total_records) == ("replace", 2)
    assert examine(home).verdict_at == datetime.fromtimestamp(verdicts.timestamp_ms / 1000, UTC)
    procedures.expire(session, QUALITY_RESULTS, [version.snapshot_id for version in older])
    assert examine(home).verdict_at == datetime.fromtimestamp(compacted.timestamp_ms / 1000, UTC), "none younger"


def commit(lake: Lakehouse, spec: TableSpec, position: Mapping[str, object]) -> tuple[int, datetime]:
    """Append a row; the snapshot, and the time of its commit."""
    add(lake, spec, full_row(spec), position=position)
    head = lake.state(spec).head()
    assert head is not None
    return head.snapshot_id, datetime.fromtimestamp(head.timestamp_ms / 1000, UTC)


def publish(lake: Lakehouse) -> None:
    """Let everything that Bronze has pass the gates up to Gold."""
    audited = lake.state(RAW_EVENTS).head_id()
    lake.tag(RAW_EVENTS, AUDITED_TAG, audited)
    silver, _ = commit(lake, CLEANED_EVENTS, {RAW_EVENTS.identifier: audited})
    for spec in GOLD_TABLES:
        commit(lake, spec, Position(silver).as_json(CLEANED_EVENTS))


def test_what_waits_while_no_cycle_comes(home: Settings) -> None:
    assert home.step_max_seconds > home.tables_fresh_seconds
    longest = timedelta(seconds=home.step_max_seconds + home.cycle_first_seconds)
    lake = local_lake(home)
    commit(lake, RAW_EVENTS, {"raw-events": {"0": 1}})
    publish(lake)
    idle = examine(home, datetime.now(UTC) + timedelta(days=2))
    assert problems(idle) == [], "nothing is new"
    _, since = commit(lake, RAW_EVENTS, {"raw-events": {"0": 2}})
    commit(lake, RAW_EVENTS, {"raw-events": {"0": 3}})
    assert problems(examine(home, since + longest)) == [], "that Gold is older than what waits says nothing"
    (told,) = problems(examine(home, since + longest + timedelta(seconds=1)))
    waited = f"has waited for the bronze gate since {since.isoformat(timespec='seconds')} and no cycle has ended: "
    assert told.startswith(f"{RAW_EVENTS.identifier} {waited}")
    lake.tag(RAW_EVENTS, AUDITED_TAG, lake.state(RAW_EVENTS).head_id())
    (told,) = problems(examine(home, since + timedelta(days=1)))
    assert told.startswith(f"{RAW_EVENTS.identifier} {waited.replace('bronze', 'silver')}")
    _, since = commit(lake, CLEANED_EVENTS, {RAW_EVENTS.identifier: lake.state(RAW_EVENTS).head_id()})
    (told,) = problems(examine(home, since + timedelta(days=1)))
    assert told.startswith(f"{CLEANED_EVENTS.identifier} has waited for the gold gate since ")


def test_what_waits_is_told_once(home: Settings) -> None:
    lake = local_lake(home)
    snapshot, _ = commit(lake, RAW_EVENTS, {"raw-events": {"0": 1}})
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert "bronze gate" in problems(examine(home, tomorrow))[0]
    with dagster_instance(home) as instance:
        instance.add_run(dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus.SUCCESS))
        passed = examine(home).cycle
        assert passed is not None
        longest = timedelta(seconds=home.step_max_seconds + home.cycle_pause_seconds)
        assert problems(examine(home, passed.at + longest)) == [], "cycles come"
        assert "bronze gate" in problems(examine(home, passed.at + longest + timedelta(seconds=1)))[0]
        instance.add_run(dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus.CANCELED))
        (told,) = problems(examine(home, tomorrow))
        assert "failed or was cancelled" in told
        instance.add_run(dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus.SUCCESS))
    names = {"layer": "bronze", "table_name": RAW_EVENTS.identifier, "check_name": "a", "status": "FAILED"}
    *_, oldest = lake.state(RAW_EVENTS).history()
    covered = {"range_start": oldest.snapshot_id, "range_end": snapshot}
    add(lake, QUALITY_RESULTS, full_row(QUALITY_RESULTS, **names, **covered))
    closed = f"a gate is closed by {RAW_EVENTS.identifier}.a: see 'wikistream gate status'"
    assert problems(examine(home, tomorrow)) == [closed]


def test_a_cycle_that_broke_waits_for_a_person(home: Settings) -> None:
    assert examine(home).cycle is None
    with dagster_instance(home) as instance:
        for status, ended in (("SUCCESS", Ended.PASSED), ("CANCELED", Ended.BROKEN)):
            run = dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus(status))
            instance.add_run(run)
            found = examine(home)
            assert found.cycle is not None
            assert (found.cycle.run_id, found.cycle.ended) == (run.run_id, ended)
            told = [f"cycle {run.run_id} failed or was cancelled: fix what its run in the UI names, then start 'cycle'"]
            assert problems(found) == (told if ended is Ended.BROKEN else [])
