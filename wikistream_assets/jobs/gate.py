"""What the three gates share: which rows a check looks at, and how one attempt is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from wikistream_assets.jobs import audit_log
from wikistream_assets.jobs.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.quality.audit_rows import GateContext
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import MIN_RATIO_ROWS, CheckOutcome
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.tables import TableSpec


@dataclass(frozen=True)
class AuditedTable:
    """One table's audit: its verdicts and its profile."""

    spec: TableSpec
    outcomes: tuple[CheckOutcome, ...]
    profile: tuple[ColumnProfile, ...] = ()


def first_snapshot(lake: Lakehouse, spec: TableSpec) -> int:
    """The oldest kept snapshot of ``spec``: what the first range starts after. It is empty, made with the table."""
    *_, oldest = lake.history(spec)
    return oldest.snapshot_id


def ratio_range(lake: Lakehouse, spec: TableSpec, covered: SnapshotRange) -> SnapshotRange:
    """``covered`` and as many audited snapshots before it as give a ratio check enough rows.

    Read from the snapshots' own row counts; no data is touched.
    """
    rows = 0
    start = covered.end
    past_start = False
    for version in lake.history(spec, covered.end):
        start = version.snapshot_id
        past_start = past_start or start == covered.start
        if past_start and rows >= MIN_RATIO_ROWS:
            break
        rows += version.added_records
    return SnapshotRange(start, covered.end)


def begin_attempt(ctx: JobContext, layer: str, covered: SnapshotRange) -> GateContext:
    """Number the attempt at ``covered`` and note its time."""
    return GateContext(
        run_id=ctx.run_id,
        layer=layer,
        range_start=covered.start,
        range_end=covered.end,
        attempt=audit_log.attempt_number(ctx.lake, layer, covered.end),
        ran_at=datetime.now(UTC),
    )


def record(ctx: JobContext, attempt: GateContext, audited: Sequence[AuditedTable]) -> tuple[CheckOutcome, ...]:
    """Write the attempt's verdicts and profiles to the audit trail; returns all verdicts."""
    outcomes = tuple(outcome for table in audited for outcome in table.outcomes)
    audit_log.write(ctx.lake, attempt, outcomes, [(table.spec, table.profile) for table in audited])
    return outcomes


def already_published(ctx: JobContext, layer: str, tables: Sequence[TableSpec], covered: SnapshotRange) -> GateReport:
    """The report of a run that found nothing new: the verdicts on what is published, as recorded."""
    return GateReport(layer, covered, audit_log.stored_outcomes(ctx.lake, layer, tables, covered.end))
