"""Silver in Dagster: one step builds, audits and publishes Silver and its quarantine."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gated_specs, plain_failures
from wikistream_assets.components.steps import published
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.resources.ports import Compute, Lake, Notifier
from wikistream_assets.streams.edits.stream import EDITS, SILVER


@dg.multi_asset(
    name="silver_publish",
    specs=gated_specs(SILVER.tables),
    check_specs=check_specs(*SILVER.tables),
    pool=EDITS.lease(SILVER.layer),
    description="Reads Bronze from Silver's position up to the audited tag, audits the result on a branch, publishes it.",
)
def silver(
    context: dg.AssetExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    notifier: dg.ResourceParam[Notifier],
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    step = Step(EDITS.name, Action.PUBLISH, context.run.run_id, {"layer": SILVER.layer})
    with plain_failures():
        yield from published(context, step, SILVER.layer, compute, lake.open(), notifier.open())
