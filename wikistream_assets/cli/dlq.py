"""``wikistream dlq``: what could not become an event, why, what it looked like, and its way back."""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wikistream_assets.cli.console import NOT_FOUND, fail, open_lake, plain, printable, show_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from producer.redrive import Place

MAX_ORIGINAL: Final = 2_000
"""Bytes of an original shown unless ``--bytes`` says otherwise; a dead letter may hold megabytes."""

_POSITION: Final = re.compile(r"(?:(?P<topic>[A-Za-z0-9._-]+):)?(?P<partition>\d{1,9}):(?P<offset>\d{1,18})")

app = typer.Typer(no_args_is_help=True, help="Dead letters: list them by reason, show what was rejected, redrive it.")


@app.command("list")
def list_reasons() -> None:
    """Count the dead letters by topic and reason, most frequent first. A letter that failed again counts once more.

    "given up" are those that have failed so often that only 'dlq redrive --given-up' tries them again.
    """
    from wikistream_assets.settings import load_settings

    with _dead_letters() as connection:
        rows = connection.execute(
            "SELECT kafka_topic, reason, count(*), count(*) FILTER (attempts >= ?), max(rejected_at), "
            "arg_max(kafka_partition || ':' || kafka_offset, rejected_at) "
            "FROM bronze.dead_letter GROUP BY ALL ORDER BY 3 DESC, 1, 2",
            [load_settings().dlq_max_attempts],
        ).fetchall()
    if not rows:
        print("no dead letters")
        return
    show_table(["topic", "reason", "count", "given up", "last seen", "newest"], rows)


@app.command("show")
def show(
    position: Annotated[str | None, typer.Argument(help="[TOPIC:]PARTITION:OFFSET, as 'dlq list' names them")] = None,
    reason: Annotated[str | None, typer.Option(help="newest dead letters of this reason class")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="most dead letters shown")] = 10,
    most_bytes: Annotated[int, typer.Option("--bytes", min=1, help="most bytes of each original shown")] = MAX_ORIGINAL,
) -> None:
    """Show dead letters with their original bytes decoded, control characters written out."""
    if (position is None) == (reason is None):
        fail("name either PARTITION:OFFSET or --reason", 2)
    condition, values = ("reason = ?", [reason]) if position is None else _at(position)
    with _dead_letters() as connection:
        cursor = connection.execute(
            "SELECT kafka_topic, kafka_partition, kafka_offset, reason, detail, rejected_at, attempts, source_mode, original "  # noqa: S608
            f"FROM bronze.dead_letter WHERE {condition} "
            f"ORDER BY rejected_at DESC, kafka_topic, kafka_partition, kafka_offset DESC LIMIT {limit}",
            values,
        )
        names = [column[0] for column in cursor.description]
        letters = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if not letters:
        fail(
            f"no dead letter {'at ' + position if position else f'of reason {reason}'}; 'wikistream dlq list' names them",
            NOT_FOUND,
        )
    for letter in letters:
        _print_letter(letter, most_bytes)


@app.command("redrive")
def redrive(
    position: Annotated[str | None, typer.Argument(help="[TOPIC:]PARTITION:OFFSET: this letter alone")] = None,
    reason: Annotated[str | None, typer.Option(help="only letters of this reason class")] = None,
    since: Annotated[datetime | None, typer.Option(help="only letters rejected at this time (UTC) or later")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="at most so many letters")] = None,
    given_up: Annotated[bool, typer.Option("--given-up", help="also letters that have failed too often")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would become of them, write nothing")] = False,
) -> None:
    """Judge dead letters again by the contract and the settings of today.

    What is accepted now goes to raw-events, once; what is not becomes a dead letter with one attempt more. Both reach the tables
    with the next run of Bronze. Interrupted at any moment, it is simply run again.
    """
    from wikistream_assets.streams.edits.stream import EDITS
    from wikistream_assets.upkeep.redrive import Selection
    from wikistream_assets.upkeep.redrive import redrive as run

    place = None if position is None else _place(position)
    settings, lake = open_lake()
    selection = Selection(reason, since and since.replace(tzinfo=since.tzinfo or UTC), place, limit, given_up)
    report = run(lake, EDITS, settings, selection, dry_run=dry_run)
    if place is not None and not report.redriven:
        fail(f"no letter at {position} waits: it is none, has been redriven, or was given up (--given-up)", NOT_FOUND)
    print(
        f"{'would redrive' if dry_run else 'redrove'} {report.redriven}: {report.accepted} accepted, {report.rejected} rejected "
        f"again ({report.now_given_up} of them given up), {report.skipped} not followed or canaries"
    )
    print(f"left alone: {report.waiting} waiting, {report.given_up} given up, {report.damaged} damaged on the way")


def original_text(original: str | None, most_bytes: int) -> str:
    """The original bytes as printable text: at most ``most_bytes`` of them, bytes that are no UTF-8 as ``\\xff``."""
    try:
        content = base64.b64decode(original or "", validate=True)
    except ValueError:  # no base64, or not even ASCII
        return f"(no base64: {printable((original or '')[:most_bytes])})"
    text = printable(content[:most_bytes].decode("utf-8", errors="backslashreplace"))
    more = len(content) - most_bytes
    return f"{text} … ({more} more bytes)" if more > 0 else text


def _print_letter(letter: dict[str, Any], most_bytes: int) -> None:
    print(f"{letter['kafka_topic']}:{letter['kafka_partition']}:{letter['kafka_offset']}")
    for name in ("reason", "detail", "rejected_at", "attempts", "source_mode"):
        print(f"  {name:<11} {printable(plain(letter[name]))}")
    print(f"  {'original':<11} {original_text(letter['original'], most_bytes)}")


def _parsed(position: str) -> re.Match[str]:
    match = _POSITION.fullmatch(position)
    if match is None:
        fail(f"{position!r} is not PARTITION:OFFSET or TOPIC:PARTITION:OFFSET", 2)
    return match


def _place(position: str) -> "Place":
    from producer.redrive import Place
    from producer.topics import DLQ_EVENTS

    match = _parsed(position)
    return Place(match["topic"] or DLQ_EVENTS, int(match["partition"]), int(match["offset"]))


def _at(position: str) -> tuple[str, Sequence[object]]:
    match = _parsed(position)
    condition = "kafka_partition = ? AND kafka_offset = ?"
    values: list[object] = [int(match["partition"]), int(match["offset"])]
    if match["topic"]:
        return f"{condition} AND kafka_topic = ?", [*values, match["topic"]]
    return condition, values


def _dead_letters() -> "DuckDBPyConnection":
    from wikistream_assets.lake.query import open_views
    from wikistream_assets.streams.edits.tables import DEAD_LETTER

    _, lake = open_lake()
    return open_views(lake, [DEAD_LETTER])
