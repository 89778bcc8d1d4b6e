"""Complete event hours in Silver's gate: which ones a range completes, what Silver holds of them, and whether that is usual.

A cycle of a few seconds completes none and costs nothing here; the one that does counts the hour once, by one aggregation over
the dates it touches, and writes the counts to ``dq_audit.profile_metrics``. The hours that are still open stand in Silver's
snapshot summaries, so they go back with a rollback.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log
from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.gate import Hour
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.lake.state import AUDIT_BRANCH
from wikistream_assets.quality.expectations import (
    CATEGORIES,
    HourCounts,
    completed,
    count_profiles,
    expectation_outcomes,
    history_begins,
)
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS
from wikistream_assets.transforms.instants import instant

_OPEN_HOURS: Final = "open_hours"
"""In the counts of Silver's snapshots: hours that are not complete yet -> rows."""


def completed_hours(lake: Lakehouse, arrived: Counter[Hour]) -> tuple[tuple[datetime, ...], dict[str, Any]]:
    """The hours that a range completes, and for the counts of Silver's snapshot those that stay open.

    Args:
        arrived: rows of the range that enter Silver, by hour.
    """
    newest = lake.state(CLEANED_EVENTS).newest_position()
    open_before = (newest.counts or {}).get(_OPEN_HOURS, {}) if newest else {}
    complete, still_open = completed(
        {datetime.fromisoformat(hour): rows for hour, rows in open_before.items()},
        # a row without a time is its own breach, and of no hour
        {_begin(*hour): rows for hour, rows in arrived.items() if None not in hour},
    )
    return tuple(complete), {_OPEN_HOURS: {hour.isoformat(): rows for hour, rows in still_open.items()}}


def judge_hours(ctx: JobContext, complete: Sequence[datetime]) -> tuple[list[CheckOutcome], list[ColumnProfile]]:
    """The verdicts on the hours that the range on Silver's audit branch completes, and their counts for the audit trail."""
    counts = _counts(ctx, complete) if complete else {}
    history = audit_log.hour_counts(ctx.lake, CLEANED_EVENTS, history_begins(counts), max(counts)) if counts else {}
    outcomes = expectation_outcomes(CLEANED_EVENTS.rules, CLEANED_EVENTS.identifier, counts, history)
    return outcomes, count_profiles(counts)


def _counts(ctx: JobContext, complete: Sequence[datetime]) -> HourCounts:
    dates = sorted({hour.date().isoformat() for hour in complete})
    within = sf.col("event_timestamp").between(instant(complete[0]), instant(complete[-1] + timedelta(hours=1)))
    counted = (
        read_table(ctx.spark, CLEANED_EVENTS, ctx.lake.state(CLEANED_EVENTS).head_id(AUDIT_BRANCH))
        .where(sf.col("event_date").isin(dates) & within)
        .groupBy("event_date", sf.hour("event_timestamp").alias("hour"), *CATEGORIES)
        .count()
        .collect()
    )
    counts: dict[datetime, dict[str, Counter[str]]] = {}
    for row in counted:
        hour = _begin(row["event_date"], row["hour"])
        if hour in set(complete):
            columns = counts.setdefault(hour, {column: Counter() for column in CATEGORIES})
            for column, values in columns.items():
                values["null" if row[column] is None else row[column]] += row["count"]
    return counts


def _begin(day: str, hour: int) -> datetime:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)
