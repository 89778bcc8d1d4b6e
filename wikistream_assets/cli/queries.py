"""``wikistream queries``: the questions that the lake is there to answer."""

from difflib import get_close_matches
from typing import Annotated

import typer

from wikistream_assets.cli.console import fail, open_lake, show_table
from wikistream_assets.cli.sql import Format, sql
from wikistream_assets.readers.edits.named_queries import NAMED_QUERIES


def queries(
    name: Annotated[str | None, typer.Argument(help="the query to run; without one, they are listed")] = None,
    output: Annotated[Format, typer.Option("--format", "-f", help="json is one object a line")] = Format.TABLE,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="most rows shown, 0 shows all; as for 'wikistream sql'")
    ] = None,
) -> None:
    """List the named queries, or run one of them: content monitoring, vandalism, regions and languages, bots."""
    if name is None:
        rows = [(query.name, query.use_case, query.title) for query in NAMED_QUERIES.values()]
        show_table(("name", "use case", "shows"), rows)
        return
    if name not in NAMED_QUERIES:
        near = get_close_matches(name, NAMED_QUERIES, n=1)
        hint = f"did you mean {near[0]}?" if near else "'wikistream queries' lists them"
        fail(f"there is no query {name!r}: {hint}", 2)
    query = NAMED_QUERIES[name]
    if output is Format.TABLE:
        open_lake()  # its error comes before the heading
        typer.echo(f"{query.title}: {query.answers}")
    sql(query.sql, output, limit)
