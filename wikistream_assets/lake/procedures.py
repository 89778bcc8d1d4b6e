"""Iceberg's own maintenance, called in the JVM: what only moves bytes and references, never a row.

Each function is one commit at most, which Iceberg tries again by itself when another commit came first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pyspark.sql import Row, SparkSession

from wikistream_assets.lake.lakehouse import CATALOG_NAME
from wikistream_assets.lake.spark_io import table_name
from wikistream_assets.tables.spec import TableSpec


def compact(
    spark: SparkSession, spec: TableSpec, condition: str, *, target_file_bytes: int, min_input_files: int
) -> tuple[int, int]:
    """Rewrite the small files of the partitions that meet ``condition``, in one ``replace`` snapshot.

    Args:
        condition: over partition columns, in SQL with double-quoted strings.
        target_file_bytes: the size files are packed to.
        min_input_files: a partition with fewer small files is left alone.

    Returns:
        Files that were rewritten, and files that hold their rows now.
    """
    options = {"target-file-size-bytes": target_file_bytes, "min-input-files": min_input_files}
    done = _call(
        spark, "rewrite_data_files", spec, f"where => '{condition}'", f"options => map({_pairs(options)})"
    ).asDict()
    return done["rewritten_data_files_count"], done["added_data_files_count"]


def rewrite_manifests(spark: SparkSession, spec: TableSpec) -> None:
    """Bring the entries of many small manifests together by partition."""
    _call(spark, "rewrite_manifests", spec, "use_caching => false")


def expire(spark: SparkSession, spec: TableSpec, snapshot_ids: Sequence[int]) -> None:
    """Forget exactly these snapshots, and delete the files that no other snapshot needs.

    Not by the procedure of that name: it reads every manifest of the table in Spark jobs, Iceberg's core only those of the
    snapshots that go. Exact ids, because an age or a count is judged against a head that moves meanwhile.
    """
    jvm: Any = spark.sparkContext._jvm
    # The table is looked up in the JVM's active session, which may be another lake's.
    jvm.org.apache.spark.sql.SparkSession.setActiveSession(spark._jsparkSession)
    table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, table_name(spec))
    # Older than 1970: without it, Iceberg's default age would expire other snapshots as well.
    expiry = table.expireSnapshots().expireOlderThan(0)
    for snapshot_id in snapshot_ids:
        expiry = expiry.expireSnapshotId(snapshot_id)
    expiry.commit()


def remove_orphans(spark: SparkSession, spec: TableSpec, older_than: datetime, *, dry_run: bool = False) -> list[str]:
    """Delete the files in the table's folder that no snapshot of any branch or tag knows, and return their locations.

    Args:
        older_than: aware; younger files may belong to a commit that is under way. Iceberg refuses less than 24 hours.
        dry_run: only return them.
    """
    instant = older_than.strftime("%Y-%m-%d %H:%M:%S")
    rows = spark.sql(
        _statement("remove_orphan_files", spec, f"older_than => TIMESTAMP '{instant}'", f"dry_run => {dry_run}")
    )
    return [row[0] for row in rows.collect()]


def _call(spark: SparkSession, procedure: str, spec: TableSpec, *arguments: str) -> Row:
    [row] = spark.sql(_statement(procedure, spec, *arguments)).collect()
    return row


def _statement(procedure: str, spec: TableSpec, *arguments: str) -> str:
    given = ", ".join((f"table => '{spec.identifier}'", *arguments))
    return f"CALL {CATALOG_NAME}.system.{procedure}({given})"


def _pairs(options: dict[str, int]) -> str:
    return ", ".join(f"'{name}', '{value}'" for name, value in options.items())
