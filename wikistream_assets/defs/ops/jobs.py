"""What can be started as a whole: the cycle, each layer alone, the Bronze gate alone, and an operator's decision."""

import dagster as dg

from wikistream_assets.components.events import plain_failures
from wikistream_assets.defs.bronze.assets import bronze, bronze_gate
from wikistream_assets.defs.gold.assets import gold
from wikistream_assets.defs.silver.assets import silver
from wikistream_assets.engine.decisions import Action as Decided
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.instance.cycles import CYCLE
from wikistream_assets.instance.run_launcher import WARM
from wikistream_assets.resources.ports import Compute
from wikistream_assets.streams.edits.stream import EDITS

# each step finds its own place in the lake, whatever the run before it did
_ALL_STEPS = {"dagster/retry_strategy": "ALL_STEPS"}

_BRONZE = dg.AssetSelection.assets(bronze).without_checks()

cycle = dg.define_asset_job(
    CYCLE,
    selection=dg.AssetSelection.assets(bronze, silver, gold),
    tags={**_ALL_STEPS, "wikistream/job": CYCLE, WARM: "true"},
    description="Drain Kafka, Bronze gate, Silver with its gate, Gold with its gate. Stops at the first gate that blocks.",
)
bronze_job = dg.define_asset_job(
    "bronze", selection=_BRONZE, tags=_ALL_STEPS, description="Drain what is in Kafka now into Bronze."
)
silver_job = dg.define_asset_job(
    "silver",
    selection=dg.AssetSelection.assets(silver),
    tags=_ALL_STEPS,
    description="Bronze to Silver, audited, up to the tag.",
)
gold_job = dg.define_asset_job(
    "gold",
    selection=dg.AssetSelection.assets(gold),
    tags=_ALL_STEPS,
    description="Silver to Gold, audited, up to Silver's head.",
)
gates = dg.define_asset_job(
    "gates",
    selection=dg.AssetSelection.checks(bronze_gate),
    tags=_ALL_STEPS,
    description="The Bronze gate alone: audits and tags what has arrived. Silver's and Gold's gates are part of their steps.",
)


class DecisionConfig(dg.Config):
    """An operator's decision on a failed check.

    Attributes:
        action: accept (waive the check for the failed range) or reject (send matching rows to quarantine).
        table: ``namespace.name`` of the audited table.
        check: name of the failed check.
        reason: why, in the operator's words.
        decided_by: who decides.
        where: SQL condition on the audited rows, of the grammar in docs/RUNBOOK.md; for reject.
        dry_run: show what the decision would cover, record nothing.
    """

    action: Decided
    table: str
    check: str
    reason: str
    decided_by: str
    where: str | None = None
    dry_run: bool = True


@dg.op
def decide(context: dg.OpExecutionContext, config: DecisionConfig, compute: dg.ResourceParam[Compute]) -> None:
    """Record the decision; the next run of the layer obeys it."""
    step = Step(EDITS.name, Action.DECIDE, context.run_id, config.model_dump(mode="json"))
    with plain_failures():
        preview = compute.run(step)
    context.log.info(preview["text"])
    context.add_output_metadata(
        {"decision": preview["text"], "rows covered": preview["rows"], "recorded": not config.dry_run}
    )


@dg.job(description="Accept or reject a failed check, with a reason; dry_run shows what it would cover.")
def gate_decision() -> None:
    decide()
