"""A publication that recomputes: the dates that new upstream rows touch are computed again, from all rows of these dates."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from typing import Any

from pyiceberg.expressions import In
from pyspark.sql import Column
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, bronze_gate, gate
from wikistream_assets.engine.context import JobContext, SnapshotRange
from wikistream_assets.engine.decisions import decisions_on, waived_checks
from wikistream_assets.lake.spark_io import among, overwrite_rows, read_range, read_table
from wikistream_assets.lake.state import Version, consumed, summary_properties
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.quality.shapes import UPSTREAM_GATES_PASSED
from wikistream_assets.streams.declaration import Hour, Publication, Recompute
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.pseudonyms import pseudonym, without_addresses


@dataclass(frozen=True)
class Position:
    """What a version was made from, as kept in ``wikistream.position``.

    Attributes:
        source: upstream snapshot id.
        watermark: newest event time upstream up to that snapshot; None before the first event.
        open_dates: dates whose rows are not final yet; they are computed again when the watermark moves.
        recomputed: the run that recomputed some dates from the same source; it tells its publication from the one before.
    """

    source: int
    watermark: datetime | None = None
    open_dates: tuple[str, ...] = ()
    recomputed: str = ""

    def as_json(self, upstream: TableSpec) -> dict[str, Any]:
        return {
            upstream.identifier: self.source,
            "watermark": self.watermark.isoformat() if self.watermark else None,
            "open_dates": list(self.open_dates),
            **({"recomputed": self.recomputed} if self.recomputed else {}),
        }

    @classmethod
    def of(cls, version: Version | None, upstream: TableSpec) -> "Position | None":
        if version is None or version.position is None:
            return None
        watermark = version.position["watermark"]
        return cls(
            source=version.position[upstream.identifier],
            watermark=datetime.fromisoformat(watermark) if watermark else None,
            open_dates=tuple(version.position["open_dates"]),
            recomputed=version.position.get("recomputed", ""),
        )


class Recomputing:
    """Builds and audits one range, as ``publication.Builder``.

    Args:
        asked: dates to compute although nothing new touches them; the range is empty then.
    """

    def __init__(
        self,
        ctx: JobContext,
        publication: Publication,
        build: Recompute,
        covered: SnapshotRange,
        asked: Sequence[str] = (),
    ) -> None:
        self._ctx, self._publication, self._recompute, self._covered = ctx, publication, build, covered
        self._upstream, self._asked = publication.upstream, list(asked)

    def _scope(self, base: int) -> tuple[Position, list[str]]:
        """The position that the result stands for, and the dates to compute: touched, read again after these, or still open."""
        ctx, covered = self._ctx, self._covered
        published = ctx.lake.state(self._publication.leader).newest_position(base)
        before = Position.of(published, self._upstream) or Position(covered.start)
        if covered.empty:
            return replace(before, recomputed=ctx.run_id), self._asked
        touched = (
            read_range(ctx.spark, self._upstream, covered.start, covered.end)
            .where("event_date is not null")  # a breach upstream, and no day here
            .groupBy("event_date")
            .agg(sf.unix_micros(sf.max("event_timestamp")).alias("newest"))
            .collect()
        )
        newest = [datetime.fromtimestamp(row["newest"] / 1e6, UTC) for row in touched]
        watermark = max([*newest, *([before.watermark] if before.watermark else [])], default=None)
        new = {row["event_date"] for row in touched}
        dates = sorted(new | self._read_again(new) | set(before.open_dates))
        still_open = tuple(day for day in dates if not _closed(day, watermark, ctx.settings.allowed_lateness_hours))
        return Position(covered.end, watermark, still_open), dates

    def _read_again(self, touched: Collection[str]) -> set[str]:
        """The dates with events that are computed from ``touched`` dates too: late events change what is usual afterwards."""
        later = In("event_date", self._recompute.read_by(touched))  # type: ignore[call-arg]  # mypy misreads it
        scan = self._ctx.lake.table(self._upstream).scan(snapshot_id=self._covered.end, row_filter=later)
        return {task.file.partition[0] for task in scan.plan_files()}

    def build(self, attempt: gate.Attempt) -> None:
        """Compute the tables for the dates and write each to its branch; without dates, the position alone."""
        ctx, branch = self._ctx, attempt.branch
        position, dates = self._scope(attempt.bases[self._publication.leader])
        counts = {"batch": {"dates": len(dates)}}
        properties = summary_properties(
            position.as_json(self._upstream), counts, ctx.criteria, run_id=ctx.run_id, attempt=branch
        )
        self._dates, self._hours = dates, Counter[Hour]()
        if not dates:  # a range of dead letters or quarantined rows: there is nothing to compute
            for spec in self._publication.tables:
                ctx.lake.append(spec, properties=properties, branch=branch)
            return
        upstream, event_date = read_table(ctx.spark, self._upstream, position.source), sf.col("event_date")
        rows = upstream.where(event_date.isin(dates))
        with self._recompute.compute(
            rows,
            upstream.where(event_date.isin(sorted(self._recompute.reads(dates)))),
            # Dates to recompute may be asked for before the first event: no row looks at the value then.
            watermark=position.watermark or attempt.gate.ran_at,
            allowed_lateness_hours=ctx.settings.allowed_lateness_hours,
            processed_at=attempt.gate.ran_at,
            criteria=ctx.criteria,
            user_key=ctx.user_key,
        ) as tables:
            for spec, computed_rows in tables.items():
                overwrite_rows(computed_rows, spec, _date_column(spec).isin(dates), properties, branch)
        self._hours = gate.rows_by_hour(rows)

    def audit(self, attempt: gate.Attempt) -> list[gate.AuditedTable]:
        """As ``publication.Builder``."""
        ctx = self._ctx
        candidates = {
            # a row without a date belongs to none of them, and must not be passed over for that
            spec: read_table(ctx.spark, spec, ctx.lake.state(spec).head_id(attempt.branch)).where(
                among(_date_column(spec), self._dates) | _date_column(spec).isNull()
            )
            for spec in self._publication.tables
        }
        parities = {parity.table: parity for parity in self._recompute.parities(candidates, self._hours)}
        unaudited = self._unaudited_upstream()
        audited = []
        for spec, rows in candidates.items():
            waived = waived_checks(decisions_on(ctx.lake, spec, self._covered))
            measured = evaluate(
                ctx.spark,
                rows,
                spec.rules_under(ctx.criteria),
                table=spec.identifier,
                key_columns=spec.key,
                key=_hidden_key(spec, ctx.user_key),
                waived=waived,
            )
            own = [gate.judge(parity, waived.get(parity.rule))] if (parity := parities.get(spec)) else []
            outcomes = (_upstream(spec, unaudited, waived), *measured, *own)
            audited.append(gate.AuditedTable(spec, outcomes))
        return audited

    def _unaudited_upstream(self) -> list[str]:
        """Ranges behind the upstream range that have no recorded verdict, or a blocking one."""
        source, lake = self._publication.source, self._ctx.lake
        if not isinstance(source, Publication):
            return []
        versions = lake.state(self._upstream).between(self._covered.start, self._covered.end)
        ends = {end for version in versions if (end := consumed(version, source.upstream)) is not None}
        found = []
        for end in sorted(ends):
            for layer in (bronze_gate.LAYER, source.layer):
                verdicts = audit_log.last_attempt_up_to(lake, self._ctx.stream, layer, end)
                if not verdicts or any(Status(verdict["status"]).blocks for verdict in verdicts):
                    found.append(f"{layer} gate up to Bronze snapshot {end}")
        return found


def _closed(day: str, watermark: datetime | None, allowed_lateness_hours: int) -> bool:
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), wall_time(), UTC)
    return watermark is not None and end + timedelta(hours=allowed_lateness_hours) <= watermark


def _date_column(spec: TableSpec) -> Column:
    """The column that says to which date a row belongs: the first partition column of every recomputed table."""
    return sf.col(spec.partition_by[0])


def _hidden_key(spec: TableSpec, user_key: bytes) -> Column:
    """The key of a row that breaks a rule, without IP addresses: the very rule may be that one was not hidden."""
    hidden = {column.name for column in spec.having("pseudonym")}
    parts = [sf.col(name).cast("string") for name in spec.key if name not in hidden]
    names = [without_addresses(pseudonym(sf.col(name), user_key), user_key) for name in spec.key if name in hidden]
    return sf.concat_ws("/", *parts, *names)


def _upstream(spec: TableSpec, unaudited: list[str], waived: Mapping[str, str]) -> CheckOutcome:
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
