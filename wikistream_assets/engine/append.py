"""A publication that appends: new rows are split into good ones and those for the quarantine, and add up to what was read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, gate
from wikistream_assets.engine.context import JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_on, decisions_within, waived_checks
from wikistream_assets.engine.event_hours import completed_hours, judge_hours
from wikistream_assets.engine.quarantine_budget import (
    RangeBudget,
    judge_budget,
    of_hours,
    range_budget,
    reasons_by_hour,
)
from wikistream_assets.engine.rejections import read_marked
from wikistream_assets.lake.spark_io import among, append_rows, read_range, read_table
from wikistream_assets.lake.state import Version, summary_properties
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.drift import drift_outcomes, earlier_counts
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.profile import category_counts, profile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.quality.shapes import DRIFT_CATEGORIES
from wikistream_assets.streams.declaration import Append, Hour, Publication
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.instants import by_name
from wikistream_assets.transforms.marks import Rejection, good, set_aside


@dataclass(frozen=True)
class _Built:
    """What the branches of an attempt were built from.

    Attributes:
        hours: upstream rows of the range by date and hour: what the parity check expects to find again.
        budget: what of it went to quarantine.
        complete: the event hours that the range completes.
    """

    hours: Counter[Hour]
    budget: RangeBudget
    complete: tuple[datetime, ...]


class Appending:
    """Builds and audits one range, as ``publication.Builder``."""

    def __init__(self, ctx: JobContext, publication: Publication, build: Append, covered: SnapshotRange) -> None:
        self._ctx, self._covered, self._append = ctx, covered, build
        self._upstream, (self._spec, self._quarantine) = publication.upstream, publication.tables

    def build(self, attempt: gate.Attempt) -> None:
        """Write the range's good rows to the branch of the first table and the others to that of the quarantine."""
        ctx, lake, covered = self._ctx, self._ctx.lake, self._covered
        upstream_decisions = decisions_within(lake, self._upstream, covered)
        decisions = decisions_on(lake, self._spec, covered)
        rows = read_marked(ctx.spark, lake, self._upstream, covered, upstream_decisions)
        hours = gate.rows_by_hour(rows)
        on_dates = among(sf.col("event_date"), gate.dates_of(hours))
        marked = self._append.split(
            rows,
            processed_at=attempt.gate.ran_at,
            criteria=ctx.criteria,
            rejections=[
                Rejection(decision.decision_id, decision.condition)
                for decision in decisions
                if decision.action == "reject"
            ],
            # Rows that repeat each other in all that Kafka says have passed the gate only if someone has accepted them.
            copies=any(decision.action == "accept" and decision.repeated_columns for decision in upstream_decisions),
            existing_ids=read_table(ctx.spark, self._spec, attempt.bases[self._spec])
            .where(on_dates)
            .select("event_id"),
        ).persist()
        try:
            before = {spec: lake.state(spec).newest_position(base) for spec, base in attempt.bases.items()}
            reasons = reasons_by_hour(marked)
            bad = reasons.total()
            budget = range_budget(
                before[self._quarantine],
                hours,
                reasons,
                self._append.accepted_with,
                waived_checks(upstream_decisions),
                waived_checks(decisions),
            )
            arrived = hours - of_hours(reasons)
            complete, still_open = completed_hours(before[self._spec], arrived)
            aside = set_aside(marked, self._quarantine, **{self._append.set_aside: attempt.gate.ran_at})
            passed, branch = good(marked, self._spec), attempt.branch
            self._write(self._spec, passed, hours.total() - bad, branch, before[self._spec], still_open)
            self._write(self._quarantine, aside, bad, branch, before[self._quarantine], budget.carried)
        finally:
            marked.unpersist()
        self._built = _Built(hours, budget, complete)

    def _write(
        self,
        spec: TableSpec,
        rows: DataFrame,
        number: int,
        branch: str,
        before: Version | None,
        carried: Mapping[str, Any],
    ) -> None:
        total = before.counts["total"]["rows"] if before and before.counts else 0
        counts = {"batch": {"rows": number}, "total": {"rows": total + number}, **carried}
        position = {self._upstream.identifier: self._covered.end}
        summary = summary_properties(position, counts, self._ctx.criteria, run_id=self._ctx.run_id, attempt=branch)
        if number:
            # In as few tasks as their size wants: as they come, each file of the upstream table would make one in each partition.
            append_rows(rows.hint("rebalance"), spec, summary, branch)
        else:
            self._ctx.lake.append(spec, properties=summary, branch=branch)

    def audit(self, attempt: gate.Attempt) -> list[gate.AuditedTable]:
        """As ``publication.Builder``."""
        ctx, lake, spec = self._ctx, self._ctx.lake, self._spec
        written, aside = self._on(spec, attempt), self._on(self._quarantine, attempt)
        rows = read_range(ctx.spark, spec, written.start, written.end)
        quarantined = read_range(ctx.spark, self._quarantine, aside.start, aside.end)
        waived = waived_checks(decisions_on(lake, spec, self._covered))
        measured = evaluate(
            ctx.spark,
            rows,
            spec.rules_under(ctx.criteria),
            table=spec.identifier,
            key_columns=spec.key,
            waived=waived,
            ratio_df=gate.rows_for_ratios(ctx, spec, written, rows),
            unique_df=gate.rows_that_may_repeat(ctx, spec, written, rows, self._built.hours),
        )
        columns, compared = tuple(profile(rows, spec.profiled)), spec.having("drift")
        drifted = drift_outcomes(
            spec.rules,
            spec.identifier,
            columns,
            category_counts(rows, [column.name for column in compared if column.type == "string"]),
            [column.name for column in compared if column.type != "string"],
            earlier_profiles=audit_log.baseline(lake, spec, attempt.gate),
            earlier_categories=earlier_counts(audit_log.earlier_evidence(lake, spec, DRIFT_CATEGORIES, attempt.gate)),
        )
        found = gate.rows_by_hour(rows) + gate.rows_by_hour(quarantined)
        parity = self._parity(found, attempt.branch, waived.get(self._append.parity))
        budget = judge_budget(spec, self._built.budget, self._quarantine, quarantined, waived)
        whole = read_table(ctx.spark, spec, written.end)
        expected, counted = judge_hours(lake, spec, whole, self._built.complete)
        outcomes = (*measured, *drifted, parity, *budget, *expected)
        return [gate.AuditedTable(spec, outcomes, (*columns, *counted))]

    def _on(self, spec: TableSpec, attempt: gate.Attempt) -> SnapshotRange:
        """What the attempt has written to a table."""
        return SnapshotRange(attempt.bases[spec], self._ctx.lake.state(spec).head_id(attempt.branch))

    def _parity(self, found: Counter[Hour], branch: str, decision: str | None) -> CheckOutcome:
        """Upstream = table + quarantine: hour by hour in the range, and in total over the tables' whole life."""
        lake, spec = self._ctx.lake, self._spec
        differences = gate.differences(by_name(self._built.hours), by_name(found))
        expected = next(lake.state(self._upstream).history(self._covered.end)).total_records
        rows, quarantined = (
            version.total_records if (version := lake.state(each).head(branch)) else 0
            for each in (spec, self._quarantine)
        )
        failed = sum(abs(difference) for difference in differences.values()) or abs(expected - rows - quarantined)
        return computed(
            spec.rule(self._append.parity),
            spec.identifier,
            metric=1 - failed / max(expected, 1),
            ok=failed == 0,
            message=f"{expected} Bronze rows, {rows} Silver + {quarantined} quarantined"
            + (f"; rows too many (+) or missing (-) by hour: {differences}" if differences else ""),
            evidence={"bronze": expected, "silver": rows, "quarantine": quarantined, "hours": differences},
            records_checked=expected,
            records_failed=failed,
            keys=tuple(differences),
            decision=decision,
        )
