"""``wikistream metrics``: the figures of the lake for Prometheus, and the list of all metrics."""

import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from producer.signals import on_stop
from wikistream_assets.cli.console import fail, write_document

DOCUMENT: Final = Path("docs/METRICS.md")

app = typer.Typer(no_args_is_help=True, help="Figures for Prometheus: show or serve them, and list them all.")


@app.command()
def show() -> None:
    """Print the figures of the lake once, as Prometheus reads them."""
    from prometheus_client import generate_latest

    from wikistream_assets.metrics.lake import LakeMetrics
    from wikistream_assets.settings import load_settings

    typer.echo(generate_latest(LakeMetrics(load_settings()).registry), nl=False)


@app.command()
def serve() -> None:
    """Answer GET /metrics on loopback, port WIKISTREAM_METRICS_PORT, until Ctrl-C or SIGTERM.

    'make up' does the same where that port is set.
    """
    from wikistream_assets.engine.stream_metrics import served_or_refused
    from wikistream_assets.metrics.lake import LakeMetrics
    from wikistream_assets.settings import load_settings

    settings = load_settings()
    if not settings.metrics_port:
        fail("WIKISTREAM_METRICS_PORT is 0: set it to the port to listen on, for example 9464", 2)
    stop = threading.Event()
    on_stop(stop.set)
    with served_or_refused(LakeMetrics(settings).registry, settings.metrics_port, "WIKISTREAM_METRICS_PORT"):
        typer.echo(f"http://127.0.0.1:{settings.metrics_port}/metrics; Ctrl-C stops it")
        stop.wait()


@app.command("document")
def write_list(
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit 1 if the file is stale")] = False,
    path: Annotated[Path, typer.Option(help="the file", dir_okay=False)] = DOCUMENT,
) -> None:
    """Write the list of all metrics from the code."""
    from wikistream_assets.metrics.catalogue import document

    write_document(path, document(), "wikistream metrics document", check=check)
