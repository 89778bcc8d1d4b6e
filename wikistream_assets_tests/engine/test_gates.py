"""The three gates on a real lake: what passes is published, what fails is not, and every way out leads on without loss."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from producer.wikis import REGION_BY_DOMAIN
from wikistream_assets.alerts import AlertKind, Alerts
from wikistream_assets.components.events import tell_about_gate
from wikistream_assets.definitions import defs
from wikistream_assets.engine import append, bronze_gate, failpoints, gate, publication, recompute
from wikistream_assets.engine.context import GateReport, JobContext
from wikistream_assets.engine.gate_control import correct, decide_on_failure, gate_states, rollback_target
from wikistream_assets.exceptions import GateError
from wikistream_assets.lake import lakehouse
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import AUDITED_TAG
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.quality.rule import Holds, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.gold import entity_trends, hourly_stats
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, HOURLY_STATS, QUARANTINE, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.audit_rows import GateContext
from wikistream_assets.tables.dq_audit import FAILING_ROWS, GATE_DECISIONS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep import backfill
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import child_environment
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row, blocking
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark


class Killed(BaseException):
    """Stands for SIGKILL; the real signal is sent in the fault tests."""


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def _rows_with_one_for_quarantine() -> list[Row]:
    rows = clean_rows(RAW_EVENTS)
    rows[7] |= {"length_old": -5, "length_new": 1}
    return rows


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of a lake in which nothing happened: these rows, in one cycle."""
    gates = GateLake(Settings(home=tmp_path_factory.mktemp("calm") / "home"))
    gates.add_bronze(_rows_with_one_for_quarantine())
    assert all(report.passed for report in gates.cycle())
    return table_hashes(gates.lake)


def test_what_passes_is_published_and_adds_up(gates: GateLake) -> None:
    bronze = clean_rows(RAW_EVENTS)
    gates.add_bronze(bronze)
    reports = gates.cycle()
    assert [report.passed and report.advanced for report in reports] == [True, True, True]
    assert gates.rows("select count(*), count(distinct event_id) from silver.cleaned_events") == [(900, 900)]
    assert gates.rows("select sum(total_events) from gold.hourly_stats") == [(900,)]
    assert gates.rows("select sum(total_events) from gold.daily_analytics_summary") == [(900,)]
    recorded = gates.rows("select table_name, check_name from dq_audit.quality_results")
    assert sorted(recorded) == sorted((spec.identifier, rule.name) for spec in ALL_TABLES for rule in spec.rules)
    assert gates.rows("select count(*) from dq_audit.quality_results where status in ('FAILED', 'ERROR')") == [(0,)]


def test_a_second_cycle_without_news_writes_nothing(gates: GateLake) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    first = gates.cycle()
    before = gates.mains()
    again = gates.cycle()
    assert gates.mains() == before
    assert [report.advanced for report in again] == [False, False, False]
    verdicts = [{(o.rule.name, o.status, o.metric) for o in report.outcomes} for report in first]
    assert [{(o.rule.name, o.status, o.metric) for o in report.outcomes} for report in again] == verdicts


def test_two_batches_give_the_same_tables_as_one(gates: GateLake, calm: dict[str, str]) -> None:
    rows = _rows_with_one_for_quarantine()
    metrics: Any = gates.ctx.spark._jvm
    compiled = metrics.org.apache.spark.metrics.source.CodegenMetrics.METRIC_COMPILATION_TIME()
    for part in (rows[:300], rows[300:]):
        gates.add_bronze(part)
        before = compiled.getCount()
        assert all(report.passed for report in gates.cycle())
    assert compiled.getCount() - before < 100, "a cycle uses the classes of the one before"
    assert table_hashes(gates.lake) == calm


def test_a_range_of_many_small_files_makes_one_file_in_each_partition(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    for begin in range(0, len(rows), 50):
        gates.add_bronze(rows[begin : begin + 50])
    gates.bronze_gate()
    gates.silver()
    snapshot = gates.lake.table(CLEANED_EVENTS).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    partitions = {(row["event_date"], REGION_BY_DOMAIN.get(row["domain"], "other")) for row in rows}
    assert int(snapshot.summary["added-data-files"] or 0) == len(partitions)


def test_an_empty_lake_has_nothing_to_audit(gates: GateLake) -> None:
    reports = gates.cycle()
    assert {outcome.status for report in reports for outcome in report.outcomes} == {Status.SKIPPED}
    assert not any(report.advanced for report in reports)


def test_a_first_range_without_rows_publishes_its_position_and_what_comes_next_goes_on(
    gates: GateLake, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a lake that an earlier version left with its range pinned, its branches made and nothing on them."""
    gates.add_bronze([], records=3, dead_letters=2, duplicates=1)
    assert [report.advanced for report in (gates.bronze_gate(), gates.silver())] == [True, True]
    with monkeypatch.context() as fault:
        fault.setattr(recompute.Recomputing, "build", _die)
        with pytest.raises(Killed):
            gates.gold()
    assert gates.lake.state(HOURLY_STATS).waiting
    report = gates.gold()
    assert (report.passed, report.advanced) == (True, True)
    silver_head = gates.lake.state(CLEANED_EVENTS).head()
    assert silver_head is not None
    for spec in GOLD_TABLES:
        version = gates.lake.state(spec).head()
        assert version is not None
        assert version.position == {
            "silver.cleaned_events": silver_head.snapshot_id,
            "watermark": None,
            "open_dates": [],
        }
    gates.add_bronze(_rows_with_one_for_quarantine())
    assert all(report.passed and report.advanced for report in gates.cycle())
    assert table_hashes(gates.lake) == calm


# ---- Bronze -----------------------------------------------------------------------------------------------------------


def _one_position_twice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows[1] |= {name: rows[0][name] for name in ("kafka_partition", "kafka_offset", "kafka_timestamp")}
    return rows


def test_a_failed_bronze_range_stays_and_is_not_diluted(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:100])
    assert gates.bronze_gate().passed
    gates.silver()
    before = gates.mains(CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    tagged = gates.lake.state(RAW_EVENTS).head(AUDITED_TAG)

    gates.add_bronze(_one_position_twice(rows[100:200]))
    failed = gates.bronze_gate()
    assert blocking(failed) == {"kafka_position_unique": Status.FAILED}
    assert gates.lake.state(RAW_EVENTS).head(AUDITED_TAG) == tagged
    assert not gates.silver().advanced
    assert gates.mains(CLEANED_EVENTS, QUARANTINE) == {name: before[name] for name in list(before)[:2]}

    gates.add_bronze(rows[200:])
    again = gates.bronze_gate()
    assert again.range == failed.range
    assert blocking(again) == {"kafka_position_unique": Status.FAILED}
    attempts = gates.rows(
        "select attempt, status, records_failed from dq_audit.quality_results"
        " where check_name = 'kafka_position_unique' and status = 'FAILED' order by attempt"
    )
    assert attempts == [(1, "FAILED", 2), (2, "FAILED", 2)]
    keys = gates.rows("select distinct failing_key from dq_audit.failing_rows order by 1")
    first = rows[100]
    place = (first["kafka_partition"], first["kafka_offset"], f"{first['kafka_timestamp']:%Y-%m-%d %H:%M:%S}")
    assert keys == [(f"raw-events/{'/'.join(map(str, place))}",)]


def test_a_batch_that_was_written_twice_is_found_in_the_later_range(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows)
    assert all(report.passed for report in gates.cycle())
    gates.add_bronze(rows[600:])
    report = gates.bronze_gate()
    assert blocking(report) == {"kafka_position_unique": Status.FAILED, "event_id_unique": Status.FAILED}


SECOND_HALF = "kafka_offset between 200 and 299"


@pytest.mark.parametrize(
    ("decided", "reason"),
    [
        ([("reject", "kafka_position_unique", SECOND_HALF)], "rejected:"),
        pytest.param(
            [("accept", "kafka_position_unique", None), ("accept", "event_id_unique", None)],
            "duplicate_event_id",
            marks=pytest.mark.long,
        ),
        pytest.param(
            [("reject", "event_id_unique", "kafka_partition = 0"), ("reject", "kafka_position_unique", "true")],
            "rejected:",
            marks=pytest.mark.long,
        ),
    ],
    ids=["reject", "accept", "two rejects"],
)
def test_of_a_batch_that_was_written_twice_one_copy_stays(
    gates: GateLake, calm: dict[str, str], decided: list[tuple[str, str, str | None]], reason: str
) -> None:
    rows = _rows_with_one_for_quarantine()
    gates.add_bronze(rows)
    gates.add_bronze(rows[600:])  # partitions 0 to 2, offsets 200 to 299
    assert set(blocking(gates.bronze_gate())) == {"kafka_position_unique", "event_id_unique"}
    for action, check, where in decided:
        preview = _decide(gates, action, "bronze.raw_events", check, where, dry_run=True)
        assert preview.rows in ((300, 100) if action == "reject" and where != "true" else (200, 300, None))
        _decide(gates, action, "bronze.raw_events", check, where)
    assert all(report.passed and report.advanced for report in gates.cycle())
    copies = sorted(row["event_id"] for row in rows[600:])
    sent_away = gates.rows("select event_id, failed_rules from quarantine.cleaned_events order by 1")
    assert [event_id for event_id, rules in sent_away if rules != "negative_length"] == copies
    assert all(rules.startswith(reason) for _, rules in sent_away if rules != "negative_length")
    hashes = table_hashes(gates.lake)
    assert {name: hashes[name] for name in hashes if name.startswith(("silver", "gold"))} == {
        name: calm[name] for name in calm if name.startswith(("silver", "gold"))
    }
    assert backfill.silver_differences(gates.ctx, [rows[0]["event_date"]]) == {}
    late = rows[-1] | {"event_id": "00000000-0000-4000-8000-00000000late", "kafka_offset": 99_999}
    gates.add_bronze([late])
    assert gates.bronze_gate().passed, "what was decided does not close the gate to the rest of the hour"


@pytest.mark.long
def test_a_copy_of_what_was_audited_before_can_be_rejected(gates: GateLake, calm: dict[str, str]) -> None:
    """The rows that stay are of an earlier range, and Silver reads both ranges at once."""
    rows = _rows_with_one_for_quarantine()
    gates.add_bronze(rows)
    assert gates.bronze_gate().passed
    gates.add_bronze(rows[600:])
    assert not gates.bronze_gate().passed
    target = gates.lake.state(RAW_EVENTS).head(AUDITED_TAG)
    assert target is not None
    assert rollback_target(gates.lake, gate_states(gates.lake)[0]) == target.snapshot_id
    assert _decide(gates, "reject", "bronze.raw_events", "event_id_unique", "true").rows == 300
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select count(*) from quarantine.cleaned_events where failed_rules like 'rejected:%'") == [(300,)]
    hashes = table_hashes(gates.lake)
    assert (hashes["silver.cleaned_events"], hashes["gold.hourly_stats"]) == (
        calm["silver.cleaned_events"],
        calm["gold.hourly_stats"],
    )


CALLS_JAVA = "reflect('java.lang.System', 'getProperty', 'user.home') is not null"


def _forge(gates: GateLake, decision_id: str, predicate: str | None) -> None:
    """Rewrite a decision's row by hand, with a condition that nobody has looked at."""
    table = gates.lake.table(GATE_DECISIONS)
    rows = table.scan(row_filter=f"decision_id == '{decision_id}'").to_arrow().sort_by("decided_at").to_pylist()
    later = rows[-1]["decided_at"] + timedelta(hours=1)
    forged = rows[-1] | {"predicate": predicate, "decided_at": later}
    gates.lake.append(GATE_DECISIONS, pa.Table.from_pylist([forged], schema=table.schema().as_arrow()))


def test_a_stored_condition_that_is_refused_closes_the_gate_until_it_is_corrected(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    rows[7]["event_type"] = "flow!"
    gates.add_bronze(rows)
    assert not gates.bronze_gate().passed
    where = "event_type = 'flow!'"
    decision = _decide(gates, "reject", "bronze.raw_events", "event_type_valid", where).decision.decision_id
    refused = (
        f"decision {decision} on bronze.raw_events.event_type_valid is refused: the function reflect is not allowed"
    )

    def corrected(predicate: str) -> None:
        correct(gates.ctx, decision, predicate, reason="a slip", decided_by="ada")

    with pytest.raises(GateError, match="nothing to correct"):
        corrected("event_type = 'log'")
    _forge(gates, decision, CALLS_JAVA)
    with pytest.raises(GateError, match=refused):
        gates.bronze_gate()
    [bronze, _, _] = gate_states(gates.lake)
    assert refused in bronze.refusals[0]
    assert f"wikistream gate correct {decision}" in bronze.refusals[0]
    with pytest.raises(GateError, match="the function java_method"):
        corrected("java_method('a', 'b') is null")
    with pytest.raises(GateError, match="not a valid condition"):
        corrected("event_type")
    corrected(where)
    assert gates.bronze_gate().passed

    _forge(gates, decision, None)  # as masking leaves it behind
    with pytest.raises(GateError, match=f"decision {decision} .* is refused: it is empty"):
        gates.silver()
    assert gate_states(gates.lake)[1].blocked
    corrected(where)
    assert gates.silver().passed
    assert gates.rows("select event_id from quarantine.cleaned_events") == [(rows[7]["event_id"],)]


def test_no_way_in_takes_any_sql(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clean_rows(RAW_EVENTS)[:50]
    rows[7]["event_type"] = "flow!"
    gates.add_bronze(rows)
    assert not gates.bronze_gate().passed
    asked = {"table": "bronze.raw_events", "check": "event_type_valid", "reason": "a test"}
    command = ("gate", "reject", asked["table"], asked["check"], "--reason", "a test", "--where")
    refused = "--where is not a valid condition on bronze.raw_events: the function reflect is not allowed"
    told = wikistream(*command, CALLS_JAVA, settings=gates.ctx.settings)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: {refused}")
    assert len(told.stderr.splitlines()) == 1

    for name, value in child_environment(gates.ctx.settings).items():
        monkeypatch.setenv(name, value)
    config = {**asked, "action": "reject", "decided_by": "ada", "where": CALLS_JAVA, "dry_run": False}
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="the function reflect"):
        defs().resolve_job_def("gate_decision").execute_in_process(
            run_config={"ops": {"decide": {"config": config}}}, instance=instance
        )
    for where, reason in (
        ("event_type", "BOOLEAN"),
        ("event_type rlike '('", "[Uu]nclosed group"),
    ):
        with pytest.raises(GateError, match=reason) as told_of:
            _decide(gates, "reject", asked["table"], asked["check"], where)
        assert len(str(told_of.value).splitlines()) == 1
    assert gates.rows("select count(*) from dq_audit.gate_decisions") == [(0,)]


def test_accepting_a_breach_lets_the_range_through(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(_one_position_twice(rows))
    assert not gates.bronze_gate().passed
    preview = _decide(gates, "accept", "bronze.raw_events", "kafka_position_unique", dry_run=True)
    assert "waives bronze.raw_events.kafka_position_unique" in preview.text
    assert not gates.bronze_gate().passed, "a dry run decides nothing"
    _decide(gates, "accept", "bronze.raw_events", "kafka_position_unique")
    report = gates.bronze_gate()
    accepted = next(outcome for outcome in report.outcomes if outcome.rule.name == "kafka_position_unique")
    assert (report.passed, accepted.status) == (True, Status.WARNING)
    assert "checked by hand" in accepted.message
    assert all(report.passed for report in (gates.silver(), gates.gold()))
    assert gates.rows("select count(*) from silver.cleaned_events") == [(900,)]


def test_rejected_rows_go_to_quarantine_and_nothing_is_lost(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    rows[7]["event_type"] = "flow!"
    gates.add_bronze(rows)
    assert blocking(gates.bronze_gate()) == {"event_type_valid": Status.FAILED}
    preview = _decide(gates, "reject", "bronze.raw_events", "event_type_valid", "event_type = 'flow!'", dry_run=True)
    assert preview.rows == 1
    assert rows[7]["event_id"] in preview.text
    decision = _decide(gates, "reject", "bronze.raw_events", "event_type_valid", "event_type = 'flow!'").decision
    assert all(report.passed for report in gates.cycle())
    quarantined = gates.rows("select event_id, failed_rules from quarantine.cleaned_events")
    assert [row[0] for row in quarantined] == [rows[7]["event_id"]]
    assert f"rejected:{decision.decision_id}" in quarantined[0][1]
    assert gates.rows("select count(*) from silver.cleaned_events") == [(899,)]
    assert gates.rows("select count(*) from bronze.raw_events") == [(900,)]


def test_a_mended_rule_lets_the_range_through(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clean_rows(RAW_EVENTS)
    rows[7]["source_mode"] = "rehearsal"
    gates.add_bronze(rows)
    assert blocking(gates.bronze_gate()) == {"source_mode_valid": Status.FAILED}
    monkeypatch.setattr(gates, "ctx", _with_source_mode_valid(gates, "source_mode is not null"))
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select count(*) from silver.cleaned_events") == [(900,)]


def _with_source_mode_valid(gates: GateLake, condition: str) -> JobContext:
    """For a job on a stream whose Bronze has another condition in that rule."""
    rules = (replace(r, measure=Holds(condition)) if r.name == "source_mode_valid" else r for r in RAW_EVENTS.rules)
    ingest = replace(EDITS.ingest, table=replace(RAW_EVENTS, rules=tuple(rules)))
    return replace(gates.ctx, stream=replace(EDITS, ingest=ingest))


def test_a_check_that_breaks_blocks_and_is_told(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    alerts, subject = Alerts(gates.ctx.settings), f"{RAW_EVENTS.identifier}.source_mode_valid"
    with monkeypatch.context() as patched:
        patched.setattr(gates, "ctx", _with_source_mode_valid(gates, "no_such_column > 0"))
        report = gates.bronze_gate()
    assert blocking(report) == {"source_mode_valid": Status.ERROR}
    assert gates.lake.state(RAW_EVENTS).head(AUDITED_TAG) is None
    tell_about_gate(report, alerts, "run 1")
    assert alerts.is_open(AlertKind.GATE_FAILED, subject)
    tell_about_gate(gates.bronze_gate(), alerts, "run 2")
    assert not alerts.is_open(AlertKind.GATE_FAILED, subject)


def test_a_killed_attempt_is_recorded_once_and_other_verdicts_are_another_attempt(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))

    def kill(_: Settings, name: str) -> None:
        if name == bronze_gate.GATE_AFTER_RESULTS:
            raise Killed

    with monkeypatch.context() as fault:
        fault.setattr(bronze_gate, "failpoint", kill)
        for _ in range(2):
            with pytest.raises(Killed):
                gates.bronze_gate()
    recorded = "select attempt, count(*) from dq_audit.quality_results group by 1 order by 1"
    assert gates.rows(recorded) == [(1, len(RAW_EVENTS.rules))]
    assert not gate_states(gates.lake)[0].blocked

    monkeypatch.setattr(gates, "ctx", _with_source_mode_valid(gates, "source_mode = 'replay'"))
    assert blocking(gates.bronze_gate()) == {"source_mode_valid": Status.FAILED}
    assert [failure["attempt"] for failure in gate_states(gates.lake)[0].failures] == [2]
    keys = "select count(*) from dq_audit.failing_rows where check_name = 'source_mode_valid'"
    assert gates.rows(keys) == [(100,)]
    _decide(gates, "accept", "bronze.raw_events", "source_mode_valid")
    assert gates.bronze_gate().passed
    statuses = "select attempt, status from dq_audit.quality_results where check_name = 'source_mode_valid' order by 1"
    assert gates.rows(statuses) == [(1, "PASSED"), (2, "FAILED"), (3, "WARNING")]
    assert gates.rows("select check_id from dq_audit.quality_results group by 1 having count(*) > 1") == []


def _sizes(gates: GateLake, *specs: TableSpec) -> list[int]:
    return [gates.rows(f"select count(*) from {spec.identifier}")[0][0] for spec in specs]


def test_a_gate_killed_before_its_verdicts_leaves_no_key_twice(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    monkeypatch.setattr(gates, "ctx", _with_source_mode_valid(gates, "source_mode = 'replay'"))
    append = Lakehouse.append

    def killed(lake: Lakehouse, spec: TableSpec, rows: pa.Table) -> None:
        if spec is QUALITY_RESULTS:
            raise Killed
        append(lake, spec, rows)

    with monkeypatch.context() as fault:
        fault.setattr(Lakehouse, "append", killed)
        with pytest.raises(Killed):
            gates.bronze_gate()
    written = _sizes(gates, FAILING_ROWS, PROFILE_METRICS)
    assert blocking(gates.bronze_gate()) == {"source_mode_valid": Status.FAILED}
    assert _sizes(gates, FAILING_ROWS, PROFILE_METRICS) == written
    assert written[0] == 100


def test_rows_that_bronze_lost_break_the_parity(gates: GateLake) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS), records=903)
    report = gates.bronze_gate()
    parity = next(outcome for outcome in report.blocking)
    assert (parity.rule.name, parity.records_failed) == ("parity_kafka_bronze", 3)


# ---- Silver -----------------------------------------------------------------------------------------------------------


def _spoil_silver(monkeypatch: pytest.MonkeyPatch, column: str, value: str) -> None:
    build = append.good

    def spoiled(marked: DataFrame, spec: TableSpec) -> DataFrame:
        wrong = sf.when(sf.col("event_id").endswith("000000000040"), sf.expr(value)).otherwise(sf.col(column))
        return build(marked, spec).withColumn(column, wrong.cast(marked.schema[column].dataType))

    monkeypatch.setattr(append, "good", spoiled)


def test_a_failed_silver_gate_publishes_nothing_and_keeps_the_evidence(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    before = gates.mains(CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    with monkeypatch.context() as fault:
        _spoil_silver(fault, "language", "null")
        failed = gates.silver()
    assert blocking(failed) == {"language_not_null": Status.FAILED}
    assert gates.mains(CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES) == before
    silver = gates.lake.state(CLEANED_EVENTS)
    assert silver.waiting
    evidence = silver.head(silver.waiting)
    assert evidence is not None
    assert evidence.total_records == 900
    assert not gates.gold().advanced
    state = gate_states(gates.lake)[1]
    assert [failure["check_name"] for failure in state.failures] == ["language_not_null"]

    mended = gates.silver()
    assert (mended.passed, mended.range) == (True, failed.range)
    assert gates.rows("select count(*) from silver.cleaned_events") == [(900,)]
    assert gates.lake.state(CLEANED_EVENTS).audit_branches == ()


@pytest.mark.parametrize("layer", ["silver", pytest.param("gold", marks=pytest.mark.long)])
def test_a_failed_range_does_not_grow_when_its_next_attempt_is_killed_at_once(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    """It may die before its branch holds anything."""
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    gates.bronze_gate()
    if layer == "gold":
        gates.silver()
    step, published = getattr(gates, layer), EDITS.publication(layer)
    with monkeypatch.context() as fault:
        fault.setattr(publication, "failpoint", _die_at(layer, failpoints.AFTER_RESULTS))
        with pytest.raises(Killed):
            step()
    failed = publication.pending_range(gates.lake.look(), published)
    with monkeypatch.context() as fault:
        for builder in (append.Appending, recompute.Recomputing):
            fault.setattr(builder, "build", _die)
        with pytest.raises(Killed):
            step()
    gates.add_bronze(rows[600:])
    gates.bronze_gate()
    if layer == "gold":
        gates.silver()
    assert publication.pending_range(gates.lake.look(), published) == failed
    assert step().range == failed
    attempts = (
        f"select distinct attempt from dq_audit.quality_results where range_end = {failed.end} and layer = '{layer}'"
    )
    assert gates.rows(attempts) == [(1,)], "the same verdicts are recorded once, however often it was killed"
    newer = step()
    assert (newer.passed, newer.range.start) == (True, failed.end)
    assert all(not report.advanced for report in gates.cycle()[: 2 if layer == "silver" else 3])


def _die(*_: object, **__: object) -> None:
    raise Killed


def _die_at(layer: str, point: str) -> Callable[[Settings, str], None]:
    def reached(_: Settings, name: str) -> None:
        if name == failpoints.of_layer(layer, point):
            raise Killed

    return reached


def test_silver_rows_can_be_accepted_or_rejected(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    _spoil_silver(monkeypatch, "language", "null")
    assert not gates.silver().passed
    _decide(gates, "accept", "silver.cleaned_events", "language_not_null")
    assert gates.silver().passed
    assert gates.rows("select count(*) from silver.cleaned_events where language is null") == [(1,)]


def test_rejecting_silver_rows_sends_them_to_quarantine(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    _spoil_silver(monkeypatch, "language", "null")
    assert not gates.silver().passed
    with pytest.raises(GateError, match="no row of the failed range meets"):
        _decide(gates, "reject", "silver.cleaned_events", "language_not_null", "language = 'xx'")
    with pytest.raises(GateError, match="not a valid condition"):
        _decide(gates, "reject", "silver.cleaned_events", "language_not_null", "langauge = 'xx'")
    condition = "event_id like '%000000000040'"
    decision = _decide(gates, "reject", "silver.cleaned_events", "language_not_null", condition).decision
    assert gates.silver().passed
    assert gates.rows("select failed_rules from quarantine.cleaned_events") == [(f"rejected:{decision.decision_id}",)]
    assert gates.rows("select count(*) from silver.cleaned_events") == [(899,)]


def test_a_lost_silver_row_is_named_by_its_hour(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows)
    gates.bronze_gate()
    build = append.good
    monkeypatch.setattr(
        append, "good", lambda marked, spec: build(marked, spec).where("event_id not like '%000000000040'")
    )
    report = gates.silver()
    assert blocking(report) == {"parity_bronze_silver": Status.FAILED}
    hour = f"{rows[40]['event_date']} {rows[40]['event_hour']:02d}h"
    assert report.blocking[0].failing_keys == (hour,)
    assert report.blocking[0].evidence["hours"] == {hour: -1}


def test_an_id_that_silver_holds_is_quarantined(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows)
    assert all(report.passed for report in gates.cycle())
    # The same id with another hour: Bronze looks for repetitions within the hour only, Silver within the day.
    late = [dict(row) for row in rows[400:]]
    for number, row in enumerate(late):
        row["kafka_offset"] += 10_000
        row["event_id"] = row["event_id"].replace("00000000-0000", "00000000-1111") if number else rows[0]["event_id"]
    gates.add_bronze(late)
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select event_id, failed_rules from quarantine.cleaned_events") == [
        (rows[0]["event_id"], "duplicate_event_id")
    ]


# ---- Gold -------------------------------------------------------------------------------------------------------------


def test_a_failed_gold_gate_publishes_none_of_the_four(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    gates.silver()
    before = gates.mains(*GOLD_TABLES)
    compute = entity_trends.compute
    with monkeypatch.context() as fault:
        fault.setattr(
            entity_trends,
            "compute",
            lambda *args, **named: compute(*args, **named).withColumn("rank", sf.col("rank") + 200),
        )
        failed = gates.gold()
    assert set(blocking(failed)) == {"rank_valid"}
    assert gates.mains(*GOLD_TABLES) == before
    assert gates.gold().passed
    assert gates.mains(*GOLD_TABLES) != before


def test_gold_that_does_not_add_up_names_the_hour(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    gates.silver()
    compute = hourly_stats.compute
    first = sf.col("stat_hour") == 10
    monkeypatch.setattr(
        hourly_stats,
        "compute",
        lambda *args, **named: compute(*args, **named).where(~(first & (sf.col("domain") == "de.wikipedia.org"))),
    )
    report = gates.gold()
    assert set(blocking(report)) == {"parity_silver_gold", "parity_hourly_daily"}
    lost = next(outcome for outcome in report.blocking if outcome.rule.name == "parity_silver_gold")
    assert lost.failing_keys == ("2026-03-01 10h",)


TOGETHER = pytest.param(True, id="together")
IN_TURN = pytest.param(False, id="in turn")


def _on_a_catalog_that_moves_one_table_at_a_time(fault: pytest.MonkeyPatch) -> None:
    fault.setattr(lakehouse, "LocalCatalog", RestCatalog)  # which this one is not: each table is committed by itself


@pytest.mark.parametrize("together", [TOGETHER, IN_TURN])
def test_gold_killed_amid_its_publication(gates: GateLake, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    gates.cycle()
    before = gates.mains(*GOLD_TABLES)
    seen = gates.rows("select sum(total_events) from gold.hourly_stats")
    gates.add_bronze(rows[600:])
    gates.bronze_gate()
    gates.silver()
    with monkeypatch.context() as fault:
        if not together:
            _on_a_catalog_that_moves_one_table_at_a_time(fault)
        fault.setattr(publication, "failpoint", _die_at("gold", failpoints.AMID_PUBLICATION))
        with pytest.raises(Killed):
            gates.gold()
    moved = [name for name, main in gates.mains(*GOLD_TABLES).items() if main != before[name]]
    assert moved == ([] if together else [HOURLY_STATS.identifier])
    assert gates.rows("select sum(total_events) from gold.hourly_stats") == seen, "readers see the older common version"
    assert gates.rows("select sum(total_events) from gold.daily_analytics_summary") == seen
    assert gates.gold().passed
    assert gates.rows("select sum(total_events) from gold.hourly_stats") == [(900,)]
    assert gates.rows("select sum(total_events) from gold.daily_analytics_summary") == [(900,)]
    assert gates.lake.state(HOURLY_STATS).position == gates.lake.state(GOLD_TABLES[3]).position
    assert not any(gates.lake.state(spec).audit_branches for spec in GOLD_TABLES)


@pytest.mark.parametrize("leader_first", [True, False], ids=["leader first", "as before ADR 23"])
@pytest.mark.parametrize("branch_left", [True, False], ids=["branch", "no branch"])
def test_silver_and_its_quarantine_are_brought_together(
    gates: GateLake, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch, leader_first: bool, branch_left: bool
) -> None:
    """One of them is published, the other waits on its branch; where it has none, both go back and are built again."""
    gates.add_bronze(_rows_with_one_for_quarantine())
    gates.bronze_gate()
    with monkeypatch.context() as fault:
        fault.setattr(publication, "failpoint", _die_at("silver", failpoints.AFTER_RESULTS))
        with pytest.raises(Killed):
            gates.silver()
    [branch] = gates.lake.state(CLEANED_EVENTS).audit_branches
    first, second = (CLEANED_EVENTS, QUARANTINE) if leader_first else (QUARANTINE, CLEANED_EVENTS)
    gates.lake.publish([first], branch)
    if not branch_left:
        gates.lake.drop_ref(second, branch)
    assert gates.silver().passed
    assert gates.rows("select count(*) from quarantine.cleaned_events") == [(1,)]
    assert gates.gold().passed
    assert table_hashes(gates.lake) == calm


@pytest.mark.parametrize(
    "moved", [QUARANTINE, CLEANED_EVENTS, HOURLY_STATS, GOLD_TABLES[3]], ids=lambda t: t.identifier
)
def test_a_table_that_moved_before_its_publication_is_built_once_more(
    gates: GateLake, moved: TableSpec, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody outside the locks commits between the audit and the publication."""
    gates.add_bronze(_rows_with_one_for_quarantine())
    publish, writers = Lakehouse.publish, ["somebody"]

    def publish_behind_a_commit(lake: Lakehouse, specs: Sequence[TableSpec], *rest: Any, **named: Any) -> None:
        if moved in specs and writers:
            writers.clear()
            lake.append(moved)
        publish(lake, specs, *rest, **named)

    with monkeypatch.context() as fault:
        fault.setattr(Lakehouse, "publish", publish_behind_a_commit)
        assert all(report.passed and report.advanced for report in gates.cycle())
    assert not writers
    assert gates.rows("select count(*) from quarantine.cleaned_events") == [(1,)]
    assert table_hashes(gates.lake) == calm


def _without_leases(fault: pytest.MonkeyPatch, gates: GateLake) -> None:
    for name in ("only_run", "main_of"):
        fault.setattr(type(gates.ctx.leases), name, lambda *_: nullcontext())


@pytest.mark.parametrize("overtaken_at", ["begin", failpoints.AFTER_BRANCHES, failpoints.AFTER_RESULTS])
@pytest.mark.parametrize("layer", ["silver", "gold"])
def test_two_runs_at_once_without_their_lock(
    gates: GateLake, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch, layer: str, overtaken_at: str
) -> None:
    """At some point of its way one is overtaken by another that does the whole: it finds that it need not, and says so."""
    gates.add_bronze(_rows_with_one_for_quarantine())
    gates.bronze_gate()
    if layer == "gold":
        gates.silver()
    faster: list[GateReport | None] = []

    def overtake() -> None:
        if not faster:
            faster.append(None)
            other = replace(GateLake(gates.ctx.settings).ctx, run_id="faster")
            faster[0] = publication.run(other, EDITS.publication(layer))

    begin = gate.begin_attempt

    def at_begin(*arguments: Any, **named: Any) -> GateContext:
        if overtaken_at == "begin":
            overtake()
        return begin(*arguments, **named)

    def at_failpoint(_: Settings, name: str) -> None:
        if name == failpoints.of_layer(layer, overtaken_at):
            overtake()

    with monkeypatch.context() as fault:
        _without_leases(fault, gates)
        fault.setattr(gate, "begin_attempt", at_begin)
        fault.setattr(publication, "failpoint", at_failpoint)
        report = getattr(gates, layer)()
    assert faster[0] is not None
    assert (faster[0].passed, faster[0].advanced) == (True, True)
    assert (report.passed, report.advanced) == (True, False)
    assert gates.rows("select count(*) from dq_audit.quality_results where status in ('FAILED', 'ERROR')") == [(0,)]
    assert all(report.passed for report in gates.cycle())
    assert table_hashes(gates.lake) == calm


def test_attempts_behind_a_closed_gate_leave_two_branches_at_most(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS)[:100])
    gates.bronze_gate()
    with monkeypatch.context() as fault:
        _spoil_silver(fault, "language", "null")
        for _ in range(4):
            assert not gates.silver().passed
    silver = gates.lake.state(CLEANED_EVENTS)
    assert len(silver.audit_branches) == 2
    assert silver.waiting in silver.audit_branches
    assert gates.silver().passed
    assert gates.lake.state(CLEANED_EVENTS).audit_branches == ()


def test_gold_refuses_silver_that_no_gate_has_passed(gates: GateLake) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    gates.silver()
    other = GateLake(gates.ctx.settings)
    # Someone writes to Silver past its gate: the snapshot carries a position that was never audited.
    other.lake.append(CLEANED_EVENTS, properties={"wikistream.position": json.dumps({"bronze.raw_events": 1})})
    assert set(blocking(gates.gold())) == {"upstream_gates_passed"}


def test_late_events_change_their_hour_only_and_days_become_final(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:-1])
    gates.cycle()
    hour = "select stat_hour, sum(total_events), bool_and(is_final) from gold.hourly_stats group by 1 order by 1"
    before = gates.rows(hour)
    late = {**rows[0], "event_id": "00000000-0000-4000-8000-00000000late", "kafka_offset": 99_999}
    gates.add_bronze([late, rows[-1]])
    gates.cycle()
    after = gates.rows(hour)
    changed = {now[0]: now[1] - then[1] for then, now in zip(before, after, strict=True) if now[1] != then[1]}
    assert changed == {10: 1, rows[-1]["event_hour"]: 1}
    newest = rows[-1]["event_timestamp"]
    lateness = gates.ctx.settings.allowed_lateness_hours
    assert [final for _, _, final in after] == [
        h + 1 + lateness <= newest.hour + newest.minute / 60 for h, _, _ in after
    ]
    assert [final for _, _, final in after] == [True, True, False, False, False]


def _decide(
    gates: GateLake, action: Any, table: str, check: str, where: str | None = None, dry_run: bool = False
) -> Any:
    return decide_on_failure(
        gates.ctx,
        action,
        table,
        check,
        reason="checked by hand",
        decided_by="ada",
        predicate=where,
        dry_run=dry_run,
    )
