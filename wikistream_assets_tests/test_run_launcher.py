"""A run whose process is gone is noticed by Dagster's run monitoring with our launcher, and never with the default one."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from wikistream_assets.run_launcher import WatchedRunLauncher

pytestmark = pytest.mark.unit


@dg.op
def work() -> None: ...


@dg.job
def some_job() -> None:
    work()


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    launcher = {"run_launcher": {"module": WatchedRunLauncher.__module__, "class": WatchedRunLauncher.__name__}}
    overrides = {"run_monitoring": {"enabled": True}, **(launcher if request.param == "ours" else {})}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as opened:
        yield opened


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
