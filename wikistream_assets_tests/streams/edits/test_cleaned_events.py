from datetime import UTC, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits import cleaned_events
from wikistream_assets.streams.edits.cleaned_events import ROW_RULES
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE
from wikistream_assets.transforms import marks
from wikistream_assets.transforms.marks import REJECTED_BY, Rejection
from wikistream_assets_tests.streams.edits.frames import (
    BRONZE_PROCESSED_AT,
    PROCESSED_AT,
    bronze_frame,
    bronze_row,
    collected,
    ddl,
)

pytestmark = pytest.mark.spark


def _cleaned(spark: SparkSession, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [bronze_row(event_id=f"e{number}", kafka_offset=number, **change) for number, change in enumerate(changes)]
    return collected(cleaned_events.clean(bronze_frame(spark, *rows), processed_at=PROCESSED_AT))


def _reasons(spark: SparkSession, *rows: dict[str, Any], **options: Any) -> list[tuple[int, str | None]]:
    """``rc_id`` tells the rows apart, whatever their ids."""
    marked = cleaned_events.split(bronze_frame(spark, *rows), processed_at=PROCESSED_AT, **options)
    return sorted((row["rc_id"], row["failed_rules"]) for row in marked.select("rc_id", "failed_rules").collect())


def test_a_good_edit_from_column_to_column(spark: SparkSession) -> None:
    bronze = bronze_row(user=" Ada\u200b  Byron\n", title="Tea\x07 time")
    [row] = collected(cleaned_events.clean(bronze_frame(spark, bronze), processed_at=PROCESSED_AT))
    assert row == {
        "event_id": "e1",
        "rc_id": 1,
        "event_type": "edit",
        "domain": "en.wikipedia.org",
        "region": "americas",
        "language": "en",
        "title": "Tea time",
        "namespace": 0,
        "user_normalized": "Ada Byron",
        "user_kind": "registered",
        "is_bot": False,
        "is_anonymous": False,
        "length_old": 100,
        "length_new": 150,
        "length_delta": 50,
        "revision_old": 1,
        "revision_new": 2,
        "is_valid": True,
        "is_large_deletion": False,
        "is_large_addition": False,
        "event_timestamp": datetime(2026, 1, 5, 10, 30, tzinfo=UTC),
        "bronze_processed_at": BRONZE_PROCESSED_AT,
        "silver_processed_at": PROCESSED_AT,
        "event_date": "2026-01-05",
        "schema_version": "/mediawiki/recentchange/1.0.1",
    }


def test_the_frames_are_exactly_the_contracts(spark: SparkSession) -> None:
    bronze = bronze_frame(spark, bronze_row())
    marked = cleaned_events.split(bronze, processed_at=PROCESSED_AT)
    assert (
        cleaned_events.clean(bronze, processed_at=PROCESSED_AT).dtypes
        == spark.createDataFrame([], ddl(CLEANED_EVENTS)).dtypes
    )
    assert marks.good(marked, CLEANED_EVENTS).dtypes == spark.createDataFrame([], ddl(CLEANED_EVENTS)).dtypes
    quarantined = marks.set_aside(marked, QUARANTINE, quarantine_processed_at=PROCESSED_AT)
    assert quarantined.dtypes == spark.createDataFrame([], ddl(QUARANTINE)).dtypes


def test_event_types(spark: SparkSession) -> None:
    table = {
        "edit": "edit",
        "new": "new",
        "log": "log",
        "categorize": "categorize",
        "external": "external",
        "142": "other",
        "0": "other",
        "-1": "other",
        "1.5": "other",
        "Edit ": "edit",
        "Flow": "flow",
        "4chan": "4chan",
        None: None,
    }
    assert [row["event_type"] for row in _cleaned(spark, *({"event_type": raw} for raw in table))] == list(
        table.values()
    )


@pytest.mark.parametrize("size", [4_999, 5_000, 5_001])
def test_a_large_deletion_is_more_than_5000_bytes(spark: SparkSession, size: int) -> None:
    [row] = _cleaned(spark, {"length_old": 10_000, "length_new": 10_000 - size})
    assert (row["length_delta"], row["is_large_deletion"], row["is_large_addition"]) == (-size, size == 5_001, False)


@pytest.mark.parametrize("size", [49_999, 50_000, 50_001])
def test_a_large_addition_is_more_than_50000_bytes(spark: SparkSession, size: int) -> None:
    [row] = _cleaned(spark, {"length_old": 7, "length_new": 7 + size})
    assert (row["length_delta"], row["is_large_deletion"], row["is_large_addition"]) == (size, False, size == 50_001)


def test_lengths_that_are_missing(spark: SparkSession) -> None:
    lengths = [
        ("new", None, 300, 0, 300),
        ("new", 0, 300, 0, 300),
        ("new", None, None, 0, None),
        ("edit", None, 300, None, None),
        ("edit", 300, None, 300, None),
        ("log", None, None, None, None),
        ("categorize", None, None, None, None),
        ("142", 5, 9, 5, 4),
    ]
    changes = ({"event_type": kind, "length_old": old, "length_new": new} for kind, old, new, _, _ in lengths)
    rows = _cleaned(spark, *changes)
    assert [(row["length_old"], row["length_delta"]) for row in rows] == [(old, delta) for *_, old, delta in lengths]
    assert not any(row["is_large_deletion"] or row["is_large_addition"] for row in rows)


def test_user_kinds_bots_and_anonymity(spark: SparkSession) -> None:
    users = [
        ("Ada", False, "registered", False),
        ("192.0.2.1", False, "ip4", True),
        ("2001:DB8:0:0:0:0:0:1", False, "ip6", True),
        ("~2026-12345-67", False, "temporary", True),
        ("TeaBot", True, "bot", False),
        ("192.0.2.1", True, "bot", False),
        ("Ada", None, "registered", False),
        (None, False, None, False),
        (" \x00", None, None, False),
    ]
    rows = _cleaned(spark, *({"user": user, "is_bot": flag} for user, flag, _, _ in users))
    assert [(row["user_kind"], row["is_anonymous"]) for row in rows] == [
        (kind, anonymous) for *_, kind, anonymous in users
    ]
    assert [row["is_bot"] for row in rows] == [bool(flag) for _, flag, _, _ in users]
    assert [row["is_valid"] for row in rows] == [True] * 7 + [False] * 2


def test_row_rules_quarantine_with_their_reasons(spark: SparkSession) -> None:
    first_day = datetime(2001, 1, 15, tzinfo=UTC)
    table: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"user": None}, "missing_user"),
        ({"user": "\u202e"}, "missing_user"),
        ({"title": None}, "missing_title"),
        ({"title": None, "event_type": "log"}, None),
        ({"event_type": "flow"}, "unknown_event_type"),
        ({"event_type": None}, "unknown_event_type"),
        ({"event_type": "142"}, None),
        ({"length_old": -1}, "negative_length"),
        ({"length_new": -1}, "negative_length"),
        ({"length_old": 0, "length_new": 0}, None),
        ({"event_timestamp": first_day}, None),
        ({"event_timestamp": first_day.replace(day=14, hour=23)}, "before_wikipedia"),
        ({"user": None, "length_new": -5, "event_type": "x"}, "missing_user,unknown_event_type,negative_length"),
    ]
    rows = [bronze_row(event_id=f"e{number}", rc_id=number, **change) for number, (change, _) in enumerate(table)]
    assert _reasons(spark, *rows) == [(number, reason) for number, (_, reason) in enumerate(table)]
    single = {reason for _, reason in table if reason and "," not in reason}
    assert single == {rule.name for rule in ROW_RULES}


def test_the_first_row_of_an_event_id_wins(spark: SparkSession) -> None:
    rows = [
        bronze_row(rc_id=1, event_id="a", kafka_partition=1, kafka_offset=9),
        bronze_row(rc_id=2, event_id="a", kafka_partition=1, kafka_offset=10),
        bronze_row(rc_id=3, event_id="a", kafka_partition=0, kafka_offset=2**33),
        bronze_row(rc_id=4, event_id="b", kafka_partition=0, kafka_offset=1),
        bronze_row(rc_id=5, event_id="c", kafka_partition=2, kafka_offset=0, user=None),
        bronze_row(rc_id=6, event_id="c", kafka_partition=2, kafka_offset=1),
    ]
    duplicate = "duplicate_event_id"
    expected = [(1, duplicate), (2, duplicate), (3, None), (4, None), (5, "missing_user"), (6, duplicate)]
    assert _reasons(spark, *rows) == expected
    assert _reasons(spark, *reversed(rows)) == expected


def test_what_silver_holds_already_is_a_duplicate(spark: SparkSession) -> None:
    rows = [
        bronze_row(rc_id=1, event_id="a", kafka_offset=0),
        bronze_row(rc_id=2, event_id="a", kafka_offset=1),
        bronze_row(rc_id=3, event_id="b", kafka_offset=2),
    ]
    existing = spark.createDataFrame([("a", 1), ("z", 2)], "event_id string, other int")
    duplicate = "duplicate_event_id"
    assert _reasons(spark, *rows, existing_ids=existing) == [(1, duplicate), (2, duplicate), (3, None)]
    assert _reasons(spark, *rows, existing_ids=existing.limit(0)) == [(1, None), (2, duplicate), (3, None)]


def test_rejected_rows_are_told_apart_and_none_of_them_is_the_first_of_its_id(spark: SparkSession) -> None:
    rows = [
        bronze_row(rc_id=1, event_id="a", kafka_offset=1, user="192.0.2.1", comment="spam"),
        bronze_row(rc_id=2, event_id="b", kafka_offset=2, user="Ada"),
        bronze_row(rc_id=3, event_id="c", kafka_offset=3, user=None, comment="spam"),
        bronze_row(rc_id=4, event_id="a", kafka_offset=4, user="Bo"),
        bronze_row(rc_id=5, event_id="a", kafka_offset=5, user="Cy"),
    ]
    spam = sf.when(sf.col("comment") == "spam", sf.lit("d1"))
    marked = cleaned_events.split(
        bronze_frame(spark, *rows).withColumn(REJECTED_BY, spam),
        processed_at=PROCESSED_AT,
        rejections=[Rejection("d3", "user_kind = 'ip4'")],
    )
    assert {row["rc_id"]: row["failed_rules"] for row in marked.collect()} == {
        1: "duplicate_event_id,rejected:d1,rejected:d3",
        2: None,
        3: "missing_user,rejected:d1",
        4: None,
        5: "duplicate_event_id",
    }


def test_of_rows_at_one_place_one_is_kept_where_they_may_occur(spark: SparkSession) -> None:
    twice = [bronze_row(rc_id=1, event_id="a", kafka_offset=1), bronze_row(rc_id=2, event_id="b", kafka_offset=1)] * 2
    marked = cleaned_events.split(bronze_frame(spark, *twice), processed_at=PROCESSED_AT, copies=True)
    found = sorted((row["event_id"], row["failed_rules"] or "") for row in marked.collect())
    assert found == [("a", ""), ("a", "duplicate_event_id"), ("b", ""), ("b", "duplicate_event_id")]


def test_good_and_quarantined_hold_every_row_once(spark: SparkSession) -> None:
    users = ["Ada", None, "Bo", " ", "Cy"]
    rows = [
        bronze_row(event_id=f"e{number % 4}", kafka_offset=number, rc_id=number, user=user)
        for number, user in enumerate(users)
    ]
    marked = cleaned_events.split(bronze_frame(spark, *rows), processed_at=PROCESSED_AT)
    good = collected(marks.good(marked, CLEANED_EVENTS))
    bad = collected(marks.set_aside(marked, QUARANTINE, quarantine_processed_at=PROCESSED_AT))
    assert sorted(row["rc_id"] for row in good) == [0, 2]
    assert sorted((row["rc_id"], row["failed_rules"]) for row in bad) == [
        (1, "missing_user"),
        (3, "missing_user"),
        (4, "duplicate_event_id"),
    ]
    assert {row["quarantine_processed_at"] for row in bad} == {PROCESSED_AT}


def test_wide_rows_are_not_shuffled(spark: SparkSession) -> None:
    """The only exchange by hash is that of the narrow frame that looks for repeated ids."""
    marked = cleaned_events.split(bronze_frame(spark, bronze_row()), processed_at=PROCESSED_AT)
    plan = marked._jdf.queryExecution().sparkPlan().toString()
    joins = [line for line in plan.splitlines() if "Join" in line]
    assert len(joins) == 1
    assert "BroadcastHashJoin" in joins[0]
