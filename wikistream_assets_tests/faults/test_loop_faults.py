"""The loop under fire: daemon, code server and the run itself are killed (case 23), Dagster's database is an old one again.

The control is ``test_run_launcher.py``: under Dagster's own launcher such a run stays "started", and the loop would wait for it.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import dagster as dg
import psutil
import pytest

from producer.topics import EVENT_TOPICS
from wikistream_assets.asset_factory import asset_key
from wikistream_assets.dagster_home import dagster_instance
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.jobs.gate_control import gate_states
from wikistream_assets.resources.broker import Broker
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.resources.query import query
from wikistream_assets.run_launcher import HANDED_OVER
from wikistream_assets.settings import Settings
from wikistream_assets.tables import RAW_EVENTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.faults.conftest import Account

pytestmark = [pytest.mark.faults]

SECONDS = 300.0


@pytest.fixture
def home(settings_factory: SettingsFactory) -> Iterator[Settings]:
    """A home whose pipeline and loop are up on the synthetic source; stopped at the end whatever happens."""
    settings = settings_factory(synthetic_events_per_second=50.0, spark_memory_mb=1024, cycle_pause_seconds=1)
    started = wikistream("up", settings=settings)
    try:
        assert started.returncode == 0, started.stderr
        yield settings
    finally:
        services.down(settings)


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(home) as opened:
        yield opened


def cycles(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> list[dg.RunRecord]:
    """The cycles in these states, oldest first."""
    return list(instance.get_run_records(dg.RunsFilter(job_name="cycle", statuses=list(statuses) or None)))[::-1]


def working(instance: dg.DagsterInstance) -> tuple[str, int] | None:
    """Run id and process id of a cycle that has begun its first step."""
    for record in cycles(instance, dg.DagsterRunStatus.STARTED):
        run_id = record.dagster_run.run_id
        events = instance.all_logs(run_id)
        pids = [
            int(str(event.engine_event_data.metadata["pid"].value))
            for entry in events
            if (event := entry.dagster_event) is not None
            and event.is_engine_event
            and "pid" in event.engine_event_data.metadata
        ]
        if pids and any(entry.dagster_event and entry.dagster_event.is_step_start for entry in events):
            return run_id, pids[-1]
    return None


def wait_for_success(instance: dg.DagsterInstance, more: int = 1) -> None:
    before = len(cycles(instance, dg.DagsterRunStatus.SUCCESS))
    wait_until(lambda: len(cycles(instance, dg.DagsterRunStatus.SUCCESS)) >= before + more, SECONDS)


def kill_family(pid: int) -> None:
    """Kill -9 a process and all under it, as the end of a machine does."""
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def pid_of(settings: Settings, name: str) -> int:
    pid = next(service.pid for service in services.status(settings) if service.name == name)
    assert pid is not None
    return pid


def test_23_daemon_code_server_and_run_are_killed(
    home: Settings, instance: dg.DagsterInstance, account: Account
) -> None:
    wait_for_success(instance)
    assert any(HANDED_OVER in record.dagster_run.tags for record in cycles(instance)), "the run is the worker's"
    for victims in (("run",), ("daemon",), ("code", "run")):
        wait_until(lambda: working(instance) is not None, SECONDS)
        found = working(instance)
        assert found is not None
        pids = {"run": found[1]} | {name: pid_of(home, name) for name in ("code", "daemon")}
        for victim in victims:
            (kill_family if victim != "daemon" else lambda pid: os.kill(pid, signal.SIGKILL))(pids[victim])
        wait_for_success(instance)
    assert_all_published(home, instance, account, "23", "daemon, code server and run worker kill -9", tries=3)


def test_dagsters_database_is_restored_from_a_backup(home: Settings, tmp_path: Path, account: Account) -> None:
    """Two cycles later Dagster knows nothing of them: the tables do, and the sensor tells again what it has forgotten."""
    backup = tmp_path / "backup"
    with dagster_instance(home) as instance:
        wait_for_success(instance)
    services.down(home)
    shutil.copytree(home.dagster_home, backup)
    services.up(home, "synthetic")
    with dagster_instance(home) as instance:
        wait_for_success(instance, more=2)
    services.down(home)
    shutil.rmtree(home.dagster_home)
    shutil.copytree(backup, home.dagster_home)
    services.up(home, "synthetic")
    with dagster_instance(home) as instance:
        assert_all_published(home, instance, account, "more", "Dagster's database restored from a backup")


def assert_all_published(
    home: Settings, instance: dg.DagsterInstance, account: Account, number: str, fault: str, tries: int = 1
) -> None:
    """Let the loop publish all there is, then hold what was sent against what came out."""
    supervisor.call(home, "stopProcess", "producer")
    lake, broker = Lakehouse.local(home), Broker(home.bootstrap_servers)
    ends = broker.ends(EVENT_TOPICS)

    def read_up() -> bool:
        newest = lake.newest_position(RAW_EVENTS)
        return not broker.has_committed_records((newest and newest.position) or {}, ends)

    wait_until(read_up, SECONDS)
    wait_until(lambda: all(state.pending.empty for state in gate_states(lake)), SECONDS)
    wait_until(lambda: all(record.dagster_run.is_finished for record in cycles(instance)), SECONDS)
    sent = [row[0] for row in query(lake, "select event_id from bronze.raw_events").rows]
    published = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    found_ids = [row[0] for row in query(lake, published).rows]
    account.settle(number, fault, sent=sent, found=found_ids, tries=tries)
    [(silver,)] = query(lake, "select count(*) from silver.cleaned_events").rows
    [(gold,)] = query(lake, "select sum(total_events) from gold.hourly_stats").rows
    assert gold == silver
    assert_no_overlap(instance)
    assert_each_snapshot_is_reported_once(instance, lake)


def assert_no_overlap(instance: dg.DagsterInstance) -> None:
    spans = sorted((r.start_time, r.end_time) for r in cycles(instance) if r.start_time and r.end_time)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def assert_each_snapshot_is_reported_once(instance: dg.DagsterInstance, lake: Lakehouse) -> None:
    """The sensor's events, which belong to no run: one for each batch, from its first look on."""
    batches = [str(v.snapshot_id) for v in lake.history(RAW_EVENTS) if v.position is not None][::-1]
    records = instance.fetch_materializations(asset_key(RAW_EVENTS), limit=5_000).records
    reported = [
        str(record.asset_materialization.metadata["snapshot"].value)
        for record in records
        if record.asset_materialization is not None and not record.run_id
    ][::-1]
    assert reported
    first = batches.index(reported[0])
    assert reported == batches[first : first + len(reported)]
