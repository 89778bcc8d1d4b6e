"""``wikistream quality`` on verdicts laid down by hand; every figure here is counted from ``_VERDICTS``."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.readers.quality_report import quality_report
from wikistream_assets.settings import Settings
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = pytest.mark.local

BRONZE, SILVER = "bronze.raw_events", "silver.cleaned_events"

_VERDICTS: Final = [
    # (day of March, hour, table, check, statuses)
    (1, 9, BRONZE, "type_valid", "FAILED"),  # eight days before the newest one
    (7, 9, BRONZE, "type_valid", "PASSED PASSED PASSED SKIPPED"),
    (7, 9, SILVER, "drift", "PASSED WARNING"),
    (9, 9, BRONZE, "type_valid", "PASSED FAILED"),
    (9, 10, BRONZE, "type_valid", "ERROR"),
    (9, 9, SILVER, "drift", "PASSED"),
    (9, 9, SILVER, "latency", "SKIPPED"),
    (9, 9, SILVER, "unique", "PASSED"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("quality") / "home")
    rows = []
    for day, hour, table, check, statuses in _VERDICTS:
        for status in statuses.split():
            row = {"table_name": table, "check_name": check, "status": status, "run_date": f"2026-03-{day:02}"}
            at = datetime(2026, 3, day, hour, 15, tzinfo=UTC)
            message = f"{check} on {day}: {status}\x1b[2J"
            rows.append(full_row(QUALITY_RESULTS, check_id=str(len(rows)), run_timestamp=at, message=message, **row))
    add(local_lake(settings), QUALITY_RESULTS, *rows)
    return settings


def _figures(rows: list[dict[str, Any]], *keys: str) -> dict[Any, tuple[Any, ...]]:
    columns = ("judged", "passed", "warnings", "failed", "skipped", "pass_rate", "change")
    return {"/".join(row[key] for key in keys): tuple(row[name] for name in columns) for row in rows}


def test_rates_by_day_table_and_check(settings: Settings) -> None:
    report = quality_report(local_lake(settings), 7)
    whole = pytest.approx(100 * 3 / 5 - 100 * 4 / 5)
    assert _figures(report.days, "run_date") == {
        "2026-03-09": (5, 3, 0, 2, 1, 60.0, whole),
        "2026-03-07": (5, 4, 1, 0, 1, 80.0, None),
    }
    tables = _figures(report.tables, "table_name")
    assert tables == {
        BRONZE: (6, 4, 0, 2, 1, pytest.approx(100 * 4 / 6), pytest.approx(100 / 3 - 100)),
        SILVER: (4, 3, 1, 0, 1, 75.0, 50.0),
    }
    assert list(tables) == [BRONZE, SILVER]  # worst first
    checks = _figures(report.checks, "table_name", "check_name")
    assert checks == {
        f"{SILVER}/drift": (3, 2, 1, 0, 0, pytest.approx(100 * 2 / 3), 50.0),
        f"{BRONZE}/type_valid": (6, 4, 0, 2, 1, pytest.approx(100 * 4 / 6), pytest.approx(100 / 3 - 100)),
        f"{SILVER}/unique": (1, 1, 0, 0, 0, 100.0, None),
        f"{SILVER}/latency": (0, 0, 0, 0, 1, None, None),
    }
    # As many have passed; the one that failed is worse than the one that warned.
    assert [check["check_name"] for check in report.worst] == ["type_valid", "drift"]
    assert report.worst[0]["last_breach"] == datetime(2026, 3, 9, 10, 15, tzinfo=UTC)
    assert report.worst[0]["last_message"].startswith("type_valid on 9: ERROR")


def test_days_are_counted_back_from_the_newest_verdict(settings: Settings) -> None:
    lake = local_lake(settings)
    counted = {days: [day["run_date"][-2:] for day in quality_report(lake, days).days] for days in (1, 2, 3, 8, 9)}
    assert counted == {1: ["09"], 2: ["09"], 3: ["09", "07"], 8: ["09", "07"], 9: ["09", "07", "01"]}


def test_the_report_as_text_and_as_json(settings: Settings) -> None:
    done = wikistream("quality", settings=settings)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "2026-03-09 5 3 0 2 1 60.0 % -20.0" in lines
    assert f"{SILVER} 4 3 1 0 1 75.0 % +50.0" in lines
    assert f"{BRONZE} type_valid 6 4 0 2 1 66.7 % -66.7" in lines
    assert r"2026-03-09 10:15Z type_valid: type_valid on 9: ERROR\x1b[2J" in lines
    as_json = wikistream("quality", "--json", "--days", "1", settings=settings)
    report = json.loads(as_json.stdout)
    assert {name: len(rows) for name, rows in report.items()} == {"days": 1, "tables": 2, "checks": 4}
    assert report["days"][0]["pass_rate"] == 60.0
    assert wikistream("quality", "--days", "0", settings=settings).returncode == 2


def test_a_lake_without_verdicts_says_so(settings_factory: Any) -> None:
    settings = settings_factory()
    open_home(settings)
    local_lake(settings)
    done = wikistream("quality", settings=settings)
    assert done.returncode == 0
    assert done.stdout.startswith("no gate has run yet")
    as_json = wikistream("quality", "--json", settings=settings)
    assert json.loads(as_json.stdout) == {"days": [], "tables": [], "checks": []}
