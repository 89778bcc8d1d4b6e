"""DataFrames of a contract's shape from plain rows, and plain rows from DataFrames."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec

PROCESSED_AT = datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)
BRONZE_PROCESSED_AT = datetime(2026, 2, 3, 4, 0, 0, tzinfo=UTC)
USER_KEY = bytes.fromhex("00112233445566778899aabbccddeeff")

_ARROW_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def ddl(spec: TableSpec) -> str:
    """The contract's schema as Spark writes it in one line."""
    return ", ".join(f"`{column.name}` {column.type}" for column in spec.columns)


def frame(spark: SparkSession, spec: TableSpec, rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """A DataFrame of the contract's columns; what a row does not name is null."""
    return spark.createDataFrame([tuple(row.get(name) for name in spec.column_names) for row in rows], ddl(spec))


def parquet_frame(spark: SparkSession, spec: TableSpec, rows: Iterable[Mapping[str, Any]], path: Path) -> DataFrame:
    """The same, by way of a Parquet file at ``path``: for many rows, and planned like a table."""
    schema = pa.schema([(column.name, _ARROW_TYPES[column.type]) for column in spec.columns])
    full = [{name: row.get(name) for name in spec.column_names} for row in rows]
    pq.write_table(pa.Table.from_pylist(full, schema=schema), path)
    return spark.read.parquet(str(path))


def placed(rows: Iterable[Mapping[str, Any]], partitions: int = 3) -> list[dict[str, Any]]:
    """Bronze rows with Kafka's places: partition by event id, offsets in order."""
    next_offset = [0] * partitions
    result = []
    for row in rows:
        partition = sum(row["event_id"].encode()) % partitions
        place = {"kafka_topic": "raw-events", "kafka_partition": partition, "kafka_offset": next_offset[partition]}
        next_offset[partition] += 1
        result.append({**row, **place, "bronze_processed_at": BRONZE_PROCESSED_AT, "source_mode": "replay"})
    return result


def bronze_row(**fields: Any) -> dict[str, Any]:
    """A Bronze row of a good edit, with ``fields`` in place of its own."""
    happened = fields.get("event_timestamp") or datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
    return {
        "event_id": "e1",
        "kafka_topic": "raw-events",
        "kafka_partition": 0,
        "kafka_offset": 0,
        "rc_id": 1,
        "event_type": "edit",
        "namespace": 0,
        "domain": "en.wikipedia.org",
        "title": "Tea",
        "user": "Ada",
        "is_bot": False,
        "length_old": 100,
        "length_new": 150,
        "revision_old": 1,
        "revision_new": 2,
        "event_timestamp": happened,
        "bronze_processed_at": BRONZE_PROCESSED_AT,
        "event_date": f"{happened:%Y-%m-%d}",
        "event_hour": happened.hour,
        "schema_version": "/mediawiki/recentchange/1.0.1",
        **fields,
    }


def silver_row(**fields: Any) -> dict[str, Any]:
    """A Silver row of a good edit, with ``fields`` in place of its own; the classification is the caller's business."""
    happened = fields.get("event_timestamp") or datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
    return {
        "event_type": "edit",
        "domain": "en.wikipedia.org",
        "region": "americas",
        "language": "en",
        "title": "Tea",
        "namespace": 0,
        "user_normalized": "Ada",
        "user_kind": "registered",
        "is_bot": False,
        "is_anonymous": False,
        "length_delta": 10,
        "is_valid": True,
        "is_large_deletion": False,
        "is_large_addition": False,
        "event_timestamp": happened,
        "event_date": f"{happened:%Y-%m-%d}",
        **fields,
    }


def collected(rows: DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts; timestamps aware, in UTC."""
    return [
        # Spark hands timestamps over as naive local time.
        {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.asDict().items()}
        for row in rows.collect()
    ]


def bronze_frame(spark: SparkSession, *rows: Mapping[str, Any]) -> DataFrame:
    """A Bronze DataFrame of a few rows."""
    return frame(spark, RAW_EVENTS, rows)


def silver_frame(spark: SparkSession, rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """A Silver DataFrame of a few rows."""
    return frame(spark, CLEANED_EVENTS, rows)
