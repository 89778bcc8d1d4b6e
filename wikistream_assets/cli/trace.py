"""``wikistream trace``: one edit through every layer, as text."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wikistream_assets.cli.console import fail, open_lake, plain, printable

if TYPE_CHECKING:
    from wikistream_assets.readers.edits.trace import Found, Trace

UNKNOWN_EVENT: Final = 4
"""Exit code for an id that no table holds."""

_EVENT_COLUMNS: Final = ("event_type", "domain", "title", "user", "length_delta", "event_timestamp", "source_mode")
_SILVER_COLUMNS: Final = (
    "event_type",
    "region",
    "language",
    "user_normalized",
    "user_kind",
    "length_delta",
    "is_valid",
)
_GOLD_COLUMNS: Final = {
    "gold.hourly_stats": ("stat_date", "stat_hour", "domain", "total_events", "unique_users", "is_final"),
    "gold.risk_scores": ("stat_date", "entity_id", "total_edits", "risk_score", "risk_level", "is_final"),
    "gold.entity_trends": ("stat_date", "entity_type", "entity_id", "rank", "edits", "is_final"),
    "gold.daily_analytics_summary": ("summary_date", "total_events", "platform_health_score", "is_final"),
}


def trace(event_id: Annotated[str, typer.Argument(help="meta.id of the event")]) -> None:
    """Follow one edit through every layer: offsets, rows, gate verdicts, snapshots. Exits 4 if no table holds it."""
    from wikistream_assets.embedded.home import user_key
    from wikistream_assets.readers.edits.trace import trace as follow

    settings, lake = open_lake()
    event_id = event_id.strip()
    found = follow(lake, event_id, user_key(settings)) if event_id else None
    if found is None or not found.known:
        fail(
            f"no table holds the event {event_id!r}: check the id; 'wikistream health' tells how far Bronze is behind",
            UNKNOWN_EVENT,
        )
    for label, text in describe(found):
        print(f"{label:<11} {printable(text)}".rstrip())


def describe(found: "Trace") -> Iterator[tuple[str, str]]:
    """The trace as labelled lines; a line without a label goes on with what is above it."""
    yield "event", found.event_id
    if found.bronze:
        row = found.bronze.row
        yield "kafka", f"{row['kafka_topic']} partition {row['kafka_partition']} offset {row['kafka_offset']}"
        yield from _row("bronze", found.bronze, _EVENT_COLUMNS)
    for letter in found.dead_letters:
        row = letter.row
        yield "dead letter", f"{row['kafka_topic']} partition {row['kafka_partition']} offset {row['kafka_offset']}"
        yield from _row("", letter, ("reason", "detail", "rejected_at", "attempts"))
    yield from _verdicts(found)
    if found.silver:
        yield from _row("silver", found.silver, _SILVER_COLUMNS)
    if found.quarantine:
        yield from _row("quarantine", found.quarantine, ("failed_rules", "user_normalized", "quarantine_processed_at"))
    if found.bronze and not found.silver and not found.quarantine:
        yield "silver", "not there yet: it is read once the Bronze gate has passed its range ('wikistream gate status')"
    if found.silver and not found.gold:
        yield "gold", "not counted yet: Gold was last made from an older Silver snapshot"
    for item in found.gold:
        yield from _row(item.table, item, _GOLD_COLUMNS[item.table])


def _row(label: str, item: "Found", columns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    values = ", ".join(f"{name}={plain(item.row[name])}" for name in columns)
    # A table's full name does not fit the labels' column.
    yield ("gold", f"{label}: {values}") if label.startswith("gold.") else (label, values)
    yield "", _snapshot(item)


def _snapshot(item: "Found") -> str:
    if item.snapshot_id is None:
        return "the snapshot that added it has expired from the table's history"
    if item.version is None:
        return f"snapshot {item.snapshot_id}, expired from the table's history"
    return (
        f"snapshot {item.snapshot_id} of {item.version.committed_at:%Y-%m-%d %H:%M:%SZ} ({item.version.operation}, "
        f"{item.version.added_records} rows added)"
    )


def _verdicts(found: "Trace") -> Iterator[tuple[str, str]]:
    if found.bronze and not found.verdicts:
        yield "gates", "no verdict on its snapshot yet"

    def attempt(verdict: Mapping[str, Any]) -> tuple[Any, ...]:
        return (
            verdict["run_timestamp"],
            verdict["table_name"],
            verdict["range_start"],
            verdict["range_end"],
            verdict["attempt"],
        )

    for (at, table, start, end, number), group in groupby(found.verdicts, attempt):
        verdicts = list(group)
        counts = Counter(str(verdict["status"]) for verdict in verdicts)
        tally = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        yield "gate", f"{table} {plain(at)} attempt {number}: {tally} (snapshots after {plain(start)} up to {end})"
        for verdict in verdicts:
            if verdict["status"] not in ("PASSED", "SKIPPED"):
                yield "", f"{verdict['status']} {verdict['check_name']}: {verdict['message']}"
