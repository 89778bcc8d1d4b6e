"""The regular redrive of dead letters: what a mended contract, or the passing of time, has made acceptable comes back."""

from dataclasses import asdict

import dagster as dg

from wikistream_assets.components.events import asset_key, plain_failures
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.resources.ports import KafkaBroker, Lake
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import DEAD_LETTER
from wikistream_assets.upkeep.redrive import Selection, redrive


@dg.op
def redrive_waiting_letters(
    context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], broker: dg.ResourceParam[KafkaBroker]
) -> None:
    """Redrive every letter that waits; an observation of the table says what became of them."""
    with plain_failures():
        broker.hold(context.log.info)
        report = redrive(lake.open(), EDITS, load_settings(), Selection())
    figures = {name.replace("_", " "): number for name, number in asdict(report).items()}
    context.add_output_metadata(figures)
    if report.redriven:
        context.log_event(dg.AssetObservation(asset_key(DEAD_LETTER), metadata=figures))


@dg.job(description="Judge dead letters again by the contract of today; what passes goes back to Kafka, once.")
def redrive_dead_letters() -> None:
    redrive_waiting_letters()


@dg.schedule(
    name="redrive_dead_letters_every_six_hours",
    job=redrive_dead_letters,
    cron_schedule="0 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_six_hours(broker: dg.ResourceParam[KafkaBroker]) -> dg.RunRequest | dg.SkipReason:
    """Letters are redriven to the broker: without one there is nothing to start."""
    try:
        broker.connect().refuse_absent()
    except BrokerError as error:
        return dg.SkipReason(str(error))
    return dg.RunRequest()
