"""Contracts of the audit trail: every verdict, profile, failing key and operator decision."""

from typing import Final

from wikistream_assets.tables.spec import TableSpec, columns

AUDIT_TRAIL: Final = "dq_audit"
"""The namespace of these tables, and the layer they are looked after with."""

_GATED = (
    "bronze.raw_events",
    "silver.cleaned_events",
    "gold.hourly_stats",
    "gold.risk_scores",
    "gold.entity_trends",
    "gold.daily_analytics_summary",
)

_PROFILED = ("bronze.raw_events", "silver.cleaned_events")

QUALITY_RESULTS = TableSpec(
    namespace=AUDIT_TRAIL,
    name="quality_results",
    description="One row per check, audited range and attempt: the verdict with its figures.",
    columns=columns(
        ("check_id", "string", "hash of table, check, range, attempt and, of a backfill, its dates; unique"),
        ("run_id", "string", "Dagster run, or the command that ran the gate"),
        ("stream", "string", "name of the declared stream; null in rows of before there was more than one"),
        ("layer", "string", "bronze, silver or gold"),
        ("table_name", "string", "namespace.name of the audited table"),
        ("check_name", "string", "name of the rule, the same as the Dagster asset check's"),
        (
            "check_type",
            "string",
            "completeness, timeliness, validity, accuracy, consistency, uniqueness, drift or upstream",
        ),
        ("severity", "string", "ERROR blocks, WARNING does not"),
        ("status", "string", "PASSED, WARNING, FAILED, ERROR or SKIPPED"),
        ("metric_value", "double", "the measured figure; null where nothing was measured"),
        ("threshold_value", "double", "the figure must be at least this"),
        ("records_checked", "long", "rows looked at"),
        ("records_passed", "long", "rows that meet the rule"),
        ("records_failed", "long", "rows that break the rule"),
        ("failure_rate", "double", "records_failed / records_checked; 0 if none was checked"),
        ("message", "string", "the verdict in one sentence"),
        ("evidence", "string", "JSON: whatever else is needed to judge the verdict"),
        ("check_duration_ms", "long", "time the check took, milliseconds"),
        (
            "range_start",
            "long",
            "snapshot the audited range starts after; the empty table's first one for the first range",
        ),
        ("range_end", "long", "last snapshot of the audited range"),
        ("attempt", "int", "1 for the first audit of a range with this end"),
        ("run_timestamp", "timestamp", "when the gate ran"),
        ("run_date", "string", "UTC date of run_timestamp, yyyy-MM-dd; partition"),
    ),
    partition_by=("run_date",),
    key=("check_id",),
    upstream=_GATED,
)

PROFILE_METRICS = TableSpec(
    namespace=AUDIT_TRAIL,
    name="profile_metrics",
    description="One row per profiled column and audit, and per complete hour and value: the history that checks compare with.",
    columns=columns(
        ("run_id", "string", "Dagster run, or the command that ran the gate"),
        ("stream", "string", "name of the declared stream; null in rows of before there was more than one"),
        ("layer", "string", "bronze, silver or gold"),
        ("table_name", "string", "namespace.name of the audited table"),
        ("column_name", "string", "profiled column"),
        ("event_hour", "timestamp", "beginning of the complete hour that was counted; null in the profile of a range"),
        ("value", "string", "the column's value that was counted in that hour; null in the profile of a range"),
        ("record_count", "long", "rows profiled, or counted"),
        ("null_count", "long", "rows in which the column is null"),
        ("null_rate", "double", "null_count / record_count"),
        ("distinct_count", "long", "distinct non-null values"),
        ("mean_value", "double", "mean; numeric columns only"),
        ("stddev_value", "double", "sample standard deviation; numeric columns only"),
        ("min_value", "double", "smallest value; numeric columns only"),
        ("max_value", "double", "largest value; numeric columns only"),
        ("p25", "double", "25th percentile, linear interpolation; numeric columns only"),
        ("p50", "double", "median; numeric columns only"),
        ("p75", "double", "75th percentile; numeric columns only"),
        ("p95", "double", "95th percentile; numeric columns only"),
        ("run_timestamp", "timestamp", "when the gate ran"),
        ("run_date", "string", "UTC date of run_timestamp, yyyy-MM-dd; partition"),
    ),
    partition_by=("run_date",),
    key=("run_id", "table_name", "column_name", "event_hour", "value"),
    upstream=_PROFILED,
)

FAILING_ROWS = TableSpec(
    namespace=AUDIT_TRAIL,
    name="failing_rows",
    description="Up to 100 keys of rows that break a rule, per failed check.",
    columns=columns(
        ("check_id", "string", "the verdict in quality_results"),
        ("run_id", "string", "Dagster run, or the command that ran the gate"),
        ("stream", "string", "name of the declared stream; null in rows of before there was more than one"),
        ("table_name", "string", "namespace.name of the audited table"),
        ("check_name", "string", "name of the rule"),
        ("failing_key", "string", "key of a row that breaks the rule; IP users as ip-<keyed hash>", "personal"),
        ("run_timestamp", "timestamp", "when the gate ran"),
        ("run_date", "string", "UTC date of run_timestamp, yyyy-MM-dd; partition"),
    ),
    partition_by=("run_date",),
    key=("check_id", "failing_key"),
    upstream=("dq_audit.quality_results",),
)

GATE_DECISIONS = TableSpec(
    namespace=AUDIT_TRAIL,
    name="gate_decisions",
    description="One row per operator decision, on a failed check or to roll a table back: who, when, why, what it covers.",
    columns=columns(
        ("decision_id", "string", "short unique id, named in quarantine as rejected:<decision_id>"),
        (
            "action",
            "string",
            "accept (waive one check for one range), reject (send matching rows to quarantine) or rollback (set main back)",
        ),
        ("stream", "string", "name of the declared stream; null in rows of before there was more than one"),
        ("table_name", "string", "namespace.name of the audited table"),
        ("check_name", "string", "name of the failed rule; null for a rollback"),
        ("range_start", "long", "snapshot the failed range starts after; of a rollback the snapshot main was set to"),
        ("range_end", "long", "last snapshot of the failed range; of a rollback the head that was left"),
        ("predicate", "string", "SQL condition on the audited rows; reject only", "personal"),
        ("reason", "string", "why, in the operator's words"),
        ("decided_by", "string", "who decided"),
        ("decided_at", "timestamp", "when"),
        ("decision_date", "string", "UTC date of decided_at, yyyy-MM-dd; partition"),
    ),
    partition_by=("decision_date",),
    key=("decision_id",),
    upstream=("dq_audit.quality_results",),
)

AUDIT_TRAIL_TABLES: Final = (QUALITY_RESULTS, PROFILE_METRICS, FAILING_ROWS, GATE_DECISIONS)
