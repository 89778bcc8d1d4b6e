"""Reading what only Spark writes: delete files and compaction."""

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import CATALOG_NAME, Lakehouse
from wikistream_assets.lake.query import common_versions, connect, query, relation
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.readers.edits.trace import trace
from wikistream_assets.streams.edits.tables import GOLD_TABLES, RAW_EVENTS, RISK_SCORES
from wikistream_assets_tests.lake.lakes import add, full_row, publish_gold

pytestmark = [
    pytest.mark.spark,
    # A Java object that is collected while one of PyIceberg's threads runs makes py4j open a connection for that thread; py4j
    # leaves it to the collector when the thread ends.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

KEY = b"any"


def compact(spark: SparkSession, identifier: str) -> int:
    """Rewrite all data files into one per partition; how many were rewritten."""
    [result] = spark.sql(
        f"CALL {CATALOG_NAME}.system.rewrite_data_files(table => '{identifier}', options => map('rewrite-all', 'true'))"
    ).collect()
    return int(result["rewritten_data_files_count"])


def test_deleted_rows_are_not_read(spark: SparkSession, lake: Lakehouse) -> None:
    rows = [full_row(RAW_EVENTS, event_id=f"e{i}") for i in range(5)]
    add(lake, RAW_EVENTS, *rows)
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="e5"))
    spark.sql(f"DELETE FROM {CATALOG_NAME}.bronze.raw_events WHERE event_id IN ('e1', 'e3')")
    table = lake.table(RAW_EVENTS)
    assert any(task.delete_files for task in table.scan().plan_files())
    ids = query(lake, "SELECT event_id FROM bronze.raw_events ORDER BY 1")
    assert [row[0] for row in ids.rows] == ["e0", "e2", "e4", "e5"]
    with connect(lake) as connection, pytest.raises(LakeError, match="delete files"):
        relation(connection, RAW_EVENTS, table, table.current_snapshot().snapshot_id, with_file=True)


def test_hash_is_that_of_the_rows_left(spark: SparkSession, lake: Lakehouse, settings_factory) -> None:
    kept, gone = full_row(RAW_EVENTS, event_id="kept"), full_row(RAW_EVENTS, event_id="gone")
    add(lake, RAW_EVENTS, kept, gone)
    spark.sql(f"DELETE FROM {CATALOG_NAME}.bronze.raw_events WHERE event_id = 'gone'")
    other = local_lake(settings_factory())
    add(other, RAW_EVENTS, kept)
    assert table_hashes(lake) == table_hashes(other)


def test_trace_names_the_snapshot_that_added_the_event_not_the_compaction(spark: SparkSession, lake: Lakehouse) -> None:
    first = add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="e1"))
    second = add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="e2"))
    assert compact(spark, "bronze.raw_events") == 2
    third = add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="e3"))
    assert compact(spark, "bronze.raw_events") == 2
    head = lake.state(RAW_EVENTS).head()
    assert head is not None
    assert head.operation == "replace"
    for event_id, snapshot in {"e1": first, "e2": second, "e3": third}.items():
        found = trace(lake, event_id, KEY).bronze
        assert found is not None
        assert found.snapshot_id == snapshot


def test_compaction_changes_neither_hash_nor_golds_common_version(spark: SparkSession, lake: Lakehouse) -> None:
    publish_gold(lake, 1, "first")
    publish_gold(lake, 2, "second")
    before = table_hashes(lake)
    assert compact(spark, "gold.risk_scores") == 2
    head = lake.state(RISK_SCORES).head()
    assert head is not None
    assert head.operation == "replace"
    assert common_versions(lake.look(), GOLD_TABLES)[RISK_SCORES.identifier].snapshot_id == head.snapshot_id
    assert table_hashes(lake) == before
