"""Maintenance on real tables: fewer files and snapshots, the same rows, and every reader goes on where it stood."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from wikistream_assets.exceptions import BranchOutdatedError
from wikistream_assets.lake import procedures
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.spark_io import read_range, read_table
from wikistream_assets.lake.state import AUDITED_TAG, consumed
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, DEAD_LETTER, HOURLY_STATS, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep.maintenance import MaintenanceReport, condition_on, looking_after, maintain, plan
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.contexts import job_in, job_with
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.lake.lakes import AUDIT_BRANCH, arrow
from wikistream_assets_tests.quality.samples import clean_rows

LONG_AGO = 1_600_000_000


@pytest.fixture
def settings(settings_factory: SettingsFactory) -> Settings:
    """Nothing is kept for its age or number alone, so that what stays is what somebody needs."""
    return settings_factory(maintenance_snapshot_age_hours=0, maintenance_min_input_files=2)


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def look_after(gates: GateLake, *specs: TableSpec, orphans: bool = False) -> dict[str, MaintenanceReport]:
    reports = maintain(gates.ctx, specs or ALL_TABLES, orphans=orphans)
    return {report.table: report for report in reports}


def in_parts(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@pytest.mark.long
@pytest.mark.spark
def test_few_files_the_same_rows_and_each_reader_goes_on_where_it_stood(
    gates: GateLake, settings_factory: SettingsFactory
) -> None:
    rows, lake = clean_rows(RAW_EVENTS), gates.lake
    for part in in_parts(rows[:600], 50):
        gates.add_bronze(part)
    assert all(report.passed for report in gates.cycle())
    for part in in_parts(rows[600:750], 50):
        gates.add_bronze(part)
    hashes, position = table_hashes(lake), lake.state(RAW_EVENTS).newest_position()
    read_to, tagged = (
        consumed(lake.state(CLEANED_EVENTS).newest_position(), RAW_EVENTS),
        lake.state(RAW_EVENTS).head(AUDITED_TAG),
    )
    assert read_to is not None
    assert tagged is not None
    assert position is not None

    looked_after = (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS, QUALITY_RESULTS)
    report = look_after(gates, *looked_after)[RAW_EVENTS.identifier]

    assert table_hashes(lake) == hashes
    hours = {(row["event_date"], row["event_hour"]) for row in rows[:750]}
    assert report.before.files > 2 * len(hours)
    assert report.after.files == len(hours)
    # Bronze keeps the range no gate has seen, Silver's position before it, and 500 rows before that for the gate's ratios.
    assert lake.state(RAW_EVENTS).newest_position() == position
    assert read_range(gates.ctx.spark, RAW_EVENTS, read_to, position.snapshot_id).count() == 150
    assert read_table(gates.ctx.spark, RAW_EVENTS, tagged.snapshot_id).count() == 600
    *_, oldest = lake.state(RAW_EVENTS).history()
    assert oldest.total_records == 100
    assert all(plan(lake.look(), spec, settings_of(gates)).empty for spec in looked_after)

    for part in in_parts(rows[750:], 50):
        gates.add_bronze(part)
    assert all(report.passed for report in gates.cycle())
    other = GateLake(settings_factory())
    other.add_bronze(rows)
    assert all(report.passed for report in other.cycle())
    assert table_hashes(lake) == table_hashes(other.lake)


@pytest.mark.long
@pytest.mark.spark
def test_without_the_snapshots_that_stay_a_reader_cannot_go_on(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    for part in (rows[:10], rows[10:20], rows[20:30]):
        gates.add_bronze(part)
    third, second, first, _ = gates.lake.state(RAW_EVENTS).history()
    assert not plan(gates.lake.look(), RAW_EVENTS, settings_of(gates)).expired  # Silver has read nothing yet
    procedures.expire(gates.ctx.spark, RAW_EVENTS, [first.snapshot_id, second.snapshot_id])
    assert read_range(gates.ctx.spark, RAW_EVENTS, second.snapshot_id, third.snapshot_id).count() == 10
    with pytest.raises(Exception, match="ancestor"):
        read_range(gates.ctx.spark, RAW_EVENTS, first.snapshot_id, third.snapshot_id).count()


@pytest.mark.long
@pytest.mark.spark
def test_a_waiting_audit_branch_can_still_be_published(gates: GateLake) -> None:
    rows, lake = clean_rows(CLEANED_EVENTS), gates.lake
    for part in in_parts(rows[:60], 10):
        lake.append(CLEANED_EVENTS, arrow(lake, CLEANED_EVENTS, *part))
    lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
    lake.append(CLEANED_EVENTS, arrow(lake, CLEANED_EVENTS, *rows[60:70]), branch=AUDIT_BRANCH)
    report = look_after(gates, CLEANED_EVENTS)[CLEANED_EVENTS.identifier]
    assert "audit branch waits" in report.note
    assert report.after.files == report.before.files
    lake.publish([CLEANED_EVENTS], AUDIT_BRANCH)
    assert len(gates.rows("select 1 from silver.cleaned_events")) == 70

    # Compacted nevertheless, main has left the branch behind.
    lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
    lake.append(CLEANED_EVENTS, arrow(lake, CLEANED_EVENTS, *rows[70:80]), branch=AUDIT_BRANCH)
    everywhere = condition_on(CLEANED_EVENTS, sorted({(row["event_date"], row["region"]) for row in rows[:80]}))
    procedures.compact(gates.ctx.spark, CLEANED_EVENTS, everywhere, target_file_bytes=1 << 28, min_input_files=2)
    with pytest.raises(BranchOutdatedError):
        lake.publish([CLEANED_EVENTS], AUDIT_BRANCH)


@pytest.mark.spark
def test_only_old_files_that_no_snapshot_knows_are_orphans(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:50])
    gates.lake.create_branch(RAW_EVENTS, AUDIT_BRANCH)
    table = gates.lake.table(RAW_EVENTS)
    table.append(table.scan().to_arrow(), branch=AUDIT_BRANCH)
    folder = Path(local_path(table.location()))
    for file in folder.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    known = {file for file in folder.rglob("*") if file.is_file()}
    old, young = folder / "data" / "old.parquet", folder / "data" / "young.parquet"
    for file in (old, young):
        file.write_bytes(b"left behind")
    os.utime(old, (LONG_AGO, LONG_AGO))
    [dry] = maintain(job_in(settings_of(gates)), [RAW_EVENTS], orphans=True, dry_run=True)
    assert (dry.orphans, old.exists()) == (1, True)
    assert look_after(gates, RAW_EVENTS, orphans=True)[RAW_EVENTS.identifier].orphans == 1
    assert {file for file in folder.rglob("*") if file.is_file()} == known | {young}
    assert len(gates.rows("select 1 from bronze.raw_events")) == 50
    assert (
        read_table(gates.ctx.spark, RAW_EVENTS, gates.lake.state(RAW_EVENTS).head(AUDIT_BRANCH).snapshot_id).count()
        == 100
    )


def test_a_table_that_needs_nothing_starts_no_jvm(lake: Lakehouse, settings: Settings) -> None:
    reports = list(maintain(job_with(no_session, settings), ALL_TABLES, orphans=False))
    assert [report.table for report in reports if report.before == report.after] == [s.identifier for s in ALL_TABLES]


def test_a_layer_is_looked_after_once_at_a_time(lake: Lakehouse, settings: Settings) -> None:
    ctx = job_with(no_session, settings)
    with looking_after(ctx, "gold"):
        reports = {r.table: r for r in maintain(ctx, ALL_TABLES, orphans=False)}
    assert "gold.maintenance is being written" in reports["gold.hourly_stats"].note
    assert not reports[RAW_EVENTS.identifier].note


@pytest.mark.unit
def test_partitions_are_named_one_by_one_or_as_a_range_of_dates() -> None:
    hours = [("2026-03-01", 1), ("2026-03-01", 2), ("2026-03-02", 0)]
    assert condition_on(RAW_EVENTS, hours) == (
        '(event_date = "2026-03-01" AND event_hour IN (1, 2)) OR (event_date = "2026-03-02" AND event_hour IN (0))'
    )
    dates = [(f"2026-{month:02d}-{day:02d}",) for month in range(1, 13) for day in range(1, 29)]
    assert condition_on(DEAD_LETTER, dates) == 'event_date >= "2026-01-01" AND event_date <= "2026-12-28"'


def no_session() -> NoReturn:
    raise AssertionError("a JVM was asked for")


def settings_of(gates: GateLake) -> Settings:
    return gates.ctx.settings
