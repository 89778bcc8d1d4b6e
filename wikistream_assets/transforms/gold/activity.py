"""The two small frames that all Gold tables are made from: what each user did, and what each page saw, in each hour.

Silver is read once for each frame, with the columns it needs. Every figure of Gold is a sum or a count over these rows, so the
tables agree with one another by construction. A caller that computes several tables persists the two frames.
"""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.transforms.shared.instants import hour_of_day
from wikistream_assets.transforms.shared.users import BOT


@dataclass(frozen=True)
class Activity:
    """Hourly activity on some days.

    Attributes:
        users: one row per ``stat_date, stat_hour, domain, region, user_normalized``. ``user_kind`` is that of the events without
            bot flag, null if all have it. The rest are sums, all long: ``events``, ``bot_events``, ``anonymous_events``,
            ``type_edit``, ``type_new``, ``type_categorize``, ``type_log``, ``bytes_added``, ``bytes_removed``,
            ``sized_events`` (with a known length_delta), ``large_deletions``, ``large_additions``.
        pages: one row per ``stat_date, stat_hour, domain, title`` with its ``events``, long; events without title are left out.
    """

    users: DataFrame
    pages: DataFrame


def activity(silver: DataFrame) -> Activity:
    """Sum up rows of ``silver.cleaned_events``: all rows of the dates to compute, or the daily tables come out too small."""
    hours = silver.withColumns({"stat_date": sf.col("event_date"), "stat_hour": hour_of_day(sf.col("event_timestamp"))})
    delta = sf.col("length_delta").cast("long")
    nothing = sf.lit(0).cast("long")
    users = hours.groupBy("stat_date", "stat_hour", "domain", "region", "user_normalized").agg(
        sf.max(sf.when(sf.col("user_kind") != BOT, sf.col("user_kind"))).alias("user_kind"),
        sf.count(sf.lit(1)).alias("events"),
        sf.count_if("is_bot").alias("bot_events"),
        sf.count_if("is_anonymous").alias("anonymous_events"),
        *(_of_type(name) for name in ("edit", "new", "categorize", "log")),
        sf.sum(sf.when(delta > 0, delta).otherwise(nothing)).alias("bytes_added"),
        sf.sum(sf.when(delta < 0, -delta).otherwise(nothing)).alias("bytes_removed"),
        sf.count(delta).alias("sized_events"),
        sf.count_if("is_large_deletion").alias("large_deletions"),
        sf.count_if("is_large_addition").alias("large_additions"),
    )
    titled = hours.where(sf.col("title").isNotNull())
    pages = titled.groupBy("stat_date", "stat_hour", "domain", "title").agg(sf.count(sf.lit(1)).alias("events"))
    return Activity(users, pages)


def _of_type(name: str) -> Column:
    return sf.count_if(sf.col("event_type") == name).alias(f"type_{name}")
