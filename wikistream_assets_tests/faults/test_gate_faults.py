"""Gates, Silver and Gold killed at named points and at random, and started again: fault cases 20, 21 and 22; two at once.

Each case ends with the hashes of an undisturbed run, and has a control: the same fault against a weaker way of working, seen to
fail.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from pyspark.sql import SparkSession

from wikistream_assets.asset_factory import asset_key
from wikistream_assets.dagster_home import dagster_instance, prepare_dagster_home
from wikistream_assets.jobs import failpoints
from wikistream_assets.resources.lakehouse import AUDIT_BRANCH, AUDITED_TAG, Lakehouse
from wikistream_assets.resources.spark import append_rows, read_table
from wikistream_assets.resources.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.tables import (
    CLEANED_EVENTS,
    DAILY_ANALYTICS_SUMMARY,
    GOLD_TABLES,
    HOURLY_STATS,
    QUARANTINE,
    RAW_EVENTS,
)
from wikistream_assets.transforms.silver.cleaned_events import good, split
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, wait_until
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.jobs.bronze_lakes import event_ids
from wikistream_assets_tests.jobs.gate_lakes import GateLake, lake_of
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.transforms.frames import PROCESSED_AT

pytestmark = [pytest.mark.faults, pytest.mark.spark]


@pytest.fixture
def gates(spark: SparkSession, lake: Lakehouse, settings: Settings) -> GateLake:
    return GateLake(spark, lake, settings)


@pytest.fixture
def undisturbed(settings_factory: SettingsFactory) -> dict[str, str]:
    """Hashes of the tables that the same events give when nothing happens."""
    gates = lake_of(settings_factory())
    rows = clean_rows(RAW_EVENTS)
    for part in (rows[:600], rows[600:]):
        gates.add_bronze(part)
        assert all(report.passed for report in gates.cycle())
    return table_hashes(gates.lake)


def _start(gates: GateLake) -> None:
    """Publish a first part, and have a second one waiting in Bronze."""
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    gates.add_bronze(rows[600:])


def _settle(
    gates: GateLake,
    account: Account,
    number: str,
    fault: str,
    tries: int = 1,
    kills: int | None = None,
    control: bool = False,
) -> None:
    """Bronze's events against those of Silver and its quarantine; each try is a kill unless ``kills`` says otherwise."""
    published = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    sent, found = ([row[0] for row in gates.rows(sql)] for sql in ("select event_id from bronze.raw_events", published))
    account.settle(
        number, fault, sent=sent, found=found, tries=tries, kills=tries if kills is None else kills, control=control
    )


def _begin(gates: GateLake, *layers: str, **environment: str) -> subprocess.Popen[str]:
    """Start the jobs of some layers as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "wikistream_assets_tests.jobs.run_layer", *layers],
        env={**os.environ, **child_environment(gates.ctx.settings), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill(gates: GateLake, layer: str, failpoint: str) -> None:
    with _begin(gates, layer, WIKISTREAM_FAILPOINT=failpoint) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors[-2000:]


def test_20_silver_killed_at_each_boundary_ends_the_same(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    _start(gates)
    gates.bronze_gate()
    before = gates.lake.head(CLEANED_EVENTS)
    for point in (
        failpoints.SILVER_AFTER_BRANCHES,
        failpoints.SILVER_AFTER_RESULTS,
        failpoints.SILVER_AFTER_QUARANTINE,
    ):
        _kill(gates, "silver", point)
        assert gates.lake.head(CLEANED_EVENTS) == before, "nothing is readable before the whole publication"
    _kill(gates, "silver", failpoints.SILVER_AFTER_PUBLISH)
    assert not gates.silver().advanced, "published, though the run could not tell"
    assert gates.gold().passed
    _settle(gates, account, "20", "Silver kill -9 at each of its boundaries", tries=4)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        ("20", "Silver kill -9 after its commit; no branch, no position"),
        ("more", "two cycles at once; no lock, no position"),
    ],
    ids=["killed", "two"],
)
def test_20_control_without_branch_lock_and_position_rows_are_doubled(
    gates: GateLake, undisturbed: dict[str, str], account: Account, number: str, fault: str
) -> None:
    _start(gates)
    gates.bronze_gate()
    new = read_table(gates.ctx.spark, RAW_EVENTS).where("cast(right(event_id, 12) as int) >= 600")
    for _ in range(2):  # started again after its commit, or beside another: nothing says how far the first run came
        append_rows(good(split(new, processed_at=PROCESSED_AT)), CLEANED_EVENTS, {})
    _settle(gates, account, number, fault, control=True)
    assert table_hashes(gates.lake)["silver.cleaned_events"] != undisturbed["silver.cleaned_events"]


def test_21_gold_killed_between_two_tables_is_rolled_forward(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    gates.bronze_gate()
    gates.silver()
    _kill(gates, "gold", failpoints.GOLD_AFTER_PUBLISH)
    assert not gates.gold().advanced, "published, though the run could not tell"
    gates.add_bronze(rows[600:])
    gates.bronze_gate()
    gates.silver()
    for point in (failpoints.GOLD_AFTER_BRANCHES, failpoints.GOLD_AFTER_RESULTS):
        _kill(gates, "gold", point)
        assert gates.rows("select sum(total_events) from gold.hourly_stats") == [(600,)]
    _kill(gates, "gold", failpoints.GOLD_AFTER_FIRST_PUBLISH)
    figures = (
        "select (select sum(total_events) from gold.hourly_stats),"
        " (select sum(total_events) from gold.daily_analytics_summary)"
    )
    assert gates.rows(figures) == [(600, 600)], "readers see one version, the older one"
    hourly, daily = (
        sum(gates.lake.table(spec).scan().to_arrow()["total_events"].to_pylist())
        for spec in (HOURLY_STATS, DAILY_ANALYTICS_SUMMARY)
    )
    account.settle(
        "21",
        "Gold kill -9 between two of its tables; a reader of the tables as they are sees the hours' events, not the days'",
        sent=map(str, range(hourly)),
        found=map(str, range(daily)),
        control=True,
    )
    assert gates.gold().passed
    assert gates.rows(figures) == [(900, 900)]
    _settle(gates, account, "21", "Gold kill -9 at each of its boundaries", tries=4)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.short
def test_22_a_killed_bronze_gate_fails_closed(gates: GateLake, undisturbed: dict[str, str], account: Account) -> None:
    _start(gates)
    tag = gates.lake.head(RAW_EVENTS, AUDITED_TAG)
    _kill(gates, "bronze_gate", failpoints.GATE_AFTER_RESULTS)
    assert gates.lake.head(RAW_EVENTS, AUDITED_TAG) == tag
    assert not gates.silver().advanced, "what the gate has not tagged is not there for Silver"
    account.settle(
        "22",
        "Bronze gate kill -9 before its verdict is published; a reader of the newest snapshot reads what nobody audited",
        sent=[row["event_id"] for row in clean_rows(RAW_EVENTS)[:600]],
        found=event_ids(gates.lake),
        control=True,
    )
    assert all(report.passed for report in gates.cycle())
    doubled = "select check_id from dq_audit.quality_results group by 1 having count(*) > 1"
    assert gates.rows(doubled) == []
    _settle(gates, account, "22", "Bronze gate kill -9 before its verdict is published")
    assert table_hashes(gates.lake) == undisturbed


def test_22_a_bronze_gate_killed_between_its_two_tags_goes_on(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    gates.add_bronze(rows[600:700])
    newest = gates.lake.head(RAW_EVENTS)
    _kill(gates, "bronze_gate", failpoints.GATE_AFTER_PUBLISH)
    assert gates.lake.head(RAW_EVENTS, AUDITED_TAG) == newest
    gates.add_bronze(rows[700:])
    assert all(report.advanced for report in gates.cycle())
    _settle(gates, account, "22", "Bronze gate kill -9 after its verdict is published")
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.parametrize("layer", ["silver", "gold"])
def test_20_and_21_published_and_dagster_does_not_know_it(
    gates: GateLake, undisturbed: dict[str, str], account: Account, layer: str
) -> None:
    """Killed after the publication as a run of Dagster; the next run has nothing to publish, and tells what it finds."""
    _start(gates)
    gates.bronze_gate()
    if layer == "gold":
        gates.silver()
    tables = (CLEANED_EVENTS, QUARANTINE) if layer == "silver" else GOLD_TABLES
    point = failpoints.SILVER_AFTER_PUBLISH if layer == "silver" else failpoints.GOLD_AFTER_PUBLISH
    settings = gates.ctx.settings
    assert _dagster_run(settings, layer, WIKISTREAM_FAILPOINT=point) == -signal.SIGKILL
    heads = {spec.identifier: gates.lake.head(spec) for spec in tables}
    with dagster_instance(settings) as instance:
        (record,) = instance.get_run_records()
        told = [instance.get_latest_materialization_event(asset_key(spec)) for spec in tables]
        assert told == [None] * len(tables)
        instance.report_run_failed(record.dagster_run)  # as the daemon does, which this test has none of
        instance.event_log_storage.free_concurrency_slots_for_run(record.dagster_run.run_id)
        assert _dagster_run(settings, layer) == 0
        for spec in tables:
            head = heads[spec.identifier]
            entry = instance.get_latest_materialization_event(asset_key(spec))
            assert head is not None
            assert entry is not None
            assert entry.asset_materialization is not None
            assert entry.asset_materialization.metadata["snapshot"].value == str(head.snapshot_id)
            for rule in spec.rules:
                key = dg.AssetCheckKey(asset_key(spec), rule.name)
                check = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
                assert check.status is AssetCheckExecutionRecordStatus.SUCCEEDED, rule.name
    assert {spec.identifier: gates.lake.head(spec) for spec in tables} == heads, "nothing is published twice"
    assert all(report.passed for report in gates.cycle())
    number = "20" if layer == "silver" else "21"
    _settle(gates, account, number, f"{layer} kill -9 as a run of Dagster, published and not recorded")
    assert table_hashes(gates.lake) == undisturbed


def _dagster_run(settings: Settings, job: str, **environment: str) -> int:
    home = {"DAGSTER_HOME": str(prepare_dagster_home(settings))}
    return subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", "wikistream_assets.definitions", "-j", job],
        env={**os.environ, **child_environment(settings), **home, **environment},
        stdout=subprocess.DEVNULL,
        timeout=300,
        check=False,
    ).returncode


CYCLE = ("bronze_gate", "silver", "gold")


def test_20_to_22_killed_at_random(
    gates: GateLake, undisturbed: dict[str, str], account: Account, kills: Callable[[int, int], int]
) -> None:
    """A cycle at a time, killed or told to end a random moment after its session stands; what it left, the next one takes up."""
    moments, tries, killed = random.Random(42), kills(2, 30), 0
    rows = clean_rows(RAW_EVENTS)
    size = -(-len(rows) // tries)
    for number in range(tries):
        gates.add_bronze(rows[number * size : (number + 1) * size])
        with _begin(gates, *CYCLE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with suppress(subprocess.TimeoutExpired):  # else it was done before its time
                process.wait(moments.uniform(0, 20))
            by = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
            killed += process.poll() is None and by is signal.SIGKILL
            process.send_signal(by)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()  # a JVM call does not hear SIGTERM
    # A range that a killed gate had begun with stays as it was; what came meanwhile is the next one.
    reports = gates.cycle()
    while any(report.advanced for report in reports):
        assert all(report.passed for report in reports)
        reports = gates.cycle()
    _settle(gates, account, "20-22", "cycle kill -9 or SIGTERM at random", tries=tries, kills=killed)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.parametrize(
    ("by", "fault"),
    [(signal.SIGKILL, "a day's backfill kill -9 at work"), (signal.SIGTERM, "a day's backfill SIGTERM at work")],
    ids=["killed", "told"],
)
def test_a_backfill_ended_at_work(
    gates: GateLake, undisturbed: dict[str, str], account: Account, by: signal.Signals, fault: str
) -> None:
    """Once it has begun to build the day anew; the next one begins again."""
    _start(gates)
    assert all(report.passed for report in gates.cycle())
    with _begin(gates, "backfill") as process:
        wait_until(lambda: gates.lake.head(HOURLY_STATS, AUDIT_BRANCH))
        process.send_signal(by)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -by, errors[-2000:]
    assert table_hashes(gates.lake) == undisturbed, "readers see the day as it was"
    with _begin(gates, "backfill") as again:
        _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-2000:]
    _settle(gates, account, "more", fault, kills=int(by is signal.SIGKILL))
    assert table_hashes(gates.lake) == undisturbed


def test_two_cycles_at_once(gates: GateLake, undisturbed: dict[str, str], account: Account) -> None:
    """The second one is refused or finds nothing left to do; nothing is done twice."""
    _start(gates)
    with _begin(gates, *CYCLE) as first, _begin(gates, *CYCLE) as second:
        endings = [(process.communicate(timeout=300)[1], process.returncode) for process in (first, second)]
    assert 0 in {code for _, code in endings}
    assert all(code == 0 or "is being written by process" in errors for errors, code in endings), endings
    assert all(report.passed for report in gates.cycle())
    _settle(gates, account, "more", "two cycles at once", kills=0)
    assert table_hashes(gates.lake) == undisturbed
