import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from wikistream_assets.streams.edits.gold import daily_analytics_summary, entity_trends, hourly_stats, risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets_tests.streams.edits.frames import PROCESSED_AT, USER_KEY, silver_frame, silver_row

pytestmark = pytest.mark.spark

BOUNDS: dict[str, Any] = {
    "watermark": datetime(2026, 1, 7, tzinfo=UTC),
    "allowed_lateness_hours": 2,
    "processed_at": PROCESSED_AT,
}


def _gold(silver: DataFrame) -> list[list[str]]:
    summed_up = activity(silver)
    scores = risk_scores.compute(summed_up, **BOUNDS, user_key=USER_KEY)
    frames = (
        hourly_stats.compute(summed_up, **BOUNDS),
        scores,
        entity_trends.compute(summed_up, **BOUNDS, user_key=USER_KEY),
        daily_analytics_summary.compute(summed_up, scores, **BOUNDS),
    )
    return [sorted(repr(row) for row in frame.collect()) for frame in frames]


def test_every_figure_is_the_same_whatever_the_order_of_the_rows_and_the_number_of_tasks(spark: SparkSession) -> None:
    """To the last bit: tables are compared by hash."""
    rng = random.Random(7)
    rows = [
        silver_row(
            event_timestamp=datetime(2026, 1, 5, tzinfo=UTC) + timedelta(minutes=rng.randrange(2 * 24 * 60)),
            user_normalized=f"User {rng.randrange(60)}",
            title=f"Page {rng.randrange(200)}",
            domain=rng.choice(["en.wikipedia.org", "pt.wikipedia.org"]),
            length_delta=rng.choice([None, rng.randrange(-7_000, 7_000)]),
        )
        for _ in range(2_000)
    ]
    first = _gold(silver_frame(spark, rows))
    rng.shuffle(rows)
    partitions = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        second = _gold(silver_frame(spark, rows).repartition(3, "title"))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
    assert first == second
    assert [len(table) for table in first] == [96, 120, 2 * (100 + 60 + 2), 2]
