"""``wikistream demo``."""

from typing import TYPE_CHECKING, Annotated

import typer

from producer.signals import clean_up_when_stopped
from wikistream_assets.cli.console import printable, show_table

if TYPE_CHECKING:
    from wikistream_assets.cli.demo_run import DemoResult
    from wikistream_assets.readers.edits.summary import LakeSummary

NOT_PUBLISHED = 3
"""Exit code of ``demo`` when a gate blocks or the layers do not add up; 1 is for errors, 2 for wrong usage."""


def demo(
    source: Annotated[str, typer.Option(help="synthetic, live, or the path of a .jsonl[.gz] or .sse[.gz] capture")] = (
        "synthetic"
    ),
    events: Annotated[
        int | None,
        typer.Option(
            help="synthetic: how many events to make (50,000; another number is another stream); live, capture: stop after so "
            "many (live 1,000; a capture: all)"
        ),
    ] = None,
) -> None:
    """Run the whole main job on this machine and sum up what came out.

    Starts the broker if it is not running, reads the source into Kafka with the producer, runs the Dagster job "cycle", and stops
    the broker again if it was started here. Exit code 0 only if every gate passed and the layers add up, 3 otherwise.
    """
    from wikistream_assets.cli.demo_run import run_demo
    from wikistream_assets.settings import load_settings

    settings = load_settings()
    clean_up_when_stopped()
    result = run_demo(source, events, settings, lambda line: typer.echo(printable(line), err=True))
    _print(result)
    typer.echo(f"\nThe lake is in {settings.home}. Where to look next:")
    typer.echo("  make dev                                         the Dagster UI on this data")
    typer.echo('  .venv/bin/wikistream sql "select * from gold.daily_analytics_summary"')
    typer.echo("  .venv/bin/wikistream tables --hash               every table, its size and its hash")
    typer.echo("  .venv/bin/wikistream gate status                 what waits, what blocks, and what to type")
    if not result.ok:
        raise typer.Exit(NOT_PUBLISHED)


def _print(result: "DemoResult") -> None:
    summary = result.summary
    if summary is None:
        return
    run = result.ingested["run"]
    typer.echo("\nEvents")
    typer.echo(
        f"  read {run['received']:,} from {result.source.mode}: accepted {run['accepted']:,}, in other wikis {run['filtered']:,},"
        f" canaries {run['canary']:,}, dead-lettered {sum(run['dead_lettered'].values()):,}"
    )
    for gap in result.ingested["gaps"]:
        typer.echo(f"  WARNING: the source has a gap: {printable(str(gap))}")
    totals = summary.totals
    typer.echo(
        f"  lake so far: {totals['records']:,} records = {totals['rows']:,} Bronze rows"
        f" + {totals['dead_letters']:,} dead letters + {totals['duplicates']:,} duplicates"
    )
    if run["received"] == 0:
        typer.echo("  nothing new: this source had been read to its end before")
    if summary.dead_letters:
        typer.echo("  dead letters: " + ", ".join(f"{reason} {number}" for reason, number in summary.dead_letters))
    typer.echo("\nTables")
    show_table(("table", "rows"), sorted(summary.rows.items()), numeric=("rows",))
    _print_gates(result, summary)
    _print_findings(summary)
    typer.echo("\nSeconds")
    show_table(
        ("stage", "seconds"),
        [(stage, f"{seconds:.1f}") for stage, seconds in result.seconds.items()]
        + [("total", f"{sum(result.seconds.values()):.1f}")],
        numeric=("seconds",),
    )
    if not summary.adds_up:
        typer.echo("The layers do NOT add up: see 'wikistream gate status'", err=True)


def _print_gates(result: "DemoResult", summary: "LakeSummary") -> None:
    verdict = "every gate passed" if result.ok else "NOT everything is published"
    typer.echo(f"\nGates: {verdict}")
    show_table(("layer", "table", "status", "checks"), summary.checks, numeric=("checks",))
    for status, table, check, message in summary.breaches:
        typer.echo(f"  {status} {table} {check}: {printable(message)}")
    if result.waiting:
        typer.echo(f"  waiting for their gate: {', '.join(result.waiting)}; see 'wikistream gate status'")


def _print_findings(summary: "LakeSummary") -> None:
    if summary.days:
        typer.echo("\nDays")
        days = [(date, events, f"{health:.1f}", *rest) for date, events, health, *rest in summary.days]
        show_table(("date", "events", "health", "peak hour", "high risk", "medium risk"), days, numeric=("health",))
    if summary.risks:
        typer.echo("\nTop risks")
        show_table(("date", "user", "score", "level", "edits", "edits/h"), summary.risks)
    if summary.trending:
        typer.echo("\nTrending")
        trending = [
            (date, page, f"{start:%H:%M}", edits, people, f"{ratio:.1f}")
            for date, page, start, edits, people, ratio in summary.trending
        ]
        show_table(("date", "page", "hour from", "edits", "people", "x usual"), trending, numeric=("x usual",))
    if summary.busiest_hours:
        typer.echo("\nBusiest hours")
        show_table(("date", "hour", "events", "users"), summary.busiest_hours)
