"""What ``evaluate`` makes of rules and rows: figures, statuses, keys; expected values are counted by hand."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.machine.java import find_java
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.rule import (
    Basis,
    CheckOutcome,
    Computed,
    Dimension,
    Holds,
    Measure,
    NotNull,
    Rule,
    Severity,
    Status,
    Unique,
)

pytestmark = pytest.mark.spark

SCHEMA = "id string, city string, size int, kind string"
ROWS = [
    ("a", "Rome", 1, "x"),
    ("b", None, 2, "x"),
    ("c", "Oslo", None, "y"),
    ("d", "Rome", -4, "y"),
    ("d", "Oslo", 5, None),
]


def rule(measure: Measure, *, name: str = "check", threshold: float = 1.0, **fields: Any) -> Rule:
    return Rule(name, Dimension.VALIDITY, "Holds.", measure, threshold, "an invented rule", **fields)


def rows(spark: SparkSession, values: list[tuple[Any, ...]] = ROWS) -> DataFrame:
    return spark.createDataFrame(values, SCHEMA)


def check(spark: SparkSession, measure: Measure, values: list[tuple[Any, ...]] = ROWS, **fields: Any) -> CheckOutcome:
    (outcome,) = evaluate(spark, rows(spark, values), [rule(measure, **fields)], table="t.t", key_columns=["id"])
    return outcome


@pytest.mark.parametrize(
    ("measure", "checked", "failed", "keys"),
    [
        (NotNull("city"), 5, 1, ("b",)),
        (NotNull("size", where="kind = 'y'"), 2, 1, ("c",)),
        (Holds("size > 0"), 5, 2, ("c", "d")),
        (Holds("size > 0", where="size IS NOT NULL"), 4, 1, ("d",)),
        (Holds("size > 0", where="kind = 'y' AND size < 100"), 1, 1, ("d",)),
        (Unique(("id",)), 5, 2, ("d",)),
        (Unique(("city",)), 4, 4, ("Oslo", "Rome")),
        (Unique(("kind", "city")), 5, 0, ()),
    ],
    ids=str,
)
def test_figures_are_exact(
    spark: SparkSession, measure: Measure, checked: int, failed: int, keys: tuple[str, ...]
) -> None:
    outcome = check(spark, measure)

    assert (outcome.records_checked, outcome.records_failed) == (checked, failed)
    assert outcome.metric == (checked - failed) / checked
    assert outcome.failing_keys == keys
    assert outcome.status is (Status.FAILED if failed else Status.PASSED)


def test_a_threshold_is_met_when_reached(spark: SparkSession) -> None:
    assert check(spark, NotNull("city"), threshold=0.8).status is Status.PASSED
    assert check(spark, NotNull("city"), threshold=0.81).status is Status.FAILED


def test_a_breach_of_severity_warning_is_a_warning(spark: SparkSession) -> None:
    outcome = check(spark, NotNull("city"), severity=Severity.WARNING)

    assert outcome.status is Status.WARNING
    assert outcome.failing_keys == ("b",)


def test_an_accepted_breach_is_a_warning_that_names_the_decision(spark: SparkSession) -> None:
    failing, passing = rule(NotNull("city"), name="failing"), rule(NotNull("id"), name="passing")

    outcomes = evaluate(
        spark,
        rows(spark),
        [failing, passing],
        table="t.t",
        key_columns=["id"],
        waived={"failing": "d-17", "passing": "d-18"},
    )

    assert [outcome.status for outcome in outcomes] == [Status.WARNING, Status.PASSED]
    assert "d-17" in outcomes[0].message
    assert "d-18" not in outcomes[1].message


def test_rules_that_cannot_be_measured_are_errors_and_spoil_no_other(spark: SparkSession) -> None:
    rules = [
        rule(NotNull("id"), name="fine"),
        rule(NotNull("absent"), name="null_of_a_missing_column"),
        rule(Holds("absent > 0"), name="predicate_on_a_missing_column"),
        rule(Holds("size >"), name="no_sql"),
        rule(Holds("raise_error('boom') IS NULL"), name="raises"),
        rule(Unique(("absent",)), name="unique_missing_column"),
        rule(Holds("size > 0"), name="breached"),
        rule(Unique(("id",)), name="repeated"),
    ]

    outcomes = {o.rule.name: o for o in evaluate(spark, rows(spark), rules, table="t.t", key_columns=["id"])}

    assert [outcomes[each.name].status for each in rules] == [
        Status.PASSED,
        *[Status.ERROR] * 5,
        *[Status.FAILED] * 2,
    ]
    assert "absent" in outcomes["predicate_on_a_missing_column"].message
    assert "boom" in outcomes["raises"].message
    assert all(o.metric is None and o.status.blocks for o in outcomes.values() if o.status is Status.ERROR)
    assert all("\n" not in o.message for o in outcomes.values())


def test_a_check_of_severity_warning_that_breaks_blocks_too(spark: SparkSession) -> None:
    assert check(spark, NotNull("absent"), severity=Severity.WARNING).status.blocks


def test_without_rows_absolute_rules_pass_and_say_so(spark: SparkSession) -> None:
    for measure in (NotNull("id"), NotNull("id", where="size > 0"), Holds("size > 0"), Unique(("id",))):
        outcome = check(spark, measure, [])
        assert (outcome.status, outcome.records_checked, outcome.metric) == (Status.PASSED, 0, None)
        assert outcome.message.startswith("no rows to check")


def test_a_rule_whose_condition_no_row_meets_passes_beside_others(spark: SparkSession) -> None:
    nobody = rule(Holds("size > 0", where="kind = 'z'"), name="nobody")
    all_null = rule(Unique(("city",)), name="all_null")
    values = [("a", None, 1, "x"), ("b", None, 2, "x")]

    outcomes = evaluate(
        spark, rows(spark, values), [nobody, all_null, rule(Unique(("id",)))], table="t.t", key_columns=["id"]
    )

    assert [(o.status, o.records_checked) for o in outcomes] == [
        (Status.PASSED, 0),
        (Status.PASSED, 0),
        (Status.PASSED, 2),
    ]


@pytest.mark.parametrize(("size", "status"), [(499, Status.SKIPPED), (500, Status.FAILED)])
def test_a_share_is_judged_from_500_rows_on(spark: SparkSession, size: int, status: Status) -> None:
    values = [(str(number), None, 1, "x") for number in range(size)]

    outcome = check(spark, NotNull("city"), values, threshold=0.95, basis=Basis.RATIO)

    assert outcome.status is status
    assert outcome.records_checked == size


def test_rows_outside_the_condition_do_not_make_a_share_judgeable(spark: SparkSession) -> None:
    values = [(str(number), None, 1, "x" if number < 499 else "y") for number in range(1000)]

    outcome = check(spark, NotNull("city", where="kind = 'x'"), values, threshold=0.95, basis=Basis.RATIO)

    assert (outcome.status, outcome.records_checked) == (Status.SKIPPED, 499)
    assert "kind = 'x'" in outcome.message


def test_ratio_rules_look_at_earlier_rows_absolute_rules_do_not(spark: SparkSession) -> None:
    earlier = [(str(number), "Rome", 1, "x") for number in range(590)]
    late = [(f"new{number}", None if number < 5 else "Rome", 1, "x") for number in range(10)]
    absolute = rule(NotNull("city"), name="absolute")
    ratio = rule(NotNull("city"), name="ratio", threshold=0.995, basis=Basis.RATIO)

    outcomes = evaluate(
        spark,
        rows(spark, late),
        [absolute, ratio],
        table="t.t",
        key_columns=["id"],
        ratio_df=rows(spark, earlier + late),
    )

    assert [(o.records_checked, o.records_failed) for o in outcomes] == [(10, 5), (600, 5)]
    assert [o.status for o in outcomes] == [Status.FAILED, Status.FAILED]
    assert [o.failing_keys for o in outcomes] == [("new0", "new1", "new2", "new3", "new4")] * 2


def test_repeats_of_rows_that_were_audited_before_are_found(spark: SparkSession) -> None:
    rules = [rule(Unique(("id",)), name="unique"), rule(NotNull("city"), name="not_null")]
    earlier = [("a", None, 1, "x"), ("b", "Rome", 1, "x")]
    late = [("b", "Oslo", 1, "x"), ("c", "Oslo", 1, "x")]

    outcomes = evaluate(
        spark,
        rows(spark, late),
        rules,
        table="t.t",
        key_columns=["id"],
        unique_df=rows(spark, earlier + late),
    )

    assert [(o.status, o.records_checked, o.failing_keys) for o in outcomes] == [
        (Status.FAILED, 4, ("b",)),
        (Status.PASSED, 2, ()),
    ]


def test_at_most_100_keys_are_kept_each_once_in_order(spark: SparkSession) -> None:
    values = [(f"{number // 2:03d}", None, 1, "x") for number in range(300)]

    outcome = check(spark, NotNull("city"), values)

    assert outcome.records_failed == 300
    assert outcome.failing_keys == tuple(f"{number:03d}" for number in range(100))


def test_keys_join_the_key_columns_and_name_nulls(spark: SparkSession) -> None:
    (outcome,) = evaluate(
        spark, rows(spark), [rule(Holds("size > 1"))], table="t.t", key_columns=["id", "city", "size"]
    )

    assert outcome.failing_keys == ("a/Rome/1", "c/Oslo/null", "d/Rome/-4")


def test_the_caller_decides_what_is_kept_of_a_row(spark: SparkSession) -> None:
    hidden = sf.when(sf.col("id") != "c", sf.concat(sf.lit("user-"), "id"))

    outcomes = evaluate(
        spark,
        rows(spark),
        [rule(Holds("size > 0"), name="rows"), rule(Unique(("id",)), name="key")],
        table="t.t",
        key_columns=["id"],
        key=hidden,
    )

    assert [outcome.failing_keys for outcome in outcomes] == [("null", "user-d"), ("user-d",)]


def test_computed_rules_are_left_to_the_gate(spark: SparkSession) -> None:
    rules = [rule(Computed(), name="parity"), rule(NotNull("id"), name="measured")]

    outcomes = evaluate(spark, rows(spark), rules, table="t.t", key_columns=["id"])

    assert [outcome.rule.name for outcome in outcomes] == ["measured"]


def test_equal_measures_of_several_rules_are_all_answered(spark: SparkSession) -> None:
    strict = rule(NotNull("city"), name="strict")
    loose = rule(NotNull("city"), name="loose", threshold=0.5)

    outcomes = evaluate(spark, rows(spark), [strict, loose], table="t.t", key_columns=["id"])

    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.PASSED]


def test_no_callback_server_is_left_behind(spark: SparkSession) -> None:
    gateway = spark.sparkContext._gateway
    assert gateway is not None
    before = gateway.get_callback_server()  # a streaming test of the same JVM may have started one

    check(spark, NotNull("id"))

    assert gateway.get_callback_server() is before


WITHOUT_THE_JAR = """
from pyspark.sql import SparkSession
from wikistream_assets.quality.deequ import evaluate

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
evaluate(spark, spark.range(1), [], table="t.t", key_columns=["id"])
"""


def test_a_missing_jar_is_a_clear_error(tmp_path: Path) -> None:
    environment = {**os.environ, "JAVA_HOME": str(find_java().home)}

    child = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_JAR],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert child.returncode != 0
    last_line = child.stderr.strip().splitlines()[-1]
    assert last_line.startswith("wikistream_assets.exceptions.SetupError: the Deequ jar is not on Spark's class path")
    assert "deequ-2.1.0-spark-3.5.jar" in last_line
