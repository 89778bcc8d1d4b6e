"""Old rows lose their names: in every file of the warehouse, without any reader or figure noticing."""

import base64
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyiceberg.avro.file import AvroFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyspark.sql import SparkSession

from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.recompute import Position
from wikistream_assets.lake import procedures
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DEAD_LETTER,
    ENTITY_TRENDS,
    GOLD_TABLES,
    QUARANTINE,
    RAW_EVENTS,
    RISK_SCORES,
)
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.dq_audit import FAILING_ROWS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep import masking
from wikistream_assets.upkeep.maintenance import maintain
from wikistream_assets.upkeep.masking import MaskingReport, layers_to_mask, mask
from wikistream_assets.upkeep.rollback import roll_back
from wikistream_assets_tests.contexts import job_in, job_with
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.lake.lakes import add, full_row
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark

OLD_DAY = "2026-03-01"
TODAY = date(2026, 9, 20)
LATER = timedelta(days=200)
IP4, IP6 = "203.0.113.77", "2001:DB8:77:0:0:0:0:1"
USERS = ("Wolf Oldname 1", "Wolf Oldname 2", IP4, IP6, "~2026-77177-1")
LETTER = base64.b64encode(b"by Wolf").decode()
OLD_MARKS = ("Wolf", "203.0.113", "DB8:77", "77177", LETTER)

_TIMES = ("event_timestamp", "kafka_timestamp", "producer_ingested_at", "bronze_processed_at")


def old(row: dict[str, Any], number: int) -> dict[str, Any]:
    """An edit whose every text names somebody."""
    user = USERS[number % len(USERS)]
    text = f"Undid edit by [[Special:Contributions/{user}|{user}]]"
    names = {"user": user, "is_bot": False, "comment": text, "payload": f'{{"user": "{user}", "comment": "{text}"}}'}
    page = {"title": f"User talk:{user}/Archive", "namespace": 3, "title_url": f"https://x/wiki/User_talk:{user}"}
    return {**row, **names, **(page if number % 3 == 0 else {})}


def young(row: dict[str, Any], number: int) -> dict[str, Any]:
    times = {name: row[name] + LATER for name in _TIMES}
    user = f"Nina Newname {number % 7}"
    return {**row, **times, "event_date": times["event_timestamp"].date().isoformat(), "user": user, "is_bot": False}


@pytest.fixture
def settings(settings_factory: Any) -> Settings:
    return settings_factory(privacy_mask_after_days=90)


@pytest.mark.long
def test_no_file_names_anyone_who_edited_before_the_limit(lake: Lakehouse, settings: Settings) -> None:
    gates, rows = GateLake(settings), clean_rows(RAW_EVENTS)
    gates.add_bronze([old(row, number) for number, row in enumerate(rows[:400])])
    impossible = {**old(rows[400], 0), "length_old": -5, "length_new": 1}
    gates.add_bronze([impossible, *(young(row, number) for number, row in enumerate(rows[401:800]))])
    letter = {"original": LETTER, "detail": "by Wolf", "event_date": OLD_DAY}
    add(lake, DEAD_LETTER, letter, position={"dlq-events": {"0": 1}})
    failing = {"table_name": RISK_SCORES.identifier, "failing_key": f"{OLD_DAY}/{USERS[0]}", "run_date": OLD_DAY}
    add(lake, FAILING_ROWS, failing)
    assert all(report.passed for report in gates.cycle())
    figures = _figures(gates)
    assert _marks_found(settings) == set(OLD_MARKS)

    done = {report.table: report for report in _mask(gates)}
    masked = (RAW_EVENTS, DEAD_LETTER, CLEANED_EVENTS, QUARANTINE, RISK_SCORES, ENTITY_TRENDS, FAILING_ROWS)
    assert {table for table, report in done.items() if report.dates == (OLD_DAY,)} == {t.identifier for t in masked}
    assert _marks_found(settings) == set(OLD_MARKS)  # older snapshots still show them: masking alone is not enough
    assert _figures(gates) == figures
    assert not any(report.dates for report in _mask(gates))

    scores = gates.rows("select * exclude (gold_processed_at) from gold.risk_scores order by all")
    late = {**rows[800], "user": "Late Lena", "title": "Some page", "namespace": 0}
    gates.add_bronze([late, *(young(row, number) for number, row in enumerate(rows[801:]))])
    assert {r.table: r.waiting for r in _mask(gates, dry_run=True)}[RAW_EVENTS.identifier] == (OLD_DAY,)
    assert all(report.passed and report.advanced for report in gates.cycle())
    # The late edit made Gold compute the old day again, from masked rows.
    again = gates.rows("select * exclude (gold_processed_at) from gold.risk_scores order by all")
    assert [row for row in again if row[0] == OLD_DAY] == [row for row in scores if row[0] == OLD_DAY]
    for report in maintain(job_in(settings), ALL_TABLES, orphans=False):
        assert not report.note
    assert _marks_found(settings) == set()
    assert "Nina Newname 3" in "\n".join(_texts(settings))
    assert all(report.passed for report in gates.cycle())
    assert {r.table: r.dates for r in _mask(gates, dry_run=True)}[RAW_EVENTS.identifier] == (OLD_DAY,)  # Lena's


def test_rows_that_come_while_masking_works_are_masked_the_next_night(
    spark: SparkSession, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments are before the dates' turn and after it; each of the rows belongs to a date that is masked at the end."""
    gates, rewrite = GateLake(settings), procedures.rewrite_manifests
    _add_bronze(gates, "2026-03-01", "Early Erna")
    _silver_reads_all(lake)
    assert _bronze_night(gates, date(2026, 6, 1)).dates == ("2026-03-01",)
    _add_bronze(gates, "2026-03-05", "Early Emil")
    _silver_reads_all(lake)

    def session() -> SparkSession:
        _add_bronze(gates, "2026-03-01", "Late Lena")
        return spark

    def rewrite_and_more(spark: SparkSession, spec: TableSpec) -> None:
        _add_bronze(gates, "2026-03-05", "Late Lars")
        rewrite(spark, spec)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(procedures, "rewrite_manifests", rewrite_and_more)
        [report, _] = mask(job_with(session, settings), date(2026, 6, 5), "bronze")
    assert report.dates == ("2026-03-05",)
    assert _bronze_names(gates) == ["Late Lars", "Late Lena"]

    unread = _bronze_night(gates, date(2026, 6, 5))
    assert (unread.dates, unread.waiting) == ((), ("2026-03-01", "2026-03-05"))
    _silver_reads_all(lake)
    assert _bronze_night(gates, date(2026, 6, 5)).dates == ("2026-03-01", "2026-03-05")
    assert _bronze_names(gates) == []
    assert _bronze_night(gates, date(2026, 6, 6)).dates == ()


def test_a_late_row_that_waits_does_not_set_the_mark_back(lake: Lakehouse, settings: Settings) -> None:
    """Else all dates after it would be written anew each night, and Gold could be computed from rows without names."""
    gates = GateLake(settings)
    _add_bronze(gates, "2026-03-01", "Early Erna")
    _silver_reads_all(lake)
    _bronze_night(gates, date(2026, 6, 1))
    _add_bronze(gates, "2026-03-05", "Early Emil")
    _silver_reads_all(lake)
    _add_bronze(gates, "2026-03-01", "Late Lena")
    report = _bronze_night(gates, date(2026, 6, 5))
    assert (report.dates, report.waiting) == (("2026-03-05",), ("2026-03-01",))
    assert lake.state(RAW_EVENTS).masked.before == "2026-03-07"  # 90 days before that night

    report = _bronze_night(gates, date(2026, 6, 5))
    assert (report.dates, report.waiting) == ((), ("2026-03-01",))
    _silver_reads_all(lake)
    assert _bronze_night(gates, date(2026, 6, 5)).dates == ("2026-03-01",)
    assert _bronze_names(gates) == []
    assert lake.state(RAW_EVENTS).masked.before == "2026-03-07"


def test_a_backlog_that_is_cut_short_goes_on_where_it_was(
    spark: SparkSession, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has a time limit: one that began anew each night would never come to its end."""
    gates, days = GateLake(settings), ("2026-03-01", "2026-03-02", "2026-03-03")
    for day in days:
        _add_bronze(gates, day, f"Erna of {day}")
    _silver_reads_all(lake)
    mask_date = masking._mask_date

    def until_the_limit(ctx: JobContext, spec: TableSpec, day: str) -> None:
        if day == days[2]:
            raise TimeoutError
        mask_date(ctx, spec, day)

    with monkeypatch.context() as limit:
        limit.setattr(masking, "_DATES_AT_ONCE", 1)
        limit.setattr(masking, "_mask_date", until_the_limit)
        with pytest.raises(TimeoutError):
            _bronze_night(gates, date(2026, 9, 1))
    assert lake.state(RAW_EVENTS).masked.before == days[2]
    assert _bronze_night(gates, date(2026, 9, 1)).dates == days[2:]
    assert _bronze_names(gates) == []
    assert lake.state(RAW_EVENTS).masked.before == "2026-06-03"  # 90 days before that night


def test_silver_tells_users_pages_until_gold_has_hidden_them(lake: Lakehouse, settings: Settings) -> None:
    page = {"event_date": OLD_DAY, "domain": "en.wikipedia.org", "title": "User talk:Wolf Oldname", "namespace": 3}
    silver = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, **page))
    trending = {"stat_date": OLD_DAY, "entity_type": "page", "entity_id": "en.wikipedia.org:User talk:Wolf Oldname"}
    for spec in GOLD_TABLES:
        row = full_row(spec, **(trending if spec is ENTITY_TRENDS else {spec.partition_by[0]: OLD_DAY}))
        add(lake, spec, row, position=Position(silver).as_json(CLEANED_EVENTS))
    gates = GateLake(settings)
    lake.create_branch(ENTITY_TRENDS, "audit_closed")  # Gold's gate is closed that night
    found = {report.table: report for report in _mask(gates)}
    assert found[ENTITY_TRENDS.identifier].note
    assert (found[CLEANED_EVENTS.identifier].dates, found[CLEANED_EVENTS.identifier].waiting) == ((), (OLD_DAY,))
    lake.drop_ref(ENTITY_TRENDS, "audit_closed")
    dry = {report.table: report.dates for report in _mask(gates, dry_run=True)}
    assert dry[ENTITY_TRENDS.identifier] == dry[CLEANED_EVENTS.identifier] == (OLD_DAY,)
    _mask(gates)
    [[trend]] = gates.rows("select entity_id from gold.entity_trends")
    [[title]] = gates.rows("select title from silver.cleaned_events")
    assert trend == f"en.wikipedia.org:{title}"
    assert "Wolf" not in title


@pytest.mark.long
def test_a_rollback_behind_a_mark_has_the_rows_masked_again(lake: Lakehouse, settings: Settings) -> None:
    gates = GateLake(settings)
    gates.add_bronze([old(row, number) for number, row in enumerate(clean_rows(RAW_EVENTS)[:400])])
    assert all(report.passed for report in gates.cycle())
    named = lake.state(CLEANED_EVENTS).head_id()
    _mask(gates)
    assert not any(report.dates for report in _mask(gates, dry_run=True))
    roll_back(job_in(settings), CLEANED_EVENTS, named, reason="a wrong transform", decided_by="ada")
    due = {report.table for report in _mask(gates, dry_run=True) if report.dates == (OLD_DAY,)}
    assert due == {CLEANED_EVENTS.identifier}, "Bronze and Gold stayed where they were"


def _add_bronze(gates: GateLake, day: str, user: str) -> None:
    gates.add_bronze([{**clean_rows(RAW_EVENTS)[0], "event_id": user, "event_date": day, "user": user}])


def _silver_reads_all(lake: Lakehouse) -> None:
    """Say that both readers of Bronze have come to its head."""
    position = {RAW_EVENTS.identifier: lake.state(RAW_EVENTS).head_id()}
    for reader in (CLEANED_EVENTS, QUARANTINE):
        add(lake, reader, position=position)


def _bronze_night(gates: GateLake, today: date) -> MaskingReport:
    [report, _] = mask(gates.ctx, today, "bronze")
    return report


def _bronze_names(gates: GateLake) -> list[str]:
    """The users that are not hidden; what hides them begins with ``user-``."""
    found = gates.rows('select "user" from bronze.raw_events where "user" not like \'user-%\'')
    return sorted(user for [user] in found)


def _mask(gates: GateLake, *, dry_run: bool = False) -> list[MaskingReport]:
    reports = [mask(gates.ctx, TODAY, layer, dry_run=dry_run) for layer in layers_to_mask(EDITS)]
    return [report for of_layer in reports for report in of_layer]


def _figures(gates: GateLake) -> list[list[tuple[Any, ...]]]:
    """What Gold says apart from names, and how many different users and pages each layer knows."""
    return [
        gates.rows(sql)
        for sql in (
            "select * exclude (gold_processed_at) from gold.hourly_stats order by all",
            "select * exclude (gold_processed_at) from gold.daily_analytics_summary order by all",
            "select * exclude (gold_processed_at, entity_id) from gold.risk_scores order by all",
            "select * exclude (gold_processed_at, entity_id) from gold.entity_trends order by all",
            'select count(*), count(distinct "user"), count(distinct title) from bronze.raw_events',
            "select user_kind, count(*), count(distinct user_normalized) from silver.cleaned_events group by 1 order by 1",
            "select count(*) from bronze.dead_letter",
        )
    ]


def _marks_found(settings: Settings) -> set[str]:
    text = "\n".join(_texts(settings))
    return {mark for mark in OLD_MARKS if mark in text}


def _texts(settings: Settings) -> Iterator[str]:
    """All that any file of the warehouse says, decompressed: rows, statistics, file names, metadata."""
    for path in settings.warehouse.rglob("*"):
        if path.is_file():
            yield str(path)
            yield path.read_bytes().decode("latin-1")
            yield from _decompressed(path)


def _decompressed(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        for column in pq.ParquetFile(path).read().columns:
            yield from {str(value) for value in column.to_pylist()}
    elif path.suffix == ".avro":
        with AvroFile[Any](PyArrowFileIO().new_input(f"file://{path}")) as file:
            yield from (repr(record) for record in file)
