"""Every rule of every table: clean rows pass all of them, and for each there is a fault that breaks this rule and no other."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.rule import CheckOutcome, Computed, Holds, Rule, Severity, Status
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES, TABLE_BY_IDENTIFIER
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.quality.edges import BEYOND, EDGES, SHARE_EDGES, plant
from wikistream_assets_tests.quality.mutations import MUTATIONS
from wikistream_assets_tests.quality.samples import Row, clean_rows
from wikistream_assets_tests.streams.edits.frames import parquet_frame
from wikistream_assets_tests.user_names import KIND_BY_NAME, odd_addresses

pytestmark = pytest.mark.spark

GATED = tuple(table for table in ALL_TABLES if table.rules)
MEASURED = [(table, rule) for table in GATED for rule in table.rules if not isinstance(rule.measure, Computed)]


def checked(spark: SparkSession, table: TableSpec, rows: list[Row], folder: Path) -> list[CheckOutcome]:
    audited = parquet_frame(spark, table, rows, folder / "audited.parquet")
    return evaluate(spark, audited, table.rules, table=table.identifier, key_columns=table.key)


@pytest.mark.parametrize("table", GATED, ids=lambda table: table.identifier)
def test_clean_rows_pass_every_rule(spark: SparkSession, table: TableSpec, tmp_path: Path) -> None:
    outcomes = checked(spark, table, clean_rows(table), tmp_path)

    assert {outcome.rule.name: outcome.status for outcome in outcomes} == {
        rule.name: Status.PASSED for owner, rule in MEASURED if owner is table
    }
    assert all(outcome.records_checked > 0 and outcome.metric is not None for outcome in outcomes)


@pytest.mark.parametrize("table", GATED, ids=lambda table: table.identifier)
def test_rows_on_the_bounds_pass_every_rule(spark: SparkSession, table: TableSpec, tmp_path: Path) -> None:
    rows = clean_rows(table)
    for edge in EDGES[table.identifier]:
        edge(rows)

    outcomes = {outcome.rule.name: outcome for outcome in checked(spark, table, rows, tmp_path)}

    assert {name: outcome.message for name, outcome in outcomes.items() if outcome.status is not Status.PASSED} == {}
    shares = SHARE_EDGES.get(table.identifier, {})
    assert set(shares) == {rule.name for owner, rule in MEASURED if owner is table and rule.threshold < 1}
    for name, failed in shares.items():
        assert outcomes[name].records_failed == failed
        assert outcomes[name].metric == pytest.approx(outcomes[name].rule.threshold, abs=1e-12)


@pytest.mark.parametrize("table", [table for table in GATED if table.identifier in BEYOND], ids=lambda t: t.identifier)
def test_each_rule_finds_the_rows_one_step_beyond_its_bounds(
    spark: SparkSession, table: TableSpec, tmp_path: Path
) -> None:
    rows = clean_rows(table)
    plant(table.identifier, rows)

    outcomes = checked(spark, table, rows, tmp_path)

    failed = {outcome.rule.name: outcome.records_failed for outcome in outcomes if outcome.records_failed}
    assert failed == {name: len(planted) for name, planted in BEYOND[table.identifier].items()}


@pytest.mark.parametrize(
    ("table", "rule"), MEASURED, ids=[f"{table.identifier}-{rule.name}" for table, rule in MEASURED]
)
def test_a_fault_breaks_exactly_its_rule(spark: SparkSession, table: TableSpec, rule: Rule, tmp_path: Path) -> None:
    mutate = MUTATIONS[table.identifier][rule.name]

    outcomes = checked(spark, table, mutate(clean_rows(table)), tmp_path)

    broken = {outcome.rule.name: outcome for outcome in outcomes if outcome.status is not Status.PASSED}
    assert set(broken) == {rule.name}
    outcome = broken[rule.name]
    assert outcome.status is (Status.WARNING if rule.severity is Severity.WARNING else Status.FAILED)
    assert outcome.records_failed > 0
    assert outcome.failing_keys


def test_the_independent_reading_of_names_reads_the_language_of_the_transform(spark: SparkSession) -> None:
    measure = CLEANED_EVENTS.rule("is_anonymous_accuracy").measure
    assert isinstance(measure, Holds)
    kinds = {**odd_addresses(), **KIND_BY_NAME}
    names = spark.createDataFrame([(name,) for name in kinds], "user_normalized string")
    as_if_anonymous = names.selectExpr("user_normalized", "true AS is_anonymous", "false AS is_bot")

    found = {row.user_normalized for row in as_if_anonymous.where(measure.predicate).collect()}

    assert found == {name for name, kind in kinds.items() if kind != "registered"}


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
        ("silver.cleaned_events", "quarantine_budget_range"),
        ("silver.cleaned_events", "quarantine_budget_day"),
        ("silver.cleaned_events", "volume_as_usual"),
        ("silver.cleaned_events", "mix_as_usual"),
        ("silver.cleaned_events", "no_missing_hours"),
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
