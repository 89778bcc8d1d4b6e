"""The loop: one cycle after the other, for as long as there is something new and no failure that wants a person."""

from datetime import UTC, datetime

import dagster as dg

from wikistream_assets.defs.ops.jobs import cycle
from wikistream_assets.embedded import services
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.instance.cycles import CYCLE, last_cycle
from wikistream_assets.instance.dagster_private import MAX_RETRIES_TAG, NOT_FINISHED_STATUSES
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.resources.environment import LocalBroker, LocalLakehouse
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.supervision.cycle_loop import due


@dg.sensor(
    job=cycle,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the next cycle when it is due; goes on auditing behind a closed gate, stops behind a broken step.",
)
def cycle_loop(
    context: dg.SensorEvaluationContext, lakehouse: LocalLakehouse, broker: LocalBroker
) -> dg.RunRequest | dg.SkipReason:
    settings = load_settings()
    if absent := _pipeline_is_absent(broker, settings):
        return dg.SkipReason(absent)
    lake = lakehouse.open()
    at_work = dg.RunsFilter(job_name=CYCLE, statuses=NOT_FINISHED_STATUSES)
    running = context.instance.get_run_records(at_work, limit=1)
    decision = due(
        datetime.now(UTC),
        running=running[0].dagster_run.run_id if running else None,
        last=last_cycle(context.instance),
        first_data_at=_first_data_at(lake),
        pending=bool(waiting_layers(lake)),
        settings=settings,
    )
    if decision.key is None:
        return dg.SkipReason(decision.why)
    if behind := lake.clock_behind():
        return dg.SkipReason(behind)
    # who stops at everything does not start a killed cycle again either
    once = {MAX_RETRIES_TAG: "0"} if settings.cycle_after_failed_gate == "stop" else {}
    return dg.RunRequest(run_key=decision.key, tags=once)


def _pipeline_is_absent(broker: LocalBroker, settings: Settings) -> str | None:
    """Why there is nothing to follow, and what starts it; None where the pipeline is up."""
    if services.take_back_broker(settings):
        return "a run that was killed had left its broker, which has been stopped: 'make up' starts the pipeline"
    if services.broker_is_lent(settings):
        return "the broker runs for a single run only: 'make up' starts the pipeline"
    try:
        broker.connect().refuse_absent()
    except BrokerError as error:
        return f"{error}; 'Materialize all' works without it"
    return None


def _first_data_at(lake: Lakehouse) -> datetime | None:
    """When Bronze got its oldest batch that is still known; None while it has no row."""
    head = lake.head(RAW_EVENTS)
    if head is None or head.total_records == 0:
        return None
    oldest = None
    for version in lake.history(RAW_EVENTS):
        oldest = version if version.position is not None else oldest
    return oldest.committed_at if oldest else None
