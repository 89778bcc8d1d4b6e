"""The Bronze gate: audits the snapshots no gate has seen, and tags the last one. The tag is the only permission Silver has.

Bronze is append-only and visible as it arrives; what the gate withholds is the ``audited`` tag. The range under audit is
pinned by the tag ``auditing`` until it passes, so that a failed range is not healed by newer, better data.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from wikistream_assets.engine import gate
from wikistream_assets.engine.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_on, waived_checks
from wikistream_assets.engine.failpoints import GATE_AFTER_PUBLISH, GATE_AFTER_RESULTS, failpoint
from wikistream_assets.engine.rejections import read_marked
from wikistream_assets.lake.failures import in_one_line
from wikistream_assets.lake.state import AUDITED_TAG, States
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.profile import profile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.streams.declaration import RAW_LAYER, Stream
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.marks import REJECTED_BY

LAYER: Final = RAW_LAYER
AUDITING_TAG: Final = "auditing"


def pending_range(states: States, raw: TableSpec) -> SnapshotRange:
    """The snapshots of the raw table to audit next: a range that has failed before, else all since the last audited one."""
    bronze = states[raw]
    audited, pinned = bronze.head(AUDITED_TAG), bronze.head(AUDITING_TAG)
    if pinned is None or pinned == audited:  # a gate killed between its verdict and the end leaves its mark behind
        # Not the head: compaction after the newest position adds nothing that a gate would have to see.
        pinned = bronze.newest_position()
    start = audited.snapshot_id if audited else bronze.first
    return SnapshotRange(start, pinned.snapshot_id if pinned else start)


def gate_lease(stream: Stream) -> str:
    """The name under which the stream's Bronze gate is held."""
    return stream.lease("bronze_gate")


@in_one_line
def run(ctx: JobContext) -> GateReport:
    """Audit the pending range of Bronze; tag its end if nothing blocks.

    Raises:
        WriterBusyError: another gate is at work on this lake.
    """
    raw = ctx.stream.raw
    with ctx.leases.hold(gate_lease(ctx.stream)):
        covered = pending_range(ctx.lake.look(), raw)
        if covered.empty:
            return gate.already_published(ctx, LAYER, [raw], covered)
        pinned = ctx.lake.state(raw).head(AUDITING_TAG)
        unfinished = pinned is not None and pinned.snapshot_id == covered.end
        ctx.lake.tag(raw, AUDITING_TAG, covered.end)
        attempt = gate.begin_attempt(ctx, LAYER, covered, unfinished=unfinished)
        outcomes = gate.record(ctx, attempt, [_audit(ctx, covered)])
        failpoint(ctx.settings, GATE_AFTER_RESULTS)
        report = GateReport(LAYER, covered, outcomes)
        if not report.passed:
            return report
        ctx.lake.tag(raw, AUDITED_TAG, covered.end)
        failpoint(ctx.settings, GATE_AFTER_PUBLISH)
        ctx.lake.drop_ref(raw, AUDITING_TAG)
        return GateReport(LAYER, covered, outcomes, advanced=True)


def _audit(ctx: JobContext, covered: SnapshotRange) -> gate.AuditedTable:
    raw, on_nothing = ctx.stream.raw, ctx.stream.ingest.on_nothing
    decisions = decisions_on(ctx.lake, raw, covered)
    # What a decision rejects goes to quarantine when Silver reads the range.
    rows = read_marked(ctx.spark, ctx.lake, raw, covered, decisions).where(f"{REJECTED_BY} is null").drop(REJECTED_BY)
    waived = waived_checks(decisions)
    measured = evaluate(
        ctx.spark,
        rows,
        raw.rules,
        table=raw.identifier,
        key_columns=raw.key,
        waived=waived,
        ratio_df=gate.rows_for_ratios(ctx, raw, covered, rows),
        unique_df=gate.rows_that_may_repeat(ctx, raw, covered, rows, gate.rows_by_hour(rows)),
    )
    outcomes = (*(_explained(outcome, on_nothing) for outcome in measured), _parity(ctx, covered, waived))
    return gate.AuditedTable(raw, outcomes, tuple(profile(rows, raw.profiled)))


def _explained(outcome: CheckOutcome, on_nothing: Mapping[str, str]) -> CheckOutcome:
    said = on_nothing.get(outcome.rule.name)
    return replace(outcome, message=said) if said and outcome.records_checked == 0 else outcome


def _parity(ctx: JobContext, covered: SnapshotRange, waived: dict[str, str]) -> CheckOutcome:
    """Records read = rows + dead letters + duplicates, and rows = what Iceberg counts, over the table's whole life."""
    raw, parity = ctx.stream.raw, ctx.stream.ingest.parity
    version = next(ctx.lake.state(raw).history(covered.end))
    counted = ctx.lake.state(raw).newest_position(covered.end)
    total: dict[str, int] = counted.counts["total"] if counted and counted.counts else {}
    read, rows = total.get("records", 0), total.get("rows", 0)
    dead, doubled = total.get("dead_letters", 0), total.get("duplicates", 0)
    missing = abs(read - rows - dead - doubled) + abs(rows - version.total_records)
    return computed(
        raw.rule(parity),
        raw.identifier,
        metric=1 - missing / max(read, version.total_records, 1),
        ok=missing == 0,
        message=f"{read} records read = {rows} rows + {dead} dead letters + {doubled} duplicates;"
        f" the table holds {version.total_records} rows",
        evidence={**total, "table_rows": version.total_records},
        records_checked=read,
        records_failed=missing,
        decision=waived.get(parity),
    )
