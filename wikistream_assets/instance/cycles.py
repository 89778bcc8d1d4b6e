"""How the newest cycle ended, as Dagster's database tells it: for the loop, for ``wikistream health``, for the metrics."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from wikistream_assets.exceptions import ClockBehindError
from wikistream_assets.instance.dagster_private import (
    NOT_FINISHED_STATUSES,
    WILL_RETRY_TAG,
    SerializableErrorInfo,
    auto_reexecution_should_retry_run,
)
from wikistream_assets.supervision.cycle_loop import Ended, Last

CYCLE: Final = "cycle"
"""Name of the job."""

STEPS: Final = 4
"""Its steps one after the other: drain, Bronze gate, Silver, Gold."""

CHECK_FAILED: Final = "DagsterAssetCheckFailedError"
"""The error of a step whose blocking check failed: the gate did its work, and has told of it."""

_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def last_cycle(instance: dg.DagsterInstance) -> Last | None:
    """The newest cycle that has ended; None before the first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=CYCLE, statuses=_ENDED), limit=1)
    if not records:
        return None
    (record,) = records
    run = record.dagster_run
    at = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp
    seconds = record.end_time - record.start_time if record.end_time and record.start_time else None
    return Last(run.run_id, _ended(instance, run), at, seconds)


def cycle_at_work(instance: dg.DagsterInstance) -> bool:
    """Whether a cycle is queued or at work."""
    return bool(instance.get_run_records(dg.RunsFilter(job_name=CYCLE, statuses=NOT_FINISHED_STATUSES), limit=1))


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Ended:
    if run.is_success:
        return Ended.PASSED
    if run.status is not dg.DagsterRunStatus.FAILURE:
        return Ended.BROKEN
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    errors = [entry.get_dagster_event().step_failure_data.error for entry in failures]
    if not errors:
        return Ended.KILLED if _retry_was_lost(instance, run) else Ended.BROKEN
    causes = [_innermost(error) for error in errors]
    if all(cause in (CHECK_FAILED, ClockBehindError.__name__) for cause in causes):
        return Ended.DELAYED if ClockBehindError.__name__ in causes else Ended.BLOCKED
    return Ended.BROKEN


def _innermost(error: SerializableErrorInfo | None) -> str | None:
    """The class of what was raised in the step; Dagster wraps it in its own errors, and they wrap what it was raised from."""
    while error is not None and error.cls_name not in (CHECK_FAILED, ClockBehindError.__name__) and error.cause:
        error = error.cause
    return error.cls_name if error else None


def _retry_was_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run has retries left, and yet Dagster has given them up.

    It tries to launch a retry once. Without a code server at that moment, which may have died with the run, it never tries again.
    """
    given_up = run.tags.get(WILL_RETRY_TAG) == "false"
    return given_up and auto_reexecution_should_retry_run(instance, run, run_failure_reason=None)
