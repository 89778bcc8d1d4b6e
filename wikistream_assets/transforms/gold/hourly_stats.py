"""``gold.hourly_stats``: volume, contributors, bytes and kinds of change of each domain in each hour."""

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.tables.gold import HOURLY_STATS, SCHEMA_VERSION
from wikistream_assets.transforms.gold.activity import Activity
from wikistream_assets.transforms.shared.instants import hour_is_final, instant

_SUMS = (
    "anonymous_edits",
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
    activity: Activity, *, watermark: datetime, allowed_lateness_hours: int, processed_at: datetime
) -> DataFrame:
    """Compute the table.

    Args:
        activity: of the dates to compute.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: an hour is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.

    Returns:
        One row per stat_date, stat_hour, domain that has an event; exactly the columns of the contract.
    """
    key = ("stat_date", "stat_hour", "domain")
    users = (
        activity.users.withColumnRenamed("anonymous_events", "anonymous_edits")
        .groupBy(*key, "region")
        .agg(
            sf.sum("events").alias("total_events"),
            sf.count("user_normalized").alias("unique_users"),
            sf.sum("bot_events").alias("bot_edits"),
            sf.sum("sized_events").alias("sized_events"),
            *(sf.sum(name).alias(name) for name in _SUMS),
        )
    )
    pages = activity.pages.groupBy(*key).agg(sf.count(sf.lit(1)).alias("unique_pages"))
    changed = sf.col("bytes_added") + sf.col("bytes_removed")
    stats = users.join(pages, [*key], "left").withColumns(
        {
            "unique_pages": sf.coalesce("unique_pages", sf.lit(0).cast("long")),
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
            "schema_version": sf.lit(SCHEMA_VERSION),
        }
    )
    return stats.select(*HOURLY_STATS.column_names)
