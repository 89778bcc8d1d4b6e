"""Verdicts and profiles as rows: exactly the contracts' columns, order and types, and figures that agree with each other."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from wikistream_assets.quality.outcomes import broken, computed, not_applicable
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS
from wikistream_assets.tables.audit_rows import (
    GateContext,
    check_id,
    failing_rows_table,
    profile_metrics_table,
    quality_results_table,
)
from wikistream_assets.tables.dq_audit import FAILING_ROWS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec

pytestmark = pytest.mark.unit

CONTEXT = GateContext(
    run_id="run-1",
    stream="edits",
    layer="silver",
    range_start=None,
    range_end=42,
    attempt=2,
    ran_at=datetime(2026, 3, 2, 0, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
)
TABLE = CLEANED_EVENTS.identifier
FAILED = computed(
    CLEANED_EVENTS.rule("region_mapping"),
    TABLE,
    metric=0.98,
    ok=False,
    message="2 of 100 rows break the rule",
    evidence={"größe": 1, "a": [1, 2]},
    records_checked=100,
    records_failed=2,
    keys=("e1", "e2"),
    duration_ms=17,
)
SKIPPED = not_applicable(CLEANED_EVENTS.rule("drift_numeric"), TABLE, "learning (1 of 10 runs)")
ERROR = broken(CLEANED_EVENTS.rule("language_not_null"), TABLE, "no such column")


def assert_contract(table: pa.Table, spec: TableSpec) -> None:
    names = {
        "string": "string",
        "int": "int32",
        "long": "int64",
        "double": "double",
        "timestamp": "timestamp[us, tz=UTC]",
    }
    assert [(field.name, str(field.type)) for field in table.schema] == [
        (column.name, names[column.type]) for column in spec.columns
    ]


def test_a_verdict_is_one_row_with_its_figures() -> None:
    table = quality_results_table([FAILED, SKIPPED, ERROR], CONTEXT)

    assert_contract(table, QUALITY_RESULTS)
    assert table.to_pylist()[0] == {
        "check_id": hashlib.sha256(b'["silver.cleaned_events", "region_mapping", null, 42, 2]').hexdigest(),
        "run_id": "run-1",
        "stream": "edits",
        "layer": "silver",
        "table_name": "silver.cleaned_events",
        "check_name": "region_mapping",
        "check_type": "accuracy",
        "severity": "ERROR",
        "status": "FAILED",
        "metric_value": 0.98,
        "threshold_value": 1.0,
        "records_checked": 100,
        "records_passed": 98,
        "records_failed": 2,
        "failure_rate": 0.02,
        "message": "2 of 100 rows break the rule",
        "evidence": '{"a": [1, 2], "größe": 1}',
        "check_duration_ms": 17,
        "range_start": None,
        "range_end": 42,
        "attempt": 2,
        "run_timestamp": datetime(2026, 3, 1, 22, 30, 0, 123456, tzinfo=UTC),
        "run_date": "2026-03-01",
    }


def test_what_was_not_measured_has_no_metric() -> None:
    rows = quality_results_table([SKIPPED, ERROR], CONTEXT).to_pylist()

    assert [(row["status"], row["metric_value"], row["failure_rate"]) for row in rows] == [
        ("SKIPPED", None, 0.0),
        ("ERROR", None, 0.0),
    ]
    assert [json.loads(row["evidence"]) for row in rows] == [{}, {}]


def test_each_failing_key_is_a_row_of_its_verdict() -> None:
    table = failing_rows_table([SKIPPED, FAILED], CONTEXT)
    (verdict,) = quality_results_table([FAILED], CONTEXT).to_pylist()

    assert_contract(table, FAILING_ROWS)
    assert table["failing_key"].to_pylist() == ["e1", "e2"]
    assert set(table["check_id"].to_pylist()) == {verdict["check_id"]}


def test_a_profile_is_a_row_per_column() -> None:
    profiles = [ColumnProfile("region", 8, 2, 3), ColumnProfile("length_delta", 8, 0, 5, 1.5, 2.0, -1, 9, 0, 1, 2, 3)]

    table = profile_metrics_table(profiles, TABLE, CONTEXT)

    assert_contract(table, PROFILE_METRICS)
    assert [(row["column_name"], row["null_rate"], row["p95"]) for row in table.to_pylist()] == [
        ("region", 0.25, None),
        ("length_delta", 0.0, 3.0),
    ]


def test_without_rows_the_schema_is_kept() -> None:
    assert_contract(quality_results_table([], CONTEXT), QUALITY_RESULTS)
    assert_contract(failing_rows_table([], CONTEXT), FAILING_ROWS)
    assert_contract(profile_metrics_table([], TABLE, CONTEXT), PROFILE_METRICS)


def test_a_check_id_names_one_attempt_at_one_range() -> None:
    first = replace(CONTEXT, range_start=1, range_end=2, attempt=1)
    ids = {
        check_id("a.b", "c", first),
        check_id("a.b", "c", replace(first, attempt=2)),
        check_id("a.b", "c", replace(first, range_start=None)),
        check_id("a.b", "c", replace(first, dates=("2026-03-01",))),
        check_id("a.b", "c", replace(first, dates=("2026-03-01", "2026-03-02"))),
        check_id("a.b", "d", first),
        check_id("a.c", "c", first),
    }

    assert len(ids) == 7
    again = replace(CONTEXT, run_id="another run", ran_at=datetime(2026, 4, 1, tzinfo=UTC))
    assert quality_results_table([FAILED], again)["check_id"] == quality_results_table([FAILED], CONTEXT)["check_id"]
