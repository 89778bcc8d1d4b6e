import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.quality.criteria import Criteria, Risk, Tier
from wikistream_assets.streams.edits.gold import risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.tables import RISK_SCORES
from wikistream_assets_tests.streams.edits.frames import (
    PROCESSED_AT,
    USER_KEY,
    collected,
    ddl,
    silver_frame,
    silver_row,
)

pytestmark = pytest.mark.spark

MORNING = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
WIKIS = [f"{code}.wikipedia.org" for code in ("en", "de", "fr", "ja", "es", "ru", "it")]


def _day(
    user: str, events: int, *, hours: int = 1, deletions: int = 0, domains: int = 1, **fields: Any
) -> list[dict[str, Any]]:
    return [
        silver_row(
            user_normalized=user,
            event_timestamp=MORNING + timedelta(hours=number % hours),
            is_large_deletion=number < deletions,
            domain=WIKIS[number % domains],
            **fields,
        )
        for number in range(events)
    ]


def _scores(spark: SparkSession, rows: list[dict[str, Any]], **options: Any) -> dict[str, dict[str, Any]]:
    bounds = {"watermark": MORNING, "allowed_lateness_hours": 2, "processed_at": PROCESSED_AT, "user_key": USER_KEY}
    scores = risk_scores.compute(activity(silver_frame(spark, rows)), **{**bounds, **options})
    assert scores.dtypes == spark.createDataFrame([], ddl(RISK_SCORES)).dtypes
    return {row["entity_id"]: row for row in collected(scores)}


ANONYMOUS = {"user_kind": "temporary", "is_anonymous": True}


def test_every_boundary_of_the_factors_and_levels(spark: SparkSession) -> None:
    """Score and level of one user-day each: exactly at a threshold gives no points, one more does."""
    table: dict[str, tuple[list[dict[str, Any]], float, str]] = {
        "50 an hour": (_day("50 an hour", 50), 0, "LOW"),
        "51 an hour": (_day("51 an hour", 51), 40, "MEDIUM"),
        "100 in two hours": (_day("100 in two hours", 100, hours=2), 0, "LOW"),
        "101 in two hours": (_day("101 in two hours", 101, hours=2), 40, "MEDIUM"),
        "3 deletions": (_day("3 deletions", 5, deletions=3), 0, "LOW"),
        "4 deletions": (_day("4 deletions", 5, deletions=4), 30, "LOW"),
        "~2026-1": (_day("~2026-1", 5, **ANONYMOUS), 20, "LOW"),
        "slow, 6 domains": (_day("slow, 6 domains", 12, domains=6), 0, "LOW"),
        "fast, 5 domains": (_day("fast, 5 domains", 55, domains=5), 40, "MEDIUM"),
        "fast, 6 domains": (_day("fast, 6 domains", 54, domains=6), 50, "MEDIUM"),
        "~2026-2": (_day("~2026-2", 8, deletions=4, **ANONYMOUS), 50, "MEDIUM"),
        "~2026-3": (_day("~2026-3", 51, **ANONYMOUS), 60, "MEDIUM"),
        "fast deleter": (_day("fast deleter", 51, deletions=4), 70, "HIGH"),
        "~2026-4": (_day("~2026-4", 60, deletions=4, domains=6, **ANONYMOUS), 100, "HIGH"),
    }
    scores = _scores(spark, [row for rows, _, _ in table.values() for row in rows])
    assert {user: (row["risk_score"], row["risk_level"]) for user, row in scores.items()} == {
        user: (score, level) for user, (_, score, level) in table.items()
    }
    assert {user for user, row in scores.items() if row["alert_triggered"]} == {"fast deleter", "~2026-4"}


def test_anonymous_share_at_and_above_half(spark: SparkSession) -> None:
    """One name is anonymous in all its edits or in none; the threshold itself is tested with a made-up mix."""
    half = _day("Half", 50, hours=5, **ANONYMOUS) + _day("Half", 50, hours=5)
    more = _day("More", 51, hours=5, **ANONYMOUS) + _day("More", 49, hours=5)
    scores = _scores(spark, half + more)
    assert {user: row["risk_score"] for user, row in scores.items()} == {"Half": 0, "More": 20}


@pytest.mark.parametrize(("points", "level"), [(39, "LOW"), (40, "MEDIUM"), (69, "MEDIUM"), (70, "HIGH")])
def test_levels_follow_the_score(spark: SparkSession, points: int, level: str) -> None:
    risk = Risk(edits_per_hour=(Tier(above=50, points=points),), large_deletions=())
    [row] = _scores(spark, _day("Ada", 51), criteria=Criteria(risk=risk)).values()
    assert (row["risk_score"], row["risk_level"], row["alert_triggered"]) == (points, level, level == "HIGH")


def test_who_is_scored(spark: SparkSession) -> None:
    bot = {"user_kind": "bot", "is_bot": True}
    rows = [
        *_day("four", 4),
        *_day("five", 5),
        *_day("Bot", 60, **bot),
        *_day("Sometimes a bot", 60),
        *_day("Sometimes a bot", 1, **bot),
        *_day("Five in two places", 3),
        *[{**row, "domain": "de.wikipedia.org", "region": "europe"} for row in _day("Five in two places", 2)],
    ]
    scores = _scores(spark, rows)
    assert scores.keys() == {"five", "Five in two places"}
    assert scores["Five in two places"]["domains_edited"] == 2
    assert scores["Five in two places"]["edits_per_hour_avg"] == 5.0  # one hour, not one hour for each domain


def test_any_type_of_event_is_an_edit(spark: SparkSession) -> None:
    """1,136 events in two hours, most of them ``categorize``: half of them in each hour is far above 50."""
    rows = _day("Ada", 215, hours=2) + _day("Ada", 921, hours=2, event_type="categorize", length_delta=None)
    [row] = _scores(spark, rows).values()
    assert (row["total_edits"], row["edits_per_hour_avg"], row["risk_level"]) == (1136, 568.0, "MEDIUM")


def test_days_are_scored_apart(spark: SparkSession) -> None:
    next_day = [
        {**row, "event_timestamp": row["event_timestamp"] + timedelta(days=1), "event_date": "2026-01-06"}
        for row in _day("Ada", 60)
    ]
    rows = silver_frame(spark, _day("Ada", 30) + next_day)
    bounds = {
        "watermark": datetime(2026, 1, 6, 2, tzinfo=UTC),
        "allowed_lateness_hours": 2,
        "processed_at": PROCESSED_AT,
    }
    found = collected(risk_scores.compute(activity(rows), **bounds, user_key=USER_KEY))
    assert sorted((row["stat_date"], row["total_edits"], row["risk_score"], row["is_final"]) for row in found) == [
        ("2026-01-05", 30, 0.0, True),
        ("2026-01-06", 60, 40.0, False),
    ]


def test_addresses_are_shown_as_keyed_hashes(spark: SparkSession) -> None:
    rows = _day("192.0.2.1", 5, user_kind="ip4", is_anonymous=True) + _day(
        "2001:DB8::1", 6, user_kind="ip6", is_anonymous=True
    )
    scores = _scores(spark, rows)
    assert all(name.startswith("ip-") and len(name) == 19 for name in scores)
    assert {(row["entity_type"], row["total_edits"]) for row in scores.values()} == {("ip4", 5), ("ip6", 6)}
    assert scores.keys().isdisjoint(_scores(spark, rows, user_key=b"another home"))


def test_evidence_is_the_same_string_every_time_and_adds_up(spark: SparkSession) -> None:
    rows = _day("~2026-1", 60, deletions=4, domains=6, **ANONYMOUS)
    [row] = _scores(spark, rows).values()
    assert row["evidence"] == (
        '{"edits_per_hour":{"value":60.0,"points":40},"large_deletions":{"value":4,"points":30},'
        '"anonymous_percentage":{"value":100.0,"points":20},"domains":{"value":6,"points":10}}'
    )
    assert sum(factor["points"] for factor in json.loads(row["evidence"]).values()) == row["risk_score"]


def test_of_several_tiers_the_highest_that_is_reached_counts(spark: SparkSession) -> None:
    """The partial points of the original WikiStream's code: 10 from above 10 edits an hour, 25 above 25, 40 above 50."""
    speeds = (Tier(above=10, points=10), Tier(above=25, points=25), Tier(above=50, points=40))
    criteria = Criteria(
        risk=Risk(min_edits=6, edits_per_hour=speeds, domains=(Tier(above=1, points=5),), fast_edits_per_hour=25)
    )
    rows = [row for count in (5, 10, 11, 25, 26, 51) for row in _day(f"{count} an hour", count)]
    rows += _day("fast, 2 domains", 26, domains=2) + _day("slow, 2 domains", 24, domains=2)
    scores = _scores(spark, rows, criteria=criteria)
    assert {user: row["risk_score"] for user, row in scores.items()} == {
        **{"10 an hour": 0, "11 an hour": 10, "25 an hour": 10, "26 an hour": 25, "51 an hour": 40},
        **{"fast, 2 domains": 30, "slow, 2 domains": 10},
    }
    assert {row["schema_version"] for row in scores.values()} == {f"2+{criteria.fingerprint}"}
