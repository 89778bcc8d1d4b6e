"""Spark's way to the rows of a table: reading versions and ranges, and writing snapshots that carry their position."""

from collections.abc import Collection, Mapping

from pyspark.sql import Column, DataFrame, DataFrameWriterV2, SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.lake.lakehouse import CATALOG_NAME
from wikistream_assets.tables.spec import TableSpec


def table_name(spec: TableSpec, branch: str | None = None) -> str:
    """The table's name in Spark SQL, optionally of one of its branches."""
    return f"{CATALOG_NAME}.{spec.identifier}" + (f".branch_{branch}" if branch else "")


def read_table(spark: SparkSession, spec: TableSpec, snapshot_id: int | None = None) -> DataFrame:
    """The table's main branch, or the table as of ``snapshot_id``."""
    # Not format("iceberg").load: that looks the catalog up in the JVM's active session, which may be another lake's.
    reader = spark.read if snapshot_id is None else spark.read.option("snapshot-id", snapshot_id)
    return reader.table(table_name(spec))


def read_range(spark: SparkSession, spec: TableSpec, start: int, end: int) -> DataFrame:
    """Rows appended after snapshot ``start`` up to and including snapshot ``end``; compaction in between is passed over."""
    if start == end:
        return read_table(spark, spec, end).limit(0)
    return spark.read.option("start-snapshot-id", start).option("end-snapshot-id", end).table(table_name(spec))


def among(column: Column, values: Collection[str]) -> Column:
    """Whether ``column`` is one of ``values``; false for every row if there are none.

    An ``isin`` without values is no condition to every reader of it: as an overwrite's filter it is an internal error of Spark.
    """
    return column.isin(list(values)) if values else sf.lit(False)


def append_rows(rows: DataFrame, spec: TableSpec, properties: Mapping[str, str], branch: str | None = None) -> None:
    """Append ``rows`` in one snapshot whose summary holds ``properties``: data and position are one commit."""
    _writer(rows, spec, properties, branch).append()


def overwrite_rows(
    rows: DataFrame, spec: TableSpec, condition: Column, properties: Mapping[str, str], branch: str | None = None
) -> None:
    """Replace the rows that meet ``condition`` by ``rows`` in one snapshot whose summary holds ``properties``."""
    _writer(rows, spec, properties, branch).overwrite(condition)


def overwrite_as_read(
    rows: DataFrame, spec: TableSpec, condition: Column, read_at: int, properties: Mapping[str, str]
) -> None:
    """Replace the rows that meet ``condition`` by ``rows``, made from snapshot ``read_at``.

    Refused by Iceberg (ValidationException) if rows that meet the condition were added after ``read_at``: they would be lost.
    """
    writer = _writer(rows, spec, properties, branch=None).option("isolation-level", "serializable")
    writer.option("validate-from-snapshot-id", str(read_at)).overwrite(condition)


def _writer(rows: DataFrame, spec: TableSpec, properties: Mapping[str, str], branch: str | None) -> DataFrameWriterV2:
    writer = rows.writeTo(table_name(spec, branch))
    for key, value in properties.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    return writer
