"""Reading the audit trail back: only what can hold verdicts on a range is opened. PyIceberg alone, no JVM."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wikistream_assets.engine import audit_log
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.outcomes import computed
from wikistream_assets.quality.shapes import UPSTREAM_GATES_PASSED
from wikistream_assets.streams.edits.rules.gold import PARITY_SILVER_GOLD
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS
from wikistream_assets.tables.audit_rows import GateContext
from wikistream_assets.tables.dq_audit import PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = pytest.mark.local

_LONG_AGO = "2024-03-01"


def verdict(check: str, day: str, range_end: int) -> dict[str, object]:
    values = {
        "stream": "edits",
        "layer": "bronze",
        "check_name": check,
        "range_start": 1,
        "range_end": range_end,
        "run_date": day,
    }
    return full_row(QUALITY_RESULTS, status="PASSED", **values)


def test_verdicts_on_a_new_range_are_not_looked_for_in_old_days(lake: Lakehouse) -> None:
    end = add(lake, RAW_EVENTS, full_row(RAW_EVENTS))
    add(lake, QUALITY_RESULTS, verdict("of other ranges", _LONG_AGO, end))  # its bounds do not leave the file out
    add(lake, QUALITY_RESULTS, verdict("found", datetime.now(UTC).date().isoformat(), end))
    for task in lake.table(QUALITY_RESULTS).scan().plan_files():
        if task.file.partition[0] == _LONG_AGO:
            Path(task.file.file_path.removeprefix("file://")).unlink()
    for rows in (
        audit_log.last_attempt(lake, EDITS, "bronze", SnapshotRange(1, end)),
        audit_log.last_attempt_up_to(lake, EDITS, "bronze", end),
    ):
        assert [row["check_name"] for row in rows] == ["found"]


def test_verdicts_on_a_range_whose_end_is_forgotten_are_found_wherever_they_stand(lake: Lakehouse) -> None:
    add(lake, QUALITY_RESULTS, verdict("old", _LONG_AGO, 12345))
    assert [row["check_name"] for row in audit_log.last_attempt_up_to(lake, EDITS, "bronze", 12345)] == ["old"]


def counted(hour: datetime, value: str, rows: int, at: datetime) -> dict[str, object]:
    names = {"table_name": CLEANED_EVENTS.identifier, "column_name": "domain", "value": value, "record_count": rows}
    when = {"event_hour": hour, "run_timestamp": at, "run_date": at.date().isoformat()}
    return full_row(PROFILE_METRICS, **names, **when)


def test_complete_hours_are_read_within_their_bounds_and_by_their_newest_count(lake: Lakehouse) -> None:
    begin, ran = datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    profile = {"table_name": CLEANED_EVENTS.identifier, "column_name": "region", "event_hour": None, "value": None}
    add(
        lake,
        PROFILE_METRICS,
        counted(begin - hour, "a", 1, ran),
        counted(begin, "a", 2, ran),
        counted(begin, "gone", 3, ran),
        counted(begin + hour, "a", 4, ran),
        full_row(PROFILE_METRICS, run_date="2026-03-01", **profile),
    )
    add(lake, PROFILE_METRICS, counted(begin, "a", 5, ran + hour), counted(begin, "b", 6, ran + hour))
    found = audit_log.hour_counts(lake, CLEANED_EVENTS, begin, begin + hour)
    assert found == {begin: {"domain": {"a": 5, "b": 6}}}
    context = GateContext("run", "edits", "silver", None, 1, 1, ran)
    assert [row["column_name"] for row in audit_log.baseline(lake, CLEANED_EVENTS, context)] == ["region"]


def test_files_of_audits_that_completed_no_hour_are_not_opened(lake: Lakehouse) -> None:
    ran = datetime(2026, 3, 1, 12, tzinfo=UTC)
    names = {"table_name": CLEANED_EVENTS.identifier, "run_date": "2026-03-01", "event_hour": None, "value": None}
    add(lake, PROFILE_METRICS, full_row(PROFILE_METRICS, **names))
    (profile,) = lake.table(PROFILE_METRICS).scan().plan_files()
    add(lake, PROFILE_METRICS, counted(ran, "a", 1, ran))
    lake.table(PROFILE_METRICS).io.delete(profile.file.file_path)
    assert audit_log.hour_counts(lake, CLEANED_EVENTS, ran, ran + timedelta(hours=1)) == {ran: {"domain": {"a": 1}}}


def test_what_a_run_has_recorded_is_read_back_with_the_keys_that_broke_a_rule(lake: Lakehouse) -> None:
    """Also of a check that counts no rows: it names the gates that have not passed."""
    context = GateContext("this run", "edits", "gold", 1, 2, 1, datetime.now(UTC))
    rules = {rule.name: rule for rule in HOURLY_STATS.rules}
    closed = computed(
        rules[UPSTREAM_GATES_PASSED],
        HOURLY_STATS.identifier,
        metric=0.0,
        ok=False,
        message="not passed",
        keys=["silver"],
    )
    counted_rows = computed(
        rules[PARITY_SILVER_GOLD],
        HOURLY_STATS.identifier,
        metric=0.5,
        ok=False,
        message="one missing",
        keys=["2026-03-01 10h"],
        records_checked=2,
        records_failed=1,
    )
    audit_log.write(lake, context, [closed, counted_rows], [])
    verdicts = audit_log.verdicts_of_run(lake, EDITS, "gold", "this run")
    found = {it.rule.name: it for it in audit_log.outcomes_of(lake, [HOURLY_STATS], verdicts)}
    assert found.keys() == rules.keys()
    for written in (closed, counted_rows):
        read = found[written.rule.name]
        assert (read.status, read.failing_keys) == (written.status, written.failing_keys)
        assert read.failing_keys
    assert audit_log.verdicts_of_run(lake, EDITS, "gold", "another run") == []
    assert audit_log.verdicts_of_run(lake, EDITS, "silver", "this run") == []
