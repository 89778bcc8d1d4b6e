"""``gold.hourly_stats``: volume, contributors, bytes and kinds of change of each domain in each hour."""

from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria
from wikistream_assets.streams.edits.gold.activity import Activity
from wikistream_assets.streams.edits.tables.gold import HOURLY_STATS, schema_version
from wikistream_assets.transforms.instants import hour_is_final, instant

_KEY: Final = ("stat_date", "stat_hour", "domain")
_SUMS: Final = (
    "sized_events",
    "type_edit",
    "type_new",
    "type_categorize",
    "type_log",
    "bytes_added",
    "bytes_removed",
    "large_deletions",
    "large_additions",
)


def compute(
    activity: Activity,
    *,
    watermark: datetime,
    allowed_lateness_hours: int,
    processed_at: datetime,
    criteria: Criteria = DEFAULT_CRITERIA,
) -> DataFrame:
    """Compute the table.

    Args:
        activity: of the dates to compute.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: an hour is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.
        criteria: only for ``schema_version``.

    Returns:
        One row per stat_date, stat_hour, domain that has an event; exactly the columns of the contract.
    """
    pages = activity.pages.select(*_KEY, sf.lit(1).alias("page"))
    # One sum over both kinds of rows: a join of the two sums would shuffle each of them once more.
    sums = (
        activity.users.unionByName(pages, allowMissingColumns=True)
        .groupBy(*_KEY)
        .agg(
            sf.max("region").alias("region"),
            sf.max("language").alias("language"),
            sf.sum("events").alias("total_events"),
            sf.count("user_normalized").alias("unique_users"),
            sf.count("page").alias("unique_pages"),
            sf.sum("bot_events").alias("bot_edits"),
            sf.sum("anonymous_events").alias("anonymous_edits"),
            *(sf.sum(name).alias(name) for name in _SUMS),
        )
    )
    changed = sf.col("bytes_added") + sf.col("bytes_removed")
    stats = sums.withColumns(
        {
            "avg_edit_size": sf.when(sf.col("sized_events") > 0, changed / sf.col("sized_events")),
            "human_edits": sf.col("total_events") - sf.col("bot_edits"),
            "bot_percentage": 100.0 * sf.col("bot_edits") / sf.col("total_events"),
            "is_final": hour_is_final(
                sf.col("stat_date"),
                sf.col("stat_hour"),
                watermark=watermark,
                allowed_lateness_hours=allowed_lateness_hours,
            ),
            "gold_processed_at": instant(processed_at),
            "schema_version": sf.lit(schema_version(criteria)),
        }
    )
    return stats.select(*HOURLY_STATS.column_names)
