"""Commands for the machine and what runs on it: up, dev, down, status, health, doctor, topics."""

import json as json_module
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from producer.signals import clean_up_when_stopped
from producer.topics import RAW_EVENTS
from wikistream_assets.cli.console import json_text, printable, terminal
from wikistream_assets.embedded import doctor as examination
from wikistream_assets.embedded import services
from wikistream_assets.embedded.doctor import Finding
from wikistream_assets.embedded.programs import ui_command, ui_environment
from wikistream_assets.embedded.services import ServiceStatus
from wikistream_assets.embedded.source import chosen_source
from wikistream_assets.kafka.broker import Broker, Record
from wikistream_assets.machine.ports import refuse_taken_port
from wikistream_assets.settings import Settings, load_settings

if TYPE_CHECKING:  # it imports pyspark, which most of these commands need not wait for
    from wikistream_assets.readers.health import Health

NOT_WELL = 3
"""Exit code of ``status`` and ``health`` when something does not run as it should; 1 is for errors, 2 for wrong arguments."""

topics_app = typer.Typer(help="Look into the Kafka topics, or bring them into shape.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
SourceOption = Annotated[
    str | None,
    typer.Option(
        help="synthetic, live, or the path of a .jsonl[.gz] or .sse[.gz] capture; default: what this home reads already, at "
        "first synthetic"
    ),
]
TopicArgument = Annotated[str, typer.Argument(help="name of the topic, as 'wikistream topics list' shows it")]


def up(source: SourceOption = None) -> None:
    """Start the whole pipeline without the UI and wait until it works; what runs already is left alone.

    Broker, source, producer, Bronze stream, Dagster's code server and daemon and the worker of the cycles, all on loopback, kept
    running until 'wikistream down'. Another source, or another setting, restarts what it concerns. WIKISTREAM_KAFKA_PORT and the
    other ports let two homes run side by side.
    """
    settings = load_settings()
    clean_up_when_stopped()
    services.up(settings, source or _source_of(settings))
    for service in services.status(settings):
        typer.echo(f"{service.name:<8} {service.state}" + (f" on 127.0.0.1:{service.port}" if service.port else ""))
    typer.echo("'wikistream health' tells how it is, 'wikistream down' stops it")


def dev(source: SourceOption = None) -> None:
    """Start the whole pipeline, with the Dagster UI in front. Ctrl-C stops the UI only, 'wikistream down' stops all."""
    settings = load_settings()
    refuse_taken_port("Dagster UI", "WIKISTREAM_DAGSTER_PORT", settings.dagster_port)
    clean_up_when_stopped()
    services.up(settings, source or _source_of(settings))
    typer.echo(f"Dagster UI on http://127.0.0.1:{settings.dagster_port}; Ctrl-C stops it, the pipeline goes on")
    with subprocess.Popen(ui_command(settings), env=ui_environment(settings)) as ui:
        signal.signal(signal.SIGTERM, lambda *_: ui.terminate())  # and a hang-up with it
        try:
            code = ui.wait()
        except KeyboardInterrupt:  # the UI got it too
            code = 0
            ui.wait()
    typer.echo("the UI has stopped, the pipeline goes on: 'make dev' opens the UI again, 'make down' stops all")
    raise typer.Exit(code if code > 0 else 0)


def _source_of(settings: Settings) -> str:
    chosen = chosen_source(settings)
    return chosen.spec if chosen else "synthetic"


def down() -> None:
    """Stop everything of this home; the data stays. Leftovers of a killed supervisor are ended too."""
    stopped = services.down(load_settings())
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(json: JsonOption = False) -> None:
    """Show the state of each program. Exit code 0 if all run and answer (or are done), 3 otherwise."""
    found = services.status(load_settings())
    if json:
        typer.echo(json_module.dumps([asdict(service) for service in found], indent=2))
    else:
        terminal().print(_programs_table(found))
    if not all(service.well for service in found):
        raise typer.Exit(NOT_WELL)


def health(json: JsonOption = False) -> None:
    """Tell whether the pipeline is well: programs, lag, newest snapshots, gates, last cycle.

    Exit code 0 if so, 3 if something is wrong.
    """
    from wikistream_assets.readers.health import examine

    found = examine(load_settings())
    if json:
        typer.echo(json_module.dumps(asdict(found), indent=2, default=datetime.isoformat))
    else:
        _print_health(found)
    if found.problems:
        raise typer.Exit(NOT_WELL)


def doctor() -> None:
    """Check this machine: Python, packages, Java, jars, home, disk, open files, ports; then start Spark and a broker.

    They run in a temporary folder; nothing stays, and the home is not touched. Exit code 1 if something is wrong.
    """
    settings = load_settings()
    findings = examination.examine(settings)
    width = max(len(finding.name) for finding in findings)

    def show(found: Sequence[Finding]) -> None:
        for finding in found:
            typer.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.name:<{width}}  {finding.text}")

    show(findings)
    typer.echo("starting Spark and a broker in a temporary folder (about 20 s) ..", err=True)
    findings += (tried := examination.try_out(settings, findings))
    show(tried)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@topics_app.command("list")
def list_topics(json: JsonOption = False) -> None:
    """List the topics with their partitions and how many offsets each holds (transaction markers take one too)."""
    broker = _broker()
    rows = {
        name: {"partitions": partitions, "offsets": sum(high - low for low, high in broker.offsets(name).values())}
        for name, partitions in broker.list_topics().items()
    }
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
        return
    table = _table("topic", "partitions", "offsets held")
    for name, row in rows.items():
        table.add_row(name, str(row["partitions"]), str(row["offsets"]))
    terminal().print(table)


@topics_app.command("offsets")
def offsets(topic: TopicArgument = RAW_EVENTS, json: JsonOption = False) -> None:
    """Show the first offset of each partition and the one after the last."""
    found = _broker().offsets(topic)
    if json:
        typer.echo(
            json_module.dumps({partition: {"low": low, "high": high} for partition, (low, high) in found.items()})
        )
        return
    table = _table("partition", "low", "high")
    for partition, (low, high) in found.items():
        table.add_row(str(partition), str(low), str(high))
    terminal().print(table)


@topics_app.command("tail")
def tail(
    topic: TopicArgument = RAW_EVENTS,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="how many records")] = 10,
) -> None:
    """Print the last committed records of a topic, oldest first, one JSON object a line."""
    for record in _broker().tail(topic, number):
        typer.echo(json_text(_shown(record)))


@topics_app.command("sync")
def sync() -> None:
    """Create missing topics and correct settings that differ from WIKISTREAM_KAFKA_PARTITIONS, .._RETENTION_HOURS and so on."""
    settings = load_settings()
    changes = Broker(settings.bootstrap_servers).ensure_topics(settings)
    typer.echo("\n".join(changes) if changes else "all topics are as configured")


def _broker() -> Broker:
    return Broker(load_settings().bootstrap_servers)


def _shown(record: Record) -> dict[str, object]:
    time = None if record.timestamp_ms is None else datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": time.isoformat(timespec="milliseconds") if time else None,
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "value": None if record.value is None else record.value.decode(errors="replace"),
    }


def _programs_table(found: Sequence[ServiceStatus]) -> Table:
    table = _table("program", "state", "process", "uptime", "port", "detail")
    for service in found:
        uptime = "-" if service.uptime_seconds is None else str(timedelta(seconds=service.uptime_seconds))
        process, port = str(service.pid or "-"), str(service.port or "-")
        table.add_row(service.name, service.state, process, uptime, port, printable(service.detail))
    return table


def _print_health(found: "Health") -> None:
    terminal().print(_programs_table(found.programs))
    lag = "unknown" if found.bronze_lag is None else f"{found.bronze_lag:,}"
    if not found.kafka_answers:
        received = "unknown, for the broker does not answer"
    elif found.received is None:
        received = "nothing yet"
    else:
        received = f"{found.received:,} events, last {_ago(found, found.cursor_at)}"
    typer.echo(f"source    {printable(found.source or 'none')}: received {received}")
    typer.echo(f"bronze    {lag} offsets behind Kafka, newest snapshot {_ago(found, found.bronze_at)}")
    typer.echo(f"silver    newest snapshot {_ago(found, found.silver_at)}")
    typer.echo(f"gold      newest snapshot {_ago(found, found.gold_at)}")
    typer.echo(f"gates     {'CLOSED' if found.blocked else 'open'}, last verdict {_ago(found, found.verdict_at)}")
    for budget in found.quarantine:
        typer.echo(f"quarantine {budget.status}: {printable(budget.message)}")
    cycle = found.cycle
    took = f", took {cycle.seconds:.0f} s" if cycle and cycle.seconds is not None else ""
    typer.echo(f"cycles    last {cycle.ended} {_ago(found, cycle.at)}{took}" if cycle else "cycles    none yet")
    for problem in found.problems:
        typer.echo(f"WRONG     {printable(problem)}")


def _ago(found: "Health", moment: datetime | None) -> str:
    return "never" if moment is None else f"{max(0.0, (found.at - moment).total_seconds()):.0f} s ago"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
