"""What a purge leaves of Dagster's history: on a real instance with this project's storages, whose past is made old by hand."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.tags import get_multidimensional_partition_tag

from wikistream_assets.definitions import defs
from wikistream_assets.instance import history
from wikistream_assets.instance.cycles import CYCLE, last_cycle
from wikistream_assets.instance.history import Bounds, Purged, purge
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.settings import Settings
from wikistream_assets.supervision.cycle_loop import Ended

pytestmark = pytest.mark.local

_NOTHING = Purged(0, 0, 0)
_BRONZE = dg.AssetKey(["bronze", "raw_events"])
_LETTERS = dg.AssetKey(["bronze", "dead_letter"])
_SILVER = dg.AssetKey(["silver", "t"])
_CHECK = dg.AssetCheckKey(_SILVER, "gate")


def a_week_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=7)


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that what is set below does not outlive the test
    with dagster_instance(settings) as instance:
        yield instance


@dg.op(config_schema={"ok": bool})
def work(context: dg.OpExecutionContext) -> None:
    print("at work")
    if not context.op_config["ok"]:
        raise dg.Failure("the disk is full")


@dg.job
def nightly() -> None:
    work()


@dg.job(name=CYCLE)
def cycle() -> None:
    work()


@dg.asset(
    key=_SILVER,
    check_specs=[dg.AssetCheckSpec(_CHECK.name, asset=_SILVER)],
    config_schema={"ok": bool},
)
def table(context: dg.AssetExecutionContext) -> Iterator[object]:
    if not context.op_execution_context.op_config["ok"]:
        raise dg.Failure("the disk is full")
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(asset_key=_SILVER, check_name=_CHECK.name, passed=True)


def run(instance: dg.DagsterInstance, job: dg.JobDefinition, *, ok: bool = True) -> str:
    config = {"ops": {"work": {"config": {"ok": ok}}}}
    return job.execute_in_process(config, instance=instance, raise_on_error=False).run_id


def run_table(instance: dg.DagsterInstance, *, ok: bool = True) -> str:
    config = {"ops": {"silver__t": {"config": {"ok": ok}}}}
    return dg.materialize([table], instance=instance, run_config=config, raise_on_error=False).run_id


def event_log(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    return storage


def grow_old(instance: dg.DagsterInstance) -> None:
    """Let all that is there have happened ten days ago."""
    then = (datetime.now(UTC) - timedelta(days=10)).replace(tzinfo=None)
    runs = instance.run_storage
    assert isinstance(runs, SqlRunStorage)
    with runs.connect() as connection:
        connection.execute(RunsTable.update().values(update_timestamp=then, create_timestamp=then))
    with event_log(instance).index_connection() as connection:
        connection.execute(SqlEventLogStorageTable.update().values(timestamp=then))
        connection.execute(
            AssetCheckExecutionsTable.update().values(create_timestamp=then, evaluation_event_timestamp=then)
        )


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    return {found.run_id for found in instance.get_runs()}


def events(instance: dg.DagsterInstance) -> list[tuple[Any, ...]]:
    """Id, run, kind and asset of each event, oldest first."""
    event = SqlEventLogStorageTable.c
    query = sa.select(event.id, event.run_id, event.dagster_event_type, event.asset_key).order_by(event.id)
    with event_log(instance).index_connection() as connection:
        return [tuple(row) for row in connection.execute(query)]


def runless(instance: dg.DagsterInstance) -> Counter[tuple[str, str | None]]:
    """How many events that belong to no run there are of each kind and asset."""
    return Counter((kind, asset) for _, run_id, kind, asset in events(instance) if run_id == "")


def materialize(instance: dg.DagsterInstance, *keys: dg.AssetKey) -> None:
    """As the sensor on Bronze does, without a run."""
    for key in keys:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(key, tags={get_multidimensional_partition_tag("day"): "1"})
        )


# ---- runs -------------------------------------------------------------------------------------------------------------


def test_old_runs_go_with_events_and_logs_and_the_newest_that_ended_of_each_job_stays(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    old = {run(instance, nightly), run(instance, cycle), run(instance, nightly, ok=False)}
    newest = {run(instance, nightly, ok=False), run(instance, cycle)}
    waiting = dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus.NOT_STARTED)
    working = dg.DagsterRun(job_name="nightly", status=dg.DagsterRunStatus.STARTED)
    for unfinished in (waiting, working):
        instance.add_run(unfinished)
    logs = settings.dagster_home / "storage"
    assert old | newest <= {folder.name for folder in logs.iterdir()}
    grow_old(instance)
    assert purge(instance, a_week_ago()).runs == len(old)
    assert run_ids(instance) == newest | {waiting.run_id, working.run_id}
    assert {run_id for _, run_id, _, _ in events(instance)} == newest
    assert not old & {folder.name for folder in logs.iterdir()}
    last = last_cycle(instance)
    assert last is not None
    assert (last.run_id in newest, last.ended) == (True, Ended.PASSED), "the loop still knows how the last cycle ended"
    assert purge(instance, a_week_ago()) == _NOTHING, "done again, it finds nothing more to do"


def test_young_runs_stay(instance: dg.DagsterInstance) -> None:
    old = run(instance, nightly)
    grow_old(instance)
    young = [run(instance, nightly) for _ in range(3)]
    assert purge(instance, a_week_ago()).runs == 1
    assert run_ids(instance) == set(young)
    assert old not in run_ids(instance)


def test_a_run_that_is_the_last_word_on_a_table_stays_until_there_is_another(instance: dg.DagsterInstance) -> None:
    run_table(instance)
    told, failed = run_table(instance), run_table(instance, ok=False)
    before = instance.get_latest_materialization_event(_SILVER)
    grow_old(instance)
    purge(instance, a_week_ago())
    assert run_ids(instance) == {told, failed}
    assert instance.get_latest_materialization_event(_SILVER) == before
    now = run_table(instance)
    purge(instance, a_week_ago())
    assert run_ids(instance) == {now}


def test_a_purge_that_is_killed_leaves_no_events_that_nobody_finds(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, newest = run(instance, nightly), run(instance, nightly)
    grow_old(instance)
    for storage, step in ((instance.event_log_storage, "delete_events"), (instance.run_storage, "delete_run")):
        with monkeypatch.context() as patch:
            patch.setattr(type(storage), step, _killed)
            with pytest.raises(KeyboardInterrupt):
                purge(instance, a_week_ago())
        assert run_ids(instance) == {old, newest}, "the next purge finds it"
    assert purge(instance, a_week_ago()).runs == 1
    assert {run_id for _, run_id, _, _ in events(instance)} == {newest}


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


# ---- events without a run ---------------------------------------------------------------------------------------------


def test_old_events_of_no_run_go_and_the_newest_of_each_asset_and_kind_stays(instance: dg.DagsterInstance) -> None:
    materialize(instance, _BRONZE, _LETTERS, _BRONZE, _LETTERS, _BRONZE)
    for _ in range(2):
        instance.report_runless_asset_event(dg.AssetObservation(_BRONZE))
        instance.report_runless_asset_event(
            FreshnessStateChange(
                key=_BRONZE,
                new_state=FreshnessState.PASS,
                previous_state=FreshnessState.FAIL,
                state_change_timestamp=1.0,
            )
        )
    grow_old(instance)
    materialize(instance, _BRONZE, _BRONZE)
    last = {key: instance.get_latest_materialization_event(key) for key in (_BRONZE, _LETTERS)}
    freshness = event_log(instance).get_freshness_state_records([_BRONZE])
    assert purge(instance, a_week_ago()) == Purged(runs=0, events=6, check_results=0)
    bronze, letters = _BRONZE.to_string(), _LETTERS.to_string()
    assert runless(instance) == {
        ("ASSET_MATERIALIZATION", bronze): 2,
        ("ASSET_MATERIALIZATION", letters): 1,
        ("ASSET_OBSERVATION", bronze): 1,
        ("FRESHNESS_STATE_CHANGE", bronze): 1,
    }
    assert {key: instance.get_latest_materialization_event(key) for key in last} == last
    assert event_log(instance).get_freshness_state_records([_BRONZE]) == freshness
    with event_log(instance).index_connection() as connection:
        tagged = connection.execute(sa.select(AssetEventTagsTable.c.event_id)).scalars().all()
    assert sorted(tagged) == [number for number, _, kind, _ in events(instance) if kind == "ASSET_MATERIALIZATION"]
    assert purge(instance, a_week_ago()) == _NOTHING


def test_no_id_is_given_twice_because_the_highest_stays(instance: dg.DagsterInstance) -> None:
    """A sensor's cursor is the id of the last event it has seen: one with a lower id would never be seen."""
    old, newest = run(instance, nightly), run(instance, nightly)
    instance.report_engine_event("a word too late", instance.get_run_by_id(old))
    cursor = events(instance)[-1][0]
    grow_old(instance)
    purge(instance, a_week_ago())
    assert run_ids(instance) == {old, newest}
    materialize(instance, _BRONZE)
    assert events(instance)[-1][0] > cursor
    assert purge(instance, a_week_ago()).runs == 1


# ---- check results ----------------------------------------------------------------------------------------------------


def check_results(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    check = AssetCheckExecutionsTable.c
    with event_log(instance).index_connection() as connection:
        query = sa.select(check.run_id, check.execution_status).order_by(check.id)
        return [(run_id, status) for run_id, status in connection.execute(query)]


def test_old_check_results_go_and_the_newest_of_each_check_stays(instance: dg.DagsterInstance) -> None:
    run_table(instance)
    run_table(instance)
    other = dg.AssetCheckKey(_BRONZE, "other")
    for _ in range(3):
        instance.report_runless_asset_event(
            AssetCheckEvaluation(asset_key=_BRONZE, check_name=other.name, passed=False, metadata={})
        )
    materialize(instance, _LETTERS)  # has the highest id, which would stay whatever it is
    grow_old(instance)
    latest = event_log(instance).get_latest_asset_check_execution_by_key([_CHECK, other])
    assert purge(instance, a_week_ago()) == Purged(runs=1, events=2, check_results=3)
    after = event_log(instance).get_latest_asset_check_execution_by_key([_CHECK, other])
    assert {key: (it.id, it.status) for key, it in after.items()} == {k: (v.id, v.status) for k, v in latest.items()}
    assert len(check_results(instance)) == 2
    assert runless(instance) == {
        ("ASSET_CHECK_EVALUATION", None): 1,
        ("ASSET_MATERIALIZATION", _LETTERS.to_string()): 1,
    }
    assert purge(instance, a_week_ago()) == _NOTHING


def test_a_result_is_not_replaced_by_one_that_was_only_planned(instance: dg.DagsterInstance) -> None:
    run_table(instance)
    told, failed = run_table(instance), run_table(instance, ok=False)
    grow_old(instance)
    purge(instance, a_week_ago())
    assert check_results(instance) == [(told, "SUCCEEDED"), (failed, "PLANNED")]


# ---- bounds -----------------------------------------------------------------------------------------------------------


def test_a_purge_does_no_more_than_it_may_and_begins_with_the_oldest(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_ROWS", 2)
    runs = [run(instance, nightly) for _ in range(4)]
    materialize(instance, *[_BRONZE] * 6)
    grow_old(instance)
    assert purge(instance, a_week_ago(), Bounds(seconds=0.0)) == _NOTHING
    assert purge(instance, a_week_ago(), Bounds(runs=1, batches=1)) == Purged(runs=1, events=2, check_results=0)
    assert run_ids(instance) == set(runs[1:])
    assert purge(instance, a_week_ago(), Bounds(runs=1, batches=2)) == Purged(runs=1, events=3, check_results=0)
    assert run_ids(instance) == set(runs[2:])


def test_between_two_batches_others_can_write(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_ROWS", 3)
    materialize(instance, *[_BRONZE] * 10)
    grow_old(instance)
    storage = event_log(instance)
    file = Path(str(storage.get_db_path()))  # type: ignore[attr-defined]
    connect, written = storage.index_connection, []

    @contextmanager
    def after_another_writer() -> Iterator[sa.Connection]:
        with closing(sqlite3.connect(file, timeout=0)) as other, other:  # does not wait: it has to be free
            written.append(other.execute("UPDATE event_logs SET step_key = 'x' WHERE id = 10").rowcount)
        with connect() as connection:
            yield connection

    def opened() -> AbstractContextManager[sa.Connection]:
        return after_another_writer()

    monkeypatch.setattr(storage, "index_connection", opened)
    assert purge(instance, a_week_ago()).events == 9
    assert len(written) > 6, "a batch is a transaction"


def test_each_turn_is_followed_by_a_rest_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, rests = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        rests.append(seconds)

    monkeypatch.setattr(history.time, "monotonic", lambda: now)
    monkeypatch.setattr(history.time, "sleep", sleep)
    for _ in history._turns(10.0):
        now += 2.0
    assert rests == [2.0, 2.0, 2.0]


# ---- in Dagster -------------------------------------------------------------------------------------------------------


def test_the_job_keeps_as_many_days_as_the_setting_says(
    instance: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_HOME", str(settings.root))
    old, newest = run(instance, nightly), run(instance, nightly)
    grow_old(instance)
    job = defs().resolve_job_def("purge_history")
    for days, left in (("11", {old, newest}), ("9", {newest})):
        monkeypatch.setenv("WIKISTREAM_DAGSTER_HISTORY_DAYS", days)
        assert job.execute_in_process(instance=instance).success
        assert {found.run_id for found in instance.get_runs(dg.RunsFilter(job_name="nightly"))} == left


def test_dagster_forgets_ticks_itself(instance: dg.DagsterInstance) -> None:
    sensors = instance.get_tick_retention_settings(InstigatorType.SENSOR)
    schedules = instance.get_tick_retention_settings(InstigatorType.SCHEDULE)
    assert all(days > 0 for days in [*sensors.values(), *schedules.values()])
    assert sensors[TickStatus.SKIPPED] < sensors[TickStatus.SUCCESS]
