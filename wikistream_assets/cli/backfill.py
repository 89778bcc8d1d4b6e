"""``wikistream backfill``: a piece of the stream's history into Kafka, beside the running producer."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from producer import service
from producer.pipeline import Stop
from producer.signals import on_stop
from wikistream_assets.cli.console import fail, printable
from wikistream_assets.settings import load_settings


def backfill(
    since: Annotated[datetime, typer.Option(help="begin with the events of this time, UTC")],
    until: Annotated[datetime | None, typer.Option(help="end with the events of this time, UTC; default: now")] = None,
    source: Annotated[str, typer.Option(help="live (WIKISTREAM_STREAM_URL), or the address of a stream")] = "live",
) -> None:
    """Read the stream's history since a time into Kafka; Bronze keeps each event once, however often it comes.

    It has a cursor of its own, so the live producer's place does not move, both may run at once, and the same command goes on
    where it was interrupted. The events count as replayed: they do not count against timeliness. EventStreams keeps some weeks.
    """
    settings = load_settings()
    begin, end = _utc(since), _utc(until) if until else datetime.now(UTC)
    if begin >= end:
        fail(f"--since {begin.isoformat()} is not before {'--until ' if until else ''}{end.isoformat()}", 2)
    stop = Stop()
    on_stop(stop.request)
    url = settings.stream_url if source == "live" else source
    job = service.Job(
        url=url,
        identity=f"backfill:{url}?since={begin.isoformat()}",
        mode="replay",
        until_end=True,
        since=begin,
        until=end,
    )
    report = service.run(job, settings.model_copy(update={"producer_metrics_port": 0}), stop)
    run = report.run
    typer.echo(
        f"{report.outcome}: read {run.received}: accepted {run.accepted}, in other wikis {run.filtered}, canaries {run.canary}, "
        f"dead-lettered {run.dead_lettered.total()}; the next run of Bronze takes them in, each event once"
    )
    if run.received and report.cursor.gaps_total:
        first = report.cursor.gaps[0].gap
        typer.echo(
            f"missing: the server no longer has what lies between {printable(first.after)} and {printable(first.before)}"
        )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
