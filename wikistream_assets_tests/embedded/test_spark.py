"""Spark on the lake: a session per home on one JVM, reading ranges, data and position in one commit."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import append_rows, overwrite_rows, read_range, read_table, table_name
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.lake.lakes import AUDIT_BRANCH, add, full_row
from wikistream_assets_tests.streams.edits.frames import silver_frame, silver_row

pytestmark = pytest.mark.spark


def ids(rows) -> list[str]:  # type: ignore[no-untyped-def]
    return sorted(row["event_id"] for row in rows.select("event_id").collect())


def test_two_homes_on_one_jvm_are_apart(
    spark: SparkSession, lake: Lakehouse, settings_factory: SettingsFactory
) -> None:
    other = settings_factory()
    other_lake = local_lake(other)
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="here"))
    add(other_lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="there"))
    other_spark = local_session(other)
    assert other_spark.sparkContext is spark.sparkContext
    assert local_session(other) is other_spark, "a session of each step would keep its catalog's connections open"
    assert ids(read_table(spark, CLEANED_EVENTS)) == ["here"]
    assert ids(read_table(other_spark, CLEANED_EVENTS)) == ["there"]
    assert ids(read_table(spark, CLEANED_EVENTS)) == ["here"]


def test_data_and_position_are_one_commit_also_on_a_branch(spark: SparkSession, lake: Lakehouse) -> None:
    append_rows(silver_frame(spark, [silver_row(event_id="a")]), CLEANED_EVENTS, {"wikistream.position": '{"p": 1}'})
    first = lake.state(CLEANED_EVENTS).head()
    assert first is not None
    assert (first.position, first.added_records, first.operation) == ({"p": 1}, 1, "append")
    lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
    row = silver_row(event_id="b")
    replaced = sf.col("event_date") == row["event_date"]
    overwrite_rows(
        silver_frame(spark, [row]), CLEANED_EVENTS, replaced, {"wikistream.position": '{"p": 2}'}, AUDIT_BRANCH
    )
    branch = lake.state(CLEANED_EVENTS).head(AUDIT_BRANCH)
    assert branch is not None
    assert (branch.position, branch.total_records) == ({"p": 2}, 1)
    assert ids(read_table(spark, CLEANED_EVENTS)) == ["a"]
    assert ids(spark.table(table_name(CLEANED_EVENTS, AUDIT_BRANCH))) == ["b"]


def test_a_range_holds_what_was_appended_and_passes_over_compaction(spark: SparkSession, lake: Lakehouse) -> None:
    start = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="before"))
    for name in ("a", "b", "c"):
        add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id=name))
    call = "CALL wikistream.system.rewrite_data_files(table => '{}', options => map('min-input-files', '2'))"
    spark.sql(call.format(CLEANED_EVENTS.identifier))
    compacted = lake.state(CLEANED_EVENTS).head()
    assert compacted is not None
    assert compacted.operation == "replace"
    end = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="d"))
    assert ids(read_range(spark, CLEANED_EVENTS, start, end)) == ["a", "b", "c", "d"]
    assert ids(read_range(spark, CLEANED_EVENTS, start, compacted.snapshot_id)) == ["a", "b", "c"]
    assert ids(read_range(spark, CLEANED_EVENTS, end, end)) == []
    assert ids(read_table(spark, CLEANED_EVENTS, start)) == ["before"]
