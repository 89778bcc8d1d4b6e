"""Real edits are clean: no rule raises a false alarm on any public capture, and no hour of a whole day is called drift."""

from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.drift import MIN_BASELINE_RUNS, drift_outcomes
from wikistream_assets.quality.profile import category_counts, profile
from wikistream_assets.quality.rule import MIN_RATIO_ROWS, Basis, Holds, NotNull, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.rules.bronze import EVENT_TIMELINESS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests import oracle
from wikistream_assets_tests.quality.samples import Row, gold_rows, with_bronze_lineage
from wikistream_assets_tests.streams.edits.frames import parquet_frame

pytestmark = [pytest.mark.spark, pytest.mark.real_data]

EVENTS = Settings().data.expanduser().resolve() / "events"
CAPTURES = sorted(EVENTS.glob("*.jsonl.gz"))
WHOLE_DAY = "wikiticker_2015-09-12_39244_reenveloped.jsonl.gz"

if not CAPTURES:
    pytest.skip(
        f"no captures in {EVENTS}: set WIKISTREAM_DATA to the folder that holds events/", allow_module_level=True
    )


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.name)
def test_a_clean_capture_raises_no_alarm(spark: SparkSession, tmp_path: Path, capture: Path) -> None:
    bronze = with_bronze_lineage(oracle.bronze_rows(oracle.read_capture(capture), None), source_mode="replay")
    silver = oracle.silver_rows(bronze)
    tables = {"bronze.raw_events": bronze, "silver.cleaned_events": silver, **gold_rows(silver)}
    for spec in (spec for spec in ALL_TABLES if spec.rules):
        rows = tables[spec.identifier]
        outcomes = evaluate(
            spark,
            parquet_frame(spark, spec, rows, tmp_path / f"{spec.identifier}.parquet"),
            spec.rules,
            table=spec.identifier,
            key_columns=spec.key,
        )
        assert len(rows) > 0
        assert {outcome.rule.name for outcome in outcomes if outcome.status is Status.SKIPPED} == _too_few(spec, rows)
        assert [outcome for outcome in outcomes if outcome.status not in (Status.PASSED, Status.SKIPPED)] == []
        assert all(outcome.records_failed == 0 for outcome in outcomes)


def _too_few(spec: TableSpec, rows: list[Row]) -> set[str]:
    """Rules about a share that the capture has too few rows for: no event is live, some captures have few edits."""
    sized = sum(row["event_type"] in ("edit", "new") for row in rows) if "event_type" in rows[0] else 0
    in_scope = {EVENT_TIMELINESS: 0, "length_delta_completeness": sized}
    return {
        rule.name
        for rule in spec.rules
        if rule.basis is Basis.RATIO
        and isinstance(rule.measure, NotNull | Holds)
        and in_scope.get(rule.name, len(rows)) < MIN_RATIO_ROWS
    }


def test_no_hour_of_a_whole_day_is_called_drift(spark: SparkSession, tmp_path: Path) -> None:
    capture = EVENTS / WHOLE_DAY
    if not capture.exists():
        pytest.skip(f"no {WHOLE_DAY} in {EVENTS}: set WIKISTREAM_DATA to the folder that holds events/")
    silver = oracle.silver_rows(oracle.bronze_rows(oracle.read_capture(capture), FOLLOWED_DOMAINS))
    day = parquet_frame(spark, CLEANED_EVENTS, silver, tmp_path / "silver.parquet").cache()
    profiles, counts, verdicts = [], [], []
    for hour in range(24):
        now = _hour(day, hour)
        columns, categories = profile(now, CLEANED_EVENTS.profiled), category_counts(now, ["event_type", "user_kind"])
        verdicts += drift_outcomes(
            CLEANED_EVENTS.rules,
            CLEANED_EVENTS.identifier,
            columns,
            categories,
            ["length_delta"],
            earlier_profiles=profiles,
            earlier_categories=counts,
        )
        profiles += [vars(column) for column in columns]
        counts.append(categories)
    day.unpersist()

    judged = [verdict for verdict in verdicts if verdict.status is not Status.SKIPPED]
    # The first hour is too small to count, so the ten runs that a baseline needs are there from hour 11 on.
    assert len(judged) == 3 * (24 - 1 - MIN_BASELINE_RUNS)
    assert {verdict.status for verdict in judged} == {Status.PASSED}


def _hour(day: DataFrame, hour: int) -> DataFrame:
    return day.where(f"hour(event_timestamp) = {hour}")
