"""The regular redrive of dead letters: what a mended contract, or the passing of time, has made acceptable comes back."""

from dataclasses import asdict

import dagster as dg

from wikistream_assets.asset_factory import asset_key
from wikistream_assets.jobs.redrive import Selection, redrive
from wikistream_assets.resources.environment import LocalLakehouse
from wikistream_assets.settings import load_settings
from wikistream_assets.tables import DEAD_LETTER


@dg.op
def redrive_waiting_letters(context: dg.OpExecutionContext, lakehouse: LocalLakehouse) -> None:
    """Redrive every letter that waits; an observation of the table says what became of them."""
    report = redrive(lakehouse.open(), load_settings(), Selection())
    figures = {name.replace("_", " "): number for name, number in asdict(report).items()}
    context.add_output_metadata(figures)
    if report.redriven:
        context.log_event(dg.AssetObservation(asset_key(DEAD_LETTER), metadata=figures))


@dg.job(description="Judge dead letters again by the contract of today; what passes goes back to Kafka, once.")
def redrive_dead_letters() -> None:
    redrive_waiting_letters()


every_six_hours = dg.ScheduleDefinition(
    name="redrive_dead_letters_every_six_hours",
    job=redrive_dead_letters,
    cron_schedule="0 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
