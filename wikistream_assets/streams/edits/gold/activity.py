"""The small frames that all Gold tables are made from: each user's and each page's hours, each entity's day, each page's burst.

Silver is read a few times, each time with few columns. Every figure of Gold is a sum or a count over these rows, so the tables
agree with one another by construction. A caller that computes several tables persists the frames.
"""

from dataclasses import dataclass
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.gold.bursts import bursts
from wikistream_assets.streams.edits.users import BOT
from wikistream_assets.transforms.instants import hour_of_day

PAGE: Final = "page"
USER: Final = "user"
DOMAIN: Final = "domain"


@dataclass(frozen=True)
class Activity:
    """Activity on some days.

    Attributes:
        users: one row per ``stat_date, stat_hour, domain, region, language, user_normalized``. ``user_kind`` is that of the
            events without bot flag, null if all have it. The rest are sums, all long: ``events``, ``bot_events``,
            ``anonymous_events``, ``type_edit``, ``type_new``, ``type_categorize``, ``type_log``, ``bytes_added``,
            ``bytes_removed``, ``sized_events`` (with a known length_delta), ``large_deletions``, ``large_additions``.
        pages: one row per ``stat_date, stat_hour, domain, title`` with its ``events``, long; events without title are left out.
        entities: one row per ``stat_date, entity_type, name`` (page as domain:title, user, domain) with its ``edits``
            and ``active_hours`` (hours with an edit), both long.
        bursts: as ``bursts.bursts`` gives them.
    """

    users: DataFrame
    pages: DataFrame
    entities: DataFrame
    bursts: DataFrame


def activity(silver: DataFrame, earlier: DataFrame | None = None) -> Activity:
    """Sum up rows of ``silver.cleaned_events``.

    Args:
        silver: all rows of the dates to compute, or the daily tables come out too small.
        earlier: all rows of the ``bursts.BASELINE_DAYS`` dates before each of them that are not in ``silver``; None if there are
            none.
    """
    hours = silver.withColumns({"stat_date": sf.col("event_date"), "stat_hour": hour_of_day(sf.col("event_timestamp"))})
    users, pages = _users(hours), _pages(hours)
    return Activity(users, pages, _entities(users, pages), bursts(silver, earlier))


def _users(hours: DataFrame) -> DataFrame:
    delta = sf.col("length_delta").cast("long")
    nothing = sf.lit(0).cast("long")
    return hours.groupBy("stat_date", "stat_hour", "domain", "region", "language", "user_normalized").agg(
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


def _of_type(name: str) -> Column:
    return sf.count_if(sf.col("event_type") == name).alias(f"type_{name}")


def _pages(hours: DataFrame) -> DataFrame:
    titled = hours.where(sf.col("title").isNotNull())
    return titled.groupBy("stat_date", "stat_hour", "domain", "title").agg(sf.count(sf.lit(1)).alias("events"))


def _entities(users: DataFrame, pages: DataFrame) -> DataFrame:
    named = (
        _named(pages, PAGE, page_name())
        .unionAll(_named(users.where(sf.col("user_normalized").isNotNull()), USER, sf.col("user_normalized")))
        .unionAll(_named(users, DOMAIN, sf.col("domain")))
    )
    entity = ("stat_date", "entity_type", "name")
    # Brought together once by entity, both sums need no further shuffle.
    hours = named.repartition(*entity).groupBy(*entity, "stat_hour").agg(sf.sum("events").alias("events"))
    return hours.groupBy(*entity).agg(
        sf.sum("events").alias("edits"),
        sf.count(sf.lit(1)).alias("active_hours"),
    )


def page_name() -> Column:
    """A page's name among the entities: titles are unique within a domain only."""
    return sf.concat(sf.col("domain"), sf.lit(":"), sf.col("title"))


def _named(frame: DataFrame, entity_type: str, name: Column) -> DataFrame:
    return frame.select(
        "stat_date", "stat_hour", sf.lit(entity_type).alias("entity_type"), name.alias("name"), "events"
    )
