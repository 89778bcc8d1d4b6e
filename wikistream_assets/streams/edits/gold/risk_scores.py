"""``gold.risk_scores``: how much a user's day looks like an attack, in points, with the evidence."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria, Tier
from wikistream_assets.streams.edits.gold.activity import Activity
from wikistream_assets.streams.edits.tables.gold import RISK_SCORES, schema_version
from wikistream_assets.transforms.instants import day_is_final, instant
from wikistream_assets.transforms.pseudonyms import pseudonym

HIGH: Final = "HIGH"
MEDIUM: Final = "MEDIUM"
LOW: Final = "LOW"
LEVELS: Final = (HIGH, MEDIUM, LOW)


def compute(
    activity: Activity,
    *,
    watermark: datetime,
    allowed_lateness_hours: int,
    processed_at: datetime,
    user_key: bytes,
    criteria: Criteria = DEFAULT_CRITERIA,
) -> DataFrame:
    """Compute the table.

    An edit is an event of any type: on the capture of 2021-10-07 (enwiki and dewiki, 11.5 hours) this gives
    the 6,341 user-days of non-bots of which 16 are MEDIUM and none HIGH, one of them with 1,136 edits in 2 active hours; counting
    ``edit`` and ``new`` alone gives 3 instead of 16, because most of a mass edit shows as ``categorize``. A user with one
    bot-flagged event on a day is a bot on that day.

    Args:
        activity: of the dates to compute.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: a day is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.
        user_key: the home's secret for the pseudonyms of IP users.
        criteria: whose section ``risk`` has the tiers and levels.

    Returns:
        One row per day and user without bot-flagged events and with at least ``risk.min_edits`` events; exactly the columns of
        the contract.
    """
    risk = criteria.risk
    user_days = _user_days(activity).where((sf.col("bot_events") == 0) & (sf.col("total_edits") >= risk.min_edits))
    is_fast = sf.col("edits_per_hour_avg") > risk.fast_edits_per_hour
    factors = {
        "edits_per_hour": points(sf.col("edits_per_hour_avg"), risk.edits_per_hour),
        "large_deletions": points(sf.col("large_deletions"), risk.large_deletions),
        "anonymous_percentage": points(sf.col("anonymous_percentage"), risk.anonymous_percentage),
        "domains": sf.when(is_fast, points(sf.col("domains_edited"), risk.domains)).otherwise(sf.lit(0)),
    }
    figures = {"edits_per_hour": "edits_per_hour_avg", "domains": "domains_edited"}
    evidence = sf.struct(
        *(
            sf.struct(sf.col(figures.get(name, name)).alias("value"), sf.col(f"_{name}").alias("points")).alias(name)
            for name in factors
        )
    )
    level = (
        sf.when(sf.col("risk_score") >= risk.high_from, sf.lit(HIGH))
        .when(sf.col("risk_score") >= risk.medium_from, sf.lit(MEDIUM))
        .otherwise(sf.lit(LOW))
    )
    scored = user_days.withColumns({f"_{name}": column for name, column in factors.items()}).withColumn(
        "risk_score", sum((sf.col(f"_{name}") for name in factors), start=sf.lit(0)).cast("double")
    )
    final = day_is_final(sf.col("stat_date"), watermark=watermark, allowed_lateness_hours=allowed_lateness_hours)
    return scored.withColumns(
        {
            "entity_id": pseudonym(sf.col("user_normalized"), user_key),
            "entity_type": sf.col("user_kind"),
            "evidence": sf.to_json(evidence),
            "risk_level": level,
            # Level and alert come from the one score, never from terms added up a second time.
            "alert_triggered": level == HIGH,
            "is_final": final,
            "gold_processed_at": instant(processed_at),
            "schema_version": sf.lit(schema_version(criteria)),
        }
    ).select(*RISK_SCORES.column_names)


def _user_days(activity: Activity) -> DataFrame:
    """One row per day and user, over all domains. Active hours are bits of one number: distinct without a second shuffle."""
    hour_bit = sf.expr("shiftleft(1, stat_hour)")
    by_domain = activity.users.groupBy("stat_date", "user_normalized", "domain").agg(
        *_sums(), sf.max("user_kind").alias("user_kind"), sf.bit_or(hour_bit).alias("hours")
    )
    return (
        by_domain.groupBy("stat_date", "user_normalized")
        .agg(
            *_sums(),
            sf.max("user_kind").alias("user_kind"),
            sf.bit_or("hours").alias("hours"),
            sf.count(sf.lit(1)).alias("domains_edited"),
        )
        .withColumns(
            {
                "total_edits": sf.col("events"),
                "edits_per_hour_avg": sf.col("events") / sf.bit_count("hours"),
                "anonymous_percentage": 100.0 * sf.col("anonymous_events") / sf.col("events"),
            }
        )
    )


def _sums() -> list[Column]:
    return [sf.sum(name).alias(name) for name in ("events", "bot_events", "anonymous_events", "large_deletions")]


def points(figure: Column, tiers: Sequence[Tier]) -> Column:
    """The points of the highest tier that ``figure`` is above; 0 below all of them."""
    reached = sf.lit(0)
    for tier in tiers:
        reached = sf.when(figure > tier.above, sf.lit(tier.points)).otherwise(reached)
    return reached
