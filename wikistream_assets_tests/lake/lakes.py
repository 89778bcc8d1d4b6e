"""Small lakes written by PyIceberg, for tests of everything that reads: no Spark, no broker."""

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.state import CONTRACTS_KEY, summary_properties
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import GOLD_TABLES
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec

AT = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)

SAMPLE: Mapping[str, Any] = {
    "string": "a",
    "int": 1,
    "long": 2,
    "double": 0.1,
    "boolean": True,
    "timestamp": AT,
}
"""A value of each contract type."""

AUDIT_BRANCH: Final = "audit_test"
"""As an attempt would call it."""


def arrow(lake: Lakehouse, spec: TableSpec, *rows: Mapping[str, Any]) -> pa.Table:
    """Rows as the table stores them; columns that a row does not name are null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=lake.table(spec).schema().as_arrow())


def forget_contracts(lake: Lakehouse) -> None:
    """As another version of WikiStream leaves the lake: the next one to open it looks at each table."""
    lake.catalog.update_namespace_properties(QUALITY_RESULTS.namespace, removals={CONTRACTS_KEY})


def add(lake: Lakehouse, spec: TableSpec, *rows: Mapping[str, Any], position: Mapping[str, Any] | None = None) -> int:
    """Append rows in one snapshot, which carries the position if one is given; its id."""
    lake.append(spec, arrow(lake, spec, *rows), summary_properties(position, {}) if position is not None else None)
    head = lake.state(spec).head()
    assert head is not None
    return head.snapshot_id


def set_clock_back(lake: Lakehouse, spec: TableSpec, seconds: float) -> None:
    """Leave the table as if the clock had been set back since its newest commit, which is so far ahead of it now.

    By a new metadata file, as a commit would: a process that has read the present one does not read it a second time.
    """
    path, ahead = Path(local_path(lake.table(spec).metadata_location)), int((time.time() + seconds) * 1000)
    content = json.loads(path.read_text())
    content["last-updated-ms"] = ahead
    for newest in (content["snapshots"][-1], content["snapshot-log"][-1]):
        newest["timestamp-ms"] = ahead
    later = path.with_name(f"{path.name.partition('-')[0]}-{uuid4()}.metadata.json")
    later.write_text(json.dumps(content))
    with (
        closing(sqlite3.connect(lake.catalog.properties["uri"].removeprefix("sqlite:///"), uri=True)) as catalog,
        catalog,
    ):
        moved = catalog.execute(
            "update iceberg_tables set metadata_location = replace(metadata_location, ?, ?)"
            " where table_namespace = ? and table_name = ?",
            (path.name, later.name, spec.namespace, spec.name),
        )
        assert moved.rowcount == 1


def full_row(spec: TableSpec, **values: Any) -> dict[str, Any]:
    """A row with a value in every column; of the audit trail, one about the edits."""
    of_edits = {column.name: EDITS.name for column in spec.columns if column.name == "stream"}
    return {column.name: SAMPLE[column.type] for column in spec.columns} | of_edits | values


def publish_gold(
    lake: Lakehouse, silver_snapshot: int, domain: str, tables: tuple[TableSpec, ...] = GOLD_TABLES
) -> None:
    """Give each of ``tables`` one more row (``domain`` marks it) and the position, as a publication does."""
    position = {"silver.cleaned_events": silver_snapshot}
    for spec in tables:
        marks = {name: domain for name in ("domain", "entity_id") if name in spec.column_names}
        date = {spec.partition_by[0]: "2024-03-01"}
        add(lake, spec, full_row(spec, **date, **marks), position=position)
