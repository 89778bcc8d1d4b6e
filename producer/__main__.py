"""``python -m producer``: EventStreams into Kafka until told to stop.

Exit codes: 0 stopped or finished · 1 other error · 2 settings or arguments · 3 the stream · 4 Kafka · 5 fenced by a newer
producer of the same source.
"""

import json
import logging
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from producer import service
from producer.envelope import SourceMode
from producer.exceptions import ProducerConfigError, ProducerError
from producer.pipeline import Stop
from producer.settings import ProducerSettings
from producer.signals import on_stop


def produce(
    url: Annotated[str | None, typer.Option(help="EventStreams endpoint; default WIKISTREAM_STREAM_URL")] = None,
    source_id: Annotated[
        str | None, typer.Option(help="identity of the source, key of its cursor; default 'live:' and the URL")
    ] = None,
    mode: Annotated[str, typer.Option(help="what the events are: live, replay or synthetic")] = "live",
    max_events: Annotated[int | None, typer.Option(min=1, help="stop after so many received events")] = None,
    until_end: Annotated[
        bool,
        typer.Option(help="end with exit code 0 when the server has nothing more (HTTP 204), instead of asking again"),
    ] = False,
) -> None:
    """Read EventStreams into Kafka, exactly once. Settings come from WIKISTREAM_* variables.

    The last line of output is JSON: how the run ended, its counters, the counters over all runs, the position, the gaps.
    """
    settings = _settings()
    if mode not in get_args(SourceMode):
        raise ProducerConfigError(f"--mode {mode}: give one of {', '.join(get_args(SourceMode))}")
    endpoint = url or settings.stream_url
    job = service.Job(
        url=endpoint,
        identity=source_id or f"live:{endpoint}",
        mode=mode,  # type: ignore[arg-type]  # checked above
        until_end=until_end,
        max_events=max_events,
    )
    stop = Stop()
    on_stop(stop.request)
    report = service.run(job, settings, stop)
    typer.echo(json.dumps(report.as_dict()))


def _settings() -> ProducerSettings:
    try:
        return ProducerSettings()
    except ValidationError as error:
        raise ProducerConfigError(
            "; ".join(
                f"{'WIKISTREAM_' + str(item['loc'][0]).upper() + ': ' if item['loc'] else ''}"
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            )
        ) from None


def main() -> None:
    """Run the command; an error of ours is one line on stderr and the error's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(produce)
    try:
        app()
    except ProducerError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
