"""``wikistream sql``: one read-only statement over all tables."""

import csv
import sys
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wikistream_assets.cli.console import csv_field, fail, json_text, open_lake, printable, show_table

if TYPE_CHECKING:
    from wikistream_assets.lake.query import QueryResult

TABLE_ROWS: Final = 50
"""Rows shown as a table unless ``--limit`` says otherwise."""


class Format(StrEnum):
    """How ``wikistream sql`` prints a result."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def sql(
    statement: Annotated[
        str, typer.Argument(help="one query over namespace.name tables; - reads it from standard input")
    ],
    output: Annotated[Format, typer.Option("--format", "-f", help="json is one object a line")] = Format.TABLE,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, help=f"most rows shown, 0 shows all (default: {TABLE_ROWS} in a table, else all)"
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="SNAPSHOT|TIME",
            help="read the lake as of a time (ISO 8601, UTC unless it names a zone), or of the moment a snapshot was published",
        ),
    ] = None,
) -> None:
    """Run one read-only query on the lake, e.g. "SELECT domain, count(*) FROM silver.cleaned_events GROUP BY 1".

    With --as-of every table is read as it was published at that moment, Gold's four at the newest version common to them then.
    """
    from wikistream_assets.lake.as_of import versions_as_of
    from wikistream_assets.lake.query import StatementError, query

    text = sys.stdin.read() if statement == "-" else statement
    _, lake = open_lake()
    most = limit if limit is not None else TABLE_ROWS if output is Format.TABLE else 0
    try:
        past = None if as_of is None else lambda lake, tables: versions_as_of(lake, as_of, tables)
        result = query(lake, text, past)
        rows = islice(result.rows, most) if most else result.rows
        if output is Format.TABLE:
            _print_table(result, rows)
        elif output is Format.CSV:
            _print_csv(result, rows)
        else:
            for row in rows:
                print(json_text(dict(zip(result.columns, row, strict=True))))
        if most and next(result.rows, None) is not None:
            typer.echo(f"first {most} rows; --limit N shows N rows, --limit 0 all", err=True)
    except StatementError as error:
        fail(str(error), 2)


def _print_table(result: "QueryResult", rows: Iterator[tuple[Any, ...]]) -> None:
    if result.columns == ("explain_key", "explain_value"):
        for _, plan in rows:
            print("\n".join(printable(line) for line in str(plan).splitlines()))
        return
    show_table(result.columns, rows)


def _print_csv(result: "QueryResult", rows: Iterator[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([csv_field(name) for name in result.columns])
    for row in rows:
        writer.writerow([csv_field(value) for value in row])
