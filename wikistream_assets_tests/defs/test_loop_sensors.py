"""The sensors that keep the pipeline going, ticked on a real instance, lake and broker: what they report and what they start."""

import json
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import MAX_RETRIES_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution

from producer.cursor import RecordedGap
from producer.position import Gap
from wikistream_assets.alerts import Alert, AlertKind, Alerts
from wikistream_assets.defs.bronze.assets import source_without_gap
from wikistream_assets.defs.ops.loop import cycle_loop
from wikistream_assets.defs.ops.stream import STREAM, bronze_freshness
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.engine.batch import Counts
from wikistream_assets.exceptions import ClockBehindError
from wikistream_assets.instance.cycles import CYCLE, last_cycle
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import Masked, summary_properties
from wikistream_assets.resources.local import LOCAL_RESOURCES, LocalBroker, LocalLake, LocalStreamSupervisor
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.supervision.cycle_loop import Ended
from wikistream_assets.supervision.stream_control import StreamState
from wikistream_assets_tests.conftest import free_port
from wikistream_assets_tests.kafka_records import advance_producer, event_message, produce
from wikistream_assets_tests.lake.lakes import arrow, full_row, set_clock_back

_RESOURCES = dict(LOCAL_RESOURCES)


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that are also those of the environment, as the sensors read them; nothing is waited for."""
    monkeypatch.setenv("WIKISTREAM_HOME", str(settings.home))
    monkeypatch.setenv("WIKISTREAM_KAFKA_PORT", str(settings.kafka_port))
    for name in ("FIRST", "PAUSE", "BLOCKED"):
        monkeypatch.setenv(f"WIKISTREAM_CYCLE_{name}_SECONDS", "0")
    return settings


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    configured = yaml.safe_load(files("wikistream_assets.embedded").joinpath("dagster.yaml").read_text())
    with dg.instance_for_test({"run_retries": configured["run_retries"]}) as instance:
        yield instance


def commit(lake: Lakehouse, number: int, youngest: int = 100) -> dict[str, Any]:
    """A batch of one row, as the stream commits it; returns its counts."""
    batch, total = Counts(3, 1, 1, 1), Counts(3 * number, number, number, number)
    lag = {"p0": youngest, "p50": 900 + number, "p95": 1900 + number, "p99": 2900 + number}
    counts = {"batch": asdict(batch), "total": asdict(total), "milliseconds": 400 + number, "lag_ms": lag}
    properties = summary_properties({"raw-events": {"0": 3 * number}}, counts)
    lake.append(RAW_EVENTS, arrow(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=str(number))), properties)
    return counts


class Freshness:
    """The sensor, ticked by hand; keeps its cursor from tick to tick as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self.cursor: str | None = None

    def tick(self) -> list[Any]:
        """The events about Bronze's table."""
        with dg.build_sensor_context(self._instance, cursor=self.cursor, resources=_RESOURCES) as context:
            result = bronze_freshness(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return [event for event in result.asset_events if event.asset_key == dg.AssetKey(["bronze", "raw_events"])]


# ---- bronze_freshness -------------------------------------------------------------------------------------------------


@pytest.mark.kafka
@pytest.mark.parametrize(("hours", "passed"), [(1, False), (25, True)])
def test_a_gap_of_the_source_is_a_red_check_for_a_day(
    home: Settings, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch, hours: int, passed: bool
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    now = datetime.now(UTC)
    gap = RecordedGap(Gap("[1]", "[2]"), (now - timedelta(hours=hours)).isoformat())
    settings = load_settings()
    open_home(settings)
    advance_producer(settings, now, gap)
    result = source_without_gap(broker=LocalBroker())
    assert isinstance(result, dg.AssetCheckResult)
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert result.metadata["gaps"].value == ([] if passed else [gap.as_dict()])


@pytest.mark.kafka
def test_a_gap_that_the_producer_has_recorded_is_told_once(
    home: Settings, instance: dg.DagsterInstance, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    now, settings = datetime.now(UTC), load_settings()
    open_home(settings)
    freshness = Freshness(instance)
    advance_producer(settings, now)
    freshness.tick()
    assert source_gaps(home) == []
    first, second = "2026-02-03T04:05:06+00:00", "2026-02-03T05:06:07+00:00"
    advance_producer(settings, now, RecordedGap(Gap("[1]", "[2]"), first))
    told = [("fired", first, {"after": "[1]", "before": "[2]", "detected_at": first})]
    for _ in range(2):
        freshness.tick()
        assert source_gaps(home) == told
    freshness.cursor = None  # what the sensor remembers is gone, what was told is not
    freshness.tick()
    assert source_gaps(home) == told
    advance_producer(settings, now, RecordedGap(Gap("[1]", "[2]"), first), RecordedGap(Gap("[3]", "[4]"), second))
    told.append(("fired", second, {"after": "[3]", "before": "[4]", "detected_at": second}))
    for _ in range(2):
        freshness.tick()
        assert source_gaps(home) == told


def source_gaps(settings: Settings) -> list[tuple[str, str, dict[str, str]]]:
    """(event, subject, details) of each line of the alert log about a gap."""
    path = settings.root / "logs" / "alerts.jsonl"
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return [(line["event"], line["subject"], line["details"]) for line in lines if line["kind"] == "source_gap"]


@pytest.mark.kafka
def test_each_snapshot_is_one_materialization_with_rows_and_lag(
    home: Settings, instance: dg.DagsterInstance, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    lake = LocalLake().open()
    freshness = Freshness(instance)
    assert freshness.tick() == []
    commit(lake, 1)
    assert [event.metadata["dagster/row_count"].value for event in freshness.tick()] == [1]
    assert freshness.tick() == [], "each once"
    expected = [commit(lake, 2), commit(lake, 3)]
    found = freshness.tick()
    assert {type(event) for event in found} == {dg.AssetMaterialization}
    assert [event.metadata["dagster/row_count"].value for event in found] == [2, 3]
    for event, counts in zip(found, expected, strict=True):
        figures = {name: event.metadata[name].value for name in ("records", "rows", "dead letters", "duplicates")}
        assert figures == {"records": 3, "rows": 1, "dead letters": 1, "duplicates": 1}
        assert event.metadata["batch ms"].value == counts["milliseconds"]
        assert {p: event.metadata[f"lag {p} ms"].value for p in ("p0", "p50", "p95", "p99")} == counts["lag_ms"]
    head = lake.state(RAW_EVENTS).head()
    assert head is not None
    assert found[-1].metadata["snapshot"].value == str(head.snapshot_id)
    assert json.loads(freshness.cursor or "")["reported"] == head.snapshot_id


def test_a_broker_that_comes_back_by_itself_does_not_break_the_cycle_at_the_gap_check(home: Settings) -> None:
    open_home(home)
    choose_source(home, "synthetic")
    with pytest.raises(dg.RetryRequested):
        source_without_gap(broker=LocalBroker())


@pytest.mark.kafka
@pytest.mark.parametrize("older_version", [False, True])
def test_a_rollback_of_bronze_reports_nothing_again(
    home: Settings,
    instance: dg.DagsterInstance,
    fresh_topics: Broker,
    monkeypatch: pytest.MonkeyPatch,
    older_version: bool,
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    lake, freshness = LocalLake().open(), Freshness(instance)
    snapshots = []
    for number in (1, 2, 3):
        commit(lake, number)
        assert len(freshness.tick()) == 1
        snapshots.append(lake.state(RAW_EVENTS).head_id())
    if older_version:  # whose cursor does not say when the reported snapshot was committed
        freshness.cursor = json.dumps({**json.loads(freshness.cursor or ""), "reported_at": None})
    lake.reset_main(RAW_EVENTS, snapshots[1])
    assert len(freshness.tick()) == (1 if older_version else 0), "the newest one at most"
    for number in (3, 4):
        commit(lake, number)
    assert [event.metadata["dagster/row_count"].value for event in freshness.tick()] == [3, 4]
    assert freshness.tick() == []


@pytest.mark.kafka
def test_a_backfill_of_last_week_does_not_turn_bronze_green(
    home: Settings, instance: dg.DagsterInstance, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    lake = LocalLake().open()
    commit(lake, 1)
    freshness = Freshness(instance)
    freshness.tick()
    day = 86_400_000
    for number, (youngest, kind) in enumerate(((day + 1, dg.AssetObservation), (day, dg.AssetMaterialization)), 2):
        commit(lake, number, youngest)
        (event,) = freshness.tick()
        assert type(event) is kind
    capture = tmp_path / "capture.jsonl"
    capture.write_text("{}\n")
    choose_source(home, str(capture))
    commit(lake, 4, 1000 * day)
    assert [type(event) for event in freshness.tick()] == [dg.AssetMaterialization], "a capture's events are all old"


class WellKept:
    """A keeper whose stream has been running for a minute."""

    def state(self) -> StreamState:
        return StreamState(True, "1:0", datetime.now(UTC) - timedelta(minutes=1), None, "RUNNING")

    def restart(self, instance: str | None) -> bool:
        return False


class Restarting(WellKept):
    """A keeper that counts how often it was asked to restart a stream that has been running for an hour."""

    restarts = 0

    def state(self) -> StreamState:
        return replace(super().state(), since=datetime.now(UTC) - timedelta(hours=1))

    def restart(self, instance: str | None) -> bool:
        self.restarts += 1
        return True


@pytest.mark.kafka
def test_masking_is_no_commit_of_the_stream(
    home: Settings, instance: dg.DagsterInstance, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    monkeypatch.setattr(LocalStreamSupervisor, "control", lambda self: WellKept())
    lake, alerts, freshness = LocalLake().open(), Alerts(home), Freshness(instance)
    commit(lake, 1)
    assert len(freshness.tick()) == 1
    alerts.fire(Alert(AlertKind.STREAM_GIVEN_UP, STREAM, "5 restarts did not help"))
    given_up = {"tries": 5, "tried_at": datetime.now(UTC).isoformat(), "given_up": True}
    freshness.cursor = json.dumps({**json.loads(freshness.cursor or ""), **given_up})
    lake.mark_masked(RAW_EVENTS, Masked("2026-01-01"))
    assert freshness.tick() == []
    assert json.loads(freshness.cursor)["given_up"]
    assert alerts.is_open(AlertKind.STREAM_GIVEN_UP, STREAM)
    commit(lake, 2)
    assert len(freshness.tick()) == 1
    assert not json.loads(freshness.cursor)["given_up"]
    assert not alerts.is_open(AlertKind.STREAM_GIVEN_UP, STREAM)


@pytest.mark.kafka
def test_a_stream_that_waits_for_the_clock_is_not_restarted(
    home: Settings, instance: dg.DagsterInstance, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", fresh_topics.bootstrap_servers)
    keeper = Restarting()
    monkeypatch.setattr(LocalStreamSupervisor, "control", lambda self: keeper)
    lake, freshness = LocalLake().open(), Freshness(instance)
    produce(fresh_topics.bootstrap_servers, [event_message("waits", "{}")])
    commit(lake, 1)
    freshness.tick()
    long_ago = {"waiting_on": lake.state(RAW_EVENTS).head_id(), "waiting_since": "2026-01-01T00:00:00+00:00"}
    kept = {**json.loads(freshness.cursor or ""), **long_ago}
    for seconds, verdict, restarts in ((3_600, "the clock is", 0), (0, "stalled", 1)):
        set_clock_back(lake, RAW_EVENTS, seconds)
        freshness.cursor = json.dumps(kept)
        with dg.build_sensor_context(instance, cursor=freshness.cursor, resources=_RESOURCES) as context:
            result = bronze_freshness(context)
        assert isinstance(result, dg.SensorResult)
        assert str(result.skip_reason.skip_message if result.skip_reason else "").startswith(verdict)
        assert keeper.restarts == restarts


# ---- cycle_loop -------------------------------------------------------------------------------------------------------


@dg.asset(
    key=["silver", "t"],
    check_specs=[dg.AssetCheckSpec("gate", asset=["silver", "t"], blocking=True)],
    config_schema={"ends": str},
)
def table(context: dg.AssetExecutionContext) -> Iterator[object]:
    ends = context.op_execution_context.op_config["ends"]
    if ends == "broken":
        raise ValueError("the disk is full")
    if ends == "delayed":
        raise ClockBehindError("the clock is 3600 s behind")
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(asset_key=["silver", "t"], check_name="gate", passed=ends == "passed")


def run_cycle(instance: dg.DagsterInstance, ends: str) -> str:
    """A small job by the name of the cycle, that ends in this way; its run id."""
    definitions = dg.Definitions(assets=[table], jobs=[dg.define_asset_job(CYCLE, selection=[table])])
    config = {"ops": {"silver__t": {"config": {"ends": ends}}}}
    job = definitions.resolve_job_def(CYCLE)
    return job.execute_in_process(config, instance=instance, raise_on_error=False).run_id


def tick_loop(instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """The request, or the reason why there is none, where the pipeline is up: somebody listens at the broker's port."""
    resources = _RESOURCES
    with (
        socket.create_server(("127.0.0.1", load_settings().kafka_port)),
        dg.build_sensor_context(instance, resources=resources) as context,
    ):
        told = cycle_loop(context)
    if isinstance(told, dg.SkipReason):
        return told.skip_message or ""
    assert isinstance(told, dg.RunRequest)
    return told


@pytest.mark.local
def test_one_cycle_follows_the_other_and_a_broken_one_waits_for_a_person(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tick_loop(instance) == "Bronze is empty: nothing has arrived yet"
    commit(LocalLake().open(), 1)
    assert tick_loop(instance) == dg.RunRequest(run_key="cycle-first")
    for ends in ("passed", "blocked"):
        run_id = run_cycle(instance, ends)
        assert tick_loop(instance) == dg.RunRequest(run_key=f"cycle-after-{run_id}"), ends
    monkeypatch.setenv("WIKISTREAM_CYCLE_AFTER_FAILED_GATE", "stop")
    assert str(tick_loop(instance)).startswith(f"a gate closed in run {run_id}")
    broken = run_cycle(instance, "broken")
    for profile in ("stop", "continue"):
        monkeypatch.setenv("WIKISTREAM_CYCLE_AFTER_FAILED_GATE", profile)
        assert str(tick_loop(instance)).startswith(f"run {broken} failed or was cancelled")
    mended = run_cycle(instance, "passed")
    assert tick_loop(instance) == dg.RunRequest(run_key=f"cycle-after-{mended}")
    monkeypatch.setenv("WIKISTREAM_CYCLE_AFTER_FAILED_GATE", "stop")
    once = {"dagster/max_retries": "0"}
    assert tick_loop(instance) == dg.RunRequest(run_key=f"cycle-after-{mended}", tags=once), (
        "nor is a killed one retried"
    )


@pytest.mark.local
def test_a_clock_that_was_set_back_delays_the_loop_and_does_not_stop_it(
    home: Settings, instance: dg.DagsterInstance
) -> None:
    lake = LocalLake().open()
    commit(lake, 1)
    delayed = run_cycle(instance, "delayed")
    set_clock_back(lake, RAW_EVENTS, 3_600)
    assert re.match(r"the clock is 3\d\d\d s behind the newest commit of bronze\.raw_events", str(tick_loop(instance)))
    set_clock_back(lake, RAW_EVENTS, 0)
    assert tick_loop(instance) == dg.RunRequest(run_key=f"cycle-after-{delayed}")


def killed_cycle(instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> str:
    """A cycle whose process is gone while there is no code server; its run id, after Dagster has done with it what it does."""
    location = GrpcServerCodeLocationOrigin("127.0.0.1", free_port(), location_name="wikistream")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), CYCLE)
    run = dg.DagsterRun(
        job_name=CYCLE, status=dg.DagsterRunStatus.STARTED, remote_job_origin=origin, tags=dict(tags or {})
    )
    instance.add_run(run)
    instance.report_run_failed(run, "process 4711 is gone")
    assert str(tick_loop(instance)).startswith(f"run {run.run_id} failed"), "Dagster may start it again"
    records = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        list(consume_new_runs_for_automatic_reexecution(workspace, records, logging.getLogger()))
    return run.run_id


@pytest.mark.local
def test_a_killed_cycle_that_dagster_could_not_start_again_is_followed_by_the_next(
    home: Settings, instance: dg.DagsterInstance
) -> None:
    commit(LocalLake().open(), 1)
    run_id = killed_cycle(instance)
    assert len(instance.get_run_records()) == 1, "Dagster's retry wants the code server, and is tried once"
    assert tick_loop(instance) == dg.RunRequest(run_key=f"cycle-after-{run_id}")
    run_id = killed_cycle(instance, {MAX_RETRIES_TAG: "0"})
    assert str(tick_loop(instance)).startswith(f"run {run_id} failed or was cancelled")


@pytest.mark.local
@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTED", "CANCELING"])
def test_a_cycle_that_waits_or_works_is_the_only_one(home: Settings, instance: dg.DagsterInstance, status: str) -> None:
    commit(LocalLake().open(), 1)
    run = dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus(status))
    instance.add_run(run)
    assert tick_loop(instance) == f"cycle {run.run_id} is not done yet"
    assert last_cycle(instance) is None


@pytest.mark.local
def test_how_a_cycle_ended(home: Settings, instance: dg.DagsterInstance) -> None:
    for how in ("passed", "blocked", "broken", "delayed"):
        run_id = run_cycle(instance, how)
        last = last_cycle(instance)
        assert last is not None
        assert (last.run_id, last.ended) == (run_id, Ended(how))
        assert last.seconds is not None
        assert 0 < last.seconds < 600
    cancelled = dg.DagsterRun(job_name=CYCLE, status=dg.DagsterRunStatus.CANCELED)
    instance.add_run(cancelled)
    last = last_cycle(instance)
    assert last is not None
    assert (last.run_id, last.ended, last.seconds) == (cancelled.run_id, Ended.BROKEN, None)
