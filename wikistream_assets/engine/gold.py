"""Silver to Gold: recompute the dates that new Silver rows touch, audit all four tables on branches, then publish them.

All four branches pass before the first is published, and each carries the Silver snapshot it was made from. A publication that
was cut in half is rolled forward at the next start, before anything else.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from typing import Any, Final

from pyiceberg.expressions import In
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, gate
from wikistream_assets.engine.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_on, waived_checks
from wikistream_assets.engine.failpoints import (
    GOLD_AFTER_BRANCHES,
    GOLD_AFTER_FIRST_PUBLISH,
    GOLD_AFTER_PUBLISH,
    GOLD_AFTER_RESULTS,
    failpoint,
)
from wikistream_assets.engine.silver import consumed
from wikistream_assets.exceptions import BranchOutdatedError, GateError
from wikistream_assets.lake.failures import in_one_line
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import among, overwrite_rows, read_range, read_table
from wikistream_assets.lake.state import AUDIT_BRANCH, States, TableState, Version, summary_properties
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.rule import CheckOutcome, Rule, Status
from wikistream_assets.quality.shapes import UPSTREAM_GATES_PASSED
from wikistream_assets.streams.edits.classes import classes
from wikistream_assets.streams.edits.gold import daily_analytics_summary, entity_trends, hourly_stats, risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.gold.bursts import dates_after, dates_before
from wikistream_assets.streams.edits.rules.gold import PARITY_HOURLY_DAILY, PARITY_SILVER_GOLD
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DAILY_ANALYTICS_SUMMARY,
    ENTITY_TRENDS,
    GOLD_TABLES,
    HOURLY_STATS,
    RISK_SCORES,
)
from wikistream_assets.streams.edits.users import pseudonym, without_addresses
from wikistream_assets.tables.spec import TableSpec

LAYER: Final = "gold"


@dataclass(frozen=True)
class Position:
    """What a Gold version was made from, as kept in ``wikistream.position``.

    Attributes:
        silver: Silver snapshot id.
        watermark: newest event time in Silver up to that snapshot; None before the first event.
        open_dates: dates whose rows are not final yet; they are computed again when the watermark moves.
        recomputed: the run that computed some dates anew from the same Silver; it tells its publication from the one before.
    """

    silver: int
    watermark: datetime | None = None
    open_dates: tuple[str, ...] = ()
    recomputed: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            CLEANED_EVENTS.identifier: self.silver,
            "watermark": self.watermark.isoformat() if self.watermark else None,
            "open_dates": list(self.open_dates),
            **({"recomputed": self.recomputed} if self.recomputed else {}),
        }

    @classmethod
    def of(cls, version: Version | None) -> "Position | None":
        if version is None or version.position is None:
            return None
        watermark = version.position["watermark"]
        return cls(
            silver=version.position[CLEANED_EVENTS.identifier],
            watermark=datetime.fromisoformat(watermark) if watermark else None,
            open_dates=tuple(version.position["open_dates"]),
            recomputed=version.position.get("recomputed", ""),
        )


def pending_range(states: States) -> SnapshotRange:
    """The Silver snapshots Gold has not published: a range that has failed before, else all up to Silver's head."""
    silver = states[CLEANED_EVENTS]
    published = Position.of(states[HOURLY_STATS].newest_position())
    start = published.silver if published else silver.first
    if pinned := _pinned_end(states, start):
        return SnapshotRange(start, pinned)
    # Not the head: compaction after the newest position adds nothing that Gold would have to read.
    newest = silver.newest_position()
    return SnapshotRange(start, newest.snapshot_id if newest else start)


def _pinned_end(states: States, start: int) -> int | None:
    """Where the range ends that was begun at ``start`` and not published; None if there is none, or Silver was set back since."""
    # A lake of before there were notes has the branch alone.
    leader = states[HOURLY_STATS]
    attempted = _on_branch(leader)
    pinned = leader.pinned_end(start) or (attempted.silver if attempted else start)
    on_main = any(version.snapshot_id == pinned for version in states[CLEANED_EVENTS].history())
    return pinned if pinned != start and on_main else None


def _unfinished(states: States, covered: SnapshotRange) -> bool:
    """Whether an attempt at the range, or at a recomputation of it, was left before its publication."""
    leader = states[HOURLY_STATS]
    if not covered.empty:
        return leader.pinned_end(covered.start) == covered.end
    attempted, published = _on_branch(leader), Position.of(leader.newest_position())
    return attempted is not None and attempted.silver == covered.end and attempted != published


def _on_branch(state: TableState) -> Position | None:
    return Position.of(state.newest_position(AUDIT_BRANCH)) if AUDIT_BRANCH in state.refs else None


@in_one_line
def run(ctx: JobContext) -> GateReport:
    """Recompute, audit and publish what the pending Silver range touches.

    Raises:
        WriterBusyError: another Gold run is at work on this lake.
    """
    with ctx.leases.only_run(ctx.spark, LAYER), ctx.leases.main_of(LAYER):
        roll_forward(ctx.lake)
        covered = pending_range(ctx.lake.look())
        if covered.empty:
            return gate.already_published(ctx, LAYER, GOLD_TABLES, covered)
        position, dates = _scope(ctx, covered)
        return _attempts(ctx, covered, position, dates)


@in_one_line
def recompute(ctx: JobContext, dates: Sequence[str]) -> GateReport:
    """Compute dates anew from the Silver that Gold stands for, audit and publish them; all other dates stay as they are.

    Args:
        dates: yyyy-MM-dd; a date without events ends without rows.

    Raises:
        WriterBusyError: another Gold run is at work on this lake.
        GateError: Gold has published nothing yet, or a failed range waits for a decision.
    """
    with ctx.leases.only_run(ctx.spark, LAYER), ctx.leases.main_of(LAYER):
        roll_forward(ctx.lake)
        published = Position.of(ctx.lake.state(HOURLY_STATS).newest_position())
        if published is None:
            raise GateError("Gold has published nothing yet: run the cycle first")
        if _pinned_end(ctx.lake.look(), published.silver):
            raise GateError(
                "Gold is blocked by a failed range, whose evidence this would replace: see 'wikistream gate status', decide first"
            )
        position = replace(published, recomputed=ctx.run_id)
        return _attempts(ctx, SnapshotRange(published.silver, published.silver), position, sorted(dates))


def roll_forward(lake: Lakehouse) -> None:
    """Finish a publication that was cut in half: tables behind the newest published position have it ready on their branch."""
    states = lake.look()
    published = {spec: Position.of(states[spec].newest_position()) for spec in GOLD_TABLES}
    # The first table in GOLD_TABLES is always published first, so it has the newest position.
    newest = published[GOLD_TABLES[0]]
    for spec in GOLD_TABLES[1:]:
        if published[spec] != newest and _on_branch(states[spec]) == newest:
            lake.publish(spec)


def _attempts(ctx: JobContext, covered: SnapshotRange, position: Position, dates: list[str]) -> GateReport:
    try:
        return _attempt(ctx, covered, position, dates)
    except BranchOutdatedError:
        # Main has moved since the branch was made: build it once more on the new head.
        return _attempt(ctx, covered, position, dates)


def _attempt(ctx: JobContext, covered: SnapshotRange, position: Position, dates: list[str]) -> GateReport:
    # The cycle's dates follow from its range; those of a recomputation, which has none, were asked for.
    asked = dates if covered.empty else ()
    attempt = gate.begin_attempt(ctx, LAYER, covered, unfinished=_unfinished(ctx.lake.look(), covered), dates=asked)
    if not covered.empty:
        ctx.lake.pin_range(HOURLY_STATS, covered.start, covered.end)  # as Silver does
    for spec in GOLD_TABLES:
        ctx.lake.fresh_branch(spec)
    silver_hours = _build(ctx, position, dates, attempt.ran_at)
    failpoint(ctx.settings, GOLD_AFTER_BRANCHES)
    outcomes = gate.record(ctx, attempt, _audit(ctx, covered, dates, silver_hours))
    failpoint(ctx.settings, GOLD_AFTER_RESULTS)
    report = GateReport(LAYER, covered, outcomes)
    if not report.passed:
        return report
    for spec in GOLD_TABLES:
        ctx.lake.publish(spec)
        if spec is GOLD_TABLES[0]:
            failpoint(ctx.settings, GOLD_AFTER_FIRST_PUBLISH)
    failpoint(ctx.settings, GOLD_AFTER_PUBLISH)
    return GateReport(LAYER, covered, outcomes, advanced=True)


def _scope(ctx: JobContext, covered: SnapshotRange) -> tuple[Position, list[str]]:
    """The dates to compute (touched by new rows, read again after them, or still open) and the position the result stands for."""
    before = Position.of(ctx.lake.state(HOURLY_STATS).newest_position()) or Position(covered.start)
    touched = (
        read_range(ctx.spark, CLEANED_EVENTS, covered.start, covered.end)
        .where("event_date is not null")  # a breach of Silver, and no day of Gold's
        .groupBy("event_date")
        .agg(sf.unix_micros(sf.max("event_timestamp")).alias("newest"))
        .collect()
    )
    newest = [datetime.fromtimestamp(row["newest"] / 1e6, UTC) for row in touched]
    watermark = max([*newest, *([before.watermark] if before.watermark else [])], default=None)
    new = {row["event_date"] for row in touched}
    dates = sorted(new | _read_again(ctx.lake, covered.end, new) | set(before.open_dates))
    still_open = tuple(day for day in dates if not _closed(day, watermark, ctx.settings.allowed_lateness_hours))
    return Position(covered.end, watermark, still_open), dates


def _closed(day: str, watermark: datetime | None, allowed_lateness_hours: int) -> bool:
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), wall_time(), UTC)
    return watermark is not None and end + timedelta(hours=allowed_lateness_hours) <= watermark


def _build(ctx: JobContext, position: Position, dates: list[str], ran_at: datetime) -> Counter[gate.Hour]:
    """Compute the four tables for ``dates`` and write each to its audit branch; without dates, the position alone.

    Returns:
        Silver rows by date and hour: what the parity check expects Gold to add up to.
    """
    properties = summary_properties(
        position.as_json(), {"batch": {"dates": len(dates)}}, ctx.criteria, run_id=ctx.run_id
    )
    if not dates:  # a range of dead letters or quarantined rows: there is nothing to compute
        for spec in GOLD_TABLES:
            ctx.lake.append(spec, properties=properties, branch=AUDIT_BRANCH)
        return Counter()
    silver, event_date = read_table(ctx.spark, CLEANED_EVENTS, position.silver), sf.col("event_date")
    # Classed once more: Silver's rows keep the classes of their time, and a row of Gold must not mix two sets of criteria.
    rows = silver.where(event_date.isin(dates)).withColumns(
        classes(sf.col("domain"), sf.col("length_delta"), ctx.criteria)
    )
    hourly = activity(rows, silver.where(event_date.isin(sorted(dates_before(dates)))))
    shared = [frame.persist() for frame in (hourly.users, hourly.pages, hourly.entities)]
    timing: dict[str, Any] = {
        # Dates to recompute may be asked for before the first event: no row looks at the value then.
        "watermark": position.watermark or ran_at,
        "allowed_lateness_hours": ctx.settings.allowed_lateness_hours,
        "processed_at": ran_at,
        "criteria": ctx.criteria,
    }
    try:
        scores = risk_scores.compute(hourly, **timing, user_key=ctx.user_key).persist()
        computed_tables = {
            HOURLY_STATS: hourly_stats.compute(hourly, **timing),
            RISK_SCORES: scores,
            ENTITY_TRENDS: entity_trends.compute(hourly, **timing, user_key=ctx.user_key),
            DAILY_ANALYTICS_SUMMARY: daily_analytics_summary.compute(hourly, scores, **timing),
        }
        for spec, rows_of_table in computed_tables.items():
            overwrite_rows(rows_of_table, spec, _date_column(spec).isin(dates), properties, AUDIT_BRANCH)
        scores.unpersist()
    finally:
        for frame in shared:
            frame.unpersist()
    return gate.rows_by_hour(rows)


def _read_again(lake: Lakehouse, silver: int, touched: Collection[str]) -> set[str]:
    """The dates with events whose baselines read ``touched`` dates: late events change what is usual afterwards."""
    later = dates_after(touched)
    scan = lake.table(CLEANED_EVENTS).scan(snapshot_id=silver, row_filter=In("event_date", later))  # type: ignore[call-arg]
    return {task.file.partition[0] for task in scan.plan_files()}


def _date_column(spec: TableSpec) -> Column:
    """The column that says to which date a row belongs: the first partition column of every Gold table."""
    return sf.col(spec.partition_by[0])


def _audit(
    ctx: JobContext, covered: SnapshotRange, dates: list[str], silver_hours: Counter[gate.Hour]
) -> list[gate.AuditedTable]:
    candidates = {
        # a row without a date belongs to none of them, and must not be passed over for that
        spec: read_table(ctx.spark, spec, ctx.lake.state(spec).head_id(AUDIT_BRANCH)).where(
            among(_date_column(spec), dates) | _date_column(spec).isNull()
        )
        for spec in GOLD_TABLES
    }
    waived = {spec: waived_checks(decisions_on(ctx.lake, spec, covered)) for spec in GOLD_TABLES}
    hours = _sums_by_hour(candidates[HOURLY_STATS])
    own = {
        HOURLY_STATS: _hourly_parity(silver_hours, hours, waived[HOURLY_STATS]),
        DAILY_ANALYTICS_SUMMARY: _daily_parity(candidates, hours, waived[DAILY_ANALYTICS_SUMMARY]),
    }
    unaudited = _unaudited_upstream(ctx.lake, covered)
    audited = []
    for spec, rows in candidates.items():
        measured = evaluate(
            ctx.spark,
            rows,
            spec.rules_under(ctx.criteria),
            table=spec.identifier,
            key_columns=spec.key,
            key=_hidden_key(spec, ctx.user_key),
            waived=waived[spec],
        )
        outcomes = [_upstream(spec, unaudited, waived[spec]), *measured, *([own[spec]] if spec in own else [])]
        audited.append(gate.AuditedTable(spec, tuple(outcomes)))
    return audited


def _hidden_key(spec: TableSpec, user_key: bytes) -> Column:
    """The key of a row that breaks a rule, without IP addresses: the very rule may be that one was not hidden."""
    parts = [sf.col(name).cast("string") for name in spec.key if name != "entity_id"]
    if "entity_id" in spec.key:
        parts.append(without_addresses(pseudonym(sf.col("entity_id"), user_key), user_key))
    return sf.concat_ws("/", *parts)


def _unaudited_upstream(lake: Lakehouse, covered: SnapshotRange) -> list[str]:
    """Upstream ranges behind the Silver range that have no recorded verdict, or a blocking one."""
    versions = lake.state(CLEANED_EVENTS).between(covered.start, covered.end)
    sources = {source for version in versions if (source := consumed(version)) is not None}
    found = []
    for source in sorted(sources):
        for layer in ("bronze", "silver"):
            verdicts = audit_log.last_attempt_up_to(lake, layer, source)
            if not verdicts or any(Status(verdict["status"]).blocks for verdict in verdicts):
                found.append(f"{layer} gate up to Bronze snapshot {source}")
    return found


def _upstream(spec: TableSpec, unaudited: list[str], waived: dict[str, str]) -> CheckOutcome:
    return computed(
        spec.rule(UPSTREAM_GATES_PASSED),
        spec.identifier,
        metric=0.0 if unaudited else 1.0,
        ok=not unaudited,
        message=f"not passed: {'; '.join(unaudited)}" if unaudited else "the Bronze and Silver gates have passed",
        evidence={"not_passed": unaudited},
        keys=unaudited,
        decision=waived.get(UPSTREAM_GATES_PASSED),
    )


def _sums_by_hour(hourly: DataFrame) -> Counter[gate.Hour]:
    sums = hourly.groupBy("stat_date", "stat_hour").agg(sf.sum("total_events").alias("events")).collect()
    return Counter({(row["stat_date"], row["stat_hour"]): row["events"] or 0 for row in sums})


def _hourly_parity(silver: Counter[gate.Hour], gold: Counter[gate.Hour], waived: dict[str, str]) -> CheckOutcome:
    rule, decision = HOURLY_STATS.rule(PARITY_SILVER_GOLD), waived.get(PARITY_SILVER_GOLD)
    return _parity(rule, HOURLY_STATS, silver.total(), gate.differences(silver, gold), decision)


def _daily_parity(
    candidates: dict[TableSpec, DataFrame], hours: Counter[gate.Hour], waived: dict[str, str]
) -> CheckOutcome:
    expected: Counter[str] = Counter()
    for (day, _), events in hours.items():
        expected[f"{day} events"] += events
    scored = candidates[RISK_SCORES].groupBy("stat_date", "risk_level").count().collect()
    expected.update({f"{row['stat_date']} {row['risk_level']}": row["count"] for row in scored})
    found: Counter[str] = Counter()
    for row in candidates[DAILY_ANALYTICS_SUMMARY].collect():
        found[f"{row['summary_date']} events"] += row["total_events"] or 0
        for level in risk_scores.LEVELS:
            found[f"{row['summary_date']} {level}"] += row[f"{level.lower()}_risk_user_count"] or 0
    differences = {
        name: found[name] - expected[name]
        for name in sorted(expected.keys() | found.keys())
        if found[name] != expected[name]
    }
    return _parity(
        DAILY_ANALYTICS_SUMMARY.rule(PARITY_HOURLY_DAILY),
        DAILY_ANALYTICS_SUMMARY,
        expected.total(),
        differences,
        waived.get(PARITY_HOURLY_DAILY),
    )


def _parity(
    rule: Rule, spec: TableSpec, expected: int, differences: dict[str, int], decision: str | None
) -> CheckOutcome:
    failed = sum(abs(difference) for difference in differences.values())
    return computed(
        rule,
        spec.identifier,
        metric=1 - failed / max(expected, failed, 1),
        ok=failed == 0,
        message=f"too many (+) or missing (-): {differences}" if failed else f"{expected} add up",
        evidence={"differences": differences},
        records_checked=expected,
        records_failed=failed,
        keys=tuple(differences),
        decision=decision,
    )
