"""The regular purge of Dagster's own history: what it has recorded of the pipeline, not the tables."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from wikistream_assets.instance.history import purge
from wikistream_assets.settings import load_settings


@dg.op(pool="dagster_history")
def purge_old_history(context: dg.OpExecutionContext) -> None:
    """Delete a bounded number of old runs, events and check results; the newest of each stay."""
    before = datetime.now(UTC) - timedelta(days=load_settings().dagster_history_days)
    figures = {name.replace("_", " "): number for name, number in asdict(purge(context.instance, before)).items()}
    context.add_output_metadata({"older than": before.isoformat(timespec="seconds"), **figures})


@dg.job(
    description="Forget Dagster's runs, events and check results older than dagster_history_days, a part each hour."
)
def purge_history() -> None:
    purge_old_history()


history_schedule = dg.ScheduleDefinition(
    name="history_schedule",
    job=purge_history,
    cron_schedule="20 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
