"""What the three gates share: which rows a check looks at, and how one attempt is recorded."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from pyiceberg.expressions import In
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log
from wikistream_assets.engine.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_of
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_range, read_table
from wikistream_assets.lake.state import TableState
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import MIN_RATIO_ROWS, CheckOutcome
from wikistream_assets.streams.declaration import Hour, Parity
from wikistream_assets.tables.audit_rows import GateContext
from wikistream_assets.tables.spec import TableSpec


@dataclass(frozen=True)
class AuditedTable:
    """One table's audit: its verdicts and its profile."""

    spec: TableSpec
    outcomes: tuple[CheckOutcome, ...]
    profile: tuple[ColumnProfile, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One attempt at a publication.

    Attributes:
        branch: where it builds; its own.
        bases: the snapshots that the branches are made at: main's heads when it was decided what to build.
        gate: how it is recorded.
    """

    branch: str
    bases: Mapping[TableSpec, int]
    gate: GateContext


def ratio_range(state: TableState, covered: SnapshotRange) -> SnapshotRange:
    """``covered`` and as many audited snapshots before it as give a ratio check enough rows.

    Read from the snapshots' own row counts; no data is touched.
    """
    rows = 0
    start = covered.end
    past_start = False
    for version in state.history(covered.end):
        start = version.snapshot_id
        past_start = past_start or start == covered.start
        if past_start and rows >= MIN_RATIO_ROWS:
            break
        rows += version.added_records
    return SnapshotRange(start, covered.end)


def rows_for_ratios(ctx: JobContext, spec: TableSpec, covered: SnapshotRange, rows: DataFrame) -> DataFrame:
    """The rows for ratio checks: ``rows``, those of the range, and earlier ones if these are not enough."""
    widened = ratio_range(ctx.lake.state(spec), covered)
    if widened == covered:
        return rows
    return _with_earlier(rows, read_range(ctx.spark, spec, widened.start, covered.start))


def _with_earlier(rows: DataFrame, earlier: DataFrame) -> DataFrame:
    # An earlier version may be older than a column.
    return rows.unionByName(earlier, allowMissingColumns=True)


def rows_by_hour(rows: DataFrame) -> Counter[Hour]:
    """Number of rows by (event date, hour of event_timestamp); as small as the number of hours."""
    counted = rows.groupBy("event_date", sf.hour("event_timestamp").alias("hour")).count().collect()
    return Counter({(row["event_date"], row["hour"]): row["count"] for row in counted})


def dates_of(hours: Collection[Hour]) -> list[str]:
    """The dates of ``hours``, in order. A null is its own breach, and names no partition."""
    return sorted({day for day, _ in hours if day is not None})


def rows_that_may_repeat(
    ctx: JobContext, spec: TableSpec, covered: SnapshotRange, rows: DataFrame, hours: Collection[Hour]
) -> DataFrame:
    """The rows among which a repetition is looked for: ``rows``, those of the range, and what stood before in ``hours``."""
    before = rows_before(ctx.spark, ctx.lake, spec, covered, hours)
    if before is None:
        return rows
    # Repetitions that someone has decided on stay in the table. Only a new row may breach the check again.
    for columns in {decision.repeated_columns for decision in decisions_of(ctx.lake, spec)} - {()}:
        before = before.dropDuplicates(list(columns))
    return _with_earlier(rows, before)


def rows_before(
    spark: SparkSession, lake: Lakehouse, spec: TableSpec, covered: SnapshotRange, hours: Collection[Hour]
) -> DataFrame | None:
    """What stood before the range in the partitions of ``hours``; None if nothing did, which the manifests tell."""
    dates = dates_of(hours)
    on_dates = In("event_date", dates)  # type: ignore[call-arg]  # mypy misreads PyIceberg's expressions
    before = lake.table(spec).scan(row_filter=on_dates, snapshot_id=covered.start)
    if not dates or next(iter(before.plan_files()), None) is None:
        return None
    rows = read_table(spark, spec, covered.start).where(sf.col("event_date").isin(dates))
    if "event_hour" not in spec.partition_by:
        return rows
    by_date = {day: [hour for date, hour in hours if date == day] for day in dates}
    touched = [(sf.col("event_date") == day) & sf.col("event_hour").isin(of_day) for day, of_day in by_date.items()]
    return rows.where(reduce(or_, touched))


def begin_attempt(
    ctx: JobContext, layer: str, covered: SnapshotRange, *, unfinished: bool, dates: Sequence[str] = ()
) -> GateContext:
    """Number the attempt at ``covered`` and note its time.

    Args:
        unfinished: whether an earlier attempt at the range was left before its publication, killed or blocked.
        dates: of a recomputation, the dates it computes anew.
    """
    return GateContext(
        run_id=ctx.run_id,
        stream=ctx.stream.name,
        layer=layer,
        range_start=covered.start,
        range_end=covered.end,
        attempt=audit_log.attempt_number(ctx.lake, ctx.stream, layer, covered.end, unfinished=unfinished),
        ran_at=datetime.now(UTC),
        dates=tuple(dates),
    )


def record(ctx: JobContext, attempt: GateContext, audited: Sequence[AuditedTable]) -> tuple[CheckOutcome, ...]:
    """Write the attempt's verdicts and profiles to the audit trail; returns all verdicts."""
    outcomes = tuple(outcome for table in audited for outcome in table.outcomes)
    audit_log.write(ctx.lake, attempt, outcomes, [(table.spec, table.profile) for table in audited])
    return outcomes


def already_published(ctx: JobContext, layer: str, tables: Sequence[TableSpec], covered: SnapshotRange) -> GateReport:
    """The report of a run that found nothing new: the verdicts on what is published, as recorded."""
    return GateReport(layer, covered, audit_log.stored_outcomes(ctx.lake, ctx.stream, layer, tables, covered.end))


def differences(expected: Counter[str], found: Counter[str]) -> dict[str, int]:
    """Where ``found`` is not ``expected``: the name -> too many (+) or missing (-)."""
    names = sorted(expected.keys() | found.keys())
    return {name: found[name] - expected[name] for name in names if found[name] != expected[name]}


def judge(parity: Parity, decision: str | None) -> CheckOutcome:
    """The verdict on a parity; ``decision`` is the one that accepts its breach."""
    expected, wrong = parity.expected, differences(parity.expected, parity.found)
    failed = sum(abs(difference) for difference in wrong.values())
    return computed(
        parity.table.rule(parity.rule),
        parity.table.identifier,
        metric=1 - failed / max(expected.total(), failed, 1),
        ok=failed == 0,
        message=f"too many (+) or missing (-): {wrong}" if failed else f"{expected.total()} add up",
        evidence={"differences": wrong},
        records_checked=expected.total(),
        records_failed=failed,
        keys=tuple(wrong),
        decision=decision,
    )
