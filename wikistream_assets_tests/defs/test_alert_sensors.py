"""The sensors on a real instance with this project's event storage, fed by real runs of small jobs."""

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from wikistream_assets.alerts import Alert, AlertKind, Alerts, store
from wikistream_assets.components.events import SOURCE_WITHOUT_GAP
from wikistream_assets.defs.ops import alerts as sensors
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.exceptions import NewsNotKeptError
from wikistream_assets.instance.run_launcher import TOOK_TOO_LONG
from wikistream_assets.lake.state import AUDITED_TAG, summary_properties
from wikistream_assets.resources.local import LOCAL_RESOURCES, LocalLake
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS, RISK_SCORES
from wikistream_assets.supervision.stream_control import StreamState
from wikistream_assets.supervision.stream_watch import Seen
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.alerts.servers import http_server
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = pytest.mark.local


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that are also those of the environment, as the sensors read them."""
    for name in ("home", "dagster_port", "kafka_port"):
        monkeypatch.setenv(f"WIKISTREAM_{name.upper()}", str(getattr(settings, name)))
    return settings


@pytest.fixture
def instance(home: Settings, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with this project's event storage: not every storage can be asked for events across runs."""
    configuration = yaml.safe_load((files("wikistream_assets.embedded") / "dagster.yaml").read_text())
    storage = {"event_log_storage": configuration["event_log_storage"]}
    with dg.instance_for_test(storage, set_dagster_home=True, temp_dir=str(tmp_path)) as instance:
        yield instance


_RESOURCES = dict(LOCAL_RESOURCES)


class Ticks:
    """One sensor, ticked by hand; keeps its cursor from tick to tick as the daemon does."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self._sensor = sensor
        self._instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        """Returns what the tick says of itself."""
        with dg.build_sensor_context(self._instance, cursor=self.cursor, resources=_RESOURCES) as context:
            told = self._sensor(context)
            self.cursor = context.cursor
        assert isinstance(told, dg.SkipReason)
        return told.skip_message or ""


def told(settings: Settings) -> list[tuple[str, str, str]]:
    path = settings.root / "logs" / "alerts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["event"], line["kind"], line["subject"]) for line in lines]


@dg.op(config_schema={"ok": bool})
def work(context: dg.OpExecutionContext) -> None:
    if not context.op_config["ok"]:
        try:
            raise ValueError("the disk of 203.0.113.9 is full\nsecond line")
        except ValueError as error:
            raise RuntimeError("outer") from error


@dg.job
def nightly() -> None:
    work()


@dg.asset(
    check_specs=[
        dg.AssetCheckSpec("blocks", asset=["silver", "t"], blocking=True),
        dg.AssetCheckSpec("warns", asset=["silver", "t"], blocking=True),
    ],
    key=["silver", "t"],
    config_schema={"blocks": bool, "warns": bool, "skips": bool},
)
def table(context: dg.AssetExecutionContext) -> Iterator[object]:
    passed = context.op_execution_context.op_config
    yield dg.MaterializeResult()
    for name, severity in (("blocks", dg.AssetCheckSeverity.ERROR), ("warns", dg.AssetCheckSeverity.WARN)):
        yield dg.AssetCheckResult(
            asset_key=["silver", "t"],
            check_name=name,
            passed=passed[name] or passed["skips"],
            severity=severity,
            description=f"{name} says so",
            metadata={"records failed": 3, "status": "SKIPPED" if passed["skips"] else "other"},
        )


def run_nightly(instance: dg.DagsterInstance, ok: bool) -> str:
    config = {"ops": {"work": {"config": {"ok": ok}}}}
    return nightly.execute_in_process(config, instance=instance, raise_on_error=False).run_id


def run_table(instance: dg.DagsterInstance, *, blocks: bool = True, warns: bool = True, skips: bool = False) -> bool:
    config = {"ops": {"silver__t": {"config": {"blocks": blocks, "warns": warns, "skips": skips}}}}
    return dg.materialize([table], instance=instance, run_config=config, raise_on_error=False).success


def test_a_failed_run_is_told_with_its_cause_and_cleared_by_the_next_success(
    home: Settings, instance: dg.DagsterInstance
) -> None:
    run_nightly(instance, ok=False)
    run_nightly(instance, ok=True)
    sensor = Ticks(sensors.run_alerts, instance)
    sensor.tick()
    assert told(home) == [], "what was mended before anyone looked is no news"
    failed = run_nightly(instance, ok=False)
    sensor.tick()
    sensor.tick()
    (opened,) = Alerts(home).open_alerts()
    notice = opened.notice
    assert (notice.kind, notice.subject, notice.run_id, opened.count) == ("run_failed", "nightly", failed, 1)
    assert notice.message.startswith("nightly failed in work: ValueError: the disk of ip-")
    assert notice.message.endswith(" is full")
    assert notice.url == f"http://127.0.0.1:{home.dagster_port}/runs/{failed}"
    run_nightly(instance, ok=True)
    sensor.tick()
    assert [event for event, _, _ in told(home)] == ["fired", "cleared"]


def test_a_partition_that_succeeds_says_nothing_about_another_one(home: Settings, instance: dg.DagsterInstance) -> None:
    sensor = Ticks(sensors.run_alerts, instance)
    sensor.tick()

    def run_day(day: str, *, ok: bool) -> None:
        config = {"ops": {"work": {"config": {"ok": ok}}}}
        tags = {"dagster/partition": day}
        nightly.execute_in_process(config, instance=instance, raise_on_error=False, tags=tags)
        sensor.tick()

    run_day("2026-03-01", ok=False)
    run_day("2026-03-02", ok=True)
    run_nightly(instance, ok=True)
    sensor.tick()
    assert told(home) == [("fired", "run_failed", "nightly of 2026-03-01")]
    run_day("2026-03-01", ok=True)
    assert told(home)[1:] == [("cleared", "run_failed", "nightly of 2026-03-01")]


def test_a_run_killed_between_telling_and_noting_it_tells_once(home: Settings, instance: dg.DagsterInstance) -> None:
    sensor = Ticks(sensors.run_alerts, instance)
    run_nightly(instance, ok=True)
    sensor.tick()
    before = sensor.cursor
    run_nightly(instance, ok=False)
    sensor.tick()
    sensor.cursor = before
    sensor.tick()
    assert told(home) == [("fired", "run_failed", "nightly")]
    assert Alerts(home).open_alerts()[0].count == 1


def test_what_cannot_be_written_down_is_told_by_a_later_tick(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Ticks(sensors.run_alerts, instance)
    run_nightly(instance, ok=True)
    sensor.tick()
    run_nightly(instance, ok=False)
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(home.root / "alerts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NewsNotKeptError, match="run_failed nightly was not kept"):
            sensor.tick()
    assert told(home) == []
    sensor.tick()
    assert told(home) == [("fired", "run_failed", "nightly")]


def test_a_run_over_its_time_limit_is_told_as_that(home: Settings, instance: dg.DagsterInstance) -> None:
    sensor = Ticks(sensors.run_alerts, instance)
    cancelled, ended = (
        instance.create_run_for_job(nightly, run_config={"ops": {"work": {"config": {"ok": True}}}}) for _ in range(2)
    )
    instance.report_run_canceling(cancelled, message="a person's wish")
    instance.report_run_canceled(cancelled)
    limit = f"step work {TOOK_TOO_LONG} 900 s (WIKISTREAM_STEP_MAX_SECONDS) and was ended"
    instance.report_engine_event(limit, ended)
    instance.report_run_failed(ended, "its process is gone")
    sensor.tick()
    assert told(home) == [("fired", "run_timeout", "nightly")]
    assert json.loads((home.root / "logs" / "alerts.jsonl").read_text())["message"] == limit
    run_nightly(instance, ok=True)
    sensor.tick()
    assert told(home)[1:] == [("cleared", "run_timeout", "nightly")]


def test_a_warning_on_a_green_run_is_told_and_cleared(home: Settings, instance: dg.DagsterInstance) -> None:
    sensor = Ticks(sensors.check_alerts, instance)
    assert run_table(instance, warns=False), "the run is green"
    sensor.tick()
    (opened,) = Alerts(home).open_alerts()
    notice = opened.notice
    assert (notice.kind, notice.subject, notice.severity) == ("check_failed", "silver.t.warns", "WARNING")
    assert (notice.message, notice.details["records failed"]) == ("warns says so", 3)
    run_table(instance, skips=True)
    sensor.tick()
    assert len(Alerts(home).open_alerts()) == 1, "a skipped check says nothing"
    run_table(instance)
    sensor.tick()
    assert told(home) == [("fired", "check_failed", "silver.t.warns"), ("cleared", "check_failed", "silver.t.warns")]


def test_a_failed_gate_is_told_by_the_gate_alone(home: Settings, instance: dg.DagsterInstance) -> None:
    of_checks, of_runs = Ticks(sensors.check_alerts, instance), Ticks(sensors.run_alerts, instance)
    Alerts(home).fire(Alert(AlertKind.GATE_FAILED, "silver.t.blocks", "told by the gate"))
    assert not run_table(instance, blocks=False), "the run is red"
    for sensor in (of_checks, of_runs):
        sensor.tick()
    assert told(home) == [("fired", "gate_failed", "silver.t.blocks")]
    assert run_table(instance)
    for sensor in (of_checks, of_runs):
        sensor.tick()
    assert told(home)[1:] == [("cleared", "gate_failed", "silver.t.blocks")]


def test_a_blocking_check_without_a_gate_is_told_by_the_sensor(home: Settings, instance: dg.DagsterInstance) -> None:
    run_table(instance, blocks=False)
    Ticks(sensors.check_alerts, instance).tick()
    assert told(home) == [("fired", "check_failed", "silver.t.blocks")]


def test_a_gap_of_the_source_is_not_told_twice(home: Settings, instance: dg.DagsterInstance) -> None:
    @dg.asset_check(asset=["bronze", "raw_events"], name=SOURCE_WITHOUT_GAP)
    def gap() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    checks = dg.Definitions(asset_checks=[gap], jobs=[dg.define_asset_job("check", dg.AssetSelection.checks(gap))])
    assert checks.resolve_job_def("check").execute_in_process(instance=instance).success
    Ticks(sensors.check_alerts, instance).tick()
    assert told(home) == [], "bronze_freshness has told"


def becomes(instance: dg.DagsterInstance, spec: TableSpec, before: FreshnessState, after: FreshnessState) -> None:
    """Report a change of a table's freshness, as the daemon does."""
    change = FreshnessStateChange(
        key=dg.AssetKey([spec.namespace, spec.name]),
        previous_state=before,
        new_state=after,
        state_change_timestamp=time.time(),
    )
    instance._report_runless_asset_event(change)


def test_freshness(home: Settings, instance: dg.DagsterInstance) -> None:
    sensor = Ticks(sensors.freshness_alerts, instance)
    states = [
        FreshnessState.UNKNOWN,
        FreshnessState.PASS,
        FreshnessState.WARN,
        FreshnessState.FAIL,
        FreshnessState.PASS,
    ]
    for before, after in itertools.pairwise(states):
        becomes(instance, RAW_EVENTS, before, after)
        sensor.tick()
        sensor.tick()
    assert told(home) == [
        ("fired", "freshness", "bronze.raw_events"),
        ("repeated", "freshness", "bronze.raw_events"),
        ("cleared", "freshness", "bronze.raw_events"),
    ]


def later(sensor: Ticks, seconds: float) -> None:
    """Let so much time go by for what the sensor remembers of stale tables."""
    known = json.loads(sensor.cursor or "")
    for kept in known["stale"].values():
        kept["idle_at"] -= seconds
    sensor.cursor = json.dumps(known)


def stale_alerts(settings: Settings) -> dict[str, str]:
    """The open alerts of stale tables with their severities."""
    opened = [alert.notice for alert in Alerts(settings).open_alerts() if alert.notice.kind == "freshness"]
    return {notice.subject: notice.severity for notice in opened}


def test_stale_tables_of_a_quiet_stream_are_no_error_until_something_waits(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, now = LocalLake().open(), datetime.now(UTC)
    sensor = Ticks(sensors.freshness_alerts, instance)
    sensor.cursor = "-1"  # as an older version kept it
    quiet = Seen(now, None, None, lag=False, source_at=now, stream=StreamState(True, "1:0", now, None, "RUNNING"))
    seen = {"seen": quiet}
    monkeypatch.setattr(sensors, "look", lambda *_: seen["seen"])
    names = [spec.identifier for spec in (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS)]
    for spec in (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS):
        becomes(instance, spec, FreshnessState.PASS, FreshnessState.FAIL)
    assert sensor.tick().endswith("the source is heard, but has nothing for us")
    assert stale_alerts(home) == dict.fromkeys(names, "WARNING")

    batch = add(lake, RAW_EVENTS, full_row(RAW_EVENTS), position={"raw-events": {"0": 1}})
    later(sensor, 590)
    sensor.tick()
    assert stale_alerts(home) == dict.fromkeys(names, "WARNING"), "a cycle may be at work"
    later(sensor, 10)
    sensor.tick()
    assert stale_alerts(home) == dict(zip(names, ("WARNING", "ERROR", "ERROR"), strict=True))
    lake.tag(RAW_EVENTS, AUDITED_TAG, batch)
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS), position={RAW_EVENTS.identifier: batch})
    sensor.tick()
    assert stale_alerts(home) == dict(zip(names, ("WARNING", "WARNING", "ERROR"), strict=True)), "Silver has its rows"

    unheard = replace(quiet, source_at=None)
    for broken in (replace(quiet, lag=True), replace(quiet, source_at=now - timedelta(seconds=601)), unheard):
        seen["seen"] = broken
        later(sensor, 50)
        sensor.tick()
        assert stale_alerts(home)[RAW_EVENTS.identifier] == "WARNING", "a batch a second, and a minute"
        later(sensor, 11)
        sensor.tick()
        assert stale_alerts(home)[RAW_EVENTS.identifier] == "ERROR"
        seen["seen"] = quiet
        sensor.tick()
        assert stale_alerts(home)[RAW_EVENTS.identifier] == "WARNING"
    for spec in (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS):
        becomes(instance, spec, FreshnessState.FAIL, FreshnessState.PASS)
    assert sensor.tick().endswith("no table is stale")
    assert stale_alerts(home) == {}


def test_a_capture_that_has_been_read_to_its_end_is_not_stale(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalLake().open()
    sensor = Ticks(sensors.freshness_alerts, instance)
    long_ago = datetime.now(UTC) - timedelta(days=1)
    stream = StreamState(True, "1:0", long_ago, None, "RUNNING")
    seen = Seen(datetime.now(UTC), None, None, lag=False, source_at=long_ago, stream=stream)
    monkeypatch.setattr(sensors, "look", lambda *_: seen)
    monkeypatch.setattr(sensors.services, "capture_is_read", lambda _: True)
    for spec in (RAW_EVENTS, HOURLY_STATS):
        becomes(instance, spec, FreshnessState.PASS, FreshnessState.FAIL)
    for _ in range(2):
        assert sensor.tick().endswith("the capture has been read to its end")
    assert told(home) == []


def test_the_delivery_sensor_empties_the_outbox(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server() as slack:
        monkeypatch.setenv("WIKISTREAM_ALERT_ROUTES", '{"*": ["slack"]}')
        monkeypatch.setenv("WIKISTREAM_ALERT_SLACK_WEBHOOK_URL", slack.url)
        run_nightly(instance, ok=False)
        Ticks(sensors.run_alerts, instance).tick()
        assert slack.bodies == [], "telling does not wait for the network"
        Ticks(sensors.alert_delivery, instance).tick()
        assert len(slack.bodies) == 1


def test_sensors_on_the_lake_keep_their_place(home: Settings, instance: dg.DagsterInstance) -> None:
    lake = LocalLake().open()
    today = datetime.now(UTC).date()
    for day in (today - timedelta(days=home.privacy_mask_after_days + 2), today):
        high = full_row(RISK_SCORES, stat_date=day.isoformat(), entity_id="Ann", risk_level="HIGH", risk_score=90.0)
        add(lake, RISK_SCORES, high)
    of_risks, of_letters = (Ticks(sensor, instance) for sensor in (sensors.risk_alerts, sensors.dlq_alerts))
    # there is no broker, no batch and no producer: these have nothing to say
    others = [
        Ticks(sensor, instance) for sensor in (sensors.lag_alerts, sensors.latency_alerts, sensors.producer_alerts)
    ]
    for _ in range(2):
        for sensor in (of_risks, of_letters, *others):
            sensor.tick()
    assert told(home) == [("fired", "high_risk_user", f"{today}/Ann")], "an old day is masked, or will be"
    head = lake.state(RISK_SCORES).head()
    assert head is not None
    assert of_risks.cursor == str(head.snapshot_id)
    assert json.loads(of_letters.cursor or "")["total"] == 0


def test_late_events_are_told_unless_they_are_a_captures(
    home: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    lake = LocalLake().open()
    lake.append(RAW_EVENTS, properties=summary_properties({}, {"lag_ms": {"p95": 61_000}}))
    long_ago = time.time() - 301
    (tmp_path / "old.jsonl").write_text("{}\n")
    for source, expected in (
        (str(tmp_path / "old.jsonl"), []),
        ("synthetic", [("fired", "latency", "bronze.raw_events")]),
    ):
        choose_source(home, source)
        sensor = Ticks(sensors.latency_alerts, instance)
        sensor.cursor = str(long_ago)  # as an older version kept it
        sensor.tick()
        assert told(home) == expected
    assert json.loads(sensor.cursor or "") == {"since": long_ago, "snapshot_id": lake.state(RAW_EVENTS).head_id()}
    sensor.tick()
    assert Alerts(home).open_alerts()[0].count == 1, "no later batch"


def test_records_have_to_wait_at_two_looks_in_a_row(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "lag", lambda broker, lake, stream: {"raw-events": {0: home.alert_lag_records + 1}})
    sensor = Ticks(sensors.lag_alerts, instance)
    sensor.tick()
    assert told(home) == []
    sensor.tick()
    assert told(home) == [("fired", "lag", "raw-events")]


def test_what_is_no_longer_looked_at_is_cleared(home: Settings, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    alerts = Alerts(home)
    alerts.fire(Alert(AlertKind.PRODUCER_CPU, "producer", "the producer used 90% of a processor"))
    alerts.fire(Alert(AlertKind.LATENCY, "bronze.raw_events", "events have reached Bronze late"))
    (tmp_path / "old.jsonl").write_text("{}\n")
    choose_source(home, str(tmp_path / "old.jsonl"))
    for sensor in (Ticks(sensors.producer_alerts, instance), Ticks(sensors.latency_alerts, instance)):
        sensor.cursor = '{"at": 1.0, "total": 2.0, "looks_over": 1}'
        sensor.tick()
        assert not sensor.cursor
    assert told(home)[2:] == [
        ("cleared", "producer_cpu", "producer"),
        ("cleared", "latency", "bronze.raw_events"),
    ]


def test_every_sensor_runs_by_default() -> None:
    found = [value for value in vars(sensors).values() if isinstance(value, dg.SensorDefinition)]
    assert len(found) == 9
    assert all(sensor.default_status is dg.DefaultSensorStatus.RUNNING for sensor in found)
