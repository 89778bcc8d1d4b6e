"""``gold.daily_analytics_summary``: one row for each day: volume, user mix, content, risk, regions, and the health score."""

from datetime import datetime
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from producer.wikis import REGIONS
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria, Health
from wikistream_assets.streams.edits.gold.activity import DOMAIN, PAGE, USER, Activity
from wikistream_assets.streams.edits.gold.risk_scores import HIGH, LOW, MEDIUM, points
from wikistream_assets.streams.edits.tables.gold import DAILY_ANALYTICS_SUMMARY, schema_version
from wikistream_assets.transforms.instants import day_is_final, instant

_SUMS: Final = {
    "total_events": "events",
    "_bots": "bot_events",
    "_anonymous": "anonymous_events",
    "_sized": "sized_events",
    "total_bytes_added": "bytes_added",
    "total_bytes_removed": "bytes_removed",
    "new_pages_created": "type_new",
    "large_deletions_count": "large_deletions",
}


def compute(
    activity: Activity,
    risk_scores: DataFrame,
    *,
    watermark: datetime,
    allowed_lateness_hours: int,
    processed_at: datetime,
    criteria: Criteria = DEFAULT_CRITERIA,
) -> DataFrame:
    """Compute the table.

    Args:
        activity: of the dates to compute.
        risk_scores: ``gold.risk_scores`` of the same dates, made from the same activity.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: a day is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.
        criteria: what the health score is made of.

    Returns:
        One row per day that has an event; exactly the columns of the contract.
    """
    # Each side is one row per day: broadcast, no shuffle.
    parts = (_totals(activity), _entity_counts(activity), _risks(risk_scores))
    days = reduce(lambda left, right: left.join(sf.broadcast(right), "stat_date", "left"), parts)
    return (
        days.na.fill(0)
        .withColumns({**_shares(), **_content(), **_risk_figures()})
        .withColumn("platform_health_score", _health_score(criteria.health))
        .withColumns(
            {
                "summary_date": sf.col("stat_date"),
                "is_final": day_is_final(
                    sf.col("stat_date"), watermark=watermark, allowed_lateness_hours=allowed_lateness_hours
                ),
                "gold_processed_at": instant(processed_at),
                "schema_version": sf.lit(schema_version(criteria)),
            }
        )
        .select(*DAILY_ANALYTICS_SUMMARY.column_names)
    )


def _totals(activity: Activity) -> DataFrame:
    """Sums of the day by way of its hours, which also give the peak."""
    regions = {
        f"_{name}": sf.sum(sf.when(sf.col("region") == name, sf.col("events"))).alias(f"_{name}") for name in REGIONS
    }
    hours = activity.users.groupBy("stat_date", "stat_hour").agg(
        *(sf.sum(source).alias(name) for name, source in _SUMS.items()), *regions.values()
    )
    return hours.groupBy("stat_date").agg(
        *(sf.sum(name).alias(name) for name in (*_SUMS, *regions)),
        sf.max("total_events").alias("peak_hour_events"),
        sf.count(sf.lit(1)).alias("_active_hours"),
    )


def _entity_counts(activity: Activity) -> DataFrame:
    counted = {"unique_users": USER, "active_domains": DOMAIN, "unique_pages_edited": PAGE}
    return activity.entities.groupBy("stat_date").agg(
        *(sf.count_if(sf.col("entity_type") == entity_type).alias(name) for name, entity_type in counted.items())
    )


def _risks(risk_scores: DataFrame) -> DataFrame:
    level = sf.col("risk_level")
    return risk_scores.groupBy("stat_date").agg(
        sf.count_if(level == HIGH).alias("high_risk_user_count"),
        sf.count_if(level == MEDIUM).alias("medium_risk_user_count"),
        sf.count_if(level == LOW).alias("low_risk_user_count"),
        sf.count(sf.lit(1)).alias("_scored"),
        # Points are whole numbers: as longs their sum is the same in every order.
        sf.sum(sf.col("risk_score").cast("long")).alias("_points"),
        sf.max("risk_score").alias("platform_max_risk_score"),
        sf.count_if("alert_triggered").alias("total_alerts_triggered"),
    )


def _percentage(part: Column) -> Column:
    return 100.0 * part / sf.col("total_events")


def _shares() -> dict[str, Column]:
    registered = sf.col("total_events") - sf.col("_bots") - sf.col("_anonymous")
    return {
        "_registered": registered,
        "bot_percentage": _percentage(sf.col("_bots")),
        "anonymous_percentage": _percentage(sf.col("_anonymous")),
        "registered_user_percentage": _percentage(registered),
        **{f"{name}_percentage": _percentage(sf.col(f"_{name}")) for name in REGIONS},
        "avg_events_per_hour": sf.col("total_events") / sf.col("_active_hours"),
    }


def _content() -> dict[str, Column]:
    added, removed = sf.col("total_bytes_added"), sf.col("total_bytes_removed")
    return {
        "net_content_change": added - removed,
        "avg_edit_size_bytes": sf.when(sf.col("_sized") > 0, (added + removed) / sf.col("_sized")),
        "large_deletion_rate": _percentage(sf.col("large_deletions_count")),
    }


def _risk_figures() -> dict[str, Column]:
    scored = sf.col("_scored")
    return {"platform_avg_risk_score": sf.when(scored > 0, sf.col("_points") / scored).otherwise(sf.lit(0.0))}


def _health_score(health: Health) -> Column:
    """0-100, from the low-risk share of scored users, the registered share of events, growth, and the share of large deletions.

    A day without scored users has nobody at risk: its low-risk share counts as 1.
    """
    scored, total = sf.col("_scored"), sf.col("total_events")
    low_risk_share = sf.when(scored > 0, sf.col("low_risk_user_count") / scored).otherwise(sf.lit(1.0))
    few_deletions = sf.lit(0)
    for tier in health.large_deletions:
        few = sf.col("large_deletions_count") * 100 < total * tier.below
        few_deletions = sf.when(few, sf.lit(tier.points)).otherwise(few_deletions)
    return (
        float(health.low_risk) * low_risk_share
        + float(health.registered) * sf.col("_registered") / total
        + points(sf.col("total_bytes_added") - sf.col("total_bytes_removed"), health.growth)
        + few_deletions
    )
