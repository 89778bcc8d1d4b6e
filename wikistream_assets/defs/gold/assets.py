"""Gold in Dagster: one step for its four tables, because they are audited and published together."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gated_specs, plain_failures
from wikistream_assets.components.steps import published
from wikistream_assets.engine.gold import LAYER as GOLD
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.resources.ports import Compute, Lake, Notifier
from wikistream_assets.streams.edits.tables import GOLD_TABLES
from wikistream_assets.streams.registry import EDITS


@dg.multi_asset(
    name="gold_publish",
    specs=gated_specs(GOLD_TABLES),
    check_specs=check_specs(*GOLD_TABLES),
    pool="gold",
    description="Recomputes the days that new Silver rows touch, audits all four tables on branches, publishes them together.",
)
def gold(
    context: dg.AssetExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    notifier: dg.ResourceParam[Notifier],
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    step = Step(EDITS, Action.PUBLISH, context.run.run_id, {"layer": GOLD})
    with plain_failures():
        yield from published(context, step, GOLD, GOLD_TABLES, compute, lake.open(), notifier.open())
