"""``wikistream backup``, ``restore`` and ``relocate``: the lake in another folder, and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from wikistream_assets.cli.console import printable

_Folder = Annotated[Path, typer.Argument(help="the backup's folder")]


def backup(
    folder: _Folder,
    dagster: Annotated[bool, typer.Option("--dagster", help="also copy Dagster's runs, events and schedules")] = False,
) -> None:
    """Copy the lake while the pipeline runs: catalog, files, keys. What is in the backup already is not copied again."""
    from wikistream_assets.cli.console import open_lake
    from wikistream_assets.upkeep.backup import back_up

    settings, _ = open_lake()
    with _progress("copying") as progress:
        report = back_up(settings, folder, dagster=dagster, progress=progress)
    typer.echo(f"{printable(str(folder))}: {report.files} files, {report.bytes} bytes; {report.copied} copied now")


def restore(
    folder: _Folder,
    home: Annotated[Path, typer.Option("--home", help="folder of the restored lake: a new one, or the original path")],
    kafka_lost: Annotated[
        bool, typer.Option("--kafka-lost", help="Kafka's data is gone too: read its new topics from their beginning")
    ] = False,
) -> None:
    """Make a home from a backup; at another path than the original all paths in Iceberg's metadata are rewritten."""
    from wikistream_assets.upkeep.backup import restore as make_home

    with _progress("restoring") as progress:
        report = make_home(folder, home, kafka_lost=kafka_lost, progress=progress)
    typer.echo(f"{printable(str(home))}: {report.files} files, {report.bytes} bytes; set WIKISTREAM_HOME to it")


def relocate() -> None:
    """Make a home that was moved or copied work in its new place: all paths in Iceberg's metadata are rewritten.

    A copy becomes a separate lake. The original's files are not touched. Killed half way, run it again.
    """
    from wikistream_assets.settings import load_settings
    from wikistream_assets.upkeep.relocation import relocate as make_at_home

    settings = load_settings()
    done = make_at_home(settings)
    if done is None:
        typer.echo(f"{printable(str(settings.root))} is in its place already, nothing was changed")
        return
    was = "a copy of" if done.copied else "moved from"
    typer.echo(
        f"{printable(str(settings.root))}, {was} {printable(str(done.former))}, works in its new place: {done.tables} tables"
    )


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    with typer.progressbar(length=100, label=label) as bar:

        def show(done: int, total: int) -> None:
            bar.update(100 * done // max(total, 1) - bar.pos)

        yield show
