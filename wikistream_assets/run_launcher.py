"""Dagster's default launcher, and the one thing it does not do: notice that a run's process is gone.

Its code server reports a run whose process it sees die. When both die (a crash of the machine, ``kill -9`` of the whole group)
the run would stay "started" until its time limit, and the loop would wait for it. ``dagster.yaml`` names this class; run
monitoring asks it, and run retries start the run again.
"""

from typing import Any, Self

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as processes of this machine and can tell whether they are still there."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Self:
        return cls(inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look for the process that said it had started for this run."""
        started = self._started_in(run)
        if started is None:
            # monitoring would take "unknown" for "dead"
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has reported for the run yet")
        pid, moment = started
        try:
            # a process id may have been given to somebody else since
            if psutil.Process(pid).create_time() <= moment:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        except psutil.NoSuchProcess:
            pass
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {pid} is gone")

    def _started_in(self, run: dg.DagsterRun) -> tuple[int, float] | None:
        """Process id and time of the newest event in which a process says that it executes the run."""
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        found = None
        for entry in events:
            metadata = entry.get_dagster_event().engine_event_data.metadata
            if "pid" in metadata:
                found = (int(str(metadata["pid"].value)), entry.timestamp)
        return found
