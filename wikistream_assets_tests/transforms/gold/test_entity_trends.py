from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.tables import ENTITY_TRENDS
from wikistream_assets.transforms.gold import entity_trends
from wikistream_assets.transforms.gold.activity import activity
from wikistream_assets_tests.transforms.frames import PROCESSED_AT, USER_KEY, collected, ddl, silver_frame, silver_row

pytestmark = pytest.mark.spark

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)


def _trends(spark: SparkSession, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = entity_trends.compute(
        activity(silver_frame(spark, rows)),
        watermark=MIDNIGHT + timedelta(hours=26),
        allowed_lateness_hours=2,
        processed_at=PROCESSED_AT,
        user_key=USER_KEY,
    )
    assert found.dtypes == spark.createDataFrame([], ddl(ENTITY_TRENDS)).dtypes
    return collected(found)


def test_figures_by_hand(spark: SparkSession) -> None:
    """Ada: three edits in hour 0 on two wikis, one in hour 5. Bo: two in hour 5."""
    de = {"domain": "de.wikipedia.org", "region": "europe"}
    rows = [
        *[silver_row(event_timestamp=MIDNIGHT)] * 2,
        silver_row(event_timestamp=MIDNIGHT, **de),
        silver_row(event_timestamp=MIDNIGHT + timedelta(hours=5), title="Milk"),
        *[silver_row(event_timestamp=MIDNIGHT + timedelta(hours=5), user_normalized="Bo", title=None)] * 2,
    ]
    found = {
        (row["entity_type"], row["entity_id"]): (row["rank"], row["edits"], row["edits_per_hour"], row["trend_ratio"])
        for row in _trends(spark, rows)
    }
    assert found == {
        ("user", "Ada"): (1, 4, 2.0, 3 * 24 / 4),
        ("user", "Bo"): (2, 2, 2.0, 24.0),
        ("domain", "en.wikipedia.org"): (1, 5, 2.5, 3 * 24 / 5),
        ("domain", "de.wikipedia.org"): (2, 1, 1.0, 24.0),
        ("page", "en.wikipedia.org:Tea"): (1, 2, 2.0, 24.0),
        ("page", "de.wikipedia.org:Tea"): (2, 1, 1.0, 24.0),
        ("page", "en.wikipedia.org:Milk"): (3, 1, 1.0, 24.0),
    }


def test_an_entity_that_is_even_over_the_day_has_a_ratio_of_one(spark: SparkSession) -> None:
    rows = [silver_row(event_timestamp=MIDNIGHT + timedelta(hours=hour)) for hour in range(24)]
    assert {(row["edits_per_hour"], row["trend_ratio"], row["is_final"]) for row in _trends(spark, rows)} == {
        (1.0, 1.0, True)
    }


def test_a_hundred_of_each_type_and_day_ties_by_name(spark: SparkSession) -> None:
    names = [f"User {number:03}" for number in range(103)]
    rows = [silver_row(event_timestamp=MIDNIGHT, user_normalized=name, title=name) for name in reversed(names)]
    rows += [silver_row(event_timestamp=MIDNIGHT, user_normalized=names[102], title="Tea")]
    rows += [silver_row(event_timestamp=MIDNIGHT + timedelta(days=1), user_normalized="Next day")]
    found = _trends(spark, rows)
    users = sorted(
        (row["rank"], row["entity_id"])
        for row in found
        if row["entity_type"] == "user" and row["stat_date"] == "2026-01-05"
    )
    assert users == list(enumerate([names[102], *names[:99]], start=1))
    assert [row["rank"] for row in found if row["stat_date"] == "2026-01-06"] == [1, 1, 1]
    assert {row["is_final"] for row in found if row["stat_date"] == "2026-01-06"} == {False}


def test_addresses_are_hidden_in_users_and_pages_but_ranked_by_name(spark: SparkSession) -> None:
    addresses = [f"192.0.2.{number}" for number in range(1, 6)]
    rows = [
        silver_row(event_timestamp=MIDNIGHT, user_normalized=address, user_kind="ip4", title=f"User talk:{address}")
        for address in addresses
    ]
    found = _trends(spark, rows)
    assert not any(address in row["entity_id"] for row in found for address in addresses)
    hashes = {row["rank"]: row["entity_id"] for row in found if row["entity_type"] == "user"}
    pages = {row["rank"]: row["entity_id"] for row in found if row["entity_type"] == "page"}
    assert pages == {rank: f"en.wikipedia.org:User talk:{name}" for rank, name in hashes.items()}
    assert len(set(hashes.values())) == 5
