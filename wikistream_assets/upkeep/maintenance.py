"""Keeping the tables small: compaction, manifests, expiry, orphans. Rows, positions and tags are what they were before.

A stream that commits each second makes 86,400 snapshots and twice as many files a day. Every batch reads the files of the hours
it touches, every commit writes down all snapshots and every reader parses them: without this, the lake slows down by the hour.

What is done follows from what is new. Only partitions that got files since the last rewrite are looked at, only those with enough
small files are rewritten, and a table that needs nothing costs a look at its metadata, without a JVM.

Silver and Gold are looked after while none of their runs is active (``leases.main_of``), and not compacted while an audit
branch waits: the branch could not be published any more. Bronze and the audit trail are looked after beside their writers: an
append and a rewrite of other files commute, whichever commits first; a batch of Bronze that finds main moved is written again.
See docs/adr/0009-maintenance-beside-a-running-stream.md.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from py4j.protocol import Py4JJavaError
from pyiceberg.expressions import In
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyspark.sql import SparkSession
from tenacity import before_sleep_log, retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.failpoints import MAINTENANCE_AFTER_COMPACT, failpoint
from wikistream_assets.engine.retained import Limits, expirable
from wikistream_assets.exceptions import WriterBusyError
from wikistream_assets.lake import procedures
from wikistream_assets.lake.state import States
from wikistream_assets.settings import Settings
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL, AUDIT_TRAIL_TABLES
from wikistream_assets.tables.spec import TableSpec

_SMALL: Final = 0.75
"""Below this share of the target size a file is small; Iceberg's own measure."""

_MANY_MANIFESTS: Final = 30
_MANY_DATES: Final = 100

_CONFLICTS: Final = ("CommitFailedException", "ValidationException")

Partition = tuple[Any, ...]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """How large a table is: live data files and their bytes, manifests of the head, snapshots kept."""

    files: int
    bytes: int
    manifests: int
    snapshots: int

    @classmethod
    def of(cls, table: Table) -> "Figures":
        snapshot = table.current_snapshot()
        summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
        return cls(
            files=int(summary.get("total-data-files", 0)),
            bytes=int(summary.get("total-files-size", 0)),
            manifests=len(snapshot.manifests(table.io)) if snapshot else 0,
            snapshots=len(table.metadata.snapshots),
        )


@dataclass(frozen=True)
class Plan:
    """What a table needs.

    Attributes:
        partitions: values of the partition columns of each partition to compact.
        manifests: whether the manifests are too many.
        expired: ids of snapshots that nobody needs.
        note: why something is left undone; empty if nothing is.
    """

    partitions: tuple[Partition, ...]
    manifests: bool
    expired: tuple[int, ...]
    note: str = ""

    @property
    def empty(self) -> bool:
        return not (self.partitions or self.manifests or self.expired)


@dataclass(frozen=True)
class MaintenanceReport:
    """What was done to a table; of a dry run, what would be.

    Attributes:
        table: ``namespace.name``.
        compacted: partitions whose small files were rewritten.
        expired: snapshots that were forgotten.
        orphans: files deleted that no snapshot knew.
    """

    table: str
    before: Figures
    after: Figures
    compacted: int
    expired: int
    orphans: int
    note: str = ""


def layers_of(stream: Stream) -> dict[str, tuple[TableSpec, ...]]:
    """The tables that are looked after under one lease, by layer; the audit trail's, which all streams share, come last."""
    return stream.layers | {AUDIT_TRAIL: AUDIT_TRAIL_TABLES}


@contextmanager
def looking_after(ctx: JobContext, layer: str) -> Iterator[None]:
    """Hold what maintenance of ``layer`` needs: to be the only one, and where runs move main, that none is at work.

    Raises:
        WriterBusyError: another process looks after the layer.
    """
    name = AUDIT_TRAIL if layer == AUDIT_TRAIL else ctx.stream.lease(layer)
    moved = layer in {publication.layer for publication in ctx.stream.publications}  # the others are only appended to
    with ctx.leases.only_maintenance(name), ctx.leases.main_of(name) if moved else nullcontext():
        yield


def maintain(
    ctx: JobContext, specs: Sequence[TableSpec], *, orphans: bool, dry_run: bool = False
) -> Iterator[MaintenanceReport]:
    """Look after ``specs``, one report each as soon as it is done. Spark is started only when there is something to do.

    Args:
        orphans: also look through the tables' folders for files that no snapshot knows, which costs a look at every file.
        dry_run: only say what would be done.

    A layer that another process looks after, or that is being backed up, is left alone and noted: the next time will do.
    """
    for layer, tables in layers_of(ctx.stream).items():
        for spec in (spec for spec in tables if spec in specs):
            try:
                with nullcontext() if dry_run else looking_after(ctx, layer):
                    report = _maintain(ctx, spec, orphans=orphans, dry_run=dry_run)
            except WriterBusyError as busy:
                figures = Figures.of(ctx.lake.table(spec))
                report = MaintenanceReport(spec.identifier, figures, figures, 0, 0, 0, note=str(busy))
            yield report


def plan(states: States, spec: TableSpec, settings: Settings) -> Plan:
    """What ``spec`` needs now. Reads metadata only: the head's manifests that are newer than the last rewrite."""
    expired = tuple(expirable(states, spec, _limits(settings)))
    if states[spec].audit_branches:
        return Plan((), False, expired, "not compacted: an audit branch waits for its gate")
    table = states.table(spec)
    snapshot = table.current_snapshot()
    manifests = len(snapshot.manifests(table.io)) if snapshot else 0
    return Plan(_crowded(table, spec, settings), manifests > _MANY_MANIFESTS, expired)


def _limits(settings: Settings) -> Limits:
    oldest = datetime.now(UTC) - timedelta(hours=settings.maintenance_snapshot_age_hours)
    return Limits(
        younger_than_ms=round(oldest.timestamp() * 1000),
        most=settings.maintenance_max_snapshots,
        least=settings.maintenance_min_snapshots,
    )


def _maintain(ctx: JobContext, spec: TableSpec, *, orphans: bool, dry_run: bool) -> MaintenanceReport:
    lake, settings = ctx.lake, ctx.settings
    states = lake.look()
    before = Figures.of(states.table(spec))
    needs = plan(states, spec, settings)
    if not dry_run:
        if needs.partitions:
            _compact(ctx.spark, spec, needs.partitions, settings)
            failpoint(settings, MAINTENANCE_AFTER_COMPACT)
        if needs.manifests:
            _rewrite_manifests(ctx.spark, spec)
        # Planned anew: what compaction has just replaced may go as well.
        expired = tuple(expirable(lake.look(), spec, _limits(settings)))
        if expired:
            procedures.expire(ctx.spark, spec, expired)
    else:
        expired = needs.expired
    removed: list[str] = []
    if orphans:
        age = datetime.now(UTC) - timedelta(hours=settings.maintenance_orphan_age_hours)
        removed = procedures.remove_orphans(ctx.spark, spec, age, dry_run=dry_run)
    return MaintenanceReport(
        table=spec.identifier,
        before=before,
        after=Figures.of(lake.table(spec)),
        compacted=len(needs.partitions),
        expired=len(expired),
        orphans=len(removed),
        note=needs.note,
    )


def _crowded(table: Table, spec: TableSpec, settings: Settings) -> tuple[Partition, ...]:
    """Partitions that got files since the last rewrite and have enough small ones now, in order."""
    touched = _touched(table)
    if not touched:
        return ()
    small_bytes = settings.maintenance_target_file_mb * 1024 * 1024 * _SMALL
    dates = sorted({partition[0] for partition in touched})
    scan = table.scan(row_filter=In(spec.partition_by[0], dates))  # type: ignore[call-arg]  # mypy misreads it
    small = Counter(
        _values(task.file.partition) for task in scan.plan_files() if task.file.file_size_in_bytes < small_bytes
    )
    return tuple(sorted(partition for partition in touched if small[partition] >= settings.maintenance_min_input_files))


def _touched(table: Table) -> set[Partition]:
    """Partitions that got files after main's newest ``replace`` snapshot."""
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    ancestor = table.current_snapshot()
    while ancestor is not None and (ancestor.summary is None or ancestor.summary.operation is not Operation.REPLACE):
        ancestor = by_id.get(ancestor.parent_snapshot_id or -1)
    return partitions_since(table, (ancestor.sequence_number or 0) if ancestor else 0)


def partitions_since(table: Table, sequence_number: int, *, but_of: Collection[int] = ()) -> set[Partition]:
    """Partitions with files newer than ``sequence_number``, but those of rows without a date. Reads only newer manifests.

    Args:
        but_of: ids of snapshots whose files do not count.
    """
    snapshot = table.current_snapshot()
    partitions = {
        _values(entry.data_file.partition)
        for manifest in (snapshot.manifests(table.io) if snapshot else ())
        if manifest.content is ManifestContent.DATA and manifest.sequence_number > sequence_number
        for entry in manifest.fetch_manifest_entry(table.io)
        if (entry.sequence_number or 0) > sequence_number and entry.snapshot_id not in but_of
    }
    return {partition for partition in partitions if None not in partition}


def _values(partition: Any) -> Partition:
    return tuple(partition[place] for place in range(len(partition)))


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, Py4JJavaError) and any(name in str(error.java_exception) for name in _CONFLICTS)


# Iceberg tries a commit again by itself; what it gives up on (the manifests it read were merged meanwhile) is planned anew.
retry_conflict: Final = retry(
    retry=retry_if_exception(_is_conflict),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.2, max=5),
    before_sleep=before_sleep_log(_log, logging.INFO),
    reraise=True,
)


@retry_conflict
def _compact(spark: SparkSession, spec: TableSpec, partitions: Sequence[Partition], settings: Settings) -> None:
    rewritten, added = procedures.compact(
        spark,
        spec,
        condition_on(spec, partitions),
        target_file_bytes=settings.maintenance_target_file_mb * 1024 * 1024,
        min_input_files=settings.maintenance_min_input_files,
    )
    _log.info("%s: %d files of %d partitions are %d now", spec.identifier, rewritten, len(partitions), added)


@retry_conflict
def _rewrite_manifests(spark: SparkSession, spec: TableSpec) -> None:
    procedures.rewrite_manifests(spark, spec)


def condition_on(spec: TableSpec, partitions: Sequence[Partition]) -> str:
    """SQL that names ``partitions``; of very many dates their range, in which Iceberg finds those that need it by itself."""
    date, *others = spec.partition_by
    by_date: defaultdict[Any, list[Partition]] = defaultdict(list)
    for partition in partitions:
        by_date[partition[0]].append(partition[1:])
    if len(by_date) > _MANY_DATES:
        return f"{date} >= {_literal(min(by_date))} AND {date} <= {_literal(max(by_date))}"
    terms = []
    for value, rests in by_date.items():
        term = f"{date} = {_literal(value)}"
        for place, name in enumerate(others):
            values = sorted({rest[place] for rest in rests})
            term += f" AND {name} IN ({', '.join(_literal(value) for value in values)})"
        terms.append(f"({term})")
    return " OR ".join(terms)


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'
