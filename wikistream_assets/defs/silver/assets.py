"""Silver in Dagster: one step builds, audits and publishes Silver and its quarantine."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wikistream_assets.components.events import check_specs, gated_specs, plain_failures
from wikistream_assets.components.steps import published
from wikistream_assets.engine.silver import LAYER as SILVER
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.resources.ports import Compute, Lake, Notifier
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE
from wikistream_assets.streams.registry import EDITS

_TABLES = (CLEANED_EVENTS, QUARANTINE)


@dg.multi_asset(
    name="silver_publish",
    specs=gated_specs(_TABLES),
    check_specs=check_specs(*_TABLES),
    pool="silver",
    description="Reads Bronze from Silver's position up to the audited tag, audits the result on a branch, publishes it.",
)
def silver(
    context: dg.AssetExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    notifier: dg.ResourceParam[Notifier],
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    step = Step(EDITS, Action.PUBLISH, context.run.run_id, {"layer": SILVER})
    with plain_failures():
        yield from published(context, step, SILVER, _TABLES, compute, lake.open(), notifier.open())
