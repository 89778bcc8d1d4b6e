"""Our launcher: a dead run is noticed, which with the default one it never is; a warm job's run is left to the worker."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import reconstructable
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.launcher import LaunchRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.instance.run_launcher import HANDED_OVER, WARM, WORKER_LOCK, WatchedRunLauncher
from wikistream_assets.instance.run_worker import next_run, serve
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import wait_until

pytestmark = pytest.mark.local


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    context.log.info("at work")


@dg.job
def some_job() -> None:
    work()


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    launcher = {"run_launcher": {"module": WatchedRunLauncher.__module__, "class": WatchedRunLauncher.__name__}}
    overrides = {"run_monitoring": {"enabled": True}, **(launcher if request.param == "ours" else {})}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as opened:
        yield opened


@pytest.fixture
def home_in_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home that the settings of this process name."""
    monkeypatch.setenv("WIKISTREAM_HOME", str(settings.root))
    return settings


def started_run(instance: dg.DagsterInstance, pid: int, seconds_ago: float = 0) -> str:
    """A run that has been started by a process with this id."""
    run = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
    engine_event = dg.DagsterEventType.ENGINE_EVENT.value
    data = EngineEventData.in_process(pid)
    event = dg.DagsterEvent(engine_event, run.job_name, message="Started process", event_specific_data=data)
    instance.report_dagster_event(event, run.run_id, timestamp=time.time() - seconds_ago)
    return run.run_id


def monitored(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """The run's status after run monitoring has looked at it."""
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        assert list(execute_run_monitoring_iteration(workspace, logging.getLogger("test"))) == [None]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_a_run_without_its_process_has_failed(instance: dg.DagsterInstance) -> None:
    assert monitored(instance, started_run(instance, ended_process())) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("instance", ["dagster's"], indirect=True)
def test_control_the_default_launcher_lets_it_be_started_for_ever(instance: dg.DagsterInstance) -> None:
    assert monitored(instance, started_run(instance, ended_process())) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_a_run_at_work_is_left_alone(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert monitored(instance, started_run(instance, process.pid)) is dg.DagsterRunStatus.STARTED
        assert process.stdin is not None
        process.stdin.write(b"\n")


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_who_got_the_id_of_a_dead_process_is_another_one(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run_id = started_run(instance, process.pid, seconds_ago=60)
        assert monitored(instance, run_id) is dg.DagsterRunStatus.FAILURE
        assert process.stdin is not None
        process.stdin.write(b"\n")


def start_step(instance: dg.DagsterInstance, run_id: str, step: str, *, seconds_ago: float, ended: bool) -> None:
    began = dg.DagsterEvent(dg.DagsterEventType.STEP_START.value, some_job.name, step_key=step)
    instance.report_dagster_event(began, run_id, timestamp=time.time() - seconds_ago)
    if ended:
        data = StepSuccessData(duration_ms=seconds_ago * 1_000.0)
        success = dg.DagsterEventType.STEP_SUCCESS.value
        instance.report_dagster_event(
            dg.DagsterEvent(success, some_job.name, step_key=step, event_specific_data=data), run_id
        )


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
@pytest.mark.parametrize(("profile", "limit"), [("local", 900), ("source", 1_380)])
def test_a_step_at_its_limit_ends_and_the_run_says_which(
    instance: dg.DagsterInstance,
    home_in_environment: Settings,
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    limit: int,
) -> None:
    """However long the steps before it took: together they may take longer than one may."""
    monkeypatch.setenv("WIKISTREAM_PROFILE", profile)
    with subprocess.Popen(["sleep", "60"]) as process:
        run_id = started_run(instance, process.pid)
        start_step(instance, run_id, "drain", seconds_ago=3 * limit, ended=True)
        start_step(instance, run_id, "silver", seconds_ago=limit - 30, ended=False)
        assert monitored(instance, run_id) is dg.DagsterRunStatus.STARTED
        assert process.poll() is None
        start_step(instance, run_id, "gold", seconds_ago=limit + 1, ended=False)
        assert monitored(instance, run_id) is dg.DagsterRunStatus.FAILURE
        assert not psutil.pid_exists(process.pid)
    told = f"step gold took longer than its limit of {limit} s (WIKISTREAM_STEP_MAX_SECONDS) and was ended"
    said = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert told in [entry.get_dagster_event().message for entry in said]
    (failed,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert told in failed.get_dagster_event().message


HOUR = 3_600.0


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
@pytest.mark.parametrize(
    ("launched_at", "then"), [(0, [HOUR]), (0, [-HOUR]), (HOUR, [0, HOUR]), (-HOUR, [0, 2 * HOUR, -2 * HOUR])]
)
def test_a_run_at_work_is_left_alone_when_the_clock_is_set(
    instance: dg.DagsterInstance,
    home_in_environment: Settings,
    monkeypatch: pytest.MonkeyPatch,
    launched_at: float,
    then: list[float],
) -> None:
    """The clock is right when the process reports, and wrong by so much when the run is launched and looked at."""
    booted = psutil.boot_time()

    def set_clock(wrong_by: float) -> None:
        """As the kernel has it: who asks for the time of the boot gets one that has moved with the clock."""
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + wrong_by)

    set_clock(launched_at)
    with writer_lock(home_in_environment, WORKER_LOCK):
        instance.delete_run(launched(instance))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run_id = started_run(instance, process.pid)
        for wrong_by in then:
            set_clock(wrong_by)
            assert psutil.Process(process.pid).create_time() - time.time() == pytest.approx(wrong_by, abs=60)
            assert monitored(instance, run_id) is dg.DagsterRunStatus.STARTED
        assert process.stdin is not None
        process.stdin.write(b"\n")


def launched(instance: dg.DagsterInstance) -> str:
    """A run of a warm job that the queue has just given to the launcher."""
    run = instance.create_run_for_job(
        some_job,
        status=dg.DagsterRunStatus.STARTING,
        tags={WARM: "true"},
        job_code_origin=reconstructable(some_job).get_python_origin(),
    )
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run.run_id


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_a_warm_jobs_run_is_the_workers(instance: dg.DagsterInstance, home_in_environment: Settings) -> None:
    with writer_lock(home_in_environment, WORKER_LOCK):
        first, second, third = (launched(instance) for _ in range(3))
    assert next_run(instance) == first
    serve(instance, runs=2)
    assert next_run(instance) == third, "the next process's"
    serve(instance, runs=1)
    for run_id in (first, second, third):
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.is_success
        said = [entry.user_message for entry in instance.all_logs(run_id)]
        assert said.count("at work") == 1
    assert next_run(instance) is None


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_without_a_worker_the_run_gets_a_process(instance: dg.DagsterInstance, home_in_environment: Settings) -> None:
    with pytest.raises(DagsterInvariantViolationError, match="DefaultRunLauncher requires a workspace"):
        launched(instance)
    assert next_run(instance) is None


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_a_retry_with_the_tags_of_a_run_that_was_handed_over_is_not_handed_over(instance: dg.DagsterInstance) -> None:
    instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTING, tags={HANDED_OVER: "its parent"})
    assert next_run(instance) is None


@pytest.mark.parametrize("instance", ["ours"], indirect=True)
def test_cancelling_a_run_ends_its_worker_with_its_jvm(
    instance: dg.DagsterInstance, home_in_environment: Settings
) -> None:
    with writer_lock(home_in_environment, WORKER_LOCK):
        run_id = launched(instance)
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"
    worker = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdin is not None
    with worker:
        child = psutil.Process(int(worker.stdout.readline()))
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(worker.pid))
        assert instance.run_launcher.terminate(run_id)
    assert not psutil.pid_exists(worker.pid)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
