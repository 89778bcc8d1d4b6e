"""What is watched by metadata alone, on real Iceberg tables: each alert fires by its cause and clears."""

import json
from datetime import date
from typing import Any

import pytest

from wikistream_assets.alerts import AlertKind, Alerts
from wikistream_assets.alerts.watch import (
    Idle,
    Stale,
    watch_cpu,
    watch_dead_letters,
    watch_lag,
    watch_latency,
    watch_stale,
)
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import Masked, summary_properties
from wikistream_assets.readers.edits.risks import watch_risks
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import RAW_EVENTS, RISK_SCORES
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = pytest.mark.local


@pytest.fixture
def alerts(settings: Settings) -> Alerts:
    return Alerts(settings)


def told(settings: Settings) -> list[tuple[str, str]]:
    path = settings.root / "logs" / "alerts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["event"], line["subject"]) for line in lines]


def test_lag(settings: Settings, alerts: Alerts) -> None:
    seen: dict[str, int] = {}
    states = []
    for waiting in (10_000, 50_000, 10_000, 10_001, 12_000, 12_000, 10_000, 10_001):
        found = {"raw-events": {0: waiting - waiting // 2, 1: waiting // 2}, "dlq-events": {0: 1}}
        seen = watch_lag(alerts, found, 10_000, seen)
        states.append(alerts.is_open(AlertKind.LAG, "raw-events"))
    assert states == [False, False, False, False, True, True, False, False], "one burst is none"
    assert told(settings) == [("fired", "raw-events"), ("cleared", "raw-events")]


def test_latency(settings: Settings, alerts: Alerts, lake: Lakehouse) -> None:
    seen, states = None, []
    #      second, 95th percentile of the newest batch, milliseconds; None of a batch without events
    for second, late in (
        (0, None),
        (10, 59_000),
        (40, 61_000),
        (100, None),
        (339, 90_000),
        (340, 61_000),
        (400, 60_000),
    ):
        lag = {} if late is None else {"p50": 1, "p95": late}
        lake.append(RAW_EVENTS, properties=summary_properties({}, {"lag_ms": lag}))
        seen = watch_latency(alerts, lake, EDITS.raw, seen, float(second), 60)
        states.append(alerts.is_open(AlertKind.LATENCY, "bronze.raw_events"))
    assert states == [False, False, False, False, False, True, False]
    assert [event for event, _ in told(settings)] == ["fired", "cleared"]


def test_one_late_batch_is_not_late_for_as_long_as_nothing_follows_it(
    settings: Settings, alerts: Alerts, lake: Lakehouse
) -> None:
    def commit(late: int) -> None:
        lake.append(RAW_EVENTS, properties=summary_properties({}, {"lag_ms": {"p95": late}}))

    commit(61_000)
    seen = None
    for second in (0, 30, 300, 600):
        seen = watch_latency(alerts, lake, EDITS.raw, seen, float(second), 60)
    lake.mark_masked(RAW_EVENTS, Masked("2026-01-01"))  # it carries on what the batch before it counted
    seen = watch_latency(alerts, lake, EDITS.raw, seen, 630.0, 60)
    assert told(settings) == []
    commit(90_000)
    watch_latency(alerts, lake, EDITS.raw, seen, 660.0, 60)
    assert told(settings) == [("fired", "bronze.raw_events")]


def test_what_is_stale_because_nothing_new_is_to_be_had_is_a_warning(settings: Settings, alerts: Alerts) -> None:
    def severities(*looks: tuple[float, Idle | None]) -> list[str | None]:
        """Looks at a stale table, whose policy allows a minute; the severity of the open alert after each."""
        found: list[str | None] = []
        seen = Stale()
        for second, idle in looks:
            seen = watch_stale(alerts, "gold.hourly_stats", idle, seen, second, 60.0)
            found.append(next((opened.notice.severity for opened in alerts.open_alerts()), None))
        alerts.clear(AlertKind.FRESHNESS, "gold.hourly_stats")
        return found

    error, warning = "ERROR", "WARNING"
    assert severities((0, None), (10, None)) == [error, error]
    assert severities((0, Idle.QUIET), (10, Idle.QUIET), (3600, Idle.QUIET)) == [warning] * 3
    quiet_until_10 = ((0.0, Idle.QUIET), (10.0, Idle.QUIET))
    assert severities(*quiet_until_10, (20, None), (69, None), (70, None), (80, None)) == [warning] * 4 + [error] * 2
    assert severities(*quiet_until_10, (60, None), (70, Idle.QUIET), (80, None)) == [warning] * 5, "it has gone on"
    assert severities((0, None), (10, Idle.QUIET)) == [error, warning]
    assert severities((0, Idle.ENDED), (10, Idle.ENDED), (69, None), (70, None)) == [None, None, None, error]
    assert severities((0, Idle.QUIET), (10, Idle.ENDED), (20, Idle.QUIET)) == [warning, None, warning]
    path = settings.root / "logs" / "alerts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line["severity"]) for line in lines if line["event"] != "cleared"] == [
        ("fired", error),
        ("fired", warning),
        ("fired", warning),
        ("repeated", error),
        ("fired", warning),
        ("fired", error),
        ("fired", error),
        ("fired", warning),
        ("fired", warning),
    ], "said once, and at once when it becomes worse"
    stale = "gold.hourly_stats is older than its freshness policy allows"
    assert [line["message"] for line in lines][:3:2] == [stale, f"{stale}: the source is heard, but has nothing for us"]


def test_processor_time_of_the_producer(settings: Settings, alerts: Alerts) -> None:
    seen, states = None, []
    #      second, processor seconds so far; the fifth is those of a new process
    for second, spent in (
        (0, 500),
        (300, 741),
        (450, 890),
        (600, 982),
        (900, 10),
        (1200, 251),
        (1500, 492),
        (1800, 732),
    ):
        seen = watch_cpu(alerts, "producer", spent, seen, float(second), 300.0)
        states.append(alerts.is_open(AlertKind.PRODUCER_CPU, "producer"))
    assert states == [False, False, False, True, True, True, True, False]
    assert [event for event, _ in told(settings)] == ["fired", "cleared"]


def test_dead_letters(settings: Settings, alerts: Alerts, lake: Lakehouse) -> None:
    total = 0

    def arrive(number: int) -> None:
        nonlocal total
        total += number
        counts = {"total": {"records": total, "rows": 0, "dead_letters": total, "duplicates": 0}}
        lake.append(RAW_EVENTS, properties=summary_properties({"dlq-events": {"0": total}}, counts))

    seen = None
    states = []
    #      second, letters since the last look
    for second, number in (
        (0, 500),
        (30, 100),
        (60, 5),
        (120, 11),
        (180, 10),
        (240, 11),
        (300, 22),
        (360, 20),
        (420, 10),
    ):
        arrive(number)
        seen = watch_dead_letters(alerts, lake, EDITS, seen, float(second), 10)
        states.append(alerts.is_open(AlertKind.DLQ_RATE, "dlq-events"))
    # What was there before anyone looked is no rate; 105 in the first minute, 11 in the second: that is two in a row.
    assert states == [False, False, False, True, False, False, True, True, False]
    assert [event for event, _ in told(settings)] == ["fired", "cleared", "fired", "cleared"]


TODAY = date(2026, 3, 5)


def kept_since(settings: Settings, mask_after_days: int = 90) -> str:
    return settings.model_copy(update={"privacy_mask_after_days": mask_after_days}).names_kept_since(TODAY)


def risk(day: str, user: str, level: str = "HIGH") -> dict[str, Any]:
    return full_row(RISK_SCORES, stat_date=day, entity_id=user, risk_level=level, risk_score=72.0)


def test_high_risk_users_are_told_once_each_day(settings: Settings, alerts: Alerts, lake: Lakehouse) -> None:
    add(lake, RISK_SCORES, risk("2026-02-01", "History"), risk("2026-03-01", "Ann"), risk("2026-03-02", "Bob"))
    seen = watch_risks(alerts, lake, None, kept_since(settings))
    assert seen == lake.state(RISK_SCORES).head().snapshot_id  # type: ignore[union-attr]
    assert watch_risks(alerts, lake, seen, kept_since(settings)) == seen
    add(lake, RISK_SCORES, risk("2026-03-02", "Bob"), risk("2026-03-02", "Mild", "MEDIUM"), risk("2026-03-03", "Ann"))
    add(lake, RISK_SCORES, risk("2026-03-04", "ip-0123456789abcdef"))
    watch_risks(alerts, lake, seen, kept_since(settings))
    assert told(settings) == [
        ("fired", "2026-03-01/Ann"),
        ("fired", "2026-03-02/Bob"),
        ("fired", "2026-03-03/Ann"),
        ("fired", "2026-03-04/ip-0123456789abcdef"),
    ], "the days before the last two are history when no one has looked before"


def test_only_files_of_new_days_are_read(settings: Settings, alerts: Alerts, lake: Lakehouse) -> None:
    old = add(lake, RISK_SCORES, risk("2026-03-01", "Ann"))
    add(lake, RISK_SCORES, risk("2026-03-02", "Bob"))
    table = lake.table(RISK_SCORES)
    (old_file,) = [task.file.file_path for task in table.scan(row_filter="stat_date = '2026-03-01'").plan_files()]
    table.io.delete(old_file)
    watch_risks(alerts, lake, old, kept_since(settings))
    assert told(settings) == [("fired", "2026-03-02/Bob")]


def test_masked_days_are_not_told_again_by_their_hashes(settings: Settings, alerts: Alerts, lake: Lakehouse) -> None:
    def rewritten(user: str, *days: str) -> list[str]:
        """The days for which the user is told after their rows were written anew, as masking and compaction do."""
        seen = add(lake, RISK_SCORES, risk("2026-03-05", "Bob", "LOW"))
        add(lake, RISK_SCORES, *(risk(day, user) for day in days))
        watch_risks(alerts, lake, seen, kept_since(settings, mask_after_days))
        return [subject.split("/")[0] for _, subject in told(settings) if subject.endswith(f"/{user}")]

    mask_after_days = 3
    assert rewritten("user-1", "2026-03-01", "2026-03-02") == ["2026-03-02"], "the first date is older than three days"
    mask_after_days = 0
    assert rewritten("user-2", "2026-03-01", "2026-03-02") == ["2026-03-01", "2026-03-02"], "0 never masks"
    lake.mark_masked(RISK_SCORES, Masked("2026-03-02"))
    assert rewritten("user-3", "2026-03-01", "2026-03-02") == ["2026-03-02"], "masked under an earlier setting"
