"""The pipeline as ``make demo`` runs it, without Dagster around it: server, producer, Kafka, Spark, Iceberg."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from producer.eventstreams import capture
from producer.launch import run_producer, source_from
from wikistream_assets.embedded.home import user_key
from wikistream_assets.engine import bronze_gate, ingest, publication
from wikistream_assets.engine.context import GateReport
from wikistream_assets.engine.ingest import DrainReport
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, QUARANTINE, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests import oracle
from wikistream_assets_tests.contexts import job_in

Row = dict[str, Any]


class Pipeline:
    """The pipeline of a home, which is made if it is not there, on the suite's broker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ctx = job_in(settings)
        self.lake = self.ctx.lake

    def ingest(self, path: Path) -> dict[str, Any]:
        """Feed a capture through the project's server and producer into Kafka; returns the producer's report."""
        return run_producer(source_from(str(path), self.settings), self.settings)

    def drain(self) -> DrainReport:
        return ingest.drain(self.ctx)

    def cycle(self) -> list[GateReport]:
        self.drain()
        return [bronze_gate.run(self.ctx), *(publication.run(self.ctx, each) for each in EDITS.publications)]

    def rows(self, spec: TableSpec) -> list[Row]:
        """The table as PyIceberg reads it."""
        rows: list[Row] = self.lake.table(spec).scan().to_arrow().to_pylist()
        return rows

    def assert_tables_follow_from(self, lines: Iterable[str], domains: frozenset[str]) -> None:
        """Every row of Bronze, Silver and Gold equals the plain recomputation from the events, and the rest is in quarantine."""
        bronze = oracle.bronze_rows(lines, domains)
        cleaned = oracle.silver_rows(bronze)
        expected = oracle.Gold(cleaned, user_key(self.settings), self.settings.allowed_lateness_hours)
        oracle.assert_same_rows(self.rows(RAW_EVENTS), bronze, RAW_EVENTS.key)
        oracle.assert_same_rows(self.rows(CLEANED_EVENTS), cleaned, CLEANED_EVENTS.key)
        assert sorted(row["event_id"] for row in self.rows(QUARANTINE)) == sorted(oracle.quarantined_ids(bronze))
        for spec in GOLD_TABLES:
            oracle.assert_same_rows(self.rows(spec), getattr(expected, spec.name)(), spec.key)


def capture_lines(path: Path) -> list[str]:
    """The events of a capture of either format, as text."""
    return [frame.data.decode() for frame in capture.read(path)]
