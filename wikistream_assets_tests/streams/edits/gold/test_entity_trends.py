from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.streams.edits.gold import entity_trends
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.tables import ENTITY_TRENDS
from wikistream_assets_tests.streams.edits.frames import (
    PROCESSED_AT,
    USER_KEY,
    collected,
    ddl,
    silver_frame,
    silver_row,
)

pytestmark = pytest.mark.spark

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)


def _trends(
    spark: SparkSession, rows: list[dict[str, Any]], earlier: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    found = entity_trends.compute(
        activity(silver_frame(spark, rows), silver_frame(spark, earlier) if earlier else None),
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
        ("user", "Ada"): (1, 4, 2.0, None),
        ("user", "Bo"): (2, 2, 2.0, None),
        ("domain", "en.wikipedia.org"): (1, 5, 2.5, None),
        ("domain", "de.wikipedia.org"): (2, 1, 1.0, None),
        ("page", "en.wikipedia.org:Tea"): (1, 2, 2.0, None),
        ("page", "de.wikipedia.org:Tea"): (2, 1, 1.0, None),
        ("page", "en.wikipedia.org:Milk"): (3, 1, 1.0, None),
    }


EN, DE = "en.wikipedia.org", "de.wikipedia.org"
BOT = {"is_bot": True, "user_kind": "bot"}
DAYS = [MIDNIGHT + timedelta(days=number) for number in range(3)]


def _edits(
    title: str, start: datetime, edits: int, people: int, domain: str = EN, **fields: Any
) -> list[dict[str, Any]]:
    """Edits of a page by so many people in turn, evenly over 20 minutes."""
    region = "europe" if domain == DE else "americas"
    return [
        silver_row(
            title=title,
            domain=domain,
            region=region,
            event_timestamp=start + number * timedelta(minutes=20) / edits,
            user_normalized=f"User {number % people}",
            **fields,
        )
        for number in range(edits)
    ]


def _three_days() -> list[dict[str, Any]]:
    """What is usual, what is planted on the last day, and what looks like it but is something else."""
    news, evening = DAYS[2] + timedelta(hours=14, minutes=50), timedelta(hours=20)
    hours = [day + timedelta(hours=hour) for day in DAYS for hour in range(24)]
    return [
        *(row for hour in hours for domain in (EN, DE) for row in _edits("Popular", hour, 12, 6, domain)),
        *(row for hour in hours for domain in (EN, DE) for row in _edits("Steady", hour, 2, 2, domain)),
        *_edits("News", news, 12, 6),
        *_edits("Small news", news, 5, 4),
        *_edits("Four edits", news, 4, 4),
        *_edits("Quarrel of three", news, 30, 3),
        *_edits("One person", news, 40, 1),
        *_edits("Bots", news, 40, 8, **BOT),
        *_edits("Bots and three people", news, 40, 8, **BOT),
        *_edits("Bots and three people", news, 3, 3),
        *_edits("Talk:News", news, 12, 6, namespace=1),
        *_edits("Moved about", news, 12, 6, event_type="log"),
        *_edits("Category:News", news, 12, 6, namespace=14, event_type="categorize"),
        *(row for day in DAYS for row in _edits("Every evening", day + evening, 12, 6)),
        # On the English wiki "Steady" stands out; on the German one it has its share of a wave of people.
        *_edits("Steady", DAYS[2] + timedelta(hours=9), 12, 6, EN),
        *_edits("Steady", news, 12, 6, DE),
        *(row for number in range(40) for row in _edits(f"Wave {number}", news, 4, 4, DE)),
        *(row for number in range(40) for row in _edits(f"Bot wave {number}", news, 4, 4, EN, **BOT)),
    ]


def test_bursts_are_found_and_what_is_usual_or_made_by_few_is_not(spark: SparkSession) -> None:
    trending = {
        (row["stat_date"][-2:], row["entity_id"].partition(":")[2], row["entity_id"].partition(".")[0])
        for row in _trends(spark, _three_days())
        if row["trend_rank"] is not None
    }
    assert trending == {
        ("05", "Every evening", "en"),  # the first time it was news
        ("07", "News", "en"),
        ("07", "Small news", "en"),
        ("07", "Steady", "en"),
    }


def test_a_bursts_figures_by_hand(spark: SparkSession) -> None:
    """Before the last day's window "Popular" got 12 edits and "Steady" two in each hour of each wiki."""
    rows = _three_days()
    earlier, day = ([row for row in rows if (row["event_date"] == "2026-01-07") is last] for last in (False, True))
    trends = _trends(spark, day, earlier)
    assert {row["stat_date"] for row in trends} == {"2026-01-07"}
    columns = ("trend_rank", "burst_start", "burst_edits", "burst_editors", "burst_expected", "trend_ratio")
    found = {row["entity_id"]: tuple(row[name] for name in columns) for row in trends if row["trend_ratio"]}

    # The first window that holds all of it begins at 14:15. Nobody has edited these pages before: one edit is expected.
    quarter_past, half_past = DAYS[2] + timedelta(hours=14, minutes=15), DAYS[2] + timedelta(hours=8, minutes=30)
    assert found[f"{EN}:News"] == (1, quarter_past, 12, 6, 1.0, 12.0)
    assert found[f"{EN}:Small news"] == (2, quarter_past, 5, 4, 1.0, 5.0)
    # The usual two edits are in the window too, and expected with the one that any page may get.
    assert found[f"{EN}:Steady"] == (3, half_past, 14, 6, 3.0, 14 / 3)
    # There the rest of the wiki makes 160 and 12 edits, where 12 are usual.
    rise = (160 + 12 + 10) / (12 + 10)
    expected = pytest.approx(1 + 2 * rise)
    assert found[f"{DE}:Steady"] == (None, quarter_past, 14, 6, expected, pytest.approx(14 / (1 + 2 * rise)))
    assert found[f"{EN}:Popular"][0] is None


def test_a_page_that_trends_stays_though_a_hundred_others_have_more_edits(spark: SparkSession) -> None:
    rows = [row for number in range(100) for row in _edits(f"Busy {number:02}", MIDNIGHT, 6, 1)]
    found = {row["entity_id"]: row for row in _trends(spark, rows + _edits("News", MIDNIGHT, 5, 4))}
    news = found[f"{EN}:News"]
    assert (news["rank"], news["trend_rank"], news["trend_ratio"]) == (101, 1, 5.0)
    assert sum(row["entity_type"] == "page" for row in found.values()) == 101


def test_no_later_day_has_a_say(spark: SparkSession) -> None:
    """The rows of a date are the same whatever comes on the days after it."""
    rows = _three_days()
    before_last = [row for row in rows if row["event_date"] < "2026-01-07"]

    def of_the_second_day(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [row for row in _trends(spark, rows) if row["stat_date"] == "2026-01-06"]
        return sorted(found, key=lambda row: (row["entity_type"], row["rank"]))

    assert of_the_second_day(rows) == of_the_second_day(before_last)


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
