from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.streams.edits.gold import hourly_stats
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.tables import HOURLY_STATS
from wikistream_assets_tests.streams.edits.frames import PROCESSED_AT, collected, ddl, silver_frame, silver_row

pytestmark = pytest.mark.spark

TEN = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
WATERMARK = datetime(2026, 1, 5, 13, 0, tzinfo=UTC)
BOUNDS = {"watermark": WATERMARK, "allowed_lateness_hours": 2, "processed_at": PROCESSED_AT}


def test_one_hour_by_hand(spark: SparkSession) -> None:
    bot = {"user_normalized": "TeaBot", "user_kind": "bot", "is_bot": True}
    temporary = {"user_normalized": "~2026-1", "user_kind": "temporary", "is_anonymous": True}
    rows = [
        silver_row(event_timestamp=TEN, length_delta=70),
        silver_row(
            event_timestamp=TEN + timedelta(minutes=59, seconds=59), length_delta=-6_000, is_large_deletion=True
        ),
        silver_row(
            event_timestamp=TEN, event_type="new", title="Milk", length_delta=60_000, is_large_addition=True, **bot
        ),
        silver_row(event_timestamp=TEN, event_type="categorize", title="Category:Tea", length_delta=None, **temporary),
        silver_row(event_timestamp=TEN, event_type="log", title=None, length_delta=None),
        silver_row(event_timestamp=TEN, event_type="other", length_delta=0, user_normalized="Bo"),
    ]
    found = hourly_stats.compute(activity(silver_frame(spark, rows)), **BOUNDS)
    assert found.dtypes == spark.createDataFrame([], ddl(HOURLY_STATS)).dtypes
    assert collected(found) == [
        {
            "stat_date": "2026-01-05",
            "stat_hour": 10,
            "domain": "en.wikipedia.org",
            "region": "americas",
            "language": "en",
            "total_events": 6,
            "unique_users": 4,
            "unique_pages": 3,
            "bytes_added": 60_070,
            "bytes_removed": 6_000,
            "avg_edit_size": 66_070 / 4,
            "bot_edits": 1,
            "human_edits": 5,
            "bot_percentage": 100 / 6,
            "anonymous_edits": 1,
            "type_edit": 2,
            "type_new": 1,
            "type_categorize": 1,
            "type_log": 1,
            "large_deletions": 1,
            "large_additions": 1,
            "is_final": True,
            "gold_processed_at": PROCESSED_AT,
            "schema_version": "2",
        }
    ]


def test_a_late_event_changes_only_its_hour_and_the_watermark_closes_hours(spark: SparkSession) -> None:
    def stats(*minutes_after_ten: int) -> dict[int, tuple[int, bool]]:
        times = [TEN + timedelta(minutes=minutes) for minutes in minutes_after_ten]
        silver = silver_frame(spark, [silver_row(event_timestamp=time) for time in times])
        found = hourly_stats.compute(activity(silver), **{**BOUNDS, "watermark": max(times)})
        return {row["stat_hour"]: (row["total_events"], row["is_final"]) for row in collected(found)}

    assert stats(0, 30, 61, 179) == {10: (2, False), 11: (1, False), 12: (1, False)}
    assert stats(0, 30, 61, 179, 180) == {10: (2, True), 11: (1, False), 12: (1, False), 13: (1, False)}
    assert stats(0, 30, 61, 179, 180, 45) == {10: (3, True), 11: (1, False), 12: (1, False), 13: (1, False)}


def test_hours_and_domains_are_apart_and_a_user_counts_once_in_each(spark: SparkSession) -> None:
    de = {"domain": "de.wikipedia.org", "region": "europe"}
    bot = {"user_kind": "bot", "is_bot": True}
    rows = [
        silver_row(event_timestamp=TEN),
        silver_row(event_timestamp=TEN, **bot),  # the same name, once with the bot flag: one user
        silver_row(event_timestamp=TEN, **de),
        silver_row(event_timestamp=TEN + timedelta(hours=1), length_delta=None),
        silver_row(event_timestamp=TEN + timedelta(days=1)),
    ]
    found = collected(hourly_stats.compute(activity(silver_frame(spark, rows)), **BOUNDS))
    figures = {
        (row["stat_date"], row["stat_hour"], row["region"]): (
            row["total_events"],
            row["unique_users"],
            row["avg_edit_size"],
        )
        for row in found
    }
    assert figures == {
        ("2026-01-05", 10, "americas"): (2, 1, 10.0),
        ("2026-01-05", 10, "europe"): (1, 1, 10.0),
        ("2026-01-05", 11, "americas"): (1, 1, None),
        ("2026-01-06", 10, "americas"): (1, 1, 10.0),
    }
