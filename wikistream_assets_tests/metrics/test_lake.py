"""What the exporter says of a known lake, a known broker, a known run: exact figures."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from wikistream_assets.alerts import Alert, Alerts
from wikistream_assets.alerts.watch import lag, watch_lag
from wikistream_assets.cli.metrics import DOCUMENT
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import summary_properties
from wikistream_assets.metrics.catalogue import document
from wikistream_assets.metrics.lake import LakeMetrics
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, free_port, wait_until
from wikistream_assets_tests.defs.test_loop_sensors import run_cycle
from wikistream_assets_tests.kafka_records import event_message, produce
from wikistream_assets_tests.lake.lakes import add, arrow, full_row
from wikistream_assets_tests.metrics.scrape import parse, scrape
from wikistream_assets_tests.producer.samples import ID, line

REPOSITORY = Path(__file__).parents[2]


def figures(settings: Settings) -> dict[str, float]:
    return parse(generate_latest(LakeMetrics(settings).registry).decode())


def verdict(layer: str, table: str, check: str, status: str, failed: int = 0) -> dict[str, Any]:
    names = {"layer": layer, "table_name": table, "check_name": check, "status": status, "records_failed": failed}
    return full_row(QUALITY_RESULTS, **names, check_duration_ms=250)


@pytest.mark.local
def test_without_a_lake_nothing_is_made_and_nothing_is_claimed(settings: Settings) -> None:
    assert figures(settings) == {
        'wikistream_source_up{source="alerts"}': 1.0,
        'wikistream_alerts_waiting{channel="log"}': 0.0,
    }
    assert not settings.catalog_db.exists()


@pytest.mark.local
def test_a_known_lake(settings: Settings, lake: Lakehouse) -> None:
    counts = {"total": {"records": 10, "rows": 3, "dead_letters": 5, "duplicates": 2}}
    rows = arrow(lake, RAW_EVENTS, *(full_row(RAW_EVENTS, event_id=str(number)) for number in range(3)))
    lake.append(RAW_EVENTS, rows, summary_properties({"raw-events": {"0": 5}}, counts))
    bronze, silver = RAW_EVENTS.identifier, CLEANED_EVENTS.identifier
    add(lake, QUALITY_RESULTS, verdict("bronze", bronze, "a", "FAILED", 7), verdict("bronze", bronze, "b", "PASSED"))
    add(lake, QUALITY_RESULTS, verdict("silver", silver, "c", "ERROR", 4), verdict("silver", silver, "d", "WARNING", 1))
    add(lake, QUALITY_RESULTS, verdict("bronze", bronze, "a", "PASSED"), verdict("bronze", bronze, "b", "PASSED"))
    Alerts(settings).fire(Alert("lag", "raw-events", "m"))
    found = figures(settings)
    table = lake.table(RAW_EVENTS)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    expected = {
        'wikistream_source_up{source="lake"}': 1.0,
        'wikistream_source_up{source="kafka"}': 0.0,
        f'wikistream_table_rows{{table="{bronze}"}}': 3.0,
        f'wikistream_table_files{{table="{bronze}"}}': 1.0,
        f'wikistream_table_size_bytes{{table="{bronze}"}}': float(
            sum(task.file.file_size_in_bytes for task in table.scan().plan_files())
        ),
        f'wikistream_table_snapshots{{table="{bronze}"}}': 2.0,
        f'wikistream_table_snapshot_timestamp_seconds{{table="{bronze}"}}': snapshot.timestamp_ms / 1000,
        'wikistream_bronze_records_total{stream="edits"}': 10.0,
        'wikistream_bronze_rows_total{stream="edits"}': 3.0,
        'wikistream_bronze_dead_letters_total{stream="edits"}': 5.0,
        'wikistream_bronze_duplicates_total{stream="edits"}': 2.0,
        'wikistream_gate_blocked{layer="bronze",stream="edits"}': 0.0,
        'wikistream_gate_pass_ratio{layer="bronze",stream="edits"}': 1.0,
        'wikistream_gate_pass_ratio{layer="silver",stream="edits"}': 0.5,
        f'wikistream_check_status{{check="a",status="PASSED",table="{bronze}"}}': 1.0,
        f'wikistream_check_status{{check="c",status="ERROR",table="{silver}"}}': 1.0,
        f'wikistream_check_status{{check="d",status="WARNING",table="{silver}"}}': 1.0,
        f'wikistream_check_failed_records{{check="c",table="{silver}"}}': 4.0,
        f'wikistream_check_duration_seconds{{check="c",table="{silver}"}}': 0.25,
        'wikistream_alerts_open{kind="lag",severity="ERROR"}': 1.0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert f'wikistream_check_status{{check="a",status="FAILED",table="{bronze}"}}' not in found, "only the newest"
    assert not any(name.startswith("wikistream_kafka_lag") for name in found), "what cannot be asked is not claimed"


@pytest.mark.local
def test_the_share_that_went_to_quarantine(settings: Settings, lake: Lakehouse) -> None:
    silver = CLEANED_EVENTS.identifier
    evidence = json.dumps({"read": 600, "quarantined": 150, "rules": {"missing_user": 140, "negative_length": 20}})
    by_range = verdict("silver", silver, "quarantine_budget_range", "FAILED", 150)
    by_day = verdict("silver", silver, "quarantine_budget_day", "SKIPPED")
    budgets = by_range | {"metric_value": 0.75}, by_day | {"metric_value": None}
    add(lake, QUALITY_RESULTS, *(row | {"evidence": evidence} for row in budgets))
    found = {name: figure for name, figure in figures(settings).items() if name.startswith("wikistream_quarantine")}
    assert found == {
        'wikistream_quarantine_ratio{span="range",stream="edits"}': 0.25,
        'wikistream_quarantine_rule_rows{rule="missing_user",stream="edits"}': 140.0,
        'wikistream_quarantine_rule_rows{rule="negative_length",stream="edits"}': 20.0,
    }


@pytest.mark.local
def test_a_broken_catalog_is_told_and_takes_nothing_else_away(settings: Settings) -> None:
    open_home(settings)
    settings.catalog_db.write_bytes(b"not a database, whatever its name says" * 100)
    found = figures(settings)
    assert found == {
        'wikistream_source_up{source="lake"}': 0.0,
        'wikistream_source_up{source="kafka"}': 0.0,
        'wikistream_source_up{source="alerts"}': 1.0,
        'wikistream_source_up{source="dagster"}': 1.0,
        'wikistream_alerts_waiting{channel="log"}': 0.0,
    }


@pytest.mark.local
def test_only_the_files_of_the_newest_verdicts_are_opened(settings: Settings, lake: Lakehouse) -> None:
    add(lake, QUALITY_RESULTS, verdict("bronze", RAW_EVENTS.identifier, "old", "PASSED"))
    (old,) = [task.file.file_path for task in lake.table(QUALITY_RESULTS).scan().plan_files()]
    for layer in ("gold", "silver", "bronze"):
        add(lake, QUALITY_RESULTS, verdict(layer, RAW_EVENTS.identifier, "new", "PASSED"))
    lake.table(QUALITY_RESULTS).io.delete(old)
    found = figures(settings)
    assert {name for name in found if "gate_pass_ratio" in name} == {
        f'wikistream_gate_pass_ratio{{layer="{layer}",stream="edits"}}' for layer in ("bronze", "silver", "gold")
    }


@pytest.mark.local
def test_a_closed_gate(settings: Settings, lake: Lakehouse) -> None:
    start = lake.state(RAW_EVENTS).head_id()
    end = add(lake, RAW_EVENTS, full_row(RAW_EVENTS), position={"raw-events": {"0": 1}})
    failed = verdict("bronze", RAW_EVENTS.identifier, "a", "FAILED", 1)
    add(lake, QUALITY_RESULTS, failed | {"range_start": start, "range_end": end})
    found = figures(settings)
    blocked = [
        found[f'wikistream_gate_blocked{{layer="{layer}",stream="edits"}}'] for layer in ("bronze", "silver", "gold")
    ]
    assert blocked == [1.0, 0.0, 0.0]


@pytest.mark.local
@pytest.mark.parametrize(("ends", "success"), [("passed", 1.0), ("blocked", 0.0), ("broken", 0.0)])
def test_the_newest_cycle(
    settings: Settings, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, ends: str, success: float
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that what is set below does not outlive the test
    with dagster_instance(settings) as instance:
        run_cycle(instance, ends)
        (record,) = instance.get_run_records()
    found = figures(settings)
    assert record.start_time is not None
    assert record.end_time is not None
    assert found["wikistream_cycle_success"] == success
    assert found["wikistream_cycle_duration_seconds"] == record.end_time - record.start_time
    assert found["wikistream_cycle_end_timestamp_seconds"] == record.end_time


@pytest.mark.kafka
def test_lag_by_partition_and_its_alert(settings_factory: SettingsFactory, fresh_topics: Broker) -> None:
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    lake, alerts = local_lake(settings), Alerts(settings)
    message = event_message(ID, line(), 1)
    produce(settings.bootstrap_servers, [message] * 12_000, per_transaction=6_000)
    found = figures(settings)
    assert found['wikistream_source_up{source="kafka"}'] == 1.0
    labels = [("dlq-events", 0), ("raw-events", 0), ("raw-events", 1), ("raw-events", 2)]
    waiting = [found[f'wikistream_kafka_lag_offsets{{partition="{n}",topic="{topic}"}}'] for topic, n in labels]
    assert waiting == [0, 0, 12_002, 0], "12,000 records and the markers of two transactions"
    seen: dict[str, int] = {}
    for _ in range(2):
        seen = watch_lag(alerts, lag(fresh_topics, lake, EDITS), settings.alert_lag_records, seen)
    (opened,) = alerts.open_alerts()
    assert (opened.notice.kind, opened.notice.subject) == ("lag", "raw-events")
    lake.append(RAW_EVENTS, properties=summary_properties({"raw-events": {"1": 12_000}}, {}))
    watch_lag(alerts, lag(fresh_topics, lake, EDITS), settings.alert_lag_records, seen)
    assert alerts.open_alerts() == []
    assert figures(settings)['wikistream_kafka_lag_offsets{partition="1",topic="raw-events"}'] == 2.0


@pytest.mark.local
def test_the_endpoint(settings_factory: SettingsFactory) -> None:
    settings = settings_factory(metrics_port=free_port())
    command = [sys.executable, "-c", "from wikistream_assets.cli.main import main; main()", "metrics", "serve"]
    with subprocess.Popen(command, env=child_environment(settings), stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: _listens(settings.metrics_port))
            assert scrape(settings.metrics_port)['wikistream_source_up{source="alerts"}'] == 1.0
            taken = wikistream("metrics", "serve", settings=settings)
            assert taken.returncode == 2
            assert taken.stderr.startswith(f"error: port {settings.metrics_port} cannot be used for metrics")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.local
def test_committed_list_is_what_the_code_says() -> None:
    assert (REPOSITORY / DOCUMENT).read_text(encoding="utf-8") == document()


@pytest.mark.local
def test_names_follow_the_convention() -> None:
    names = [text.split("`")[1] for text in document().splitlines() if text.startswith("| `")]
    assert len(names) == len(set(names))
    units = ("_total", "_seconds", "_bytes", "_ratio")
    counted = ("rows", "files", "snapshots", "offsets", "records")
    states = ("up", "blocked", "status", "success", "open", "waiting")
    assert all(name.startswith("wikistream_") for name in names)
    assert all(name.endswith((*units, *counted, *states)) for name in names)


@pytest.mark.local
def test_check_finds_a_stale_list(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "M.md"
    assert wikistream("metrics", "document", "--check", "--path", str(path)).returncode == 1
    assert wikistream("metrics", "document", "--path", str(path)).returncode == 0
    assert wikistream("metrics", "document", "--check", "--path", str(path)).returncode == 0
