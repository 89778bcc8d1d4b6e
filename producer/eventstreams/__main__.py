"""``python -m producer.eventstreams``: serve a recording until the process is told to stop."""

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from producer.eventstreams import capture
from producer.eventstreams.generator import DEFAULT_START, Generator
from producer.eventstreams.recording import Captured, Recording, Synthetic
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.exceptions import ProducerConfigError, ProducerError, SourceError
from producer.signals import on_stop

_DEFAULT = Generator()


def serve(
    source: Annotated[str, typer.Option(help="'synthetic', or the path of a capture")] = "synthetic",
    sha256: Annotated[
        str | None, typer.Option(help="serve the capture only if this is its content, and not if it has changed since")
    ] = None,
    port: Annotated[int, typer.Option(help="port on loopback; 0 takes a free one")] = 0,
    speed: Annotated[
        float, typer.Option(help="1 = as recorded, N = N times as fast, 0 = as fast as the client reads")
    ] = 0,
    cut_seconds: Annotated[float, typer.Option(help="close each connection after so many seconds")] = 900.0,
    recorded_ids: Annotated[
        bool,
        typer.Option(help="send the timestamps that a .sse capture has for ids, not offsets; such a stream has no end"),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="synthetic: of the random numbers; another seed makes other events")
    ] = _DEFAULT.seed,
    events: Annotated[int, typer.Option(min=1, help="synthetic: lines in all")] = _DEFAULT.events,
    hours: Annotated[
        float, typer.Option(min=0.001, help="synthetic: time from the first to the last event")
    ] = _DEFAULT.hours,
    start: Annotated[
        str, typer.Option(help="synthetic: time of the first event, ISO 8601, or 'now'; with --speed 1 that looks live")
    ] = DEFAULT_START.isoformat(),
    followed_share: Annotated[
        float, typer.Option(help="synthetic: share of lines in followed wikis")
    ] = _DEFAULT.followed_share,
    redelivered: Annotated[float, typer.Option(help="synthetic: share of redelivered lines")] = _DEFAULT.redelivered,
    malformed: Annotated[float, typer.Option(help="synthetic: share of malformed lines")] = _DEFAULT.malformed,
    canary: Annotated[float, typer.Option(help="synthetic: share of canaries")] = _DEFAULT.canary,
    oversized_bytes: Annotated[
        int, typer.Option(help="synthetic: size of an oversized line")
    ] = _DEFAULT.oversized_bytes,
    continuous: Annotated[
        bool,
        typer.Option(
            help="synthetic: in the time of the clock; what is overdue is sent at once, --speed has no meaning"
        ),
    ] = False,
) -> None:
    """Serve EventStreams on loopback. The first line of output is JSON: url, identity and mode of the source."""
    recording: Recording
    if source == "synthetic":
        recording = Synthetic(
            Generator(
                seed=seed,
                events=events,
                start=_start(start),
                hours=hours,
                followed_share=followed_share,
                redelivered=redelivered,
                malformed=malformed,
                canary=canary,
                oversized_bytes=oversized_bytes,
                continuous=continuous,
            )
        )
    else:
        path = Path(source)
        recording = Captured(path, capture.inspect(path).sha256)
        if sha256 not in (None, recording.sha256):
            raise SourceError(f"{path} has changed since it was chosen: start again with it, then it is another source")
    behaviour = Behaviour(
        speed=speed or None,
        wall_clock=continuous and source == "synthetic",
        cut_seconds=cut_seconds,
        recorded_ids=recorded_ids,
    )
    _run(recording, behaviour, port)


def _run(recording: Recording, behaviour: Behaviour, port: int) -> None:
    stop = threading.Event()
    on_stop(stop.set)
    try:
        server = EventStreamsServer(recording, behaviour, port)
    except OSError as error:
        raise ProducerConfigError(
            f"port {port} cannot be used ({error.strerror}): stop the process that uses it, or give another --port"
        ) from None
    with server:
        typer.echo(json.dumps({"url": server.url, "identity": recording.identity, "mode": recording.mode}))
        stop.wait()


def _start(text: str) -> datetime:
    try:
        moment = datetime.now(UTC).replace(microsecond=0) if text == "now" else datetime.fromisoformat(text)
    except ValueError:
        raise ProducerConfigError(
            f"--start {text!r} is no ISO 8601 time: write e.g. {DEFAULT_START.isoformat()} or 'now'"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def main() -> None:
    """Run the command; an error of ours is one line on stderr and the error's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        app()
    except ProducerError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
