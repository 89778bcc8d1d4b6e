"""Backfill: a piece of history once more, days computed anew; nothing else moves, and nothing turns fresh."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from producer.eventstreams.generator import Generator
from producer.eventstreams.recording import Synthetic
from producer.eventstreams.server import EventStreamsServer
from producer.sink import read_cursor
from wikistream_assets.definitions import defs
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine import failpoints, publication, recompute
from wikistream_assets.engine.context import GateReport, JobContext
from wikistream_assets.engine.gate_control import decide_on_failure, gate_states
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import ConfigurationError, GateError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.quality.rule import Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.gold import entity_trends
from wikistream_assets.streams.edits.stream import GOLD
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    ENTITY_TRENDS,
    GOLD_TABLES,
    HOURLY_STATS,
    RAW_EVENTS,
    RISK_SCORES,
)
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep import backfill
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, event_ids, table_rows, totals
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row, blocking
from wikistream_assets_tests.quality.samples import clean_rows

DAY, NEXT_DAY = "2026-03-01", "2026-03-02"


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def on_next_day(rows: list[Row]) -> list[Row]:
    """The rows a day later, as other events."""
    times = ("event_timestamp", "kafka_timestamp", "producer_ingested_at", "bronze_processed_at")
    return [
        {
            **row,
            **{name: row[name] + timedelta(days=1) for name in times},
            "event_id": row["event_id"].replace("4000", "4001"),
            "kafka_offset": row["kafka_offset"] + 10_000,
            "event_date": NEXT_DAY,
        }
        for row in rows
    ]


def two_days(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows)
    gates.add_bronze(on_next_day(rows))
    assert all(report.passed for report in gates.cycle())


def files(lake: Lakehouse, spec: TableSpec, day: str) -> set[str]:
    tasks = lake.table(spec).scan(row_filter=f"{spec.partition_by[0]} == '{day}'").plan_files()
    return {task.file.file_path for task in tasks}


def hours_of(lake: Lakehouse, day: str) -> dict[int, str]:
    """A hash of Gold's rows of each hour of a day, over all but the time at which they were computed."""
    hours: defaultdict[int, list[str]] = defaultdict(list)
    for row in table_rows(lake, HOURLY_STATS):
        if row["stat_date"] == day:
            hours[row["stat_hour"]].append(str(row | {"gold_processed_at": None}))
    return {hour: sha256("".join(sorted(rows)).encode()).hexdigest() for hour, rows in hours.items()}


def rows_of(gates: GateLake, day: str) -> list[list[tuple[Any, ...]]]:
    """Gold's rows of a day as they are, table by table."""
    return [
        gates.rows(f"select * from {spec.identifier} where {spec.partition_by[0]} = '{day}' order by all")
        for spec in GOLD_TABLES
    ]


@pytest.mark.long
@pytest.mark.spark
def test_days_computed_anew_are_the_same_and_others_are_not_touched(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_days(gates)
    hashes = table_hashes(gates.lake)
    before = {spec: (files(gates.lake, spec, DAY), files(gates.lake, spec, NEXT_DAY)) for spec in GOLD_TABLES}
    hours, next_day = hours_of(gates.lake, DAY), rows_of(gates, NEXT_DAY)
    assert hours.keys() == {row["event_hour"] for row in clean_rows(RAW_EVENTS)}
    assert backfill.silver_differences(gates.ctx, [DAY, NEXT_DAY]) == {}
    assert backfill.run(gates.ctx, [DAY]).passed
    assert table_hashes(gates.lake) == hashes
    assert hours_of(gates.lake, DAY) == hours
    assert rows_of(gates, NEXT_DAY) == next_day
    for spec, (of_day, of_next) in before.items():
        assert files(gates.lake, spec, NEXT_DAY) == of_next
        assert files(gates.lake, spec, DAY).isdisjoint(of_day)

    # cut in half: the first table is published, the process is gone
    publish = gates.lake.publish

    def dies_after_the_first(specs: Sequence[TableSpec], branch: str, *_: Any, **__: Any) -> None:
        publish(specs[:1], branch)
        raise KeyboardInterrupt

    monkeypatch.setattr(gates.lake, "publish", dies_after_the_first)
    gates.ctx = as_run(gates, "killed")
    with pytest.raises(KeyboardInterrupt):
        backfill.run(gates.ctx, [DAY])
    monkeypatch.undo()
    half = files(gates.lake, RISK_SCORES, DAY)
    publication.settle(gates.lake, GOLD)
    assert files(gates.lake, RISK_SCORES, DAY).isdisjoint(half)
    assert table_hashes(gates.lake) == hashes
    # and the next cycle goes on as if nothing had been
    late = {**clean_rows(RAW_EVENTS)[0], "event_id": "00000000-0000-4000-8000-00000000late", "kafka_offset": 99_999}
    gates.add_bronze([late])
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select sum(total_events)::bigint from gold.hourly_stats") == [(1_801,)]


@pytest.mark.spark
def test_days_that_do_not_pass_leave_everything_as_it_was(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    two_days(gates)
    hashes, overwrite = table_hashes(gates.lake), recompute.overwrite_rows

    def wrong(rows: DataFrame, spec: TableSpec, *rest: Any) -> None:
        overwrite(
            rows.withColumn("total_events", sf.lit(-1).cast("long")) if spec is HOURLY_STATS else rows, spec, *rest
        )

    with monkeypatch.context() as bug:
        bug.setattr(recompute, "overwrite_rows", wrong)
        assert not backfill.run(gates.ctx, [DAY]).passed
    assert table_hashes(gates.lake) == hashes
    assert all(report.passed for report in gates.cycle()), (
        "the verdicts on what is published are those of its publication"
    )
    assert not any(state.blocked for state in gate_states(gates.lake))
    assert backfill.run(gates.ctx, [DAY]).passed
    assert table_hashes(gates.lake) == hashes


def again(ctx: JobContext, dates: list[str]) -> GateReport:
    return publication.recompute(ctx, GOLD, dates)


def as_run(gates: GateLake, run_id: str) -> JobContext:
    """The same lake, which a test may have changed, for another run."""
    other = replace(gates.ctx, run_id=run_id)
    vars(other)["lake"] = gates.lake
    return other


class Killed(BaseException):
    """Stands for SIGKILL; the real signal is sent in the fault tests."""


@pytest.mark.spark
def test_each_backfill_has_verdicts_of_its_own(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days computed anew one after the other share their range: it is empty, for there is no new Silver."""
    two_days(gates)
    compute = entity_trends.compute
    assert again(as_run(gates, "1 first day"), [DAY]).passed
    with monkeypatch.context() as bug:
        bug.setattr(
            entity_trends,
            "compute",
            lambda *args, **named: compute(*args, **named).withColumn("rank", sf.col("rank") + 200),
        )
        assert not again(as_run(gates, "2 next day, wrong"), [NEXT_DAY]).passed

    def kill(_: Settings, name: str) -> None:
        if name == failpoints.of_layer("gold", failpoints.AFTER_RESULTS):
            raise Killed

    with monkeypatch.context() as fault:
        fault.setattr(publication, "failpoint", kill)
        with pytest.raises(Killed):
            again(as_run(gates, "3 next day, killed"), [NEXT_DAY])
    assert again(as_run(gates, "4 next day, again"), [NEXT_DAY]).passed
    assert again(as_run(gates, "5 first day, once more"), [DAY]).passed

    checks = sum(len(spec.rules) for spec in GOLD_TABLES)
    verdicts = gates.rows(
        "select run_id, count(*), count(distinct check_id), count(*) filter (status = 'FAILED')"
        " from dq_audit.quality_results where layer = 'gold' and range_start = range_end group by 1 order by 1"
    )
    assert verdicts == [
        ("1 first day", checks, checks, 0),
        ("2 next day, wrong", checks, checks, 1),
        ("3 next day, killed", checks, checks, 0),  # the run after it has come to the same, and published it
        ("5 first day, once more", checks, checks, 0),
    ]
    assert gates.rows("select distinct run_id, check_name from dq_audit.failing_rows") == [
        ("2 next day, wrong", "rank_valid")
    ]
    assert gates.rows("select check_id from dq_audit.quality_results group by 1 having count(*) > 1") == []


@pytest.mark.spark
def test_a_waiver_of_a_published_range_does_not_cover_a_backfill(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    gates.silver()
    compute = entity_trends.compute
    monkeypatch.setattr(
        entity_trends,
        "compute",
        lambda *args, **named: compute(*args, **named).withColumn("rank", sf.col("rank") + 200),
    )
    assert blocking(gates.gold()) == {"rank_valid": Status.FAILED}
    decide_on_failure(
        gates.ctx,
        "accept",
        ENTITY_TRENDS.identifier,
        "rank_valid",
        reason="this once",
        decided_by="ada",
    )
    assert gates.gold().advanced
    assert blocking(again(gates.ctx, [DAY])) == {"rank_valid": Status.FAILED}


@pytest.mark.spark
def test_silver_that_does_not_follow_from_bronze_stops_it(gates: GateLake) -> None:
    two_days(gates)
    stranger = {**clean_rows(CLEANED_EVENTS)[0], "event_id": "00000000-0000-4000-8000-0000stranger"}
    table = gates.lake.table(CLEANED_EVENTS)
    position = gates.lake.state(CLEANED_EVENTS).newest_position()
    assert position is not None
    table.append(
        pa.Table.from_pylist([stranger], schema=table.schema().as_arrow()),
        snapshot_properties={"wikistream.position": json.dumps(position.position)},
    )
    hashes = table_hashes(gates.lake)
    with pytest.raises(GateError, match=r"1 rows differ.*2026-03-01 10h: 1"):
        backfill.run(gates.ctx, [DAY])
    assert backfill.silver_differences(gates.ctx, [NEXT_DAY]) == {}
    assert table_hashes(gates.lake) == hashes


@pytest.mark.unit
def test_before_the_first_publication_there_is_nothing_to_recompute(lake: Lakehouse) -> None:
    with pytest.raises(ConfigurationError, match="two dates as yyyy-MM-dd"):
        backfill.days("2026-03-01", "yesterday")
    with pytest.raises(ConfigurationError, match="lies behind"):
        backfill.days(NEXT_DAY, DAY)
    assert backfill.days("2026-02-27", "2026-03-01") == ["2026-02-27", "2026-02-28", "2026-03-01"]


@pytest.mark.spark
def test_the_job_emits_no_materialization(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freshness is judged by the last materialization: a backfill of last week must not make one."""
    two_days(gates)
    for name, value in child_environment(gates.ctx.settings).items():
        monkeypatch.setenv(name, value)
    before = table_hashes(gates.lake)
    job = defs().resolve_job_def("backfill")
    with dg.DagsterInstance.ephemeral() as instance:
        for day in (DAY, NEXT_DAY):  # as the UI's backfill of two partitions starts them
            assert job.execute_in_process(partition_key=day, instance=instance).success
        result = job.execute_in_process(
            run_config={"ops": {"recompute_days": {"config": {"from_date": DAY, "to_date": DAY}}}}, instance=instance
        )
        assert result.success
        keys = [dg.AssetKey([spec.namespace, spec.name]) for spec in GOLD_TABLES]
        assert [instance.get_latest_materialization_event(key) for key in keys] == [None] * 4
        observed = [event.asset_key for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
        assert sorted(observed) == sorted(keys)  # type: ignore[type-var]
    assert gates.lake.state(HOURLY_STATS).position["recomputed"] == result.run_id
    assert table_hashes(gates.lake) == before


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.spark
def test_history_beside_the_live_stream(settings_factory: SettingsFactory, fresh_topics: Broker) -> None:
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, domains="*")
    open_home(settings)
    lake = local_lake(settings)
    generator = Generator(events=2_000, malformed=0.0, canary=0.0, redelivered=0.0)
    half = generator.start + timedelta(hours=generator.hours / 2)
    with EventStreamsServer(Synthetic(generator)) as server:
        arguments = ("backfill", "--since", half.strftime("%Y-%m-%dT%H:%M:%S"), "--source", server.url)
        first = wikistream(*arguments, settings=settings)
        assert first.returncode == 0, first.stderr
        assert read_cursor(settings.bootstrap_servers, f"live:{server.url}") is None
        drain(job_in(settings))
        read = totals(lake)["records"]
        assert first.stdout.startswith(f"end: read {read}: accepted {read}")
        assert 800 < read < 1_200
        again = wikistream(*arguments, settings=settings)
        assert again.stdout.startswith("end: read 0:"), again.stdout + again.stderr
        whole = wikistream("backfill", "--since", "2020-01-01", "--source", server.url, settings=settings)
        assert whole.returncode == 0, whole.stderr
        assert whole.stdout.splitlines()[1].startswith("missing: the server no longer has what lies between 2020-01-01")
    drain(job_in(settings))
    assert totals(lake) == {"records": 2_000 + read, "rows": 2_000, "dead_letters": 0, "duplicates": read}
    assert len(event_ids(lake)) == 2_000
    assert_sound(lake)
    wrong = wikistream("backfill", "--since", "2026-03-02", "--until", "2026-03-01", settings=settings)
    assert wrong.returncode == 2
