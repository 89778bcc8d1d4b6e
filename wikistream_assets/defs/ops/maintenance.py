"""Maintenance and masking in Dagster: each layer's tables in a step of its own, in the pool in which the layer is published."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from wikistream_assets.components.events import asset_key, plain_failures
from wikistream_assets.resources.environment import LocalLakehouse, LocalNotifier, LocalSpark
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.registry import TABLE_BY_IDENTIFIER
from wikistream_assets.upkeep.maintenance import LAYERS, Figures, MaintenanceReport, maintain
from wikistream_assets.upkeep.masking import ORDER, mask

_POOLS: Final = {
    "bronze": "bronze_maintenance",  # beside the stream and the drain: appends and rewrites commute
    "silver": "silver",
    "gold": "gold",
    "dq_audit": "dq_audit",
}


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
    def step(
        context: dg.OpExecutionContext, config: MaintenanceConfig, spark: LocalSpark, lakehouse: LocalLakehouse
    ) -> None:
        with plain_failures():
            reports = maintain(
                lakehouse.open(), lambda: spark.spark_session, load_settings(), LAYERS[layer], orphans=config.orphans
            )
        for report in reports:
            key = asset_key(TABLE_BY_IDENTIFIER[report.table])
            context.log_event(dg.AssetObservation(key, metadata=_figures(report)))

    return step


def _figures(report: MaintenanceReport) -> dict[str, int | str]:
    sizes: dict[str, int | str] = {
        f"{name} {when}": getattr(figures, name)
        for name in Figures.__dataclass_fields__
        for when, figures in (("before", report.before), ("after", report.after))
    }
    done = {"partitions compacted": report.compacted, "snapshots expired": report.expired, "orphans": report.orphans}
    return sizes | done | ({"left undone": report.note} if report.note else {})


_STEPS: Final = {layer: _step(layer) for layer in LAYERS}


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
    def step(context: dg.OpExecutionContext, spark: LocalSpark, lakehouse: LocalLakehouse) -> None:
        today = datetime.now(UTC).date()
        with plain_failures():
            for report in mask(lakehouse.open(), lambda: spark.spark_session, load_settings(), today, layer):
                metadata = {"dates masked": len(report.dates), "dates that wait for a reader": len(report.waiting)}
                key = asset_key(TABLE_BY_IDENTIFIER[report.table])
                context.log_event(
                    dg.AssetObservation(key, metadata=metadata | ({"note": report.note} if report.note else {}))
                )

    return step


@dg.op(description="What the alert log said longer ago than names are kept; who is over a limit is named there.")
def forget_alerts(context: dg.OpExecutionContext, notifier: LocalNotifier) -> None:
    with plain_failures():
        forgotten = notifier.open().forget(load_settings().names_kept_since(datetime.now(UTC).date()))
    context.log.info("%d lines of the alert log are forgotten", forgotten)


@dg.job(
    description="Masks what is older than privacy_mask_after_days, Gold first; maintenance then forgets what it looked like."
)
def masking() -> None:
    done = None
    for layer in ORDER:
        step = _masking_step(layer)
        done = step(before=done) if done is not None else step()
    forget_alerts()


masking_schedule = dg.ScheduleDefinition(
    name="masking_schedule",
    job=masking,
    cron_schedule="50 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
