"""Commands for the machine and its services: up, down, status, doctor, topics."""

import json as json_module
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from producer.topics import RAW_EVENTS
from wikistream_assets.embedded import doctor as examination
from wikistream_assets.embedded import services
from wikistream_assets.resources.broker import Broker, Record
from wikistream_assets.settings import load_settings

NOT_ALL_RUNNING = 3
"""Exit code of ``status`` when a service does not run; 1 is for errors, 2 for wrong arguments."""

topics_app = typer.Typer(help="Look into the Kafka topics, or bring them into shape.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
TopicArgument = Annotated[str, typer.Argument(help="name of the topic, as 'wikistream topics list' shows it")]


def up() -> None:
    """Start the services of this home and wait until they answer; what runs already is left alone.

    Today that is the Kafka broker, on loopback only. WIKISTREAM_KAFKA_PORT and WIKISTREAM_KAFKA_CONTROLLER_PORT change its
    ports, so that two homes can run side by side.
    """
    settings = load_settings()
    services.up(settings)
    for service in services.status(settings):
        typer.echo(
            f"{service.name} runs on 127.0.0.1:{service.port} (process {service.pid}); 'wikistream down' stops it"
        )


def down() -> None:
    """Stop the services of this home; the data stays. Leftovers of a killed supervisor are ended too."""
    stopped = services.down(load_settings())
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(json: JsonOption = False) -> None:
    """Show the state of each service. Exit code 0 if all run and answer, 3 otherwise."""
    found = services.status(load_settings())
    if json:
        typer.echo(json_module.dumps([asdict(service) for service in found], indent=2))
    else:
        table = _table("service", "state", "process", "port", "detail")
        for service in found:
            table.add_row(service.name, service.state, str(service.pid or "-"), str(service.port), service.detail)
        Console().print(table)
    if any(service.state != "RUNNING" for service in found):
        raise typer.Exit(NOT_ALL_RUNNING)


def doctor() -> None:
    """Check this machine: Python, packages, Java, jars, home, disk, ports. Exit code 1 if something has to be mended."""
    findings = examination.examine(load_settings())
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.name:<{width}}  {finding.text}")
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
    Console().print(table)


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
    Console().print(table)


@topics_app.command("tail")
def tail(
    topic: TopicArgument = RAW_EVENTS,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="how many records")] = 10,
) -> None:
    """Print the last committed records of a topic, oldest first, one JSON object a line."""
    for record in _broker().tail(topic, number):
        typer.echo(json_module.dumps(_printable(record), ensure_ascii=False))


@topics_app.command("sync")
def sync() -> None:
    """Create missing topics and correct settings that differ from WIKISTREAM_KAFKA_PARTITIONS, .._RETENTION_HOURS and so on."""
    settings = load_settings()
    changes = Broker(settings.bootstrap_servers).ensure_topics(settings)
    typer.echo("\n".join(changes) if changes else "all topics are as configured")


def _broker() -> Broker:
    return Broker(load_settings().bootstrap_servers)


def _printable(record: Record) -> dict[str, object]:
    time = None if record.timestamp_ms is None else datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": time.isoformat(timespec="milliseconds") if time else None,
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "value": None if record.value is None else record.value.decode(errors="replace"),
    }


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
