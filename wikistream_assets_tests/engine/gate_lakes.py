"""A lake whose Bronze rows a test lays down itself, so that a gate can be shown exactly one fault."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from wikistream_assets.engine import bronze_gate, publication
from wikistream_assets.engine.context import GateReport
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.lake.query import query
from wikistream_assets.lake.state import summary_properties
from wikistream_assets.quality.rule import Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.contexts import job_in

Row = dict[str, Any]


class GateLake:
    """The lake of a home, which is made if it is not there; its jobs, and what a test asks of it."""

    def __init__(self, settings: Settings, stream: Stream = EDITS) -> None:
        self.ctx = job_in(settings, stream=stream)
        self.lake = self.ctx.lake

    def add_bronze(self, rows: Sequence[Row], **more_counts: int) -> None:
        """Append rows to Bronze as one micro-batch would: with running totals in the same snapshot."""
        raw = self.ctx.stream.raw
        before = self.lake.state(raw).newest_position()
        total = dict(before.counts["total"]) if before and before.counts else {}
        batch = {"records": len(rows), "rows": len(rows), "dead_letters": 0, "duplicates": 0} | more_counts
        total = {name: total.get(name, 0) + number for name, number in batch.items()}
        schema = self.lake.table(raw).schema().as_arrow()
        position = {"raw-events": {"0": total["records"]}, "dlq-events": {}}
        self.lake.append(
            raw,
            pa.Table.from_pylist([dict(row) for row in rows], schema=schema),
            summary_properties(position, {"batch": batch, "total": total}),
        )

    def bronze_gate(self) -> GateReport:
        return bronze_gate.run(self.ctx)

    def silver(self) -> GateReport:
        return publication.run(self.ctx, self.ctx.stream.publication("silver"))

    def gold(self) -> GateReport:
        return publication.run(self.ctx, self.ctx.stream.publication("gold"))

    def cycle(self) -> list[GateReport]:
        return [self.bronze_gate(), self.silver(), self.gold()]

    def cycle_to_the_end(self) -> None:
        """Cycle until nothing waits; each has to pass. A range that was begun before is taken alone, then what came since."""
        while waiting_layers(self.lake.look(), self.ctx.stream):
            assert all(report.passed for report in self.cycle())

    def mains(self, *specs: TableSpec) -> dict[str, int]:
        """Main's snapshot id of each table."""
        return {spec.identifier: self.lake.state(spec).head().snapshot_id for spec in specs or ALL_TABLES}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a reader of the lake sees."""
        return list(query(self.lake, sql).rows)


def blocking(report: GateReport) -> dict[str, Status]:
    """Check name -> status of what blocks."""
    return {outcome.rule.name: outcome.status for outcome in report.blocking}
