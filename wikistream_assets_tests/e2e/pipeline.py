"""The pipeline as ``make demo`` runs it, without Dagster around it: server, producer, Kafka, Spark, Iceberg."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from producer.eventstreams import capture
from producer.launch import run_producer, source_from
from wikistream_assets.embedded.home import user_key
from wikistream_assets.jobs import bronze_gate, bronze_stream, gold, silver
from wikistream_assets.jobs.bronze_stream import DrainReport
from wikistream_assets.jobs.context import GateReport, JobContext
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.settings import Settings
from wikistream_assets.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS, TableSpec
from wikistream_assets_tests import oracle

Row = dict[str, Any]


class Pipeline:
    """One home's pipeline on the suite's broker."""

    def __init__(self, spark: SparkSession, lake: Lakehouse, settings: Settings) -> None:
        self.lake = lake
        self.settings = settings
        self.ctx = JobContext(spark, lake, settings, run_id="test")

    def ingest(self, path: Path) -> dict[str, Any]:
        """Feed a capture through the project's server and producer into Kafka; returns the producer's report."""
        return run_producer(source_from(str(path), self.settings), self.settings)

    def drain(self) -> DrainReport:
        return bronze_stream.drain(self.ctx.spark, self.lake, self.settings)

    def cycle(self) -> list[GateReport]:
        self.drain()
        return [bronze_gate.run(self.ctx), silver.run(self.ctx), gold.run(self.ctx)]

    def rows(self, spec: TableSpec) -> list[Row]:
        """The table as PyIceberg reads it."""
        rows: list[Row] = self.lake.table(spec).scan().to_arrow().to_pylist()
        return rows

    def assert_tables_follow_from(self, lines: Iterable[str], domains: frozenset[str]) -> None:
        """Every row of Bronze, Silver and Gold equals the plain recomputation from the events."""
        bronze = oracle.bronze_rows(lines, domains)
        cleaned = oracle.silver_rows(bronze)
        expected = oracle.Gold(cleaned, bytes.fromhex(user_key(self.settings)), self.settings.allowed_lateness_hours)
        assert_same_rows(self.rows(RAW_EVENTS), bronze, RAW_EVENTS)
        assert_same_rows(self.rows(CLEANED_EVENTS), cleaned, CLEANED_EVENTS)
        for spec in GOLD_TABLES:
            assert_same_rows(self.rows(spec), getattr(expected, spec.name)(), spec)


def capture_lines(path: Path) -> list[str]:
    """The events of a capture of either format, as text."""
    return [frame.data.decode() for frame in capture.read(path)]


def assert_same_rows(actual: Sequence[Row], expected: Sequence[Row], spec: TableSpec) -> None:
    """The rows agree in every column the oracle computes: floats to 1e-9, ``evidence`` as JSON."""
    found = {tuple(row[name] for name in spec.key): row for row in actual}
    wanted = {tuple(row[name] for name in spec.key): row for row in expected}
    assert len(found) == len(actual), f"{spec.identifier}: a key occurs twice"
    assert found.keys() == wanted.keys(), f"{spec.identifier}: {len(found.keys() ^ wanted.keys())} keys differ"
    for key, row in wanted.items():
        for name, value in row.items():
            assert _same(found[key][name], value), f"{spec.identifier} {key} {name}: {found[key][name]!r} != {value!r}"


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and found is not None:
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(expected, dict):
        return _same_evidence(json.loads(found), expected)
    return bool(found == expected)


def _same_evidence(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        math.isclose(found[name][part], expected[name][part], rel_tol=1e-9)
        for name in expected
        for part in ("value", "points")
    )
