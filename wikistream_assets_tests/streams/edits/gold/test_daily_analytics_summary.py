from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.quality.criteria import Criteria, Health, ShareTier, Tier
from wikistream_assets.streams.edits.gold import daily_analytics_summary, risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.tables import DAILY_ANALYTICS_SUMMARY
from wikistream_assets_tests.streams.edits.frames import (
    PROCESSED_AT,
    USER_KEY,
    collected,
    ddl,
    silver_frame,
    silver_row,
)

pytestmark = pytest.mark.spark

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
BOUNDS: dict[str, Any] = {
    "watermark": NOON + timedelta(hours=14),
    "allowed_lateness_hours": 2,
    "processed_at": PROCESSED_AT,
}


def _days(spark: SparkSession, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    summed_up = activity(silver_frame(spark, rows))
    scores = risk_scores.compute(summed_up, **BOUNDS, user_key=USER_KEY)
    days = daily_analytics_summary.compute(summed_up, scores, **BOUNDS, **options)
    assert days.dtypes == spark.createDataFrame([], ddl(DAILY_ANALYTICS_SUMMARY)).dtypes
    return collected(days)


def test_one_day_by_hand(spark: SparkSession) -> None:
    """100 events: 60 by Ada in one hour (MEDIUM), 20 by a bot, 12 by Bo and 8 by a temporary account (LOW both)."""
    bot = {
        "user_normalized": "TeaBot",
        "user_kind": "bot",
        "is_bot": True,
        "domain": "de.wikipedia.org",
        "region": "europe",
    }
    bo = {"user_normalized": "Bo", "domain": "ja.wikipedia.org", "region": "asia_pacific", "title": "茶"}
    guest = {"user_normalized": "~2026-1", "user_kind": "temporary", "is_anonymous": True, "event_type": "new"}
    fa = {"domain": "fa.wikipedia.org", "region": "middle_east"}
    meta = {"domain": "meta.wikimedia.org", "region": "other", "title": None}
    rows = [
        *[silver_row(event_timestamp=NOON)] * 60,
        *[silver_row(event_timestamp=NOON + timedelta(hours=1), **{**bot, "event_type": "log", "length_delta": None})]
        * 20,
        *[silver_row(event_timestamp=NOON + timedelta(hours=1), **bo, length_delta=-20)] * 11,
        silver_row(event_timestamp=NOON + timedelta(hours=5), **bo, length_delta=-5_001, is_large_deletion=True),
        *[silver_row(event_timestamp=NOON + timedelta(hours=5), **{**guest, **fa}, length_delta=500)] * 6,
        *[silver_row(event_timestamp=NOON + timedelta(hours=5), **{**guest, **meta}, length_delta=500)] * 2,
    ]
    assert _days(spark, rows) == [
        {
            "summary_date": "2026-01-05",
            "total_events": 100,
            "unique_users": 4,
            "active_domains": 5,
            "unique_pages_edited": 4,
            "bot_percentage": 20.0,
            "anonymous_percentage": 8.0,
            "registered_user_percentage": 72.0,
            "total_bytes_added": 4_600,
            "total_bytes_removed": 5_221,
            "net_content_change": -621,
            "avg_edit_size_bytes": 9_821 / 80,
            "new_pages_created": 8,
            "large_deletions_count": 1,
            "large_deletion_rate": 1.0,
            "high_risk_user_count": 0,
            "medium_risk_user_count": 1,
            "low_risk_user_count": 2,
            "platform_avg_risk_score": 20.0,
            "platform_max_risk_score": 40.0,
            "total_alerts_triggered": 0,
            "europe_percentage": 20.0,
            "americas_percentage": 60.0,
            "asia_pacific_percentage": 12.0,
            "middle_east_percentage": 6.0,
            "other_percentage": 2.0,
            "peak_hour_events": 60,
            "avg_events_per_hour": 100 / 3,
            # 40 x 2/3 low risk + 30 x 0.72 registered + 0 (content shrank) + 0 (one deletion in 100 is not less than 1 %)
            "platform_health_score": pytest.approx(40 * 2 / 3 + 21.6, abs=1e-9),
            "is_final": True,
            "gold_processed_at": PROCESSED_AT,
            "schema_version": "2",
        }
    ]


def test_health_of_a_day_without_scored_users(spark: SparkSession) -> None:
    """Nobody is at risk: 40 points; two of four events by registered users: 15; content grew: 20; no large deletion: 10."""
    rows = [
        *[silver_row(event_timestamp=NOON)] * 2,
        *[silver_row(event_timestamp=NOON, user_normalized="TeaBot", user_kind="bot", is_bot=True)] * 2,
    ]
    [day] = _days(spark, rows)
    assert day["platform_health_score"] == 85.0
    assert (day["low_risk_user_count"], day["platform_avg_risk_score"], day["platform_max_risk_score"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("events", "points"), [(100, 0), (101, 10)])
def test_the_rate_of_large_deletions_must_be_below_one_percent(spark: SparkSession, events: int, points: int) -> None:
    users = [f"User {number % 40}" for number in range(events)]  # two or three edits each: nobody is scored
    rows = [silver_row(event_timestamp=NOON, user_normalized=user, length_delta=0) for user in users]
    rows[0] |= {"length_delta": -6_000, "is_large_deletion": True}
    [day] = _days(spark, rows)
    assert day["platform_health_score"] == 40 + 30 + 0 + points


@pytest.mark.parametrize(("delta", "points"), [(100, 0), (101, 20)])
def test_content_must_grow(spark: SparkSession, delta: int, points: int) -> None:
    rows = [silver_row(event_timestamp=NOON, length_delta=-100), silver_row(event_timestamp=NOON, length_delta=delta)]
    [day] = _days(spark, rows)
    assert day["platform_health_score"] == 40 + 30 + points + 10


def test_weights_and_partial_points_of_the_health_score(spark: SparkSession) -> None:
    """Days of four changes: the bytes that one of them adds, how many are large deletions, and the points for both."""
    health = Health(
        low_risk=20,
        registered=30,
        growth=(Tier(above=-10, points=15), Tier(above=0, points=30)),
        large_deletions=(ShareTier(below=50, points=5), ShareTier(below=25, points=20)),
    )
    days = [
        (-11, 0, 0 + 20),
        (-10, 0, 0 + 20),
        (-9, 0, 15 + 20),
        (0, 0, 15 + 20),
        (1, 0, 30 + 20),
        (1, 1, 30 + 5),
        (1, 2, 30),
    ]
    rows = [
        silver_row(
            event_timestamp=NOON + timedelta(days=day), length_delta=size, is_large_deletion=number < large_deletions
        )
        for day, (delta, large_deletions, _) in enumerate(days)
        for number, size in enumerate((delta, 0, 0, 0))
    ]
    found = sorted(_days(spark, rows, criteria=Criteria(health=health)), key=lambda day: day["summary_date"])
    assert [day["platform_health_score"] for day in found] == [20 + 30 + points for _, _, points in days]


def test_days_without_sizes_and_days_apart(spark: SparkSession) -> None:
    rows = [
        silver_row(event_timestamp=NOON, length_delta=None, event_type="log"),
        silver_row(event_timestamp=NOON + timedelta(days=1)),
    ]
    found = {
        day["summary_date"]: (day["total_events"], day["avg_edit_size_bytes"], day["is_final"])
        for day in _days(spark, rows)
    }
    assert found == {"2026-01-05": (1, None, True), "2026-01-06": (1, 10.0, False)}
