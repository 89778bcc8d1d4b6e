"""The loop: one cycle after the other, for as long as there is something new and no failure that wants a person."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from wikistream_assets.asset_factory import CHECK_FAILED
from wikistream_assets.defs.ops.jobs import cycle
from wikistream_assets.jobs.gate_control import gate_states
from wikistream_assets.operations.cycle_loop import Ended, Last, due
from wikistream_assets.operations.stream_watch import instant
from wikistream_assets.resources.environment import LocalLakehouse
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.settings import load_settings
from wikistream_assets.tables import RAW_EVENTS


@dg.sensor(
    job=cycle,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the next cycle when it is due; goes on auditing behind a closed gate, stops behind a broken step.",
)
def cycle_loop(context: dg.SensorEvaluationContext, lakehouse: LocalLakehouse) -> dg.RunRequest | dg.SkipReason:
    lake = lakehouse.open()
    records = context.instance.get_run_records(dg.RunsFilter(job_name=cycle.name), limit=5)
    decision = due(
        datetime.now(UTC),
        running=next((record.dagster_run.run_id for record in records if not record.dagster_run.is_finished), None),
        last=_last(context.instance, records),
        first_data_at=_first_data_at(lake),
        pending=any(not state.pending.empty for state in gate_states(lake)),
        settings=load_settings(),
    )
    return dg.RunRequest(run_key=decision.key) if decision.key else dg.SkipReason(decision.why)


def _last(instance: dg.DagsterInstance, records: Iterable[dg.RunRecord]) -> Last | None:
    """The newest cycle that has ended; ``records`` come newest first."""
    for record in records:
        run = record.dagster_run
        if run.is_finished:
            ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp
            return Last(run.run_id, _ended(instance, run), ended)
    return None


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Ended:
    if run.is_success:
        return Ended.PASSED
    if run.status is not dg.DagsterRunStatus.FAILURE:
        return Ended.BROKEN
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    errors = [entry.get_dagster_event().step_failure_data.error for entry in failures]
    only_gates = bool(errors) and all(error is not None and error.cls_name == CHECK_FAILED for error in errors)
    return Ended.BLOCKED if only_gates else Ended.BROKEN


def _first_data_at(lake: Lakehouse) -> datetime | None:
    """When Bronze got its oldest batch that is still known; None while it has no row."""
    head = lake.head(RAW_EVENTS)
    if head is None or head.total_records == 0:
        return None
    oldest = None
    for version in lake.history(RAW_EVENTS):
        oldest = version if version.position is not None else oldest
    return instant(oldest.timestamp_ms) if oldest else None
