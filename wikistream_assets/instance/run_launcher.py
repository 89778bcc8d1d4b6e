"""Dagster's default launcher, and what it does not do: notice that a run's process is gone, end a step at its time limit, and use
a process that is warm.

Its code server reports a run whose process it sees die. When both die (a crash of the machine, ``kill -9`` of the whole group)
the run would stay "started" until its time limit, and the loop would wait for it. ``dagster.yaml`` names this class; run
monitoring asks it, and run retries start the run again.

Dagster's own limit is for a whole run, and a cycle has as many steps as it has layers. Here each step has one: a run with a step
that takes longer is ended, with its process and its JVM, and fails with the name of the step and the limit.

A run of a job with the tag ``WARM`` is left to ``run_worker`` if one is there; else it gets a process of its own, as any other.
"""

import time
from contextlib import suppress
from typing import Any, Final, Self

import dagster as dg
import psutil

from wikistream_assets.embedded.home import is_locked
from wikistream_assets.instance.dagster_private import (
    CheckRunHealthResult,
    ConfigurableClassData,
    DefaultRunLauncher,
    LaunchRunContext,
    WorkerStatus,
)
from wikistream_assets.settings import load_settings

WARM: Final = "wikistream/warm"
"""Tag of a job whose runs are short and come one at a time: its value does not matter."""

HANDED_OVER: Final = "wikistream/handed-over"
"""Tag of a run that was left to the worker; its value is the run's own id, because a retry inherits the tags."""

WORKER_LOCK: Final = "run-worker"
"""The home's lock that a worker holds as long as it takes runs."""

TOOK_TOO_LONG: Final = "took longer than its limit of"
"""In the message of a run that was ended for one of its steps."""

_END_SECONDS: Final = 30.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs in processes of this machine and can tell whether they are still there."""

    _booted = float("inf")

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Self:
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Leave the run to the worker, or start a process for it."""
        self._look_at_the_clock()
        run = context.dagster_run
        if WARM in run.tags and is_locked(load_settings(), WORKER_LOCK):
            self._instance.add_run_tags(run.run_id, {HANDED_OVER: run.run_id})
            self._instance.report_engine_event("Left to the run worker.", run, cls=self.__class__)
        else:
            super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Cancel a run. The worker is killed for it, like any process that may die at any time; the next one starts clean."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or run.tags.get(HANDED_OVER) != run_id:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]  # Dagster's method has no types
        self._instance.report_run_canceling(run)
        self._kill(run)
        self._instance.report_run_canceled(run)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look for the process that said it had started for this run, and end it if a step has taken too long."""
        started = self._started_in(run)
        if started is None:
            # monitoring would take "unknown" for "dead"
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has reported for the run yet")
        if self._still_there(*started) is None:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"process {started[0]} is gone")
        if overdue := self._overdue(run):
            # first the reason: the code server may report the end of its process before run monitoring does
            self._instance.report_engine_event(overdue, run)
            self._kill(run)
            return CheckRunHealthResult(WorkerStatus.FAILED, overdue)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _overdue(self, run: dg.DagsterRun) -> str | None:
        """Which step has taken longer than it may; None if none has."""
        limit = load_settings().step_max_seconds
        for step in self._instance.get_run_step_stats(run.run_id):
            if step.start_time and not step.end_time and time.time() - step.start_time > limit:
                return f"step {step.step_key} {TOOK_TOO_LONG} {limit} s (WIKISTREAM_STEP_MAX_SECONDS) and was ended"
        return None

    def _kill(self, run: dg.DagsterRun) -> None:
        """End the run's process and its JVM at once: both may be killed at any moment, and the next run starts clean."""
        started = self._started_in(run)
        if started is None or (process := self._still_there(*started)) is None:
            return
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=_END_SECONDS)

    def _started_in(self, run: dg.DagsterRun) -> tuple[int, float] | None:
        """Process id and time of the newest event in which a process says that it executes the run."""
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        found = None
        for entry in events:
            metadata = entry.get_dagster_event().engine_event_data.metadata
            if "pid" in metadata:
                found = (int(str(metadata["pid"].value)), entry.timestamp)
        return found

    def _still_there(self, pid: int, moment: float) -> psutil.Process | None:
        """The process that had this id at ``moment``, seconds since 1970; None if it is gone, whoever has its id now.

        A process is known to have started so many ticks after the boot, and that stays; the time of the boot, which makes a time
        of the clock of it, moves when the clock is set. By the earliest that has been seen here since the run was launched, no
        process that was there at ``moment`` is taken for a younger one. Who got a dead one's id is, unless the clock has been
        set forward by more than the time between the two. (That it is one of this home says nothing: in a container that is
        started anew, the new worker may well have the id of the old one.)
        """
        self._look_at_the_clock()
        try:
            process = psutil.Process(pid)
            since_boot = process.create_time() - psutil.boot_time()
            return process if self._booted + since_boot <= moment else None
        except psutil.NoSuchProcess:
            return None

    def _look_at_the_clock(self) -> None:
        self._booted = min(self._booted, psutil.boot_time())
