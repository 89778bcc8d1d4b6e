"""Our launcher: a dead run is noticed, which with the default one it never is; a warm job's run is left to the worker."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import reconstructable
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.run_launcher import HANDED_OVER, WARM, WORKER_LOCK, WatchedRunLauncher
from wikistream_assets.run_worker import next_run, serve
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import wait_until

pytestmark = pytest.mark.unit


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


def started_run(instance: dg.DagsterInstance, pid: int) -> str:
    """A run that has been started by a process with this id."""
    run = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
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
