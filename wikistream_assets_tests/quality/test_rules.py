"""Every rule of every table: clean rows pass all of them, and for each there is a fault that breaks this rule and no other."""

import ipaddress
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.rule import CheckOutcome, Computed, Holds, Rule, Severity, Status
from wikistream_assets.tables import ALL_TABLES, CLEANED_EVENTS, TABLE_BY_IDENTIFIER, TableSpec
from wikistream_assets_tests.quality.samples import Row, clean_rows
from wikistream_assets_tests.transforms.frames import frame

pytestmark = pytest.mark.spark

Mutation = Callable[[list[Row]], list[Row]]

GATED = tuple(table for table in ALL_TABLES if table.rules)
MEASURED = [(table, rule) for table in GATED for rule in table.rules if not isinstance(rule.measure, Computed)]


def change(rows: int = 1, of: Callable[[Row], bool] = lambda row: True, **columns: Any) -> Mutation:
    """Set the columns in the first ``rows`` rows that ``of`` accepts; a callable value is given the row."""

    def mutate(clean: list[Row]) -> list[Row]:
        chosen = [row for row in clean if of(row)][:rows]
        assert len(chosen) == rows, "the clean rows hold too few rows to mutate"
        for row in chosen:
            row |= {name: value(row) if callable(value) else value for name, value in columns.items()}
        return clean

    return mutate


def repeat(**columns: Any) -> Mutation:
    """Add the first row once more, with the columns set."""
    return lambda clean: [*clean, {**clean[0], **columns}]


def plus(column: str, amount: Any) -> Callable[[Row], Any]:
    return lambda row: row[column] + amount


def registered(row: Row) -> bool:
    return bool(row["user_kind"] == "registered")


def sized(row: Row) -> bool:
    return row["length_delta"] is not None


def low(row: Row) -> bool:
    return bool(row["risk_level"] == "LOW")


MUTATIONS: dict[str, dict[str, Mutation]] = {
    "bronze.raw_events": {
        "event_id_not_null": change(event_id=None),
        "event_type_not_null": change(event_type=None),
        "domain_not_null": change(domain=None),
        "event_timestamp_not_null": change(event_timestamp=None),
        "payload_not_null": change(payload=None),
        "title_completeness": change(rows=50, title=None),
        "user_completeness": change(rows=50, user=None),
        "wiki_completeness": change(rows=50, wiki=None),
        "lineage_complete": change(kafka_timestamp=None),
        "event_type_valid": change(event_type="protect"),
        "event_hour_valid": change(event_hour=24),
        "event_date_valid": change(event_date="2026-02-28"),
        "source_mode_valid": change(source_mode="dream"),
        "kafka_position_unique": repeat(event_id="another"),
        "event_id_unique": repeat(kafka_offset=1_000_000),
        "event_timeliness": change(rows=50, bronze_processed_at=plus("event_timestamp", timedelta(seconds=181))),
        "no_future_timestamps": change(producer_ingested_at=plus("event_timestamp", timedelta(seconds=-61))),
    },
    "silver.cleaned_events": {
        "event_id_not_null": change(event_id=None),
        "domain_not_null": change(domain=None),
        "event_timestamp_not_null": change(event_timestamp=None),
        "region_not_null": change(region=None),
        "language_not_null": change(language=None),
        "length_delta_completeness": change(rows=10, of=sized, length_delta=None),
        "region_valid": change(region="atlantis"),
        "event_type_valid": change(event_type="142"),
        "user_kind_valid": change(of=registered, user_kind="alien"),
        "event_date_valid": change(event_date="2026-02-28"),
        "no_control_characters": change(title="Page\x07"),
        "is_anonymous_accuracy": change(rows=10, of=registered, is_anonymous=True, user_kind="temporary"),
        "region_mapping": change(region="middle_east"),
        "is_valid_consistent": change(is_valid=False),
        "is_anonymous_consistent": change(of=registered, is_anonymous=True),
        "is_bot_consistent": change(of=registered, is_bot=True),
        "length_delta_consistent": change(of=sized, length_new=plus("length_new", 1)),
        "size_flags_consistent": change(is_large_deletion=True),
        "event_id_unique": repeat(),
    },
    "gold.hourly_stats": {
        "stat_date_not_null": change(stat_date=None),
        "domain_not_null": change(domain=None),
        "total_events_not_null": change(total_events=None),
        "stat_hour_valid": change(stat_hour=24),
        "region_valid": change(region="atlantis"),
        "bot_percentage_valid": change(bot_percentage=100.5),
        "bytes_valid": change(bytes_removed=-1),
        "total_events_covers_users": change(unique_users=plus("total_events", 1)),
        "total_events_covers_pages": change(unique_pages=plus("total_events", 1)),
        "bot_and_human_add_up": change(human_edits=plus("human_edits", 1)),
        "bot_percentage_consistent": change(bot_percentage=lambda row: row["bot_percentage"] / 2),
        "anonymous_within_human": change(anonymous_edits=plus("human_edits", 1)),
        "type_counts_within_total": change(type_log=plus("total_events", 1)),
        "large_changes_within_total": change(large_additions=plus("total_events", 1)),
        "key_unique": repeat(),
    },
    "gold.risk_scores": {
        "stat_date_not_null": change(stat_date=None),
        "entity_id_not_null": change(entity_id=None),
        "entity_type_valid": change(of=lambda row: row["entity_type"] == "registered", entity_type="bot"),
        "ip_users_pseudonymised": change(of=lambda row: row["entity_type"] == "ip4", entity_id="192.0.2.17"),
        "total_edits_valid": change(total_edits=4, edits_per_hour_avg=2.0),
        "risk_score_valid": change(risk_score=120.0, evidence='{"speed": {"value": 1, "points": 120}}'),
        "risk_level_valid": change(of=low, risk_level="EXTREME"),
        "risk_level_consistent": change(of=low, risk_level="MEDIUM"),
        "alert_consistent": change(of=low, alert_triggered=True),
        "evidence_adds_up": change(evidence='{"speed": {"value": 1, "points": 39}}'),
        "key_unique": repeat(),
    },
    "gold.entity_trends": {
        "stat_date_not_null": change(stat_date=None),
        "entity_id_not_null": change(entity_id=None),
        "entity_type_valid": change(entity_type="planet"),
        "rank_valid": change(rank=0),
        "velocity_valid": change(edits_per_hour=lambda row: row["edits"] + 1.0),
        "trend_ratio_valid": change(trend_ratio=24.5),
        "key_unique": repeat(rank=99),
        "rank_unique": repeat(entity_id="another"),
    },
    "gold.daily_analytics_summary": {
        "summary_date_not_null": change(summary_date=None),
        "total_events_not_null": change(total_events=None),
        "percentages_valid": change(large_deletion_rate=100.5),
        "health_score_valid": change(platform_health_score=101.0),
        "risk_figures_valid": change(platform_avg_risk_score=plus("platform_max_risk_score", 1.0)),
        "user_percentages_add_up": change(bot_percentage=lambda row: row["bot_percentage"] - 0.02),
        "region_percentages_add_up": change(other_percentage=lambda row: row["other_percentage"] - 0.02),
        "total_events_covers_users": change(unique_users=plus("total_events", 1)),
        "total_events_covers_pages": change(unique_pages_edited=plus("total_events", 1)),
        "net_content_consistent": change(net_content_change=plus("net_content_change", 1)),
        "peak_hour_consistent": change(peak_hour_events=plus("total_events", 1)),
        "alerts_consistent": change(total_alerts_triggered=plus("high_risk_user_count", 1)),
        "key_unique": repeat(),
    },
}


def checked(spark: SparkSession, table: TableSpec, rows: list[Row]) -> list[CheckOutcome]:
    return evaluate(spark, frame(spark, table, rows), table.rules, table=table.identifier, key_columns=table.key)


@pytest.mark.parametrize("table", GATED, ids=lambda table: table.identifier)
def test_clean_rows_pass_every_rule(spark: SparkSession, table: TableSpec) -> None:
    outcomes = checked(spark, table, clean_rows(table))

    assert {outcome.rule.name: outcome.status for outcome in outcomes} == {
        rule.name: Status.PASSED for owner, rule in MEASURED if owner is table
    }
    assert all(outcome.records_checked > 0 and outcome.metric is not None for outcome in outcomes)


@pytest.mark.parametrize(
    ("table", "rule"), MEASURED, ids=[f"{table.identifier}-{rule.name}" for table, rule in MEASURED]
)
def test_a_fault_breaks_exactly_its_rule(spark: SparkSession, table: TableSpec, rule: Rule) -> None:
    mutate = MUTATIONS[table.identifier][rule.name]

    outcomes = checked(spark, table, mutate(clean_rows(table)))

    broken = {outcome.rule.name: outcome for outcome in outcomes if outcome.status is not Status.PASSED}
    assert set(broken) == {rule.name}
    outcome = broken[rule.name]
    assert outcome.status is (Status.WARNING if rule.severity is Severity.WARNING else Status.FAILED)
    assert outcome.records_failed > 0
    assert outcome.failing_keys


NAMES = (
    *(
        "192.0.2.17",
        "255.255.255.255",
        "256.1.1.1",
        "01.2.3.4",
        "1.2.3",
        "1.2.3.4.5",
        "1..3.4",
        "...",
        "1.2.3.99999999999",
    ),
    *(
        "::",
        "::1",
        "2001:DB8::1",
        "2001:db8:0:0:0:0:0:1",
        "1:2:3:4:5:6:7:8",
        "12345:1::",
        "1:2:3:4:5:6:7:8:9",
    ),
    *(
        "~2026-12345-67",
        "~2",
        "~26-1",
        "~",
        "Ada",
        "BEEF",
        "a:b",
        "Foo:bar:baz",
        "de>Ada",
        "٣.٣.٣.٣",
        " 192.0.2.17",
        "",
    ),
)


def test_the_independent_reading_of_names_agrees_with_pythons(spark: SparkSession) -> None:
    measure = CLEANED_EVENTS.rule("is_anonymous_accuracy").measure
    assert isinstance(measure, Holds)
    names = spark.createDataFrame([(name,) for name in NAMES], "user_normalized string")
    as_if_anonymous = names.selectExpr("user_normalized", "true AS is_anonymous", "false AS is_bot")

    found = {row.user_normalized for row in as_if_anonymous.where(measure.predicate).collect()}

    assert found == {name for name in NAMES if name.startswith("~2") or is_address(name)}


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def test_every_mutation_belongs_to_a_rule() -> None:
    assert {name: set(faults) for name, faults in MUTATIONS.items()} == {
        table.identifier: {rule.name for owner, rule in MEASURED if owner is table} for table in GATED
    }


def test_the_gates_compute_these_rules_themselves() -> None:
    computed = {
        (table.identifier, rule.name) for table in GATED for rule in table.rules if isinstance(rule.measure, Computed)
    }
    assert computed == {
        ("bronze.raw_events", "parity_kafka_bronze"),
        ("silver.cleaned_events", "parity_bronze_silver"),
        ("silver.cleaned_events", "drift_null_rate"),
        ("silver.cleaned_events", "drift_categories"),
        ("silver.cleaned_events", "drift_numeric"),
        ("gold.hourly_stats", "upstream_gates_passed"),
        ("gold.hourly_stats", "parity_silver_gold"),
        ("gold.risk_scores", "upstream_gates_passed"),
        ("gold.entity_trends", "upstream_gates_passed"),
        ("gold.daily_analytics_summary", "upstream_gates_passed"),
        ("gold.daily_analytics_summary", "parity_hourly_daily"),
    }


@pytest.mark.parametrize("table", GATED, ids=lambda table: table.identifier)
def test_every_rule_says_what_and_why(table: TableSpec) -> None:
    for rule in table.rules:
        assert rule.description.endswith(".")
        assert len(rule.because) > 15
        assert 0 < rule.threshold <= 1


def test_tables_are_found_by_name() -> None:
    assert set(MUTATIONS) <= set(TABLE_BY_IDENTIFIER)
