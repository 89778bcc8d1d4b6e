"""The loop under fire: daemon, code server and the run itself are killed (case 23), Dagster's database is an old one again.

The controls are Dagster's own launcher, and a loader that keeps its place in Dagster's database.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from wikistream_assets.components.events import asset_key
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.gate_control import gate_states
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.instance.run_launcher import HANDED_OVER
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import query
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, QUARANTINE, RAW_EVENTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.engine.bronze_lakes import event_ids
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.faults.conftest import Account, cycled_hashes
from wikistream_assets_tests.instance.test_run_launcher import ended_process, monitored, started_run
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.running import (
    SECONDS,
    cycles,
    kill_family,
    pid_of,
    sent,
    wait_for_success,
    wait_for_work,
    wait_until_read,
)

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.spark]


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


def test_23_daemon_code_server_and_run_are_killed(
    home: Settings, settings_factory: SettingsFactory, instance: dg.DagsterInstance, account: Account
) -> None:
    wait_for_success(instance)
    assert any(HANDED_OVER in record.dagster_run.tags for record in cycles(instance)), "the run is the worker's"
    for victims in (("run",), ("daemon",), ("code", "run")):
        _, worker = wait_for_work(instance)
        pids = {"run": worker} | {name: pid_of(home, name) for name in ("code", "daemon")}
        for victim in victims:
            (kill_family if victim != "daemon" else lambda pid: os.kill(pid, signal.SIGKILL))(pids[victim])
        wait_for_success(instance)
    wait_for_work(instance)
    services.down(home)
    assert "killing" not in (home.root / "logs" / "supervisord.log").read_text(), "the worker goes when it is told to"
    services.up(home, "synthetic")
    wait_for_success(instance)
    assert_all_published(
        home,
        settings_factory,
        instance,
        account,
        "23",
        "daemon, code server and run worker kill -9, and stopped",
        tries=4,
        kills=4,
    )


def test_dagsters_database_is_restored_from_a_backup(
    home: Settings, settings_factory: SettingsFactory, tmp_path: Path, account: Account
) -> None:
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
        assert_all_published(
            home, settings_factory, instance, account, "more", "Dagster's database restored from a backup"
        )


def test_23_control_dagsters_own_launcher(tmp_path: Path, account: Account) -> None:
    """A run whose process is gone stays "started" for ever; a loop that waits for its end publishes nothing any more."""
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_monitoring": {"enabled": True}}) as instance:
        run_id = started_run(instance, ended_process())
        done = [run_id] if monitored(instance, run_id) in FINISHED_STATUSES else []
    fault = "a run killed with its process; Dagster's own launcher, which does not notice"
    account.settle("23", fault, sent=[run_id], found=done, control=True)


def test_control_a_place_kept_in_dagsters_database(
    lake: Lakehouse, settings: Settings, account: Account, tmp_path: Path
) -> None:
    """Restored from a backup, the database is behind the tables, and what was loaded since is loaded again."""
    gates, rows, backup = GateLake(settings), clean_rows(RAW_EVENTS), tmp_path / "backup"

    def load(until: int) -> None:
        with dagster_instance(settings) as instance:
            cursors = instance.daemon_cursor_storage
            place = int(cursors.get_cursor_values({"place"}).get("place", "0"))
            gates.add_bronze(rows[place:until])
            cursors.set_cursor_values({"place": str(until)})

    load(300)
    shutil.copytree(settings.dagster_home, backup)
    load(600)
    shutil.rmtree(settings.dagster_home)
    shutil.copytree(backup, settings.dagster_home)
    load(900)
    fault = "Dagster's database restored from a backup; a loader that keeps its place there"
    sent = (row["event_id"] for row in rows)
    account.settle("more", fault, sent=sent, found=event_ids(lake), control=True)


def assert_all_published(
    home: Settings,
    settings_factory: SettingsFactory,
    instance: dg.DagsterInstance,
    account: Account,
    number: str,
    fault: str,
    tries: int = 1,
    kills: int = 0,
) -> None:
    """Let the loop publish all there is, then hold what was sent against what came out."""
    supervisor.call(home, "stopProcess", "producer")
    wait_until_read(home)
    lake = local_lake(home)
    wait_until(lambda: all(state.pending.empty for state in gate_states(lake)), SECONDS)
    wait_until(lambda: all(record.dagster_run.is_finished for record in cycles(instance)), SECONDS)
    ids, _ = sent(home)
    published = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    found_ids = [row[0] for row in query(lake, published).rows]
    account.settle(number, fault, sent=ids.elements(), found=found_ids, tries=tries, kills=kills)
    [(silver,)] = query(lake, "select count(*) from silver.cleaned_events").rows
    [(gold,)] = query(lake, "select sum(total_events) from gold.hourly_stats").rows
    assert gold == silver
    assert table_hashes(lake) == cycled_hashes(settings_factory(bootstrap_servers=home.bootstrap_servers))
    assert_no_overlap(instance)
    assert_each_snapshot_is_reported_once(instance, lake)
    assert_each_publication_is_told_once(instance)


def assert_no_overlap(instance: dg.DagsterInstance) -> None:
    spans = sorted((r.start_time, r.end_time) for r in cycles(instance) if r.start_time and r.end_time)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def assert_each_snapshot_is_reported_once(instance: dg.DagsterInstance, lake: Lakehouse) -> None:
    """The sensor's events, which belong to no run: one for each batch, from its first look on."""
    batches = [str(v.snapshot_id) for v in lake.state(RAW_EVENTS).history() if v.position is not None][::-1]
    records = instance.fetch_materializations(asset_key(RAW_EVENTS), limit=5_000).records
    reported = [
        str(record.asset_materialization.metadata["snapshot"].value)
        for record in records
        if record.asset_materialization is not None and not record.run_id
    ][::-1]
    assert reported
    first = batches.index(reported[0])
    assert reported == batches[first : first + len(reported)]


def assert_each_publication_is_told_once(instance: dg.DagsterInstance) -> None:
    """Of Silver and Gold: no two runs say of the same snapshot that they have published it."""
    for spec in (CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES):
        records = instance.fetch_materializations(asset_key(spec), limit=5_000).records
        told = {
            (str(record.asset_materialization.metadata["snapshot"].value), record.run_id)
            for record in records
            if record.asset_materialization is not None
            and record.asset_materialization.metadata["published something new"].value
        }
        assert told, spec.identifier
        assert len({snapshot for snapshot, _ in told}) == len(told), spec.identifier
