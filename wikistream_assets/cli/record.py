"""``wikistream record``: keep a piece of the live stream as a capture that ``SOURCE=`` understands."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from producer import service
from producer.eventstreams.capture import Writer
from producer.pipeline import Stop
from producer.reader import Reader
from producer.signals import on_stop
from producer.sse import Frame
from wikistream_assets.settings import load_settings

_TAKE: Final = 500
_WAIT_SECONDS: Final = 0.2


def record(
    out: Annotated[
        Path, typer.Argument(help="capture to write: .sse[.gz] keeps the wire, .jsonl[.gz] the events alone")
    ],
    events: Annotated[int | None, typer.Option(min=1, help="stop after so many events")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="stop after so many seconds")] = None,
    url: Annotated[str | None, typer.Option(help="EventStreams endpoint; default WIKISTREAM_STREAM_URL")] = None,
) -> None:
    """Record a stream to a capture file until --events, --seconds, its end, or Ctrl-C; what was received is kept."""
    settings = load_settings()
    stop = Stop()
    on_stop(stop.request)
    endpoint = url or settings.stream_url
    reader = Reader(endpoint, service.user_agent(settings, endpoint), None, service.policy(settings, until_end=True))
    deadline = time.monotonic() + seconds if seconds else None
    with Writer(out) as writer:
        typer.echo(f"recording {endpoint} to {out}, Ctrl-C to stop", err=True)
        reader.start()
        try:
            while not (stop.requested or reader.ended or writer.frames == events):
                if deadline is not None and time.monotonic() >= deadline:
                    break
                left = _TAKE if events is None else min(_TAKE, events - writer.frames)
                for received in reader.take(left, _WAIT_SECONDS):
                    data = received.data.encode() if received.original is None else received.original
                    writer.write(Frame(data, received.event_id.encode()))
        finally:
            reader.stop()
        if reader.ended and reader.failure:
            raise reader.failure
    typer.echo(f"{writer.frames} events in {out}" if writer.frames else f"no event received, {out} not written")
