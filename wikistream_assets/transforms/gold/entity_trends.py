"""``gold.entity_trends``: the busiest pages, users and domains of each day, how fast they moved and how sharply they peaked."""

from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf

from wikistream_assets.tables.gold import ENTITY_TRENDS, SCHEMA_VERSION
from wikistream_assets.transforms.gold.activity import PAGE, USER, Activity
from wikistream_assets.transforms.shared.instants import day_is_final, instant
from wikistream_assets.transforms.shared.users import pseudonym, without_addresses

TOP: Final = 100
"""Entities of each type that a day keeps."""

_HOURS_OF_DAY: Final = 24


def compute(
    activity: Activity, *, watermark: datetime, allowed_lateness_hours: int, processed_at: datetime, user_key: bytes
) -> DataFrame:
    """Compute the table.

    Args:
        activity: of the dates to compute.
        watermark: newest event time seen in the lake, aware.
        allowed_lateness_hours: a day is final when it ended this long before the watermark.
        processed_at: becomes ``gold_processed_at``.
        user_key: the home's secret for the pseudonyms of IP addresses, in user names and in page titles.

    Returns:
        At most 100 rows per day and entity type, bots included; exactly the columns of the contract. Ties go by the entity's name
        before pseudonyms, in order of code points.
    """
    by_edits = Window.partitionBy("stat_date", "entity_type").orderBy(sf.desc("edits"), "name")
    top = activity.entities.withColumn("rank", sf.row_number().over(by_edits)).where(sf.col("rank") <= TOP)
    name = sf.col("name")
    entity_id = (
        sf.when(sf.col("entity_type") == PAGE, without_addresses(name, user_key))
        .when(sf.col("entity_type") == USER, pseudonym(name, user_key))
        .otherwise(name)
    )
    final = day_is_final(sf.col("stat_date"), watermark=watermark, allowed_lateness_hours=allowed_lateness_hours)
    return top.withColumns(
        {
            "entity_id": entity_id,
            "edits_per_hour": sf.col("edits") / sf.col("active_hours"),
            "trend_ratio": sf.col("busiest_hour") * _HOURS_OF_DAY / sf.col("edits"),
            "is_final": final,
            "gold_processed_at": instant(processed_at),
            "schema_version": sf.lit(SCHEMA_VERSION),
        }
    ).select(*ENTITY_TRENDS.column_names)
