"""Backfill: days of Gold computed anew on demand. It reports observations, never materializations.

A table's freshness is judged by its last materialization event. Last week computed anew says nothing about today, so it must not
turn today green.
"""

from datetime import datetime
from typing import Any, Final

import dagster as dg

from wikistream_assets.components.events import asset_key, plain_failures
from wikistream_assets.components.steps import carried_out
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.resources.ports import Compute, Lake
from wikistream_assets.streams.edits.stream import EDITS, GOLD
from wikistream_assets.upkeep.backfill import days

_FIRST_DAY: Final = "2020-01-01"
"""Older days have no partition in the UI; a run with dates of one's own takes any."""

_KEYS_NAMED: Final = 5
"""Failing keys in the error of a run; ``dq_audit.failing_rows`` has more."""


class BackfillConfig(dg.Config):
    """Which days.

    Attributes:
        from_date: first day, yyyy-MM-dd, UTC.
        to_date: last day, included.
    """

    from_date: str
    to_date: str


@dg.op(pool=EDITS.lease(GOLD.layer))
def recompute_days(
    context: dg.OpExecutionContext,
    config: BackfillConfig,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
) -> None:
    """Compare Silver with Bronze, recompute Gold, publish it if it passes its gate."""
    with plain_failures():
        dates = days(config.from_date, config.to_date)
        step = Step(EDITS.name, Action.RECOMPUTE, context.run_id, {"dates": dates})
        report = carried_out(step, GOLD.layer, compute, lake.open())
    figures: dict[str, Any] = {"from": dates[0], "to": dates[-1], "days": len(dates), "published": report.passed}
    context.add_output_metadata(figures)
    if not report.passed:
        raise dg.Failure(
            f"Gold's gate failed, nothing was published: {'; '.join(map(_breach, report.blocking))}",
            allow_retries=False,
        )
    for spec in GOLD.tables:
        context.log_event(dg.AssetObservation(asset_key(spec), metadata=figures))


def _breach(outcome: CheckOutcome) -> str:
    keys = ", ".join(outcome.failing_keys[:_KEYS_NAMED])
    return f"{outcome.table}.{outcome.rule.name}: {outcome.message}" + (f" ({keys})" if keys else "")


@dg.daily_partitioned_config(start_date=_FIRST_DAY, end_offset=1)
def day(start: datetime, _end: datetime) -> dict[str, Any]:
    """A day as a partition, for Dagster's own backfills: the days chosen in the UI are a run each."""
    date = start.date().isoformat()
    return {"ops": {"recompute_days": {"config": {"from_date": date, "to_date": date}}}}


@dg.job(
    config=day,
    description="Hold Silver against Bronze and compute days of Gold anew, through the same gate; freshness stays as it is.",
)
def backfill() -> None:
    recompute_days()
