"""What Dagster does where no pipeline runs, as under a bare ``dagster dev``: ticks are skipped, steps fail in one line."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from wikistream_assets.alerts import Alerts
from wikistream_assets.cli.demo_run import failed_steps
from wikistream_assets.components.events import failure_text
from wikistream_assets.definitions import defs
from wikistream_assets.defs.bronze import assets
from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.machine.locks import shared
from wikistream_assets.resources.choice import resources_for
from wikistream_assets.resources.local import LocalLake
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment
from wikistream_assets_tests.defs.test_loop_sensors import commit

pytestmark = pytest.mark.local

NEED_THE_PIPELINE = {"cycle_loop", "bronze_freshness", "lag_alerts", "producer_alerts"}


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WIKISTREAM_CYCLE_FIRST_SECONDS", "0")
    return settings


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, settings: Settings) -> str:
    """Why the sensor skips; fails if it does not."""
    given = {name: it for name, it in resources_for(settings).items() if name in sensor.required_resource_keys}
    with dg.build_sensor_context(instance, resources=given) as context:
        ticked = sensor.evaluate_tick(context)
    assert not ticked.run_requests, sensor.name
    return ticked.skip_message or ""


@pytest.mark.parametrize("after_a_demo", [False, True])
def test_what_needs_a_service_skips_its_tick_with_the_reason_and_the_command(
    home: Settings, instance: dg.DagsterInstance, after_a_demo: bool
) -> None:
    lake = LocalLake().open()
    if after_a_demo:
        commit(lake, 1)
    repository = defs().get_repository_def()
    own = [it for it in repository.sensor_defs if not isinstance(it, dg.AutomationConditionSensorDefinition)]
    said = {sensor.name: tick(sensor, instance, home) for sensor in own}
    assert set(said) >= NEED_THE_PIPELINE
    for name in NEED_THE_PIPELINE:
        assert "'make up'" in said[name], name
        assert len(said[name].splitlines()) == 1
    for name in NEED_THE_PIPELINE - {
        "producer_alerts"
    }:  # it looked whether anybody listens, and did not wait for an answer
        assert f"127.0.0.1:{home.kafka_port} does not answer (Connection refused)" in said[name]
    redrive = next(it for it in repository.schedule_defs if it.job_name == "redrive_dead_letters")
    with dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2026, 3, 1, tzinfo=UTC), resources=resources_for(home)
    ) as context:
        ticked = redrive.evaluate_tick(context)
    assert not ticked.run_requests
    assert "'make up'" in (ticked.skip_message or "")


def test_a_broker_that_runs_for_one_run_only_is_no_pipeline(home: Settings, instance: dg.DagsterInstance) -> None:
    lake = LocalLake().open()
    commit(lake, 1)
    loop = next(it for it in defs().get_repository_def().sensor_defs if it.name == "cycle_loop")
    with socket.create_server(("127.0.0.1", home.kafka_port)):
        with dg.build_sensor_context(instance, resources=resources_for(home)) as context:
            assert [it.run_key for it in loop.evaluate_tick(context).run_requests] == ["cycle-first"]
        (home.root / "run" / "broker.lent").touch()
        with shared(home.root / "run" / "broker.users.lock"):
            assert "for a single run only" in tick(loop, instance, home)
        assert "was killed" in tick(loop, instance, home), "nobody needs it any more"
        assert not services.broker_is_lent(home)


def test_a_service_that_cannot_be_had_fails_the_step_in_one_line(home: Settings, instance: dg.DagsterInstance) -> None:
    open_home(home)
    definitions = defs()
    with socket.create_server(("127.0.0.1", home.kafka_port)):
        run = definitions.resolve_job_def("bronze").execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = run.filter_events(lambda event: event.is_step_failure)
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert said.description.startswith(f"port {home.kafka_port} for the broker is in use")
    assert len(said.description.splitlines()) == 1
    assert failure.step_failure_data.error.to_string().strip() == said.description
    assert not run.filter_events(lambda event: event.is_step_up_for_retry)
    assert list(failed_steps(run)) == [f"bronze_drain failed: {said.description}"]
    alerts = definitions.get_repository_def().get_sensor_def("run_alerts")
    with dg.build_sensor_context(instance, resources=resources_for(home)) as context:
        alerts.evaluate_tick(context)
    (told,) = Alerts(home).open_alerts()
    assert told.notice.message == f"bronze failed in bronze_drain: {said.description}"


def test_a_service_that_stays_away_fails_the_step_in_one_line_after_each_attempt(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_RETRY_SECONDS", 0)
    open_home(home)
    choose_source(home, "synthetic")
    checks = dg.Definitions(asset_checks=[assets.source_without_gap], resources=resources_for(home))
    job = checks.resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = run.filter_events(lambda event: event.is_step_failure)
    text = failure_text(failure)
    assert text is not None
    assert text.startswith(f"the broker at 127.0.0.1:{home.kafka_port} does not answer")
    assert len(text.splitlines()) == 1
    errors = [failure.step_failure_data.error]
    errors += [event.step_retry_data.error for event in run.filter_events(lambda event: event.is_step_up_for_retry)]
    assert len(errors) == 4
    assert [error.stack for error in errors] == [[]] * 4
    assert {error.message.strip() for error in errors[1:]} == {text}


def test_a_decision_that_cannot_be_made_fails_in_one_line(home: Settings, instance: dg.DagsterInstance) -> None:
    decision = {
        "action": "accept", "table": "bronze.raw_events", "check": "event_type_valid", "reason": "none", "decided_by": "me",
    }  # fmt: skip
    run = (
        defs()
        .resolve_job_def("gate_decision")
        .execute_in_process({"ops": {"decide": {"config": decision}}}, instance=instance, raise_on_error=False)
    )
    (line,) = failed_steps(run)
    assert line.startswith("decide failed: ")
    assert "Error" not in line
    assert len(line.splitlines()) == 1
