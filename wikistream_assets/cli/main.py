"""The ``wikistream`` command: which commands there are, and what becomes of an error.

A command's module is imported when the command runs, so that ``--help`` and the light commands do not wait for Dagster, Spark
or DuckDB.
"""

import importlib
import logging
import sys
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from producer.exceptions import ProducerConfigError, ProducerError
from wikistream_assets.cli.console import printable
from wikistream_assets.exceptions import ConfigurationError, WikistreamError

ERROR: Final = 1
USAGE: Final = 2


class _Command(NamedTuple):
    """Where a command is defined: a function, or a Typer app with its own commands; and its line in the help."""

    module: str
    attribute: str
    summary: str


COMMANDS: Final = {
    "demo": _Command("demo", "demo", "Run the whole main job on this machine and sum up what came out."),
    "dev": _Command("services", "dev", "Start the whole pipeline, with the Dagster UI in front."),
    "up": _Command("services", "up", "Start the whole pipeline without the UI."),
    "down": _Command("services", "down", "Stop everything of this home; the data stays."),
    "status": _Command("services", "status", "Show the state of each program."),
    "health": _Command("services", "health", "Tell whether the pipeline is well: programs, lag, gates."),
    "doctor": _Command("services", "doctor", "Check this machine, and say how to fix what is wrong."),
    "sql": _Command("sql", "sql", "Run one read-only query on the lake."),
    "queries": _Command(
        "queries", "queries", "List the named queries, or run one: trends, vandalism, languages, bots."
    ),
    "quality": _Command("quality", "quality", "Show pass rates of the checks by day, table and check, worst first."),
    "tables": _Command("tables", "tables", "Show every table: rows, files, size, newest snapshot, hash."),
    "snapshots": _Command("history", "snapshots", "List a table's snapshots, newest first."),
    "diff": _Command("history", "diff", "Show which rows differ between two snapshots of a table."),
    "rollback": _Command("history", "rollback", "Set a table back to an earlier snapshot, with what follows from it."),
    "mask": _Command("maintain", "mask", "Hide names and addresses in events older than the limit."),
    "backup": _Command("backup", "backup", "Copy the lake to a folder, or bring a backup there up to date."),
    "restore": _Command("backup", "restore", "Make a home from a backup."),
    "relocate": _Command("backup", "relocate", "Make a home that was moved or copied work in its new place."),
    "maintain": _Command("maintain", "maintain", "Compact files, expire snapshots, delete orphans."),
    "trace": _Command("trace", "trace", "Follow one edit through every layer."),
    "gate": _Command("gate", "app", "See failed gates, accept or reject what they stopped."),
    "dlq": _Command("dlq", "app", "List and show dead letters, and redrive them."),
    "alerts": _Command("alerts", "app", "See open alerts, send what waits, close one by hand, try the channels."),
    "metrics": _Command("metrics", "app", "Figures for Prometheus: show or serve them, and list them all."),
    "topics": _Command("services", "topics_app", "Look into the Kafka topics, or bring them into shape."),
    "backfill": _Command(
        "backfill", "backfill", "Read a past piece of the stream once more; events that Bronze has are not doubled."
    ),
    "record": _Command("record", "record", "Record a stream to a capture file."),
    "criteria": _Command("criteria", "criteria", "Print what counts as large, risky and healthy, and the regions."),
    "dictionary": _Command("dictionary", "dictionary", "Write the data dictionary from the table contracts."),
}


class _LazyGroup(TyperGroup):
    """Lists commands from ``COMMANDS`` and imports only the one that is called.

    Contexts and commands are ``Any``: typer keeps their classes in a private copy of click.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        place = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=place.summary) if place else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else command, rest


def load_command(name: str) -> Any:
    """The command or group of commands called ``name``, imported now."""
    place = COMMANDS[name]
    target: Any = getattr(importlib.import_module(f"wikistream_assets.cli.{place.module}"), place.attribute)
    parent = typer.Typer(add_completion=False)
    parent.callback()(lambda: None)  # makes it a group even of one command
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=name)
    else:
        parent.command(name)(target)
    group: Any = typer.main.get_command(parent)
    return group.commands[name]


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"wikistream {version('wikistream')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log more, on standard error")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and stop", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The public Wikimedia edit stream as audited Iceberg tables. Settings: WIKISTREAM_* variables, see the README."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for package in ("wikistream_assets", "producer"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


def main() -> None:
    """Entry point of the console script: errors meant for the user end as one line on standard error.

    Exit codes: 0 done, 1 failed, 2 wrong usage or setting; a command may name more in its help.
    """
    # Not every terminal can show every title.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIO in name, TextIOWrapper in fact
    try:
        app()
    except (WikistreamError, ProducerError) as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(USAGE if isinstance(error, (ConfigurationError, ProducerConfigError)) else ERROR)
    except Exception as error:
        from wikistream_assets.lake.failures import explained

        told = explained(error)
        if told is None:
            raise
        typer.echo(f"error: {printable(str(told))}", err=True)
        sys.exit(ERROR)
