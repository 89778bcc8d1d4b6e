"""Silver in Dagster: one step builds, audits and publishes Silver and its quarantine."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gate_events, gated_specs, plain_failures
from wikistream_assets.engine import silver as silver_job
from wikistream_assets.resources.environment import LocalLakehouse, LocalNotifier, LocalSpark, job_context
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE

_TABLES = (CLEANED_EVENTS, QUARANTINE)


@dg.multi_asset(
    name="silver_publish",
    specs=gated_specs(_TABLES),
    check_specs=check_specs(*_TABLES),
    pool="silver",
    description="Reads Bronze from Silver's position up to the audited tag, audits the result on a branch, publishes it.",
)
def silver(
    context: dg.AssetExecutionContext, spark: LocalSpark, lakehouse: LocalLakehouse, notifier: LocalNotifier
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    with plain_failures():
        job = job_context(spark, lakehouse, context.run.run_id)
        yield from gate_events(context, silver_job.run(job), job.lake, _TABLES, notifier.open())
