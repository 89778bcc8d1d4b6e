"""Maintenance and masking in Dagster: each layer's tables in a step of its own, in the pool in which the layer is published."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from wikistream_assets.components.events import asset_key, plain_failures
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.resources.ports import Compute, Notifier
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.declaration import RAW_LAYER
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.registry import TABLE_BY_IDENTIFIER
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL
from wikistream_assets.upkeep.maintenance import layers_of
from wikistream_assets.upkeep.masking import layers_to_mask

_POOLS: Final = {
    **{publication.layer: EDITS.lease(publication.layer) for publication in EDITS.publications},
    RAW_LAYER: EDITS.lease("bronze_maintenance"),  # beside the stream and the drain: appends and rewrites commute
    AUDIT_TRAIL: AUDIT_TRAIL,
}

_DONE: Final = {"partitions compacted": "compacted", "snapshots expired": "expired", "orphans": "orphans"}


class MaintenanceConfig(dg.Config):
    """Attributes:
    orphans: also delete old files that no snapshot knows; costs a look at every file.
    """

    orphans: bool = False


def _step(layer: str) -> dg.OpDefinition:
    @dg.op(
        name=f"maintain_{layer}",
        pool=_POOLS[layer],
        description=f"Compaction, manifests and expiry of the {layer} tables; never touches what a reader still needs.",
    )
    def step(context: dg.OpExecutionContext, config: MaintenanceConfig, compute: dg.ResourceParam[Compute]) -> None:
        step = Step(EDITS.name, Action.MAINTAIN, context.run_id, {"layer": layer, "orphans": config.orphans})
        with plain_failures():
            said = compute.run(step)
        for report in said.get("reports", ()):
            key = asset_key(TABLE_BY_IDENTIFIER[report["table"]])
            context.log_event(dg.AssetObservation(key, metadata=_figures(report)))

    return step


def _figures(report: Mapping[str, Any]) -> dict[str, int | str]:
    sizes = {f"{name} {when}": report[when][name] for name in report["before"] for when in ("before", "after")}
    done = {name: report[field] for name, field in _DONE.items()}
    return sizes | done | ({"left undone": report["note"]} if report["note"] else {})


_STEPS: Final = {layer: _step(layer) for layer in layers_of(EDITS)}


@dg.job(
    description="Small files, manifests and snapshots that nobody needs any more; figures stand on each table's page."
)
def maintenance() -> None:
    for step in _STEPS.values():
        step()


maintenance_schedule = dg.ScheduleDefinition(
    name="maintenance_schedule",
    job=maintenance,
    cron_schedule=f"*/{load_settings().maintenance_every_minutes} * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

orphans_schedule = dg.ScheduleDefinition(
    name="orphans_schedule",
    job=maintenance,
    cron_schedule="30 3 * * *",
    run_config=dg.RunConfig(ops={step.name: MaintenanceConfig(orphans=True) for step in _STEPS.values()}),
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def _masking_step(layer: str) -> dg.OpDefinition:
    @dg.op(
        name=f"mask_{layer}",
        pool=_POOLS[layer],
        ins={"before": dg.In(dg.Nothing)},
        description=f"Names, addresses and free text of old rows of the {layer} tables; only rows that every reader has read.",
    )
    def step(context: dg.OpExecutionContext, compute: dg.ResourceParam[Compute]) -> None:
        today = datetime.now(UTC).date().isoformat()
        step = Step(EDITS.name, Action.MASK, context.run_id, {"layer": layer, "today": today})
        with plain_failures():
            said = compute.run(step)
        for report in said.get("reports", ()):
            metadata = {"dates masked": len(report["dates"]), "dates that wait for a reader": len(report["waiting"])}
            key = asset_key(TABLE_BY_IDENTIFIER[report["table"]])
            context.log_event(
                dg.AssetObservation(key, metadata=metadata | ({"note": report["note"]} if report["note"] else {}))
            )

    return step


@dg.op(description="What the alert log said longer ago than names are kept; who is over a limit is named there.")
def forget_alerts(context: dg.OpExecutionContext, notifier: dg.ResourceParam[Notifier]) -> None:
    with plain_failures():
        forgotten = notifier.open().forget(load_settings().names_kept_since(datetime.now(UTC).date()))
    context.log.info("%d lines of the alert log are forgotten", forgotten)


@dg.job(
    description="Masks what is older than privacy_mask_after_days, Gold first; maintenance then forgets what it looked like."
)
def masking() -> None:
    done = None
    for layer in layers_to_mask(EDITS):
        step = _masking_step(layer)
        done = step(before=done) if done is not None else step()
    forget_alerts()


masking_schedule = dg.ScheduleDefinition(
    name="masking_schedule",
    job=masking,
    cron_schedule="50 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
