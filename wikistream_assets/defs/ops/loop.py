"""The loop: one cycle after the other, for as long as there is something new and no failure that wants a person."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from wikistream_assets.defs.ops.jobs import cycle
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.instance.cycles import CYCLE, last_cycle
from wikistream_assets.instance.dagster_private import MAX_RETRIES_TAG, NOT_FINISHED_STATUSES
from wikistream_assets.lake.state import TableState, clock_is_behind
from wikistream_assets.resources.ports import KafkaBroker, Lake
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS
from wikistream_assets.supervision.cycle_loop import due

_COMMITTED: Final = (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS)
"""The tables whose newest commits say how far the lake is: one of each layer. A tick loads no other."""


@dg.sensor(
    job=cycle,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the next cycle when it is due; goes on auditing behind a closed gate, stops behind a broken step.",
)
def cycle_loop(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], broker: dg.ResourceParam[KafkaBroker]
) -> dg.RunRequest | dg.SkipReason:
    settings = load_settings()
    if absent := broker.absent():
        return dg.SkipReason(absent)
    states = lake.open().look()
    at_work = dg.RunsFilter(job_name=CYCLE, statuses=NOT_FINISHED_STATUSES)
    running = context.instance.get_run_records(at_work, limit=1)
    decision = due(
        datetime.now(UTC),
        running=running[0].dagster_run.run_id if running else None,
        last=last_cycle(context.instance),
        first_data_at=_first_data_at(states[RAW_EVENTS]),
        pending=bool(waiting_layers(states, EDITS)),
        settings=settings,
    )
    if decision.key is None:
        return dg.SkipReason(decision.why)
    if behind := clock_is_behind((states[spec] for spec in _COMMITTED), datetime.now(UTC)):
        return dg.SkipReason(behind)
    # who stops at everything does not start a killed cycle again either
    once = {MAX_RETRIES_TAG: "0"} if settings.cycle_after_failed_gate == "stop" else {}
    return dg.RunRequest(run_key=decision.key, tags=once)


def _first_data_at(bronze: TableState) -> datetime | None:
    """When Bronze got its oldest batch that is still known; None while it has no row."""
    head = bronze.head()
    if head is None or head.total_records == 0:
        return None
    oldest = None
    for version in bronze.history():
        oldest = version if version.position is not None else oldest
    return oldest.committed_at if oldest else None
