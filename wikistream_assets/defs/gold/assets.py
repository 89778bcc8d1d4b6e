"""Gold in Dagster: one step for its four tables, because they are audited and published together."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gate_events, gated_specs, plain_failures
from wikistream_assets.engine import gold as gold_job
from wikistream_assets.resources.environment import LocalLakehouse, LocalNotifier, LocalSpark, job_context
from wikistream_assets.streams.edits.tables import GOLD_TABLES


@dg.multi_asset(
    name="gold_publish",
    specs=gated_specs(GOLD_TABLES),
    check_specs=check_specs(*GOLD_TABLES),
    pool="gold",
    description="Recomputes the days that new Silver rows touch, audits all four tables on branches, publishes them together.",
)
def gold(
    context: dg.AssetExecutionContext, spark: LocalSpark, lakehouse: LocalLakehouse, notifier: LocalNotifier
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    with plain_failures():
        job = job_context(spark, lakehouse, context.run.run_id)
        yield from gate_events(context, gold_job.run(job), job.lake, GOLD_TABLES, notifier.open())
