"""Complete event hours: which ones a range completes, what the table holds of them, and whether that is usual.

A cycle of a few seconds completes none and costs nothing here; the one that does counts the hour once, by one aggregation over
the dates it touches, and writes the counts to ``dq_audit.profile_metrics``. The hours that are still open stand in the table's
snapshot summaries, so they go back with a rollback.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import Version
from wikistream_assets.quality.expectations import (
    HourCounts,
    completed,
    count_profiles,
    expectation_outcomes,
    history_begins,
)
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.streams.declaration import Hour
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.instants import instant

_OPEN_HOURS: Final = "open_hours"
"""In the counts of snapshots: hours that are not complete yet -> rows."""


def completed_hours(before: Version | None, arrived: Counter[Hour]) -> tuple[tuple[datetime, ...], dict[str, Any]]:
    """The hours that a range completes, and for the counts of the table's snapshot those that stay open.

    Args:
        before: the table's newest version.
        arrived: rows of the range that enter the table, by hour.
    """
    open_before = (before.counts or {}).get(_OPEN_HOURS, {}) if before else {}
    complete, still_open = completed(
        {datetime.fromisoformat(hour): rows for hour, rows in open_before.items()},
        # a row without a time is its own breach, and of no hour
        {_begin(*hour): rows for hour, rows in arrived.items() if None not in hour},
    )
    return tuple(complete), {_OPEN_HOURS: {hour.isoformat(): rows for hour, rows in still_open.items()}}


def judge_hours(
    lake: Lakehouse, spec: TableSpec, rows: DataFrame, complete: Sequence[datetime]
) -> tuple[list[CheckOutcome], list[ColumnProfile]]:
    """The verdicts on the hours that a range completes in ``spec``, and their counts for the audit trail.

    Args:
        rows: the table with the range.
    """
    columns = [column.name for column in spec.having("hourly")]
    counts = _counts(rows, columns, complete) if complete else {}
    history = audit_log.hour_counts(lake, spec, history_begins(counts), max(counts)) if counts else {}
    outcomes = expectation_outcomes(spec.rules, spec.identifier, counts, history)
    return outcomes, count_profiles(counts)


def _counts(rows: DataFrame, columns: Sequence[str], complete: Sequence[datetime]) -> HourCounts:
    dates = sorted({hour.date().isoformat() for hour in complete})
    within = sf.col("event_timestamp").between(instant(complete[0]), instant(complete[-1] + timedelta(hours=1)))
    counted = (
        rows.where(sf.col("event_date").isin(dates) & within)
        .groupBy("event_date", sf.hour("event_timestamp").alias("hour"), *columns)
        .count()
        .collect()
    )
    counts: dict[datetime, dict[str, Counter[str]]] = {}
    for row in counted:
        hour = _begin(row["event_date"], row["hour"])
        if hour in set(complete):
            of_hour = counts.setdefault(hour, {column: Counter() for column in columns})
            for column, values in of_hour.items():
                values["null" if row[column] is None else row[column]] += row["count"]
    return counts


def _begin(day: str, hour: int) -> datetime:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)
