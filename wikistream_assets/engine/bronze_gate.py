"""The Bronze gate: audits the snapshots no gate has seen, and tags the last one. The tag is the only permission Silver has.

Bronze is append-only and visible as it arrives; what the gate withholds is the ``audited`` tag. The range under audit is
pinned by the tag ``auditing`` until it passes, so that a failed range is not healed by newer, better data.
"""

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
from wikistream_assets.streams.edits.cleaned_events import REJECTED_BY
from wikistream_assets.streams.edits.rules.bronze import EVENT_TIMELINESS, PARITY_KAFKA_BRONZE
from wikistream_assets.streams.edits.tables import RAW_EVENTS

LAYER: Final = "bronze"
AUDITING_TAG: Final = "auditing"


def pending_range(states: States) -> SnapshotRange:
    """The Bronze snapshots to audit next: a range that has failed before, else everything since the last audited one."""
    bronze = states[RAW_EVENTS]
    audited, pinned = bronze.head(AUDITED_TAG), bronze.head(AUDITING_TAG)
    if pinned is None or pinned == audited:  # a gate killed between its verdict and the end leaves its mark behind
        # Not the head: compaction after the newest position adds nothing that a gate would have to see.
        pinned = bronze.newest_position()
    start = audited.snapshot_id if audited else bronze.first
    return SnapshotRange(start, pinned.snapshot_id if pinned else start)


@in_one_line
def run(ctx: JobContext) -> GateReport:
    """Audit the pending range of Bronze; tag its end if nothing blocks.

    Raises:
        WriterBusyError: another gate is at work on this lake.
    """
    with ctx.leases.hold("bronze_gate"):
        covered = pending_range(ctx.lake.look())
        if covered.empty:
            return gate.already_published(ctx, LAYER, [RAW_EVENTS], covered)
        pinned = ctx.lake.state(RAW_EVENTS).head(AUDITING_TAG)
        unfinished = pinned is not None and pinned.snapshot_id == covered.end
        ctx.lake.tag(RAW_EVENTS, AUDITING_TAG, covered.end)
        attempt = gate.begin_attempt(ctx, LAYER, covered, unfinished=unfinished)
        outcomes = gate.record(ctx, attempt, [_audit(ctx, covered)])
        failpoint(ctx.settings, GATE_AFTER_RESULTS)
        report = GateReport(LAYER, covered, outcomes)
        if not report.passed:
            return report
        ctx.lake.tag(RAW_EVENTS, AUDITED_TAG, covered.end)
        failpoint(ctx.settings, GATE_AFTER_PUBLISH)
        ctx.lake.drop_ref(RAW_EVENTS, AUDITING_TAG)
        return GateReport(LAYER, covered, outcomes, advanced=True)


def _audit(ctx: JobContext, covered: SnapshotRange) -> gate.AuditedTable:
    decisions = decisions_on(ctx.lake, RAW_EVENTS, covered)
    # What a decision rejects goes to quarantine when Silver reads the range.
    rows = read_marked(ctx.spark, ctx.lake, covered, decisions).where(f"{REJECTED_BY} is null").drop(REJECTED_BY)
    waived = waived_checks(decisions)
    measured = evaluate(
        ctx.spark,
        rows,
        RAW_EVENTS.rules,
        table=RAW_EVENTS.identifier,
        key_columns=RAW_EVENTS.key,
        waived=waived,
        ratio_df=gate.rows_for_ratios(ctx, RAW_EVENTS, covered, rows),
        unique_df=gate.rows_that_may_repeat(ctx, RAW_EVENTS, covered, rows, gate.rows_by_hour(rows)),
    )
    outcomes = (*(_explained(outcome) for outcome in measured), _parity(ctx, covered, waived))
    return gate.AuditedTable(RAW_EVENTS, outcomes, tuple(profile(rows, RAW_EVENTS.profiled)))


def _explained(outcome: CheckOutcome) -> CheckOutcome:
    if outcome.rule.name == EVENT_TIMELINESS and outcome.records_checked == 0:
        return replace(
            outcome, message="no live event in the range: replayed and synthetic events are old by nature and not timed"
        )
    return outcome


def _parity(ctx: JobContext, covered: SnapshotRange, waived: dict[str, str]) -> CheckOutcome:
    """Records read = rows + dead letters + duplicates, and rows = what Iceberg counts, over the table's whole life."""
    version = next(ctx.lake.state(RAW_EVENTS).history(covered.end))
    counted = ctx.lake.state(RAW_EVENTS).newest_position(covered.end)
    total: dict[str, int] = counted.counts["total"] if counted and counted.counts else {}
    read, rows = total.get("records", 0), total.get("rows", 0)
    dead, doubled = total.get("dead_letters", 0), total.get("duplicates", 0)
    missing = abs(read - rows - dead - doubled) + abs(rows - version.total_records)
    return computed(
        RAW_EVENTS.rule(PARITY_KAFKA_BRONZE),
        RAW_EVENTS.identifier,
        metric=1 - missing / max(read, version.total_records, 1),
        ok=missing == 0,
        message=f"{read} records read = {rows} rows + {dead} dead letters + {doubled} duplicates;"
        f" the table holds {version.total_records} rows",
        evidence={**total, "table_rows": version.total_records},
        records_checked=read,
        records_failed=missing,
        decision=waived.get(PARITY_KAFKA_BRONZE),
    )
