"""``gold.entity_trends``: the busiest pages, users and domains of each day, how fast they moved, and the pages that trend."""

from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria
from wikistream_assets.streams.edits.gold.activity import PAGE, USER, Activity, page_name
from wikistream_assets.streams.edits.gold.bursts import RATIO_DIGITS
from wikistream_assets.streams.edits.tables.gold import ENTITY_TRENDS, schema_version
from wikistream_assets.transforms.instants import day_is_final, instant
from wikistream_assets.transforms.pseudonyms import pseudonym, without_addresses

TOP: Final = 100
"""Entities of each type that a day keeps for their edits, and pages that it keeps for their trend."""

TRENDING_RATIO: Final = 3.0
"""A page trends from this ratio on: three times the edits that were to be expected."""


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

    Args:
        activity: of the dates to compute.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: a day is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.
        user_key: the home's secret for the pseudonyms of IP addresses, in user names and in page titles.
        criteria: only for ``schema_version``.

    Returns:
        Of each day and entity type the 100 with the most edits, bots included, and the 100 pages that trend most; exactly the
        columns of the contract. Ties go by the entity's name before pseudonyms, in order of code points.
    """
    name = sf.col("name")
    by_edits = Window.partitionBy("stat_date", "entity_type").orderBy(sf.desc("edits"), "name")
    by_ratio = Window.partitionBy("stat_date", "_trends").orderBy(
        sf.desc(sf.round("trend_ratio", RATIO_DIGITS)), "name"
    )
    entity_id = (
        sf.when(sf.col("entity_type") == PAGE, without_addresses(name, user_key))
        .when(sf.col("entity_type") == USER, pseudonym(name, user_key))
        .otherwise(name)
    )
    final = day_is_final(sf.col("stat_date"), watermark=watermark, allowed_lateness_hours=allowed_lateness_hours)
    place = sf.row_number().over(by_ratio)
    return (
        _with_bursts(activity)
        .withColumn("rank", sf.row_number().over(by_edits))
        .where((sf.col("rank") <= TOP) | sf.col("_trends"))
        .withColumn("trend_rank", sf.when(sf.col("_trends") & (place <= TOP), place))
        .where((sf.col("rank") <= TOP) | sf.col("trend_rank").isNotNull())
        .withColumns(
            {
                "entity_id": entity_id,
                "edits_per_hour": sf.col("edits") / sf.col("active_hours"),
                "is_final": final,
                "gold_processed_at": instant(processed_at),
                "schema_version": sf.lit(schema_version(criteria)),
            }
        )
        .select(*ENTITY_TRENDS.column_names)
    )


def _with_bursts(activity: Activity) -> DataFrame:
    """Entities, pages with their burst if they had one; ``_trends`` says whether it is one that stands out."""
    of_pages = activity.bursts.select(
        *("stat_date", sf.lit(PAGE).alias("entity_type"), page_name().alias("name")),
        *("burst_start", "burst_edits", "burst_editors", "burst_expected", "trend_ratio"),
    )
    entities = activity.entities.join(sf.broadcast(of_pages), ["stat_date", "entity_type", "name"], "left")
    return entities.withColumn("_trends", sf.coalesce(sf.col("trend_ratio") >= TRENDING_RATIO, sf.lit(False)))
