"""Reading the audit trail back: only what can hold verdicts on a range is opened. PyIceberg alone, no JVM."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wikistream_assets.jobs import audit_log
from wikistream_assets.jobs.context import SnapshotRange
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.tables import QUALITY_RESULTS, RAW_EVENTS
from wikistream_assets_tests.resources.lakes import add, full_row

pytestmark = pytest.mark.unit

_LONG_AGO = "2024-03-01"


def verdict(check: str, day: str, range_end: int) -> dict[str, object]:
    values = {"layer": "bronze", "check_name": check, "range_start": 1, "range_end": range_end, "run_date": day}
    return full_row(QUALITY_RESULTS, status="PASSED", **values)


def test_verdicts_on_a_new_range_are_not_looked_for_in_old_days(lake: Lakehouse) -> None:
    end = add(lake, RAW_EVENTS, full_row(RAW_EVENTS))
    add(lake, QUALITY_RESULTS, verdict("of other ranges", _LONG_AGO, end))  # its bounds do not leave the file out
    add(lake, QUALITY_RESULTS, verdict("found", datetime.now(UTC).date().isoformat(), end))
    for task in lake.table(QUALITY_RESULTS).scan().plan_files():
        if task.file.partition[0] == _LONG_AGO:
            Path(task.file.file_path.removeprefix("file://")).unlink()
    for rows in (
        audit_log.last_attempt(lake, "bronze", SnapshotRange(1, end)),
        audit_log.last_attempt_up_to(lake, "bronze", end),
    ):
        assert [row["check_name"] for row in rows] == ["found"]


def test_verdicts_on_a_range_whose_end_is_forgotten_are_found_wherever_they_stand(lake: Lakehouse) -> None:
    add(lake, QUALITY_RESULTS, verdict("old", _LONG_AGO, 12345))
    assert [row["check_name"] for row in audit_log.last_attempt_up_to(lake, "bronze", 12345)] == ["old"]
