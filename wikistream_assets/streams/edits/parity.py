"""Whether Gold adds up: its hours to Silver's rows, its days to its hours and its scores."""

from collections import Counter
from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.streams.declaration import Hour, Parity
from wikistream_assets.streams.edits.gold.risk_scores import LEVELS
from wikistream_assets.streams.edits.rules.gold import PARITY_HOURLY_DAILY, PARITY_SILVER_GOLD
from wikistream_assets.streams.edits.tables.gold import DAILY_ANALYTICS_SUMMARY, HOURLY_STATS, RISK_SCORES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.instants import by_name


def parities(tables: Mapping[TableSpec, DataFrame], silver: Counter[Hour]) -> list[Parity]:
    """What Gold's tables say about the computed dates, beside what they were computed from.

    Args:
        tables: rows of the dates.
        silver: Silver's rows of the dates, by hour.
    """
    hours = _events_by_hour(tables[HOURLY_STATS])
    expected: Counter[str] = Counter()
    for (day, _), events in hours.items():
        expected[f"{day} events"] += events
    scored = tables[RISK_SCORES].groupBy("stat_date", "risk_level").count().collect()
    expected.update({f"{row['stat_date']} {row['risk_level']}": row["count"] for row in scored})
    found: Counter[str] = Counter()
    for row in tables[DAILY_ANALYTICS_SUMMARY].collect():
        found[f"{row['summary_date']} events"] += row["total_events"] or 0
        for level in LEVELS:
            found[f"{row['summary_date']} {level}"] += row[f"{level.lower()}_risk_user_count"] or 0
    return [
        Parity(HOURLY_STATS, PARITY_SILVER_GOLD, by_name(silver), by_name(hours)),
        Parity(DAILY_ANALYTICS_SUMMARY, PARITY_HOURLY_DAILY, expected, found),
    ]


def _events_by_hour(hourly: DataFrame) -> Counter[Hour]:
    sums = hourly.groupBy("stat_date", "stat_hour").agg(sf.sum("total_events").alias("events")).collect()
    return Counter({(row["stat_date"], row["stat_hour"]): row["events"] or 0 for row in sums})
