"""Gold in Dagster: one step for its four tables, because they are audited and published together."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gated_specs, plain_failures
from wikistream_assets.components.steps import published
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.resources.ports import Compute, Lake, Notifier
from wikistream_assets.streams.edits.stream import EDITS, GOLD


@dg.multi_asset(
    name="gold_publish",
    specs=gated_specs(GOLD.tables),
    check_specs=check_specs(*GOLD.tables),
    pool=EDITS.lease(GOLD.layer),
    description="Recomputes the days that new Silver rows touch, audits all four tables on branches, publishes them together.",
)
def gold(
    context: dg.AssetExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    notifier: dg.ResourceParam[Notifier],
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    step = Step(EDITS.name, Action.PUBLISH, context.run.run_id, {"layer": GOLD.layer})
    with plain_failures():
        yield from published(context, step, GOLD.layer, compute, lake.open(), notifier.open())
