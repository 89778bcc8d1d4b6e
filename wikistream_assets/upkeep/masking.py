"""Masking old rows in place: the one rewrite of Bronze and Silver that changes what rows say.

A date is masked when it is older than ``privacy_mask_after_days`` and every reader of the table has read all its rows. Each date
is one ``overwrite`` snapshot, which readers of appended rows pass over; then the manifests are rewritten, for they hold the
smallest and largest names of the files that went; then a snapshot without rows carries the position on and marks that everything
before it still shows what is hidden now. Maintenance forgets all that lies before the mark as soon as every reader has come past
it, whatever its age, and with it the old files: see ``retained``, and docs/adr/0010-masking-in-place.md. A backlog gets a mark
every few dates, so that a run that is cut short, by its time limit too, has come that far.

Rows may come at any moment, also of dates that are masked. So a mark says up to which commit the table was looked through, and
which dates got rows after their turn: the next night begins there.
"""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Final

from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan
from pyiceberg.table import Table
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.failpoints import MASKING_AFTER_DATE, MASKING_AFTER_MANIFESTS, failpoint
from wikistream_assets.engine.retained import readers_of
from wikistream_assets.lake import procedures
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import overwrite_as_read, read_table
from wikistream_assets.lake.state import MASKED_KEY, Masked, TableState
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL, FAILING_ROWS, GATE_DECISIONS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.trail_masks import mask_decisions, mask_failing_keys
from wikistream_assets.upkeep.maintenance import looking_after, partitions_since, retry_conflict

_DATES_AT_ONCE: Final = 7
"""So many dates are masked between two marks; in a usual night one is due."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskingReport:
    """What was masked in a table; of a dry run, what would be.

    Attributes:
        dates: yyyy-MM-dd, in order.
        waiting: dates that are old enough but hold rows that a reader, or the masking of another table, still needs.
        note: why nothing was done; empty if something could be.
    """

    table: str
    dates: tuple[str, ...]
    waiting: tuple[str, ...]
    note: str = ""


def layers_to_mask(stream: Stream) -> dict[str, tuple[TableSpec, ...]]:
    """The tables that hold names, by layer; the last layer first, because it may need what the one before still tells."""
    named = {layer: tuple(spec for spec in tables if spec in stream.masks) for layer, tables in stream.layers.items()}
    return dict(reversed(named.items())) | {AUDIT_TRAIL: (FAILING_ROWS, GATE_DECISIONS)}


def mask(ctx: JobContext, today: date, layer: str, *, dry_run: bool = False) -> Iterator[MaskingReport]:
    """Mask what is due in the tables of one layer. Spark is started only when there is something to do.

    Args:
        today: the UTC date that ages are counted from.
        layer: of ``layers_to_mask``.

    Raises:
        WriterBusyError: another process looks after the layer.
    """
    if not (cutoff := ctx.settings.names_kept_since(today)):
        return
    with nullcontext() if dry_run else looking_after(ctx, layer):
        for spec in layers_to_mask(ctx.stream)[layer]:
            table = ctx.lake.table(spec)
            report = _due(ctx, spec, table, cutoff, dry_run=dry_run)
            if report.dates and not dry_run:
                _mask(ctx, spec, report, cutoff, table.last_sequence_number)
            yield report


def _due(ctx: JobContext, spec: TableSpec, table: Table, cutoff: str, *, dry_run: bool) -> MaskingReport:
    if TableState.of(spec, table).audit_branches:
        return MaskingReport(spec.identifier, (), (), "an audit branch waits for its gate")
    dates = _old_dates(ctx.lake, spec, table, cutoff)
    unread = _unread(ctx.lake, spec) | _telling(ctx, spec, cutoff, dry_run=dry_run)
    return MaskingReport(spec.identifier, tuple(sorted(dates - unread)), tuple(sorted(dates & unread)))


def _old_dates(lake: Lakehouse, spec: TableSpec, table: Table, cutoff: str) -> set[str]:
    """Dates before ``cutoff`` with rows that have not had their turn."""
    known = lake.state(spec).masked
    date_column = spec.partition_by[0]
    newly_old = And(GreaterThanOrEqual(date_column, known.before), LessThan(date_column, cutoff))  # type: ignore[call-arg]
    dates = {task.file.partition[0] for task in table.scan(row_filter=newly_old).plan_files()}
    # Rows that came late, for a date that is masked.
    dates |= {partition[0] for partition in partitions_since(table, known.sequence) if partition[0] < known.before}
    return dates | set(known.waiting)


def _telling(ctx: JobContext, spec: TableSpec, cutoff: str, *, dry_run: bool) -> set[str]:
    """Dates that must still be legible in ``spec``, because another table cannot be masked without them.

    They are those that are left there after its own turn; a dry run leaves none that it would take.
    """
    telling = set()
    for told in (other for other, mask in ctx.stream.masks.items() if mask.told_by is spec):
        table = ctx.lake.table(told)
        left = _old_dates(ctx.lake, told, table, cutoff)
        telling |= left - set(_due(ctx, told, table, cutoff, dry_run=True).dates) if dry_run else left
    return telling


def _unread(lake: Lakehouse, spec: TableSpec) -> set[str]:
    """Dates with files that came after what some reader has read."""
    states = lake.look()
    table = states.table(spec)
    numbers = {number: snapshot.sequence_number or 0 for number, snapshot in states[spec].snapshots.items()}
    read = min((numbers.get(reader, 0) for reader in readers_of(states, spec)), default=None)
    return set() if read is None else {partition[0] for partition in partitions_since(table, read)}


def _mask(ctx: JobContext, spec: TableSpec, report: MaskingReport, cutoff: str, looked_at: int) -> None:
    """Mask the dates of ``report``, oldest first.

    Args:
        looked_at: the sequence number up to which ``report`` accounts for all rows.
    """
    lake, spark, settings = ctx.lake, ctx.spark, ctx.settings
    for begin in range(0, len(report.dates), _DATES_AT_ONCE):
        end = begin + _DATES_AT_ONCE
        for day in report.dates[begin:end]:
            _mask_date(ctx, spec, day)
            _log.info("%s: %s is masked", spec.identifier, day)
            failpoint(settings, MASKING_AFTER_DATE)
        retry_conflict(procedures.rewrite_manifests)(spark, spec)
        failpoint(settings, MASKING_AFTER_MANIFESTS)
        # Last: a run that was cut short does the same dates again, which changes nothing in rows that are masked.
        left = (*report.waiting, *report.dates[end:])
        lake.mark_masked(spec, _mark(lake, spec, min([cutoff, *report.dates[end:]]), left, looked_at))


def _mark(lake: Lakehouse, spec: TableSpec, before: str, left: tuple[str, ...], looked_at: int) -> Masked:
    """How far the table is masked now: all dates before ``before`` have had their turn, but for those that are ``left``."""
    # Never back: a date that is left is named, and those after it keep the place they have.
    before = max(lake.state(spec).masked.before, before)
    table = lake.table(spec)
    # What came meanwhile may lie in a date that had its turn. Masking's own files are as new, but have nothing to hide;
    # their snapshots are all there, because none expires while masking is at work.
    own = {version.snapshot_id for version in lake.state(spec).history() if version.masks}
    late = {day for day, *_ in partitions_since(table, looked_at, but_of=own)}
    return Masked(before, table.last_sequence_number, tuple(sorted(day for day in late.union(left) if day < before)))


@retry_conflict
def _mask_date(ctx: JobContext, spec: TableSpec, day: str) -> None:
    read_at = next(ctx.lake.state(spec).history()).snapshot_id
    on_day = sf.col(spec.partition_by[0]) == day
    rows = _masked(ctx, spec, read_table(ctx.spark, spec, read_at).where(on_day), day)
    overwrite_as_read(rows, spec, on_day, read_at, {MASKED_KEY: day})


def _masked(ctx: JobContext, spec: TableSpec, rows: DataFrame, day: str) -> DataFrame:
    if spec is FAILING_ROWS:
        return mask_failing_keys(rows, ctx.user_key, [table.identifier for table in ALL_TABLES if _key_names(table)])
    if spec is GATE_DECISIONS:
        return mask_decisions(rows)
    mask = ctx.stream.masks[spec]
    if mask.told_by is None:
        return mask.hide(rows, ctx.user_key)
    of_day = read_table(ctx.spark, mask.told_by).where(sf.col(mask.told_by.partition_by[0]) == day)
    return mask.hide(rows, ctx.user_key, of_day)


def _key_names(spec: TableSpec) -> bool:
    """Whether the key of a row may name a person."""
    return any(column.name in spec.key for column in spec.having("personal"))
