"""``wikistream quality``: how the checks fared over the last days."""

from typing import Annotated, Any, Final

import typer

from wikistream_assets.cli.console import json_text, open_lake, printable, show_table

_WORST: Final = 10
"""Checks shown; JSON has all."""


def quality(
    days: Annotated[int, typer.Option(min=1, help="calendar days (UTC), up to the newest verdict")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object: days, tables, checks")] = False,
) -> None:
    """Show pass rates by day, table and check, worst first, and how they change.

    A pass rate is the share of PASSED among all verdicts but SKIPPED ones: a WARNING has not passed, though it blocks nothing.
    """
    from wikistream_assets.readers.quality_report import quality_report

    _, lake = open_lake()
    report = quality_report(lake, days)
    if as_json:
        print(json_text(report.as_json()))
        return
    if not report.days:
        typer.echo("no gate has run yet: the first cycle ('make demo', 'make up') leaves verdicts here")
        return
    typer.echo("Days")
    show_table(("date", *_COLUMNS, "change"), [_line(day, "run_date") for day in report.days], numeric=_NUMERIC)
    typer.echo("Tables, lowest rate first (change: newest day against the days before)")
    show_table(
        ("table", *_COLUMNS, "change"), [_line(table, "table_name") for table in report.tables], numeric=_NUMERIC
    )
    if not report.worst:
        typer.echo("Checks: all of them always passed")
        return
    typer.echo("Worst checks")
    shown = report.worst[:_WORST]
    show_table(
        ("table", "check", *_COLUMNS, "change"),
        [_line(check, "table_name", "check_name") for check in shown],
        numeric=_NUMERIC,
    )
    for check in shown:
        typer.echo(
            f"  {check['last_breach']:%Y-%m-%d %H:%MZ} {check['check_name']}: {printable(check['last_message'])}"
        )
    if len(report.worst) > _WORST:
        typer.echo(f"  .. and {len(report.worst) - _WORST} more that did not always pass; --json shows all")


_COLUMNS: Final = ("judged", "passed", "warnings", "failed", "skipped", "pass rate")
_NUMERIC: Final = ("pass rate", "change")


def _line(row: dict[str, Any], *keys: str) -> tuple[object, ...]:
    counts = (row[name] for name in ("judged", "passed", "warnings", "failed", "skipped"))
    rate = "-" if row["pass_rate"] is None else f"{row['pass_rate']:.1f} %"
    change = "-" if row["change"] is None else f"{row['change']:+.1f}"
    return (*(row[key] for key in keys), *counts, rate, change)
