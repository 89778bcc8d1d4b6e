"""Every check of every gate, on a real lake: one fault each, which this check finds and stops, with its reason and its keys.

``engine/test_gates.py`` follows a few checks through every way out; here each of them is seen to close its gate: main stays where
it was, nothing downstream runs, and what Dagster shows is what ``dq_audit`` holds. Parity is a sum over the whole range: a fault
that takes a row out of its hour breaks it as well, and such companions are named.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import Column, DataFrame
from pyspark.sql.types import StructField, StructType

from wikistream_assets import engine
from wikistream_assets.components.events import check_result
from wikistream_assets.engine.context import GateReport
from wikistream_assets.engine.gate_control import decide_on_failure
from wikistream_assets.lake.spark_io import append_rows, overwrite_rows
from wikistream_assets.lake.state import AUDITED_TAG
from wikistream_assets.quality.drift import MIN_BASELINE_RUNS
from wikistream_assets.quality.rule import Severity, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES, TABLE_BY_IDENTIFIER
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.conftest import free_port
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.quality.mutations import MUTATIONS, Mutation, change
from wikistream_assets_tests.quality.samples import Row, clean_rows

pytestmark = [pytest.mark.faults, pytest.mark.spark]

COMPANIONS = {
    ("silver.cleaned_events", "event_date_valid"): {"parity_bronze_silver"},
    ("silver.cleaned_events", "event_timestamp_not_null"): {"parity_bronze_silver"},
    ("silver.cleaned_events", "event_id_unique"): {"parity_bronze_silver"},
    # a day can hold less than a range, and this lake has one range
    ("silver.cleaned_events", "quarantine_budget_range"): {"quarantine_budget_day"},
    ("silver.cleaned_events", "quarantine_budget_day"): {"quarantine_budget_range"},
    ("gold.hourly_stats", "stat_date_not_null"): {"parity_silver_gold", "parity_hourly_daily"},
    ("gold.hourly_stats", "stat_hour_valid"): {"parity_silver_gold"},
    ("gold.hourly_stats", "total_events_not_null"): {"parity_silver_gold", "parity_hourly_daily"},
    ("gold.hourly_stats", "key_unique"): {"parity_silver_gold", "parity_hourly_daily"},
    ("gold.hourly_stats", "parity_silver_gold"): {"parity_hourly_daily"},
    ("gold.risk_scores", "stat_date_not_null"): {"parity_hourly_daily"},
    ("gold.risk_scores", "risk_level_valid"): {"parity_hourly_daily"},
    ("gold.risk_scores", "risk_level_consistent"): {"parity_hourly_daily"},
    ("gold.risk_scores", "key_unique"): {"parity_hourly_daily"},
    ("gold.daily_analytics_summary", "summary_date_not_null"): {"parity_hourly_daily"},
    ("gold.daily_analytics_summary", "total_events_not_null"): {"parity_hourly_daily"},
    ("gold.daily_analytics_summary", "key_unique"): {"parity_hourly_daily"},
}


def a_lake(folder: Any) -> GateLake:
    return GateLake(Settings(home=folder / "home", kafka_port=free_port(), kafka_controller_port=free_port()))


def assert_told(gates: GateLake, report: GateReport, table: str, check: str) -> None:
    """Exactly this check (and its companions) broke; the audit trail and Dagster's event say the same of it."""
    broken = {
        (outcome.table, outcome.rule.name): outcome
        for outcome in report.outcomes
        if outcome.status not in (Status.PASSED, Status.SKIPPED)
    }
    companions = COMPANIONS.get((table, check), set())
    assert {name for _, name in broken} == {check} | companions
    outcome = broken[table, check]
    blocks = outcome.rule.severity is Severity.ERROR
    assert outcome.status is (Status.FAILED if blocks else Status.WARNING)
    recorded = gates.rows(
        "select status, metric_value, threshold_value, records_failed, message, check_id from dq_audit.quality_results"
        f" where table_name = '{table}' and check_name = '{check}' order by run_timestamp desc limit 1"
    )
    [(status, metric, threshold, failed, message, check_id)] = recorded
    keys = gates.rows(f"select failing_key from dq_audit.failing_rows where check_id = '{check_id}'")
    shown = check_result(outcome)
    told = {name: value.value for name, value in shown.metadata.items()}
    assert (told["status"], told["message"], told["threshold"]) == (status, message, threshold)
    assert (told["records failed"], told.get("metric")) == (failed, metric)
    assert sorted(told.get("failing keys", [])) == sorted(key for (key,) in keys)
    assert not shown.passed
    assert message


# ---- Bronze: the fault is in what arrived ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bronze(tmp_path_factory: pytest.TempPathFactory) -> GateLake:
    """One lake for all checks of Bronze: each gets a day of its own."""
    return a_lake(tmp_path_factory.mktemp("bronze"))


def on_day(rows: list[Row], day: int) -> list[Row]:
    """The rows as if they had happened ``day`` days later, with ids and places of their own."""
    later = timedelta(days=day)
    for row in rows:
        row |= {name: value + later for name, value in row.items() if name.endswith(("timestamp", "_at")) and value}
        row["event_date"] = row["event_timestamp"].date().isoformat()
        row["event_id"] = row["event_id"].replace("00000000-0000", f"{day:08d}-0000")
        row["kafka_offset"] += 10_000 * day
    return rows


BRONZE_FAULTS = [*MUTATIONS["bronze.raw_events"], "parity_kafka_bronze"]


@pytest.mark.parametrize("check", BRONZE_FAULTS)
def test_bronze(bronze: GateLake, check: str) -> None:
    rows = on_day(clean_rows(RAW_EVENTS), 1 + BRONZE_FAULTS.index(check))
    mutate = MUTATIONS["bronze.raw_events"].get(check)
    if mutate:
        bronze.add_bronze(mutate(rows))
    else:
        bronze.add_bronze(rows, records=len(rows) + 3)
    tagged, downstream = bronze.lake.state(RAW_EVENTS).head(AUDITED_TAG), bronze.mains(CLEANED_EVENTS, *GOLD_TABLES)

    report = bronze.bronze_gate()

    assert_told(bronze, report, "bronze.raw_events", check)
    if RAW_EVENTS.rule(check).severity is Severity.WARNING:
        assert report.passed
        return
    assert bronze.lake.state(RAW_EVENTS).head(AUDITED_TAG) == tagged
    assert not (bronze.silver().advanced or bronze.gold().advanced) or tagged
    assert bronze.mains(CLEANED_EVENTS, *GOLD_TABLES) == downstream
    accept(bronze, "bronze.raw_events", check)
    assert bronze.bronze_gate().passed


def accept(gates: GateLake, table: str, check: str) -> None:
    decide_on_failure(gates.ctx, "accept", table, check, reason="a test", decided_by="ada", dry_run=False)


# ---- Silver and Gold: the fault is in what was built ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GateLake]:
    """One lake for all checks of Silver and Gold: what fails publishes nothing, so the same range is built again and again."""
    gates = a_lake(tmp_path_factory.mktemp("layers"))
    gates.add_bronze(clean_rows(RAW_EVENTS))
    assert gates.bronze_gate().passed
    yield gates
    # without a fault the same ranges pass: nothing that failed has left anything behind
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select count(*), count(distinct event_id) from silver.cleaned_events") == [(900, 900)]
    assert gates.rows("select sum(total_events) from gold.hourly_stats") == [(900,)]


Spoil = Callable[[TableSpec, Mutation], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Let the rows of a table be mutated on their way to the audit branch."""

    def arm(target: TableSpec, mutate: Mutation) -> None:
        def spoiled(rows: DataFrame, spec: TableSpec) -> DataFrame:
            if spec is not target:
                return rows
            wrong = mutate([row.asDict() for row in rows.orderBy(*spec.key).collect()])
            nullable = StructType([StructField(field.name, field.dataType) for field in rows.schema.fields])
            return rows.sparkSession.createDataFrame(wrong, nullable)

        def append(rows: DataFrame, spec: TableSpec, *rest: Any) -> None:
            append_rows(spoiled(rows, spec), spec, *rest)

        def overwrite(rows: DataFrame, spec: TableSpec, condition: Column, *rest: Any) -> None:
            overwrite_rows(spoiled(rows, spec), spec, condition, *rest)

        monkeypatch.setattr(engine.append, "append_rows", append)
        monkeypatch.setattr(engine.recompute, "overwrite_rows", overwrite)

    return arm


def lose_one(rows: list[Row]) -> list[Row]:
    return rows[1:]


def one_more_event(column: str) -> Mutation:
    return change(**{column: lambda row: row[column] + 1})


SILVER_FAULTS: dict[str, Mutation] = {**MUTATIONS["silver.cleaned_events"], "parity_bronze_silver": lose_one}
GOLD_FAULTS: dict[tuple[str, str], Mutation] = {
    **{
        (spec.identifier, check): mutate for spec in GOLD_TABLES for check, mutate in MUTATIONS[spec.identifier].items()
    },
    ("gold.hourly_stats", "parity_silver_gold"): lose_one,
    ("gold.daily_analytics_summary", "parity_hourly_daily"): one_more_event("medium_risk_user_count"),
}


@pytest.mark.parametrize("check", SILVER_FAULTS)
def test_silver(layers: GateLake, spoil: Spoil, check: str) -> None:
    before = layers.mains(CLEANED_EVENTS, *GOLD_TABLES)
    spoil(CLEANED_EVENTS, SILVER_FAULTS[check])

    report = layers.silver()

    assert_told(layers, report, "silver.cleaned_events", check)
    assert not layers.gold().advanced
    assert layers.mains(CLEANED_EVENTS, *GOLD_TABLES) == before


@pytest.fixture(scope="module")
def silver_published(layers: GateLake) -> GateLake:
    assert layers.silver().passed
    return layers


@pytest.mark.parametrize(("table", "check"), GOLD_FAULTS)
def test_gold(silver_published: GateLake, spoil: Spoil, table: str, check: str) -> None:
    before = silver_published.mains(*GOLD_TABLES)
    spoil(TABLE_BY_IDENTIFIER[table], GOLD_FAULTS[table, check])

    report = silver_published.gold()

    assert_told(silver_published, report, table, check)
    assert silver_published.mains(*GOLD_TABLES) == before


# ---- Quarantine: nothing is wrong with what is built, but with how much is left ------------------------------------------


BUDGET_FAULTS = {"quarantine_budget_range": 900, "quarantine_budget_day": 135}
"""Rows of 900 that cannot be true: all of them, and so many that only the day's bound for an error is exceeded."""


@pytest.mark.parametrize("check", BUDGET_FAULTS)
def test_budget(tmp_path: Any, check: str) -> None:
    gates, rows = a_lake(tmp_path), clean_rows(RAW_EVENTS)
    for row in rows[: BUDGET_FAULTS[check]]:
        row["length_old"] = -5
    gates.add_bronze(rows)
    assert gates.bronze_gate().passed
    before = gates.mains(CLEANED_EVENTS, *GOLD_TABLES)

    report = gates.silver()

    assert_told(gates, report, "silver.cleaned_events", check)
    assert not gates.gold().advanced
    assert gates.mains(CLEANED_EVENTS, *GOLD_TABLES) == before
    for failed in report.blocking:
        accept(gates, "silver.cleaned_events", failed.rule.name)
    assert gates.silver().passed


# ---- Drift: judged against earlier runs --------------------------------------------------------------------------------------


def without_namespace(rows: list[Row]) -> list[Row]:
    for row in rows[::2]:
        row["namespace"] = None
    return rows


def no_edits(rows: list[Row]) -> list[Row]:
    for row in rows:
        if row["event_type"] == "edit":
            row["event_type"] = "categorize"
    return rows


def much_longer(rows: list[Row]) -> list[Row]:
    for row in rows:
        if row["length_delta"] is not None:
            row |= {"length_new": row["length_new"] + 40_000, "length_delta": row["length_delta"] + 40_000}
    return rows


DRIFT_FAULTS: dict[str, Mutation] = {
    "drift_null_rate": without_namespace,
    "drift_categories": no_edits,
    "drift_numeric": much_longer,
}


@pytest.fixture(scope="module")
def with_history(tmp_path_factory: pytest.TempPathFactory) -> GateLake:
    """A lake with as many runs as drift needs to know what is usual."""
    gates = a_lake(tmp_path_factory.mktemp("drift"))
    for day in range(1, 1 + MIN_BASELINE_RUNS):
        add_day(gates, day)
        assert gates.silver().passed
    return gates


def add_day(gates: GateLake, day: int) -> None:
    gates.add_bronze(on_day(clean_rows(RAW_EVENTS), day))
    assert gates.bronze_gate().passed


def in_hour(rows: list[Row], hour: int) -> list[Row]:
    return [row for row in rows if row["event_hour"] == hour]


def without(rows: list[Row], lost: list[Row]) -> list[Row]:
    ids = {row["event_id"] for row in lost}
    return [row for row in rows if row["event_id"] not in ids]


EXPECTATION_FAULTS: dict[str, Mutation] = {
    "volume_as_usual": lambda rows: without(rows, in_hour(rows, 11)[:90]),
    "mix_as_usual": lambda rows: without(
        rows, [row for row in in_hour(rows, 11) if row["domain"] == "he.wikipedia.org"]
    ),
    "no_missing_hours": lambda rows: without(rows, in_hour(rows, 11)),
}
"""The first half hour's events, a wiki of an hour, a whole hour: gone before they reached Bronze."""


@pytest.mark.parametrize("check", EXPECTATION_FAULTS)
def test_expectations(with_history: GateLake, check: str) -> None:
    day = 1 + MIN_BASELINE_RUNS + list(EXPECTATION_FAULTS).index(check)
    with_history.add_bronze(EXPECTATION_FAULTS[check](on_day(clean_rows(RAW_EVENTS), day)))
    assert with_history.bronze_gate().passed
    report = with_history.silver()
    assert_told(with_history, report, "silver.cleaned_events", check)
    assert report.passed, "a warning does not block"


@pytest.mark.parametrize("check", DRIFT_FAULTS)
def test_drift(with_history: GateLake, spoil: Spoil, check: str) -> None:
    add_day(with_history, 20 + list(DRIFT_FAULTS).index(check))
    spoil(CLEANED_EVENTS, DRIFT_FAULTS[check])
    report = with_history.silver()
    assert_told(with_history, report, "silver.cleaned_events", check)
    assert report.passed, "a warning does not block"


# ---- and none is forgotten -----------------------------------------------------------------------------------------------------


SILVER_CHECKS = (*SILVER_FAULTS, *BUDGET_FAULTS, *DRIFT_FAULTS, *EXPECTATION_FAULTS)


def test_every_check_of_every_table_has_its_fault() -> None:
    faults = {
        *(("bronze.raw_events", check) for check in BRONZE_FAULTS),
        *(("silver.cleaned_events", check) for check in SILVER_CHECKS),
        *GOLD_FAULTS,
        # one reason for all four; see engine/test_gates.py::test_gold_refuses_silver_that_no_gate_has_passed
        *((spec.identifier, "upstream_gates_passed") for spec in GOLD_TABLES),
    }
    assert faults == {(spec.identifier, rule.name) for spec in ALL_TABLES for rule in spec.rules}
