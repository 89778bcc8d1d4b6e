"""Bronze to Silver: build on a branch what the tag permits, audit it there, publish it, or leave the branch as evidence.

Silver's own position is the truth. The quarantine is written and published first, with the same position; if a run dies in
between, the next one sets the quarantine back to Silver's position and builds both again from the same range.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, gate
from wikistream_assets.engine.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_on, decisions_within, waived_checks
from wikistream_assets.engine.event_hours import completed_hours, judge_hours
from wikistream_assets.engine.failpoints import (
    SILVER_AFTER_BRANCHES,
    SILVER_AFTER_PUBLISH,
    SILVER_AFTER_QUARANTINE,
    SILVER_AFTER_RESULTS,
    failpoint,
)
from wikistream_assets.engine.quarantine_budget import (
    RangeBudget,
    judge_budget,
    of_hours,
    range_budget,
    reasons_by_hour,
)
from wikistream_assets.engine.rejections import read_marked
from wikistream_assets.exceptions import BranchOutdatedError
from wikistream_assets.lake.failures import in_one_line
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import among, append_rows, read_range, read_table
from wikistream_assets.lake.state import AUDIT_BRANCH, AUDITED_TAG, States, Version, summary_properties
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.drift import CATEGORY_COLUMNS, drift_outcomes, earlier_counts
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.profile import category_counts, profile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.quality.shapes import DRIFT_CATEGORIES
from wikistream_assets.streams.edits.cleaned_events import Rejection, good, quarantined, split
from wikistream_assets.streams.edits.rules.silver import PARITY_BRONZE_SILVER
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE, RAW_EVENTS
from wikistream_assets.tables.audit_rows import GateContext
from wikistream_assets.tables.spec import TableSpec

LAYER: Final = "silver"


@dataclass(frozen=True)
class Built:
    """What the branches of an attempt were built from.

    Attributes:
        bronze_hours: rows of the range in Bronze by date and hour: what the parity check expects to find again.
        budget: what of it went to quarantine.
        complete: the event hours that the range completes in Silver.
    """

    bronze_hours: Counter[gate.Hour]
    budget: RangeBudget
    complete: tuple[datetime, ...]


def consumed(version: Version | None) -> int | None:
    """The Bronze snapshot up to which a Silver or quarantine version was made, or None if it was made from none."""
    return version.position[RAW_EVENTS.identifier] if version and version.position else None


def pending_range(states: States) -> SnapshotRange:
    """The audited Bronze snapshots that Silver has not published: a range that has failed before, else all up to the tag."""
    bronze, silver = states[RAW_EVENTS], states[CLEANED_EVENTS]
    start = consumed(silver.newest_position()) or bronze.first
    # A lake of before there were notes has the branch alone.
    on_branch = silver.newest_position(AUDIT_BRANCH) if AUDIT_BRANCH in silver.refs else None
    pinned = silver.pinned_end(start) or consumed(on_branch)
    if pinned and pinned != start:
        return SnapshotRange(start, pinned)
    return SnapshotRange(start, bronze.refs.get(AUDITED_TAG, start))


@in_one_line
def run(ctx: JobContext) -> GateReport:
    """Build, audit and publish the pending range.

    Raises:
        WriterBusyError: another Silver run is at work on this lake.
    """
    with ctx.leases.only_run(ctx.spark, LAYER), ctx.leases.main_of(LAYER):
        covered = pending_range(ctx.lake.look())
        _align_quarantine(ctx.lake)
        if covered.empty:
            return gate.already_published(ctx, LAYER, [CLEANED_EVENTS], covered)
        try:
            return _attempt(ctx, covered)
        except BranchOutdatedError:
            # Main has moved since the branch was made: build it once more on the new head.
            _align_quarantine(ctx.lake)
            return _attempt(ctx, covered)


def _align_quarantine(lake: Lakehouse) -> None:
    """Set the quarantine's main back to Silver's position, if an earlier attempt published the quarantine only."""
    position = consumed(lake.state(CLEANED_EVENTS).newest_position())
    if consumed(lake.state(QUARANTINE).newest_position()) == position:
        return
    same = next(
        version
        for version in lake.state(QUARANTINE).history()
        if version.parent_id is None or (position is not None and consumed(version) == position)
    )
    lake.reset_main(QUARANTINE, same.snapshot_id)


def _attempt(ctx: JobContext, covered: SnapshotRange) -> GateReport:
    unfinished = ctx.lake.state(CLEANED_EVENTS).pinned_end(covered.start) == covered.end
    attempt = gate.begin_attempt(ctx, LAYER, covered, unfinished=unfinished)
    # Not the branch alone: killed before the new one is written, a failed range would be forgotten with the old one, and grow.
    ctx.lake.pin_range(CLEANED_EVENTS, covered.start, covered.end)
    for spec in (QUARANTINE, CLEANED_EVENTS):
        ctx.lake.fresh_branch(spec)
    built = _build(ctx, covered, attempt.ran_at)
    failpoint(ctx.settings, SILVER_AFTER_BRANCHES)
    outcomes = gate.record(ctx, attempt, [_audit(ctx, covered, attempt, built)])
    failpoint(ctx.settings, SILVER_AFTER_RESULTS)
    report = GateReport(LAYER, covered, outcomes)
    if not report.passed:
        return report
    ctx.lake.publish(QUARANTINE)
    failpoint(ctx.settings, SILVER_AFTER_QUARANTINE)
    ctx.lake.publish(CLEANED_EVENTS)
    failpoint(ctx.settings, SILVER_AFTER_PUBLISH)
    return GateReport(LAYER, covered, outcomes, advanced=True)


def _build(ctx: JobContext, covered: SnapshotRange, ran_at: datetime) -> Built:
    """Write the range's good rows to Silver's audit branch and the others to the quarantine's."""
    in_bronze = decisions_within(ctx.lake, covered)
    in_silver = decisions_on(ctx.lake, CLEANED_EVENTS, covered)
    bronze = read_marked(ctx.spark, ctx.lake, covered, in_bronze)
    hours = gate.rows_by_hour(bronze)
    on_dates = among(sf.col("event_date"), gate.dates_of(hours))
    marked = split(
        bronze,
        processed_at=ran_at,
        criteria=ctx.criteria,
        rejections=[
            Rejection(decision.decision_id, decision.condition) for decision in in_silver if decision.action == "reject"
        ],
        # Rows that repeat each other in all that Kafka says have passed the Bronze gate only if someone has accepted them.
        copies=any(decision.action == "accept" and decision.repeated_columns for decision in in_bronze),
        existing_ids=read_table(ctx.spark, CLEANED_EVENTS).where(on_dates).select("event_id"),
    ).persist()
    try:
        set_aside = reasons_by_hour(marked)
        bad = set_aside.total()
        position = {RAW_EVENTS.identifier: covered.end}
        budget = range_budget(ctx.lake, hours, set_aside, waived_checks(in_bronze), waived_checks(in_silver))
        summary = _summary(ctx, QUARANTINE, position, bad, **budget.carried)
        if bad:
            append_rows(_gathered(quarantined(marked, processed_at=ran_at)), QUARANTINE, summary, AUDIT_BRANCH)
        else:
            ctx.lake.append(QUARANTINE, properties=summary, branch=AUDIT_BRANCH)
        complete, still_open = completed_hours(ctx.lake, hours - of_hours(set_aside))
        summary = _summary(ctx, CLEANED_EVENTS, position, hours.total() - bad, **still_open)
        append_rows(_gathered(good(marked)), CLEANED_EVENTS, summary, AUDIT_BRANCH)
    finally:
        marked.unpersist()
    return Built(hours, budget, complete)


def _gathered(rows: DataFrame) -> DataFrame:
    """The rows in as few tasks as their size wants: as they come, each file of Bronze would make one in each partition."""
    return rows.hint("rebalance")


def _summary(ctx: JobContext, spec: TableSpec, position: dict[str, int], rows: int, **more: Any) -> dict[str, str]:
    before = ctx.lake.state(spec).newest_position()
    total = before.counts["total"]["rows"] if before and before.counts else 0
    counts = {"batch": {"rows": rows}, "total": {"rows": total + rows}, **more}
    return summary_properties(position, counts, ctx.criteria, run_id=ctx.run_id)


def _audit(ctx: JobContext, covered: SnapshotRange, attempt: GateContext, built: Built) -> gate.AuditedTable:
    lake = ctx.lake
    written = SnapshotRange(lake.state(CLEANED_EVENTS).head_id(), lake.state(CLEANED_EVENTS).head_id(AUDIT_BRANCH))
    rows = read_range(ctx.spark, CLEANED_EVENTS, written.start, written.end)
    waived = waived_checks(decisions_on(lake, CLEANED_EVENTS, covered))
    measured = evaluate(
        ctx.spark,
        rows,
        CLEANED_EVENTS.rules_under(ctx.criteria),
        table=CLEANED_EVENTS.identifier,
        key_columns=CLEANED_EVENTS.key,
        waived=waived,
        ratio_df=gate.rows_for_ratios(ctx, CLEANED_EVENTS, written, rows),
        unique_df=gate.rows_that_may_repeat(ctx, CLEANED_EVENTS, written, rows, built.bronze_hours),
    )
    columns = tuple(profile(rows, CLEANED_EVENTS.profiled))
    drifted = drift_outcomes(
        CLEANED_EVENTS.rules,
        CLEANED_EVENTS.identifier,
        columns,
        category_counts(rows, CATEGORY_COLUMNS),
        earlier_profiles=audit_log.baseline(lake, CLEANED_EVENTS, attempt),
        earlier_categories=earlier_counts(audit_log.earlier_evidence(lake, CLEANED_EVENTS, DRIFT_CATEGORIES, attempt)),
    )
    set_aside = SnapshotRange(lake.state(QUARANTINE).head_id(), lake.state(QUARANTINE).head_id(AUDIT_BRANCH))
    found = gate.rows_by_hour(rows) + gate.rows_by_hour(
        read_range(ctx.spark, QUARANTINE, set_aside.start, set_aside.end)
    )
    parity = _parity(ctx, covered, built.bronze_hours, found, waived.get(PARITY_BRONZE_SILVER))
    budget = judge_budget(ctx, built.budget, set_aside, waived)
    expected, counted = judge_hours(ctx, built.complete)
    outcomes = (*measured, *drifted, parity, *budget, *expected)
    return gate.AuditedTable(CLEANED_EVENTS, outcomes, (*columns, *counted))


def _parity(
    ctx: JobContext, covered: SnapshotRange, bronze: Counter[gate.Hour], found: Counter[gate.Hour], decision: str | None
) -> CheckOutcome:
    """Bronze = Silver + quarantine: hour by hour in the range, and in total over the tables' whole life."""
    lake = ctx.lake
    differences = gate.differences(bronze, found)
    expected = next(lake.state(RAW_EVENTS).history(covered.end)).total_records
    silver, quarantine = (
        version.total_records if (version := lake.state(spec).head(AUDIT_BRANCH)) else 0
        for spec in (CLEANED_EVENTS, QUARANTINE)
    )
    failed = sum(abs(difference) for difference in differences.values()) or abs(expected - silver - quarantine)
    return computed(
        CLEANED_EVENTS.rule(PARITY_BRONZE_SILVER),
        CLEANED_EVENTS.identifier,
        metric=1 - failed / max(expected, 1),
        ok=failed == 0,
        message=f"{expected} Bronze rows, {silver} Silver + {quarantine} quarantined"
        + (f"; rows too many (+) or missing (-) by hour: {differences}" if differences else ""),
        evidence={"bronze": expected, "silver": silver, "quarantine": quarantine, "hours": differences},
        records_checked=expected,
        records_failed=failed,
        keys=tuple(differences),
        decision=decision,
    )
